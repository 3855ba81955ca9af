//! Counters for metrics beside the totals: reasons of refusals, classes of attempts, and retries.
//!
//! Successes are not counted here, so a call that succeeds pays nothing for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::{Class, Executed};

use crate::error::{CallError, Limit, NotExecutedReason};
use crate::state::Shared;

/// A layer that refuses calls, or another reason why a call was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedBy {
    /// The breaker is open, half-open without a free probe, or forced open.
    Breaker,
    /// The call's turn would come too late, or its weight exceeds the burst.
    RateLimit,
    /// The tokens that the call reserves would come too late, or are more than are ever given.
    Tokens,
    /// The dependency asked for a pause.
    Pause,
    /// No free slot, and no room in the queue or no time to wait.
    Bulkhead,
    /// The request has crashed workers before.
    Quarantine,
    /// The session did not have enough budget left.
    Session,
    /// The deadline passed before the work could begin.
    Deadline,
    /// No worker was available: restarting, or given up.
    NoWorker,
    /// The dependency or the runtime was shutting down.
    ShuttingDown,
}

impl RefusedBy {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Breaker,
        Self::RateLimit,
        Self::Tokens,
        Self::Pause,
        Self::Bulkhead,
        Self::Quarantine,
        Self::Session,
        Self::Deadline,
        Self::NoWorker,
        Self::ShuttingDown,
    ];

    /// Its name, as in a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::RateLimit => "rate_limit",
            Self::Tokens => "token_limit",
            Self::Pause => "pause",
            Self::Bulkhead => "bulkhead",
            Self::Quarantine => "quarantine",
            Self::Session => "session",
            Self::Deadline => "deadline",
            Self::NoWorker => "no_worker",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The layer that refused a call with this error; `None` if the call reached the dependency, or
    /// never could.
    fn of<E>(error: &CallError<E>) -> Option<Self> {
        Some(match error {
            CallError::Open(_) => Self::Breaker,
            CallError::RateLimited { limit, .. } => match limit {
                Limit::Pause(_) => Self::Pause,
                Limit::Rate | Limit::TooHeavy { .. } => Self::RateLimit,
                Limit::Tokens | Limit::TooManyTokens { .. } => Self::Tokens,
            },
            CallError::Overloaded { .. } => Self::Bulkhead,
            CallError::Quarantined { .. } => Self::Quarantine,
            CallError::SessionSpent { .. } => Self::Session,
            CallError::TimedOut {
                executed: Executed::No,
                ..
            } => Self::Deadline,
            CallError::NotExecuted { reason, .. } => match reason {
                NotExecutedReason::Restarting | NotExecutedReason::Parked => Self::NoWorker,
                NotExecutedReason::ShuttingDown => Self::ShuttingDown,
                NotExecutedReason::FallbackOnly
                | NotExecutedReason::NoRuntime
                | NotExecutedReason::NotStarted => return None,
            },
            _ => return None,
        })
    }
}

/// Live counters.
#[derive(Debug, Default)]
pub(crate) struct MetricCounts {
    refused: [AtomicU64; RefusedBy::ALL.len()],
    /// Ended attempts by class, without the successes.
    throttled: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    misconfigured: AtomicU64,
    cancelled: AtomicU64,
    retried: AtomicU64,
    /// Maximum of the successes reported so far. They are computed from counters that move meanwhile,
    /// and must not go down.
    succeeded: AtomicU64,
}

impl MetricCounts {
    /// Number of attempts that ended with the answer to a caller's mistake.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Acquire)
    }

    /// Counts a call that was not executed, whether or not a fallback answers it.
    pub(crate) fn count_refusal<E>(&self, error: &CallError<E>) {
        if let Some(refuser) = RefusedBy::of(error) {
            self.refused[refuser as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a further attempt of a call that its retries make.
    pub(crate) fn count_retry(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
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

/// Refusals by the layer that refused, attempts by class, and retries. Counters only go up.
///
/// A refused call may still be answered by a fallback: the totals,
/// [`TotalsView`](crate::TotalsView), count the results of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountsView {
    refused: [u64; RefusedBy::ALL.len()],
    /// Attempts that succeeded.
    pub success: u64,
    /// Attempts that failed.
    pub failure: u64,
    /// Attempts that the dependency answered with a request for less traffic.
    pub throttled: u64,
    /// Attempts that the dependency refused as the caller's fault.
    pub rejected: u64,
    /// Attempts that cannot succeed before an operator changes a setting.
    pub misconfigured: u64,
    /// Attempts abandoned by their caller.
    pub cancelled: u64,
    /// Attempts after the first one that retries were allowed to make, without hedges.
    pub retries: u64,
}

impl CountsView {
    /// Number of calls refused for this reason, including those that a fallback then answered.
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
            retries: read(&counts.retried),
        };
        let no_success =
            view.failure + view.throttled + view.rejected + view.misconfigured + view.cancelled;
        view.refused[RefusedBy::Breaker as usize] += shared.totals.refused_at_once();
        let ended = shared.totals.observed();
        view.success = highest(&counts.succeeded, ended.saturating_sub(no_success));
        view
    }
}

fn highest(told: &AtomicU64, now: u64) -> u64 {
    told.fetch_max(now, Ordering::AcqRel).max(now)
}

/// Durations of attempts, as cumulative buckets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LatencyBuckets {
    /// Upper bounds, each with the number of attempts that took at most that long.
    pub buckets: Vec<(Duration, u64)>,
    /// Number of attempts.
    pub count: u64,
    /// Total duration of the attempts, within 3 %.
    pub sum: Duration,
}
