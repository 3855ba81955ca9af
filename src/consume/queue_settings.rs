//! The settings of a queue, which its parts read.

use std::num::NonZeroU32;
use std::time::Duration;

/// Header by which the servers drop a second message.
pub(super) const ID: &str = "Nats-Msg-Id";

/// Settings of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSettings {
    /// The stream of the messages; made where it is missing.
    pub stream: String,
    /// The subject of the messages.
    pub subject: String,
    /// The durable consumer, shared by all replicas.
    pub durable: String,
    /// Time after which a message is delivered again of which nothing was heard.
    pub ack_wait: Duration,
    /// The subject of the dead letters; a stream for it is made where it is missing.
    pub dead_letters: String,
    /// The subjects of the answers. Their streams are not made: where one is missing, a warning says so.
    pub answers: Vec<String>,
    /// The bucket with the notes about messages; made where it is missing.
    pub notes: String,
    /// Number of copies that the servers keep.
    pub copies: usize,
    /// Number of partitions within which messages keep their order; `None` without order.
    pub partitions: Option<NonZeroU32>,
}

impl QueueSettings {
    /// Settings with the defaults of a consumer of this name.
    #[must_use]
    pub fn new(name: &str, stream: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            subject: subject.into(),
            durable: format!("breakerbox_{name}"),
            ack_wait: Duration::from_secs(30),
            dead_letters: format!("dead.{name}"),
            answers: Vec::new(),
            notes: "breakerbox_messages".to_owned(),
            copies: 1,
            partitions: None,
        }
    }
}
