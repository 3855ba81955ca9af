//! Events, actions and ids of the supervision machine. Nothing here decides.

use std::fmt;

use super::cause::{StopCause, SupervisorEnd};
use super::spec::{ChildSpec, SpecError};
use crate::Time;

/// Id of one child of one supervisor, across all of its incarnations.
///
/// Unique under its supervisor and never reused, not even for a child of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub(super) u64);

impl fmt::Display for ChildId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// Id of a timer that the machine requested; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub(super) u64);

impl fmt::Display for TimerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// Id of a command, chosen by the caller; its one [`SupervisorAction::Reply`] carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Input of the machine.
///
/// Events about an incarnation other than the current one are ignored, so late ones do no harm.
#[derive(Debug, Clone, PartialEq)]
pub enum SupervisorEvent {
    /// Start the children, in order. Sent once; commands that come before it wait.
    Start,
    /// An incarnation is up.
    Started {
        /// The child.
        child: ChildId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// An incarnation did not come up, and nothing is left of it.
    StartFailed {
        /// The child.
        child: ChildId,
        /// Its incarnation.
        incarnation: u64,
        /// Reason.
        cause: StopCause,
    },
    /// An incarnation is completely gone, by itself or after a stop or kill.
    ///
    /// One that was asked to stop while it was starting reports this or [`SupervisorEvent::StartFailed`].
    Ended {
        /// The child.
        child: ChildId,
        /// Its incarnation.
        incarnation: u64,
        /// Reason.
        cause: StopCause,
    },
    /// A timer is due.
    Timer(TimerId),
    /// Command: add a child at the end of the order and start it.
    Add {
        /// The child.
        spec: ChildSpec,
        /// Replied to when it is up, or did not come up and is forgotten.
        ticket: CommandId,
    },
    /// Command: stop a child and keep it down. Repeating it is not an error.
    Terminate {
        /// Its name.
        child: String,
        /// Replied to when it is gone; at once when it waits for a restart, which is cancelled.
        ticket: CommandId,
    },
    /// Command: start a child that is stopped or parked. It costs no unit of any restart budget.
    ///
    /// Its own budget and backoff start over. Reviving a parked child empties the supervisor's
    /// budget too; otherwise its next failure would park it again at once.
    Restart {
        /// Its name.
        child: String,
        /// Replied to when it is up, or did not come up and is down as before.
        ticket: CommandId,
    },
    /// Command: start a child anew, in any state. It costs no unit of any restart budget.
    ///
    /// A running child is stopped first; one that is starting too. Budgets and backoff start over
    /// as after [`SupervisorEvent::Restart`]. While a group round waits for its backoff, it is
    /// refused as [`CommandError::Restarting`].
    Renew {
        /// Its name.
        child: String,
        /// Replied to when it is up, or did not come up.
        ticket: CommandId,
    },
    /// Command: forget a child that is stopped or parked.
    Delete {
        /// Its name.
        child: String,
        /// Replied to at once.
        ticket: CommandId,
    },
    /// Stop the children in reverse order, then end.
    Stop,
}

/// Output of the machine, to be carried out in this order.
///
/// Exhaustive on purpose: the runtime must carry out each action.
#[derive(Debug, Clone, PartialEq)]
pub enum SupervisorAction {
    /// Start an incarnation; answer with [`SupervisorEvent::Started`] or [`SupervisorEvent::StartFailed`].
    Start {
        /// The child.
        child: ChildId,
        /// The incarnation to start; each attempt has the next number.
        incarnation: u64,
    },
    /// Ask an incarnation to stop; answer with [`SupervisorEvent::Ended`] when it is completely gone.
    ///
    /// The machine sets the deadline's timer itself. The incarnation may still be starting.
    Stop {
        /// The child.
        child: ChildId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// Drop an incarnation now; answer with [`SupervisorEvent::Ended`].
    Kill {
        /// The child.
        child: ChildId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// Send [`SupervisorEvent::Timer`] at that time. Timers are never cancelled; an obsolete one is ignored.
    SetTimer {
        /// The timer.
        timer: TimerId,
        /// Time at which it is due.
        at: Time,
    },
    /// A child is given up: it stays down until an [`SupervisorEvent::Restart`]; its siblings keep running.
    Park {
        /// The child.
        child: ChildId,
        /// Reason for its last end.
        cause: StopCause,
    },
    /// A child has used up its restart budget and is tried again after its backoff, for ever
    /// ([`GiveUp::Retry`](crate::GiveUp::Retry)). Told at each of its failures until it runs.
    Exhausted {
        /// The child.
        child: ChildId,
        /// Reason for its last end.
        cause: StopCause,
        /// True at the first of these failures.
        first: bool,
    },
    /// A child is no longer known: a temporary or dynamic one that ended, or a deleted one.
    Forget {
        /// The child.
        child: ChildId,
    },
    /// The one reply to a command; with the child's id for [`SupervisorEvent::Add`] and [`SupervisorEvent::Restart`].
    Reply {
        /// The command's id.
        ticket: CommandId,
        /// Result of the command.
        result: Result<Option<ChildId>, CommandError>,
    },
    /// The initial start is complete.
    Up,
    /// The supervisor has ended and no child is left. Only refusals of late commands follow.
    Down(SupervisorEnd),
}

/// Reason why a command was not executed. The names are OTP's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no child of this name.
    #[error("no such child")]
    NotFound,
    /// A child of this name is known and down; restart or delete it.
    #[error("a child of this name is already present")]
    AlreadyPresent,
    /// A child of this name is known and not down.
    #[error("a child of this name is already started")]
    AlreadyStarted,
    /// The child is up; terminate it first.
    #[error("the child is running")]
    Running,
    /// The child is about to be restarted; terminate it first.
    #[error("the child is restarting")]
    Restarting,
    /// The supervisor is ending or has ended.
    #[error("the supervisor is stopping")]
    StoppingSupervisor,
    /// The child did not come up; its start is not retried.
    #[error("the child did not start: {0}")]
    StartFailed(StopCause),
    /// The child's specification cannot work.
    #[error(transparent)]
    BadSpec(#[from] SpecError),
}
