//! States, overrides, commands and refusals of a breaker.

use std::fmt;
use std::time::Duration;

use crate::{ConfiguredOverride, OverrideMode, Time};

/// Automatic state of a breaker, without an [`Override`].
///
/// Exhaustive: a circuit breaker has these three states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls go through.
    Closed,
    /// Calls are refused until the open time is over.
    Open,
    /// A few probes go through.
    HalfOpen,
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        })
    }
}

/// Source of an override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommandSource {
    /// An operator.
    Operator,
    /// The supervisor, which parked the dependency.
    Supervisor,
    /// An operator, for all replicas of the fleet.
    Fleet,
    /// The configuration of the dependency.
    Configuration,
}

impl fmt::Display for CommandSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Operator => "operator",
            Self::Supervisor => "supervisor",
            Self::Fleet => "fleet",
            Self::Configuration => "configuration",
        })
    }
}

/// A manual override. Removing it reveals the automatic state underneath.
///
/// # Source  Rule BRK-10 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Its effect.
    pub mode: OverrideMode,
    /// Reason for it.
    pub reason: String,
    /// Source of it.
    pub by: CommandSource,
    /// Time at which it expires; `None` for never.
    pub until: Option<Time>,
}

/// A command from outside. Each executed command starts a new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerCommand {
    /// Refuse everything ([`OverrideMode::ForcedOpen`]).
    Open {
        /// Reason.
        reason: String,
        /// Time at which it expires.
        until: Option<Time>,
    },
    /// Admit everything and record nothing ([`OverrideMode::Disabled`]).
    Disable {
        /// Reason.
        reason: String,
        /// Time at which it expires.
        until: Option<Time>,
    },
    /// Admit everything and only measure ([`OverrideMode::Shadow`]).
    Shadow {
        /// Reason.
        reason: String,
        /// Time at which it expires.
        until: Option<Time>,
    },
    /// Remove any override but that of the configuration, the supervisor's too.
    Clear,
    /// Close it, and remove any override but that of the configuration.
    Close {
        /// Reason.
        reason: String,
    },
    /// Close it, remove any override but that of the configuration, and set all counters to zero.
    Reset {
        /// Reason.
        reason: String,
    },
    /// Force it open on the supervisor's behalf, above an operator's override.
    Park {
        /// Reason.
        reason: String,
    },
    /// Remove the supervisor's own override; without one, nothing happens.
    Unpark,
    /// Set the override of the configuration, below those of the operator and the supervisor; `None`
    /// removes it. An operator's commands leave it as it is.
    Configure {
        /// The override.
        set: Option<ConfiguredOverride>,
    },
    /// Open it as if a rule had tripped. If it is already open, the wait can only become longer.
    Trip {
        /// Reason.
        reason: String,
        /// Time for which it stays open; `None` for its own open time.
        wait: Option<Duration>,
    },
    /// Make an open breaker half-open now, or restart its half-open period.
    Probe {
        /// Reason.
        reason: String,
    },
    /// Set or remove the fleet's override, below an operator's (rule FLT-12).
    OfFleet(Option<Override>),
    /// Open a closed breaker because of the evidence of other replicas (rules FLT-5 and FLT-6).
    Adopt {
        /// Number of replicas with evidence.
        replicas: u32,
        /// Number of replicas that call the dependency.
        of: u32,
        /// Time for which it stays open.
        wait: Duration,
    },
    /// Keep an open breaker open for at least this time from now, as another replica's probe failed
    /// (rule FLT-8). It starts no generation.
    Hold {
        /// Time for which it stays open.
        wait: Duration,
        /// Number of half-open periods in a row that have failed in the fleet.
        failed_periods: u32,
    },
    /// The fleet's lease is granted: an open breaker becomes half-open, if its time is over.
    Grant,
    /// Close a breaker that is open by its rules, as another replica's probe succeeded (rule FLT-8).
    Recovered {
        /// The replica.
        by: String,
    },
}

impl BreakerCommand {
    /// Returns its name in events and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Disable { .. } => "disable",
            Self::Shadow { .. } => "shadow",
            Self::Clear => "clear",
            Self::Close { .. } => "close",
            Self::Reset { .. } => "reset",
            Self::Park { .. } => "park",
            Self::Unpark => "unpark",
            Self::Configure { .. } => "configure",
            Self::Trip { .. } => "trip",
            Self::Probe { .. } => "probe",
            Self::OfFleet(_) => "override",
            Self::Adopt { .. } => "adopt",
            Self::Hold { .. } => "hold",
            Self::Grant => "grant",
            Self::Recovered { .. } => "recovered",
        }
    }

    /// Returns its reason; empty for a command without one.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Open { reason, .. }
            | Self::Disable { reason, .. }
            | Self::Shadow { reason, .. }
            | Self::Close { reason }
            | Self::Reset { reason }
            | Self::Park { reason }
            | Self::Trip { reason, .. }
            | Self::Probe { reason } => reason,
            Self::Configure { set } => set.as_ref().map_or("", |set| &set.reason),
            Self::OfFleet(Some(set)) => &set.reason,
            Self::Clear
            | Self::Unpark
            | Self::OfFleet(None)
            | Self::Adopt { .. }
            | Self::Hold { .. }
            | Self::Grant
            | Self::Recovered { .. } => "",
        }
    }

    /// Returns the time at which its override expires.
    #[must_use]
    pub const fn until(&self) -> Option<Time> {
        match self {
            Self::Open { until, .. } | Self::Disable { until, .. } | Self::Shadow { until, .. } => {
                *until
            }
            Self::OfFleet(Some(set)) => set.until,
            _ => None,
        }
    }
}

/// A command that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a breaker that is {from} cannot become {to}")]
pub struct IllegalTransition {
    /// The current state.
    pub from: State,
    /// The requested state.
    pub to: State,
}

/// Refusal of a call.
///
/// # Source  Rule BRK-11 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Source of the refusal.
    pub state: RefusalState,
    /// Wait until asking again is useful, if known.
    pub retry_after: Option<Duration>,
    /// The generation that refused it.
    pub generation: u64,
}

/// Source of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalState {
    /// The breaker is open.
    Open,
    /// The breaker is half-open without a free probe; the wait ends with the oldest probe's lease.
    HalfOpen,
    /// An override forces it open.
    ForcedOpen,
    /// Its open time is over, and it has asked for the fleet's lease to probe (rule FLT-7). The call
    /// may wait for the answer and ask again.
    AwaitingLease,
}

impl fmt::Display for RefusalState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Open | Self::AwaitingLease => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
        })
    }
}

/// Effect of a reported outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordResult {
    /// It was counted as a success or a failure.
    Counted,
    /// It says nothing about the dependency.
    Neutral,
    /// Its generation, or its probe's lease, is over: it changed nothing.
    Late,
    /// It was admitted while the breaker was disabled.
    Unrecorded,
}
