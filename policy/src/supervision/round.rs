//! Order in which several children stop and start: the initial start, group rounds, the end.
//!
//! It never judges a failure; it only waits until a step is complete.

use std::mem;
use std::ops::Range;

use super::child::{ChildPhase, ChildRecord, StopRequest, StoppedReason};
use super::message::{ChildId, SupervisorAction};
use super::spec::Strategy;
use super::{CommandError, EventScope, Supervision, SupervisorEnd, SupervisorPhase};

/// A pass over the children.
#[derive(Debug, Clone, Copy)]
pub(super) struct SupervisionRound {
    /// The first failed child in start order; `None` when no child is to be stopped.
    pub(super) trigger: Option<ChildId>,
    /// True if it is the supervisor's own start.
    pub(super) initial: bool,
    pub(super) step: RoundStep,
}

/// Step of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoundStep {
    /// Affected children stop, the last one first.
    Stopping,
    /// All are gone; a backoff is still running.
    Waiting,
    /// The children that are due start, the first one first.
    Starting,
}

impl SupervisionRound {
    /// Returns the round of the supervisor's own start.
    pub(super) const fn initial() -> Self {
        Self {
            trigger: None,
            initial: true,
            step: RoundStep::Starting,
        }
    }
}

impl Supervision {
    /// Returns the children that a round of this trigger stops and starts.
    pub(super) fn affected(&self, trigger: Option<ChildId>) -> Range<usize> {
        let len = self.children.len();
        let Some(index) = trigger.and_then(|id| self.index(id)) else {
            return len..len;
        };
        // SUP-1: the strategy says which siblings of a failed child are restarted with it.
        match self.spec.strategy {
            Strategy::OneForAll => 0..len,
            Strategy::RestForOne => index..len,
            Strategy::OneForOne | Strategy::Dynamic => index..index + 1,
        }
    }

    /// Begins a round for a failed child. The child's phase already says when it may start.
    ///
    /// A round that is still waiting for a backoff becomes part of it.
    ///
    /// # Source  Rules SUP-1 and SUP-2 in docs/rules.md.
    pub(super) fn begin_round(&mut self, failed: ChildId, turn: &mut EventScope<'_>) {
        let waiting = self.round.and_then(|round| round.trigger);
        let waiting = waiting.filter(|id| self.index(*id).is_some());
        let trigger = waiting.map_or(failed, |other| other.min(failed));
        let revive = self.spec.otp.rounds_revive_stopped;
        for index in self.affected(Some(trigger)).rev() {
            let child = &mut self.children[index];
            match child.life {
                ChildPhase::Ended { .. } if child.is_temporary() => {
                    self.rest(index, StoppedReason::Finished, turn);
                }
                ChildPhase::Stopped(StoppedReason::Finished) | ChildPhase::Ended { .. } => {
                    child.life = ChildPhase::Due
                }
                ChildPhase::Stopped(StoppedReason::Operator) if revive => {
                    child.life = ChildPhase::Due
                }
                _ => {}
            }
        }
        self.round = Some(SupervisionRound {
            trigger: Some(trigger),
            initial: false,
            step: RoundStep::Stopping,
        });
    }

    /// Starts the siblings that a round left down when its child was parked.
    pub(super) fn resume(&mut self) -> bool {
        let due = |child: &ChildRecord| matches!(child.life, ChildPhase::Due);
        let any = self.spec.strategy.is_group() && self.children.iter().any(|child| due(child));
        if any {
            self.round = Some(SupervisionRound {
                initial: false,
                ..SupervisionRound::initial()
            });
        }
        any
    }

    /// Advances a round as far as possible; returns true if a step was completed.
    pub(super) fn advance_round(&mut self, turn: &mut EventScope<'_>) -> bool {
        let Some(round) = self.round else {
            return false;
        };
        let complete = match round.step {
            RoundStep::Stopping => {
                let affected = self.affected(round.trigger);
                self.stop_last(affected, || StopRequest::Round, turn)
            }
            RoundStep::Waiting => {
                let affected = self.affected(round.trigger);
                let waits = |child: &ChildRecord| matches!(child.life, ChildPhase::Waiting { .. });
                !self.children[affected].iter().any(|child| waits(child))
            }
            RoundStep::Starting => self.start_next(turn),
        };
        if complete {
            let next = match round.step {
                RoundStep::Stopping => Some(RoundStep::Waiting),
                RoundStep::Waiting => Some(RoundStep::Starting),
                RoundStep::Starting => None,
            };
            self.round = next.map(|step| SupervisionRound { step, ..round });
            if next.is_none() && round.initial {
                turn.out.push(SupervisorAction::Up);
            }
        }
        complete
    }

    /// Starts the first child that is due, unless one is starting; returns true if all are up.
    fn start_next(&mut self, turn: &mut EventScope<'_>) -> bool {
        let is_initial = self.round.is_some_and(|round| round.initial);
        let starting = |child: &ChildRecord| {
            let is_awaited = !(is_initial && child.spec.background);
            is_awaited && matches!(child.life, ChildPhase::Starting(_))
        };
        if self.children.iter().any(|child| starting(child)) {
            return false;
        }
        let due = |child: &ChildRecord| matches!(child.life, ChildPhase::Due);
        loop {
            // SUP-1: children start in order, each when the one before is up.
            let Some(index) = self.children.iter().position(|child| due(child)) else {
                return true;
            };
            self.start(index, None, turn);
            if !(is_initial && self.children[index].spec.background) {
                return false;
            }
        }
    }

    /// Stops the last live child of a range, unless it is already stopping; returns true if none is
    /// live.
    fn stop_last(
        &mut self,
        range: Range<usize>,
        why: impl FnOnce() -> StopRequest,
        turn: &mut EventScope<'_>,
    ) -> bool {
        // SUP-1: children stop in reverse order, one after the other.
        let last = range.rev().find(|index| self.children[*index].is_live());
        let Some(index) = last else { return true };
        if !matches!(self.children[index].life, ChildPhase::Stopping { .. }) {
            self.stop(index, why(), turn);
        }
        false
    }

    /// Begins the supervisor's end. Only the first reason to end is reported.
    pub(super) fn begin_end(&mut self, end: SupervisorEnd, turn: &mut EventScope<'_>) {
        if !matches!(self.phase, SupervisorPhase::New | SupervisorPhase::Up) {
            return;
        }
        self.phase = SupervisorPhase::Ending(end);
        self.left = self.children.len();
        self.all_asked = false;
        self.round = None;
        self.failed.clear();
        for child in &mut self.children {
            match &mut child.life {
                ChildPhase::Starting(asked) => {
                    if let Some(asked) = asked.take() {
                        turn.reply(asked.ticket, Err(CommandError::StoppingSupervisor));
                    }
                }
                ChildPhase::Stopping { why, .. } => {
                    if let StopRequest::Renewal(ticket) = why {
                        turn.reply(*ticket, Err(CommandError::StoppingSupervisor));
                        *why = StopRequest::End;
                    }
                }
                ChildPhase::Due | ChildPhase::Ended { .. } | ChildPhase::Waiting { .. } => {
                    child.life = ChildPhase::Stopped(StoppedReason::Finished);
                }
                _ => {}
            }
        }
        for command in mem::take(&mut self.deferred) {
            turn.reply(command.ticket, Err(CommandError::StoppingSupervisor));
        }
    }

    /// Advances the supervisor's end as far as possible.
    pub(super) fn advance_end(&mut self, turn: &mut EventScope<'_>) {
        if self.spec.strategy == Strategy::Dynamic && !self.all_asked {
            self.all_asked = true;
            for index in (0..self.children.len()).rev() {
                self.stop_last(index..index + 1, || StopRequest::End, turn);
            }
        }
        // No child is started any more: those that are gone are not looked at again.
        let left = self.left.min(self.children.len());
        let last = (0..left)
            .rev()
            .find(|index| self.children[*index].is_live());
        self.left = last.map_or(0, |index| index + 1);
        let nobody_lives = self.stop_last(0..self.left, || StopRequest::End, turn);
        if nobody_lives
            && let SupervisorPhase::Ending(end) =
                mem::replace(&mut self.phase, SupervisorPhase::Down)
        {
            turn.out.push(SupervisorAction::Down(end));
        }
    }
}
