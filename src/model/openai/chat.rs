//! Events of Chat Completions: chunks, and `[DONE]` behind the last one.

use super::super::envelope::leaf_tells_error;
use super::super::event_facts::EventFacts;
use super::super::event_splitter::EventData;
use super::super::json_walk::{JsonStep, Leaf, walk};
use super::super::shape_state::{ChoiceProgress, contains};
use super::super::{AnswerFigures, TokenUsage};

/// The facts of a chunk.
#[derive(Default)]
struct ChatChunk {
    content: u64,
    has_error: bool,
    /// Each choice by its position: its index, and true if it ends.
    choices: Vec<(Option<u64>, bool)>,
    usage: TokenUsage,
    model: Option<String>,
}

impl ChatChunk {
    fn take(&mut self, path: &[JsonStep<'_>], leaf: Leaf<'_>) {
        use JsonStep::{Item, Key};
        match (path, leaf) {
            ([Key("error"), rest @ ..], leaf) => self.has_error |= leaf_tells_error(rest, leaf),
            ([Key("model")], Leaf::Text(model)) if !model.is_empty() => {
                self.model = Some(model.to_owned());
            }
            ([Key("usage"), rest @ ..], leaf) => self.usage.take_openai(rest, leaf),
            ([Key("choices"), Item(at), rest @ ..], leaf) => self.take_choice(*at, rest, leaf),
            _ => {}
        }
    }

    fn take_choice(&mut self, at: usize, path: &[JsonStep<'_>], leaf: Leaf<'_>) {
        use JsonStep::Key;
        // No answer has more.
        let at = at.min(127);
        if self.choices.len() <= at {
            self.choices.resize(at + 1, (None, false));
        }
        match (path, leaf) {
            ([Key("index")], Leaf::Count(index)) => self.choices[at].0 = Some(index),
            ([Key("finish_reason")], Leaf::Text("error")) => self.has_error = true,
            ([Key("error"), rest @ ..], leaf) => self.has_error |= leaf_tells_error(rest, leaf),
            ([Key("finish_reason")], Leaf::Text(reason)) if !reason.is_empty() => {
                self.choices[at].1 = true;
            }
            // The older Completions have their text here.
            ([Key("text")], leaf) => self.content += leaf.size(),
            // Text, reasoning, a refusal, tool calls, and all that a provider adds.
            ([Key("delta"), Key(name), ..], leaf) if *name != "role" => {
                self.content += leaf.size();
            }
            _ => {}
        }
    }
}

/// Reads an event.
pub(in crate::model) fn read(
    data: EventData<'_>,
    choices: &mut ChoiceProgress,
    figures: &mut AnswerFigures,
) -> EventFacts {
    if data.text.trim_ascii() == b"[DONE]" {
        // LLM-8: without a finish reason the answer has not ended: it was cut off.
        return match choices.is_done() {
            true => EventFacts::END,
            false => EventFacts::CutOff,
        };
    }
    if let Some(tail) = data.cut_tail {
        // So long an event is content.
        let is_end = contains(tail, b"\"finish_reason\":\"");
        choices.record(0, is_end);
        return EventFacts::part(true);
    }
    let mut chunk = ChatChunk::default();
    if !walk(data.text, &mut |path, leaf| chunk.take(path, leaf)) {
        return if data.name == b"error" {
            EventFacts::Failed
        } else {
            EventFacts::Nothing
        };
    }
    if chunk.has_error || data.name == b"error" {
        return EventFacts::Failed;
    }
    for (at, (index, is_end)) in (0..).zip(&chunk.choices) {
        choices.record(index.unwrap_or(at), *is_end);
    }
    figures.usage.update(chunk.usage);
    figures.model = chunk.model.or(figures.model.take());
    figures.content_bytes += chunk.content;
    EventFacts::part(chunk.content > 0)
}
