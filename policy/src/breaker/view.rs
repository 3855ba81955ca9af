//! What can be seen of a breaker.

use std::time::Duration;

use super::reason::Cause;
use super::state::{Override, State};
use crate::{Counts, Time};

/// Totals over a breaker's life; only a reset sets them to zero.
///
/// Each permit ends in exactly one of `recorded`, `neutral`, `late`, `unrecorded` and `released`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Outcomes that were counted: successes and failures.
    pub recorded: u64,
    /// Successes among them.
    pub successes: u64,
    /// Failures among them.
    pub failures: u64,
    /// Slow ones among them.
    pub slow: u64,
    /// Outcomes of an earlier generation, or of a probe that had been given up.
    pub late: u64,
    /// Outcomes that say nothing about the dependency.
    pub neutral: u64,
    /// Cancelled calls, whatever they counted for; late ones are left out.
    pub cancelled: u64,
    /// Outcomes of calls that were admitted while disabled.
    pub unrecorded: u64,
    /// Permits that were given back unused.
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
pub struct View<'a> {
    /// The automatic state.
    pub state: State,
    /// What lies over it.
    pub overridden: Option<&'a Override>,
    /// The generation.
    pub generation: u64,
    /// When the automatic state began.
    pub since: Time,
    /// Why it did.
    pub cause: &'a Cause,
    /// How long calls will be refused; `None` when they are not, or nobody knows.
    pub retry_after: Option<Duration>,
    /// What the window holds; in half-open, the results of the probes.
    pub counts: Counts,
    /// The half-open period, while there is one.
    pub half_open: Option<HalfOpenView>,
    /// Calls in flight that are slow already.
    pub overdue: u64,
    /// Totals over its life.
    pub tally: &'a Tally,
    /// How many half-open periods in a row have failed.
    pub open_attempt: u32,
}

/// A half-open period at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfOpenView {
    /// Probes that succeeded.
    pub successes: u64,
    /// Successes (or, judged by rates, results) that are needed.
    pub needed: u64,
    /// Probes without a result yet.
    pub in_flight: u64,
    /// Probes with a result.
    pub results: u64,
}
