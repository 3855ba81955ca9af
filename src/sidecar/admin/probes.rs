//! Liveness and readiness of the process.
//!
//! A failing dependency does not make the process unready: handling such failures is its purpose.
//! The failure is reported all the same (rule OPS-1).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use breakerbox_policy::Time;
use serde::Serialize;

use super::{Admin, Phase};
use crate::lock::LockExt as _;
use crate::sidecar::names::health_name;
use crate::{DependencyStatus, Health};
use breakerbox_actors::redact;

/// Liveness: any answer means alive.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Readiness of the process.
#[derive(Debug, Serialize)]
pub(super) struct ReadinessView {
    /// `ready`; `degraded` (a dependency does not answer by itself, the files of the configuration do not
    /// hold, or the board of the fleet is not reached); or `unready`.
    status: &'static str,
    /// Reasons why no calls are accepted.
    reasons: Vec<&'static str>,
    /// Dependencies that do not answer by themselves.
    dependencies: Vec<SickDependency>,
    /// Reason for which the files of the configuration do not hold, since a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
    /// Changed keys that hold only after a new start of the process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits: Vec<String>,
    /// Reason for which the board of the fleet is not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<String>,
}

#[derive(Debug, Serialize)]
struct SickDependency {
    name: String,
    health: &'static str,
    reason: String,
}

pub(super) async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let reasons = match admin.phase() {
        Phase::Starting => vec!["starting"],
        Phase::Ready => Vec::new(),
        Phase::ShuttingDown => vec!["shutting down"],
    };
    let dependencies: Vec<SickDependency> = admin
        .runtime()
        .statuses()
        .into_iter()
        .filter_map(sick)
        .collect();
    let fleet = super::fleet::missing(&admin).map(|reason| redact(&reason).into_owned());
    let (configuration, waits) = admin.inner.files.acquire().view();
    let is_well = dependencies.is_empty() && fleet.is_none() && configuration.is_none();
    let (code, status) = match (reasons.is_empty(), is_well) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (true, true) => (StatusCode::OK, "ready"),
    };
    let readiness = ReadinessView {
        status,
        reasons,
        dependencies,
        configuration,
        waits,
        fleet,
    };
    (code, Json(readiness))
}

/// Notes about the files of the configuration: each stands until a reload makes it wrong.
#[derive(Debug, Default)]
pub(super) struct FilesNote {
    /// Why the files are refused as a whole, and since when.
    refused: Option<(Time, String)>,
    /// Why dependencies go on with former versions, and since when.
    not_started: Option<(Time, String)>,
    /// Changed keys that hold only after a new start of the process.
    waits: Vec<String>,
}

impl FilesNote {
    /// Returns the reason for which the files do not hold, and the keys that wait.
    fn view(&self) -> (Option<String>, Vec<String>) {
        let texts = [&self.refused, &self.not_started].into_iter().flatten();
        let texts: Vec<&str> = texts.map(|(_, text)| text.as_str()).collect();
        let reason = (!texts.is_empty()).then(|| texts.join("; "));
        (reason, self.waits.clone())
    }
}

#[cfg(feature = "cli")]
impl Admin {
    /// Notes that the files of the configuration are refused, for these problems. It stands until
    /// they are good again.
    pub(crate) fn refuse_files(&self, problems: &str) {
        let lines = problems
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let text = lines.collect::<Vec<_>>().join("; ");
        let mut note = self.inner.files.acquire();
        // CFG-2: the process goes on, and does not start again with these files.
        note.refused = Some(self.files_text(note.refused.take(), |since| {
            format!(
                "the files of the configuration are refused since {since}, the former settings hold: {text}"
            )
        }));
    }

    /// Notes that the files are good. Returns true if they had been refused.
    pub(crate) fn accept_files(&self) -> bool {
        self.inner.files.acquire().refused.take().is_some()
    }

    /// Notes the dependencies of which the configured version could not be started, with the reasons.
    /// It stands until the next reload.
    pub(crate) fn note_not_started(&self, problems: &[String]) {
        let mut note = self.inner.files.acquire();
        let former = note.not_started.take();
        if !problems.is_empty() {
            let problems = problems.join("; ");
            note.not_started = Some(self.files_text(former, |since| {
                format!(
                    "since {since} a new version did not start, a former one goes on: {problems}"
                )
            }));
        }
    }

    /// Notes the changed keys that hold only after a new start.
    pub(crate) fn note_waits(&self, waits: &[String]) {
        self.inner.files.acquire().waits = waits.to_vec();
    }

    /// Returns a text with the time since when it holds.
    fn files_text(
        &self,
        former: Option<(Time, String)>,
        text: impl FnOnce(String) -> String,
    ) -> (Time, String) {
        let since = former.map_or_else(|| self.inner.stamps.now(), |(since, _)| since);
        let text = text(self.inner.stamps.of(since).to_string());
        (since, redact(&text).into_owned())
    }
}

fn sick(one: DependencyStatus) -> Option<SickDependency> {
    let health = health_name(&one.health);
    let (Health::Degraded { reason } | Health::Down { reason }) = one.health else {
        return None;
    };
    Some(SickDependency {
        name: one.name,
        health,
        reason: redact(&reason).into_owned(),
    })
}
