//! Snapshots of a breaker's state.

use std::time::Duration;

use super::reason::BreakerCause;
use super::state::{Override, State};
use crate::{Time, WindowCounts};

/// Totals over a breaker's lifetime; only a reset sets them to zero.
///
/// Each permit ends in exactly one of `recorded`, `neutral`, `late`, `unrecorded` and `released`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EndedPermits {
    /// Outcomes that were counted: successes and failures.
    pub recorded: u64,
    /// Successes among them.
    pub successes: u64,
    /// Failures among them.
    pub failures: u64,
    /// Slow calls among them.
    pub slow: u64,
    /// Outcomes of an earlier generation, or of a probe after its lease.
    pub late: u64,
    /// Outcomes that say nothing about the dependency.
    pub neutral: u64,
    /// Cancelled calls, under every policy; late ones are left out.
    pub cancelled: u64,
    /// Outcomes of calls that were admitted while disabled.
    pub unrecorded: u64,
    /// Permits that were returned unused.
    pub released: u64,
    /// Refused admissions.
    pub refused: u64,
    /// Probes that did not report within their lease.
    pub lost_probes: u64,
    /// Transitions to open.
    pub trips: u64,
}

/// A breaker's state at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BreakerView<'a> {
    /// The automatic state.
    pub state: State,
    /// Override in force.
    pub overridden: Option<&'a Override>,
    /// The generation.
    pub generation: u64,
    /// Time at which the automatic state began.
    pub since: Time,
    /// Reason for the automatic state.
    pub cause: &'a BreakerCause,
    /// Time for which calls will be refused; `None` if they are admitted, or if it is unknown.
    pub retry_after: Option<Duration>,
    /// True if the open time is as long as it is because the dependency asked for it (`Retry-After`).
    pub wait_is_asked: bool,
    /// Counts of the window; in half-open, the results of the probes.
    pub counts: WindowCounts,
    /// Number of outcomes in `counts` from which a rate is judged and shown (BRK-14).
    pub minimum_calls: u64,
    /// The half-open period, if there is one.
    pub half_open: Option<HalfOpenView>,
    /// Calls in flight that are already slow.
    pub overdue: u64,
    /// Totals over its lifetime.
    pub tally: &'a EndedPermits,
    /// Number of half-open periods in a row that have failed.
    pub open_attempt: u32,
}

/// A half-open period at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HalfOpenView {
    /// Probes that succeeded.
    pub successes: u64,
    /// Successes (or results, when judged by rates) that are needed.
    pub needed: u64,
    /// Probes without a result yet.
    pub in_flight: u64,
    /// Probes with a result.
    pub results: u64,
}
