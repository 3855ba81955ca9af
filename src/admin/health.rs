//! The health checks that the program shows: their last reports, and a check at an operator's word.
//!
//! Reading asks nobody. A check asks the service, costs what it costs, and needs the token.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Serialize;

use super::guard::{Peer, author};
use super::operate::{Body, read};
use super::problem::Problem;
use super::{Admin, locked};
use crate::agents::health::{HealthMonitor, Report};

/// One service's reports, the newest first.
#[derive(Debug, Serialize)]
pub(super) struct View {
    name: String,
    reports: Vec<Report>,
}

impl View {
    fn of(monitor: &HealthMonitor) -> Self {
        Self {
            name: monitor.name().to_owned(),
            reports: monitor.reports(),
        }
    }
}

impl Admin {
    /// Shows the reports of this monitor; one of the same name is replaced.
    pub fn show_health(&self, monitor: HealthMonitor) {
        let name = monitor.name().to_owned();
        locked(&self.inner.health).insert(name, monitor);
    }

    fn health_of(&self, name: &str) -> Result<HealthMonitor, Problem> {
        let found = locked(&self.inner.health).get(name).cloned();
        found.ok_or_else(|| {
            Problem::new(404, "unknown-health", "no health check has this name")
                .given(name)
                .allowed("the names that /api/health lists")
        })
    }
}

pub(super) async fn list(State(admin): State<Admin>) -> Json<Vec<View>> {
    let monitors = locked(&admin.inner.health);
    Json(monitors.values().map(View::of).collect())
}

pub(super) async fn one(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<View>, Problem> {
    Ok(Json(View::of(&admin.health_of(&name)?)))
}

pub(super) async fn check(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    peer: Option<Extension<Peer>>,
    body: Body,
) -> Result<Json<Report>, Problem> {
    let reason = read(body)?.reason;
    let monitor = admin.health_of(&name)?;
    let by = author(peer.map(|peer| peer.0));
    admin.runtime().note_operation(&name, "check", &by, &reason);
    let report = monitor.check().await;
    report.map(Json).ok_or_else(|| {
        Problem::new(
            503,
            "no-monitor",
            "the monitor of this health check is not running",
        )
    })
}
