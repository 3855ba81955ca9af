//! The words of a breaker: its states, what may be commanded, what is refused.

use std::fmt;
use std::time::Duration;

use crate::Time;

/// What a breaker does by itself, without an [`Override`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls go through.
    Closed,
    /// Calls are refused until the open time is over.
    Open,
    /// A few calls go through, to find out.
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

/// What an override does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OverrideMode {
    /// Refuses everything.
    ForcedOpen,
    /// Admits everything, records nothing.
    Disabled,
    /// Admits everything, measures, never trips.
    Shadow,
}

impl fmt::Display for OverrideMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::Shadow => "shadow",
        })
    }
}

/// Who set an override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Author {
    /// Somebody at the controls.
    Operator,
    /// The supervisor, which parked the dependency.
    Supervisor,
}

impl fmt::Display for Author {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Operator => "operator",
            Self::Supervisor => "supervisor",
        })
    }
}

/// A will that lies over the automatic state; taking it off shows the true state.
///
/// # Source  Rule BRK-10 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// What it does.
    pub mode: OverrideMode,
    /// Why it was set.
    pub reason: String,
    /// Who set it.
    pub by: Author,
    /// When it ends by itself; `None` for never.
    pub until: Option<Time>,
}

/// An order from outside. Each one that is carried out starts a new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Refuse everything ([`OverrideMode::ForcedOpen`]).
    Open {
        /// Why.
        reason: String,
        /// When it ends by itself.
        until: Option<Time>,
    },
    /// Admit everything and record nothing ([`OverrideMode::Disabled`]).
    Disable {
        /// Why.
        reason: String,
        /// When it ends by itself.
        until: Option<Time>,
    },
    /// Admit everything and only measure ([`OverrideMode::Shadow`]).
    Shadow {
        /// Why.
        reason: String,
        /// When it ends by itself.
        until: Option<Time>,
    },
    /// Take any override off, the supervisor's too: the true state shows.
    Clear,
    /// Close it, and take any override off.
    Close {
        /// Why.
        reason: String,
    },
    /// Close it, take any override off, and set all counters to zero.
    Reset {
        /// Why.
        reason: String,
    },
    /// Force it open on the supervisor's behalf; an operator's override lies below.
    Park {
        /// Why.
        reason: String,
    },
    /// Take the supervisor's own override off; without one, nothing happens.
    Unpark,
    /// Open it as if a rule had tripped. Open already, the wait can only become longer.
    Trip {
        /// Why.
        reason: String,
        /// How long it stays open; `None` for its own open time.
        wait: Option<Duration>,
    },
    /// Make an open breaker half-open now, or begin its half-open period anew.
    Probe {
        /// Why.
        reason: String,
    },
}

/// A command that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a breaker that is {from} cannot become {to}")]
pub struct IllegalTransition {
    /// The state it is in.
    pub from: State,
    /// The state that was asked for.
    pub to: State,
}

/// A call that may not go out now.
///
/// # Source  Rule BRK-11 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What refused it.
    pub state: RefusalState,
    /// How long to wait before asking again is of use, where that is known.
    pub retry_after: Option<Duration>,
    /// The generation that refused it.
    pub generation: u64,
}

/// What refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalState {
    /// The breaker is open.
    Open,
    /// The breaker is half-open and has no free probe; the wait is until the oldest one's lease ends.
    HalfOpen,
    /// An override forces it open.
    ForcedOpen,
}

impl fmt::Display for RefusalState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
        })
    }
}

/// What a reported outcome counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recorded {
    /// It was counted as a success or a failure.
    Counted,
    /// It says nothing about the dependency.
    Neutral,
    /// Its generation, or its probe's lease, is over: it changed nothing.
    Late,
    /// It was admitted while the breaker was disabled.
    Unrecorded,
}
