//! The HTTP response that tells a caller of an error of a call.

use breakerbox_policy::Executed;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::{CallError, Fault};

/// Returns the response for a caller that a call's error leaves without an answer: 503, 504, 429 or
/// 502, with `Retry-After` if the wait is known, and one line of text. The text names no address
/// and repeats no text of the dependency.
///
/// For axum's `HandleErrorLayer`, which makes the error of a layer an answer of a route.
#[must_use]
pub fn call_error_response<E>(error: &CallError<E>) -> Response<String> {
    let (status, words) = status_of(error);
    // CALL-2: a fallback may have done what the dependency has not.
    let executed = match error.executed() {
        Executed::No => "; nothing was done",
        _ => "",
    };
    let text = format!("{} {words}{executed}\n", error.dependency());
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    if let Some(wait) = error.retry_after() {
        // A wait below a second must not become none at all.
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Returns the status of an error, and its words: those of its cause if a fallback failed too.
fn status_of<E>(error: &CallError<E>) -> (StatusCode, &'static str) {
    match error {
        CallError::TimedOut { .. } | CallError::Stalled { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "did not answer in time")
        }
        CallError::RateLimited { .. } | CallError::SessionSpent { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "is asked too often")
        }
        CallError::FallbackFailed { cause, .. } => status_of(cause),
        error if error.fault() == Fault::Dependency => (StatusCode::BAD_GATEWAY, "failed"),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "is not available at present",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_2_e3_the_text_speaks_for_the_fallback_too() {
        let cause = || CallError::<()>::Injected {
            dependency: "d".into(),
        };
        let failed = |executed| CallError::FallbackFailed {
            dependency: "d".into(),
            fallback: "f".into(),
            message: "it failed".to_owned(),
            executed,
            executed_by_fallbacks: executed,
            cause: Box::new(cause()),
        };
        let text = |error| call_error_response(&error).into_body();
        assert_eq!(text(cause()), "d failed; nothing was done\n");
        assert_eq!(text(failed(Executed::No)), "d failed; nothing was done\n");
        assert_eq!(text(failed(Executed::Maybe)), "d failed\n");
    }
}
