//! Commands of operators and programs: add, terminate, restart, delete.
//!
//! Each is answered exactly once. It never lets one overtake another for the same child.

use std::collections::HashSet;

use super::child::{Asked, Life, Otherwise, Rest, Why};
use super::message::{CommandError, Ticket};
use super::round::Step;
use super::spec::{ChildSpec, Strategy};
use super::{Phase, StopCause, Supervision, Turn};

/// A command that has not been carried out yet.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) ticket: Ticket,
    child: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Add(ChildSpec),
    Terminate,
    Restart,
    Delete,
}

impl Command {
    pub(super) fn add(ticket: Ticket, spec: ChildSpec) -> Self {
        Self {
            ticket,
            child: spec.name.clone(),
            what: What::Add(spec),
        }
    }

    pub(super) const fn terminate(ticket: Ticket, child: String) -> Self {
        let what = What::Terminate;
        Self {
            ticket,
            child,
            what,
        }
    }

    pub(super) const fn restart(ticket: Ticket, child: String) -> Self {
        let what = What::Restart;
        Self {
            ticket,
            child,
            what,
        }
    }

    pub(super) const fn delete(ticket: Ticket, child: String) -> Self {
        let what = What::Delete;
        Self {
            ticket,
            child,
            what,
        }
    }
}

impl Supervision {
    /// Takes a command in, or refuses it because the supervisor ends.
    pub(super) fn ask(&mut self, command: Command, turn: &mut Turn<'_>) {
        if matches!(self.phase, Phase::New | Phase::Up) {
            self.deferred.push_back(command);
        } else {
            turn.reply(command.ticket, Err(CommandError::StoppingSupervisor));
        }
    }

    /// Carries out the first command that need not wait; says whether there was one.
    pub(super) fn run_deferred(&mut self, turn: &mut Turn<'_>) -> bool {
        let mut waiting = HashSet::new();
        let ready = self.deferred.iter().position(|command| {
            !waiting.contains(command.child.as_str())
                && (!self.must_wait(command) || !waiting.insert(command.child.as_str()))
        });
        let Some(command) = ready.and_then(|index| self.deferred.remove(index)) else {
            return false;
        };
        let Command {
            ticket,
            child,
            what,
        } = command;
        match (what, self.child_id(&child).and_then(|id| self.index(id))) {
            (What::Add(spec), index) => self.add(ticket, spec, index, turn),
            (_, None) => turn.reply(ticket, Err(CommandError::NotFound)),
            (What::Terminate, Some(index)) => self.terminate(ticket, index, turn),
            (What::Restart, Some(index)) => self.restart(ticket, index, turn),
            (What::Delete, Some(index)) => self.delete(ticket, index, turn),
        }
        true
    }

    /// Whether a command waits: for a round's stops and starts, or for its child to be gone or up.
    /// Never for a backoff.
    fn must_wait(&self, command: &Command) -> bool {
        if matches!(command.what, What::Terminate) {
            return false;
        }
        let in_round = self
            .round
            .is_some_and(|round| matches!(round.step, Step::Stopping | Step::Starting));
        if in_round || (self.spec.strategy.is_group() && self.starts_by_command()) {
            return true;
        }
        let index = self.child_id(&command.child).and_then(|id| self.index(id));
        index.is_some_and(|index| {
            matches!(
                self.children[index].life,
                Life::Stopping { .. } | Life::Starting(Some(_))
            )
        })
    }

    fn add(
        &mut self,
        ticket: Ticket,
        spec: ChildSpec,
        present: Option<usize>,
        turn: &mut Turn<'_>,
    ) {
        if let Err(error) = self.spec.check_child(&spec) {
            return turn.reply(ticket, Err(error.into()));
        }
        if let Some(index) = present {
            let error = if self.children[index].is_live() {
                CommandError::AlreadyStarted
            } else {
                CommandError::AlreadyPresent
            };
            return turn.reply(ticket, Err(error));
        }
        let index = self.push(spec);
        let otherwise = Otherwise::Forget;
        self.start(index, Some(Asked { ticket, otherwise }), turn);
    }

    fn terminate(&mut self, ticket: Ticket, index: usize, turn: &mut Turn<'_>) {
        let keeps_parked = self.spec.strategy != Strategy::Dynamic;
        let child = &mut self.children[index];
        match &mut child.life {
            Life::Stopping { why, .. } => match why {
                Why::Operator(tickets) => tickets.push(ticket),
                Why::Round | Why::End => *why = Why::Operator(vec![ticket]),
            },
            Life::Starting(asked) => {
                if let Some(asked) = asked.take() {
                    let error = CommandError::StartFailed(StopCause::Shutdown);
                    turn.reply(asked.ticket, Err(error));
                }
                self.stop(index, Why::Operator(vec![ticket]), turn);
            }
            Life::Running { .. } => self.stop(index, Why::Operator(vec![ticket]), turn),
            Life::Parked if keeps_parked => turn.reply(ticket, Ok(None)),
            Life::Parked
            | Life::Stopped(_)
            | Life::Due
            | Life::Ended { .. }
            | Life::Waiting { .. } => {
                self.rest(index, Rest::Operator, turn);
                turn.reply(ticket, Ok(None));
            }
        }
    }

    fn restart(&mut self, ticket: Ticket, index: usize, turn: &mut Turn<'_>) {
        let child = &mut self.children[index];
        let otherwise = match child.life {
            Life::Stopped(rest) => Otherwise::Rest(rest),
            Life::Parked => Otherwise::Park,
            _ => return turn.reply(ticket, Err(self.not_down(index))),
        };
        child.streak = 0;
        child.window.clear();
        if matches!(otherwise, Otherwise::Park) {
            self.window.clear();
        }
        self.start(index, Some(Asked { ticket, otherwise }), turn);
    }

    fn delete(&mut self, ticket: Ticket, index: usize, turn: &mut Turn<'_>) {
        if self.children[index].rests() {
            self.forget(index, turn);
            turn.reply(ticket, Ok(None));
        } else {
            turn.reply(ticket, Err(self.not_down(index)));
        }
    }

    /// The error for a child that would have to be down.
    fn not_down(&self, index: usize) -> CommandError {
        match self.children[index].life {
            Life::Running { .. } => CommandError::Running,
            _ => CommandError::Restarting,
        }
    }
}
