//! Consumers: supervised children that turn the messages of a queue into calls.
//!
//! A consumer fetches only what can begin, and it has no queue of its own. It knows no broker, and it
//! makes no call by itself: a [`MessageSource`] does the one and a [`MessageWork`] the other.

mod actor;

mod carry;

mod ending;

mod fetch_round;

mod job;

mod message;

mod source;

mod state;

mod work;

pub(crate) use actor::ConsumerActor;
pub use ending::{MessageEnding, MessageResult, ask_for_message};
pub(crate) use job::JobWork;
pub use job::{Done, Job, JobDecoder, JobEncoder, ttl_of};
pub use message::{ORIGIN, OutgoingMessage, QueueMessage};
pub use source::{MessageSource, SourceError, SourceFuture};
pub(crate) use state::ConsumerState;
pub use state::{ConsumerHandle, ConsumerSettings, ConsumerStatus};
pub use work::{
    BrokenMessage, DeadLetterFacts, MessageTerms, MessageWork, WorkAnswer, WorkEnd, WorkFuture,
    dead_letter_text,
};

#[cfg(all(test, feature = "testing"))]
mod tests;
