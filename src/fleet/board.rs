//! The board: a small table that all replicas of a fleet watch, and a way to speak to all of them.
//!
//! A board is advice, and may go away at any moment. No write to it waits for a connection: what
//! cannot be written now is not written at all.

use std::time::Duration;

use breakerbox_policy::fleet::BoardTime;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// Number of news that may wait for the child (rule CALL-6).
pub(crate) const MAX_NEWS: usize = 4096;

/// Something that the board tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BoardNews {
    /// It is reached, and its present words follow.
    Reached,
    /// It is not reached any more, with the reason in words.
    Lost(String),
    /// A word, or the end of one (`None`).
    Word {
        key: String,
        value: Option<Bytes>,
        revision: u64,
        /// Age by the board's own clock when this replica joined; zero for one that arrives live.
        age: Duration,
        /// Time at which it was written.
        written: BoardTime,
    },
    /// The words that it held when it was reached are told.
    Current,
    /// A message of any replica, this one among them.
    Message(Bytes),
}

/// The answer to a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwapAnswer {
    /// Written, with this revision.
    Done(u64),
    /// The key has another revision.
    Lost,
    /// The board was not reached, or did not answer in time; it may have been written.
    Unknown,
}

/// An engine that keeps the board.
pub(crate) trait Board: Send + Sync {
    /// Writes a word, in the order of these calls; nothing without a connection.
    fn put(&self, key: String, value: Bytes);

    /// Takes a word off, in the order of these calls; nothing without a connection.
    fn take_off(&self, key: String);

    /// Writes a word if its key has this revision, 0 for a key without a word; `None` for any. A value
    /// of `None` takes the word off.
    fn swap(
        &self,
        key: String,
        value: Option<Bytes>,
        expected: Option<u64>,
    ) -> BoxFuture<'static, SwapAnswer>;

    /// Says a message to all replicas that are connected, this one among them.
    fn say(&self, message: Bytes);

    /// Says a last message, and resolves when it has gone out, or after a moment.
    fn leave(&self, message: Bytes) -> BoxFuture<'static, ()>;
}

/// Opens a board, which tells its news from then on until it is dropped. Called once for each
/// incarnation of the child.
pub(crate) type OpenBoard = dyn Fn(mpsc::Sender<BoardNews>) -> Box<dyn Board> + Send + Sync;
