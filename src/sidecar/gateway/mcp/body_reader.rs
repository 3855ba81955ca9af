//! Reading of a message from a caller's body, with limits on its size, its pace and the memory of
//! all such bodies.
//!
//! EDGE-4: each byte counts against the budget of the process as it is read.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::time::{Instant, timeout_at};

use crate::buffer_budget::{BufferBudget, BufferShare};
use crate::sidecar::gateway::http::caller_body::CallerBody;

/// Size of the part that has to come within the limit of time, in bytes.
const LEAST: usize = 1024;
/// Limits of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageLimits {
    /// Maximum size, in bytes.
    pub(super) size: usize,
    /// Maximum time for each [`LEAST`] bytes.
    pub(super) pause: Duration,
}

/// The reason why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFault {
    TooLong,
    TooSlow,
    BrokenOff,
    NoRoom,
    /// It is larger than all that may be kept, in bytes: it never finds room.
    TooLargeToKeep(u64),
}

/// The part of a message in the budget of the process; `None` for one that was not read.
pub(super) type MessageRoom = Option<BufferShare>;

/// A message that was read, with its part of the budget.
pub(super) struct ReadMessage {
    pub(super) text: Bytes,
    /// Given back when the message is not needed any more.
    pub(super) room: MessageRoom,
}

/// Reads a body.
pub(super) async fn read(
    mut body: CallerBody,
    limits: MessageLimits,
    budget: &BufferBudget,
) -> Result<ReadMessage, BodyFault> {
    let declared = body.size_hint();
    let least = usize::try_from(declared.lower()).unwrap_or(usize::MAX);
    if least > limits.size {
        return Err(BodyFault::TooLong);
    }
    let most = budget.present().limit;
    let never_fits = |size: usize| u64::try_from(size).unwrap_or(u64::MAX) > most;
    if never_fits(least) {
        return Err(BodyFault::TooLargeToKeep(most));
    }
    let mut room = budget.share();
    let mut first: Option<Bytes> = None;
    let mut text = Vec::new();
    let mut until = Instant::now() + limits.pause;
    let mut since = 0;
    loop {
        let piece = match timeout_at(until, body.frame()).await {
            Err(_) => return Err(BodyFault::TooSlow),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(BodyFault::BrokenOff),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => piece,
                // Trailers say nothing here.
                Err(_) => continue,
            },
        };
        let before = first.as_ref().map_or(text.len(), Bytes::len);
        let length = before + piece.len();
        if length - since >= LEAST {
            // EDGE-4: a body that drips has an end, however short its pauses are.
            until = Instant::now() + limits.pause;
            since = length;
        }
        if length > limits.size {
            return Err(BodyFault::TooLong);
        }
        if never_fits(length) {
            return Err(BodyFault::TooLargeToKeep(most));
        }
        if !room.grow_to(length) {
            return Err(BodyFault::NoRoom);
        }
        match first.take() {
            None if text.is_empty() => first = Some(piece),
            None => text.extend_from_slice(&piece),
            Some(begin) => {
                text.reserve_exact(least.max(length));
                text.extend_from_slice(&begin);
                text.extend_from_slice(&piece);
            }
        }
    }
    let text = first.unwrap_or_else(|| Bytes::from(text));
    let room = Some(room);
    Ok(ReadMessage { text, room })
}
