//! Adaptive limits on calls in flight. They decide the limit; the bulkhead decides which calls get
//! the slots and which calls wait.

mod aimd;

mod gradient;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::nanos;
use crate::{AdaptiveRule, AdaptiveSettings, Time};

use aimd::AimdLimit;
use gradient::GradientLimit;

/// A limit that learns from each call, and decays to its initial value when there are none.
///
/// Without the decay, a limit that had fallen to its minimum would still be there at the next
/// burst, and a limit that had grown would admit an untested burst.
#[derive(Debug, Clone)]
pub struct AdaptiveLimit {
    rule: LimitAlgorithm,
    initial: u32,
    idle: Duration,
    /// Time of the last sample, or of the last decay step.
    last: Time,
}

#[derive(Debug, Clone)]
enum LimitAlgorithm {
    Aimd(AimdLimit),
    Gradient(GradientLimit),
}

impl AdaptiveLimit {
    /// Returns a limit at its initial value. `max` bounds it even if the settings say more.
    #[must_use]
    pub fn new(settings: &AdaptiveSettings, max: NonZeroU32) -> Self {
        let min = settings.min.min(max);
        let initial = settings.initial.clamp(min, max).get();
        let rule = match settings.rule {
            AdaptiveRule::Aimd { backoff } => {
                LimitAlgorithm::Aimd(AimdLimit::new(initial, min, max, backoff))
            }
            AdaptiveRule::Gradient { tolerance } => {
                LimitAlgorithm::Gradient(GradientLimit::new(initial, min, max, tolerance))
            }
        };
        Self {
            rule,
            initial,
            idle: settings.idle,
            last: Time::ZERO,
        }
    }

    /// Learns from one call that has ended, and returns the limit.
    ///
    /// # Units   `in_flight`: calls in flight at the time of the sample, this one included.
    pub fn sample(&mut self, now: Time, in_flight: u32, rtt: Duration, dropped: bool) -> u32 {
        self.forget(now);
        self.last = self.last.max(now);
        match &mut self.rule {
            LimitAlgorithm::Aimd(limit) => limit.sample(in_flight, dropped),
            LimitAlgorithm::Gradient(limit) => limit.sample(in_flight, rtt, dropped),
        }
    }

    /// Returns the limit at this time.
    pub fn limit(&mut self, now: Time) -> u32 {
        self.forget(now);
        self.height()
    }

    /// Applies new settings, and returns the limit. The current limit is kept, within the new
    /// bounds; with a different rule it starts over.
    pub fn resize(&mut self, settings: &AdaptiveSettings, max: NonZeroU32) -> u32 {
        let old = std::mem::replace(self, Self::new(settings, max));
        self.last = old.last;
        match (&mut self.rule, old.rule) {
            (LimitAlgorithm::Aimd(limit), LimitAlgorithm::Aimd(old)) => limit.set(old.limit()),
            (LimitAlgorithm::Gradient(limit), LimitAlgorithm::Gradient(old)) => {
                limit.go_on_from(old)
            }
            _ => {}
        }
        self.height()
    }

    const fn height(&self) -> u32 {
        match &self.rule {
            LimitAlgorithm::Aimd(limit) => limit.limit(),
            LimitAlgorithm::Gradient(limit) => limit.limit(),
        }
    }

    /// Moves half of the way back to the initial value for each `idle` without a call.
    fn forget(&mut self, now: Time) {
        let idle = nanos(self.idle).max(1);
        let alone = nanos(now.since(self.last));
        let steps = alone / idle;
        if steps == 0 {
            return;
        }
        self.last = Time::from_nanos(now.as_nanos() - alone % idle);
        let mut limit = self.height();
        // Halving 32 times covers any distance.
        for _ in 0..steps.min(32) {
            let half = limit.abs_diff(self.initial).div_ceil(2);
            limit = if limit < self.initial {
                limit + half
            } else {
                limit - half
            };
        }
        match &mut self.rule {
            LimitAlgorithm::Aimd(rule) => rule.set(limit),
            LimitAlgorithm::Gradient(rule) => rule.restart(limit),
        }
    }
}

#[cfg(test)]
mod tests;
