//! Changes of a breaker by time alone, and the transitions themselves.

use super::half_open::{HalfOpenDecision, ProbeEnd};
use super::{
    Breaker, BreakerCause, BreakerEvent, CommandSource, Duration, HalfOpenRule, Override,
    OverrideMode, RandomSource, State, Time, TripReason,
};
use crate::{LostProbe, backoff};

impl Breaker {
    /// Makes the changes that are due: expired overrides, lost probes, the end of the open time.
    ///
    /// # Source  Rules BRK-5, BRK-8 and BRK-10.
    pub fn on_time(&mut self, now: Time, random: &mut dyn RandomSource) {
        if self.deadline <= now {
            self.advance(now, random);
        }
    }

    /// Makes one pass in a fixed order, so that zero spans cannot make it loop for ever.
    pub(super) fn advance(&mut self, now: Time, random: &mut dyn RandomSource) {
        self.expire_overrides(now);
        self.expire_suspicion(now);
        if self.state == State::HalfOpen {
            self.expire_probes(now, random);
        }
        if self.state == State::HalfOpen {
            self.expire_half_open(now, random);
        }
        // BRK-8: only its time, or a command, ends the open state.
        if self.state == State::Open && self.open_until <= now && self.may_probe(now) {
            let auto_close = self.settings.half_open.rule == HalfOpenRule::AutoClose;
            if auto_close {
                self.close(now, BreakerCause::OpenTimeOver);
            } else {
                self.transition(now, State::HalfOpen, BreakerCause::OpenTimeOver, None);
            }
        }
        self.set_deadline();
    }

    fn expire_overrides(&mut self, now: Time) {
        let over = |slot: &Option<Override>| {
            slot.as_ref()
                .and_then(|set| set.until)
                .is_some_and(|until| until <= now)
        };
        for author in [
            CommandSource::Supervisor,
            CommandSource::Operator,
            CommandSource::Fleet,
        ] {
            if over(self.slot(author)) {
                self.remove_override(now, author, &BreakerCause::OverrideExpired);
            }
        }
    }

    fn expire_probes(&mut self, now: Time, random: &mut dyn RandomSource) {
        while self.state == State::HalfOpen
            && self.half_open.take_lost(now, &self.settings.half_open)
        {
            self.tally.lost_probes += 1;
            // BRK-5: a probe without a report within its lease counts as failed.
            if self.settings.half_open.lost_probe == LostProbe::Fails {
                let lease = self.settings.half_open.probe_lease;
                let decision = self.half_open.count(ProbeEnd::Lost, lease, &self.settings);
                self.decide(now, decision, None, random);
            }
        }
    }

    fn expire_half_open(&mut self, now: Time, random: &mut dyn RandomSource) {
        let Some(limit) = self.settings.half_open.limit else {
            return;
        };
        if self.half_open.entered().after(limit.after) > now {
            return;
        }
        if limit.closes {
            self.close(now, BreakerCause::HalfOpenTimeOver);
        } else {
            let reason = TripReason::HalfOpenTooLong { after: limit.after };
            self.decide(now, HalfOpenDecision::Reopen(reason), None, random);
        }
    }

    /// Applies the decision of a half-open period.
    pub(super) fn decide(
        &mut self,
        now: Time,
        decision: HalfOpenDecision,
        hint: Option<Duration>,
        random: &mut dyn RandomSource,
    ) {
        match decision {
            HalfOpenDecision::Undecided => {}
            HalfOpenDecision::Close { successes } => {
                self.close(now, BreakerCause::Recovered { successes })
            }
            HalfOpenDecision::Reopen(reason) => {
                // BRK-8: each failed half-open period lengthens the next open time.
                self.open_attempt = self.open_attempt.saturating_add(1);
                self.open(now, reason, hint, random);
            }
        }
    }

    pub(super) fn close(&mut self, now: Time, cause: BreakerCause) {
        self.open_attempt = 0;
        self.transition(now, State::Closed, cause, None);
    }

    /// Opens for the open time, or for the hint if that is longer.
    pub(super) fn open(
        &mut self,
        now: Time,
        reason: TripReason,
        hint: Option<Duration>,
        random: &mut dyn RandomSource,
    ) {
        let open_time = backoff::open_time(&self.settings.open, self.open_attempt, random);
        self.hinted_until = hint.map_or(Time::ZERO, |hint| now.after(hint));
        // BRK-8: at least as long as the dependency asked for (`Retry-After`).
        self.open_for(now, reason, open_time.max(hint.unwrap_or_default()), random);
    }

    pub(super) fn open_for(
        &mut self,
        now: Time,
        reason: TripReason,
        wait: Duration,
        random: &mut dyn RandomSource,
    ) {
        self.spare = random.unit();
        self.open_until = now.after(wait);
        self.tally.trips += 1;
        // BRK-11: a trip is recorded with its rule and its figures.
        // EDGE-8: and with the cause of the failure that decided.
        let last_failure = match reason {
            TripReason::Commanded(_) | TripReason::Fleet { .. } => None,
            _ => self.last_failure,
        };
        let cause = BreakerCause::Tripped {
            reason,
            last_failure,
        };
        self.transition(now, State::Open, cause, Some(wait));
    }

    /// Enters a state: empties the window, starts a generation, emits the event.
    pub(super) fn transition(
        &mut self,
        now: Time,
        to: State,
        cause: BreakerCause,
        retry_after: Option<Duration>,
    ) {
        let counts = self.counts(now);
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        self.cause = cause.clone();
        // BRK-2 and BRK-3: each transition empties the window and starts a generation.
        self.empty_window(now);
        self.start_generation(now);
        self.last_failure = None;
        self.alone_at = None;
        let generation = self.generation;
        self.push(BreakerEvent::Transition {
            from,
            to,
            at: now,
            generation,
            cause,
            retry_after,
            counts,
        });
    }

    /// Makes a transition by command.
    pub(super) fn command_transition(&mut self, now: Time, to: State, reason: String) {
        self.transition(now, to, BreakerCause::Commanded(reason), None);
    }

    /// Starts a generation: outcomes of the permits issued so far are late.
    pub(super) fn start_generation(&mut self, now: Time) {
        self.generation += 1;
        self.overdue = 0;
        self.half_open.begin(now);
        self.set_deadline();
    }

    pub(super) fn empty_window(&mut self, now: Time) {
        self.window.clear(now);
        self.warned = false;
    }

    pub(super) fn set_override(&mut self, now: Time, set: Override) {
        self.warned = false;
        let (mode, by, until, reason) = (set.mode, set.by, set.until, set.reason.clone());
        // BRK-10: an override is kept beside the automatic state, which goes on underneath.
        *self.slot_mut(by) = Some(set);
        self.mode = self.overridden().map(|set| set.mode);
        self.start_generation(now);
        let generation = self.generation;
        self.push(BreakerEvent::Overridden {
            at: now,
            generation,
            mode,
            reason,
            by,
            until,
        });
    }

    /// Removes the override of one source; returns false if there is none.
    pub(super) fn remove_override(
        &mut self,
        now: Time,
        by: CommandSource,
        cause: &BreakerCause,
    ) -> bool {
        let Some(Override { mode, .. }) = self.slot_mut(by).take() else {
            return false;
        };
        self.mode = self.overridden().map(|set| set.mode);
        self.start_generation(now);
        let generation = self.generation;
        self.push(BreakerEvent::OverrideRemoved {
            at: now,
            generation,
            mode,
            by,
            cause: cause.clone(),
        });
        true
    }

    fn slot(&self, by: CommandSource) -> &Option<Override> {
        match by {
            CommandSource::Fleet => &self.fleet,
            CommandSource::Operator => &self.operator,
            CommandSource::Supervisor => &self.parked,
            CommandSource::Configuration => &self.configured,
        }
    }

    fn slot_mut(&mut self, by: CommandSource) -> &mut Option<Override> {
        match by {
            CommandSource::Fleet => &mut self.fleet,
            CommandSource::Operator => &mut self.operator,
            CommandSource::Supervisor => &mut self.parked,
            CommandSource::Configuration => &mut self.configured,
        }
    }

    /// Computes the time of the next change that needs no call.
    pub(super) fn set_deadline(&mut self) {
        let mut deadline = Time::MAX;
        for set in [&self.fleet, &self.operator, &self.parked]
            .into_iter()
            .flatten()
        {
            deadline = deadline.min(set.until.unwrap_or(Time::MAX));
        }
        let own = match self.state {
            State::Closed => Time::MAX,
            State::Open => self.open_deadline(),
            State::HalfOpen => {
                let half_open = &self.settings.half_open;
                let lease = self.half_open.lease_end(half_open).unwrap_or(Time::MAX);
                half_open.limit.map_or(lease, |limit| {
                    lease.min(self.half_open.entered().after(limit.after))
                })
            }
        };
        let suspicion = self.suspicion.map_or(Time::MAX, |one| one.until);
        self.deadline = deadline.min(own).min(suspicion);
    }

    pub(super) fn is_shadowed(&self) -> bool {
        self.mode == Some(OverrideMode::Shadow)
    }
}
