//! One supervisor as a pure state machine: OTP's rules of starting, watching, restarting and
//! stopping.
//!
//! It decides which children are started, stopped and killed, in which order, after which wait, and
//! when the failures were too many. It never starts anything: the runtime carries out its
//! [`SupervisorAction`]s and reports their results. It never waits, reads a clock or draws a random number. A
//! nested supervisor is a child of kind [`ChildKind::Supervisor`] with a machine of its own. The
//! [`SupervisorAction::Down`] of that machine becomes the [`SupervisorEvent::Ended`] of that child (cause:
//! [`SupervisorEnd::cause`]).
//!
//! # OTP's rules (SUP-1 to SUP-4), and the cases that OTP leaves open
//!
//! - *Start*: in order, each child when the one before is up. The first that fails rolls the others
//!   back in reverse order, without a retry. A child that ends by itself meanwhile is judged
//!   afterwards.
//! - *Restart*: first the budgets, then the delay. A failed restart is a failure like any other: it
//!   costs a unit and is tried again, for every restart type of the child.
//! - *Group round*: costs one unit. The affected children stop in reverse order, each with its own
//!   deadline. When all are gone and the delay of the failed child is over, they start in order.
//!   Children that end while the group is being stopped are merged into the round. Temporary ones
//!   are forgotten, finished ones are started again, children stopped by an operator and parked
//!   ones stay down. Children that end by themselves while the group is being started are judged
//!   when it is up; one that fails to start begins a new round at once.
//! - *Delay in a group*: siblings stop at once; the wait runs from the failure. A failure during
//!   the wait widens the round; the later of the waits applies.
//! - *Give up*: [`GiveUp::Escalate`] stops the others in reverse order and ends the supervisor.
//!   [`GiveUp::Park`] keeps that child down; siblings that its round had stopped are started. A
//!   refused restart is not counted. [`GiveUp::Retry`] goes on with its delays, uncounted.
//! - *Background*: a child of this kind is started in its turn, and the next one at once. If its
//!   first start fails, nothing is rolled back: it is judged when the others are up.
//! - *Commands* never wait for a backoff. Terminate acts at once, also on a child that is starting,
//!   and so does Renew, which starts it again; the others wait while a round stops or starts children. Terminating a child that a group waits
//!   for lets the others start.
//!
//! Deviations: see [`OtpRules`]; the window's resolution is a nanosecond, not a second.
//!
//! # Source  Rules SUP-1, SUP-2, SUP-3 and SUP-4 in docs/rules.md; OTP `supervisor`.

mod cause;
mod message;
mod spec;

mod budget;
mod child;

mod command;
mod failure;
mod round;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

pub use cause::{PanicReport, StopCause, SupervisorEnd};
pub use child::{ChildState, ChildView};
pub use message::{ChildId, CommandError, CommandId, SupervisorAction, SupervisorEvent, TimerId};
pub use spec::{
    AutoShutdown, ChildKind, ChildSpec, OtpRules, RestartBackoff, Shutdown, SpecError, Strategy,
    SupervisorSpec,
};

use crate::{RandomSource, Time};
use budget::RestartWindow;
use child::{ChildPhase, ChildRecord, Exhaustion, StopRequest, StoppedReason};
use command::PendingCommand;
use round::{RoundStep, SupervisionRound};

#[cfg(doc)]
use crate::GiveUp;

/// The state of one supervisor.
///
/// # Source  Rules SUP-1 to SUP-4.
#[derive(Debug)]
pub struct Supervision {
    spec: SupervisorSpec,
    /// In start order, so ids ascend.
    #[allow(
        clippy::vec_box,
        reason = "one that is forgotten moves all later ones, which are large"
    )]
    children: Vec<Box<ChildRecord>>,
    names: HashMap<String, ChildId>,
    /// Timers that are not due yet, and the child of each.
    timers: HashMap<TimerId, ChildId>,
    next_child: u64,
    next_timer: u64,
    /// Restarts of all children.
    window: RestartWindow,
    phase: SupervisorPhase,
    /// The initial start, or the group round in progress. Rounds exist only in [`SupervisorPhase::Up`].
    round: Option<SupervisionRound>,
    /// Children in [`ChildPhase::Ended`], in the order in which they ended.
    failed: VecDeque<ChildId>,
    /// Commands that wait, in order.
    deferred: VecDeque<PendingCommand>,
    /// Number of children that may still be live while the supervisor ends: all later ones are gone.
    left: usize,
    /// True once all children were asked to stop, if they stop at the same time.
    all_asked: bool,
}

/// Phase of the supervisor itself.
#[derive(Debug)]
enum SupervisorPhase {
    New,
    Up,
    Ending(SupervisorEnd),
    Down,
}

/// Inputs and collected actions of one event.
struct EventScope<'a> {
    now: Time,
    random: &'a mut dyn RandomSource,
    out: Vec<SupervisorAction>,
}

impl Supervision {
    /// Creates a supervisor that has not started anything yet.
    ///
    /// # Errors  [`SpecError`]: the supervisor or a child cannot work as specified.
    pub fn new(spec: SupervisorSpec, children: Vec<ChildSpec>) -> Result<Self, SpecError> {
        spec.check()?;
        let mut machine = Self {
            spec,
            children: Vec::with_capacity(children.len()),
            names: HashMap::with_capacity(children.len()),
            timers: HashMap::new(),
            next_child: 1,
            next_timer: 1,
            window: RestartWindow::default(),
            phase: SupervisorPhase::New,
            round: None,
            failed: VecDeque::new(),
            deferred: VecDeque::new(),
            left: 0,
            all_asked: false,
        };
        for child in children {
            machine.spec.check_child(&child)?;
            if machine.names.contains_key(&child.name) {
                return Err(SpecError::DuplicateName { name: child.name });
            }
            machine.push(child);
        }
        Ok(machine)
    }

    /// Handles an event, and returns the actions to carry out.
    ///
    /// # Units   `now`: ns since runtime start, never decreasing.
    /// # Panics  Never.
    pub fn on(
        &mut self,
        now: Time,
        event: SupervisorEvent,
        random: &mut dyn RandomSource,
    ) -> Vec<SupervisorAction> {
        let mut turn = EventScope {
            now,
            random,
            out: Vec::new(),
        };
        match event {
            SupervisorEvent::Start => self.begin(),
            SupervisorEvent::Started { child, incarnation } => {
                self.started(child, incarnation, &mut turn)
            }
            SupervisorEvent::StartFailed {
                child,
                incarnation,
                cause,
            }
            | SupervisorEvent::Ended {
                child,
                incarnation,
                cause,
            } => self.gone(child, incarnation, cause, &mut turn),
            SupervisorEvent::Timer(timer) => self.due(timer, &mut turn),
            SupervisorEvent::Add { spec, ticket } => {
                self.ask(PendingCommand::add(ticket, spec), &mut turn)
            }
            SupervisorEvent::Terminate { child, ticket } => {
                self.ask(PendingCommand::terminate(ticket, child), &mut turn);
            }
            SupervisorEvent::Restart { child, ticket } => {
                self.ask(PendingCommand::restart(ticket, child), &mut turn);
            }
            SupervisorEvent::Renew { child, ticket } => {
                self.ask(PendingCommand::renew(ticket, child), &mut turn);
            }
            SupervisorEvent::Delete { child, ticket } => {
                self.ask(PendingCommand::delete(ticket, child), &mut turn);
            }
            SupervisorEvent::Stop => self.begin_end(SupervisorEnd::Shutdown, &mut turn),
        }
        self.settle(&mut turn);
        turn.out
    }

    /// Returns the children, in start order.
    pub fn children(&self) -> impl Iterator<Item = ChildView<'_>> {
        self.children.iter().map(|child| child.view())
    }

    /// Returns true if it ends or has ended: no child is started any more.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        matches!(
            self.phase,
            SupervisorPhase::Ending(_) | SupervisorPhase::Down
        )
    }

    /// Returns the id of the child with this name.
    #[must_use]
    pub fn child_id(&self, name: &str) -> Option<ChildId> {
        self.names.get(name).copied()
    }

    /// Returns the child with this id.
    #[must_use]
    pub fn child(&self, id: ChildId) -> Option<ChildView<'_>> {
        self.index(id).map(|index| self.children[index].view())
    }

    /// Begins the initial start.
    fn begin(&mut self) {
        if matches!(self.phase, SupervisorPhase::New) {
            self.phase = SupervisorPhase::Up;
            self.round = Some(SupervisionRound::initial());
        }
    }

    /// Takes every step that has become possible, until none is left.
    fn settle(&mut self, turn: &mut EventScope<'_>) {
        loop {
            match self.phase {
                SupervisorPhase::New | SupervisorPhase::Down => return,
                SupervisorPhase::Ending(_) => return self.advance_end(turn),
                SupervisorPhase::Up => {}
            }
            if self.advance_round(turn) {
                continue;
            }
            if !self.is_busy() {
                if let Some(id) = self.failed.pop_front() {
                    self.judge(id, turn);
                    continue;
                }
                if self.round.is_none() && self.resume() {
                    continue;
                }
            }
            if !self.run_deferred(turn) {
                return;
            }
        }
    }

    /// Returns true if failures must wait: children are being started or stopped in order.
    fn is_busy(&self) -> bool {
        let in_round = self
            .round
            .is_some_and(|round| matches!(round.step, RoundStep::Stopping | RoundStep::Starting));
        in_round || (self.spec.strategy.is_group() && self.starts_by_command())
    }

    /// Returns true if a start by command is in progress.
    fn starts_by_command(&self) -> bool {
        let mut children = self.children.iter();
        children.any(|child| matches!(child.life, ChildPhase::Starting(Some(_))))
    }

    /// Returns the position of a child in the start order.
    fn index(&self, id: ChildId) -> Option<usize> {
        self.children
            .binary_search_by_key(&id, |child| child.id)
            .ok()
    }

    /// Appends a child; the caller must start it.
    fn push(&mut self, spec: ChildSpec) -> usize {
        let id = ChildId(self.next_child);
        self.next_child += 1;
        self.names.insert(spec.name.clone(), id);
        self.children.push(Box::new(ChildRecord::new(id, spec)));
        self.children.len() - 1
    }

    /// Removes a child and reports it.
    fn forget(&mut self, index: usize, turn: &mut EventScope<'_>) {
        let child = self.children.remove(index);
        debug_assert!(!child.is_live(), "SUP-1: a live child is never forgotten");
        self.names.remove(&child.spec.name);
        turn.out.push(SupervisorAction::Forget { child: child.id });
    }

    /// Marks a child as stopped; forgets it if children of its kind are not kept.
    fn rest(&mut self, index: usize, rest: StoppedReason, turn: &mut EventScope<'_>) {
        let child = &mut self.children[index];
        child.life = ChildPhase::Stopped(rest);
        if child.is_temporary() || self.spec.strategy == Strategy::Dynamic {
            self.forget(index, turn);
        }
    }

    /// Starts the next incarnation.
    fn start(
        &mut self,
        index: usize,
        asked: Option<child::CommandedStart>,
        turn: &mut EventScope<'_>,
    ) {
        let child = &mut self.children[index];
        debug_assert!(!child.is_live(), "SUP-1: never two live incarnations");
        if asked.is_none() && child.incarnation > 0 {
            child.restarts += 1;
        }
        child.incarnation += 1;
        child.life = ChildPhase::Starting(asked);
        turn.out.push(SupervisorAction::Start {
            child: child.id,
            incarnation: child.incarnation,
        });
    }

    /// Records that an incarnation is up.
    fn started(&mut self, id: ChildId, incarnation: u64, turn: &mut EventScope<'_>) {
        let Some(index) = self.index(id) else { return };
        let child = &mut self.children[index];
        if child.incarnation != incarnation {
            return;
        }
        if let ChildPhase::Starting(asked) = &mut child.life {
            let asked = asked.take();
            child.life = ChildPhase::Running { since: turn.now };
            child.exhaustion = Exhaustion::None;
            if let Some(asked) = asked {
                turn.reply(asked.ticket, Ok(Some(id)));
            }
        }
    }

    /// Asks a starting or running child to stop, or kills it.
    fn stop(&mut self, index: usize, why: StopRequest, turn: &mut EventScope<'_>) {
        let child = &self.children[index];
        let (id, incarnation) = (child.id, child.incarnation);
        let shutdown = child.spec.shutdown;
        turn.out.push(match shutdown {
            Shutdown::Kill => SupervisorAction::Kill {
                child: id,
                incarnation,
            },
            Shutdown::Within(_) | Shutdown::Infinity => SupervisorAction::Stop {
                child: id,
                incarnation,
            },
        });
        // SUP-7: each child with a limited shutdown has its own deadline.
        let deadline = match shutdown {
            Shutdown::Within(span) => Some(self.set_timer(id, turn.now.after(span), turn)),
            Shutdown::Kill | Shutdown::Infinity => None,
        };
        self.children[index].life = ChildPhase::Stopping { why, deadline };
    }

    /// Requests a timer for a child.
    fn set_timer(&mut self, child: ChildId, at: Time, turn: &mut EventScope<'_>) -> TimerId {
        let timer = TimerId(self.next_timer);
        self.next_timer += 1;
        self.timers.insert(timer, child);
        turn.out.push(SupervisorAction::SetTimer { timer, at });
        timer
    }

    /// Handles a timer: a stop's deadline, or the end of a backoff. Other timers are obsolete.
    fn due(&mut self, due: TimerId, turn: &mut EventScope<'_>) {
        let child = self.timers.remove(&due);
        let Some(index) = child.and_then(|id| self.index(id)) else {
            return;
        };
        let child = &mut self.children[index];
        match &mut child.life {
            ChildPhase::Stopping { deadline, .. } if *deadline == Some(due) => {
                *deadline = None;
                // SUP-7: a child that is not gone at its deadline is killed.
                turn.out.push(SupervisorAction::Kill {
                    child: child.id,
                    incarnation: child.incarnation,
                });
            }
            ChildPhase::Waiting { timer, .. } if *timer == due => {
                if self.spec.strategy.is_group() {
                    child.life = ChildPhase::Due;
                } else {
                    self.start(index, None, turn);
                }
            }
            _ => {}
        }
    }
}

impl EventScope<'_> {
    /// Answers a command.
    fn reply(&mut self, ticket: CommandId, result: Result<Option<ChildId>, CommandError>) {
        self.out.push(SupervisorAction::Reply { ticket, result });
    }
}
