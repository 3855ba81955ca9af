//! Whether the process lives, and whether it takes calls.
//!
//! A sick dependency is no reason to take the process out of service: it is here to stand that.
//! It is told all the same (rule OPS-1).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Serialize;

use super::{Admin, Phase};
use crate::{DependencyStatus, Health, redact};

/// That somebody answers is all there is to say.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// How ready the process is.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    /// `ready`, `degraded` (some dependency does not answer by itself), or `unready`.
    status: &'static str,
    /// Why no calls are taken.
    reasons: Vec<&'static str>,
    /// The dependencies that do not answer by themselves.
    dependencies: Vec<Sick>,
}

#[derive(Debug, Serialize)]
struct Sick {
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
    let dependencies: Vec<Sick> = admin
        .runtime()
        .statuses()
        .into_iter()
        .filter_map(sick)
        .collect();
    let (code, status) = match (reasons.is_empty(), dependencies.is_empty()) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (true, true) => (StatusCode::OK, "ready"),
    };
    let readiness = Readiness {
        status,
        reasons,
        dependencies,
    };
    (code, Json(readiness))
}

fn sick(one: DependencyStatus) -> Option<Sick> {
    let health = word(&one.health);
    let (Health::Degraded { reason } | Health::Down { reason }) = one.health else {
        return None;
    };
    Some(Sick {
        name: one.name,
        health,
        reason: redact(&reason).into_owned(),
    })
}

/// One word for how a dependency does.
pub(super) fn word(health: &Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Degraded { .. } => "degraded",
        Health::Down { .. } => "down",
    }
}
