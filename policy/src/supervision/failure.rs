//! Consequences of a child's end: finished, restarted, or one failure too many.

use std::mem;

use super::budget::delay;
use super::child::{
    ChildPhase, CommandedStart, Exhaustion, OnStartFailure, StopRequest, StoppedReason,
};
use super::message::{ChildId, SupervisorAction};
use super::round::RoundStep;
use super::spec::AutoShutdown;
use super::{CommandError, EventScope, StopCause, Supervision, SupervisorEnd, SupervisorPhase};
use crate::{GiveUp, RestartType};

impl Supervision {
    /// Handles an incarnation that is completely gone, or did not come up.
    pub(super) fn gone(
        &mut self,
        id: ChildId,
        incarnation: u64,
        cause: StopCause,
        turn: &mut EventScope<'_>,
    ) {
        let Some(index) = self.index(id) else { return };
        let child = &mut self.children[index];
        // SUP-5: the end of an incarnation is taken once; a late or repeated report changes nothing.
        if child.incarnation != incarnation || !child.is_live() {
            return;
        }
        child.last_end = Some(cause.clone());
        if let (ChildPhase::Running { since }, Some(backoff)) = (&child.life, &self.spec.backoff)
            && turn.now.since(*since) >= backoff.reset_after
        {
            child.streak = 0;
        }
        match mem::replace(
            &mut child.life,
            ChildPhase::Stopped(StoppedReason::Finished),
        ) {
            ChildPhase::Stopping { why, .. } => self.stopped(index, why, turn),
            ChildPhase::Starting(Some(asked)) => self.not_started(index, asked, cause, turn),
            ChildPhase::Starting(None) => self.ended(index, cause, true, turn),
            _ => self.ended(index, cause, false, turn),
        }
    }

    /// Handles the end of a child that was asked to stop.
    fn stopped(&mut self, index: usize, why: StopRequest, turn: &mut EventScope<'_>) {
        match why {
            StopRequest::End => {}
            StopRequest::Round if self.children[index].is_temporary() => {
                self.rest(index, StoppedReason::Finished, turn);
            }
            StopRequest::Round => self.children[index].life = ChildPhase::Due,
            StopRequest::Renewal(ticket) => {
                // Its own end is no failure: the result of the new start is judged.
                self.children[index].life = ChildPhase::Due;
                if self.spec.strategy.is_group() && self.round.is_some() {
                    // A round that began meanwhile starts it in its turn.
                    turn.reply(ticket, Err(CommandError::Restarting));
                } else {
                    self.start_anew(index, ticket, turn);
                }
            }
            StopRequest::Operator(tickets) => {
                self.rest(index, StoppedReason::Operator, turn);
                for ticket in tickets {
                    turn.reply(ticket, Ok(None));
                }
            }
        }
    }

    /// Handles a failed start by command: no retry, no cost, the state as before, unless it is to be
    /// judged.
    fn not_started(
        &mut self,
        index: usize,
        asked: CommandedStart,
        cause: StopCause,
        turn: &mut EventScope<'_>,
    ) {
        match asked.otherwise {
            OnStartFailure::Forget => self.forget(index, turn),
            OnStartFailure::Rest(rest) => self.children[index].life = ChildPhase::Stopped(rest),
            OnStartFailure::Park => self.children[index].life = ChildPhase::Parked,
            OnStartFailure::Judge => {
                let cause = cause.clone();
                let child = &mut self.children[index];
                child.life = ChildPhase::Ended {
                    cause,
                    at_start: true,
                };
                self.failed.push_back(child.id);
            }
        }
        turn.reply(asked.ticket, Err(CommandError::StartFailed(cause)));
    }

    /// Handles a child that ended by itself or did not come up: now, in this round, or judged
    /// later.
    fn ended(&mut self, index: usize, cause: StopCause, at_start: bool, turn: &mut EventScope<'_>) {
        if !matches!(self.phase, SupervisorPhase::Up) {
            return;
        }
        if let Some(round) = self.round {
            let is_awaited = round.initial && !self.children[index].spec.background;
            if is_awaited && at_start {
                let child = self.children[index].spec.name.clone();
                // SUP-1: a failed first start rolls back the children that had started.
                return self.begin_end(SupervisorEnd::StartError { child, cause }, turn);
            }
            let affected = self.affected(round.trigger);
            if round.step == RoundStep::Stopping && affected.contains(&index) {
                return self.stopped(index, StopRequest::Round, turn);
            }
            if round.step == RoundStep::Starting && at_start && !round.initial {
                self.round = None;
            }
        }
        let child = &mut self.children[index];
        child.life = ChildPhase::Ended { cause, at_start };
        self.failed.push_back(child.id);
    }

    /// Decides the consequence of a child's end.
    pub(super) fn judge(&mut self, id: ChildId, turn: &mut EventScope<'_>) {
        let Some(index) = self.index(id) else { return };
        let child = &mut self.children[index];
        let ChildPhase::Ended { cause, at_start } = &child.life else {
            return;
        };
        let (cause, at_start) = (cause.clone(), *at_start);
        let normal = cause.is_normal()
            || (self.spec.otp.gave_up_is_normal && matches!(cause, StopCause::GaveUp { .. }));
        // SUP-1: the restart type says which ends are final.
        let finished = match child.spec.restart {
            RestartType::Permanent => false,
            RestartType::Transient => normal,
            RestartType::Temporary => true,
        };
        // A temporary child is never restarted, so only its first start can fail here.
        if (at_start && !child.is_temporary()) || !finished {
            return self.fail(index, cause, turn);
        }
        let significant = child.spec.significant;
        self.rest(index, StoppedReason::Finished, turn);
        if significant {
            self.shut_down_after_significant(turn);
        }
    }

    /// Ends the supervisor after a significant child has finished, if the specification says so.
    fn shut_down_after_significant(&mut self, turn: &mut EventScope<'_>) {
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

    /// Handles a failure: first the budgets, then the delay, then the restart.
    ///
    /// # Source  Rules SUP-2, SUP-3 and SUP-4.
    fn fail(&mut self, index: usize, cause: StopCause, turn: &mut EventScope<'_>) {
        let child = &mut self.children[index];
        child.streak = child.streak.saturating_add(1);
        let (id, streak) = (child.id, child.streak);
        if !self.is_affordable(index, turn) && self.give_up(index, &cause, turn) {
            return;
        }
        self.note_exhausted(index, cause, turn);
        let mut backoff = self.spec.backoff;
        if self.children[index].exhaustion != Exhaustion::None {
            // Without a wait, a child that is tried for ever would take all of the time.
            backoff.get_or_insert_default();
        }
        let wait = delay(backoff.as_ref(), streak, turn.random);
        let life = if wait.is_zero() {
            ChildPhase::Due
        } else {
            let until = turn.now.after(wait);
            // SUP-3: a timer ends the wait, so the supervisor goes on with its other children.
            let timer = self.set_timer(id, until, turn);
            ChildPhase::Waiting { until, timer }
        };
        self.children[index].life = life;
        if self.spec.strategy.is_group() {
            self.begin_round(id, turn);
        } else if wait.is_zero() {
            self.start(index, None, turn);
        }
    }

    /// Returns true if all limits tolerate one more restart, and if so counts it.
    fn is_affordable(&mut self, index: usize, turn: &EventScope<'_>) -> bool {
        let child = &mut self.children[index];
        let in_a_row = self.spec.backoff.and_then(|backoff| backoff.max_in_a_row);
        let own = child.spec.intensity;
        let affordable = in_a_row.is_none_or(|max| child.streak <= max)
            && own.is_none_or(|intensity| child.window.has_room(intensity, turn.now))
            && self.window.has_room(self.spec.intensity, turn.now);
        if affordable {
            // SUP-2: a failed restart costs one unit, and so does the restart of a whole group.
            self.window.count(turn.now);
            if own.is_some() {
                child.window.count(turn.now);
            }
        }
        affordable
    }

    /// Reports a failure of a child that has used up its restarts and is tried all the same.
    fn note_exhausted(&mut self, index: usize, cause: StopCause, turn: &mut EventScope<'_>) {
        let child = &mut self.children[index];
        if let Exhaustion::Told | Exhaustion::New = child.exhaustion {
            let first = child.exhaustion == Exhaustion::New;
            child.exhaustion = Exhaustion::Told;
            turn.out.push(SupervisorAction::Exhausted {
                child: child.id,
                cause,
                first,
            });
        }
    }

    /// Parks the child, or escalates: the failures were too many. Returns false if it is tried all
    /// the same.
    fn give_up(&mut self, index: usize, cause: &StopCause, turn: &mut EventScope<'_>) -> bool {
        let child = &mut self.children[index];
        // SUP-4: giving up parks the child and lets its siblings run, or fails upward.
        match child.spec.give_up {
            GiveUp::Park => {
                child.life = ChildPhase::Parked;
                turn.out.push(SupervisorAction::Park {
                    child: child.id,
                    cause: cause.clone(),
                });
            }
            GiveUp::Escalate => {
                let child = child.spec.name.clone();
                let last = cause.clone();
                self.begin_end(SupervisorEnd::GaveUp { child, last }, turn);
            }
            // MCP-1: a child of this kind is never given up; only its state says how it is.
            GiveUp::Retry => {
                if child.exhaustion == Exhaustion::None {
                    child.exhaustion = Exhaustion::New;
                }
                return false;
            }
        }
        true
    }
}
