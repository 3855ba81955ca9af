//! What metrics need beside the books: why calls were refused, what attempts came to, how often
//! they were repeated.
//!
//! Counted where it happens, by whoever refuses. A success is not counted here at all: no call
//! that works pays for it.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::Class;

use crate::dependency::{RetryBudget, Shared};

/// A layer that refuses calls.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refuser {
    Breaker,
    RateLimit,
    Pause,
    Bulkhead,
    Quarantine,
}

/// Live counters.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    refused: [AtomicU64; 5],
    /// Attempts that were no success.
    throttled: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    misconfigured: AtomicU64,
    cancelled: AtomicU64,
    /// The most successes that were ever told, and the most retries: what is worked out of
    /// counters that move meanwhile must not go down again.
    succeeded: AtomicU64,
    retried: AtomicU64,
}

impl Counts {
    pub(crate) fn refuse(&self, refuser: Refuser) {
        self.refused[refuser as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt that has ended.
    pub(crate) fn attempt(&self, class: Class) {
        let counter = match class {
            Class::Success => return,
            Class::Failure => &self.failed,
            Class::Throttled => &self.throttled,
            Class::Rejected => &self.rejected,
            Class::Misconfigured => &self.misconfigured,
            Class::Cancelled => &self.cancelled,
        };
        counter.fetch_add(1, Ordering::Release);
    }
}

/// Refusals by the layer that refused, attempts by what they came to, and retries. Counters only
/// go up.
///
/// A call that is tried again may be refused more than once, and one that is refused may still be
/// answered by a fallback: the books, [`TotalsView`](crate::TotalsView), tell what became of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountsView {
    /// Refused by the breaker: open, half-open without a free probe, or forced open.
    pub refused_by_breaker: u64,
    /// Refused by the rate limit.
    pub refused_by_rate_limit: u64,
    /// Refused in a pause that the dependency asked for.
    pub refused_by_pause: u64,
    /// Refused by the bulkhead: no place, and no seat or no time to wait.
    pub refused_by_bulkhead: u64,
    /// Refused by the quarantine.
    pub refused_by_quarantine: u64,
    /// Attempts that succeeded.
    pub success: u64,
    /// Attempts that failed.
    pub failure: u64,
    /// Attempts that the dependency answered with a wish for less.
    pub throttled: u64,
    /// Attempts that the dependency refused as the caller's fault.
    pub rejected: u64,
    /// Attempts that cannot succeed before somebody changes a setting.
    pub misconfigured: u64,
    /// Attempts whose caller went away.
    pub cancelled: u64,
    /// Attempts after the first that were granted, without those beside another one.
    pub retries: u64,
}

impl CountsView {
    pub(crate) fn of(shared: &Shared) -> Self {
        let counts = &*shared.counts;
        let refused = |refuser: Refuser| counts.refused[refuser as usize].load(Ordering::Relaxed);
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let mut view = Self {
            refused_by_breaker: refused(Refuser::Breaker),
            refused_by_rate_limit: refused(Refuser::RateLimit),
            refused_by_pause: refused(Refuser::Pause),
            refused_by_bulkhead: refused(Refuser::Bulkhead),
            refused_by_quarantine: refused(Refuser::Quarantine),
            success: 0,
            failure: read(&counts.failed),
            throttled: read(&counts.throttled),
            rejected: read(&counts.rejected),
            misconfigured: read(&counts.misconfigured),
            cancelled: read(&counts.cancelled),
            retries: 0,
        };
        let no_success =
            view.failure + view.throttled + view.rejected + view.misconfigured + view.cancelled;
        let ended = shared.totals.observed();
        view.success = highest(&counts.succeeded, ended.saturating_sub(no_success));
        let hedges = shared.totals.hedges.load(Ordering::Relaxed);
        let granted = {
            let budget = shared.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.as_ref().map_or(0, RetryBudget::granted)
        };
        view.retries = highest(&counts.retried, granted.saturating_sub(hedges));
        view
    }
}

fn highest(told: &AtomicU64, now: u64) -> u64 {
    told.fetch_max(now, Ordering::AcqRel).max(now)
}

/// How long attempts took, as cumulative buckets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LatencyBuckets {
    /// Upper bounds, and how many attempts took at most that long.
    pub buckets: Vec<(Duration, u64)>,
    /// Attempts in all.
    pub count: u64,
    /// How long they took together, within 3 %.
    pub sum: Duration,
}
