//! The facts of one event of a stream, the same in all dialects.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::envelope::ErrorEnvelope;
use super::error_verdict::ProviderError;
use super::verdict::StreamError;
use super::{Api, ApiShape};

/// The facts of one event.
#[derive(Debug)]
pub(super) enum EventFacts {
    /// A ping, or an event that cannot be read.
    Nothing,
    /// A part of the answer.
    Part {
        /// True if it brings content.
        has_content: bool,
        /// True if the answer has ended as its shape ends.
        is_end: bool,
    },
    /// The provider's error.
    Error(Box<StreamError>),
}

impl EventFacts {
    /// A part without content.
    pub(super) const OPENING: Self = Self::part(false);

    /// The good end.
    pub(super) const END: Self = Self::Part {
        has_content: false,
        is_end: true,
    };

    pub(super) const fn part(has_content: bool) -> Self {
        Self::Part {
            has_content,
            is_end: false,
        }
    }

    /// Reads the error of an event.
    pub(super) fn error(shape: ApiShape, data: &[u8]) -> Self {
        let value: Option<Value> = serde_json::from_slice(data).ok();
        let envelope = value.as_ref().and_then(ErrorEnvelope::of_body);
        let verdict = ProviderError {
            shape,
            status: None,
            headers: None,
            body: data,
            envelope: envelope.as_ref(),
            now: Timestamp::now(),
        }
        .verdict();
        let body = body_of(shape.api(), value.as_ref(), data).to_string();
        Self::Error(Box::new(StreamError { verdict, body }))
    }
}

/// Returns the event's error as the body of an answer.
fn body_of(api: Api, value: Option<&Value>, data: &[u8]) -> Value {
    let Some(value) = value else {
        let message = String::from_utf8_lossy(data);
        return enveloped(api, json!({ "message": message }));
    };
    let found = value.get("error").filter(|error| !error.is_null());
    if let Some(error) = found.or_else(|| value.pointer("/response/error")) {
        return enveloped(api, error.clone());
    }
    // The error event of Responses has it at the top.
    let mut error: Map<String, Value> = value.as_object().cloned().unwrap_or_default();
    error.remove("type");
    error.remove("sequence_number");
    enveloped(api, error.into())
}

fn enveloped(api: Api, error: Value) -> Value {
    match api {
        Api::Anthropic => json!({ "type": "error", "error": error }),
        Api::OpenAi | Api::Google => json!({ "error": error }),
    }
}
