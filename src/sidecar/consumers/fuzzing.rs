//! Target for fuzzers: messages of a queue as requests.

use breakerbox_actors::{QueueMessage, ttl_of};

use super::http_work::{ascii, headers_of};
use crate::config::consumer::{is_subject, matches};
use crate::consume::fuzzing::notes_and_headers;
use crate::sidecar::gateway::message_calls::read_head;

/// Reads a message: lines `name: value`, an empty one, and the payload.
pub(crate) fn queue_messages(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, payload) = text.split_once("\n\n").unwrap_or((&text, ""));
    let lines = head.split('\n').filter_map(|line| line.split_once(':'));
    let lines: Vec<(String, String)> = lines
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut message = QueueMessage::new("id", payload.as_bytes());
    for (name, value) in &lines {
        message = message.with_header(name, value);
    }
    let _ = ttl_of(&message);
    if let Ok(mut headers) = headers_of(&message) {
        for name in headers.keys() {
            let name = name.as_str();
            let is_ours = name.starts_with("breakerbox-")
                && !["breakerbox-key", "breakerbox-priority"].contains(&name);
            assert!(!is_ours && !name.starts_with("nats-"), "{name}");
        }
        let target = message.header("breakerbox-path").unwrap_or("/").trim();
        if read_head(target, &mut headers).is_ok() {
            let uri = target.parse::<http::Uri>();
            assert!(uri.is_ok(), "{target:?} is no target of a request");
            assert!(!headers.contains_key("content-length"));
        }
    }
    let subject = message.header("breakerbox-answer-to").unwrap_or_default();
    if is_subject(subject) {
        assert!(
            matches(subject, subject) && matches(">", subject),
            "{subject}"
        );
        assert!(subject.is_ascii() && subject.len() <= 255);
    }
    let _ = matches(payload, subject);
    notes_and_headers(payload.as_bytes(), &lines);
    let quoted = serde_json::Value::from(payload).to_string();
    let plain = ascii(&quoted);
    assert!(plain.is_ascii());
    let again: String = serde_json::from_str(&plain).expect("it is JSON");
    assert_eq!(again, payload);
}
