//! The verdict on a whole answer, and the figures in it.

use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::envelope::{ErrorEnvelope, tells_error};
use super::error_verdict::ProviderError;
use super::event_splitter::EventData;
use super::json_walk::{JsonStep, Leaf, members, walk};
use super::shape_state::ShapeState;
use super::verdict::ModelVerdict;
use super::{AnswerFigures, Api, ApiShape};

/// Judges a whole answer. `shape`: of the request's operation, or a dialect. `body`: decoded; of an
/// error its beginning is enough, if no more is known.
///
/// The head of a stream is judged with an empty body: it says nothing about the answer.
///
/// # Source  Rules LLM-2 to LLM-5 in docs/rules.md.
#[must_use]
pub fn judge(
    shape: impl Into<ApiShape>,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
) -> ModelVerdict {
    judge_at(shape.into(), (status, headers, body), Timestamp::now())
}

pub(super) fn judge_at(
    shape: ApiShape,
    (status, headers, body): (u16, &HeaderMap, &[u8]),
    now: Timestamp,
) -> ModelVerdict {
    let error = ProviderError {
        shape,
        status: Some(status),
        headers: Some(headers),
        body,
        envelope: None,
        now,
    };
    if status >= 400 {
        let envelope = ErrorEnvelope::read(body);
        return ProviderError {
            envelope: envelope.as_ref(),
            ..error
        }
        .verdict();
    }
    // LLM-3: a 200 with an error instead of an answer is that error.
    match late_error(shape, body) {
        LateError::None => ModelVerdict::good(status),
        LateError::Envelope(envelope) => ProviderError {
            status: None,
            envelope: Some(&envelope),
            ..error
        }
        .verdict(),
        LateError::Filtered => ModelVerdict::blocked(status),
    }
}

/// An error in an answer that has a good status.
enum LateError {
    None,
    Envelope(Box<ErrorEnvelope>),
    /// The prompt was blocked, and there is no answer.
    Filtered,
}

fn late_error(shape: ApiShape, body: &[u8]) -> LateError {
    if !shape.is_generating() {
        return LateError::None;
    }
    let names = [
        "error",
        "promptFeedback",
        "candidates",
        "type",
        "object",
        "choices",
    ];
    let Some(found) = members(body, &names) else {
        // An array, or no JSON: errors in it are short.
        let envelope = ErrorEnvelope::read(body);
        return envelope.map_or(LateError::None, |found| {
            LateError::Envelope(Box::new(found))
        });
    };
    let raw = |name: usize| {
        found
            .iter()
            .find(|(at, _)| *at == name)
            .map(|(_, raw)| raw.get())
    };
    let is_named = |name| raw(name) == Some("\"error\"");
    let error = raw(0).and_then(|error| serde_json::from_str(error).ok());
    let has_error = error.is_some_and(|error: Value| tells_error(&error));
    if has_failed_choice(raw(5)) {
        let envelope = ErrorEnvelope::read(body).unwrap_or_default();
        return LateError::Envelope(Box::new(envelope));
    }
    let is_error = has_error || is_named(3) || is_named(4);
    if is_error && let Some(envelope) = ErrorEnvelope::read(body) {
        return LateError::Envelope(Box::new(envelope));
    }
    let is_blocked = raw(1).is_some_and(|feedback| feedback.contains("\"blockReason\""));
    if shape.api() == Api::Google && is_blocked && raw(2).is_none() {
        return LateError::Filtered;
    }
    LateError::None
}

/// The end of a choice.
#[derive(Deserialize)]
struct ChoiceEnd {
    #[serde(default)]
    finish_reason: Value,
    #[serde(default)]
    error: Value,
}

/// Returns true if a choice has ended with an error, as in the events of a stream.
fn has_failed_choice(choices: Option<&str>) -> bool {
    let choices = choices.and_then(|raw| serde_json::from_str::<Vec<ChoiceEnd>>(raw).ok());
    let mut choices = choices.unwrap_or_default().into_iter();
    choices.any(|one| one.finish_reason == "error" || tells_error(&one.error))
}

/// Returns true if a whole answer of a generating operation has the member in which its shape
/// answers. An empty list of choices is none.
#[must_use]
pub fn has_answer(shape: ApiShape, body: &[u8]) -> bool {
    let names: &[&str] = match shape {
        ApiShape::Chat => &["choices"],
        ApiShape::Responses => &["output"],
        ApiShape::Messages => &["content"],
        ApiShape::Content => &["candidates", "promptFeedback"],
        // Read as a stream.
        ApiShape::ContentArray | ApiShape::Other(_) => return true,
    };
    let found = members(body, names).unwrap_or_default();
    let is_list_of_none = |raw: &str| raw.bytes().all(|byte| b"[] \t\r\n".contains(&byte));
    let is_none = |raw: &str| raw == "null" || shape == ApiShape::Chat && is_list_of_none(raw);
    found.iter().any(|(_, raw)| !is_none(raw.get()))
}

/// Returns true if a body is a whole answer: JSON, and not a part of it or something else.
#[must_use]
pub fn is_whole(body: &[u8]) -> bool {
    let first = body.trim_ascii_start().first();
    first.is_some_and(|first| b"{[".contains(first))
        && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// Reads the figures of a whole answer: usage, the model, the bytes of its content.
#[must_use]
pub fn figures_of(shape: ApiShape, body: &[u8]) -> AnswerFigures {
    let mut figures = AnswerFigures::default();
    match shape {
        ApiShape::Content | ApiShape::ContentArray => {
            // One chunk, as those of a stream.
            let data = EventData {
                name: b"",
                text: body,
                cut_tail: None,
            };
            ShapeState::new(ApiShape::Content).read(data, &mut figures);
        }
        ApiShape::Chat | ApiShape::Responses | ApiShape::Messages => {
            let mut read = AnswerFigures::default();
            let is_json = walk(body, &mut |path, leaf| {
                take_leaf((shape, &mut read), path, leaf);
            });
            if is_json {
                figures = read;
            }
        }
        ApiShape::Other(_) => {}
    }
    figures
}

fn take_leaf(
    (shape, figures): (ApiShape, &mut AnswerFigures),
    path: &[JsonStep<'_>],
    leaf: Leaf<'_>,
) {
    use JsonStep::Key;
    match path {
        [Key("model")] => {
            if let Leaf::Text(model) = leaf {
                figures.model = Some(model.to_owned());
            }
        }
        [Key("usage"), rest @ ..] if shape == ApiShape::Messages => {
            figures.usage.take_anthropic(rest, leaf);
        }
        [Key("usage"), rest @ ..] => figures.usage.take_openai(rest, leaf),
        [Key("choices" | "output" | "content"), .., Key(name)]
            if !matches!(*name, "role" | "type" | "id" | "status" | "finish_reason") =>
        {
            figures.content_bytes += leaf.size();
        }
        _ => {}
    }
}
