//! The verdict on a status code of gRPC, and the wait that goes with it.

use std::time::Duration;

use breakerbox_policy::{Class, Executed, Symptom};
use http::HeaderMap;

use crate::Verdict;

/// The header, or trailer, by which a server asks for a wait, in milliseconds.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Returns the verdict on a code. Codes that say the same as an HTTP status are classified as that
/// status by the settings (`classify`).
pub(super) fn verdict_on(code: i32) -> Verdict {
    match code {
        0 => Verdict::from(Class::Success),
        // CANCELLED: no server says so of itself.
        1 => Verdict::from(Class::Cancelled),
        // DEADLINE_EXCEEDED
        4 => Verdict::from(Symptom::Timeout),
        // UNKNOWN, INTERNAL and DATA_LOSS; the first two may be of the way and not of the server.
        2 | 13 => Verdict::from(Symptom::Status(500)).executed(Executed::Maybe),
        15 => Verdict::from(Symptom::Status(500)),
        // UNAVAILABLE
        14 => Verdict::from(Symptom::Status(503)).executed(Executed::Maybe),
        // RESOURCE_EXHAUSTED
        8 => Verdict::from(Symptom::Status(429)),
        // PERMISSION_DENIED
        7 => Verdict::from(Symptom::Status(403)),
        // UNAUTHENTICATED
        16 => Verdict::from(Symptom::Status(401)),
        // INVALID_ARGUMENT, NOT_FOUND and all that a caller has to change
        3 | 5 | 6 | 9..=12 => Verdict::from(Class::Rejected),
        _ => Verdict::from(Class::Failure),
    }
}

/// Returns the verdict with the longer one of two waits: the pushback in these headers or trailers,
/// and the wait in the details of the status.
pub(super) fn with_wait(
    verdict: Verdict,
    headers: &HeaderMap,
    in_details: Option<Duration>,
) -> Verdict {
    let value = headers.get(PUSHBACK).and_then(|value| value.to_str().ok());
    // A negative wait asks for no retry; a retry is never sooner than its backoff anyway.
    let pushback = value.and_then(|value| value.trim().parse().ok());
    // LIM-1: the larger hint counts.
    match pushback.map(Duration::from_millis).max(in_details) {
        Some(wait) if verdict.class != Class::Success => verdict.retry_after(wait),
        _ => verdict,
    }
}
