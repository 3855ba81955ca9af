//! The wait that a dependency asks for, in every form in which services say it: headers, details of
//! gRPC, JSON bodies, dates and spans.
//!
//! It does not decide whether the wait is believed: `throttle.max` does.

mod header;

mod json;

mod span;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;

/// Returns the largest one of the hints in a response's headers and body. `body`: decoded, and
/// possibly only its beginning.
#[cfg(any(test, feature = "mcp", feature = "tower", feature = "reqwest"))]
pub(crate) fn read(status: u16, headers: &HeaderMap, body: Option<&[u8]>) -> Option<Duration> {
    let now = Timestamp::now();
    // LIM-1: the largest hint counts, in any form.
    let in_headers = header::largest(status, headers, now);
    let body = body.filter(|body| is_json(headers, body));
    let in_body = body.and_then(|body| json::largest(status, body, now));
    in_headers.max(in_body)
}

/// Returns the largest wait that a response asks for in so many words: a header that names one, or a
/// JSON body. Resets of limits are none: see [`used_up_resets`].
#[cfg(feature = "model")]
pub(crate) fn asked(headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<Duration> {
    let in_body = is_json(headers, body).then(|| json::largest(429, body, now));
    header::waits(headers, now).max(in_body.flatten())
}

/// Returns the last reset of the limits in a response's headers of which nothing remains, by the
/// response's own word. A reset at once is none.
#[cfg(feature = "model")]
pub(crate) fn used_up_resets(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    header::used_up_resets(headers, now).filter(|wait| !wait.is_zero())
}

/// Returns true if the body is JSON by its media type, or by its first letter if it has none that says
/// more: programs that write a text or bytes leave it to their framework. A list of lines counts by its
/// first line.
pub(crate) fn is_json(headers: &HeaderMap, body: &[u8]) -> bool {
    let looks_so = || {
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        first.is_some_and(|byte| b"{[".contains(byte))
    };
    let Some(line) = headers.get(CONTENT_TYPE) else {
        return looks_so();
    };
    let media = line.to_str().unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let media = media.to_ascii_lowercase();
    // LIM-1: a hint counts by any name that its service gives its body.
    match media.split_once('/') {
        None => media.is_empty() && looks_so(),
        Some(("text", "plain") | ("application", "octet-stream")) => looks_so(),
        Some((_, kind)) => match kind.strip_prefix("x-").unwrap_or(kind) {
            "ndjson" | "jsonl" | "jsonlines" => looks_so(),
            kind => kind == "json" || kind.ends_with("+json"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lim_1_the_larger_one_of_two_hints_counts() {
        let body = br#"{"error":{"code":429,"details":[
            {"@type":"type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.5s"}]}}"#;
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            "application/json; charset=UTF-8".parse().unwrap(),
        );
        let hint = |headers: &HeaderMap, body: &[u8]| read(429, headers, Some(body));
        let long = Some(Duration::from_millis(3500));
        assert_eq!(hint(&headers, body), long);
        headers.insert("retry-after", "2".parse().unwrap());
        assert_eq!(hint(&headers, body), long);
        headers.insert("retry-after", "7".parse().unwrap());
        let seven = Some(Duration::from_secs(7));
        assert_eq!(hint(&headers, body), seven);
        assert_eq!(hint(&headers, b"{"), seven);
    }

    #[test]
    fn lim_1_e10b_json_has_many_media_types() {
        let is_json = |media: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, media.parse().unwrap());
            is_json(&headers, b"{}")
        };
        for media in [
            "application/json",
            "Application/JSON ; charset=\"utf-8\"",
            "application/problem+json",
            "application/vnd.api+json;charset=utf-8",
            "text/json",
            "application/x-json",
            "text/plain; charset=utf-8",
            "",
            "application/octet-stream",
            "application/x-ndjson",
            "application/jsonl",
        ] {
            assert!(is_json(media), "{media:?}");
        }
        for media in ["text/html", "application/jsonp", "json", "text/csv"] {
            assert!(!is_json(media), "{media}");
        }
        assert!(super::is_json(&HeaderMap::new(), b" {\"a\":1}"));
        assert!(!super::is_json(&HeaderMap::new(), b"<html>"));
        let mut plain = HeaderMap::new();
        plain.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert!(!super::is_json(&plain, b"try {again in 7s}"));
    }
}
