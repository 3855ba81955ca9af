//! The dialect of Anthropic: its errors, and the events of Messages.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::envelope::ErrorEnvelope;
use super::event_facts::EventFacts;
use super::event_splitter::EventData;
use super::json_walk::{JsonStep, Leaf, walk};
use super::shape_state::contains;
use super::{AnswerFigures, ModelErrorKind, TokenUsage};

/// Returns the kind of an error. `is_late`: no status says more than the error's type.
pub(super) fn kind(envelope: &ErrorEnvelope, is_late: bool) -> Option<ModelErrorKind> {
    let by_code = envelope.inner.as_deref().and_then(kind_of_code);
    by_code.or_else(|| match envelope.kind.as_deref()? {
        "rate_limit_error" => Some(ModelErrorKind::RateLimit),
        "billing_error" => Some(ModelErrorKind::QuotaUsedUp),
        "overloaded_error" => Some(ModelErrorKind::Overloaded),
        "api_error" | "timeout_error" => Some(ModelErrorKind::Failure),
        "authentication_error" => Some(ModelErrorKind::WrongKey),
        "permission_error" => Some(ModelErrorKind::NotPermitted),
        "not_found_error" => Some(ModelErrorKind::UnknownModel),
        "request_too_large" => Some(ModelErrorKind::TooLong),
        "invalid_request_error" => {
            let by_words = kind_of_words(&envelope.message);
            by_words.or_else(|| is_late.then_some(ModelErrorKind::Rejected))
        }
        _ => None,
    })
}

fn kind_of_code(code: &str) -> Option<ModelErrorKind> {
    match code {
        "ramp_limit_exceeded" => Some(ModelErrorKind::RateLimit),
        "enforced_spend_limit_reached"
        | "contract_spend_limit_reached"
        | "linked_organization_spend_limit_reached" => Some(ModelErrorKind::QuotaUsedUp),
        _ => None,
    }
}

/// Returns the kind of an invalid request by the words of its message.
fn kind_of_words(message: &str) -> Option<ModelErrorKind> {
    // LLM-2: these have no code.
    let has = |words: &str| message.contains(words);
    if has("reached your specified api usage limits") || has("credit balance is too low") {
        Some(ModelErrorKind::QuotaUsedUp)
    } else if has("prompt is too long") || has("exceed context limit") {
        Some(ModelErrorKind::TooLong)
    } else if has("content filtering policy") {
        Some(ModelErrorKind::Filtered)
    } else {
        None
    }
}

/// Returns the wait until a used-up quota is reset, if the error says it.
pub(super) fn quota_reset(envelope: &ErrorEnvelope, now: Timestamp) -> Option<Duration> {
    let code = envelope.inner.as_deref().unwrap_or_default();
    let day = if code.ends_with("_spend_limit_reached") {
        // Spend is counted by the month, in UTC.
        let today = TimeZone::UTC.to_datetime(now).date();
        today.last_of_month().tomorrow().ok()?
    } else {
        let (_, rest) = envelope.message.split_once("regain access on ")?;
        rest.get(..10)?.parse::<Date>().ok()?
    };
    let at = TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()?;
    Duration::try_from(at.duration_since(now)).ok()
}

/// The facts of an event.
#[derive(Default)]
struct MessageEvent {
    kind: Option<String>,
    block: Option<String>,
    /// Bytes in its content.
    content: u64,
    usage: TokenUsage,
    model: Option<String>,
}

impl MessageEvent {
    fn take(&mut self, path: &[JsonStep<'_>], leaf: Leaf<'_>) {
        use JsonStep::Key;
        match (path, leaf) {
            ([Key("type")], Leaf::Text(kind)) => self.kind = Some(kind.to_owned()),
            ([Key("content_block"), Key("type")], Leaf::Text(kind)) => {
                self.block = Some(kind.to_owned());
            }
            ([Key("content_block" | "delta"), Key(name), ..], leaf)
                if !matches!(*name, "type" | "id" | "stop_reason" | "stop_sequence") =>
            {
                self.content += leaf.size();
            }
            ([Key("usage") | Key("message"), rest @ ..], leaf) => match rest {
                [Key("usage"), rest @ ..] => self.usage.take_anthropic(rest, leaf),
                [Key("model")] => {
                    if let Leaf::Text(model) = leaf {
                        self.model = Some(model.to_owned());
                    }
                }
                rest => self.usage.take_anthropic(rest, leaf),
            },
            _ => {}
        }
    }
}

impl TokenUsage {
    /// Takes one member of a usage object. Its counts of input add up.
    pub(super) fn take_anthropic(&mut self, path: &[JsonStep<'_>], leaf: Leaf<'_>) {
        let ([JsonStep::Key(name)], Leaf::Count(count)) = (path, leaf) else {
            return;
        };
        match *name {
            "input_tokens" | "cache_creation_input_tokens" | "cache_read_input_tokens" => {
                self.input = Some(self.input.unwrap_or(0).saturating_add(count));
                if *name == "cache_read_input_tokens" {
                    self.cached_input = count;
                }
            }
            "output_tokens" => self.output = Some(count),
            _ => {}
        }
    }
}

/// Reads an event of Messages.
pub(super) fn read(data: EventData<'_>, figures: &mut AnswerFigures) -> EventFacts {
    if data.cut_tail.is_some() {
        // So long an event is content.
        let is_content = [data.name, data.text].into_iter();
        let mut is_content = is_content.map(|text| contains(text, b"content_block"));
        return EventFacts::part(is_content.any(|found| found));
    }
    let mut event = MessageEvent::default();
    let is_json = walk(data.text, &mut |path, leaf| event.take(path, leaf));
    if !is_json && data.name != b"error" {
        return EventFacts::Nothing;
    }
    let named = String::from_utf8_lossy(data.name);
    match event.kind.as_deref().unwrap_or(&named) {
        "error" => EventFacts::Failed,
        "ping" => EventFacts::Nothing,
        "message_stop" => EventFacts::END,
        "message_start" => {
            // Its count of output is only the first of many.
            event.usage.output = None;
            figures.usage.update(event.usage);
            figures.model = event.model.or(figures.model.take());
            EventFacts::OPENING
        }
        "message_delta" => {
            // LLM-24: one without the cached part repeats a part of the input, and not all of it.
            event.usage.input = event.usage.input.max(figures.usage.input);
            figures.usage.update(event.usage);
            EventFacts::OPENING
        }
        "content_block_start" => {
            figures.content_bytes += event.content;
            let is_text = matches!(event.block.as_deref(), Some("text" | "thinking") | None);
            EventFacts::part(!is_text || event.content > 0)
        }
        "content_block_delta" => {
            figures.content_bytes += event.content;
            EventFacts::part(event.content > 0)
        }
        _ => EventFacts::OPENING,
    }
}
