//! Messages on their way to a caller, and which of them it wants.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::mcp::audience::ServerNotice;
use crate::mcp::log_level::{LEVELS, rank};

/// A message on its way to a caller, in pieces.
pub(super) type CallerMessage = Vec<Bytes>;

/// Number of the last caller.
static LAST_CALLER: AtomicU64 = AtomicU64::new(0);

/// Returns the number of a new caller.
pub(super) fn next_caller() -> u64 {
    LAST_CALLER.fetch_add(1, Ordering::Relaxed) + 1
}

/// Returns the rank of a log message.
pub(super) fn rank_of(notice: &ServerNotice) -> usize {
    let level = notice.head.as_ref().and_then(|head| head.level.as_deref());
    level.and_then(rank).unwrap_or(LEVELS.len())
}
