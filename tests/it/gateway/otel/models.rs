//! Spans of attempts at language models, by the conventions for generative AI.

use super::*;

#[tokio::test]
async fn llm_24_a_span_names_the_model_and_its_tokens_and_no_words() {
    let events = [
        r#"{"id":"c","model":"m-2026","choices":[{"index":0,"delta":{"content":"the-answer"},"finish_reason":null}]}"#,
        r#"{"id":"c","model":"m-2026","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"id":"c","model":"m-2026","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#,
        "[DONE]",
    ];
    let body: String = events
        .iter()
        .map(|data| format!("data: {data}\n\n"))
        .collect();
    let upstream = Upstream::of(move |_| {
        let mut response = Response::new(Body::from(body.clone()));
        let media = "text/event-stream".parse().unwrap();
        response.headers_mut().insert("content-type", media);
        async move { response }
    })
    .await;
    let collector = Collector::start().await;
    let folder = folder();
    let otel = format!("endpoint = \"http://{}/\"", collector.address);
    let table = format!(
        "[dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\nurl = \"{}/v1\"\nkey = \"sk-ours\"\n\
         model = \"m\"\n",
        upstream.url()
    );
    let sidecar = sidecar(&folder, &otel, &table);
    let asked = http().post(sidecar.url("/gpt/v1/chat/completions"));
    let asked = asked.header("content-type", "application/json");
    let asked = asked.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let prompt =
        r#"{"model":"x","stream":true,"messages":[{"role":"user","content":"the-prompt"}]}"#;
    let answered = asked.body(prompt).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    answered.text().await.unwrap();
    let spans = collector.trace(TRACE, 2).await;
    let attempt = spans
        .iter()
        .find(|span| span.kind == SpanKind::Client as i32)
        .unwrap();
    let keys = [
        "gen_ai.operation.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
    ];
    assert_eq!(words(attempt, keys), ["chat", "m", "m-2026"]);
    let count = |name: &str| {
        let found = attempt.attributes.iter().find(|one| one.key == name);
        found.and_then(|one| one.value.clone()?.value)
    };
    assert_eq!(count("gen_ai.usage.input_tokens"), Some(Value::IntValue(7)));
    assert_eq!(
        count("gen_ai.usage.output_tokens"),
        Some(Value::IntValue(2))
    );
    let got = collector.got.lock().unwrap();
    let told = String::from_utf8_lossy(&got.bytes);
    for secret in ["the-prompt", "the-answer", "sk-ours"] {
        assert!(!told.contains(secret), "{secret}");
    }
}
