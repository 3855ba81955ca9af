//! The last span of time, in buckets aligned to multiples of their width.
//!
//! The bucket of an outcome depends on its time alone. Outcomes counted elsewhere and added in one
//! batch therefore land in the same buckets as if added one by one. An outcome is forgotten with
//! its bucket: never later than its own time plus the span.

use std::time::Duration;

use super::WindowSums;
use crate::Time;
use crate::time::nanos;

/// A ring of buckets; the head is the newest.
#[derive(Debug, Clone)]
pub(super) struct TimeBuckets {
    width: u64,
    buckets: Box<[WindowSums]>,
    /// Number of the newest bucket: its start divided by the width.
    head: u64,
    sums: WindowSums,
}

impl TimeBuckets {
    pub(super) fn new(span: Duration, count: u32, now: Time) -> Self {
        let width = (nanos(span) / u64::from(count)).max(1);
        Self {
            width,
            buckets: vec![WindowSums::default(); count as usize].into_boxed_slice(),
            head: now.as_nanos() / width,
            sums: WindowSums::default(),
        }
    }

    pub(super) const fn width(&self) -> Duration {
        Duration::from_nanos(self.width)
    }

    pub(super) const fn sums(&self) -> &WindowSums {
        &self.sums
    }

    /// Adds to the bucket of `at`; an outcome older than the span is lost.
    pub(super) fn add(&mut self, at: Time, outcome: WindowSums) {
        self.slide(at);
        // Most outcomes belong to the head bucket; this saves a division.
        let start = self.head * self.width;
        let number = if at.as_nanos() >= start {
            self.head
        } else {
            at.as_nanos() / self.width
        };
        if self.head - number < self.buckets.len() as u64 {
            let slot = self.slot(number);
            self.buckets[slot].add(outcome);
            self.sums.add(outcome);
        }
    }

    /// Forgets outcomes older than the span at `now`.
    pub(super) fn slide(&mut self, now: Time) {
        let offset = now.as_nanos().saturating_sub(self.head * self.width);
        if offset < self.width {
            return;
        }
        let head = self.head + offset / self.width;
        if head - self.head >= self.buckets.len() as u64 {
            self.buckets.fill(WindowSums::default());
            self.sums = WindowSums::default();
        } else {
            for number in self.head + 1..=head {
                let slot = self.slot(number);
                // BRK-2: the window slides by one bucket, and forgets its outcomes.
                let old = std::mem::take(&mut self.buckets[slot]);
                self.sums.subtract(old);
            }
        }
        self.head = head;
    }

    /// Returns the sums as they would be after sliding to `now`.
    pub(super) fn sums_at(&self, now: Time) -> WindowSums {
        let count = self.buckets.len() as u64;
        let gone = (now.as_nanos() / self.width)
            .saturating_sub(self.head)
            .min(count);
        let mut sums = self.sums;
        for number in self.head + 1..=self.head + gone {
            sums.subtract(self.buckets[self.slot(number)]);
        }
        sums
    }

    pub(super) fn clear(&mut self, now: Time) {
        self.buckets.fill(WindowSums::default());
        self.sums = WindowSums::default();
        self.head = self.head.max(now.as_nanos() / self.width);
    }

    /// Returns the index of a bucket; numbers that differ by the ring's length share a slot.
    #[expect(clippy::cast_possible_truncation)]
    fn slot(&self, number: u64) -> usize {
        (number % self.buckets.len() as u64) as usize
    }
}
