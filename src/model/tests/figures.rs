//! Usage and models of answers, streamed and whole.

use super::streams::WHOLE;
use super::*;

fn watched(shape: ApiShape, stream: &str) -> StreamWatch {
    let mut watch = StreamWatch::new(shape);
    watch.feed(stream.as_bytes());
    watch
}

#[test]
fn llm_19_usage_is_read_from_the_stream() {
    for (shape, stream) in WHOLE {
        let watch = watched(shape, stream);
        let figures = watch.figures();
        let usage = TokenUsage {
            input: Some(9),
            cached_input: 4,
            output: Some(3),
        };
        assert_eq!(figures.usage, usage, "{shape:?}");
        assert_eq!(figures.content_bytes, 5, "{shape:?}");
        let model = figures.model.as_deref().unwrap();
        assert!(model.ends_with("-x"), "{model}");
        assert!(watch.has_content() && watch.is_ended());
    }
    // The first count of Anthropic's output is of the opening only.
    let stream = WHOLE[2].1;
    let half = &stream[..stream.find("event: message_delta").unwrap()];
    assert_eq!(
        watched(ApiShape::Messages, half).figures().usage.output,
        None
    );
}

#[test]
fn llm_19_usage_is_read_from_whole_answers() {
    for (shape, body) in [
        (
            ApiShape::Chat,
            r#"{"model":"g-x","choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#,
        ),
        (
            ApiShape::Responses,
            r#"{"model":"g-x","output":[{"type":"message","id":"m","role":"assistant","content":[{"type":"output_text","text":"Hello"}]}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":3}}"#,
        ),
        (
            ApiShape::Messages,
            r#"{"model":"g-x","content":[{"type":"text","text":"Hello"}],"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":3}}"#,
        ),
        (
            ApiShape::Content,
            r#"{"modelVersion":"g-x","candidates":[{"content":{"parts":[{"text":"Hello"}]}}],"usageMetadata":{"promptTokenCount":9,"cachedContentTokenCount":4,"candidatesTokenCount":3}}"#,
        ),
    ] {
        let figures = figures_of(shape, body.as_bytes());
        let expected = AnswerFigures {
            usage: TokenUsage {
                input: Some(9),
                cached_input: 4,
                output: Some(3),
            },
            model: Some("g-x".to_owned()),
            content_bytes: 5,
        };
        assert_eq!(figures, expected, "{body}");
        let none = figures_of(shape, &body.as_bytes()[..body.len() - 1]);
        assert_eq!(none, AnswerFigures::default(), "half an answer");
    }
    let other = figures_of(ApiShape::Other(Api::OpenAi), b"{\"model\":\"m\"}");
    assert_eq!(other, AnswerFigures::default());
}

#[test]
fn llm_24_a_later_count_of_anthropics_input_never_takes_the_cached_part_away() {
    for (usage, expected) in [
        (r#"{"input_tokens":5,"output_tokens":7}"#, 100),
        (r#"{"output_tokens":7}"#, 100),
        (
            r#"{"input_tokens":10,"cache_read_input_tokens":90,"cache_creation_input_tokens":5,"output_tokens":7}"#,
            105,
        ),
    ] {
        let stream = format!(
            "data: {{\"type\":\"message_start\",\"message\":{{\"usage\":{{\"input_tokens\":5,\
             \"cache_read_input_tokens\":90,\"cache_creation_input_tokens\":5,\"output_tokens\":1}}}}}}\n\n\
             data: {{\"type\":\"message_delta\",\"delta\":{{}},\"usage\":{usage}}}\n\n"
        );
        let mut watch = StreamWatch::new(ApiShape::Messages);
        watch.feed(stream.as_bytes());
        let read = watch.figures().usage;
        assert_eq!(
            (read.input, read.output),
            (Some(expected), Some(7)),
            "{usage}"
        );
        assert_eq!(read.cached_input, 90, "{usage}");
    }
}
