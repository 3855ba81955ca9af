//! Errors of the admin API in the format of RFC 9457, with the given and the allowed value.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use breakerbox_actors::nearest_word;
use serde::Serialize;

use super::Admin;

/// Maximum number of names that a problem lists.
const SHOWN_NAMES: usize = 8;

/// An `application/problem+json` document. It never contains a token or a header value.
#[derive(Debug, Clone, Serialize)]
pub(super) struct AdminProblem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    given: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<String>,
}

impl AdminProblem {
    /// Creates a problem. `code` becomes the type `urn:breakerbox:<code>`.
    pub(super) fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            kind: format!("urn:breakerbox:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            given: None,
            allowed: None,
        }
    }

    /// Returns the problem of an unknown dependency name, with the known one that is most similar. A group
    /// and a pool are no dependencies, and are told with their members.
    pub(super) fn unknown_dependency(admin: &Admin, name: &str) -> Self {
        let known = admin.runtime().statuses().into_iter();
        let known: Vec<String> = known.map(|one| one.name.to_string()).collect();
        Self::unknown(name, &known, &groups_and_pools(admin))
    }

    fn unknown(name: &str, known: &[String], composed: &[ComposedName]) -> Self {
        let of = |detail: &str, allowed: String| {
            let problem = Self::new(404, "unknown-dependency", detail);
            problem.given(name).allowed(allowed)
        };
        if let Some((_, kind, members)) = composed.iter().find(|(other, ..)| other == name) {
            let detail = format!("this is a {kind}, which has no breaker of its own");
            return of(
                &detail,
                format!("one of its members: {}", members.join(", ")),
            );
        }
        let composed = composed.iter().map(|(other, ..)| other);
        let all = known.iter().chain(composed).map(String::as_str);
        let names = match known.len() {
            1..=SHOWN_NAMES => known.join(", "),
            _ => "the names that /api/dependencies lists".to_owned(),
        };
        let allowed = match nearest_word(name, all) {
            Some(near) => format!("{names}; did you mean {near}?"),
            None => names,
        };
        of("no dependency has this name", allowed)
    }

    /// Sets the given value, cut if it is long.
    pub(super) fn given(mut self, given: impl Into<String>) -> Self {
        let given: String = given.into();
        self.given = Some(given.chars().take(200).collect());
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }
}

/// A name that stands for several dependencies, the word for it, and their names.
type ComposedName = (String, &'static str, Vec<String>);

/// Returns the groups of MCP servers and the pools.
fn groups_and_pools(admin: &Admin) -> Vec<ComposedName> {
    groups(admin).into_iter().chain(pools(admin)).collect()
}

#[cfg(feature = "mcp")]
fn groups(admin: &Admin) -> Vec<ComposedName> {
    let all = admin.groups().into_iter();
    let all = all.map(|group| {
        let members = group.members.into_iter().map(|member| member.name);
        (group.name, "group", members.collect())
    });
    all.collect()
}

#[cfg(not(feature = "mcp"))]
fn groups(_: &Admin) -> Vec<ComposedName> {
    Vec::new()
}

#[cfg(feature = "gateway")]
fn pools(admin: &Admin) -> Vec<ComposedName> {
    let all = admin.models().into_iter();
    let all = all.flat_map(|servers| servers.pools()).map(|pool| {
        let members = pool.members.into_iter().map(|member| member.name);
        (pool.name, "pool", members.collect())
    });
    all.collect()
}

#[cfg(not(feature = "gateway"))]
fn pools(_: &Admin) -> Vec<ComposedName> {
    Vec::new()
}

impl IntoResponse for AdminProblem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/problem+json");
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"breakerbox\"");
            headers.insert(WWW_AUTHENTICATE, scheme);
        }
        let mut response = (status, headers, Json(self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_a_name_that_is_no_dependency_is_told_with_what_it_is_or_nearly_is() {
        let known = ["payments".to_owned(), "memory".to_owned()];
        let toolbox = ("toolbox".to_owned(), "group", vec!["memory".to_owned()]);
        let said = |name: &str| {
            let problem = AdminProblem::unknown(name, &known, std::slice::from_ref(&toolbox));
            format!(
                "{}, {}",
                problem.detail,
                problem.allowed.unwrap_or_default()
            )
        };
        for (name, expected) in [
            ("PAYMENTS", "did you mean payments?"),
            ("toolbx", "did you mean toolbox?"),
            (
                "toolbox",
                "a group, which has no breaker of its own, one of its members: memory",
            ),
        ] {
            assert!(said(name).contains(expected), "{}", said(name));
        }
        assert!(
            said("qqq").ends_with(", payments, memory"),
            "{}",
            said("qqq")
        );
        let many: Vec<String> = (0..9).map(|number| format!("one_{number}")).collect();
        let problem = AdminProblem::unknown("qqq", &many, &[]);
        let allowed = problem.allowed.unwrap_or_default();
        assert!(allowed.contains("/api/dependencies"), "{allowed}");
    }
}
