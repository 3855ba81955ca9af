//! Our own errors, as the client libraries of each dialect read them.

use serde_json::{Value, json};

use super::*;
use crate::policy::Executed;

fn problem(status: u16) -> ModelProblem<'static> {
    ModelProblem {
        status,
        code: "breaker-open",
        message: "gpt: the breaker refuses calls",
        dependency: Some("gpt"),
        state: Some("open"),
        executed: Executed::No,
        retry_after: Some(Duration::from_micros(1_500_001)),
        may_retry: false,
    }
}

#[test]
fn llm_13_an_error_of_ours_has_the_dialects_shape_and_our_fields() {
    for (api, status, kind) in [
        (Api::OpenAi, 503, "service_unavailable_error"),
        (Api::OpenAi, 429, "rate_limit_error"),
        (Api::OpenAi, 504, "timeout_error"),
        (Api::OpenAi, 502, "server_error"),
        (Api::OpenAi, 400, "invalid_request_error"),
        (Api::Anthropic, 503, "overloaded_error"),
        (Api::Anthropic, 429, "rate_limit_error"),
        (Api::Anthropic, 504, "timeout_error"),
        (Api::Anthropic, 502, "api_error"),
        (Api::Google, 503, "UNAVAILABLE"),
        (Api::Google, 429, "RESOURCE_EXHAUSTED"),
        (Api::Google, 504, "DEADLINE_EXCEEDED"),
        (Api::Google, 502, "INTERNAL"),
    ] {
        let response = error_body(api, &problem(status));
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = serde_json::from_str(response.body()).unwrap();
        let error = &body["error"];
        let is_google = api == Api::Google;
        assert_eq!(error[if is_google { "status" } else { "type" }], kind);
        if is_google {
            assert_eq!(error["code"], status);
            assert_eq!(error["details"][0]["reason"], "BREAKER_OPEN");
        } else {
            assert_eq!(error["code"], "breaker-open");
        }
        assert_eq!(body.get("type").is_some(), api == Api::Anthropic);
        assert_eq!(error["message"], "gpt: the breaker refuses calls");
        assert_eq!(error["dependency"], "gpt");
        assert_eq!(error["state"], "open");
        assert_eq!(error["executed"], "no");
        assert_eq!(error["retry_after_ms"], 1_501);
    }
}

#[test]
fn llm_12_an_error_of_ours_says_whether_to_retry() {
    let headers = error_body(Api::OpenAi, &problem(503))
        .into_parts()
        .0
        .headers;
    assert_eq!(headers["x-should-retry"], "false");
    assert_eq!(headers["retry-after"], "2");
    assert_eq!(headers["retry-after-ms"], "1501");
    let free = ModelProblem {
        may_retry: true,
        retry_after: None,
        ..problem(503)
    };
    let headers = error_body(Api::OpenAi, &free).into_parts().0.headers;
    assert!(!headers.contains_key("x-should-retry") && !headers.contains_key("retry-after"));
}

#[test]
fn llm_8_an_event_of_ours_is_an_error_and_no_end() {
    for (shape, cut) in [
        (
            ApiShape::Chat,
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n",
        ),
        (
            ApiShape::Responses,
            "data: {\"type\":\"response.output_text.delta\",\"sequence_number\":4,\"delta\":\"x\"}\n\n",
        ),
        (
            ApiShape::Messages,
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\n",
        ),
        (
            ApiShape::Content,
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}\r\n\r\n",
        ),
        (
            ApiShape::ContentArray,
            "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}\r\n",
        ),
    ] {
        for part in ["", "data: {\"half"] {
            if shape == ApiShape::ContentArray && !part.is_empty() {
                continue;
            }
            let passed = format!("{cut}{part}");
            let mut watch = StreamWatch::new(shape);
            watch.feed(passed.as_bytes());
            let event = watch.error_event(&problem(502));
            for mark in [
                "[DONE]",
                "finish",
                "message_stop",
                "response.completed",
                "usage",
            ] {
                assert!(!event.contains(mark), "{event}");
            }
            // A watch of what the caller gets sees an error.
            let mut caller = StreamWatch::new(shape);
            let events = caller.feed(format!("{passed}{event}").as_bytes());
            assert!(
                matches!(events.last(), Some(WatchEvent::Error(_))),
                "{event}"
            );
            assert_eq!(caller.finish().0, StreamEnd::Failed);
        }
    }
    let mut watch = StreamWatch::new(ApiShape::Responses);
    watch.feed(b"data: {\"type\":\"response.created\",\"sequence_number\":4}\n\n");
    let event = watch.error_event(&problem(502));
    let data: Value = serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap();
    assert_eq!(data["type"], "error");
    assert_eq!(data["sequence_number"], 5);
    assert_eq!(data["code"], "breaker-open");
    assert_eq!(data["error"]["message"], data["message"]);
    assert_eq!(data["param"], json!(null));
}
