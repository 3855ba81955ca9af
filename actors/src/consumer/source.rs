//! The queue of a consumer, as the consumer sees it.

use std::time::Duration;

use breakerbox_policy::MessageNotes;
use futures_util::future::BoxFuture;

use super::message::{OutgoingMessage, QueueMessage};

/// The future of an operation at a source.
pub type SourceFuture<'a, T> = BoxFuture<'a, Result<T, SourceError>>;

/// The reason why a source did not do as it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It cannot do it at present, or has not confirmed it: the consumer asks again.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// It will never do it: a message is too long, or no stream takes its subject.
    #[error("the queue refuses it: {0}")]
    Refused(String),
}

/// A queue from which a consumer takes messages, one subscription shared by all its replicas.
///
/// The server delivers a message again when nothing was heard of it for a while
/// ([`ConsumerSettings::ack_wait`](super::ConsumerSettings::ack_wait)), and counts its deliveries.
/// It sets no limit to their number. Notes and publications outlive this process.
pub trait MessageSource: Send + Sync + 'static {
    /// Returns up to `most` messages as soon as there is one, and none after `wait`.
    ///
    /// # Cancel safety   Never dropped while it waits, unless the consumer ends.
    fn fetch(&self, most: u32, wait: Duration) -> SourceFuture<'_, Vec<QueueMessage>>;

    /// Returns the number of partitions within which messages keep their order; 0 without order.
    ///
    /// The server has at most one message of a partition outstanding, over all replicas: one that
    /// was given back holds up those behind it.
    fn partitions(&self) -> u32 {
        0
    }

    /// Returns the next message of a partition as soon as it can be delivered, and none after `wait`,
    /// which may be zero. The partitions are numbered from 0.
    ///
    /// # Cancel safety   As [`MessageSource::fetch`].
    fn fetch_of(&self, partition: u32, wait: Duration) -> SourceFuture<'_, Vec<QueueMessage>> {
        let _ = partition;
        self.fetch(1, wait)
    }

    /// Tells the queue that this consumer fetches nothing any more.
    fn close(&self) -> SourceFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Acknowledges a message. Returns once the server has confirmed it.
    fn acknowledge<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()>;

    /// Gives a message back, to be delivered again after the delay.
    fn give_back<'a>(&'a self, message: &'a QueueMessage, delay: Duration) -> SourceFuture<'a, ()>;

    /// Tells the server that a message is being worked on.
    fn progress<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()>;

    /// Returns the notes of a message, or the default where there are none.
    fn notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, MessageNotes>;

    /// Keeps notes of a message. Returns once the server has confirmed it.
    fn keep_notes<'a>(
        &'a self,
        message: &'a QueueMessage,
        notes: MessageNotes,
    ) -> SourceFuture<'a, ()>;

    /// Keeps notes of a message at the begin of its work. Returns once the server has confirmed it.
    ///
    /// Of two consumers that have deliveries of one message, only one may succeed: the other one gets
    /// [`SourceError::Refused`]. A consumer that asks again after an answer was lost succeeds again.
    fn claim<'a>(&'a self, message: &'a QueueMessage, notes: MessageNotes) -> SourceFuture<'a, ()>;

    /// Returns false if a message has ended already: another consumer that had a delivery of it has
    /// acknowledged it. It is asked for work that may not be done twice and begins later than `ack_wait`
    /// after its delivery. A source that cannot tell returns true, which is the default, and keeps the
    /// notes of a message of which it cannot tell ([`MessageSource::drop_notes`]).
    fn is_outstanding<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, bool> {
        let _ = message;
        Box::pin(async { Ok(true) })
    }

    /// Drops the notes of a message that has ended, now or when the server can no longer deliver it
    /// again: a server that was killed may have forgotten acknowledgements that it had confirmed. Never
    /// before [`MessageSource::is_outstanding`] returns false for the message.
    fn drop_notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()>;

    /// Publishes a message. Returns once the server has confirmed it.
    fn publish<'a>(&'a self, message: &'a OutgoingMessage) -> SourceFuture<'a, ()>;

    /// Returns the number of messages that wait in the queue.
    fn pending(&self) -> SourceFuture<'_, u64>;
}
