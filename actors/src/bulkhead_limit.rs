//! The limits of a bulkhead that a refused call exceeded, with their configuration keys.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::RoundedDuration;

/// The limits of a bulkhead that a call exceeded: one on the calls in flight, and one on waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BulkheadLimit {
    /// `max_concurrent_writes`, if the call is a write and this limit is the one; `None` if it is
    /// `max_concurrent`.
    pub max_writes: Option<NonZeroU32>,
    /// `max_wait`, if the call waited as long; `None` if the queue was full (`max_queue`).
    pub waited: Option<Duration>,
    /// The number of calls that may wait in the mailbox of the breaker actor, if that was full: the
    /// call was sent as a message. `None` for the limits above.
    pub mailbox: Option<NonZeroU32>,
}

impl BulkheadLimit {
    /// Returns the configuration keys of both limits.
    #[must_use]
    pub const fn keys(&self) -> (&'static str, &'static str) {
        let slots = match self.max_writes {
            Some(_) => "bulkhead.max_concurrent_writes",
            None => "bulkhead.max_concurrent",
        };
        let queue = match self.waited {
            Some(_) => "bulkhead.max_wait",
            None => "bulkhead.max_queue",
        };
        (slots, queue)
    }

    pub(crate) fn write(
        &self,
        out: &mut fmt::Formatter<'_>,
        max_concurrent: u32,
        max_queue: u32,
    ) -> fmt::Result {
        if let Some(bound) = self.mailbox {
            return write!(
                out,
                "{bound} calls waiting for its breaker actor at most (send fewer at once, or ask \
                 through a client; more may wait with a larger bulkhead.max_queue)"
            );
        }
        let (slots, queue) = self.keys();
        let (count, one, many) = match self.max_writes {
            Some(max) => (max.get(), "write", "writes"),
            None => (max_concurrent, "call", "calls"),
        };
        let what = if count == 1 { one } else { many };
        write!(out, "{count} {what} in flight at most ({slots}), ")?;
        match self.waited {
            Some(wait) => {
                let wait = RoundedDuration(wait);
                write!(out, "and none ended within {wait} ({queue})")
            }
            None => write!(out, "and {max_queue} waiting at most ({queue})"),
        }
    }
}
