//! The window of outcomes that a closed breaker remembers.
//!
//! All kinds forget exactly: a count window drops the oldest outcome for each new one; a time
//! window drops whole buckets and holds none older than its span. A record costs amortised O(1). It
//! never judges; that is `breaker/rules.rs`.

mod buckets;
mod ring;

use std::time::Duration;

use buckets::TimeBuckets;
use ring::OutcomeRing;

use crate::time::nanos;
use crate::{Time, WindowKind};

/// Counts of the outcomes in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WindowCounts {
    /// Recorded outcomes, successes and failures.
    pub calls: u64,
    /// Failures among them; in a [`WindowKind::Consecutive`] window, the run of failures.
    pub failures: u64,
    /// Slow calls among them, failed or not.
    pub slow: u64,
    /// Cancelled calls, not part of `calls`; kept only under [`crate::CancelledPolicy::Rate`].
    pub cancelled: u64,
    /// Failures since the last success, in every kind of window.
    pub consecutive_failures: u64,
    /// Sum of the calls' durations.
    pub elapsed_total: Duration,
}

impl WindowCounts {
    /// Returns the share of failures, in [0, 1]; `None` before `minimum_calls` outcomes.
    ///
    /// # Source  Rule BRK-14 in docs/rules.md.
    #[must_use]
    pub fn failure_rate(&self, minimum_calls: u64) -> Option<f64> {
        self.share(self.failures, minimum_calls)
    }

    /// Returns the share of slow calls, in [0, 1]; `None` before `minimum_calls` outcomes.
    ///
    /// # Source  Rule BRK-14 in docs/rules.md.
    #[must_use]
    pub fn slow_rate(&self, minimum_calls: u64) -> Option<f64> {
        self.share(self.slow, minimum_calls)
    }

    #[expect(clippy::cast_precision_loss)]
    fn share(&self, part: u64, minimum_calls: u64) -> Option<f64> {
        // BRK-14: a rate of fewer outcomes than `minimum_calls` is not told.
        (self.calls >= minimum_calls.max(1)).then(|| part as f64 / self.calls as f64)
    }
}

/// Sums over a window, a bucket or one outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WindowSums {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) slow: u64,
    pub(crate) cancelled: u64,
    pub(crate) elapsed: u64,
}

impl WindowSums {
    fn outcome(failed: bool, slow: bool, elapsed: Duration) -> Self {
        Self {
            calls: 1,
            failures: u64::from(failed),
            slow: u64::from(slow),
            cancelled: 0,
            elapsed: nanos(elapsed),
        }
    }

    const CANCELLED: Self = Self {
        calls: 0,
        failures: 0,
        slow: 0,
        cancelled: 1,
        elapsed: 0,
    };

    const fn successes(count: u64) -> Self {
        Self {
            calls: count,
            failures: 0,
            slow: 0,
            cancelled: 0,
            elapsed: 0,
        }
    }

    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
        self.cancelled += other.cancelled;
        self.elapsed = self.elapsed.saturating_add(other.elapsed);
    }

    fn subtract(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failures -= other.failures;
        self.slow -= other.slow;
        self.cancelled -= other.cancelled;
        self.elapsed = self.elapsed.saturating_sub(other.elapsed);
    }
}

#[derive(Debug, Clone)]
enum WindowMemory {
    Everything(WindowSums),
    Ring(OutcomeRing),
    Buckets(TimeBuckets),
}

/// A breaker's memory of outcomes.
///
/// # Source  Rule BRK-2 in docs/rules.md.
#[derive(Debug, Clone)]
pub struct Window {
    memory: WindowMemory,
    run: u64,
    run_cancelled: u64,
}

impl Window {
    /// Returns an empty window.
    #[must_use]
    pub fn new(kind: WindowKind, now: Time) -> Self {
        let memory = match kind {
            WindowKind::Consecutive => WindowMemory::Everything(WindowSums::default()),
            WindowKind::Count { size } => WindowMemory::Ring(OutcomeRing::new(size.get())),
            WindowKind::Time { span, buckets } => {
                WindowMemory::Buckets(TimeBuckets::new(span, buckets.get(), now))
            }
            WindowKind::Tumbling { span } => WindowMemory::Buckets(TimeBuckets::new(span, 1, now)),
        };
        Self {
            memory,
            run: 0,
            run_cancelled: 0,
        }
    }

    /// Adds one outcome.
    ///
    /// # Units   `now`: never decreasing. An outcome with an earlier time is added to the bucket of
    /// that time, or lost if that bucket is already forgotten.
    pub fn record(&mut self, now: Time, failed: bool, slow: bool, elapsed: Duration) {
        if failed {
            self.run += 1;
        } else {
            self.end_run();
        }
        self.put(now, WindowSums::outcome(failed, slow, elapsed));
    }

    /// Adds a cancelled call, which counts only once such calls reach their rate.
    pub fn record_cancelled(&mut self, now: Time) {
        self.run_cancelled += 1;
        self.put(now, WindowSums::CANCELLED);
    }

    /// Adds `count` fast successes at once, as if recorded one after the other.
    ///
    /// # Units   `at`: the time at which they ended; their durations count as zero.
    pub fn record_successes(&mut self, at: Time, count: u64) {
        if count == 0 {
            return;
        }
        self.end_run();
        match &mut self.memory {
            WindowMemory::Everything(sums) => sums.add(WindowSums::successes(count)),
            WindowMemory::Ring(ring) => ring.push_successes(count),
            WindowMemory::Buckets(buckets) => buckets.add(at, WindowSums::successes(count)),
        }
    }

    /// Returns the counts at `now`, without changing the window.
    #[must_use]
    pub fn counts(&self, now: Time) -> WindowCounts {
        let sums = match &self.memory {
            WindowMemory::Buckets(buckets) => buckets.sums_at(now),
            _ => self.sums(),
        };
        WindowCounts {
            calls: sums.calls,
            failures: self.failures(&sums),
            slow: sums.slow,
            cancelled: sums.cancelled,
            consecutive_failures: self.run,
            elapsed_total: Duration::from_nanos(sums.elapsed),
        }
    }

    /// Empties the window.
    pub fn clear(&mut self, now: Time) {
        self.end_run();
        match &mut self.memory {
            WindowMemory::Everything(sums) => *sums = WindowSums::default(),
            WindowMemory::Ring(ring) => ring.clear(),
            WindowMemory::Buckets(buckets) => buckets.clear(now),
        }
    }

    /// Returns the width of a bucket, for windows of time.
    #[must_use]
    pub fn bucket(&self) -> Option<Duration> {
        match &self.memory {
            WindowMemory::Buckets(buckets) => Some(buckets.width()),
            _ => None,
        }
    }

    /// Returns the sums as of the last record; time does not advance here.
    pub(crate) fn sums(&self) -> WindowSums {
        match &self.memory {
            WindowMemory::Everything(sums) => *sums,
            WindowMemory::Ring(ring) => *ring.sums(),
            WindowMemory::Buckets(buckets) => *buckets.sums(),
        }
    }

    /// Advances the window to `now`, without a record.
    pub(crate) fn forget(&mut self, now: Time) {
        if let WindowMemory::Buckets(buckets) = &mut self.memory {
            buckets.slide(now);
        }
    }

    /// Returns the failures in these sums, as this kind of window counts them.
    pub(crate) fn failures(&self, sums: &WindowSums) -> u64 {
        if self.is_consecutive() {
            self.run
        } else {
            sums.failures
        }
    }

    pub(crate) const fn is_consecutive(&self) -> bool {
        matches!(self.memory, WindowMemory::Everything(_))
    }

    /// Returns the failures and the cancelled calls since the last success.
    pub(crate) const fn run(&self) -> (u64, u64) {
        (self.run, self.run_cancelled)
    }

    fn end_run(&mut self) {
        self.run = 0;
        self.run_cancelled = 0;
    }

    fn put(&mut self, at: Time, outcome: WindowSums) {
        match &mut self.memory {
            WindowMemory::Everything(sums) => sums.add(outcome),
            WindowMemory::Ring(ring) => ring.push(outcome),
            WindowMemory::Buckets(buckets) => buckets.add(at, outcome),
        }
    }
}

#[cfg(test)]
mod tests;
