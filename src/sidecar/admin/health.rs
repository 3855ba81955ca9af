//! Health checks that the program registers: their last reports, and a check on an operator's
//! command.
//!
//! Reading makes no request. A check calls the service, at the service's cost, and needs the token.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Serialize;

use super::Admin;
use super::auth::{PeerAddress, author};
use super::operate::{ChangeBody, read};
use super::problem::AdminProblem;
use crate::agents::health::{HealthMonitor, HealthReport};
use crate::lock::LockExt as _;

/// Reports of one service, newest first.
#[derive(Debug, Serialize)]
pub(super) struct ServiceHealthView {
    name: String,
    reports: Vec<HealthReport>,
}

impl ServiceHealthView {
    fn of(monitor: &HealthMonitor) -> Self {
        Self {
            name: monitor.name().to_owned(),
            reports: monitor.reports(),
        }
    }
}

/// Returns the routes of the reports.
pub(super) fn reads() -> Router<Admin> {
    Router::new()
        .route("/api/health", get(list))
        .route("/api/health/{name}", get(one))
}

/// Returns the route of a check.
pub(super) fn changes() -> Router<Admin> {
    Router::new().route("/api/health/{name}/check", post(check))
}

impl Admin {
    /// Registers a monitor, replacing one of the same name.
    pub fn show_health(&self, monitor: HealthMonitor) {
        let name = monitor.name().to_owned();
        self.inner.health.acquire().insert(name, monitor);
    }

    fn health_of(&self, name: &str) -> Result<HealthMonitor, AdminProblem> {
        let found = self.inner.health.acquire().get(name).cloned();
        found.ok_or_else(|| {
            AdminProblem::new(404, "unknown-health", "no health check has this name")
                .given(name)
                .allowed("the names that /api/health lists")
        })
    }
}

async fn list(State(admin): State<Admin>) -> Json<Vec<ServiceHealthView>> {
    let monitors = admin.inner.health.acquire();
    Json(monitors.values().map(ServiceHealthView::of).collect())
}

async fn one(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<ServiceHealthView>, AdminProblem> {
    Ok(Json(ServiceHealthView::of(&admin.health_of(&name)?)))
}

async fn check(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    peer: Option<Extension<PeerAddress>>,
    body: ChangeBody,
) -> Result<Json<HealthReport>, AdminProblem> {
    let reason = read(body)?.reason;
    let monitor = admin.health_of(&name)?;
    let by = author(peer.map(|peer| peer.0));
    admin.runtime().note_operation(&name, "check", &by, &reason);
    let report = monitor.check().await;
    report.map(Json).ok_or_else(|| {
        AdminProblem::new(
            503,
            "no-monitor",
            "the monitor of this health check is not running",
        )
    })
}
