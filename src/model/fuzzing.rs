//! Targets for fuzzers: streams and bodies of providers, and requests to them.

use http::HeaderMap;

use super::{
    Api, ApiShape, ModelProblem, ModelRequest, StreamWatch, TokenKind, WatchEvent, error_body,
    figures_of, judge, replace_model, without_key_in_query,
};
use crate::policy::Executed;

const SHAPES: [ApiShape; 6] = [
    ApiShape::Chat,
    ApiShape::Responses,
    ApiShape::Messages,
    ApiShape::Content,
    ApiShape::ContentArray,
    ApiShape::Other(Api::OpenAi),
];

/// Reads a stream. The first byte selects its shape, the second one the size of its pieces: the
/// meaning does not depend on how it is cut.
pub(crate) fn model_events(data: &[u8]) {
    let [shape, size, stream @ ..] = data else {
        return;
    };
    let shape = SHAPES[usize::from(*shape) % SHAPES.len()];
    let whole = watched(shape, stream, stream.len().max(1));
    let cut = watched(shape, stream, usize::from(*size) + 1);
    assert_eq!(whole, cut, "pieces of {} bytes", u32::from(*size) + 1);
}

/// Everything that a watch says of a stream.
type WatchedStream = (Vec<WatchEvent>, super::StreamEnd, super::AnswerFigures, u64);

fn watched(shape: ApiShape, stream: &[u8], size: usize) -> WatchedStream {
    let mut watch = StreamWatch::new(shape);
    let mut events = Vec::new();
    let mut fed = 0;
    for piece in stream.chunks(size) {
        events.extend(watch.feed(piece));
        fed += piece.len();
        assert!(watch.kept() <= fed, "it keeps more than has come");
        assert!(watch.unfinished() <= fed as u64);
    }
    let unfinished = watch.unfinished();
    let (end, last) = watch.finish();
    events.extend(last);
    (events, end, watch.figures().clone(), unfinished)
}

/// Judges an answer, and reads and changes a request: the first byte selects the dialect and the
/// status, the first line is the target.
pub(crate) fn model_bodies(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let api = Api::ALL[usize::from(*first) % Api::ALL.len()];
    let status = [200, 400, 401, 404, 429, 500, 503, 529][usize::from(*first >> 5)];
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let target = String::from_utf8_lossy(&rest[..end]);
    let body = rest[end..].strip_prefix(b"\n").unwrap_or(&rest[end..]);
    let shape = ApiShape::of(api, &target);
    assert_eq!(shape.api(), api);
    let headers = HeaderMap::new();
    let verdict = judge(shape, status, &headers, body);
    if status >= 400 {
        assert!(verdict.kind.is_some(), "an error is no answer");
    }
    let _ = verdict.verdict();
    let request = ModelRequest::read(api, &target, body);
    for kind in [TokenKind::Total, TokenKind::Input, TokenKind::Output] {
        let estimate = request.estimate(1_000);
        let _ = estimate.reserved(kind);
        let _ = estimate.settled(api, &figures_of(shape, body), kind);
    }
    check_replaced(api, &target, body);
    let plain = without_key_in_query(&target);
    assert_eq!(without_key_in_query(&plain), plain, "{target:?}");
    check_own_error(api, &target);
}

/// Checks that a replaced model is read, and that nothing else of the request has changed.
fn check_replaced(api: Api, target: &str, body: &[u8]) {
    const MODEL: &str = "another-model";
    let before = ModelRequest::read(api, target, body);
    let replaced = replace_model(api, target, body, MODEL);
    let new_target = replaced.target.as_deref().unwrap_or(target);
    let new_body = replaced.body.as_deref().unwrap_or(body);
    let after = ModelRequest::read(api, new_target, new_body);
    // Of several members with this name, the last one may be no text.
    if before.model.is_some() {
        assert_eq!(after.model.as_deref(), Some(MODEL), "{target:?}");
    }
    assert_eq!(after.is_streamed, before.is_streamed);
    assert_eq!(after.max_output, before.max_output);
    assert_eq!(after.is_repeatable(), before.is_repeatable());
    let again = replace_model(api, new_target, new_body, MODEL);
    assert_eq!(again.body.as_deref().unwrap_or(new_body), new_body);
    assert_eq!(again.target.as_deref().unwrap_or(new_target), new_target);
}

/// Checks that an error of ours is read as one by ourselves, in each dialect.
fn check_own_error(api: Api, message: &str) {
    let problem = ModelProblem {
        status: 503,
        code: "breaker-open",
        message,
        dependency: Some("a"),
        state: None,
        executed: Executed::No,
        retry_after: None,
        may_retry: false,
    };
    let response = error_body(api, &problem);
    let verdict = judge(api, 503, response.headers(), response.body().as_bytes());
    assert!(verdict.kind.is_some());
    let shapes = SHAPES.into_iter().filter(|shape| shape.api() == api);
    for shape in shapes.filter(|shape| shape.is_generating()) {
        let mut watch = StreamWatch::new(shape);
        let event = watch.error_event(&problem);
        let mut events = watch.feed(event.as_bytes());
        events.extend(watch.finish().1);
        let is_error = |event: &WatchEvent| matches!(event, WatchEvent::Error(_));
        assert!(events.iter().any(is_error), "{shape:?}: {event}");
    }
}
