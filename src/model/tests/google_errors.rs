//! Errors of Google's shape, and its hints.

use serde_json::{Value, json};

use super::*;

fn error(code: u16, status: &str, message: &str, details: &Value) -> String {
    json!({ "error": { "code": code, "status": status, "message": message, "details": details } })
        .to_string()
}

fn quota(id: &str, value: Option<&str>) -> Value {
    let mut violation = json!({ "quotaMetric": "m", "quotaId": id });
    if let Some(value) = value {
        violation["quotaValue"] = value.into();
    }
    json!({ "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation] })
}

fn info(reason: &str) -> Value {
    json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason })
}

fn retry(delay: &str) -> Value {
    json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay })
}

const PER_MINUTE: &str = "GenerateContentInputTokensPerModelPerMinute-FreeTier";
const PER_DAY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

#[test]
fn llm_2_llm_3_status_reason_and_quota_decide() {
    use ModelErrorKind as Kind;
    for (code, status, details, kind) in [
        (429, "RESOURCE_EXHAUSTED", json!([]), Kind::RateLimit),
        (
            429,
            "RESOURCE_EXHAUSTED",
            json!([quota(PER_MINUTE, Some("50"))]),
            Kind::RateLimit,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            json!([quota(PER_DAY, Some("50"))]),
            Kind::QuotaUsedUp,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            json!([quota(PER_DAY, Some("0"))]),
            Kind::NotPermitted,
        ),
        (503, "UNAVAILABLE", json!([]), Kind::Overloaded),
        (500, "INTERNAL", json!([]), Kind::Failure),
        (504, "DEADLINE_EXCEEDED", json!([]), Kind::Failure),
        (401, "UNAUTHENTICATED", json!([]), Kind::WrongKey),
        (
            400,
            "INVALID_ARGUMENT",
            json!([info("API_KEY_INVALID")]),
            Kind::WrongKey,
        ),
        (
            403,
            "PERMISSION_DENIED",
            json!([info("SERVICE_DISABLED")]),
            Kind::NotPermitted,
        ),
        (400, "FAILED_PRECONDITION", json!([]), Kind::NotPermitted),
        (404, "NOT_FOUND", json!([]), Kind::UnknownModel),
        (400, "INVALID_ARGUMENT", json!([]), Kind::Rejected),
        (402, "SOME_NEW_STATUS", json!([]), Kind::QuotaUsedUp),
    ] {
        let body = error(code, status, "m", &details);
        let verdict = judged(Api::Google, code, &[], &body);
        assert_eq!(verdict.kind, Some(kind), "{body}");
        assert_eq!(verdict.code.as_deref(), Some(status));
        // The same as an item of a stream that answered 200.
        let late = judged(Api::Google, 200, &[], &format!("[{body}]"));
        assert_eq!((late.kind, late.status), (Some(kind), code), "{body}");
    }
}

#[test]
fn llm_2_words_decide_where_google_has_no_code() {
    use ModelErrorKind as Kind;
    for (code, status, message, kind) in [
        (
            429,
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for 'Queries per day' of service 'x'.",
            Kind::QuotaUsedUp,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "* Quota exceeded for metric: g/free_tier_requests, limit: 0\\nPlease retry in 46s.",
            Kind::NotPermitted,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "* Quota exceeded for metric: g/free_tier_requests, limit: 0",
            Kind::NotPermitted,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "* Quota exceeded for metric: g/requests, limit: 05",
            Kind::RateLimit,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "Your prepayment credits are depleted.",
            Kind::QuotaUsedUp,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            Kind::TooLong,
        ),
    ] {
        let body = error(code, status, message, &json!([]));
        assert_eq!(
            super::kind(Api::Google, code, &body),
            Some(kind),
            "{message}"
        );
    }
}

#[test]
fn llm_5_retry_info_is_a_hint() {
    let limited = |delay: &str| {
        let details = json!([quota(PER_MINUTE, Some("50")), retry(delay)]);
        error(429, "RESOURCE_EXHAUSTED", "m", &details)
    };
    let json = ("content-type", "application/json; charset=UTF-8");
    let hint = |lines: &[(&'static str, &str)], delay: &str| {
        judged(Api::Google, 429, lines, &limited(delay)).retry_after
    };
    assert_eq!(hint(&[json], "46s"), seconds(46));
    assert_eq!(hint(&[], "46.5s"), Some(Duration::from_millis(46_500)));
    assert_eq!(hint(&[json, ("retry-after", "60")], "46s"), seconds(60));
    assert_eq!(hint(&[json, ("retry-after", "6")], "46s"), seconds(46));
    let without = error(429, "RESOURCE_EXHAUSTED", "Resource exhausted.", &json!([]));
    assert_eq!(
        judged(Api::Google, 429, &[json], &without).retry_after,
        None
    );
}

#[test]
fn llm_4_a_days_quota_ends_not_after_seconds() {
    let used_up = |delay: &str| {
        let details = json!([quota(PER_DAY, Some("50")), retry(delay)]);
        let body = error(429, "RESOURCE_EXHAUSTED", "m", &details);
        judged(Api::Google, 429, &[], &body).retry_after
    };
    assert_eq!(used_up("7s"), None);
    assert_eq!(used_up("36000s"), seconds(36_000));
}

#[test]
fn llm_3_a_blocked_prompt_is_filtered_and_stays_as_it_came() {
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{}}"#;
    let verdict = judged(Api::Google, 200, &[], blocked);
    assert_eq!(verdict.kind, Some(ModelErrorKind::Filtered));
    assert_eq!((verdict.status, verdict.is_late), (200, false));
    let rated = r#"{"candidates":[],"promptFeedback":{"safetyRatings":[]}}"#;
    assert!(judged(Api::Google, 200, &[], rated).is_good());
}
