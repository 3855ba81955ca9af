//! Limits of calls in flight that find their own height. They decide how many; who gets the
//! places, and who waits, is the bulkhead's.

mod aimd;

mod gradient;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::nanos;
use crate::{AdaptiveRule, AdaptiveSettings, Time};

pub use aimd::AimdLimit;
pub use gradient::GradientLimit;

/// A limit that learns from each call, and forgets what it learnt when there are none.
///
/// Without the forgetting a limit that had fallen to its bottom would meet the next rush there,
/// and one that had grown would let a rush in that nobody has tried.
#[derive(Debug, Clone)]
pub struct AdaptiveLimit {
    rule: Rule,
    initial: u32,
    idle: Duration,
    /// The last sample, or the last step that was forgotten.
    last: Time,
}

#[derive(Debug, Clone)]
enum Rule {
    Aimd(AimdLimit),
    Gradient(GradientLimit),
}

impl AdaptiveLimit {
    /// A limit at its beginning. `max` binds whatever the settings say.
    #[must_use]
    pub fn new(settings: &AdaptiveSettings, max: NonZeroU32) -> Self {
        let min = settings.min.min(max);
        let initial = settings.initial.clamp(min, max).get();
        let rule = match settings.rule {
            AdaptiveRule::Aimd { backoff } => {
                Rule::Aimd(AimdLimit::new(initial, min, max, backoff))
            }
            AdaptiveRule::Gradient { tolerance } => {
                Rule::Gradient(GradientLimit::new(initial, min, max, tolerance))
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
    /// # Units   `in_flight`: calls at the time of the sample, this one included.
    pub fn sample(&mut self, now: Time, in_flight: u32, rtt: Duration, dropped: bool) -> u32 {
        self.forget(now);
        self.last = self.last.max(now);
        match &mut self.rule {
            Rule::Aimd(limit) => limit.sample(in_flight, dropped),
            Rule::Gradient(limit) => limit.sample(in_flight, rtt, dropped),
        }
    }

    /// The limit at this time.
    pub fn limit(&mut self, now: Time) -> u32 {
        self.forget(now);
        self.height()
    }

    /// Takes new settings, and returns the limit. It keeps its height, within the new bounds;
    /// with another rule it begins anew.
    pub fn resize(&mut self, settings: &AdaptiveSettings, max: NonZeroU32) -> u32 {
        let old = std::mem::replace(self, Self::new(settings, max));
        self.last = old.last;
        match (&mut self.rule, old.rule) {
            (Rule::Aimd(limit), Rule::Aimd(old)) => limit.set(old.limit()),
            (Rule::Gradient(limit), Rule::Gradient(old)) => limit.go_on_from(old),
            _ => {}
        }
        self.height()
    }

    const fn height(&self) -> u32 {
        match &self.rule {
            Rule::Aimd(limit) => limit.limit(),
            Rule::Gradient(limit) => limit.limit(),
        }
    }

    /// Goes half of the way back to the beginning for each `idle` without a call.
    fn forget(&mut self, now: Time) {
        let idle = nanos(self.idle).max(1);
        let alone = nanos(now.since(self.last));
        let steps = alone / idle;
        if steps == 0 {
            return;
        }
        self.last = Time::from_nanos(now.as_nanos() - alone % idle);
        let mut limit = self.height();
        // Half of the way 32 times is all of any way.
        for _ in 0..steps.min(32) {
            let half = limit.abs_diff(self.initial).div_ceil(2);
            limit = if limit < self.initial {
                limit + half
            } else {
                limit - half
            };
        }
        match &mut self.rule {
            Rule::Aimd(rule) => rule.set(limit),
            Rule::Gradient(rule) => rule.restart(limit),
        }
    }
}

#[cfg(test)]
mod tests;
