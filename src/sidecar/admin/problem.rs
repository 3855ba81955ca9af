//! Errors of the admin API in the format of RFC 9457, with the given and the allowed value.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use breakerbox_actors::nearest_word;
use serde::Serialize;

use crate::Runtime;

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

    /// Returns the problem of an unknown dependency name, with the known one that is most similar.
    pub(super) fn unknown_dependency(runtime: &Runtime, name: &str) -> Self {
        let known = runtime
            .statuses()
            .into_iter()
            .map(|one| one.name.to_string());
        let known: Vec<String> = known.collect();
        let allowed = match nearest_word(name, known.iter().map(String::as_str)) {
            Some(near) => format!("the names that /api/dependencies lists; did you mean {near}?"),
            None => "the names that /api/dependencies lists".to_owned(),
        };
        Self::new(404, "unknown-dependency", "no dependency has this name")
            .given(name)
            .allowed(allowed)
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
