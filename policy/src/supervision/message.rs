//! What the machine hears and what it says; ids. It decides nothing.

use std::fmt;

use super::cause::{StopCause, SupervisorEnd};
use super::spec::{ChildSpec, SpecError};
use crate::Time;

/// One child of one supervisor, through all of its incarnations.
///
/// Unique under its supervisor and never used again, not even for a child of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub(super) u64);

impl fmt::Display for ChildId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// A timer that the machine asked for; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub(super) u64);

impl fmt::Display for TimerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// A command's number, chosen by the caller; its one [`Action::Reply`] carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the machine is told.
///
/// Events about an incarnation other than the present one are ignored, so late ones do no harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Start the children, in order. Once; commands that come before it wait.
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
        /// Why.
        cause: StopCause,
    },
    /// An incarnation is completely gone, by itself or after a stop or kill.
    ///
    /// One that was asked to stop while it was starting reports this or [`Event::StartFailed`].
    Ended {
        /// The child.
        child: ChildId,
        /// Its incarnation.
        incarnation: u64,
        /// Why.
        cause: StopCause,
    },
    /// A timer is due.
    Timer(TimerId),
    /// Command: add a child at the end of the order and start it.
    Add {
        /// The child.
        spec: ChildSpec,
        /// Answered when it is up, or did not come up and is forgotten.
        ticket: Ticket,
    },
    /// Command: stop a child and keep it down. Repeating it is no error.
    Terminate {
        /// Its name.
        child: String,
        /// Answered when it is gone; at once when it waits for a restart, which is called off.
        ticket: Ticket,
    },
    /// Command: start a child that is stopped or parked. It costs no unit of any restart budget.
    ///
    /// Its own budget and backoff begin anew; reviving a parked child empties the supervisor's
    /// budget too, or its next failure would park it again at once.
    Restart {
        /// Its name.
        child: String,
        /// Answered when it is up, or did not come up and is down as before.
        ticket: Ticket,
    },
    /// Command: forget a child that is stopped or parked.
    Delete {
        /// Its name.
        child: String,
        /// Answered at once.
        ticket: Ticket,
    },
    /// Stop the children in reverse order, then end.
    Stop,
}

/// What the machine wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start an incarnation; answer with [`Event::Started`] or [`Event::StartFailed`].
    Start {
        /// The child.
        child: ChildId,
        /// The incarnation to start; each attempt has the next number.
        incarnation: u64,
    },
    /// Ask an incarnation to stop; answer with [`Event::Ended`] when it is completely gone.
    ///
    /// The machine sets the deadline's timer itself. The incarnation may still be starting.
    Stop {
        /// The child.
        child: ChildId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// Drop an incarnation now; answer with [`Event::Ended`].
    Kill {
        /// The child.
        child: ChildId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// Send [`Event::Timer`] then. Timers are never taken back; one that lost its meaning is
    /// ignored.
    SetTimer {
        /// The timer.
        timer: TimerId,
        /// When it is due.
        at: Time,
    },
    /// A child is given up: it stays down until an [`Event::Restart`], its siblings live on.
    Park {
        /// The child.
        child: ChildId,
        /// Why it ended last.
        cause: StopCause,
    },
    /// A child is no longer known: a temporary or dynamic one that ended, or a deleted one.
    Forget {
        /// The child.
        child: ChildId,
    },
    /// The one answer to a command; with the child's id for [`Event::Add`] and [`Event::Restart`].
    Reply {
        /// The command's ticket.
        ticket: Ticket,
        /// Its answer.
        result: Result<Option<ChildId>, CommandError>,
    },
    /// The initial start is complete.
    Up,
    /// The supervisor has ended and no child is left. Nothing follows but refusals of late commands.
    Down(SupervisorEnd),
}

/// Why a command was not carried out. The names are OTP's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// The child did not come up; it is not tried again.
    #[error("the child did not start: {0}")]
    StartFailed(StopCause),
    /// The child's specification cannot work.
    #[error(transparent)]
    BadSpec(#[from] SpecError),
}
