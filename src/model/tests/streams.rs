//! Streams of each shape: what begins an answer, what ends it, and what fails it.

use super::WatchEvent as Event;
use super::*;

pub(super) const CHAT: &str = "data: {\"id\":\"c\",\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"finish_reason\":null}]}\n\n\
data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}]}\n\n\
data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n\
data: [DONE]\n\n";

pub(super) const RESPONSES: &str = "event: response.created\n\
data: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"model\":\"gpt-x\",\"error\":null,\"usage\":null}}\n\n\
event: response.output_item.added\n\
data: {\"type\":\"response.output_item.added\",\"sequence_number\":1,\"item\":{\"type\":\"message\",\"content\":[]}}\n\n\
event: response.output_text.delta\n\
data: {\"type\":\"response.output_text.delta\",\"sequence_number\":2,\"delta\":\"Hello\",\"obfuscation\":\"xyz\"}\n\n\
event: response.completed\n\
data: {\"type\":\"response.completed\",\"sequence_number\":3,\"response\":{\"model\":\"gpt-x\",\"usage\":{\"input_tokens\":9,\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":3}}}\n\n";

pub(super) const MESSAGES: &str = "event: message_start\n\
data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-x\",\"content\":[],\"usage\":{\"input_tokens\":5,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\n\
event: content_block_start\n\
data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
event: ping\n\
data: {\"type\":\"ping\"}\n\n\
event: content_block_delta\n\
data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n\
event: content_block_stop\n\
data: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
event: message_delta\n\
data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":3}}\n\n\
event: message_stop\n\
data: {\"type\":\"message_stop\"}\n\n";

pub(super) const CONTENT: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hel\"}],\"role\":\"model\"},\"index\":0}],\"modelVersion\":\"gemini-x\",\"usageMetadata\":{\"promptTokenCount\":9,\"cachedContentTokenCount\":4}}\r\n\r\n\
data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"lo\"}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":9,\"cachedContentTokenCount\":4,\"candidatesTokenCount\":2,\"thoughtsTokenCount\":1}}\r\n\r\n";

pub(super) const CONTENT_ARRAY: &str = "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"He]}\"}]}}],\"modelVersion\":\"gemini-x\"}\r\n,\r\n\
{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\\\"\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":9,\"cachedContentTokenCount\":4,\"candidatesTokenCount\":3}}\r\n]";

pub(super) const WHOLE: [(ApiShape, &str); 5] = [
    (ApiShape::Chat, CHAT),
    (ApiShape::Responses, RESPONSES),
    (ApiShape::Messages, MESSAGES),
    (ApiShape::Content, CONTENT),
    (ApiShape::ContentArray, CONTENT_ARRAY),
];

/// Watches a stream; an error as its kind and status.
fn watch(shape: ApiShape, stream: &str) -> (Vec<Event>, StreamEnd) {
    let mut watch = StreamWatch::new(shape);
    let mut events = watch.feed(stream.as_bytes());
    let (end, last) = watch.finish();
    events.extend(last);
    (events, end)
}

fn without_errors(events: &[Event]) -> Vec<Event> {
    let mut events = events.to_vec();
    events.retain(|event| !matches!(event, Event::Error(_)));
    events
}

fn error_of(events: &[Event]) -> &StreamError {
    let mut errors = events.iter().filter_map(|event| match event {
        Event::Error(error) => Some(&**error),
        _ => None,
    });
    let first = errors.next().expect("an error event");
    assert!(errors.next().is_none());
    first
}

#[test]
fn llm_6_an_answer_begins_with_its_first_content() {
    use Event::{Content, End, Opening, Ping};
    for (shape, expected) in [
        (
            ApiShape::Chat,
            &[Opening, Content, Opening, Opening, End][..],
        ),
        (ApiShape::Responses, &[Opening, Opening, Content, End]),
        (
            ApiShape::Messages,
            &[Opening, Opening, Ping, Content, Opening, Opening, End],
        ),
        (ApiShape::Content, &[Content, Content, End]),
        (ApiShape::ContentArray, &[Content, Content, End]),
    ] {
        let stream = WHOLE.iter().find(|(one, _)| *one == shape).unwrap().1;
        assert_eq!(watch(shape, stream), (expected.to_vec(), StreamEnd::Good));
    }
}

#[test]
fn llm_6_each_kind_of_content_is_content() {
    let chat = |delta: &str| {
        let data = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
        watch(ApiShape::Chat, &data).0
    };
    for delta in [
        r#"{"content":"x"}"#,
        r#"{"reasoning":"x"}"#,
        r#"{"reasoning_content":"x"}"#,
        r#"{"reasoning_details":[{"text":"x"}]}"#,
        r#"{"refusal":"no"}"#,
        r#"{"tool_calls":[{"index":0,"id":"call_1","function":{"name":"f","arguments":""}}]}"#,
    ] {
        assert_eq!(chat(delta), [Event::Content], "{delta}");
    }
    for delta in [
        r#"{"role":"assistant"}"#,
        r#"{"role":"assistant","content":""}"#,
        r#"{"content":null,"reasoning":null,"tool_calls":[]}"#,
        "{}",
    ] {
        assert_eq!(chat(delta), [Event::Opening], "{delta}");
    }
    let text = "data: {\"choices\":[{\"text\":\"x\",\"index\":0,\"finish_reason\":null}]}\n\n";
    assert_eq!(
        watch(ApiShape::Chat, text).0,
        [Event::Content],
        "the older shape"
    );
    for (data, event) in [
        (
            r#"{"type":"response.reasoning_summary_text.delta","delta":"x"}"#,
            Event::Content,
        ),
        (
            r#"{"type":"response.refusal.delta","delta":"x"}"#,
            Event::Content,
        ),
        (
            r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
            Event::Content,
        ),
        (
            r#"{"type":"response.function_call_arguments.done","arguments":"{}"}"#,
            Event::Content,
        ),
        (
            r#"{"type":"response.web_search_call.searching"}"#,
            Event::Content,
        ),
        (
            r#"{"type":"response.output_text.delta","delta":""}"#,
            Event::Opening,
        ),
        (
            r#"{"type":"response.in_progress","response":{}}"#,
            Event::Opening,
        ),
        (
            r#"{"type":"response.content_part.done","part":{"text":"x"}}"#,
            Event::Opening,
        ),
    ] {
        let events = watch(ApiShape::Responses, &format!("data: {data}\n\n")).0;
        assert_eq!(events, [event], "{data}");
    }
    for (data, event) in [
        (
            r#"{"type":"content_block_start","content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
            Event::Content,
        ),
        (
            r#"{"type":"content_block_start","content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            Event::Opening,
        ),
        (
            r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"x"}}"#,
            Event::Content,
        ),
        (
            r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":""}}"#,
            Event::Opening,
        ),
        (
            r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
            Event::Content,
        ),
    ] {
        let events = watch(ApiShape::Messages, &format!("data: {data}\n\n")).0;
        assert_eq!(events, [event], "{data}");
    }
    for part in [
        r#"{"text":"x"}"#,
        r#"{"functionCall":{"name":"f","args":{}}}"#,
    ] {
        let data = format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{part}]}}}}]}}\n\n");
        assert_eq!(
            watch(ApiShape::Content, &data).0,
            [Event::Content],
            "{part}"
        );
    }
    let empty = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}]}}]}\n\n";
    assert_eq!(watch(ApiShape::Content, empty).0, [Event::Opening]);
}

#[test]
fn llm_6_comments_and_pings_are_no_content() {
    let stream = ": OPENROUTER PROCESSING\n\nevent: ping\n\n: keep-alive\n\ndata: no JSON\n\n";
    for shape in WHOLE.into_iter().map(|(shape, _)| shape).take(4) {
        let (events, end) = watch(shape, stream);
        assert_eq!(events, vec![Event::Ping; 4], "{shape:?}");
        assert_eq!(end, StreamEnd::Truncated);
    }
}

#[test]
fn llm_8_an_end_without_its_mark_is_none() {
    for (shape, stream) in WHOLE {
        // Cut before the last event, and in the middle of it.
        let last = match shape {
            ApiShape::Chat => "data: [DONE]",
            ApiShape::Responses => "event: response.completed",
            ApiShape::Messages => "event: message_stop",
            ApiShape::Content => "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"lo",
            _ => "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\\\"",
        };
        let at = stream.find(last).unwrap();
        for cut in [0, at, at + last.len() - 1] {
            let (events, end) = watch(shape, &stream[..cut]);
            assert_eq!(end, StreamEnd::Truncated, "{shape:?} {}", &stream[..cut]);
            assert!(!events.contains(&Event::End));
        }
        // The empty line behind the last event may be missing.
        assert_eq!(
            watch(shape, stream.trim_end()).1,
            StreamEnd::Good,
            "{shape:?}"
        );
    }
}

#[test]
fn llm_8_no_mark_is_believed_without_the_finish_of_all_choices() {
    let end = |stream: &str| watch(ApiShape::Chat, stream).1;
    let chunk = |index: u32, reason: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"x\"}},\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    let done = "data: [DONE]\n\n";
    let (open, stop) = ("null", "\"stop\"");
    assert_eq!(end(done), StreamEnd::Truncated, "an empty stream");
    assert_eq!(end(&(chunk(0, open) + done)), StreamEnd::Truncated);
    assert_eq!(end(&(chunk(0, stop) + done)), StreamEnd::Good);
    assert_eq!(
        end(&(chunk(0, stop) + &chunk(1, open) + done)),
        StreamEnd::Truncated
    );
    assert_eq!(
        end(&(chunk(0, stop) + &chunk(1, stop) + done)),
        StreamEnd::Good
    );
    for reason in [
        "\"length\"",
        "\"tool_calls\"",
        "\"content_filter\"",
        "\"function_call\"",
    ] {
        assert_eq!(end(&(chunk(0, reason) + done)), StreamEnd::Good, "{reason}");
    }
    let incomplete = "data: {\"type\":\"response.incomplete\",\"response\":{}}\n\n";
    assert_eq!(watch(ApiShape::Responses, incomplete).1, StreamEnd::Good);
    let blocked = "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n";
    assert_eq!(watch(ApiShape::Content, blocked).1, StreamEnd::Good);
    let models = ApiShape::Other(Api::OpenAi);
    assert_eq!(watch(models, "{}").1, StreamEnd::Good, "it has no events");
}

#[test]
fn llm_8_an_error_event_is_judged_as_an_answer_would_be() {
    use ModelErrorKind as Kind;
    for (shape, event, kind, status) in [
        (
            ApiShape::Chat,
            r#"data: {"error":{"message":"m","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Kind::RateLimit,
            429,
        ),
        (
            ApiShape::Chat,
            r#"data: {"id":"g","error":{"code":502,"message":"m"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
            Kind::Failure,
            502,
        ),
        (
            ApiShape::Chat,
            "event: error\ndata: {\"message\":\"m\"}",
            Kind::Failure,
            500,
        ),
        (
            ApiShape::Responses,
            "event: error\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"m\",\"param\":null,\"sequence_number\":1}",
            Kind::RateLimit,
            429,
        ),
        (
            ApiShape::Responses,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_is_overloaded\",\"message\":\"m\"}}}",
            Kind::Overloaded,
            503,
        ),
        (
            ApiShape::Responses,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"insufficient_quota\",\"message\":\"m\"}}}",
            Kind::QuotaUsedUp,
            429,
        ),
        (
            ApiShape::Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}",
            Kind::Overloaded,
            529,
        ),
        (
            ApiShape::Messages,
            "event: error\ndata: out of memory",
            Kind::Failure,
            500,
        ),
        (
            ApiShape::Content,
            r#"data: {"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}"#,
            Kind::RateLimit,
            429,
        ),
        (
            ApiShape::ContentArray,
            r#"[{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}]"#,
            Kind::Overloaded,
            503,
        ),
    ] {
        let (events, end) = watch(shape, &format!("{event}\n\n"));
        let error = error_of(&events);
        assert_eq!(error.verdict.kind, Some(kind), "{event}");
        assert_eq!(error.verdict.status, status, "{event}");
        assert!(error.verdict.is_late);
        assert_eq!(end, StreamEnd::Failed);
        assert_eq!(without_errors(&events), []);
        // As a whole answer it is the same error.
        let whole = judge(shape, status, &HeaderMap::new(), error.body.as_bytes());
        assert_eq!(whole.kind, Some(kind), "{}", error.body);
        let body: serde_json::Value = serde_json::from_str(&error.body).unwrap();
        assert!(body["error"]["message"].is_string(), "{body}");
    }
}

#[test]
fn llm_8_an_error_after_content_fails_the_stream() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"m\"}}\n\n";
    for (shape, stream) in WHOLE.into_iter().take(4) {
        let half = stream.find("Hel").unwrap();
        let half = half
            + stream[half..]
                .find("\n\r\n")
                .map_or_else(|| stream[half..].find("\n\n").unwrap() + 2, |at| at + 3);
        let error = match shape {
            ApiShape::Content => {
                "data: {\"error\":{\"code\":500,\"message\":\"m\",\"status\":\"INTERNAL\"}}\n\n"
            }
            _ => error,
        };
        let (events, end) = watch(shape, &format!("{}{error}", &stream[..half]));
        assert_eq!(end, StreamEnd::Failed, "{shape:?}");
        assert!(
            without_errors(&events).ends_with(&[Event::Content]),
            "{events:?}"
        );
        assert!(matches!(events.last(), Some(Event::Error(_))));
    }
}

#[test]
fn llm_5_an_error_event_has_a_hint() {
    let event = "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"Please try again in 11.5s.\"}}}\n\n";
    let (events, _) = watch(ApiShape::Responses, event);
    let hint = error_of(&events).verdict.retry_after;
    assert_eq!(hint, Some(Duration::from_millis(11_500)));
}
