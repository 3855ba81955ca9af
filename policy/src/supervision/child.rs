//! One child as the machine remembers it, and as others may see it.

use super::budget::Window;
use super::cause::StopCause;
use super::message::{ChildId, Ticket, TimerId};
use super::spec::ChildSpec;
use crate::{RestartType, Time};

/// A child with its history.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) id: ChildId,
    pub(super) spec: ChildSpec,
    pub(super) life: Life,
    pub(super) incarnation: u64,
    pub(super) restarts: u64,
    pub(super) last_end: Option<StopCause>,
    /// Failures in a row without a healthy run.
    pub(super) streak: u32,
    /// The child's own restart budget.
    pub(super) window: Window,
}

/// Where a child is between two events.
#[derive(Debug)]
pub(super) enum Life {
    /// Down, and nothing will start it but a command, or a round where it is [`Rest::Finished`].
    Stopped(Rest),
    /// Down, and the present round (or the initial start) will start it in its turn.
    Due,
    /// Down by itself; not yet judged because a round is under way.
    Ended { cause: StopCause, at_start: bool },
    /// Down until its backoff is over.
    Waiting { until: Time, timer: TimerId },
    /// Down for good, until an operator revives it.
    Parked,
    /// Asked to start; by a command when there is a ticket.
    Starting(Option<Asked>),
    /// Up.
    Running { since: Time },
    /// Asked to stop, or killed. The timer is the deadline's.
    Stopping { why: Why, deadline: Option<TimerId> },
}

/// Why a child rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// It had done its work: a group round starts it again (S28).
    Finished,
    /// An operator stopped it: it stays stopped (S27).
    Operator,
}

/// Why a child is being stopped.
#[derive(Debug)]
pub(super) enum Why {
    /// A sibling failed.
    Round,
    /// Operators asked for it, and wait for the answer.
    Operator(Vec<Ticket>),
    /// The supervisor ends.
    End,
}

/// A start that somebody waits for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ticket: Ticket,
    pub(super) otherwise: Otherwise,
}

/// What becomes of a child whose start by command fails.
#[derive(Debug, Clone, Copy)]
pub(super) enum Otherwise {
    Forget,
    Rest(Rest),
    Park,
}

impl Child {
    pub(super) fn new(id: ChildId, spec: ChildSpec) -> Self {
        Self {
            id,
            spec,
            life: Life::Due,
            incarnation: 0,
            restarts: 0,
            last_end: None,
            streak: 0,
            window: Window::default(),
        }
    }

    /// Whether an incarnation exists, in whatever condition.
    pub(super) const fn is_live(&self) -> bool {
        matches!(
            self.life,
            Life::Starting(_) | Life::Running { .. } | Life::Stopping { .. }
        )
    }

    /// Whether nothing but a command or a round will start it.
    pub(super) const fn rests(&self) -> bool {
        matches!(self.life, Life::Stopped(_) | Life::Parked)
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.spec.restart == RestartType::Temporary
    }

    pub(super) fn view(&self) -> ChildView<'_> {
        ChildView {
            id: self.id,
            name: &self.spec.name,
            state: match self.life {
                Life::Stopped(_) => ChildState::Stopped,
                Life::Due | Life::Ended { .. } => ChildState::Pending,
                Life::Waiting { until, .. } => ChildState::Waiting { until },
                Life::Parked => ChildState::Parked,
                Life::Starting(_) => ChildState::Starting,
                Life::Running { .. } => ChildState::Running,
                Life::Stopping { .. } => ChildState::Stopping,
            },
            incarnation: self.incarnation,
            restarts: self.restarts,
            last_end: self.last_end.as_ref(),
        }
    }
}

/// What a child is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// Finished, or stopped by an operator.
    Stopped,
    /// Down, and about to be started in its turn.
    Pending,
    /// Asked to start.
    Starting,
    /// Up.
    Running,
    /// Asked to stop, not yet gone.
    Stopping,
    /// Down until the wait before its restart is over.
    Waiting {
        /// When that is.
        until: Time,
    },
    /// Given up; an operator can revive it.
    Parked,
}

/// A child as others may see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChildView<'a> {
    /// Its id.
    pub id: ChildId,
    /// Its name.
    pub name: &'a str,
    /// What it is doing.
    pub state: ChildState,
    /// The present or last incarnation; 0 before the first.
    pub incarnation: u64,
    /// Times that the supervisor started it again, alone or in a round; commands do not count.
    pub restarts: u64,
    /// Why the last incarnation ended, or did not start.
    pub last_end: Option<&'a StopCause>,
}
