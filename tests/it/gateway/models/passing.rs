//! What passes between callers and providers: bytes, headers, keys, and the words of our errors.

use super::*;

/// An answer whose content goes on for longer than any other limit.
#[tokio::test]
async fn llm_item_01_llm_15_whole_and_streamed_answers_pass_byte_for_byte() {
    let first = Provider::of([
        Act::error(200, whole("well")),
        Act::good("well"),
        Act::Stream(messages("well")),
    ])
    .await;
    let text = model("gpt", &first, "")
        + &model("claude", &first, "")
            .replace("\"openai\"", "\"anthropic\"")
            .replace("/v1\"", "\"");
    let bed = Bed::of(&text).await;
    let response = bed.ask("gpt", false).await;
    assert_eq!(response.text().await.unwrap(), whole("well"));
    check_good(bed.ask("gpt", true).await, "well", "primary").await;
    let request = bed.http.post(bed.url("/claude/v1/messages"));
    let request = request.header("content-type", "application/json");
    let response = request.body(asked("m", true)).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), messages("well").concat());
    assert_eq!(first.seen(1).path, "/v1/chat/completions");
    assert_eq!(first.seen(2).path, "/v1/messages");
    bed.end().await;
}

#[tokio::test]
async fn llm_item_02_llm_16_a_stand_ins_stream_is_passed_on_as_it_comes() {
    let first = Provider::of([Act::error(500, OVERLOADED)]).await;
    let (feed, body) = fed();
    let body = Arc::new(Mutex::new(Some(body)));
    let upstream = Upstream::of(move |_| {
        let body = body.lock().unwrap().take().unwrap_or_default();
        async move {
            let mut response = Response::new(body);
            let media = "text/event-stream".parse().unwrap();
            response.headers_mut().insert("content-type", media);
            response
        }
    })
    .await;
    let spare = Provider {
        upstream,
        seen: Arc::default(),
    };
    let bed = bed(&first, Some(&spare), "").await;
    let begun: &'static str = Box::leak(format!("{OPENING}{}", chunk("a")).into_boxed_str());
    let (response, ()) = tokio::join!(bed.ask("gpt", true), async {
        feed.send(begun).await.unwrap();
    });
    let mut response = response;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert_eq!(response.chunk().await.unwrap().unwrap(), begun);
    feed.send(END).await.unwrap();
    drop(feed);
    assert_eq!(response.text().await.unwrap(), END);
    bed.end().await;
}

#[tokio::test]
async fn llm_item_20_llm_14_a_provider_sees_its_own_key_and_nothing_of_the_caller() {
    let first = Provider::of([Act::error(500, OVERLOADED)]).await;
    let spare = Provider::good("well").await;
    let bed = bed(&first, Some(&spare), "").await;
    let body = "{ \"model\" : \"m\",\n\"stream\": true, \"messages\": [] }";
    let request = bed.http.post(bed.url("/gpt/v1/chat/completions"));
    let request = request
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-callers")
        .header("x-api-key", "sk-callers")
        .header("cookie", "session=sk-callers")
        .header("forwarded", "for=10.0.0.1")
        .header("breakerbox-priority", "high")
        .header("breakerbox-deadline-ms", "5000")
        .header("openai-beta", "assistants=v2");
    let response = request.body(body).send().await.unwrap();
    check_good(response, "well", "fallback:spare").await;
    let (first, spare) = (first.seen(0), spare.seen(0));
    for (seen, key) in [(&first, "Bearer sk-first"), (&spare, "Bearer sk-spare")] {
        assert_eq!(seen.headers["authorization"], key);
        assert_eq!(seen.headers["openai-beta"], "assistants=v2");
        assert_eq!(seen.headers["accept-encoding"], "identity");
        let told = format!("{:?}", seen.headers);
        for word in [
            "sk-callers",
            "cookie",
            "forwarded",
            "breakerbox-deadline",
            "10.0.0.1",
        ] {
            assert!(!told.contains(word), "{word}: {told}");
        }
    }
    assert_eq!(first.path, "/v1/chat/completions");
    assert_eq!(first.body, body);
    assert_eq!(spare.path, "/other/v1/chat/completions");
    assert_eq!(spare.body, body.replace("\"m\"", "\"spare-1\""));
    bed.end().await;
}

#[tokio::test]
async fn llm_item_21_llm_10_a_long_prompt_falls_over_like_a_short_one() {
    let first = Provider::of([Act::error(500, OVERLOADED)]).await;
    let spare = Provider::good("well").await;
    let bed = bed(&first, Some(&spare), "").await;
    let long = asked(&"x".repeat(1_000_000), true).replace("\"model\"", "\"prompt\"");
    let long = format!("{{\"model\":\"m\",{}", &long[1..]);
    let response = bed.ask_with("gpt", long.clone()).await;
    check_good(response, "well", "fallback:spare").await;
    assert_eq!(first.seen(0).body, long);
    assert_eq!(spare.seen(0).body.len(), long.len() + "spare-1".len() - 1);
    bed.end().await;
}

#[tokio::test]
async fn llm_item_18_llm_12_an_open_breaker_refuses_in_the_apis_words_at_once() {
    let first = Provider::of([Act::error(500, OVERLOADED)]).await;
    let claude = Provider::of([Act::error(
        529,
        json!({"type": "error", "error":
        {"type": "overloaded_error", "message": "Overloaded"}}),
    )])
    .await;
    let once = "retry.max_attempts = 1\nbreaker.failure_threshold = 1\n";
    let text = model("gpt", &first, once)
        + &model("claude", &claude, once)
            .replace("\"openai\"", "\"anthropic\"")
            .replace("/v1\"", "\"");
    let bed = Bed::of(&text).await;
    assert_eq!(bed.ask("gpt", true).await.status(), 500);
    let response = bed.ask("gpt", true).await;
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "x-should-retry"), "false");
    assert_eq!(header(&response, "breakerbox-attempts"), "0");
    let body: Value = response.json().await.unwrap();
    let error = &body["error"];
    assert_eq!(error["type"], "service_unavailable_error");
    assert_eq!(error["code"], "breaker-open");
    assert_eq!(
        (&error["dependency"], &error["executed"]),
        (&json!("gpt"), &json!("no"))
    );
    assert_eq!(error["state"], "open");
    assert!(error["retry_after_ms"].is_u64(), "{body}");
    let ask = async || {
        let request = bed.http.post(bed.url("/claude/v1/messages"));
        let request = request.header("content-type", "application/json");
        request.body(asked("m", true)).send().await.unwrap()
    };
    let response = ask().await;
    assert_eq!(response.status(), 529);
    assert_eq!(header(&response, "x-should-retry"), "false");
    let body: Value = ask().await.json().await.unwrap();
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "overloaded_error");
    assert_eq!(body["error"]["code"], "breaker-open");
    let body: Value = bed
        .get("/gpt/v1/../x")
        .await
        .json()
        .await
        .unwrap_or_default();
    assert!(body.is_null() || body["error"].is_object(), "{body}");
    bed.end().await;
}

#[tokio::test]
async fn llm_item_14_llm_12_callers_may_retry_where_the_configuration_says_so() {
    let first = Provider::of([Act::error(500, OVERLOADED)]).await;
    let more = "callers_retry = true\nretry.max_attempts = 1\nbreaker.failure_threshold = 1\n";
    let bed = bed(&first, None, more).await;
    for _ in 0..2 {
        let response = bed.ask("gpt", true).await;
        assert_eq!(header(&response, "x-should-retry"), "");
    }
    bed.end().await;
}

#[tokio::test]
async fn llm_11_operations_that_only_compute_are_answered_by_others() {
    let vectors = || json!({"object": "list", "data": [{"embedding": [0.5]}]});
    let first = Provider::of([Act::error(500, OVERLOADED)]).await;
    let spare = Provider::of([Act::error(200, vectors())]).await;
    let bed = bed(&first, Some(&spare), "").await;
    for (path, source) in [
        ("embeddings", "fallback:spare"),
        ("moderations", "fallback:spare"),
        ("files", "primary"),
    ] {
        let request = bed.http.post(bed.url(&format!("/gpt/v1/{path}")));
        let request = request.header("content-type", "application/json");
        let body = json!({"model": "m", "input": "x"}).to_string();
        let response = request.body(body).send().await.unwrap();
        assert_eq!(header(&response, "breakerbox-source"), source, "{path}");
    }
    bed.end().await;
}
