//! Streams in pieces: cut anywhere, garbled, endless.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::streams::WHOLE;
use super::*;

const SHAPES: [ApiShape; 6] = [
    ApiShape::Chat,
    ApiShape::Responses,
    ApiShape::Messages,
    ApiShape::Content,
    ApiShape::ContentArray,
    ApiShape::Other(Api::OpenAi),
];

type Watched = (Vec<WatchEvent>, StreamEnd, AnswerFigures);

fn watch(shape: ApiShape, stream: &[u8], mut cuts: Vec<usize>) -> Watched {
    cuts.push(stream.len());
    cuts.sort_unstable();
    let mut watch = StreamWatch::new(shape);
    let (mut events, mut begin) = (Vec::new(), 0);
    for cut in cuts {
        events.extend(watch.feed(&stream[begin..cut]));
        assert!(watch.unfinished() <= cut as u64);
        begin = cut;
    }
    let (end, last) = watch.finish();
    events.extend(last);
    (events, end, watch.figures().clone())
}

/// Lines as streams have them, and some that no stream should have.
const LINES: [&str; 18] = [
    "",
    "",
    "",
    ": comment",
    "event: error",
    "event: ping",
    "event: message_stop",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\u00e9\\n\"}}]}",
    "data: [DONE]",
    "data: {\"error\":{\"message\":\"m\",\"code\":\"rate_limit_exceeded\"}}",
    "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\",\"sequence_number\":7}",
    "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":1}}}",
    "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1}}}",
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]},\"finishReason\":\"STOP\"}]}",
    "data:{\"a\":",
    "data",
    "\u{feff}id: 7",
];

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let ends = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    let line = (any::<Index>(), ends).prop_map(|(line, end)| format!("{}{end}", line.get(&LINES)));
    vec(line, 0..40).prop_map(|lines| lines.concat().into_bytes())
}

fn shape() -> impl Strategy<Value = ApiShape> {
    any::<Index>().prop_map(|index| *index.get(&SHAPES))
}

fn cuts(indexes: &[Index], stream: &[u8]) -> Vec<usize> {
    let cuts = indexes.iter().map(|index| index.index(stream.len() + 1));
    cuts.collect()
}

proptest! {
    #[test]
    fn llm_6_cutting_a_stream_anywhere_changes_nothing(
        shape in shape(), stream in lines(), indexes in vec(any::<Index>(), 0..30),
    ) {
        let whole = watch(shape, &stream, Vec::new());
        prop_assert_eq!(&watch(shape, &stream, cuts(&indexes, &stream)), &whole);
        let each = (0..stream.len()).collect();
        prop_assert_eq!(&watch(shape, &stream, each), &whole);
    }

    #[test]
    fn llm_6_garbled_pieces_never_panic(
        shape in shape(),
        which in 0..5usize,
        changes in vec((any::<Index>(), any::<u8>()), 0..20),
        noise in vec(any::<u8>(), 0..200),
        indexes in vec(any::<Index>(), 0..10),
    ) {
        let mut stream = WHOLE[which].1.as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(stream.len());
            stream[at] = byte;
        }
        stream.extend(noise);
        let whole = watch(shape, &stream, Vec::new());
        prop_assert_eq!(&watch(shape, &stream, cuts(&indexes, &stream)), &whole);
    }

    #[test]
    fn llm_2_garbled_bodies_never_panic(
        shape in shape(), status in 100u16..600, body in vec(any::<u8>(), 0..200),
        which in 0..5usize, index in any::<Index>(), byte in any::<u8>(),
    ) {
        let _ = judge(shape, status, &HeaderMap::new(), &body);
        let _ = figures_of(shape, &body);
        let mut stream = WHOLE[which].1.as_bytes().to_vec();
        let at = index.index(stream.len());
        stream[at] = byte;
        let body = stream.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let body = body.strip_prefix(b"data: ").unwrap_or(body);
        let _ = judge(shape, status, &HeaderMap::new(), body);
        let _ = figures_of(shape, body);
        let _ = ModelRequest::read(shape.api(), "/v1/chat/completions", body);
        let replaced = replace_model(Api::OpenAi, "/", body, "m");
        prop_assert!(replaced.body.is_none_or(|body| !body.is_empty()));
    }
}

#[test]
fn llm_6_every_cut_of_a_whole_stream_changes_nothing() {
    for (shape, stream) in WHOLE {
        let stream = stream.as_bytes();
        let whole = watch(shape, stream, Vec::new());
        assert_eq!(whole.1, StreamEnd::Good);
        for first in 0..=stream.len() {
            assert_eq!(
                watch(shape, stream, vec![first]),
                whole,
                "{shape:?} {first}"
            );
        }
    }
}

/// An event longer than what is kept of one, in pieces of a size.
fn long(shape: ApiShape, before: &str, after: &str, size: usize) -> Watched {
    let filling = "x".repeat(200_000);
    let stream = format!("{before}{filling}{after}");
    let cuts = (0..stream.len()).step_by(size).collect();
    watch(shape, stream.as_bytes(), cuts)
}

#[test]
fn llm_8_an_event_that_is_too_long_is_judged_by_its_edges() {
    let event = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":\"";
    let delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"";
    let chat = "data: {\"choices\":[{\"delta\":{\"content\":\"";
    let google = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"inlineData\":{\"data\":\"";
    let array = google.replace("data: ", "[");
    let google_end = "\"}}]},\"finishReason\":\"STOP\"}]}";
    for size in [7, 1_000, 65_536, 400_000] {
        let (events, end, _) = long(ApiShape::Responses, event, "\"}}\n\n", size);
        assert_eq!((events, end), (vec![WatchEvent::End], StreamEnd::Good));
        let (events, end, _) = long(ApiShape::Responses, delta, "\"}\n\n", size);
        assert_eq!(
            (events, end),
            (vec![WatchEvent::Content], StreamEnd::Truncated)
        );
        let after = "\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let (events, end, _) = long(ApiShape::Chat, chat, after, size);
        let expected = vec![WatchEvent::Content, WatchEvent::End];
        assert_eq!((events, end), (expected.clone(), StreamEnd::Good));
        let (events, end, _) = long(
            ApiShape::Content,
            google,
            &format!("{google_end}\r\n\r\n"),
            size,
        );
        assert_eq!((events, end), (expected.clone(), StreamEnd::Good));
        let (events, end, _) = long(
            ApiShape::ContentArray,
            &array,
            &format!("{google_end}]"),
            size,
        );
        assert_eq!((events, end), (expected, StreamEnd::Good));
        // A comment without an end is none of the answer's.
        let (events, end, _) = long(ApiShape::Chat, ": ", "\n\n", size);
        assert_eq!(
            (events, end),
            (vec![WatchEvent::Ping], StreamEnd::Truncated)
        );
    }
}

#[test]
fn llm_6_the_memory_of_a_watch_is_bounded() {
    for shape in SHAPES {
        for piece in [
            "data: xxxxxxxx",
            "{\"xxxxxxxxxxxx",
            ": xxxxxxxxxxxx",
            "event: x\ndata: x\n",
        ] {
            let mut watch = StreamWatch::new(shape);
            for _ in 0..20_000 {
                watch.feed(piece.as_bytes());
            }
            assert!(
                watch.kept() <= 2 * 65_536 + 3 * 4_096,
                "{shape:?} {piece:?} {}",
                watch.kept()
            );
        }
    }
}
