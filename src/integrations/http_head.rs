//! The verdict on the head of an HTTP response, and the options that follow from a method.
//!
//! Bodies are not read here.

use breakerbox_policy::{Class, Symptom};
use http::{HeaderMap, Method, StatusCode};

use crate::{CallOptions, Verdict, retry_after};

/// Returns the verdict on a response by its head. The settings decide what a status means
/// (`classify`): by default 5xx is a failure, 429 a throttle, 401 and 403 a misconfiguration, other
/// 4xx the caller's mistake. The largest hint in the head, such as `Retry-After`, goes with it.
pub(super) fn verdict_on(status: StatusCode, headers: &HeaderMap) -> Verdict {
    if status.as_u16() < 400 {
        return Verdict::from(Class::Success);
    }
    let verdict = Verdict::from(Symptom::Status(status.as_u16()));
    match retry_after::read(status.as_u16(), headers, None) {
        Some(wait) => verdict.retry_after(wait),
        None => verdict,
    }
}

/// Returns options by the method: an idempotent one may be executed twice, and one that is not safe
/// is a write.
pub(super) fn options_of(method: &Method) -> CallOptions {
    CallOptions {
        // CALL-7: a method that is not idempotent is not repeated after it may have been executed.
        idempotent: Some(method.is_idempotent()),
        write: Some(!method.is_safe()),
        ..CallOptions::default()
    }
}
