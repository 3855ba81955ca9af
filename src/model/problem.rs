//! Our own errors in the words of a dialect, so that its client libraries can read them.

use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{Api, ApiShape};
use crate::policy::Executed;

/// An error of ours: why a call has no answer of a provider.
#[derive(Debug, Clone, Copy)]
pub struct ModelProblem<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The code, such as `breaker-open`.
    pub code: &'a str,
    /// The message for people.
    pub message: &'a str,
    /// The dependency.
    pub dependency: Option<&'a str>,
    /// The state of its breaker.
    pub state: Option<&'a str>,
    /// Execution of the work.
    pub executed: Executed,
    /// The wait until a call may succeed.
    pub retry_after: Option<Duration>,
    /// True if client libraries may retry on their own (`callers_retry`).
    pub may_retry: bool,
}

impl ModelProblem<'_> {
    /// Returns the members that are the same in all dialects.
    fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        // LLM-13: the fields of the problem document.
        members.insert("code".to_owned(), self.code.into());
        members.insert("message".to_owned(), self.message.into());
        members.insert("dependency".to_owned(), self.dependency.into());
        members.insert("state".to_owned(), self.state.into());
        members.insert("executed".to_owned(), self.executed.to_string().into());
        let wait = self.retry_after.map(|wait| rounded_up(wait, 1_000_000));
        members.insert("retry_after_ms".to_owned(), wait.into());
        members
    }

    fn error(&self, api: Api) -> Map<String, Value> {
        let mut error = self.members();
        match api {
            Api::OpenAi => {
                error.insert("type".to_owned(), openai_type(self.status).into());
                error.insert("param".to_owned(), Value::Null);
            }
            Api::Anthropic => {
                error.insert("type".to_owned(), anthropic_type(self.status).into());
            }
            Api::Google => {
                // Its code is a number. Ours is the reason, where client libraries look for one.
                error.insert("code".to_owned(), self.status.into());
                error.insert("status".to_owned(), google_status(self.status).into());
                let reason = self.code.to_uppercase().replace('-', "_");
                let info = json!({
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": reason, "domain": "breakerbox", "metadata": { "code": self.code },
                });
                error.insert("details".to_owned(), json!([info]));
            }
        }
        error
    }

    /// Returns the envelope around the error.
    fn envelope(&self, api: Api) -> Map<String, Value> {
        let mut envelope = Map::new();
        if api == Api::Anthropic {
            envelope.insert("type".to_owned(), "error".into());
        }
        envelope.insert("error".to_owned(), self.error(api).into());
        envelope
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        503 => "service_unavailable_error",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        503 | 529 => "overloaded_error",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

fn google_status(status: u16) -> &'static str {
    match status {
        503 => "UNAVAILABLE",
        429 => "RESOURCE_EXHAUSTED",
        408 | 504 => "DEADLINE_EXCEEDED",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        501 => "UNIMPLEMENTED",
        400..=499 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}

/// Returns our error as a response in the dialect's shape, with `retry-after`, `retry-after-ms` and
/// `x-should-retry`.
#[must_use]
pub fn error_body(api: Api, problem: &ModelProblem<'_>) -> Response<String> {
    let mut response = Response::new(Value::Object(problem.envelope(api)).to_string());
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = problem.retry_after {
        let millis = rounded_up(wait, 1_000_000);
        headers.insert(RETRY_AFTER, rounded_up(wait, 1_000_000_000).into());
        headers.insert("retry-after-ms", millis.into());
    }
    if !problem.may_retry {
        // LLM-12: one retry loop.
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    response
}

/// Returns our error as the last event of a stream. `sequence`: the number that Responses expects
/// next, see [`StreamWatch::next_sequence`](super::StreamWatch::next_sequence).
///
/// It is an error in its shape's words, and no end: no client library takes it for one.
#[must_use]
pub fn error_event(shape: ApiShape, problem: &ModelProblem<'_>, sequence: u64) -> String {
    let api = shape.api();
    let mut event = problem.envelope(api);
    match shape {
        ApiShape::Responses => {
            // The event has its error at the top. A client library raises only for the member
            // `error`.
            event.extend(problem.error(api));
            event.insert("type".to_owned(), "error".into());
            event.insert("sequence_number".to_owned(), sequence.into());
            format!("event: error\ndata: {}\n\n", Value::Object(event))
        }
        ApiShape::Messages => format!("event: error\ndata: {}\n\n", Value::Object(event)),
        ApiShape::ContentArray => format!(",\r\n{}", Value::Object(event)),
        _ => format!("data: {}\n\n", Value::Object(event)),
    }
}

/// Converts to whole units of `unit` nanoseconds, rounded up: no caller is told to retry too early.
fn rounded_up(wait: Duration, unit: u128) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(unit)).unwrap_or(u64::MAX)
}
