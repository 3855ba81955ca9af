//! Effect of an outcome on a breaker.

use super::half_open::{HalfOpenDecision, ProbeEnd, needed};
use super::{
    Breaker, BreakerEvent, Duration, OverrideMode, Permit, PermitKind, RandomSource, RecordResult,
    State, Time,
};
use crate::{CancelledPolicy, Class, Outcome};

/// Effect of an outcome's class.
enum BreakerEffect {
    Success,
    Failure,
    Nothing,
    /// It counts once such calls reach their rate.
    Cancelled,
}

impl Breaker {
    /// Records an outcome, and changes the state if a rule is broken.
    ///
    /// # Units   `outcome.elapsed`: duration of the attempt itself, without waits before it.
    /// # Source  Rules BRK-1, BRK-3 and BRK-7.
    pub fn record(
        &mut self,
        now: Time,
        permit: Permit,
        outcome: &Outcome,
        random: &mut dyn RandomSource,
    ) -> RecordResult {
        if self.deadline <= now {
            self.advance(now, random);
        }
        if outcome.class == Class::Failure && permit.generation() == self.generation {
            self.last_failure = outcome.cause;
        }
        let recorded = self.count(now, &permit, outcome, random);
        match recorded {
            RecordResult::Counted => self.tally.recorded += 1,
            RecordResult::Neutral => self.tally.neutral += 1,
            RecordResult::Late => self.tally.late += 1,
            RecordResult::Unrecorded => self.tally.unrecorded += 1,
        }
        recorded
    }

    fn count(
        &mut self,
        now: Time,
        permit: &Permit,
        outcome: &Outcome,
        random: &mut dyn RandomSource,
    ) -> RecordResult {
        match permit.kind() {
            PermitKind::Unrecorded => RecordResult::Unrecorded,
            // BRK-3: an outcome of another generation changes nothing.
            _ if permit.generation() != self.generation => RecordResult::Late,
            PermitKind::Normal => match (self.mode, self.state) {
                (None, State::Closed) | (Some(OverrideMode::Shadow), _) => {
                    self.count_normal(now, outcome, random)
                }
                (Some(OverrideMode::Disabled), _) => RecordResult::Unrecorded,
                _ => RecordResult::Late,
            },
            PermitKind::Probe(id) => {
                if self.half_open.take(id) {
                    let recorded = self.count_probe(now, outcome, random);
                    self.set_deadline();
                    recorded
                } else {
                    RecordResult::Late
                }
            }
        }
    }

    fn count_normal(
        &mut self,
        now: Time,
        outcome: &Outcome,
        random: &mut dyn RandomSource,
    ) -> RecordResult {
        let failed = match self.meaning(outcome.class) {
            BreakerEffect::Success => false,
            BreakerEffect::Failure => true,
            BreakerEffect::Nothing => return RecordResult::Neutral,
            BreakerEffect::Cancelled => {
                self.window.record_cancelled(now);
                let counts = self.rules.counts_cancelled(&self.window);
                if counts {
                    self.tally.failures += 1;
                }
                self.judge(now, None, random);
                return if counts {
                    RecordResult::Counted
                } else {
                    RecordResult::Neutral
                };
            }
        };
        let slow = self.is_slow(outcome.elapsed);
        self.total(failed, slow);
        self.window.record(now, failed, slow, outcome.elapsed);
        let hint = if failed { outcome.retry_after } else { None };
        self.judge(now, hint, random);
        RecordResult::Counted
    }

    fn count_probe(
        &mut self,
        now: Time,
        outcome: &Outcome,
        random: &mut dyn RandomSource,
    ) -> RecordResult {
        let failed = match self.meaning(outcome.class) {
            BreakerEffect::Success => false,
            BreakerEffect::Failure => true,
            BreakerEffect::Nothing | BreakerEffect::Cancelled => {
                if outcome.class == Class::Cancelled
                    && self.settings.half_open.cancelled_probe_reopens
                {
                    let reason = super::TripReason::ProbeCancelled;
                    self.decide(now, HalfOpenDecision::Reopen(reason), None, random);
                }
                return RecordResult::Neutral;
            }
        };
        let slow = self.is_slow(outcome.elapsed);
        self.total(failed, slow);
        let end = match (failed, slow) {
            (false, false) => ProbeEnd::Good,
            (false, true) => ProbeEnd::Slow,
            (true, false) => ProbeEnd::Failed,
            (true, true) => ProbeEnd::FailedSlowly,
        };
        let decision = self.half_open.count(end, outcome.elapsed, &self.settings);
        if decision == HalfOpenDecision::Undecided && end == ProbeEnd::Good {
            self.push(BreakerEvent::HalfOpenProgress {
                at: now,
                generation: self.generation,
                successes: self.half_open.successes(),
                needed: needed(self.settings.half_open.rule),
            });
        }
        let hint = if failed { outcome.retry_after } else { None };
        self.decide(now, decision, hint, random);
        RecordResult::Counted
    }

    fn meaning(&mut self, class: Class) -> BreakerEffect {
        match class {
            Class::Success => BreakerEffect::Success,
            Class::Failure => BreakerEffect::Failure,
            // BRK-7: only successes and failures reach the breaker.
            Class::Throttled | Class::Rejected | Class::Misconfigured => BreakerEffect::Nothing,
            Class::Cancelled => {
                self.tally.cancelled += 1;
                match self.settings.cancelled {
                    CancelledPolicy::Ignore => BreakerEffect::Nothing,
                    CancelledPolicy::Failure => BreakerEffect::Failure,
                    CancelledPolicy::Rate(_) => BreakerEffect::Cancelled,
                }
            }
        }
    }

    fn total(&mut self, failed: bool, slow: bool) {
        if failed {
            self.tally.failures += 1;
        } else {
            self.tally.successes += 1;
        }
        self.tally.slow += u64::from(slow);
    }

    /// Opens if the window breaks a rule; in shadow mode, only reports it.
    fn judge(&mut self, now: Time, hint: Option<Duration>, random: &mut dyn RandomSource) {
        let Some(reason) = self.rules.judge(&self.settings, &self.window, self.overdue) else {
            return;
        };
        if !self.is_shadowed() {
            self.open(now, reason, hint, random);
        } else if !self.warned && self.state == State::Closed {
            self.warned = true;
            self.push(BreakerEvent::WouldTrip { at: now, reason });
        }
    }

    /// Takes back an unused permit: an inner layer refused the call.
    ///
    /// # Source  Rule BRK-6; Sentinel's `testMultipleHalfOpenedBreakers`.
    pub fn release(&mut self, now: Time, permit: Permit) {
        if self.deadline <= now {
            let spare = self.spare;
            self.advance(now, &mut || spare);
        }
        self.tally.released += 1;
        if let PermitKind::Probe(id) = permit.kind()
            && permit.generation() == self.generation
            // BRK-6: a permit that is given back unused frees its slot.
            && self.half_open.take(id)
        {
            self.set_deadline();
        }
    }

    /// Records a batch of successes that a gate counted itself.
    ///
    /// The gate passes them before any later record. See [`Breaker::needs_every_success`].
    ///
    /// # Units   `at`: the time at which they ended, or any time in the same bucket; `generation`:
    /// the one that admitted them. All were fast.
    /// # Source  Rule CALL-3.
    pub fn record_successes(
        &mut self,
        at: Time,
        generation: u64,
        count: u64,
        random: &mut dyn RandomSource,
    ) {
        if count == 0 {
            return;
        }
        if self.deadline <= at {
            self.advance(at, random);
        }
        let measured = match (self.mode, self.state) {
            (Some(OverrideMode::Disabled), _) => {
                self.tally.unrecorded += count;
                return;
            }
            (None, State::Closed) | (Some(OverrideMode::Shadow), _) => {
                generation == self.generation
            }
            _ => false,
        };
        if !measured {
            self.tally.late += count;
            return;
        }
        let mut left = count;
        while left > 0 && generation == self.generation {
            // CALL-3: successes that a gate counted are judged as if each had been recorded in its turn.
            let step = if self.needs_every_success() { 1 } else { left };
            self.window.record_successes(at, step);
            self.tally.successes += step;
            self.tally.recorded += step;
            left -= step;
            self.judge(at, None, random);
        }
        self.tally.late += left;
    }

    /// Sets the number of calls of this generation that are in flight and already slow.
    ///
    /// Judged with `slow_rate` as `(slow + overdue) / (calls + overdue)`, so that a dependency that
    /// only hangs opens its breaker before any call ends. Each new generation resets it to zero.
    ///
    /// # Source  Rule BRK-9.
    pub fn set_overdue(&mut self, now: Time, calls: u64, random: &mut dyn RandomSource) {
        if self.deadline <= now {
            self.advance(now, random);
        }
        self.overdue = calls;
        if calls > 0 && (self.is_shadowed() || (self.mode.is_none() && self.state == State::Closed))
        {
            self.window.forget(now);
            self.judge(now, None, random);
        }
    }
}
