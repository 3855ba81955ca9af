//! Faults of the fakes.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Json, Response};
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::FakeRequest;

/// A fault in the response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FakeFault {
    /// An error in Google's envelope: HTTP status, canonical status, message.
    Google(u16, &'static str, &'static str),
    /// An HTML page, as front ends return.
    Html(u16),
    /// A throttled request, with or without retry hints.
    Throttled {
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
        /// `RetryInfo`.
        retry_info: Option<Duration>,
    },
    /// The daily query quota is used up.
    QuotaOfTheDay,
    /// A used-up daily quota in the older form, a 403.
    QuotaOfTheDayOlder,
    /// A success status, and a body that is not JSON.
    Malformed,
    /// A success status, and JSON of another shape.
    OtherShape,
    /// A response that begins, then the connection is closed.
    CutOff,
    /// A request that is accepted and never answered.
    Hang,
    /// An error that repeats the request, including its keys.
    Echo(u16),
}

fn envelope(code: u16, status: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message, "status": status } })
}

pub(super) fn reply(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(body)).into_response()
}

/// Returns an error in Google's envelope.
pub(super) fn google(code: u16, status: &str, message: &str) -> Response {
    reply(code, envelope(code, status, message))
}

impl FakeFault {
    /// Returns an internal error of the service.
    #[must_use]
    pub const fn internal() -> Self {
        Self::Google(500, "INTERNAL", "Internal error encountered.")
    }

    pub(super) async fn answer(self, seen: &FakeRequest) -> Response {
        match self {
            Self::Google(code, status, message) => google(code, status, message),
            Self::Html(code) => {
                let page = "<!DOCTYPE html><html><title>Error</title></html>";
                let mut response = reply(code, Value::Null);
                *response.body_mut() = Body::from(page);
                let headers = response.headers_mut();
                headers.remove(CONTENT_LENGTH);
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
                response
            }
            Self::Throttled {
                retry_after,
                retry_info,
            } => throttled(retry_after, retry_info),
            Self::QuotaOfTheDay => quota(),
            Self::QuotaOfTheDayOlder => {
                let mut body = envelope(403, "PERMISSION_DENIED", "Daily Limit Exceeded");
                let reason = json!({ "domain": "usageLimits", "reason": "dailyLimitExceeded" });
                body["error"]["errors"] = json!([reason]);
                reply(403, body)
            }
            Self::Malformed => {
                ([(CONTENT_TYPE, "application/json")], "{\"items\": [").into_response()
            }
            Self::OtherShape => reply(200, json!({ "note": "out of memory" })),
            Self::CutOff => {
                let begin = Ok::<_, Infallible>(Bytes::from_static(b"{\"items\":"));
                let body = Body::from_stream(stream::iter([begin]));
                // Longer than the body: the server notices, and closes the connection.
                ([(CONTENT_LENGTH, "1000")], body).into_response()
            }
            Self::Hang => std::future::pending().await,
            Self::Echo(code) => {
                let sent = format!("you sent {} with {:?}", seen.target, keys(seen));
                google(code, "INTERNAL", &sent)
            }
        }
    }
}

/// Returns all header values of a request, also those hidden from logs: each may be a key.
fn keys(seen: &FakeRequest) -> Vec<String> {
    let values = seen.headers.values().map(HeaderValue::as_bytes);
    values
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}

fn throttled(retry_after: Option<u64>, retry_info: Option<Duration>) -> Response {
    let mut body = envelope(
        429,
        "RESOURCE_EXHAUSTED",
        "Resource exhausted. Try again later.",
    );
    if let Some(delay) = retry_info {
        body["error"]["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}s", delay.as_secs_f64()),
        }]);
    }
    let mut response = reply(429, body);
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn quota() -> Response {
    let message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per day' of \
                   service 'customsearch.googleapis.com' for consumer 'project_number:1'.";
    let mut body = envelope(429, "RESOURCE_EXHAUSTED", message);
    body["error"]["errors"] = json!([{
        "domain": "global", "reason": "rateLimitExceeded", "message": message,
    }]);
    body["error"]["details"] = json!([{
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com",
        "metadata": { "quota_limit": "DefaultPerDayPerProject", "service": "customsearch.googleapis.com" },
    }]);
    reply(429, body)
}
