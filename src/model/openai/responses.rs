//! Events of Responses: each has a type and a number.

use super::super::envelope::leaf_tells_error;
use super::super::event_facts::EventFacts;
use super::super::event_splitter::EventData;
use super::super::json_walk::{JsonStep, Leaf, walk};
use super::super::shape_state::contains;
use super::super::{AnswerFigures, TokenUsage};

/// The facts of an event.
#[derive(Default)]
struct ResponseEvent {
    kind: Option<String>,
    sequence: Option<u64>,
    /// Bytes in its delta.
    delta: u64,
    /// Bytes of a part that is told as a whole.
    done: u64,
    has_error: bool,
    usage: TokenUsage,
    model: Option<String>,
}

impl ResponseEvent {
    fn take(&mut self, path: &[JsonStep<'_>], leaf: Leaf<'_>) {
        use JsonStep::Key;
        match (path, leaf) {
            ([Key("type")], Leaf::Text(kind)) => self.kind = Some(kind.to_owned()),
            ([Key("sequence_number")], Leaf::Count(number)) => self.sequence = Some(number),
            ([Key("delta"), ..], leaf) => self.delta += leaf.size(),
            ([Key("text" | "arguments" | "refusal" | "input")], leaf) => self.done += leaf.size(),
            ([Key("error"), rest @ ..], leaf) => self.has_error |= leaf_tells_error(rest, leaf),
            ([Key("response"), Key("usage"), rest @ ..], leaf) => {
                self.usage.take_openai(rest, leaf);
            }
            ([Key("response"), Key("model")], Leaf::Text(model)) => {
                self.model = Some(model.to_owned());
            }
            _ => {}
        }
    }
}

/// Reads an event.
pub(in crate::model) fn read(
    data: EventData<'_>,
    next_sequence: &mut u64,
    figures: &mut AnswerFigures,
) -> EventFacts {
    if data.cut_tail.is_some() {
        return long(data);
    }
    if data.text.trim_ascii() == b"[DONE]" {
        return EventFacts::OPENING;
    }
    let mut event = ResponseEvent::default();
    let is_json = walk(data.text, &mut |path, leaf| event.take(path, leaf));
    if !is_json && data.name != b"error" {
        return EventFacts::Nothing;
    }
    if let Some(sequence) = event.sequence {
        *next_sequence = sequence.saturating_add(1);
    }
    let named = String::from_utf8_lossy(data.name);
    let kind = event.kind.as_deref().unwrap_or(&named);
    figures.usage.update(event.usage);
    figures.model = event.model.or(figures.model.take());
    match kind {
        "error" | "response.failed" => EventFacts::Failed,
        "" if event.has_error => EventFacts::Failed,
        "response.completed" | "response.incomplete" => EventFacts::END,
        _ if kind.ends_with(".delta") => {
            figures.content_bytes += event.delta;
            EventFacts::part(event.delta > 0)
        }
        _ if kind.ends_with(".done") => EventFacts::part(event.done > 0),
        // The provider runs a tool.
        _ => EventFacts::part(kind.contains("_call.")),
    }
}

/// Reads an event of which only the edges are known: its type stands at the beginning.
fn long(data: EventData<'_>) -> EventFacts {
    let is = |kind: &[u8]| data.name == kind || contains(data.text, kind);
    if is(b"response.completed") || is(b"response.incomplete") {
        return EventFacts::END;
    }
    if is(b"response.failed") {
        return EventFacts::Failed;
    }
    let named = [data.name, data.text].concat();
    EventFacts::part(contains(&named, b".delta") || contains(&named, b"_call."))
}
