//! gRPC over HTTP: the status of an answer, the deadline of a request, and errors of the gateway in
//! the form that gRPC clients read.
//!
//! The messages themselves are bytes here: they are neither read nor changed.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use breakerbox_policy::{Class, Executed, Symptom};

use crate::{Verdict, retry_after};

/// Status of an answer, in its trailers or in its head.
pub(in crate::sidecar::gateway) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Text beside it.
pub(in crate::sidecar::gateway) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Deadline of a request, as a span.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Status without an error.
const OK: u8 = 0;
/// Status of a call that the caller has given up.
const CANCELLED: u8 = 1;
/// Status of a call without another one.
const UNKNOWN: u8 = 2;
/// Status of a call that was not done in time.
const DEADLINE_EXCEEDED: u8 = 4;
/// Statuses of calls without the right to make them.
const PERMISSION_DENIED: u8 = 7;
const UNAUTHENTICATED: u8 = 16;

/// Returns the media type of a message, if it is one of gRPC.
pub(in crate::sidecar::gateway) fn media_of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let media = headers.get(CONTENT_TYPE)?;
    media
        .as_bytes()
        .starts_with(b"application/grpc")
        .then_some(media)
}

/// Returns the deadline that the head of a gRPC request asks for.
///
/// # Source  PROTOCOL-HTTP2.md of gRPC, "Timeout".
pub(in crate::sidecar::gateway) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    media_of(headers)?;
    let text = headers.get(TIMEOUT)?.to_str().ok()?.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Facts about a gRPC request that its answer is judged by, put beside the head of the answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GrpcRequest {
    /// True if the caller has told the dependency a deadline of its own.
    has_deadline: bool,
}

impl GrpcRequest {
    /// Returns the facts about a request; `None` if it is not one of gRPC.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        media_of(headers)?;
        let has_deadline = headers.contains_key(TIMEOUT);
        Some(Self { has_deadline })
    }
}

/// The status of a gRPC answer, as far as it has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GrpcAnswer {
    code: Option<u8>,
    retry_after: Option<Duration>,
    /// True if an answer without a status is broken. The status of gRPC-Web is in the body.
    needs_status: bool,
    request: GrpcRequest,
}

impl GrpcAnswer {
    /// Reads the head of an answer; `None` if it is not one of gRPC.
    pub(super) fn of(head: &Parts) -> Option<Self> {
        let media = media_of(&head.headers).filter(|_| head.status == StatusCode::OK)?;
        let request = head.extensions.get::<GrpcRequest>().copied();
        let mut answer = Self {
            code: None,
            retry_after: None,
            needs_status: request.is_some() && !media.as_bytes().starts_with(b"application/grpc-"),
            request: request.unwrap_or_default(),
        };
        answer.read(&head.headers);
        Some(answer)
    }

    /// Reads the status in a head or in trailers, if it is there.
    pub(super) fn read(&mut self, headers: &HeaderMap) {
        let Some(line) = headers.get(STATUS) else {
            return;
        };
        let code = line.to_str().ok().and_then(|text| text.trim().parse().ok());
        let code = code.unwrap_or(UNKNOWN);
        self.code = Some(code);
        if let Some(Symptom::Status(status)) = symptom(code, self.request) {
            self.retry_after = retry_after::read(status, headers, None);
        }
    }

    /// Returns the status, if it has arrived and is an error.
    pub(super) fn error(&self) -> Option<u8> {
        self.code.filter(|code| *code != OK)
    }

    /// Returns how long the dependency asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the symptom of an error that the settings classify.
    pub(super) fn symptom(&self) -> Option<Symptom> {
        symptom(self.error()?, self.request)
    }

    /// Returns the verdict on an answer that has ended.
    pub(crate) fn verdict(&self) -> Verdict {
        let missing = if self.needs_status { UNKNOWN } else { OK };
        let verdict = verdict_of(self.code.unwrap_or(missing), self.request);
        match self.retry_after {
            Some(wait) => verdict.retry_after(wait),
            None => verdict,
        }
    }
}

/// Returns the verdict on a status that the settings class as an error of the dependency.
pub(super) fn verdict(code: u8) -> Verdict {
    verdict_of(code, GrpcRequest::default())
}

fn verdict_of(code: u8, request: GrpcRequest) -> Verdict {
    if code == OK {
        return Verdict::from(Class::Success);
    }
    let verdict = match symptom(code, request) {
        // EDGE-8: it has answered 200.
        Some(symptom) => Verdict::from(symptom).likened(),
        None if matches!(code, CANCELLED | DEADLINE_EXCEEDED) => Verdict::from(Class::Cancelled),
        None => Verdict::from(Class::Rejected),
    };
    let executed = match code {
        // Proxies and clients on the way say these too.
        CANCELLED | UNKNOWN | DEADLINE_EXCEEDED | 13 | 14 => Executed::Maybe,
        _ => Executed::Yes,
    };
    let verdict = verdict.executed(executed).cause(words(code));
    match code {
        // FBK-2: no fallback covers what speaks of this caller.
        PERMISSION_DENIED | UNAUTHENTICATED => verdict.for_caller(),
        _ => verdict,
    }
}

/// Returns the symptom of a status: the HTTP status that says the same. `None` for statuses that say
/// nothing about the dependency.
fn symptom(code: u8, request: GrpcRequest) -> Option<Symptom> {
    // EDGE-1: a deadline of the caller's own is no failure of the dependency.
    let status = match code {
        DEADLINE_EXCEEDED if !request.has_deadline => 504,
        UNKNOWN | 13 | 15 => 500,
        14 => 503,
        8 => 429,
        PERMISSION_DENIED => 403,
        UNAUTHENTICATED => 401,
        _ => return None,
    };
    Some(Symptom::Status(status))
}

/// The name of a status.
pub(in crate::sidecar::gateway) fn words(code: u8) -> &'static str {
    match code {
        0 => "gRPC status 0, OK",
        1 => "gRPC status 1, CANCELLED",
        2 => "gRPC status 2, UNKNOWN",
        3 => "gRPC status 3, INVALID_ARGUMENT",
        4 => "gRPC status 4, DEADLINE_EXCEEDED",
        5 => "gRPC status 5, NOT_FOUND",
        6 => "gRPC status 6, ALREADY_EXISTS",
        7 => "gRPC status 7, PERMISSION_DENIED",
        8 => "gRPC status 8, RESOURCE_EXHAUSTED",
        9 => "gRPC status 9, FAILED_PRECONDITION",
        10 => "gRPC status 10, ABORTED",
        11 => "gRPC status 11, OUT_OF_RANGE",
        12 => "gRPC status 12, UNIMPLEMENTED",
        13 => "gRPC status 13, INTERNAL",
        14 => "gRPC status 14, UNAVAILABLE",
        15 => "gRPC status 15, DATA_LOSS",
        16 => "gRPC status 16, UNAUTHENTICATED",
        _ => "an unknown gRPC status",
    }
}

/// Encodes a text as gRPC does: all but printable ASCII as percent signs and numbers.
pub(in crate::sidecar::gateway) fn encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            text.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_3_statuses_are_classed_as_the_http_statuses_that_say_the_same() {
        let request = |has_deadline| GrpcRequest { has_deadline };
        let class = |code| verdict_of(code, request(false));
        assert_eq!(class(0).class, Class::Success);
        assert_eq!(class(1).class, Class::Cancelled);
        for code in [2, 4, 13, 14, 15] {
            assert!(
                matches!(class(code).symptom, Some(Symptom::Status(500..))),
                "{code}"
            );
        }
        assert_eq!(class(8).symptom, Some(Symptom::Status(429)));
        assert_eq!(class(16).symptom, Some(Symptom::Status(401)));
        assert_eq!(class(7).symptom, Some(Symptom::Status(403)));
        for code in [3, 5, 6, 9, 10, 11, 12, 99] {
            assert_eq!(class(code).class, Class::Rejected, "{code}");
        }
        assert_eq!(verdict_of(4, request(true)).class, Class::Cancelled);
        assert_eq!(class(14).executed, Executed::Maybe);
    }

    #[test]
    fn edge_3_the_deadline_of_a_grpc_request_is_read() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TIMEOUT, HeaderValue::from_static(text));
            timeout(&headers)
        };
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(of("100m"), Some(Duration::from_millis(100)));
        assert_eq!(of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "m", "100", "1s", "-1S", "999999999S", "1.5S"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
        assert_eq!(encoded("50% \u{e9}\n"), "50%25 %C3%A9%0A");
    }
}
