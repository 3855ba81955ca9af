//! Retry hints of a dependency: the header `Retry-After`, and Google's `RetryInfo`.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use jiff::Timestamp;
use serde_json::Value;

/// Returns the larger one of the hints in a response's headers and body.
#[cfg_attr(
    not(any(feature = "agents", feature = "gateway")),
    expect(dead_code, reason = "MCP alone reads only the header")
)]
pub(crate) fn read(headers: &HeaderMap, body: Option<&[u8]>) -> Option<Duration> {
    let line = headers.get(RETRY_AFTER).and_then(|line| line.to_str().ok());
    let in_headers = line.and_then(retry_after);
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|line| line.to_str().ok());
    let is_json = media.is_some_and(|media| media.starts_with("application/json"));
    let in_body = body.filter(|_| is_json).and_then(retry_info);
    in_headers.max(in_body)
}

/// Returns the wait that `Retry-After` asks for; `None` if it is invalid or a past date.
pub(crate) fn retry_after(line: &str) -> Option<Duration> {
    of_line(line.trim(), Timestamp::now())
}

/// Parses a number of seconds, or a date.
fn of_line(line: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = line.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(line).ok()?.timestamp();
    // A past date is no hint: neither to wait nor to retry at once.
    Duration::try_from(date.duration_since(now)).ok()
}

/// Returns the delay of `google.rpc.RetryInfo` in the details of an error.
fn retry_info(body: &[u8]) -> Option<Duration> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let details = body.pointer("/error/details")?.as_array()?;
    let of_type = |detail: &&Value| {
        let kind = detail.get("@type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.ends_with("google.rpc.RetryInfo"))
    };
    let delay = details.iter().find(of_type)?.get("retryDelay")?.as_str()?;
    let seconds: f64 = delay.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lim_1_a_hint_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-06T08:49:30Z".parse().unwrap();
        let hint = |line| of_line(line, now);
        assert_eq!(hint("7"), Some(Duration::from_secs(7)));
        let date = "Fri, 06 Nov 2026 08:49:37 GMT";
        assert_eq!(hint(date), Some(Duration::from_secs(7)));
        assert_eq!(hint("Fri, 06 Nov 2020 08:49:37 GMT"), None);
        assert_eq!(hint("soon"), None);
        assert_eq!(hint("-1"), None);
    }

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
        let long = Some(Duration::from_millis(3500));
        assert_eq!(read(&headers, Some(body)), long);
        headers.insert(RETRY_AFTER, "2".parse().unwrap());
        assert_eq!(read(&headers, Some(body)), long);
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(read(&headers, Some(body)), Some(Duration::from_secs(7)));
        assert_eq!(read(&headers, Some(b"{")), Some(Duration::from_secs(7)));
    }
}
