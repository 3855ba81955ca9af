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
    let is_well = dependencies.is_empty() && fleet.is_none();
    let (code, status) = match (reasons.is_empty(), is_well) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (true, true) => (StatusCode::OK, "ready"),
    };
    let readiness = ReadinessView {
        status,
        reasons,
        dependencies,
        fleet,
    };
    (code, Json(readiness))
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
