//! The drain of dependencies that stop together: the accepted work of each may call the others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use breakerbox_policy::Time;

use super::{Route, Shared};

/// The dependencies that drain at the same time, and the end of that drain.
#[derive(Debug)]
pub(crate) struct SharedDrain {
    until: Time,
    members: Box<[Weak<Shared>]>,
    /// Position of the member that was found pending last, where the next search begins.
    last: AtomicUsize,
    /// True once a search has found no member pending: no work is left that could call one. Each
    /// worker of each member asks, so that without it a shutdown would cost the square of their
    /// number.
    is_over: AtomicBool,
    /// True once all members drain: before that, the calls of some are not known to be accepted.
    has_begun: AtomicBool,
}

impl SharedDrain {
    pub(crate) fn new(until: Time, members: impl Iterator<Item = Weak<Shared>>) -> Self {
        Self {
            until,
            members: members.collect(),
            last: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
        }
    }

    /// Begins the drain, once each member refuses new calls.
    pub(crate) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Returns a member with calls that the drain waits for; `None` if there is none, or the drain
    /// is over.
    pub(super) fn first_pending(&self, now: Time) -> Option<Arc<Shared>> {
        if self.is_over.load(Ordering::Acquire) || now >= self.until {
            return None;
        }
        let last = self.last.load(Ordering::Relaxed).min(self.members.len());
        let (before, after) = self.members.split_at(last);
        let mut all_drain = true;
        for (offset, member) in after.iter().chain(before).enumerate() {
            let Some(member) = member.upgrade() else {
                continue;
            };
            if member.is_pending() {
                self.last
                    .store((last + offset) % self.members.len(), Ordering::Relaxed);
                return Some(member);
            }
            all_drain &= matches!(member.worker_route(), Route::Draining | Route::Stopped);
        }
        self.is_over.store(all_drain, Ordering::Release);
        None
    }
}
