//! Errors of Anthropic's shape, and its hints.

use super::*;

fn error(of_type: &str, code: Option<&str>, message: &str) -> String {
    let details = code.map(|code| format!(r#","details":{{"error_code":"{code}"}}"#));
    let details = details.unwrap_or_default();
    format!(
        r#"{{"type":"error","error":{{"type":"{of_type}","message":"{message}"{details}}},"request_id":"req_1"}}"#
    )
}

#[test]
fn llm_2_llm_3_type_and_code_decide() {
    use ModelErrorKind as Kind;
    for (status, of_type, code, kind) in [
        (429, "rate_limit_error", None, Kind::RateLimit),
        (
            429,
            "rate_limit_error",
            Some("ramp_limit_exceeded"),
            Kind::RateLimit,
        ),
        (
            429,
            "rate_limit_error",
            Some("enforced_spend_limit_reached"),
            Kind::QuotaUsedUp,
        ),
        (
            429,
            "rate_limit_error",
            Some("contract_spend_limit_reached"),
            Kind::QuotaUsedUp,
        ),
        (402, "billing_error", None, Kind::QuotaUsedUp),
        (
            402,
            "billing_error",
            Some("linked_organization_spend_limit_reached"),
            Kind::QuotaUsedUp,
        ),
        (529, "overloaded_error", None, Kind::Overloaded),
        (500, "api_error", None, Kind::Failure),
        (504, "timeout_error", None, Kind::Failure),
        (401, "authentication_error", None, Kind::WrongKey),
        (403, "permission_error", None, Kind::NotPermitted),
        (404, "not_found_error", None, Kind::UnknownModel),
        (413, "request_too_large", None, Kind::TooLong),
        (400, "invalid_request_error", None, Kind::Rejected),
        (400, "some_new_error", None, Kind::Rejected),
        (529, "some_new_error", None, Kind::Overloaded),
    ] {
        let body = error(of_type, code, "m");
        let verdict = judged(Api::Anthropic, status, &[], &body);
        assert_eq!(verdict.kind, Some(kind), "{status} {of_type} {code:?}");
        assert!(verdict.is_own);
        let shown = code.unwrap_or(of_type);
        assert_eq!(verdict.code.as_deref(), Some(shown));
        // The same instead of an answer.
        let late = judged(Api::Anthropic, 200, &[], &body);
        if of_type != "some_new_error" {
            assert_eq!(late.kind, Some(kind), "{of_type} {code:?}");
            assert!(late.is_late && late.status >= 400);
        }
    }
}

#[test]
fn llm_2_where_there_is_no_code_the_words_decide() {
    use ModelErrorKind as Kind;
    for (message, kind) in [
        (
            "prompt is too long: 210000 tokens > 200000 maximum",
            Kind::TooLong,
        ),
        (
            "Your credit balance is too low to access the Anthropic API.",
            Kind::QuotaUsedUp,
        ),
        (
            "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
            Kind::QuotaUsedUp,
        ),
        ("Output blocked by content filtering policy", Kind::Filtered),
        ("max_tokens: must be positive", Kind::Rejected),
    ] {
        let body = error("invalid_request_error", None, message);
        assert_eq!(kind_of(&body), Some(kind), "{message}");
    }
}

fn kind_of(body: &str) -> Option<ModelErrorKind> {
    super::kind(Api::Anthropic, 400, body)
}

#[test]
fn llm_4_a_quota_is_parked_until_the_providers_own_time() {
    let to_december = "2026-12-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let to_december = Duration::try_from(to_december.duration_since(now())).unwrap();
    let spent = error(
        "rate_limit_error",
        Some("enforced_spend_limit_reached"),
        "m",
    );
    let verdict = judged(Api::Anthropic, 429, &[], &spent);
    assert_eq!(verdict.retry_after, Some(to_december));
    assert!(verdict.verdict().quota_used_up);
    let words = "You have reached your specified API usage limits. You will regain access on \
                 2026-11-07 at 00:00 UTC.";
    let limited = judged(
        Api::Anthropic,
        400,
        &[],
        &error("invalid_request_error", None, words),
    );
    assert_eq!(limited.retry_after, seconds(54_630));
    let past = words.replace("2026-11-07", "2026-11-01");
    let past = error("invalid_request_error", None, &past);
    assert_eq!(judged(Api::Anthropic, 400, &[], &past).retry_after, None);
    let billing = judged(Api::Anthropic, 402, &[], &error("billing_error", None, "m"));
    assert_eq!(billing.retry_after, None, "until `throttle.quota_reset`");
}

#[test]
fn llm_5_resets_are_moments_and_count_only_at_nothing_left() {
    let limited = error("rate_limit_error", None, "m");
    let hint =
        |lines: &[(&'static str, &str)]| judged(Api::Anthropic, 429, lines, &limited).retry_after;
    let lines = [
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        (
            "anthropic-ratelimit-input-tokens-reset",
            "2026-11-06T08:49:37Z",
        ),
        ("anthropic-ratelimit-requests-remaining", "3"),
        ("anthropic-ratelimit-requests-reset", "2026-11-06T08:59:37Z"),
    ];
    assert_eq!(hint(&lines), seconds(7));
    assert_eq!(hint(&lines[2..]), None);
    assert_eq!(
        hint(&[("retry-after", "12"), lines[0], lines[1]]),
        seconds(12)
    );
}
