//! Liveness and readiness of the process.
//!
//! A failing dependency does not make the process unready: handling such failures is its purpose.
//! The failure is reported all the same (rule OPS-1).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
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
    /// `ready`, `degraded` (some dependency does not answer by itself), or `unready`.
    status: &'static str,
    /// Reasons why no calls are accepted.
    reasons: Vec<&'static str>,
    /// Dependencies that do not answer by themselves.
    dependencies: Vec<SickDependency>,
    /// Reason for which the files of the configuration are refused, since a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
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
    let configuration = refused_files(&admin);
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
        fleet,
    };
    (code, Json(readiness))
}

#[cfg(feature = "cli")]
impl Admin {
    /// Notes that the files of the configuration are refused, for these problems. It stands until
    /// they are good again.
    pub(crate) fn refuse_files(&self, problems: &str) {
        let now = self.inner.stamps.now();
        let mut refused = self.inner.refused_files.acquire();
        let since = refused.as_ref().map_or(now, |(since, _)| *since);
        let lines = problems
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let text = lines.collect::<Vec<_>>().join("; ");
        *refused = Some((since, redact(&text).into_owned()));
    }

    /// Notes that the files are good. Returns true if they had been refused.
    pub(crate) fn accept_files(&self) -> bool {
        self.inner.refused_files.acquire().take().is_some()
    }
}

/// Returns the reason for which the files are refused, with the time since when they are.
fn refused_files(admin: &Admin) -> Option<String> {
    let refused = admin.inner.refused_files.acquire().clone();
    let (since, problems) = refused?;
    let since = admin.inner.stamps.of(since);
    // CFG-2: the process goes on, and does not start again with these files.
    Some(format!(
        "the files of the configuration are refused since {since}, the former settings hold: {problems}"
    ))
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
