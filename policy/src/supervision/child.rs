//! One child's state, and its public view.

use super::budget::RestartWindow;
use super::cause::StopCause;
use super::message::{ChildId, CommandId, TimerId};
use super::spec::ChildSpec;
use crate::{RestartType, Time};

/// A child with its history.
#[derive(Debug)]
pub(super) struct ChildRecord {
    pub(super) id: ChildId,
    pub(super) spec: ChildSpec,
    pub(super) life: ChildPhase,
    pub(super) incarnation: u64,
    pub(super) restarts: u64,
    pub(super) last_end: Option<StopCause>,
    /// Failures in a row without a healthy run.
    pub(super) streak: u32,
    /// The child's own restart budget.
    pub(super) window: RestartWindow,
    /// Its restart budget, if it is tried for ever.
    pub(super) exhaustion: Exhaustion,
}

/// Exhaustion of the restart budget of a child that is tried for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhaustion {
    /// There is some left, or it runs.
    None,
    /// It has just been used up.
    New,
    /// It was reported as used up, and has not run since.
    Told,
}

/// Phase of a child between two events.
#[derive(Debug)]
pub(super) enum ChildPhase {
    /// Down. Only a command starts it, or a round if it is [`StoppedReason::Finished`].
    Stopped(StoppedReason),
    /// Down; the current round (or the initial start) starts it in its turn.
    Due,
    /// Ended by itself; not yet judged because a round is in progress.
    Ended { cause: StopCause, at_start: bool },
    /// Down until its backoff is over.
    Waiting { until: Time, timer: TimerId },
    /// Down until an operator revives it.
    Parked,
    /// Asked to start; by a command if there is a value.
    Starting(Option<CommandedStart>),
    /// Up.
    Running { since: Time },
    /// Asked to stop, or killed. The timer is the deadline's.
    Stopping {
        why: StopRequest,
        deadline: Option<TimerId>,
    },
}

/// Reason why a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoppedReason {
    /// It finished its work: a group round starts it again (scenario S28).
    Finished,
    /// An operator stopped it: it stays stopped (scenario S27).
    Operator,
}

/// Reason why a child is being stopped.
#[derive(Debug)]
pub(super) enum StopRequest {
    /// A sibling failed.
    Round,
    /// Operators asked for it, and wait for the reply.
    Operator(Vec<CommandId>),
    /// An operator asked for a new start, and waits for the reply.
    Renewal(CommandId),
    /// The supervisor ends.
    End,
}

/// A start by a command that waits for the reply.
#[derive(Debug)]
pub(super) struct CommandedStart {
    pub(super) ticket: CommandId,
    pub(super) otherwise: OnStartFailure,
}

/// Handling of a child when its start by command fails.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnStartFailure {
    Forget,
    Rest(StoppedReason),
    Park,
    /// It is a failure like any other, with the consequences of one.
    Judge,
}

impl ChildRecord {
    pub(super) fn new(id: ChildId, spec: ChildSpec) -> Self {
        Self {
            id,
            spec,
            life: ChildPhase::Due,
            incarnation: 0,
            restarts: 0,
            last_end: None,
            streak: 0,
            window: RestartWindow::default(),
            exhaustion: Exhaustion::None,
        }
    }

    /// Returns true if an incarnation exists: starting, running or stopping.
    pub(super) const fn is_live(&self) -> bool {
        matches!(
            self.life,
            ChildPhase::Starting(_) | ChildPhase::Running { .. } | ChildPhase::Stopping { .. }
        )
    }

    /// Returns true if only a command or a round will start it.
    pub(super) const fn rests(&self) -> bool {
        matches!(self.life, ChildPhase::Stopped(_) | ChildPhase::Parked)
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.spec.restart == RestartType::Temporary
    }

    pub(super) fn view(&self) -> ChildView<'_> {
        ChildView {
            id: self.id,
            name: &self.spec.name,
            state: match self.life {
                ChildPhase::Stopped(_) => ChildState::Stopped,
                ChildPhase::Due | ChildPhase::Ended { .. } => ChildState::Pending,
                ChildPhase::Waiting { until, .. } => ChildState::Waiting { until },
                ChildPhase::Parked => ChildState::Parked,
                ChildPhase::Starting(_) => ChildState::Starting,
                ChildPhase::Running { .. } => ChildState::Running,
                ChildPhase::Stopping { .. } => ChildState::Stopping,
            },
            incarnation: self.incarnation,
            restarts: self.restarts,
            last_end: self.last_end.as_ref(),
            has_finished: matches!(
                self.life,
                ChildPhase::Stopped(StoppedReason::Finished) | ChildPhase::Parked
            ),
        }
    }
}

/// State of a child.
///
/// Exhaustive: these are the states of the chart, and each needs a word for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// Finished, or stopped by an operator.
    Stopped,
    /// Down, and due to be started in its turn.
    Pending,
    /// Asked to start.
    Starting,
    /// Up.
    Running,
    /// Asked to stop, not yet gone.
    Stopping,
    /// Down until the wait before its restart is over.
    Waiting {
        /// End of the wait.
        until: Time,
    },
    /// Given up; an operator can revive it.
    Parked,
}

/// Public view of a child.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ChildView<'a> {
    /// Its id.
    pub id: ChildId,
    /// Its name.
    pub name: &'a str,
    /// Its state.
    pub state: ChildState,
    /// The current or last incarnation; 0 before the first.
    pub incarnation: u64,
    /// Number of restarts by the supervisor, alone or in a round; commands do not count.
    pub restarts: u64,
    /// Reason why the last incarnation ended, or did not start.
    pub last_end: Option<&'a StopCause>,
    /// True if it will not run again by itself, and no operator has stopped it: it has finished, or
    /// was given up.
    pub has_finished: bool,
}
