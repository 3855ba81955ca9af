//! The fleet of replicas, and operators' commands for all of them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::Admin;

/// Handles `GET /api/fleet`: `null` without a fleet.
pub(super) async fn show(State(admin): State<Admin>) -> Json<Value> {
    Json(status(&admin).unwrap_or_default())
}

#[cfg(feature = "fleet")]
fn status(admin: &Admin) -> Option<Value> {
    let status = admin.inner.fleet.get()?.status();
    serde_json::to_value(status).ok()
}

#[cfg(not(feature = "fleet"))]
fn status(_: &Admin) -> Option<Value> {
    None
}

/// Returns true if there is a fleet.
pub(super) fn is_there(admin: &Admin) -> bool {
    #[cfg(feature = "fleet")]
    return admin.inner.fleet.get().is_some();
    #[cfg(not(feature = "fleet"))]
    {
        let _ = admin;
        false
    }
}

/// Returns the reason for which the board of the fleet is not reached, if there is a fleet.
pub(super) fn missing(admin: &Admin) -> Option<String> {
    let status = status(admin)?;
    if status["connected"] == true {
        return None;
    }
    let reason = status["reason"].as_str();
    Some(reason.unwrap_or("the board is not reached yet").to_owned())
}

/// Gives a command to the other replicas, or an override to all of them. Returns false if the board
/// is not reached.
#[cfg(feature = "fleet")]
pub(super) async fn operate(
    admin: &Admin,
    (name, operation): (&str, &str),
    (reason, by): (&str, &str),
    for_: Option<Duration>,
) -> bool {
    let Some(fleet) = admin.inner.fleet.get() else {
        return false;
    };
    let given = fleet.operate(name, operation, (reason, by), for_).await;
    given.is_ok()
}

#[cfg(not(feature = "fleet"))]
pub(super) async fn operate(
    _: &Admin,
    _: (&str, &str),
    _: (&str, &str),
    _: Option<Duration>,
) -> bool {
    false
}
