//! Table tests of the classification of Google's error responses.

use http::HeaderValue;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::json;

use super::*;

fn read(http: u16, body: &Value) -> GoogleError {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    GoogleError::read(http, &headers, body.to_string().as_bytes())
}

fn envelope(http: u16, status: &str, message: &str) -> Value {
    json!({"error": {"code": http, "message": message, "status": status}})
}

#[test]
fn brk_7_each_status_counts_for_what_it_means() {
    let settings = crate::policy::ClassifySettings::default();
    for (http, status, class) in [
        (400, "INVALID_ARGUMENT", Class::Rejected),
        (400, "FAILED_PRECONDITION", Class::Misconfigured),
        (401, "UNAUTHENTICATED", Class::Misconfigured),
        (403, "PERMISSION_DENIED", Class::Misconfigured),
        (404, "NOT_FOUND", Class::Misconfigured),
        (404, "UNIMPLEMENTED", Class::Misconfigured),
        (408, "DEADLINE_EXCEEDED", Class::Failure),
        (429, "RESOURCE_EXHAUSTED", Class::Throttled),
        (499, "CANCELLED", Class::Failure),
        (500, "INTERNAL", Class::Failure),
        (503, "UNAVAILABLE", Class::Failure),
        (504, "DEADLINE_EXCEEDED", Class::Failure),
    ] {
        let verdict = read(http, &envelope(http, status, "no")).verdict();
        let symptom = Symptom::Status(http);
        assert_eq!(verdict.symptom, Some(symptom), "{http}");
        // The settings classify the 5xx; by default they are failures.
        assert_eq!(verdict.class, class, "{http} {status}");
        if http >= 500 {
            assert_eq!(settings.class_of(symptom), class);
        }
        assert!(!verdict.quota_used_up, "{http} {status}");
    }
}

#[test]
fn lim_1_item_59_a_quota_of_a_day_is_told_from_a_throttle() {
    let per_day = "Quota exceeded for quota metric 'Queries' and limit 'Queries per day' of service \
                   'customsearch.googleapis.com' for consumer 'project_number:1'.";
    let mut by_message = envelope(429, "RESOURCE_EXHAUSTED", per_day);
    by_message["error"]["errors"] = json!([{"reason": "rateLimitExceeded"}]);
    let mut by_metadata = envelope(429, "RESOURCE_EXHAUSTED", "Quota exceeded.");
    by_metadata["error"]["details"] = json!([
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED",
         "metadata": {"quota_limit": "DefaultPerDayPerProject"}},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}]);
    let mut older = envelope(403, "PERMISSION_DENIED", "Daily Limit Exceeded");
    older["error"]["errors"] = json!([{"domain": "usageLimits", "reason": "dailyLimitExceeded"}]);
    for (http, body) in [(429, by_message), (429, by_metadata), (403, older)] {
        let verdict = read(http, &body).verdict();
        assert!(verdict.quota_used_up, "{body}");
        assert_eq!(verdict.class, Class::Throttled);
        assert_eq!(verdict.retry_after, None, "seconds say nothing of a day");
    }
    let mut per_minute = envelope(429, "RESOURCE_EXHAUSTED", "Quota exceeded.");
    per_minute["error"]["details"] = json!([
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED",
         "metadata": {"quota_limit": "RequestsPerMinutePerProject"}},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}]);
    let verdict = read(429, &per_minute).verdict();
    assert!(!verdict.quota_used_up);
    assert_eq!(verdict.retry_after, Some(Duration::from_millis(3500)));
}

#[test]
fn brk_7_reasons_say_more_than_the_status() {
    let mut key = envelope(400, "INVALID_ARGUMENT", "API key not valid.");
    key["error"]["details"] = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]);
    let error = read(400, &key);
    assert_eq!(error.reason.as_deref(), Some("API_KEY_INVALID"));
    assert_eq!(error.verdict().class, Class::Misconfigured);
    let mut fast = envelope(403, "PERMISSION_DENIED", "Rate Limit Exceeded");
    fast["error"]["errors"] = json!([{"reason": "userRateLimitExceeded"}]);
    assert_eq!(read(403, &fast).verdict().class, Class::Throttled);
}

#[test]
fn brk_7_a_page_for_browsers_is_an_error_too() {
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
    let body = b"<!DOCTYPE html><title>Error 502</title>";
    let error = GoogleError::read(502, &headers, body);
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    let error = ServiceError::from(error);
    assert_eq!(error.to_string(), "it answered 502: (a page for browsers)");
    let odd = GoogleError::read(500, &headers, b"[1]");
    assert_eq!(odd.verdict().class, Class::Failure);
}
