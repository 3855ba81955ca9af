//! The dialect of Google: its errors, and the chunks of `streamGenerateContent`.

use serde_json::Value;

use super::envelope::{ErrorEnvelope, leaf_tells_error};
use super::event_facts::EventFacts;
use super::event_splitter::EventData;
use super::json_walk::{JsonStep, Leaf, walk};
use super::shape_state::{ChoiceProgress, contains};
use super::{AnswerFigures, ModelErrorKind, TokenUsage};

/// Returns the kind of an error by its canonical status, reason and quota.
pub(super) fn kind(envelope: &ErrorEnvelope) -> Option<ModelErrorKind> {
    match reason(envelope) {
        Some("API_KEY_INVALID") => return Some(ModelErrorKind::WrongKey),
        Some("SERVICE_DISABLED" | "BILLING_DISABLED" | "API_KEY_SERVICE_BLOCKED") => {
            return Some(ModelErrorKind::NotPermitted);
        }
        _ => {}
    }
    Some(match envelope.status.as_deref()? {
        "RESOURCE_EXHAUSTED" => kind_of_quota(envelope),
        "UNAVAILABLE" => ModelErrorKind::Overloaded,
        "INTERNAL" | "UNKNOWN" | "DEADLINE_EXCEEDED" | "ABORTED" | "CANCELLED" => {
            ModelErrorKind::Failure
        }
        "UNAUTHENTICATED" => ModelErrorKind::WrongKey,
        // Not about the request: a place that is not served, a project without billing.
        "PERMISSION_DENIED" | "FAILED_PRECONDITION" => ModelErrorKind::NotPermitted,
        "NOT_FOUND" => ModelErrorKind::UnknownModel,
        // LLM-2: there is no code for it.
        "INVALID_ARGUMENT" | "OUT_OF_RANGE"
            if envelope.message.contains("token count") && envelope.message.contains("exceeds") =>
        {
            ModelErrorKind::TooLong
        }
        "INVALID_ARGUMENT" | "OUT_OF_RANGE" => ModelErrorKind::Rejected,
        _ => return None,
    })
}

/// Returns the kind of an exhausted resource: the day's quota, none at all, or a limit of a minute.
fn kind_of_quota(envelope: &ErrorEnvelope) -> ModelErrorKind {
    let violations = details(envelope, "QuotaFailure")
        .filter_map(|failure| failure.get("violations")?.as_array())
        .flatten();
    let text = |violation: &Value, name: &str| {
        let text = violation.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_lowercase()
    };
    let (mut of_a_day, mut is_none) = (false, false);
    for violation in violations {
        of_a_day |= text(violation, "quotaId").contains("perday");
        is_none |= text(violation, "quotaValue") == "0";
    }
    let limit = details(envelope, "ErrorInfo")
        .find_map(|info| info.pointer("/metadata/quota_limit")?.as_str());
    of_a_day |= limit.is_some_and(|limit| limit.to_lowercase().contains("perday"));
    of_a_day |= envelope.message.contains("per day");
    is_none |= names_no_quota(&envelope.message);
    if is_none {
        // A limit of 0 is no quota: no wait ends it.
        ModelErrorKind::NotPermitted
    } else if of_a_day || envelope.message.contains("credits are depleted") {
        ModelErrorKind::QuotaUsedUp
    } else {
        ModelErrorKind::RateLimit
    }
}

/// Returns true if a message names a limit of 0.
fn names_no_quota(message: &str) -> bool {
    let mut limits = message.split("limit: 0").skip(1);
    limits.any(|rest| !rest.starts_with(|next: char| next.is_ascii_digit() || next == '.'))
}

fn details<'a>(envelope: &'a ErrorEnvelope, kind: &str) -> impl Iterator<Item = &'a Value> {
    let kind = format!("google.rpc.{kind}");
    envelope.details.iter().filter(move |detail| {
        let given = detail.get("@type").and_then(Value::as_str);
        given.is_some_and(|given| given.ends_with(&kind))
    })
}

fn reason(envelope: &ErrorEnvelope) -> Option<&str> {
    details(envelope, "ErrorInfo").find_map(|info| info.get("reason")?.as_str())
}

/// The facts of a chunk.
#[derive(Default)]
struct ContentChunk {
    content: u64,
    has_error: bool,
    is_blocked: bool,
    /// Each candidate by its position: its index, and true if it ends.
    candidates: Vec<(Option<u64>, bool)>,
    usage: TokenUsage,
    model: Option<String>,
}

impl ContentChunk {
    fn take(&mut self, path: &[JsonStep<'_>], leaf: Leaf<'_>) {
        use JsonStep::{Item, Key};
        match (path, leaf) {
            ([Key("error"), rest @ ..], leaf) => self.has_error |= leaf_tells_error(rest, leaf),
            ([Key("promptFeedback"), Key("blockReason")], Leaf::Text(_)) => self.is_blocked = true,
            ([Key("modelVersion")], Leaf::Text(model)) => self.model = Some(model.to_owned()),
            ([Key("usageMetadata"), Key(name)], Leaf::Count(count)) => {
                self.usage.take_google(name, count);
            }
            ([Key("candidates"), Item(at), rest @ ..], leaf) => {
                self.take_candidate(*at, rest, leaf);
            }
            _ => {}
        }
    }

    fn take_candidate(&mut self, at: usize, path: &[JsonStep<'_>], leaf: Leaf<'_>) {
        use JsonStep::{Item, Key};
        // No answer has more.
        let at = at.min(127);
        if self.candidates.len() <= at {
            self.candidates.resize(at + 1, (None, false));
        }
        match (path, leaf) {
            ([Key("index")], Leaf::Count(index)) => self.candidates[at].0 = Some(index),
            ([Key("finishReason")], Leaf::Text(_)) => self.candidates[at].1 = true,
            ([Key("content"), Key("parts"), Item(_), Key(name), ..], leaf)
                if *name != "thoughtSignature" =>
            {
                self.content += leaf.size();
            }
            _ => {}
        }
    }
}

impl TokenUsage {
    fn take_google(&mut self, name: &str, count: u64) {
        let add = |sum: &mut Option<u64>| *sum = Some(sum.unwrap_or(0).saturating_add(count));
        match name {
            "promptTokenCount" | "toolUsePromptTokenCount" => add(&mut self.input),
            "candidatesTokenCount" | "thoughtsTokenCount" => add(&mut self.output),
            "cachedContentTokenCount" => self.cached_input = count,
            _ => {}
        }
    }
}

/// Reads a chunk.
pub(super) fn read(
    data: EventData<'_>,
    choices: &mut ChoiceProgress,
    figures: &mut AnswerFigures,
) -> EventFacts {
    if let Some(tail) = data.cut_tail {
        // So long a chunk is content, and its end tells the rest.
        choices.record(0, contains(tail, b"\"finishReason\""));
        return EventFacts::Part {
            has_content: true,
            is_end: choices.is_done(),
        };
    }
    let mut chunk = ContentChunk::default();
    if !walk(data.text, &mut |path, leaf| chunk.take(path, leaf)) {
        return EventFacts::Nothing;
    }
    if chunk.has_error {
        return EventFacts::Failed;
    }
    for (at, (index, is_end)) in (0..).zip(&chunk.candidates) {
        choices.record(index.unwrap_or(at), *is_end);
    }
    figures.usage.update(chunk.usage);
    figures.model = chunk.model.or(figures.model.take());
    figures.content_bytes += chunk.content;
    let is_blocked = chunk.is_blocked && chunk.candidates.is_empty();
    if is_blocked {
        choices.block();
    }
    EventFacts::Part {
        has_content: chunk.content > 0,
        // LLM-8: a blocked prompt has no candidate that could end.
        is_end: choices.is_done() || is_blocked,
    }
}
