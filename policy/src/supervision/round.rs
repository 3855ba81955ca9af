//! The order in which several children stop and start: the initial start, group rounds, the end.
//!
//! It never judges a failure; it only waits until a step is complete.

use std::mem;
use std::ops::Range;

use super::child::{Life, Rest, Why};
use super::message::{Action, ChildId};
use super::spec::Strategy;
use super::{CommandError, Phase, Supervision, SupervisorEnd, Turn};

/// A pass over the children.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The first failed child in start order; `None` when nothing is to be stopped.
    pub(super) trigger: Option<ChildId>,
    /// Whether it is the supervisor's own start.
    pub(super) initial: bool,
    pub(super) step: Step,
}

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Affected children stop, the last one first.
    Stopping,
    /// All are gone; a backoff is not over.
    Waiting,
    /// The children that are due start, the first one first.
    Starting,
}

impl Round {
    /// The supervisor's own start.
    pub(super) const fn initial() -> Self {
        Self {
            trigger: None,
            initial: true,
            step: Step::Starting,
        }
    }
}

impl Supervision {
    /// The children that a round of this trigger stops and starts.
    pub(super) fn affected(&self, trigger: Option<ChildId>) -> Range<usize> {
        let len = self.children.len();
        let Some(index) = trigger.and_then(|id| self.index(id)) else {
            return len..len;
        };
        match self.spec.strategy {
            Strategy::OneForAll => 0..len,
            Strategy::RestForOne => index..len,
            Strategy::OneForOne | Strategy::Dynamic => index..index + 1,
        }
    }

    /// Begins a round at a child that failed; its own life says already when it may start.
    ///
    /// A round that still waits for a backoff becomes part of it.
    ///
    /// # Source  G1 to G5 in the research notes.
    pub(super) fn begin_round(&mut self, failed: ChildId, turn: &mut Turn<'_>) {
        let waiting = self.round.and_then(|round| round.trigger);
        let waiting = waiting.filter(|id| self.index(*id).is_some());
        let trigger = waiting.map_or(failed, |other| other.min(failed));
        let revive = self.spec.otp.rounds_revive_stopped;
        for index in self.affected(Some(trigger)).rev() {
            let child = &mut self.children[index];
            match child.life {
                Life::Ended { .. } if child.is_temporary() => {
                    self.rest(index, Rest::Finished, turn);
                }
                Life::Stopped(Rest::Finished) | Life::Ended { .. } => child.life = Life::Due,
                Life::Stopped(Rest::Operator) if revive => child.life = Life::Due,
                _ => {}
            }
        }
        self.round = Some(Round {
            trigger: Some(trigger),
            initial: false,
            step: Step::Stopping,
        });
    }

    /// Starts the siblings that a round left down when its child was parked.
    pub(super) fn resume(&mut self) -> bool {
        let due = |child: &super::Child| matches!(child.life, Life::Due);
        let any = self.spec.strategy.is_group() && self.children.iter().any(due);
        if any {
            self.round = Some(Round {
                initial: false,
                ..Round::initial()
            });
        }
        any
    }

    /// Takes a round as far as it can go now; says whether a step was completed.
    pub(super) fn advance_round(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(round) = self.round else {
            return false;
        };
        let complete = match round.step {
            Step::Stopping => {
                let affected = self.affected(round.trigger);
                self.stop_last(affected, || Why::Round, turn)
            }
            Step::Waiting => {
                let affected = self.affected(round.trigger);
                let waits = |child: &super::Child| matches!(child.life, Life::Waiting { .. });
                !self.children[affected].iter().any(waits)
            }
            Step::Starting => self.start_next(turn),
        };
        if complete {
            let next = match round.step {
                Step::Stopping => Some(Step::Waiting),
                Step::Waiting => Some(Step::Starting),
                Step::Starting => None,
            };
            self.round = next.map(|step| Round { step, ..round });
            if next.is_none() && round.initial {
                turn.out.push(Action::Up);
            }
        }
        complete
    }

    /// Starts the first child that is due, unless one is starting; says whether all are up.
    fn start_next(&mut self, turn: &mut Turn<'_>) -> bool {
        let starting = |child: &super::Child| matches!(child.life, Life::Starting(_));
        if self.children.iter().any(starting) {
            return false;
        }
        let due = |child: &super::Child| matches!(child.life, Life::Due);
        let Some(index) = self.children.iter().position(due) else {
            return true;
        };
        self.start(index, None, turn);
        false
    }

    /// Stops the last live child of a range, unless that is under way; says whether none lives.
    fn stop_last(
        &mut self,
        range: Range<usize>,
        why: impl FnOnce() -> Why,
        turn: &mut Turn<'_>,
    ) -> bool {
        let last = range.rev().find(|index| self.children[*index].is_live());
        let Some(index) = last else { return true };
        if !matches!(self.children[index].life, Life::Stopping { .. }) {
            self.stop(index, why(), turn);
        }
        false
    }

    /// Begins the supervisor's end. The first reason to end is the one that is reported.
    pub(super) fn begin_end(&mut self, end: SupervisorEnd, turn: &mut Turn<'_>) {
        if !matches!(self.phase, Phase::New | Phase::Up) {
            return;
        }
        self.phase = Phase::Ending(end);
        self.round = None;
        self.failed.clear();
        for child in &mut self.children {
            match &mut child.life {
                Life::Starting(asked) => {
                    if let Some(asked) = asked.take() {
                        turn.reply(asked.ticket, Err(CommandError::StoppingSupervisor));
                    }
                }
                Life::Due | Life::Ended { .. } | Life::Waiting { .. } => {
                    child.life = Life::Stopped(Rest::Finished);
                }
                _ => {}
            }
        }
        for command in mem::take(&mut self.deferred) {
            turn.reply(command.ticket, Err(CommandError::StoppingSupervisor));
        }
    }

    /// Takes the supervisor's end as far as it can go now.
    pub(super) fn advance_end(&mut self, turn: &mut Turn<'_>) {
        let all = 0..self.children.len();
        let nobody_lives = if self.spec.strategy == Strategy::Dynamic {
            for index in all.clone().rev() {
                self.stop_last(index..index + 1, || Why::End, turn);
            }
            !self.children.iter().any(super::Child::is_live)
        } else {
            self.stop_last(all, || Why::End, turn)
        };
        if nobody_lives && let Phase::Ending(end) = mem::replace(&mut self.phase, Phase::Down) {
            turn.out.push(Action::Down(end));
        }
    }
}
