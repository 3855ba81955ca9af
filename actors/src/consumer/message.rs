//! Messages as they come from a queue, and as they go to one.

use std::sync::Arc;
use std::time::Duration;

/// Header of an answer or a dead letter with the consumer and the place of its message. It tells
/// messages of two queues apart that have one id.
pub const ORIGIN: &str = "breakerbox-origin";

/// A delivery of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueueMessage {
    /// The message's own id: given by its publisher, else by its place in the queue.
    pub id: String,
    /// The place in the queue, the same for all deliveries: notes are kept under it.
    pub place: String,
    /// The subject that it was published to.
    pub subject: String,
    /// The headers in their order. Names are compared without regard to case.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub payload: Arc<[u8]>,
    /// Number of its deliveries, this one among them: from 1.
    pub deliveries: u32,
    /// Time since the server took it, by the server's clock.
    pub age: Duration,
    /// The source's own name for this delivery.
    pub token: String,
}

impl QueueMessage {
    /// A first delivery of a message.
    #[must_use]
    pub fn new(id: impl Into<String>, payload: impl Into<Arc<[u8]>>) -> Self {
        let id = id.into();
        Self {
            place: id.clone(),
            token: id.clone(),
            id,
            payload: payload.into(),
            deliveries: 1,
            ..Self::default()
        }
    }

    /// Returns the first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A message to be published: an answer, or a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutgoingMessage {
    /// The id by which the server drops a second one.
    pub id: String,
    /// The subject.
    pub subject: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub payload: Arc<[u8]>,
}

impl OutgoingMessage {
    /// A message with this id to this subject.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        subject: impl Into<String>,
        headers: Vec<(String, String)>,
        payload: impl Into<Arc<[u8]>>,
    ) -> Self {
        Self {
            id: id.into(),
            subject: subject.into(),
            headers,
            payload: payload.into(),
        }
    }
}
