//! Queues of NATS JetStream for consumers, and payloads as JSON.
//!
//! The consumer itself, which decides about each message, is in `breakerbox-actors`. Nothing here
//! makes a call.

mod dead_letters;

mod ended_notes;

mod known_parts;

mod move_log;

mod nats_queue;

mod notes;

mod provision;

mod queue_server;

mod queue_settings;

mod server_clock;

mod sorted_message;

mod sorter;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

pub use dead_letters::{DeadLetter, DeadLetterError, DeadLetters};
pub use nats_queue::{NatsQueue, QueueError};
pub use queue_settings::QueueSettings;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Decodes a payload from JSON, for
/// [`JobConsumer::decode`](crate::JobConsumer::decode).
///
/// # Errors  The text of the mistake.
pub fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// Encodes an answer as JSON, for [`LimitedJobs::answers`](crate::LimitedJobs::answers). A value
/// that JSON cannot express becomes `null`.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec())
}
