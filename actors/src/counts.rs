//! What metrics need beside the books: why calls were refused, what attempts came to, how often
//! they were repeated.
//!
//! A success is not counted here at all: no call that works pays for it.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::{Class, Executed};

use crate::dependency::{RetryBudget, Shared};
use crate::error::{Absence, CallError, Limit};

/// A layer that refuses calls, or what kept a call from being begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedBy {
    /// Open, half-open without a free probe, or forced open.
    Breaker,
    /// Not soon enough, or heavier than the burst.
    RateLimit,
    /// The dependency asked for it.
    Pause,
    /// No place, and no seat or no time to wait.
    Bulkhead,
    /// The request crashed workers before.
    Quarantine,
    /// The session had not enough left.
    Session,
    /// The deadline came before the work could begin.
    Deadline,
    /// No worker was there: restarting, or given up.
    NoWorker,
    /// The dependency or the runtime was shutting down.
    ShuttingDown,
}

impl RefusedBy {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Breaker,
        Self::RateLimit,
        Self::Pause,
        Self::Bulkhead,
        Self::Quarantine,
        Self::Session,
        Self::Deadline,
        Self::NoWorker,
        Self::ShuttingDown,
    ];

    /// Its name, such as a metric's label has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::RateLimit => "rate_limit",
            Self::Pause => "pause",
            Self::Bulkhead => "bulkhead",
            Self::Quarantine => "quarantine",
            Self::Session => "session",
            Self::Deadline => "deadline",
            Self::NoWorker => "no_worker",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Who refused the call that ends with this; `None` for one that reached the dependency, or
    /// that is never to.
    fn of<E>(error: &CallError<E>) -> Option<Self> {
        Some(match error {
            CallError::Open(_) => Self::Breaker,
            CallError::RateLimited { limit, .. } => match limit {
                Limit::Pause(_) => Self::Pause,
                Limit::Rate | Limit::TooHeavy { .. } => Self::RateLimit,
            },
            CallError::Overloaded { .. } => Self::Bulkhead,
            CallError::Quarantined { .. } => Self::Quarantine,
            CallError::SessionSpent { .. } => Self::Session,
            CallError::TimedOut {
                executed: Executed::No,
                ..
            } => Self::Deadline,
            CallError::NotExecuted { reason, .. } => match reason {
                Absence::Restarting | Absence::Parked => Self::NoWorker,
                Absence::ShuttingDown => Self::ShuttingDown,
                Absence::FallbackOnly | Absence::NoRuntime | Absence::NotStarted => return None,
            },
            _ => return None,
        })
    }
}

/// Live counters.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    refused: [AtomicU64; RefusedBy::ALL.len()],
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
    /// Counts a call that nobody executed, whether or not a fallback answers it.
    pub(crate) fn refuse<E>(&self, error: &CallError<E>) {
        if let Some(refuser) = RefusedBy::of(error) {
            self.refused[refuser as usize].fetch_add(1, Ordering::Relaxed);
        }
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
/// A call that is refused may still be answered by a fallback: the books,
/// [`TotalsView`](crate::TotalsView), tell what became of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountsView {
    refused: [u64; RefusedBy::ALL.len()],
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
    /// Calls that this refused, the ones a fallback answered then among them.
    #[must_use]
    pub fn refused(&self, by: RefusedBy) -> u64 {
        self.refused[by as usize]
    }

    pub(crate) fn of(shared: &Shared) -> Self {
        let counts = &shared.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let mut view = Self {
            refused: RefusedBy::ALL.map(|by| read(&counts.refused[by as usize])),
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
        view.refused[RefusedBy::Breaker as usize] += shared.totals.refused_at_once();
        let ended = shared.totals.observed();
        view.success = highest(&counts.succeeded, ended.saturating_sub(no_success));
        let hedges = shared.totals.hedges();
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
