//! The work of a consumer: one call for each message.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{
    BackoffSettings, BreakerAfter, Class, DeadReason, Executed, MessageCallKind,
};
use futures_util::future::LocalBoxFuture;

use super::ending::MessageEnding;
use super::message::QueueMessage;
use crate::client::Readiness;

/// The future of a message's call.
pub type WorkFuture<'a> = LocalBoxFuture<'a, WorkEnd>;

/// The terms of a message: how it wants to be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MessageTerms {
    /// True if its work may be done twice.
    pub is_idempotent: bool,
    /// Time within which it has to be executed, from the moment at which the server took it.
    pub ttl: Option<Duration>,
    /// The subject of its answer; `None` where the acknowledgement is the answer.
    pub answer_subject: Option<String>,
}

/// The reason why a message breaks the rules for messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BrokenMessage(pub String);

/// An answer to a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkAnswer {
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its payload.
    pub payload: Arc<[u8]>,
}

/// The end of a message's call.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkEnd {
    /// The end of the call itself.
    pub ending: MessageEnding,
    /// The answer, if the kind of end has one.
    pub answer: WorkAnswer,
    /// The error as the text of a JSON object, if it is one.
    pub problem: Option<String>,
}

impl WorkEnd {
    /// The end of a call of which nothing was told: a failure of the message, for this reason.
    pub(super) fn lost(executed: Executed, problem: String) -> Self {
        let kind = MessageCallKind::Ended(Class::Failure);
        Self {
            ending: MessageEnding::new(kind, executed, None, BreakerAfter::Closed),
            answer: WorkAnswer::default(),
            problem: Some(problem),
        }
    }
}

/// Facts about a dead letter beside its last error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterFacts {
    /// The consumer's name.
    pub consumer: String,
    /// The reason.
    pub reason: DeadReason,
    /// Execution state of the work.
    pub executed: Executed,
    /// More about the reason, for people.
    pub detail: String,
    /// Number of deliveries.
    pub deliveries: u32,
    /// Number of failures that were held against it.
    pub failures: u32,
    /// Number of deliveries that ended without any word of their consumer.
    pub crashes: u32,
}

/// Makes the calls of a consumer's messages.
pub trait MessageWork: Send + Sync + 'static {
    /// Returns the name of the dependency that is called.
    fn dependency(&self) -> String;

    /// Returns whether calls could begin now.
    fn readiness(&self) -> Readiness;

    /// Returns the backoff of the dependency's retries.
    fn retry(&self) -> BackoffSettings;

    /// Reads the terms of a message.
    ///
    /// # Errors  The message breaks the rules, and no call can be made of it.
    fn terms(&self, message: &QueueMessage) -> Result<MessageTerms, BrokenMessage>;

    /// Calls the dependency. `left`: the time that the message still has.
    fn call<'a>(
        &'a self,
        message: &'a QueueMessage,
        terms: &'a MessageTerms,
        left: Option<Duration>,
    ) -> WorkFuture<'a>;

    /// Writes the problem document of a dead letter as JSON. `last`: of the last error, if there is
    /// one.
    fn problem(&self, facts: &DeadLetterFacts, last: Option<&str>) -> String {
        let _ = last;
        dead_letter_text(facts)
    }
}

/// Writes the facts about a dead letter as a JSON object, without a last error.
#[must_use]
pub fn dead_letter_text(facts: &DeadLetterFacts) -> String {
    let DeadLetterFacts {
        consumer,
        reason,
        executed,
        detail,
        deliveries,
        failures,
        crashes,
    } = facts;
    let mut text = String::with_capacity(160);
    // Writing into a string cannot fail.
    let _ = write!(
        text,
        "{{\"type\":\"urn:breakerbox:dead-letter\",\"reason\":\"{reason}\",\"executed\":\"{executed}\",\
         \"deliveries\":{deliveries},\"failures\":{failures},\"crashes\":{crashes},\"consumer\":"
    );
    quote(consumer, &mut text);
    text.push_str(",\"detail\":");
    quote(detail, &mut text);
    text.push('}');
    text
}

/// Writes a text as a JSON string of ASCII letters alone: headers take no others.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            ' '..='~' => out.push(letter),
            _ => {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_6_a_problem_is_a_json_object_of_ascii_letters() {
        let facts = DeadLetterFacts {
            consumer: "jobs".to_owned(),
            reason: DeadReason::Maybe,
            executed: Executed::Maybe,
            detail: "a \"quoted\" \\ line\n\u{1f600}".to_owned(),
            deliveries: 2,
            failures: 0,
            crashes: 1,
        };
        let expected = "{\"type\":\"urn:breakerbox:dead-letter\",\"reason\":\"maybe\",\
            \"executed\":\"maybe\",\"deliveries\":2,\"failures\":0,\"crashes\":1,\
            \"consumer\":\"jobs\",\"detail\":\"a \\\"quoted\\\" \\\\ line\\u000a\\ud83d\\ude00\"}";
        assert_eq!(dead_letter_text(&facts), expected);
    }
}
