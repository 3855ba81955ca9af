//! The published state of a supervised actor: its condition, its incarnation, and the time it has
//! been busy. The driver publishes a crash here before it is reported.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::Time;
use breakerbox_policy::supervision::StopCause;

use crate::sync::LockExt;

/// Readiness of a supervised actor to take calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// No incarnation, or one that has not started yet.
    Down,
    /// It takes calls.
    Running,
    /// It finishes its pending calls.
    Stopping,
    /// It will not run again, except after a manual restart.
    Gone,
}

/// Condition and incarnation, packed into one `u64`, and further published state.
#[derive(Debug, Default)]
pub(crate) struct ConditionWord {
    word: AtomicU64,
    /// Start of the present poll, in nanoseconds; 0 while it is not being polled.
    busy_since: AtomicU64,
    /// Start of its next incarnation, in nanoseconds; 0 if it is not known.
    back_at: AtomicU64,
    /// The driver that owns the queue; older ones are fenced off.
    owner: AtomicU64,
    /// Number of restarts, as its supervisor counts them.
    restarts: AtomicU64,
    /// Cause of its latest end.
    last_exit: Mutex<Option<StopCause>>,
}

impl ConditionWord {
    pub(crate) fn condition(&self) -> Condition {
        match self.word.load(Ordering::Acquire) & 3 {
            1 => Condition::Running,
            2 => Condition::Stopping,
            3 => Condition::Gone,
            _ => Condition::Down,
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.word.load(Ordering::Acquire) >> 2
    }

    pub(crate) fn set(&self, condition: Condition, incarnation: u64) {
        let bits = match condition {
            Condition::Down => 0,
            Condition::Running => 1,
            Condition::Stopping => 2,
            Condition::Gone => 3,
        };
        self.word.store(incarnation << 2 | bits, Ordering::Release);
    }

    pub(crate) fn enter(&self, now: Time) {
        self.busy_since
            .store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// Returns the duration of the present poll.
    pub(crate) fn busy_for(&self, now: Time) -> Option<Duration> {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(now.since(Time::from_nanos(since))),
        }
    }

    /// Publishes the start of its next incarnation.
    pub(crate) fn set_back_at(&self, at: Time) {
        self.back_at.store(at.as_nanos(), Ordering::Relaxed);
    }

    /// Returns the time until its next incarnation, if it is known and still to come.
    pub(crate) fn back_in(&self, now: Time) -> Option<Duration> {
        let at = Time::from_nanos(self.back_at.load(Ordering::Relaxed));
        (at > now).then(|| at.since(now))
    }

    /// Publishes the number of its restarts.
    pub(crate) fn set_restarts(&self, restarts: u64) {
        self.restarts.store(restarts, Ordering::Relaxed);
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Publishes the cause of its latest end.
    pub(crate) fn note_exit(&self, cause: StopCause) {
        *self.exit() = Some(cause);
    }

    pub(crate) fn last_exit(&self) -> Option<StopCause> {
        self.exit().clone()
    }

    fn exit(&self) -> std::sync::MutexGuard<'_, Option<StopCause>> {
        self.last_exit.acquire()
    }

    /// Makes a new owner of the queue; the former owner is fenced off.
    pub(crate) fn new_owner(self: &Arc<Self>) -> QueueFence {
        QueueFence {
            health: Arc::clone(self),
            owner: self.owner.fetch_add(1, Ordering::AcqRel) + 1,
        }
    }
}

/// A driver's claim on its queue.
#[derive(Debug, Clone)]
pub(crate) struct QueueFence {
    health: Arc<ConditionWord>,
    owner: u64,
}

impl QueueFence {
    /// Returns true if another driver owns the queue now.
    pub(crate) fn is_passed(&self) -> bool {
        self.health.owner.load(Ordering::Acquire) != self.owner
    }
}
