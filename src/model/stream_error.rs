//! The error of an event, judged, and worded as an answer.

use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::envelope::ErrorEnvelope;
use super::error_verdict::ProviderError;
use super::verdict::StreamError;
use super::{Api, ApiShape};

/// Reads the error of an event. `hints`: the waits and resets in the head of the answer.
pub(super) fn stream_error(shape: ApiShape, data: &[u8], hints: &HeaderMap) -> StreamError {
    let value: Option<Value> = serde_json::from_slice(data).ok();
    let envelope = value.as_ref().and_then(ErrorEnvelope::of_body);
    let verdict = ProviderError {
        shape,
        status: None,
        headers: Some(hints),
        body: data,
        envelope: envelope.as_ref(),
        now: Timestamp::now(),
    }
    .verdict();
    let body = body_of(shape.api(), value.as_ref(), data).to_string();
    StreamError { verdict, body }
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
