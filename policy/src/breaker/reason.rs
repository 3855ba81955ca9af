//! Reasons for a breaker's transitions, with figures, and the events that report them.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::state::{CommandSource, State};
use crate::text::CountedNoun;
use crate::{FailureNote, OverrideMode, Rate, RoundedDuration, Time, WindowCounts};

/// The rule that opened a breaker, with the figures it was judged by.
///
/// # Source  Rule BRK-11 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TripReason {
    /// Too many failures in the window.
    FailureThreshold {
        /// Failures in the window.
        failures: u64,
        /// Configured threshold.
        threshold: NonZeroU32,
    },
    /// Too many failures in a row.
    Consecutive {
        /// Failures since the last success.
        failures: u64,
        /// Configured threshold.
        threshold: NonZeroU32,
    },
    /// Too large a share of failures.
    FailureRate {
        /// Failures in the window.
        failures: u64,
        /// Calls in the window.
        calls: u64,
        /// Configured rate.
        rate: Rate,
    },
    /// Too large a share of slow calls.
    SlowRate {
        /// Slow calls in the window.
        slow: u64,
        /// Calls in flight that are already slow.
        overdue: u64,
        /// Calls in the window, plus the overdue ones.
        calls: u64,
        /// Configured rate.
        rate: Rate,
    },
    /// A probe failed.
    ProbeFailed,
    /// A probe succeeded, but slowly.
    ProbeSlow {
        /// Duration of the probe.
        elapsed: Duration,
    },
    /// A probe did not report within its lease.
    ProbeLost {
        /// The lease.
        lease: Duration,
    },
    /// A probe's caller went away.
    ProbeCancelled,
    /// Too large a share of failed probes.
    HalfOpenRate {
        /// Failed probes.
        failures: u64,
        /// Reported probes.
        calls: u64,
        /// Configured rate; `None` when no failure is tolerated.
        rate: Option<Rate>,
    },
    /// Too large a share of slow probes.
    HalfOpenSlowRate {
        /// Slow probes.
        slow: u64,
        /// Reported probes.
        calls: u64,
        /// Configured rate.
        rate: Rate,
    },
    /// The remaining probes can no longer bring enough successes.
    HalfOpenCertain {
        /// Failed or slow probes.
        failures: u64,
        /// Successes needed.
        needed: NonZeroU32,
        /// Total number of probes.
        of: NonZeroU32,
    },
    /// Half-open reached no decision in its time.
    HalfOpenTooLong {
        /// Configured limit.
        after: Duration,
    },
    /// A command, with its reason.
    Commanded(String),
    /// Evidence of other replicas.
    Fleet {
        /// Number of replicas with evidence.
        replicas: u32,
        /// Number of replicas that call the dependency.
        of: u32,
    },
}

impl fmt::Display for TripReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FailureThreshold {
                failures,
                threshold,
            } => {
                let calls = CountedNoun(failures, "call");
                write!(out, "{calls} in the window failed, at or above {threshold}")
            }
            Self::Consecutive {
                failures,
                threshold,
            } => {
                let calls = CountedNoun(failures, "call");
                write!(out, "{calls} in a row failed, at or above {threshold}")
            }
            Self::FailureRate {
                failures,
                calls,
                rate,
            } => {
                let calls = CountedNoun(calls, "call");
                write!(out, "{failures} of {calls} failed, at or above {rate}")
            }
            Self::SlowRate {
                slow,
                overdue,
                calls,
                rate,
            } => {
                let (slow, calls) = (slow + overdue, CountedNoun(calls, "call"));
                write!(out, "{slow} of {calls} were slow ")?;
                write!(out, "({overdue} still running), at or above {rate}")
            }
            Self::Commanded(ref reason) => write!(out, "by command: {reason}"),
            Self::Fleet { replicas, of } => {
                let replicas_of = CountedNoun(u64::from(of), "replica");
                write!(out, "{replicas} of {replicas_of} had it open")
            }
            Self::ProbeFailed
            | Self::ProbeSlow { .. }
            | Self::ProbeLost { .. }
            | Self::ProbeCancelled
            | Self::HalfOpenRate { .. }
            | Self::HalfOpenSlowRate { .. }
            | Self::HalfOpenCertain { .. }
            | Self::HalfOpenTooLong { .. } => self.write_half_open(out),
        }
    }
}

impl TripReason {
    /// Writes the reason of a half-open period.
    fn write_half_open(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ProbeSlow { elapsed } => {
                let took = RoundedDuration(elapsed);
                write!(out, "a probe was slow: it took {took}")
            }
            Self::ProbeLost { lease } => {
                let lease = RoundedDuration(lease);
                write!(out, "a probe did not report within its lease of {lease}")
            }
            Self::ProbeCancelled => out.write_str("a probe's caller went away"),
            Self::HalfOpenRate {
                failures,
                calls,
                rate,
            } => {
                let probes = CountedNoun(calls, "probe");
                write!(out, "{failures} of {probes} failed, ")?;
                match rate {
                    Some(rate) => write!(out, "at or above {rate}"),
                    None => out.write_str("and none may"),
                }
            }
            Self::HalfOpenSlowRate { slow, calls, rate } => {
                let probes = CountedNoun(calls, "probe");
                write!(out, "{slow} of {probes} were slow, at or above {rate}")
            }
            Self::HalfOpenCertain {
                failures,
                needed,
                of,
            } => {
                let probes = CountedNoun(failures, "probe");
                write!(
                    out,
                    "{probes} failed, so {needed} of {of} cannot succeed any more"
                )
            }
            Self::HalfOpenTooLong { after } => {
                let after = RoundedDuration(after);
                write!(out, "half-open came to no decision within {after}")
            }
            _ => out.write_str("a probe failed"),
        }
    }
}

/// Reason for a breaker's state, or for its generation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum BreakerCause {
    /// It was created.
    Started,
    /// A rule opened it.
    Tripped {
        /// The rule.
        reason: TripReason,
        /// The symptom of the last failure, if it is known.
        last_failure: Option<FailureNote>,
    },
    /// The open time is over.
    OpenTimeOver,
    /// Probes succeeded.
    Recovered {
        /// Number of successes.
        successes: u64,
    },
    /// The probe of another replica succeeded.
    FleetRecovered {
        /// The replica.
        by: String,
    },
    /// The fleet's lease was granted.
    LeaseGranted,
    /// Half-open reached no decision in its time, and its settings close it then.
    HalfOpenTimeOver,
    /// A command, with its reason.
    Commanded(String),
    /// An override expired.
    OverrideExpired,
    /// Its actor was restarted.
    Restarted,
    /// Its settings changed.
    Reconfigured,
}

impl fmt::Display for BreakerCause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => out.write_str("started"),
            Self::Tripped {
                reason,
                last_failure,
            } => {
                reason.fmt(out)?;
                last_failure.map_or(Ok(()), |cause| write!(out, "; last: {cause}"))
            }
            Self::OpenTimeOver => out.write_str("the open time is over"),
            Self::Recovered { successes } => {
                write!(out, "{} succeeded", CountedNoun(*successes, "probe"))
            }
            Self::FleetRecovered { by } => write!(out, "the probe of {by} succeeded"),
            Self::LeaseGranted => out.write_str("the open time is over, and the lease is granted"),
            Self::HalfOpenTimeOver => out.write_str("the half-open time is over"),
            Self::Commanded(reason) => write!(out, "by command: {reason}"),
            Self::OverrideExpired => out.write_str("the override came to its end"),
            Self::Restarted => out.write_str("its actor was restarted"),
            Self::Reconfigured => out.write_str("its settings changed"),
        }
    }
}

/// An event of a breaker.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum BreakerEvent {
    /// The automatic state changed.
    Transition {
        /// State before the transition.
        from: State,
        /// State after the transition.
        to: State,
        /// Time of the event.
        at: Time,
        /// The generation that begins.
        generation: u64,
        /// Reason.
        cause: BreakerCause,
        /// Time for which it stays open; `None` in the other states.
        retry_after: Option<Duration>,
        /// Counts of the generation that ends.
        counts: WindowCounts,
    },
    /// A probe succeeded, and more are needed.
    HalfOpenProgress {
        /// Time of the event.
        at: Time,
        /// Generation of the half-open period.
        generation: u64,
        /// Successes so far.
        successes: u64,
        /// Successes needed.
        needed: u64,
    },
    /// An override was set.
    Overridden {
        /// Time of the event.
        at: Time,
        /// The generation that begins.
        generation: u64,
        /// Effect of the override.
        mode: OverrideMode,
        /// Reason.
        reason: String,
        /// Source of the override.
        by: CommandSource,
        /// Time at which it expires.
        until: Option<Time>,
    },
    /// An override was removed.
    OverrideRemoved {
        /// Time of the event.
        at: Time,
        /// The generation that begins.
        generation: u64,
        /// Effect of the removed override.
        mode: OverrideMode,
        /// Source of the removed override.
        by: CommandSource,
        /// [`BreakerCause::Commanded`] or [`BreakerCause::OverrideExpired`].
        cause: BreakerCause,
    },
    /// It would have opened, but for shadow mode; reported once until its window is emptied.
    WouldTrip {
        /// Time of the event.
        at: Time,
        /// The broken rule.
        reason: TripReason,
    },
    /// The open time is over and a caller is there: the fleet's lease is asked for. It probes without
    /// the lease once the timeout is over.
    ProbeDue {
        /// Time of the event.
        at: Time,
        /// The generation.
        generation: u64,
    },
    /// A generation began without a transition: [`BreakerCause::Restarted`] or [`BreakerCause::Reconfigured`].
    Renewed {
        /// Time of the event.
        at: Time,
        /// The generation that begins.
        generation: u64,
        /// Reason.
        cause: BreakerCause,
    },
}

impl fmt::Display for BreakerEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transition {
                from,
                to,
                cause,
                retry_after,
                ..
            } => {
                write!(out, "{from} -> {to}: {cause}")?;
                match retry_after {
                    Some(wait) => write!(out, "; next try in {}", RoundedDuration(*wait)),
                    None => Ok(()),
                }
            }
            Self::HalfOpenProgress {
                successes, needed, ..
            } => write!(out, "probe succeeded, {successes}/{needed}"),
            Self::Overridden {
                mode, reason, by, ..
            } => write!(out, "{mode} by {by}: {reason}"),
            Self::OverrideRemoved { mode, cause, .. } => {
                write!(out, "{mode} taken off: {cause}")
            }
            Self::WouldTrip { reason, .. } => write!(out, "would have opened: {reason}"),
            Self::ProbeDue { .. } => out.write_str("a probe is due: the lease is asked for"),
            Self::Renewed { cause, .. } => write!(out, "counts anew: {cause}"),
        }
    }
}
