//! Groups of MCP servers, with their members, as API clients see them.
//!
//! A group is no dependency: it has no breaker, no workers and no figures of its own.

#![cfg_attr(
    not(feature = "mcp"),
    allow(dead_code, reason = "without MCP servers there are no groups")
)]

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Admin;
#[cfg(feature = "mcp")]
use crate::Health;
#[cfg(feature = "mcp")]
use crate::mcp::GroupStatus;
#[cfg(feature = "mcp")]
use crate::sidecar::names::health_name;

/// A group, as API clients see it.
#[derive(Debug, Serialize)]
pub(super) struct GroupView {
    name: String,
    health: &'static str,
    health_reason: Option<String>,
    /// Number of sessions of its callers.
    sessions: usize,
    members: Vec<MemberView>,
    /// Names of the members that are not well.
    sick: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    prefix: String,
    name: String,
    health: &'static str,
    health_reason: Option<String>,
}

/// Handles `GET /api/groups`.
pub(super) async fn list(State(admin): State<Admin>) -> Json<Vec<GroupView>> {
    Json(all(&admin))
}

#[cfg(feature = "mcp")]
fn all(admin: &Admin) -> Vec<GroupView> {
    admin.groups().into_iter().map(view).collect()
}

#[cfg(not(feature = "mcp"))]
fn all(_: &Admin) -> Vec<GroupView> {
    Vec::new()
}

#[cfg(feature = "mcp")]
fn view(group: GroupStatus) -> GroupView {
    let (health, health_reason) = told(&group.health());
    let sick = group.sick().map(|member| member.name.clone()).collect();
    let members = group.members.into_iter().map(|member| {
        let (health, health_reason) = told(&member.health);
        MemberView {
            prefix: member.prefix,
            name: member.name,
            health,
            health_reason,
        }
    });
    GroupView {
        health,
        health_reason,
        sessions: group.sessions,
        members: members.collect(),
        sick,
        name: group.name,
    }
}

#[cfg(feature = "mcp")]
fn told(health: &Health) -> (&'static str, Option<String>) {
    (health_name(health), super::dependencies::reason_of(health))
}
