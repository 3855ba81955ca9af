//! Commands of operators and programs: add, terminate, restart, delete.
//!
//! Each gets exactly one reply. A command never overtakes another one for the same child.

use std::collections::HashSet;

use super::child::{ChildPhase, CommandedStart, OnStartFailure, StopRequest, StoppedReason};
use super::message::{CommandError, CommandId};
use super::round::RoundStep;
use super::spec::{ChildSpec, Strategy};
use super::{EventScope, StopCause, Supervision, SupervisorPhase};
use crate::GiveUp;

/// A command that has not been executed yet.
#[derive(Debug)]
pub(super) struct PendingCommand {
    pub(super) ticket: CommandId,
    child: String,
    what: CommandKind,
}

#[derive(Debug)]
enum CommandKind {
    Add(ChildSpec),
    Terminate,
    Restart,
    Renew,
    Delete,
}

impl PendingCommand {
    pub(super) fn add(ticket: CommandId, spec: ChildSpec) -> Self {
        Self {
            ticket,
            child: spec.name.clone(),
            what: CommandKind::Add(spec),
        }
    }

    pub(super) const fn terminate(ticket: CommandId, child: String) -> Self {
        let what = CommandKind::Terminate;
        Self {
            ticket,
            child,
            what,
        }
    }

    pub(super) const fn restart(ticket: CommandId, child: String) -> Self {
        let what = CommandKind::Restart;
        Self {
            ticket,
            child,
            what,
        }
    }

    pub(super) const fn renew(ticket: CommandId, child: String) -> Self {
        let what = CommandKind::Renew;
        Self {
            ticket,
            child,
            what,
        }
    }

    pub(super) const fn delete(ticket: CommandId, child: String) -> Self {
        let what = CommandKind::Delete;
        Self {
            ticket,
            child,
            what,
        }
    }
}

impl Supervision {
    /// Gives a child another name. Commands for it that still wait follow it; a request to add a
    /// child of the old name does not.
    ///
    /// # Errors  There is no such child, or the new name is taken.
    pub fn rename(&mut self, child: &str, name: &str) -> Result<(), CommandError> {
        let id = self.child_id(child).ok_or(CommandError::NotFound)?;
        if self.child_id(name).is_some() {
            return Err(CommandError::AlreadyPresent);
        }
        let index = self.index(id).ok_or(CommandError::NotFound)?;
        name.clone_into(&mut self.children[index].spec.name);
        self.names.remove(child);
        self.names.insert(name.to_owned(), id);
        for command in &mut self.deferred {
            let follows = !matches!(command.what, CommandKind::Add(_));
            if follows && command.child == child {
                name.clone_into(&mut command.child);
            }
        }
        Ok(())
    }

    /// Takes back a command that still waits: it is not executed and not answered. Returns false if
    /// it does not wait.
    pub fn withdraw(&mut self, ticket: CommandId) -> bool {
        let before = self.deferred.len();
        self.deferred.retain(|command| command.ticket != ticket);
        self.deferred.len() < before
    }

    /// Queues a command, or refuses it because the supervisor is ending.
    pub(super) fn ask(&mut self, command: PendingCommand, turn: &mut EventScope<'_>) {
        if matches!(self.phase, SupervisorPhase::New | SupervisorPhase::Up) {
            self.deferred.push_back(command);
        } else {
            turn.reply(command.ticket, Err(CommandError::StoppingSupervisor));
        }
    }

    /// Executes the first command that need not wait; returns false if there is none.
    pub(super) fn run_deferred(&mut self, turn: &mut EventScope<'_>) -> bool {
        let mut waiting = HashSet::new();
        let ready = self.deferred.iter().position(|command| {
            !waiting.contains(command.child.as_str())
                && (!self.must_wait(command) || !waiting.insert(command.child.as_str()))
        });
        let Some(command) = ready.and_then(|index| self.deferred.remove(index)) else {
            return false;
        };
        let PendingCommand {
            ticket,
            child,
            what,
        } = command;
        match (what, self.child_id(&child).and_then(|id| self.index(id))) {
            (CommandKind::Add(spec), index) => self.add(ticket, spec, index, turn),
            (_, None) => turn.reply(ticket, Err(CommandError::NotFound)),
            (CommandKind::Terminate, Some(index)) => self.terminate(ticket, index, turn),
            (CommandKind::Restart, Some(index)) => self.restart(ticket, index, turn),
            (CommandKind::Renew, Some(index)) => self.renew_child(ticket, index, turn),
            (CommandKind::Delete, Some(index)) => self.delete(ticket, index, turn),
        }
        true
    }

    /// Returns true if a command must wait: for a round's stops and starts, or for its child to be
    /// gone or up. It never waits for a backoff.
    fn must_wait(&self, command: &PendingCommand) -> bool {
        if matches!(command.what, CommandKind::Terminate) {
            return false;
        }
        let in_round = self
            .round
            .is_some_and(|round| matches!(round.step, RoundStep::Stopping | RoundStep::Starting));
        if in_round || (self.spec.strategy.is_group() && self.starts_by_command()) {
            return true;
        }
        let index = self.child_id(&command.child).and_then(|id| self.index(id));
        index.is_some_and(|index| {
            matches!(
                self.children[index].life,
                ChildPhase::Stopping { .. } | ChildPhase::Starting(Some(_))
            )
        })
    }

    fn add(
        &mut self,
        ticket: CommandId,
        spec: ChildSpec,
        present: Option<usize>,
        turn: &mut EventScope<'_>,
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
        let otherwise = OnStartFailure::Forget;
        self.start(index, Some(CommandedStart { ticket, otherwise }), turn);
    }

    fn terminate(&mut self, ticket: CommandId, index: usize, turn: &mut EventScope<'_>) {
        let keeps_parked = self.spec.strategy != Strategy::Dynamic;
        let child = &mut self.children[index];
        match &mut child.life {
            ChildPhase::Stopping { why, .. } => match why {
                StopRequest::Operator(tickets) => tickets.push(ticket),
                StopRequest::Round | StopRequest::End => *why = StopRequest::Operator(vec![ticket]),
                StopRequest::Renewal(asked) => {
                    let error = CommandError::StartFailed(StopCause::Shutdown);
                    turn.reply(*asked, Err(error));
                    *why = StopRequest::Operator(vec![ticket]);
                }
            },
            ChildPhase::Starting(asked) => {
                if let Some(asked) = asked.take() {
                    let error = CommandError::StartFailed(StopCause::Shutdown);
                    turn.reply(asked.ticket, Err(error));
                }
                self.stop(index, StopRequest::Operator(vec![ticket]), turn);
            }
            ChildPhase::Running { .. } => {
                self.stop(index, StopRequest::Operator(vec![ticket]), turn)
            }
            ChildPhase::Parked if keeps_parked => turn.reply(ticket, Ok(None)),
            ChildPhase::Parked
            | ChildPhase::Stopped(_)
            | ChildPhase::Due
            | ChildPhase::Ended { .. }
            | ChildPhase::Waiting { .. } => {
                self.rest(index, StoppedReason::Operator, turn);
                turn.reply(ticket, Ok(None));
            }
        }
    }

    fn restart(&mut self, ticket: CommandId, index: usize, turn: &mut EventScope<'_>) {
        let child = &mut self.children[index];
        let otherwise = match child.life {
            ChildPhase::Stopped(rest) => OnStartFailure::Rest(rest),
            ChildPhase::Parked => OnStartFailure::Park,
            _ => return turn.reply(ticket, Err(self.not_down(index))),
        };
        child.streak = 0;
        child.window.clear();
        if matches!(otherwise, OnStartFailure::Park) {
            self.window.clear();
        }
        self.start(index, Some(CommandedStart { ticket, otherwise }), turn);
    }

    /// Starts a child anew: a live one is stopped first.
    fn renew_child(&mut self, ticket: CommandId, index: usize, turn: &mut EventScope<'_>) {
        let in_round = self.spec.strategy.is_group() && self.round.is_some();
        let child = &mut self.children[index];
        match &mut child.life {
            ChildPhase::Starting(_) | ChildPhase::Running { .. } => {
                self.stop(index, StopRequest::Renewal(ticket), turn);
            }
            ChildPhase::Due | ChildPhase::Ended { .. } | ChildPhase::Waiting { .. } if in_round => {
                turn.reply(ticket, Err(CommandError::Restarting));
            }
            _ => self.start_anew(index, ticket, turn),
        }
    }

    /// Starts a child that is down with fresh budgets.
    pub(super) fn start_anew(
        &mut self,
        index: usize,
        ticket: CommandId,
        turn: &mut EventScope<'_>,
    ) {
        let child = &mut self.children[index];
        let otherwise = match (child.spec.give_up, &child.life) {
            (GiveUp::Retry, _) => OnStartFailure::Judge,
            (_, ChildPhase::Parked) => OnStartFailure::Park,
            (_, ChildPhase::Stopped(rest)) => OnStartFailure::Rest(*rest),
            _ => OnStartFailure::Judge,
        };
        let id = child.id;
        child.streak = 0;
        child.window.clear();
        // SUP-2: an operator's order begins with an empty budget.
        self.window.clear();
        self.failed.retain(|failed| *failed != id);
        self.start(index, Some(CommandedStart { ticket, otherwise }), turn);
    }

    fn delete(&mut self, ticket: CommandId, index: usize, turn: &mut EventScope<'_>) {
        if self.children[index].rests() {
            self.forget(index, turn);
            turn.reply(ticket, Ok(None));
        } else {
            turn.reply(ticket, Err(self.not_down(index)));
        }
    }

    /// Returns the error for a command that needs the child to be down.
    fn not_down(&self, index: usize) -> CommandError {
        match self.children[index].life {
            ChildPhase::Running { .. } => CommandError::Running,
            _ => CommandError::Restarting,
        }
    }
}
