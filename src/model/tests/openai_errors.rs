//! Errors of OpenAI's shape, and its hints.

use super::*;
use crate::policy::Class;

fn error(kind: &str, code: &str) -> String {
    let quoted = |text: &str| match text {
        "" => "null".to_owned(),
        text => format!("\"{text}\""),
    };
    let (kind, code) = (quoted(kind), quoted(code));
    format!(r#"{{"error":{{"message":"m","type":{kind},"param":null,"code":{code}}}}}"#)
}

#[test]
fn llm_2_llm_3_the_code_decides_before_the_status() {
    use ModelErrorKind as Kind;
    for (status, of_type, code, kind) in [
        (429, "requests", "rate_limit_exceeded", Kind::RateLimit),
        (429, "tokens", "rate_limit_exceeded", Kind::RateLimit),
        (429, "", "slow_down", Kind::RateLimit),
        (503, "", "slow_down", Kind::RateLimit),
        (
            429,
            "insufficient_quota",
            "insufficient_quota",
            Kind::QuotaUsedUp,
        ),
        (429, "insufficient_quota", "", Kind::QuotaUsedUp),
        (
            429,
            "insufficient_quota",
            "some_new_code",
            Kind::QuotaUsedUp,
        ),
        (429, "", "credit_balance_exhausted", Kind::QuotaUsedUp),
        (
            429,
            "",
            "organization_usage_limit_exceeded",
            Kind::QuotaUsedUp,
        ),
        (
            429,
            "",
            "organization_spend_limit_exceeded",
            Kind::QuotaUsedUp,
        ),
        (429, "", "project_spend_limit_exceeded", Kind::QuotaUsedUp),
        (503, "", "server_is_overloaded", Kind::Overloaded),
        (500, "server_error", "", Kind::Failure),
        (
            401,
            "invalid_request_error",
            "invalid_api_key",
            Kind::WrongKey,
        ),
        (
            404,
            "invalid_request_error",
            "model_not_found",
            Kind::UnknownModel,
        ),
        (
            400,
            "invalid_request_error",
            "context_length_exceeded",
            Kind::TooLong,
        ),
        (400, "", "content_filter", Kind::Filtered),
        (404, "", "previous_response_not_found", Kind::Rejected),
        // An unknown code leaves it to the status.
        (429, "", "some_new_code", Kind::RateLimit),
        (403, "", "some_new_code", Kind::NotPermitted),
        (400, "invalid_request_error", "", Kind::Rejected),
    ] {
        let verdict = judged(Api::OpenAi, status, &[], &error(of_type, code));
        assert_eq!(verdict.kind, Some(kind), "{status} {of_type} {code}");
        assert_eq!(verdict.status, status);
        assert!(verdict.is_own && !verdict.is_late);
    }
}

#[test]
fn llm_3_without_a_code_the_status_decides() {
    use ModelErrorKind as Kind;
    for api in Api::ALL {
        for (status, kind, class) in [
            (400, Kind::Rejected, Class::Rejected),
            (401, Kind::WrongKey, Class::Misconfigured),
            (402, Kind::QuotaUsedUp, Class::Throttled),
            (403, Kind::NotPermitted, Class::Misconfigured),
            (404, Kind::UnknownModel, Class::Misconfigured),
            (408, Kind::Failure, Class::Failure),
            (409, Kind::Failure, Class::Failure),
            (413, Kind::TooLong, Class::Rejected),
            (422, Kind::Rejected, Class::Rejected),
            (429, Kind::RateLimit, Class::Throttled),
            (500, Kind::Failure, Class::Failure),
            (502, Kind::Failure, Class::Failure),
            (503, Kind::Overloaded, Class::Failure),
            (529, Kind::Overloaded, Class::Failure),
        ] {
            for body in ["", "<html>502</html>", r#"{"detail":"x"}"#] {
                let verdict = judged(api, status, &[], body);
                assert_eq!(verdict.kind, Some(kind), "{api} {status} {body}");
                assert_eq!(verdict.class(), class);
                assert_eq!(verdict.verdict().class, class);
                assert!(!verdict.is_own, "a proxy on the way said so");
            }
        }
        let other = judge(ApiShape::Other(api), 404, &HeaderMap::new(), b"");
        assert_eq!(
            other.kind,
            Some(Kind::Rejected),
            "of a file, not of a model"
        );
        assert!(judged(api, 200, &[], r#"{"choices":[]}"#).is_good());
    }
}

#[test]
fn llm_3_a_200_with_an_error_is_that_error() {
    use ModelErrorKind as Kind;
    for (body, kind, status) in [
        (error("", "rate_limit_exceeded"), Kind::RateLimit, 429),
        (error("insufficient_quota", ""), Kind::QuotaUsedUp, 429),
        (error("server_error", ""), Kind::Failure, 500),
        (error("rate_limit_error", ""), Kind::RateLimit, 429),
        (error("invalid_request_error", ""), Kind::Rejected, 400),
        (error("", ""), Kind::Failure, 500),
        // OpenRouter names the status that it had from its provider.
        (
            r#"{"error":{"code":502,"message":"m"}}"#.to_owned(),
            Kind::Failure,
            502,
        ),
        (
            r#"{"id":"g","choices":[],"error":{"code":402,"message":"m"}}"#.to_owned(),
            Kind::QuotaUsedUp,
            402,
        ),
        (
            r#"{"object":"response","status":"failed","error":{"code":"server_error","message":"m"}}"#
                .to_owned(),
            Kind::Failure,
            500,
        ),
    ] {
        let verdict = judged(Api::OpenAi, 200, &[], &body);
        assert_eq!(verdict.kind, Some(kind), "{body}");
        assert_eq!(verdict.status, status, "{body}");
        assert!(verdict.is_late);
    }
    for good in [
        r#"{"object":"response","status":"completed","error":null,"output":[]}"#,
        r#"{"choices":[{"message":{"content":"{\"error\":{}}"}}]}"#,
        r#"{"object":"list","data":[]}"#,
        "",
    ] {
        assert!(judged(Api::OpenAi, 200, &[], good).is_good(), "{good}");
    }
    let job = r#"{"object":"fine_tuning.job","error":{"code":"x","message":"m"}}"#;
    let shape = ApiShape::Other(Api::OpenAi);
    assert!(judge(shape, 200, &HeaderMap::new(), job.as_bytes()).is_good());
}

#[test]
fn llm_2_other_envelopes_in_openais_shape_are_read() {
    use ModelErrorKind as Kind;
    for (status, body, kind) in [
        // Azure
        (
            400,
            r#"{"error":{"code":"content_filter","message":"m","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            Kind::Filtered,
        ),
        (
            429,
            r#"{"error":{"code":"429","message":"Requests have exceeded call rate limit"}}"#,
            Kind::RateLimit,
        ),
        (
            404,
            r#"{"error":{"code":"DeploymentNotFound","message":"m"}}"#,
            Kind::UnknownModel,
        ),
        // Gemini in OpenAI's shape
        (
            429,
            r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel"}]}]}}]"#,
            Kind::QuotaUsedUp,
        ),
        // Ollama, vLLM
        (
            404,
            r#"{"error":"model 'x' not found"}"#,
            Kind::UnknownModel,
        ),
        (
            400,
            r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#,
            Kind::Rejected,
        ),
    ] {
        assert_eq!(super::kind(Api::OpenAi, status, body), Some(kind), "{body}");
    }
}

#[test]
fn llm_5_the_largest_wait_counts_and_a_reset_only_without_one() {
    let limited = error("", "rate_limit_exceeded");
    let hint =
        |lines: &[(&'static str, &str)]| judged(Api::OpenAi, 429, lines, &limited).retry_after;
    let ms = |millis| Some(Duration::from_millis(millis));
    for (lines, wait) in [
        (&[("retry-after-ms", "1500")][..], ms(1_500)),
        (&[("retry-after", "1.5")], ms(1_500)),
        (
            &[("retry-after", "Fri, 06 Nov 2026 08:49:37 GMT")],
            ms(7_000),
        ),
        (
            &[("retry-after", "1"), ("retry-after-ms", "2500")],
            ms(2_500),
        ),
        (
            &[
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "6m0s"),
                ("x-ratelimit-remaining-requests", "5"),
                ("x-ratelimit-reset-requests", "12m"),
            ],
            ms(360_000),
        ),
        (
            &[
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "1m42.653s"),
            ],
            ms(102_653),
        ),
        (
            &[
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "120ms"),
            ],
            ms(120),
        ),
        // A wait that is asked for is the provider's own answer, and no reset beats it.
        (
            &[
                ("retry-after", "2"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            ms(2_000),
        ),
        // Azure: a reset at once, a negative one, one that cannot be read, one without a rest.
        (
            &[
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "0"),
            ],
            None,
        ),
        (
            &[
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "-1"),
            ],
            None,
        ),
        (
            &[
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "soon"),
            ],
            None,
        ),
        (&[("x-ratelimit-reset-tokens", "6m0s")], None),
        (&[], None),
    ] {
        assert_eq!(hint(lines), wait, "{lines:?}");
    }
    let failed = judged(
        Api::OpenAi,
        500,
        &[
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ],
        "",
    );
    assert_eq!(failed.retry_after, None, "a failure is not about a limit");
    let words = r#"{"error":{"code":"rate_limit_exceeded","message":"Please try again in 7s."}}"#;
    let verdict = judged(Api::OpenAi, 429, &[("retry-after", "1")], words);
    assert_eq!(verdict.retry_after, seconds(7));
}

#[test]
fn llm_4_no_hint_of_seconds_ends_the_pause_of_a_quota() {
    let used_up = error("insufficient_quota", "insufficient_quota");
    let hint =
        |value: &str| judged(Api::OpenAi, 429, &[("retry-after", value)], &used_up).retry_after;
    assert_eq!(hint("7"), None);
    assert_eq!(hint("7200"), seconds(7_200));
    let paid = judged(Api::OpenAi, 402, &[], r#"{"error":{"message":"m"}}"#);
    assert!(paid.verdict().quota_used_up);
    assert_eq!(paid.scope(), ErrorScope::Dependency);
}
