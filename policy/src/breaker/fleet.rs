//! Effect of the words of other replicas: suspicion, adopted trips, leased probes and their
//! verdicts.
//!
//! They are advice. They lower the numbers of this breaker's own rules, or open it when its owner
//! has found that enough replicas agree; they never become evidence of its own.

use std::time::Duration;

use super::{
    Breaker, BreakerCause, BreakerEvent, CommandSource, HalfOpenRule, Override, RandomSource,
    State, Time, TripReason, TripRules,
};
use crate::{ProbeLease, Rate};

/// Time after which a refused caller may ask again while the lease is asked for.
pub(super) const SOON: Duration = Duration::from_millis(250);

/// The evidence of other replicas that a closed breaker takes into account.
///
/// # Source  Rule FLT-4 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Share of this breaker's own numbers that is enough beside it, but at least two failures.
    pub share: Rate,
    /// Time at which it ends.
    pub until: Time,
}

impl Breaker {
    /// Takes the evidence of other replicas into account, or no longer. Nothing opens at once: the
    /// rules are judged at the next outcome.
    ///
    /// # Source  Rule FLT-4.
    pub fn suspect(&mut self, now: Time, suspicion: Option<Suspicion>) {
        self.suspicion = suspicion.filter(|one| one.until > now);
        self.renew_rules();
        self.set_deadline();
    }

    /// Returns the evidence of other replicas that is taken into account.
    #[must_use]
    pub const fn suspicion(&self) -> Option<Suspicion> {
        self.suspicion
    }

    pub(super) fn renew_rules(&mut self) {
        let confirm = self.suspicion.map(|one| one.share);
        self.rules = TripRules::new(&self.settings, confirm);
    }

    pub(super) fn expire_suspicion(&mut self, now: Time) {
        if self.suspicion.is_some_and(|one| one.until <= now) {
            self.suspicion = None;
            self.renew_rules();
        }
    }

    /// Returns the maximum wait for the lease, if it is needed.
    fn lease_timeout(&self) -> Option<Duration> {
        let half_open = &self.settings.half_open;
        match half_open.lease {
            // Without probes there is nothing to lease.
            ProbeLease::Leased { timeout } if half_open.rule != HalfOpenRule::AutoClose => {
                Some(timeout)
            }
            ProbeLease::Leased { .. } | ProbeLease::Own => None,
        }
    }

    /// Returns true if an open breaker may become half-open by itself once its time is over.
    pub(super) fn may_probe(&self, now: Time) -> bool {
        // FLT-1: without an answer in time, it goes on alone.
        self.lease_timeout().is_none() || self.alone_at.is_some_and(|at| at <= now)
    }

    /// Returns true while the fleet's lease was asked for and neither came nor ran out of time: no
    /// probe is admitted until then.
    #[must_use]
    pub fn awaits_lease(&self, now: Time) -> bool {
        let is_asked = self.alone_at.is_some_and(|at| at > now);
        self.state == State::Open && self.lease_timeout().is_some() && is_asked
    }

    /// Returns the time at which an open breaker changes by time alone.
    pub(super) fn open_deadline(&self) -> Time {
        match self.lease_timeout() {
            None => self.open_until,
            // FLT-7: it asks for the lease only with a call at hand.
            Some(_) => self.alone_at.unwrap_or(Time::MAX),
        }
    }

    /// Asks for the lease, once, if a caller is there after the open time. Returns true while the
    /// answer is awaited.
    pub(super) fn asks_for_lease(&mut self, now: Time) -> bool {
        let Some(timeout) = self.lease_timeout() else {
            return false;
        };
        if self.open_until > now {
            return false;
        }
        if self.alone_at.is_none() {
            self.alone_at = Some(now.after(timeout));
            let generation = self.generation;
            self.push(BreakerEvent::ProbeDue {
                at: now,
                generation,
            });
            self.set_deadline();
        }
        true
    }

    pub(super) fn grant(&mut self, now: Time) {
        if self.state == State::Open && self.open_until <= now {
            self.transition(now, State::HalfOpen, BreakerCause::LeaseGranted, None);
        }
    }

    pub(super) fn adopt(
        &mut self,
        now: Time,
        (replicas, of): (u32, u32),
        wait: Duration,
        random: &mut dyn RandomSource,
    ) {
        // FLT-3: a trip by others' evidence has a reason of its own, and is never told as evidence.
        if self.state == State::Closed {
            self.hinted_until = Time::ZERO;
            self.open_for(now, TripReason::Fleet { replicas, of }, wait, random);
        }
    }

    /// Lengthens the open time; the calls in flight keep their generation.
    pub(super) fn hold(&mut self, now: Time, wait: Duration, failed_periods: u32) {
        if self.state != State::Open {
            return;
        }
        self.open_until = self.open_until.max(now.after(wait));
        self.open_attempt = self.open_attempt.max(failed_periods);
        self.alone_at = None;
        self.set_deadline();
    }

    pub(super) fn close_by_verdict(&mut self, now: Time, by: String) {
        // FLT-8: the one exception to BRK-8; the dependency's own hint still holds.
        if self.state == State::Open && self.hinted_until <= now {
            self.close(now, BreakerCause::FleetRecovered { by });
        }
    }

    pub(super) fn set_fleet_override(&mut self, now: Time, set: Option<Override>) {
        // FLT-12: it lies below an operator's override of this replica.
        match set {
            Some(mut set) => {
                set.by = CommandSource::Fleet;
                self.set_override(now, set);
            }
            None => {
                let cause = BreakerCause::Commanded("the fleet's override was taken off".into());
                self.remove_override(now, CommandSource::Fleet, &cause);
            }
        }
    }
}
