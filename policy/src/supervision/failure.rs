//! What a child's end means: finished, restart, or one failure too many.

use std::mem;

use super::budget::delay;
use super::child::{Asked, Life, Otherwise, Rest, Why};
use super::message::{Action, ChildId};
use super::round::Step;
use super::spec::AutoShutdown;
use super::{CommandError, Phase, StopCause, Supervision, SupervisorEnd, Turn};
use crate::{GiveUp, RestartType};

impl Supervision {
    /// An incarnation is completely gone, or did not come up.
    pub(super) fn gone(
        &mut self,
        id: ChildId,
        incarnation: u64,
        cause: StopCause,
        turn: &mut Turn<'_>,
    ) {
        let Some(index) = self.index(id) else { return };
        let child = &mut self.children[index];
        if child.incarnation != incarnation || !child.is_live() {
            return;
        }
        child.last_end = Some(cause.clone());
        if let (Life::Running { since }, Some(backoff)) = (&child.life, &self.spec.backoff)
            && turn.now.since(*since) >= backoff.reset_after
        {
            child.streak = 0;
        }
        match mem::replace(&mut child.life, Life::Stopped(Rest::Finished)) {
            Life::Stopping { why, .. } => self.stopped(index, why, turn),
            Life::Starting(Some(asked)) => self.not_started(index, asked, cause, turn),
            Life::Starting(None) => self.ended(index, cause, true, turn),
            _ => self.ended(index, cause, false, turn),
        }
    }

    /// A child that was told to go is gone.
    fn stopped(&mut self, index: usize, why: Why, turn: &mut Turn<'_>) {
        match why {
            Why::End => {}
            Why::Round if self.children[index].is_temporary() => {
                self.rest(index, Rest::Finished, turn);
            }
            Why::Round => self.children[index].life = Life::Due,
            Why::Operator(tickets) => {
                self.rest(index, Rest::Operator, turn);
                for ticket in tickets {
                    turn.reply(ticket, Ok(None));
                }
            }
        }
    }

    /// A start by command failed: no retry, no cost, everything as before.
    fn not_started(&mut self, index: usize, asked: Asked, cause: StopCause, turn: &mut Turn<'_>) {
        match asked.otherwise {
            Otherwise::Forget => self.forget(index, turn),
            Otherwise::Rest(rest) => self.children[index].life = Life::Stopped(rest),
            Otherwise::Park => self.children[index].life = Life::Parked,
        }
        turn.reply(asked.ticket, Err(CommandError::StartFailed(cause)));
    }

    /// A child ended by itself, or did not come up: now, in this round, or to be judged later.
    fn ended(&mut self, index: usize, cause: StopCause, at_start: bool, turn: &mut Turn<'_>) {
        if !matches!(self.phase, Phase::Up) {
            return;
        }
        if let Some(round) = self.round {
            if round.initial && at_start {
                let child = self.children[index].spec.name.clone();
                return self.begin_end(SupervisorEnd::StartError { child, cause }, turn);
            }
            let affected = self.affected(round.trigger);
            if round.step == Step::Stopping && affected.contains(&index) {
                return self.stopped(index, Why::Round, turn);
            }
            if round.step == Step::Starting && at_start {
                self.round = None;
            }
        }
        let child = &mut self.children[index];
        child.life = Life::Ended { cause, at_start };
        self.failed.push_back(child.id);
    }

    /// Decides what an end means.
    pub(super) fn judge(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(index) = self.index(id) else { return };
        let child = &mut self.children[index];
        let Life::Ended { cause, at_start } = &child.life else {
            return;
        };
        let (cause, at_start) = (cause.clone(), *at_start);
        let normal = cause.is_normal()
            || (self.spec.otp.gave_up_is_normal && matches!(cause, StopCause::GaveUp { .. }));
        let finished = match child.spec.restart {
            RestartType::Permanent => false,
            RestartType::Transient => normal,
            RestartType::Temporary => true,
        };
        if at_start || !finished {
            return self.fail(index, cause, turn);
        }
        let significant = child.spec.significant;
        self.rest(index, Rest::Finished, turn);
        if significant {
            self.shut_down_after_significant(turn);
        }
    }

    /// A significant child has finished.
    fn shut_down_after_significant(&mut self, turn: &mut Turn<'_>) {
        let ends = match self.spec.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => {
                let mut children = self.children.iter();
                !children.any(|child| child.spec.significant && !child.rests())
            }
        };
        if ends {
            self.begin_end(SupervisorEnd::Shutdown, turn);
        }
    }

    /// A child has failed: the budgets first, then the delay, then the restart.
    ///
    /// # Source  Rules SUP-2, SUP-3 and SUP-4.
    fn fail(&mut self, index: usize, cause: StopCause, turn: &mut Turn<'_>) {
        let child = &mut self.children[index];
        child.streak = child.streak.saturating_add(1);
        let (id, streak) = (child.id, child.streak);
        if !self.is_affordable(index, turn) {
            return self.give_up(index, cause, turn);
        }
        let wait = delay(self.spec.backoff.as_ref(), streak, turn.random);
        let life = if wait.is_zero() {
            Life::Due
        } else {
            let until = turn.now.after(wait);
            let timer = self.set_timer(id, until, turn);
            Life::Waiting { until, timer }
        };
        self.children[index].life = life;
        if self.spec.strategy.is_group() {
            self.begin_round(id, turn);
        } else if wait.is_zero() {
            self.start(index, None, turn);
        }
    }

    /// Whether one more restart is tolerated by all limits; counts it if so.
    fn is_affordable(&mut self, index: usize, turn: &Turn<'_>) -> bool {
        let child = &mut self.children[index];
        let in_a_row = self.spec.backoff.and_then(|backoff| backoff.max_in_a_row);
        let own = child.spec.intensity;
        let affordable = in_a_row.is_none_or(|max| child.streak <= max)
            && own.is_none_or(|intensity| child.window.has_room(intensity, turn.now))
            && self.window.has_room(self.spec.intensity, turn.now);
        if affordable {
            self.window.count(turn.now);
            if own.is_some() {
                child.window.count(turn.now);
            }
        }
        affordable
    }

    /// The failures were too many.
    fn give_up(&mut self, index: usize, cause: StopCause, turn: &mut Turn<'_>) {
        let child = &mut self.children[index];
        match child.spec.give_up {
            GiveUp::Park => {
                child.life = Life::Parked;
                turn.out.push(Action::Park {
                    child: child.id,
                    cause,
                });
            }
            GiveUp::Escalate => {
                let child = child.spec.name.clone();
                self.begin_end(SupervisorEnd::GaveUp { child, last: cause }, turn);
            }
        }
    }
}
