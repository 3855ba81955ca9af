//! Targets for fuzzers: messages of the protocol, and the streams that carry them.

use bytes::Bytes;
use serde_json::Value;

use super::event_stream::{EventReader, StreamEvent};
use super::http_headers::{decoded, encoded};
use super::id_scanner::{IdScanner, ScannedId};
use super::json_text::{JsonText, MemberEdit, edited, in_one_line, joined};
use super::message::{MessageId, ParamsHead, RawMessage, RawReply, answer, notification, request};
use super::request_meta;

/// Maximum size of an event in these tests.
const MAX_EVENT: usize = 200;

/// Reads a stream of events: the first byte is the size of its pieces. The events do not depend on
/// the cuts, unless one of them is too long.
pub(crate) fn mcp_events(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else {
        return;
    };
    let size = usize::from(*size) + 1;
    let whole = events(stream, stream.len().max(1), usize::MAX / 2);
    let cut = events(stream, size, usize::MAX / 2);
    assert_eq!(whole, cut, "pieces of {size} bytes");
    let (bounded, ..) = events(stream, size, MAX_EVENT);
    for event in &bounded {
        if let StreamEvent::Data(data) = event {
            assert!(data.len() <= MAX_EVENT + 16, "{} bytes", data.len());
        }
    }
    let is_short = |event: &StreamEvent| match event {
        StreamEvent::Data(data) | StreamEvent::Other(data) => data.len() + 64 < MAX_EVENT,
        StreamEvent::TooLong(_) => false,
    };
    let lines_are_short = stream
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .all(|line| line.len() + 64 < MAX_EVENT);
    if lines_are_short && whole.0.iter().all(is_short) {
        let is_data = |event: &&StreamEvent| matches!(event, StreamEvent::Data(_));
        let first: Vec<_> = whole.0.iter().filter(is_data).collect();
        let second: Vec<_> = bounded.iter().filter(is_data).collect();
        assert!(second.len() <= first.len());
    }
}

type ReadEvents = (
    Vec<StreamEvent>,
    Option<String>,
    Option<std::time::Duration>,
);

fn events(stream: &[u8], size: usize, max: usize) -> ReadEvents {
    let mut reader = EventReader::new(max);
    let mut events = Vec::new();
    for piece in stream.chunks(size) {
        reader.feed(piece);
        events.extend(std::iter::from_fn(|| reader.next()));
    }
    (events, reader.last_id.clone(), reader.retry)
}

/// Reads a message, and writes it again.
pub(crate) fn mcp_messages(data: &[u8]) {
    let text = Bytes::copy_from_slice(data);
    check_line(&text);
    let Ok(message) = RawMessage::read(&text) else {
        return;
    };
    match message {
        RawMessage::Request { id, method, params } => {
            let pieces = params.as_ref().map(|params| vec![params.bytes().clone()]);
            let written = joined(&request(id.as_json(), &method, pieces));
            let Ok(RawMessage::Request {
                id: again,
                method: same,
                params: passed,
            }) = RawMessage::read(&written)
            else {
                panic!("a request is written as something else: {written:?}");
            };
            assert_eq!((again, same, &passed), (id, method, &params));
            params.iter().for_each(check_params);
        }
        RawMessage::Notification { method, params } => {
            let pieces = params.as_ref().map(|params| vec![params.bytes().clone()]);
            let written = joined(&notification(&method, pieces));
            let Ok(RawMessage::Notification {
                method: same,
                params: passed,
            }) = RawMessage::read(&written)
            else {
                panic!("a notification is written as something else: {written:?}");
            };
            assert_eq!((same, &passed), (method, &params));
            params.iter().for_each(check_params);
        }
        RawMessage::Answer { id, outcome } => {
            let named = id.as_ref().map_or("null", MessageId::as_json);
            let told = outcome.as_ref();
            let told = told.map(|result| vec![result.bytes().clone()]);
            let written = joined(&answer(named, told));
            let Ok(RawMessage::Answer {
                id: again,
                outcome: same,
            }) = RawMessage::read(&written)
            else {
                panic!("an answer is written as something else: {written:?}");
            };
            assert_eq!((&again, &same), (&id, &outcome));
            check_scanned(&text, id.as_ref());
            if let Ok(result) = outcome {
                let _ = RawReply::of(result);
            }
        }
    }
}

/// Checks that a text is the same value in one line.
fn check_line(text: &Bytes) {
    let line = in_one_line(text.clone());
    assert_eq!(line.len(), text.len());
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
    let value = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
    if let Some(before) = value(text) {
        assert_eq!(value(&line), Some(before));
    }
    let lossy = String::from_utf8_lossy(text);
    assert_eq!(decoded(&encoded(&lossy)).as_deref(), Some(&*lossy));
}

/// Checks that the search for an id finds the one that was read. It reads no escapes, and short
/// names only.
fn check_scanned(text: &Bytes, id: Option<&MessageId>) {
    let is_short = id.is_none_or(|id| id.as_json().len() < 100);
    if text.contains(&b'\\') || !is_short {
        return;
    }
    let mut scanner = IdScanner::default();
    for piece in text.chunks(7) {
        scanner.feed(piece);
    }
    assert!(scanner.is_structured());
    let expected = Vec::from_iter(id.cloned().map(ScannedId::Answer));
    assert_eq!(scanner.found(), expected, "{text:?}");
}

/// Checks that parameters with other metadata are the same otherwise.
fn check_params(params: &JsonText) {
    let Some(head) = ParamsHead::read(params) else {
        return;
    };
    if let Some(meta) = &head.meta
        && let Some(members) = request_meta::members(meta)
    {
        let written = JsonText::checked(request_meta::written(&members));
        let again = request_meta::members(&written).expect("what is written can be read");
        assert_eq!(again, members);
    }
    let edit = MemberEdit {
        name: "_meta",
        present: head.meta.as_ref(),
        value: Bytes::from_static(b"{\"a\":1}"),
    };
    let changed = joined(&edited(params, vec![edit]));
    let value = |text: &[u8]| serde_json::from_slice::<Value>(text);
    if let Ok(mut expected) = value(params.bytes()) {
        expected["_meta"] = serde_json::json!({ "a": 1 });
        let changed = value(&changed).expect("what is changed is JSON");
        assert_eq!(changed, expected, "{}", params.as_str());
    }
}
