//! Pauses: used-up quotas, rate limits of one model, wrong keys, and the hints of providers.

use super::*;

fn error(code: &str, kind: &str) -> String {
    json!({"error": {"message": "no", "type": kind, "param": null, "code": code}}).to_string()
}

#[tokio::test]
async fn llm_item_12_llm_4_a_used_up_quota_is_asked_once() {
    for (status, body) in [
        (429, error("insufficient_quota", "insufficient_quota")),
        (429, error("credit_balance_exhausted", "insufficient_quota")),
        (402, error("payment_required", "billing_error")),
    ] {
        let first = Provider::of([Act::error(status, body)]).await;
        let spare = Provider::good("well").await;
        let bed = bed(&first, Some(&spare), "").await;
        for _ in 0..3 {
            check_good(bed.ask("gpt", true).await, "well", "fallback:spare").await;
        }
        // Another model of the same account.
        let response = bed.ask_with("gpt", asked("other", true)).await;
        check_good(response, "well", "fallback:spare").await;
        assert_eq!(first.hits(), 1, "{status}");
        let (reason, left) = bed.of_name("gpt").paused.unwrap();
        assert_eq!(reason, breakerbox::policy::PauseReason::QuotaUsedUp);
        assert!(left > Duration::from_secs(3_590), "{left:?}");
        bed.end().await;
    }
}

/// The same in the words of other APIs: Anthropic's spend lasts until the month ends, and Google's
/// quota of a day for an hour at least, however few seconds its `RetryInfo` says.
#[tokio::test]
async fn llm_item_12_llm_4_every_api_has_its_words_for_a_used_up_quota() {
    let spend = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "no",
        "details": {"error_code": "enforced_spend_limit_reached"}}});
    let a_day = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "no",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations":
                [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]}});
    let credit = json!({"type": "error", "error": {"type": "billing_error", "message": "no"}});
    // The month may be about to end.
    for (api, path, status, body, least) in [
        ("anthropic", "/v1/messages", 429, spend, 0),
        ("anthropic", "/v1/messages", 402, credit, 3_590),
        ("google", "/models/g:generateContent", 429, a_day, 3_590),
    ] {
        let first = Provider::of([Act::error(status, body)]).await;
        let text = model("gpt", &first, "key = \"k\"").replace("\"openai\"", &format!("{api:?}"));
        let bed = Bed::of(&text.replace("/v1\"", "\"")).await;
        let ask = async || {
            let request = bed.http.post(bed.url(&format!("/gpt{path}")));
            let request = request.header("content-type", "application/json");
            request.body(asked("m", false)).send().await.unwrap()
        };
        assert_eq!(ask().await.status(), status, "{api}");
        let refused = ask().await;
        assert_eq!(refused.status(), 429, "{api}");
        let wait: u64 = header(&refused, "retry-after").parse().unwrap();
        assert!(wait > least, "{api}: {wait}");
        assert_eq!(first.hits(), 1, "{api}");
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_item_13_llm_4_a_quota_told_inside_a_stream_parks_too() {
    let created = json!({"type": "response.created", "sequence_number": 0, "response":
        {"id": "r", "object": "response", "status": "in_progress", "output": []}});
    let failed = json!({"type": "response.failed", "sequence_number": 1, "response":
        {"id": "r", "object": "response", "status": "failed", "output": [],
         "error": {"code": "insufficient_quota", "message": "no credit"}}});
    let pieces = vec![
        named("response.created", &created),
        named("response.failed", &failed),
    ];
    let first = Provider::of([Act::Stream(pieces)]).await;
    let bed = bed(&first, None, "").await;
    let ask = async || {
        let request = bed.http.post(bed.url("/gpt/v1/responses"));
        let request = request.header("content-type", "application/json");
        let body = json!({"model": "m", "stream": true, "input": "hi"});
        request.body(body.to_string()).send().await.unwrap()
    };
    let response = ask().await;
    assert_eq!(response.status(), 429);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "insufficient_quota", "{body}");
    let response = ask().await;
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "breakerbox-source"), "gateway");
    assert_eq!(first.hits(), 1);
    bed.end().await;
}

/// With another provider, no caller notices.
#[tokio::test]
async fn llm_item_13_llm_4_a_quota_told_inside_a_stream_is_answered_by_others() {
    let opened = named(
        "response.created",
        &json!({"type": "response.created", "sequence_number": 0, "response":
            {"id": "r", "object": "response", "status": "in_progress", "output": []}}),
    );
    let error = named(
        "error",
        &json!({"type": "error", "code": "insufficient_quota", "message": "no credit",
            "param": null, "sequence_number": 1}),
    );
    let delta = named(
        "response.output_text.delta",
        &json!({"type": "response.output_text.delta", "sequence_number": 1, "item_id": "i",
            "output_index": 0, "content_index": 0, "delta": "well"}),
    );
    let done = named(
        "response.completed",
        &json!({"type": "response.completed", "sequence_number": 2, "response":
            {"id": "r", "object": "response", "status": "completed", "output": []}}),
    );
    let good = vec![opened.clone(), delta, done];
    let first = Provider::of([Act::Stream(vec![opened, error])]).await;
    let spare = Provider::of([Act::Stream(good.clone())]).await;
    let bed = bed(&first, Some(&spare), "").await;
    for _ in 0..3 {
        let request = bed.http.post(bed.url("/gpt/v1/responses"));
        let request = request.header("content-type", "application/json");
        let body = json!({"model": "m", "stream": true, "input": "hi"});
        let response = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.text().await.unwrap(), good.concat());
    }
    assert_eq!((first.hits(), spare.hits()), (1, 3));
    let (reason, left) = bed.of_name("gpt").paused.unwrap();
    assert_eq!(reason, breakerbox::policy::PauseReason::QuotaUsedUp);
    assert!(left > Duration::from_secs(3_590), "{left:?}");
    bed.end().await;
}

#[tokio::test]
async fn llm_item_14_llm_5_no_pause_is_shorter_than_asked() {
    let limited = || error("rate_limit_exceeded", "tokens");
    for (headers, least) in [
        (vec![("retry-after-ms", "2500")], 2),
        (vec![("retry-after", "2.5")], 2),
        (
            vec![
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            359,
        ),
    ] {
        let act = Act::Say(429, headers.clone(), limited());
        let first = Provider::of([act, Act::good("well")]).await;
        let bed = bed(&first, None, "").await;
        assert_eq!(bed.ask("gpt", true).await.status(), 429);
        let response = bed.ask("gpt", true).await;
        assert_eq!(
            header(&response, "breakerbox-source"),
            "gateway",
            "{headers:?}"
        );
        let wait: u64 = header(&response, "retry-after").parse().unwrap();
        assert!(wait >= least, "{headers:?}: {wait}");
        assert_eq!(header(&response, "x-should-retry"), "false");
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_item_15_llm_18_a_rate_limit_pauses_its_model_only() {
    let limited = Act::Say(
        429,
        vec![("retry-after", "60")],
        error("rate_limit_exceeded", "requests"),
    );
    let first = Provider::of([limited, Act::good("well")]).await;
    let bed = bed(&first, None, "").await;
    let big = async || bed.ask_with("gpt", asked("big", true)).await;
    assert_eq!(big().await.status(), 429);
    assert_eq!(header(&big().await, "breakerbox-source"), "gateway");
    let small = bed.ask_with("gpt", asked("small", true)).await;
    check_good(small, "well", "primary").await;
    assert_eq!(first.hits(), 2);
    bed.end().await;
}

#[tokio::test]
async fn llm_item_15_llm_18_a_used_up_quota_pauses_every_model() {
    let used_up = error("insufficient_quota", "insufficient_quota");
    let first = Provider::of([Act::error(429, used_up), Act::good("well")]).await;
    let bed = bed(&first, None, "").await;
    assert_eq!(bed.ask_with("gpt", asked("big", true)).await.status(), 429);
    for name in ["big", "small", "new"] {
        let refused = bed.ask_with("gpt", asked(name, true)).await;
        assert_eq!(refused.status(), 429, "{name}");
        assert_eq!(header(&refused, "breakerbox-source"), "gateway", "{name}");
    }
    assert_eq!(first.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn llm_item_15_llm_18_a_server_that_is_not_there_counts_for_every_model() {
    // A port at which no server listens.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let text = format!(
        "[dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\nurl = \"http://{address}/v1\"\n\
         retry.max_attempts = 1\nbreaker.failure_threshold = 3\n"
    );
    let bed = Bed::of(&text).await;
    for _ in 0..3 {
        assert_eq!(bed.ask_with("gpt", asked("big", true)).await.status(), 502);
    }
    let refused = bed.ask_with("gpt", asked("small", true)).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(header(&refused, "breakerbox-attempts"), "0");
    bed.end().await;
}

#[tokio::test]
async fn llm_item_16_llm_3_a_wrong_set_up_is_no_failure_and_others_answer() {
    for (status, code) in [(401, "invalid_api_key"), (404, "model_not_found")] {
        let first = Provider::of([Act::error(status, error(code, "invalid_request_error"))]).await;
        let spare = Provider::good("well").await;
        let bed = bed(&first, Some(&spare), "retry.max_attempts = 3").await;
        let response = bed.ask("gpt", true).await;
        check_good(response, "well", "fallback:spare").await;
        assert_eq!((first.hits(), bed.failures("gpt")), (1, 0), "{status}");
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_item_17_llm_17_what_speaks_of_the_prompt_passes_as_it_came() {
    for code in ["context_length_exceeded", "content_filter"] {
        let body = error(code, "invalid_request_error");
        let first = Provider::of([Act::error(400, &body)]).await;
        let spare = Provider::good("well").await;
        let bed = bed(&first, Some(&spare), "").await;
        let response = bed.ask("gpt", true).await;
        assert_eq!(response.status(), 400);
        assert_eq!(header(&response, "x-request-id"), "request-7");
        assert_eq!(header(&response, "x-should-retry"), "false");
        assert_eq!(response.text().await.unwrap(), body);
        assert_eq!((spare.hits(), bed.failures("gpt")), (0, 0));
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_17_llm_item_17_another_model_answers_a_long_prompt_where_it_may() {
    let body = error("context_length_exceeded", "invalid_request_error");
    let first = Provider::of([Act::error(400, &body), Act::error(500, OVERLOADED)]).await;
    let spare = Provider::good("well").await;
    let text = model("gpt", &first, "retry.max_attempts = 1")
        + FALLBACK
        + "on = [\"too_long\"]\n"
        + &model("spare", &spare, "");
    let bed = Bed::of(&text).await;
    check_good(bed.ask("gpt", true).await, "well", "fallback:spare").await;
    // It serves no other end.
    assert_eq!(bed.ask("gpt", true).await.status(), 500);
    assert_eq!((first.hits(), spare.hits()), (2, 1));
    assert_eq!(bed.failures("gpt"), 1);
    bed.end().await;
}

/// Asks as one caller, with its own credential.
async fn ask_as(bed: &Bed, caller: &str) -> reqwest::Response {
    let request = bed.http.post(bed.url("/gpt/v1/chat/completions"));
    let request = request
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer sk-{caller}"))
        .header("breakerbox-key", caller);
    request.body(asked("m", true)).send().await.unwrap()
}

/// A model without a key of ours: its providers' limits are those of each caller.
async fn of_callers(first: &Provider, more: &str) -> Bed {
    let more = format!("retry.max_attempts = 1\n{more}");
    Bed::of(&model("gpt", first, &more)).await
}

#[tokio::test]
async fn lim_1_the_limit_of_one_callers_own_key_keeps_no_other_caller_waiting() {
    let credit = || error("insufficient_quota", "insufficient_quota");
    let limited = || error("rate_limit_exceeded", "requests");
    let wait = || vec![("retry-after", "3600")];
    for act in [
        Act::error(429, credit()),
        Act::error(402, credit()),
        Act::Say(429, wait(), limited()),
        Act::Stream(vec![OPENING.to_owned(), event(&credit())]),
    ] {
        let first = Provider::of([act.clone(), Act::good("well")]).await;
        let bed = of_callers(&first, "").await;
        let told = ask_as(&bed, "poor").await;
        assert!([402, 429].contains(&told.status().as_u16()), "{act:?}");
        check_good(ask_as(&bed, "rich").await, "well", "primary").await;
        assert_eq!(bed.of_name("gpt").paused, None, "{act:?}");
        bed.end().await;
        // Where a header tells the callers apart, the one that was told waits.
        let first = Provider::of([act.clone(), Act::good("well")]).await;
        let bed = of_callers(&first, "keys_by = \"header\"").await;
        ask_as(&bed, "poor").await;
        let refused = ask_as(&bed, "poor").await;
        assert_eq!(header(&refused, "breakerbox-source"), "gateway", "{act:?}");
        check_good(ask_as(&bed, "rich").await, "well", "primary").await;
        // A call without such a header is of no known caller.
        check_good(bed.ask("gpt", true).await, "well", "primary").await;
        assert_eq!((first.hits(), bed.of_name("gpt").paused), (3, None));
        bed.end().await;
    }
}

#[tokio::test]
async fn fbk_2_the_credit_of_a_caller_is_its_own_affair() {
    let credit = error("insufficient_quota", "insufficient_quota");
    let first = Provider::of([Act::error(429, credit)]).await;
    let spare = Provider::good("well").await;
    let text = model("gpt", &first, "") + FALLBACK + &model("spare", &spare, "key = \"k\"");
    let bed = Bed::of(&text).await;
    assert_eq!(ask_as(&bed, "poor").await.status(), 429);
    assert_eq!((first.hits(), spare.hits()), (1, 0));
    bed.end().await;
}
