//! Error bodies of providers in their several forms, read into one.
//!
//! The dialects give the words their meaning.

use serde_json::Value;

use super::json_walk::{JsonStep, Leaf};

/// Maximum size of a body in which an error is looked for, in bytes. Errors are short; a longer one
/// is judged by its status.
const MAX_ERROR: usize = 262_144;
/// Maximum length of a code.
const MAX_CODE: usize = 64;

/// An error in the words of its provider.
#[derive(Debug, Clone, Default)]
pub(super) struct ErrorEnvelope {
    /// The code, if it is a word.
    pub(super) code: Option<String>,
    /// The code, if it is a number: an HTTP status.
    pub(super) number: Option<u16>,
    /// The member `type` of the error.
    pub(super) kind: Option<String>,
    /// A closer code: Anthropic's `details.error_code`, Azure's `innererror.code`.
    pub(super) inner: Option<String>,
    /// Google's canonical status.
    pub(super) status: Option<String>,
    /// The message, in lower case.
    pub(super) message: String,
    /// Google's details.
    pub(super) details: Vec<Value>,
    /// True if the error is an object with a message, as providers send it.
    pub(super) is_own: bool,
}

impl ErrorEnvelope {
    /// Reads the body of an answer; `None` if it names no error.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        if body.len() > MAX_ERROR {
            return None;
        }
        let body: Value = serde_json::from_slice(body).ok()?;
        Self::of_body(&body)
    }

    /// Reads a body, or the data of an event.
    pub(super) fn of_body(body: &Value) -> Option<Self> {
        let body = match body {
            // Google's streams, and its answers in OpenAI's shape.
            Value::Array(items) => items.first()?,
            other => other,
        };
        let error = body.get("error").filter(|error| tells_error(error));
        let error = error.or_else(|| body.pointer("/response/error"));
        let error = error.or_else(|| error_of_choice(body));
        match error {
            Some(Value::Object(_)) => Some(Self::of_error(error?)),
            Some(Value::String(message)) => Some(Self {
                message: message.to_lowercase(),
                ..Self::default()
            }),
            // The event of Responses, and older servers of OpenAI's shape, have it at the top.
            None | Some(Value::Null) => {
                let is_error = |name: &str| body.get(name).and_then(Value::as_str) == Some("error");
                (is_error("type") || is_error("object")).then(|| {
                    let mut flat = Self::of_error(body);
                    flat.kind = flat.kind.filter(|kind| kind != "error");
                    flat
                })
            }
            Some(_) => None,
        }
    }

    fn of_error(error: &Value) -> Self {
        let text = |pointer: &str| error.pointer(pointer).and_then(Value::as_str);
        let word = |pointer: &str| text(pointer).map(str::to_owned);
        let code = error.get("code");
        let number = code.and_then(Value::as_u64).or_else(|| {
            // Azure writes the status as a word.
            code.and_then(Value::as_str)?.parse().ok()
        });
        let details = error.get("details").and_then(Value::as_array);
        Self {
            code: word("/code").filter(|code| code.parse::<u64>().is_err()),
            number: number.and_then(|number| u16::try_from(number).ok()),
            kind: word("/type"),
            inner: word("/details/error_code").or_else(|| word("/innererror/code")),
            status: word("/status"),
            message: text("/message").unwrap_or_default().to_lowercase(),
            details: details.cloned().unwrap_or_default(),
            is_own: text("/message").is_some(),
        }
    }

    /// Returns the closest code that is fit for people and logs.
    pub(super) fn shown_code(&self) -> Option<String> {
        let codes = [&self.inner, &self.code, &self.status, &self.kind];
        let is_plain = |code: &&String| {
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(letters)
        };
        codes.into_iter().flatten().find(is_plain).cloned()
    }
}

/// Returns true if a member `error` tells an error: an object that has members, or words.
pub(super) fn tells_error(error: &Value) -> bool {
    // LLM-3: some providers send an empty one with every good answer.
    match error {
        Value::Object(members) => !members.is_empty(),
        Value::String(words) => !words.is_empty(),
        _ => false,
    }
}

/// The same by a scalar. `path`: from the member to it.
pub(super) fn leaf_tells_error(path: &[JsonStep<'_>], leaf: Leaf<'_>) -> bool {
    match path {
        [] => leaf.size() > 0,
        [step, ..] => matches!(step, JsonStep::Key(_)),
    }
}

/// Returns the error of a choice: some routers say there that its model has failed.
fn error_of_choice(body: &Value) -> Option<&Value> {
    let choices = body.get("choices")?.as_array()?;
    let mut errors = choices.iter().filter_map(|choice| choice.get("error"));
    errors.find(|error| tells_error(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> ErrorEnvelope {
        ErrorEnvelope::read(body.as_bytes()).unwrap_or_else(|| panic!("{body}"))
    }

    #[test]
    fn llm_2_the_code_is_found_in_every_envelope() {
        for (body, code, number, is_own) in [
            (
                r#"{"error":{"message":"m","type":"t","param":null,"code":"c"}}"#,
                Some("c"),
                None,
                true,
            ),
            (
                r#"{"error":{"message":"m","code":402}}"#,
                None,
                Some(402),
                true,
            ),
            (
                r#"{"error":{"message":"m","code":"429"}}"#,
                None,
                Some(429),
                true,
            ),
            (
                r#"{"type":"error","error":{"type":"t","message":"m","details":{"error_code":"c"}}}"#,
                Some("c"),
                None,
                true,
            ),
            (
                r#"[{"error":{"code":429,"message":"m","status":"S"}}]"#,
                Some("S"),
                Some(429),
                true,
            ),
            (
                r#"{"type":"error","code":"c","message":"m","param":null,"sequence_number":3}"#,
                Some("c"),
                None,
                true,
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"c","message":"m"}}}"#,
                Some("c"),
                None,
                true,
            ),
            (
                r#"{"object":"error","message":"m","code":"c"}"#,
                Some("c"),
                None,
                true,
            ),
            (r#"{"error":"model not found"}"#, None, None, false),
            (
                r#"{"choices":[{"finish_reason":"error","error":{"code":502,"message":"m"}}]}"#,
                None,
                Some(502),
                true,
            ),
        ] {
            let envelope = read(body);
            let code = code.map(str::to_owned).or(envelope.kind.clone());
            assert_eq!(envelope.shown_code(), code, "{body}");
            assert_eq!(envelope.number, number, "{body}");
            assert_eq!(envelope.is_own, is_own, "{body}");
        }
        for body in [
            r#"{"error":null,"output":[]}"#,
            r#"{"choices":[]}"#,
            r#"{"error":{},"choices":[{"error":null}]}"#,
            r#"{"error":""}"#,
            r#"{"error":false}"#,
            r#"{"response":{"error":null}}"#,
            "[]",
            "<html>",
            "",
        ] {
            assert!(ErrorEnvelope::read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn no_code_carries_words_of_a_prompt() {
        let long = "x".repeat(65);
        for code in ["two words", "", "a\\nb", long.as_str()] {
            let body = format!(r#"{{"error":{{"message":"m","code":"{code}"}}}}"#);
            assert_eq!(read(&body).shown_code(), None, "{code}");
        }
    }
}
