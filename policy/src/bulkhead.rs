//! The limit on calls in flight at a dependency, and the order of its waiters. The caller enforces
//! the maximum wait.

mod line;

use crate::{BulkheadSettings, Rate};

pub use line::{QueuePosition, WaitQueue};

/// Importance of a call relative to the other waiters. The higher goes first; the lower makes room
/// when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// It can wait, and can be dropped.
    Low,
    /// Most calls.
    #[default]
    Normal,
    /// A user waits for the result.
    High,
}

/// A call's request for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ticket {
    /// Priority of the call.
    pub priority: Priority,
    /// True if it needs a slot among the writes too (rule LIM-3).
    pub write: bool,
}

/// Decision on the entry of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// It runs.
    Run,
    /// It waits for a slot.
    Queue,
    /// Slots and queue are full: it is refused.
    Full,
}

/// The slots of one dependency.
///
/// # Source  Rule CALL-6 in docs/rules.md.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    max_concurrent: u32,
    max_queue: u32,
    running: u32,
    queued: u32,
}

impl Bulkhead {
    /// Returns an empty bulkhead.
    #[must_use]
    pub const fn new(settings: &BulkheadSettings) -> Self {
        Self {
            max_concurrent: settings.max_concurrent.get(),
            max_queue: settings.max_queue,
            running: 0,
            queued: 0,
        }
    }

    /// Takes a slot, or a position in the queue. Waiters are never overtaken.
    #[must_use]
    pub const fn admit(&mut self) -> Admission {
        if self.running < self.max_concurrent && self.queued == 0 {
            self.running += 1;
            Admission::Run
        } else if self.queued < self.max_queue {
            self.queued += 1;
            Admission::Queue
        } else {
            Admission::Full
        }
    }

    /// Frees the slot of a running call. Returns true if the first waiter took it over.
    #[must_use]
    pub const fn finish(&mut self) -> bool {
        debug_assert!(self.running > 0, "CALL-6: a place is given back once");
        self.running = self.running.saturating_sub(1);
        self.promote()
    }

    /// Frees a position in the queue: the call waited too long, or its caller is gone.
    pub const fn leave_queue(&mut self) {
        debug_assert!(self.queued > 0, "CALL-6: a place is given back once");
        self.queued = self.queued.saturating_sub(1);
    }

    /// Changes the limits; admitted calls stay. Returns the number of waiters that run as a result.
    pub const fn resize(&mut self, settings: &BulkheadSettings) -> u32 {
        self.max_concurrent = settings.max_concurrent.get();
        self.max_queue = settings.max_queue;
        let mut promoted = 0;
        while self.promote() {
            promoted += 1;
        }
        promoted
    }

    /// Returns the number of running calls.
    #[must_use]
    pub const fn running(&self) -> u32 {
        self.running
    }

    /// Returns the number of waiting calls.
    #[must_use]
    pub const fn queued(&self) -> u32 {
        self.queued
    }

    const fn promote(&mut self) -> bool {
        let promoted = self.queued > 0 && self.running < self.max_concurrent;
        if promoted {
            self.queued -= 1;
            self.running += 1;
        }
        promoted
    }
}

/// One limit divided among kinds of calls, each with a guaranteed share.
///
/// A kind may use idle capacity. The guarantee of another kind holds even then, so the total may
/// exceed the limit for a while.
///
/// # Source  concurrency-limits, `AbstractPartitionedLimiter`.
#[derive(Debug, Clone)]
pub struct Partitions {
    limit: u32,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    share: Rate,
    in_flight: u32,
}

impl Partitions {
    /// Divides `limit` by `shares`; the partitions are numbered in this order.
    #[must_use]
    pub fn new(limit: u32, shares: &[Rate]) -> Self {
        let parts = shares
            .iter()
            .map(|&share| Part {
                share,
                in_flight: 0,
            })
            .collect();
        Self { limit, parts }
    }

    /// Takes a slot for a call of this partition; returns false if there is none, or no such
    /// partition.
    #[must_use]
    pub fn acquire(&mut self, partition: usize) -> bool {
        let total = self.total();
        let limit = self.limit;
        let Some(part) = self.parts.get_mut(partition) else {
            return false;
        };
        let granted = total < limit || part.in_flight < part.guaranteed(limit);
        if granted {
            part.in_flight += 1;
        }
        granted
    }

    /// Frees a slot.
    pub fn release(&mut self, partition: usize) {
        if let Some(part) = self.parts.get_mut(partition) {
            debug_assert!(part.in_flight > 0, "CALL-6: a place is given back once");
            part.in_flight = part.in_flight.saturating_sub(1);
        }
    }

    /// Changes the limit; the shares scale with it.
    pub const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Returns the number of calls in flight in this partition.
    #[must_use]
    pub fn in_flight(&self, partition: usize) -> u32 {
        self.parts.get(partition).map_or(0, |part| part.in_flight)
    }

    /// Returns the number of calls in flight in all partitions.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.parts.iter().map(|part| part.in_flight).sum()
    }
}

impl Part {
    /// Returns the number of guaranteed slots: the share, rounded up, at least one.
    fn guaranteed(&self, limit: u32) -> u32 {
        let places = self.share.least_part(u64::from(limit)).max(1);
        u32::try_from(places).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
