//! Hints in the JSON of an error: `retry_after` and its relatives, Google's `RetryInfo`, headers that
//! are repeated in the body, and the words of a message.
//!
//! Only members that describe the error are read. What a caller has sent may be repeated elsewhere.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::header;
use super::span::{MILLISECOND, SECOND, leading_span, seconds, until_reset, wait};

/// Maximum depth of the members that are read, and number of items of a list.
const MAX_DEPTH: u32 = 6;
const MAX_ITEMS: usize = 100;

/// The words before the wait in a message for people.
const WORDS: [&str; 4] = ["again in ", "retry in ", "retry after ", "again after "];

/// Returns the largest hint in a body, or in the beginning of one.
pub(super) fn largest(status: u16, body: &[u8], now: Timestamp) -> Option<Duration> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}');
    // Of a list of lines, the first one is the error.
    let first = || serde_json::Deserializer::from_str(text).into_iter().next();
    let whole = first().and_then(Result::ok);
    let body: Value = whole.or_else(|| serde_json::from_str(&completed(text)).ok())?;
    HintReader { status, now }.of_value(&body, MAX_DEPTH)
}

/// Completes the beginning of a JSON text: cuts it behind the last whole value, and closes what is
/// open.
fn completed(text: &str) -> String {
    let mut open = Vec::new();
    let (mut in_string, mut is_escaped) = (false, false);
    // The end of the last whole value, and the closing letters needed there.
    let mut cut = (0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b',' => cut = (at, open.clone()),
            b'{' | b'[' => {
                open.push(if byte == b'{' { '}' } else { ']' });
                cut = (at + 1, open.clone());
            }
            b'}' | b']' => {
                open.pop();
                cut = (at + 1, open.clone());
            }
            _ => {}
        }
        if open.len() > 128 {
            break;
        }
    }
    let (end, open) = cut;
    let closing = open.into_iter().rev();
    text[..end].chars().chain(closing).collect()
}

/// Reads the hints of an error.
struct HintReader {
    status: u16,
    now: Timestamp,
}

impl HintReader {
    fn of_value(&self, value: &Value, depth: u32) -> Option<Duration> {
        let depth = depth.checked_sub(1)?;
        match value {
            Value::Object(members) => {
                let hints = members
                    .iter()
                    .filter_map(|(name, value)| self.of_member(name, value, depth));
                hints.max()
            }
            Value::Array(items) => {
                let items = items.iter().take(MAX_ITEMS);
                items.filter_map(|item| self.of_value(item, depth)).max()
            }
            _ => None,
        }
    }

    fn of_member(&self, name: &str, value: &Value, depth: u32) -> Option<Duration> {
        let mut plain = name.to_ascii_lowercase();
        plain.retain(|letter| letter.is_ascii_alphanumeric());
        match plain.as_str() {
            "retryafter" | "xretryafter" | "retryafterseconds" | "retryaftersecs"
            | "retryaftersec" | "retrydelay" | "retrydelayseconds" | "retryin"
            | "retryinseconds" | "resetafter" | "resetsinseconds" => self.wait(value, SECOND),
            "retryafterms"
            | "retryaftermillis"
            | "retryaftermilliseconds"
            | "retrydelayms"
            | "retryinms" => self.wait(value, MILLISECOND),
            "retryat" | "retryafterat" | "resetsat" => self.reset(value),
            "headers" => self.of_headers(value.as_object()?),
            "error" | "errors" | "details" | "detail" | "metadata" | "meta" | "data"
            | "parameters" | "extensions" | "status" | "fault" | "retryinfo" | "response"
            | "message"
                if !value.is_string() =>
            {
                self.of_value(value, depth)
            }
            "message" | "detail" | "error" | "msg" | "errormessage" => of_words(value.as_str()?),
            _ => None,
        }
    }

    fn wait(&self, value: &Value, unit: f64) -> Option<Duration> {
        match value {
            Value::Number(number) => seconds(number.as_f64()? * unit),
            Value::String(text) => wait(text, unit, self.now),
            // A `google.protobuf.Duration` in its two parts.
            Value::Object(parts) => {
                let part = |name| parts.get(name).map_or(Some(0.0), number);
                let has_any = parts.contains_key("seconds") || parts.contains_key("nanos");
                has_any
                    .then(|| seconds(part("seconds")? + part("nanos")? / 1e9))
                    .flatten()
            }
            Value::Array(items) => items.iter().filter_map(|one| self.wait(one, unit)).max(),
            _ => None,
        }
    }

    fn reset(&self, value: &Value) -> Option<Duration> {
        match value {
            Value::Number(number) => until_reset(&number.to_string(), SECOND, self.now),
            Value::String(text) => until_reset(text, SECOND, self.now),
            _ => None,
        }
    }

    /// Reads headers of a service behind the dependency that it repeats.
    fn of_headers(&self, members: &Map<String, Value>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in members.iter().take(MAX_ITEMS) {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => continue,
            };
            let name = HeaderName::try_from(name.as_str());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(text)) {
                headers.append(name, value);
            }
        }
        header::largest(self.status, &headers, self.now)
    }
}

/// Returns a number, which large ones are as text.
fn number(value: &Value) -> Option<f64> {
    let text = || super::span::number(value.as_str()?);
    value.as_f64().or_else(text)
}

/// Returns the wait that a message names, such as "Please try again in 1m2.5s."
fn of_words(message: &str) -> Option<Duration> {
    let message = message.to_ascii_lowercase();
    let waits = WORDS.into_iter().filter_map(|words| {
        let (_, rest) = message.split_once(words)?;
        leading_span(rest, SECOND).map(|(wait, _)| wait)
    });
    waits.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(body: &str) -> Option<u64> {
        let now = "2026-11-06T08:49:30Z".parse().unwrap();
        let hint = largest(429, body.as_bytes(), now)?;
        Some(u64::try_from(hint.as_millis()).unwrap_or(u64::MAX))
    }

    #[test]
    fn lim_1_e10b_a_hint_is_read_from_each_member_that_names_one() {
        for body in [
            r#"{"retry_after":7}"#,
            "{\"retry_after\":7}\n{\"done\":true}\n",
            r#"{"retry_after":7.0,"global":false}"#,
            r#"{"retry_after":"7"}"#,
            r#"{"retryAfter":"7s"}"#,
            r#"{"Retry-After":"Fri, 06 Nov 2026 08:49:37 GMT"}"#,
            r#"{"retry_after_ms":7000}"#,
            r#"{"retryAfterMs":"7000"}"#,
            r#"{"retry_after_seconds":7}"#,
            r#"{"error":{"retry_after":7}}"#,
            r#"{"error":{"metadata":{"retry_after_seconds":7}}}"#,
            r#"{"errors":[{"retry_after":2},{"retry_after":7}]}"#,
            r#"{"detail":{"retryAfter":7}}"#,
            r#"{"ok":false,"error_code":429,"parameters":{"retry_after":7}}"#,
            r#"{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"7s"}]}}"#,
            r#"[{"error":{"details":[{"@type":"t/google.rpc.RetryInfo","retryDelay":"7.000s"}]}}]"#,
            r#"{"details":[{"retryDelay":{"seconds":"6","nanos":1000000000}}]}"#,
            r#"{"error":{"resets_in_seconds":7}}"#,
            r#"{"error":{"resets_at":1793954977}}"#,
            r#"{"error":{"metadata":{"headers":{"X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1793954977000"}}}}"#,
            r#"{"error":{"message":"Rate limit reached. Please try again in 7s. Visit x."}}"#,
            r#"{"error":{"message":"Please retry after 7 seconds."}}"#,
            "\u{feff}{\"retry_after\":7}",
        ] {
            assert_eq!(hint(body), Some(7_000), "{body}");
        }
        for body in [
            r#"{"retry_after":-1}"#,
            r#"{"retry_after":null}"#,
            r#"{"input":{"retry_after":7}}"#,
            r#"{"error":{"message":"that is no number"}}"#,
            r#"{"error":"retry after a while"}"#,
            "[1,2]",
            "7",
            "",
        ] {
            assert_eq!(hint(body), None, "{body}");
        }
        assert!(hint(r#"{"retry_after":18446744073709551615}"#).is_some());
        assert_eq!(hint(r#"{"retry_after":1e300}"#), Some(u64::MAX));
    }

    #[test]
    fn lim_1_e10b_the_beginning_of_a_body_is_enough() {
        let whole =
            r#"{"error":{"a":"x\"}{","details":[{"retryDelay":"7s","b":1}],"long":"yyyy"}}"#;
        let hints: Vec<_> = (0..=whole.len()).map(|end| hint(&whole[..end])).collect();
        let known = whole.find(",\"b\"").unwrap() + 1;
        assert!(hints[..known].iter().all(Option::is_none));
        assert!(hints[known..].iter().all(|hint| *hint == Some(7_000)));
        let deep = "[".repeat(100_000);
        assert_eq!(hint(&deep), None);
    }
}
