//! Bounds how many calls are at a dependency at once, and says who is next. How long one waits is
//! kept by whoever asks.

mod line;

use crate::{BulkheadSettings, Rate};

pub use line::{Line, Turn};

/// How much a call matters beside the others that wait with it. The greater goes first; the
/// smaller makes room when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// It can wait, and can be done without.
    Low,
    /// Like most.
    #[default]
    Normal,
    /// Somebody waits for it.
    High,
}

/// What a call asks a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ticket {
    /// How much it matters.
    pub priority: Priority,
    /// Whether it needs a place among the writes too (rule LIM-3).
    pub write: bool,
}

/// Whether a call may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// It runs.
    Run,
    /// It waits for a place.
    Queue,
    /// There is no room: it is refused.
    Full,
}

/// The places of one dependency.
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
    /// An empty one.
    #[must_use]
    pub const fn new(settings: &BulkheadSettings) -> Self {
        Self {
            max_concurrent: settings.max_concurrent.get(),
            max_queue: settings.max_queue,
            running: 0,
            queued: 0,
        }
    }

    /// Takes a place, or one in the queue. Nobody overtakes those who wait.
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

    /// Gives the place of a running call back. True when the first of the queue has it now.
    #[must_use]
    pub const fn finish(&mut self) -> bool {
        debug_assert!(self.running > 0, "CALL-6: a place is given back once");
        self.running = self.running.saturating_sub(1);
        self.promote()
    }

    /// Gives a place in the queue up: the call waited too long, or its caller is gone.
    pub const fn leave_queue(&mut self) {
        debug_assert!(self.queued > 0, "CALL-6: a place is given back once");
        self.queued = self.queued.saturating_sub(1);
    }

    /// Changes the bounds; calls that have a place keep it. Returns how many of the queue run now.
    pub const fn resize(&mut self, settings: &BulkheadSettings) -> u32 {
        self.max_concurrent = settings.max_concurrent.get();
        self.max_queue = settings.max_queue;
        let mut promoted = 0;
        while self.promote() {
            promoted += 1;
        }
        promoted
    }

    /// Calls that run.
    #[must_use]
    pub const fn running(&self) -> u32 {
        self.running
    }

    /// Calls that wait.
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
/// A kind may use what is idle; another's guarantee is kept even then, so that together they may
/// pass the limit for a while.
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

    /// Takes a place for a call of this partition; false when there is none, or no such partition.
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

    /// Gives a place back.
    pub fn release(&mut self, partition: usize) {
        if let Some(part) = self.parts.get_mut(partition) {
            debug_assert!(part.in_flight > 0, "CALL-6: a place is given back once");
            part.in_flight = part.in_flight.saturating_sub(1);
        }
    }

    /// Changes the limit; the shares follow.
    pub const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Calls of this partition.
    #[must_use]
    pub fn in_flight(&self, partition: usize) -> u32 {
        self.parts.get(partition).map_or(0, |part| part.in_flight)
    }

    /// Calls of all partitions.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.parts.iter().map(|part| part.in_flight).sum()
    }
}

impl Part {
    /// The guaranteed places: the share, rounded up, at least one.
    fn guaranteed(&self, limit: u32) -> u32 {
        let places = self.share.least_part(u64::from(limit)).max(1);
        u32::try_from(places).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
