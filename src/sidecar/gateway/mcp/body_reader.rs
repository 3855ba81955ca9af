//! Reading of a message from a caller's body, with limits on its size, its pace and the memory of
//! all such bodies.
//!
//! MCP-2: the size that a body declares is taken from the budget before a byte of it is read.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Size of the part that has to come within the limit of time, in bytes.
const LEAST: usize = 1024;
/// Unit of the budget, in bytes.
const UNIT: usize = 4096;
/// Budget of all messages that are read or passed on at once, in units: 256 MiB.
const BUDGET: usize = 256 * 1024 * 1024 / UNIT;

/// Budget of the process.
static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(BUDGET)));

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
}

/// A message that was read, with its part of the budget.
pub(super) struct ReadMessage {
    pub(super) text: Bytes,
    /// Given back when the message is not needed any more.
    pub(super) room: Vec<OwnedSemaphorePermit>,
}

/// Reads a body.
pub(super) async fn read(
    mut body: Incoming,
    limits: MessageLimits,
) -> Result<ReadMessage, BodyFault> {
    let declared = body.size_hint();
    let least = usize::try_from(declared.lower()).unwrap_or(usize::MAX);
    if least > limits.size {
        return Err(BodyFault::TooLong);
    }
    let mut room = vec![take_room(least, limits.pause).await?];
    let mut granted = units(least) * UNIT;
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
        if length > granted {
            // It declared no length, so it is asked for in steps.
            let more = (length - granted).max(16 * UNIT);
            room.push(take_room(more, limits.pause).await?);
            granted += units(more) * UNIT;
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
    Ok(ReadMessage { text, room })
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT).clamp(1, BUDGET)
}

async fn take_room(bytes: usize, limit: Duration) -> Result<OwnedSemaphorePermit, BodyFault> {
    let units = u32::try_from(units(bytes)).unwrap_or(u32::MAX);
    let asked = Arc::clone(&ROOM).acquire_many_owned(units);
    match timeout_at(Instant::now() + limit, asked).await {
        Ok(Ok(room)) => Ok(room),
        // The budget is never closed.
        Ok(Err(_)) | Err(_) => Err(BodyFault::NoRoom),
    }
}
