//! Settings of the layers around the breaker: hedging, rate limit, throttle, adaptive limit, keys,
//! chaos.
//!
//! Plain values; nothing here decides.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{BackoffSettings, BreakerSettings, DependencySettings, ONE, RetryJitter, nonzero};
use crate::Rate;

/// Hedging: a second attempt of an idempotent call before the first has failed.
///
/// # Source  Dean and Barroso, "The tail at scale"; rule CALL-7.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HedgeSettings {
    /// Time without a response before a hedge is sent.
    pub delay: HedgeDelay,
    /// Maximum number of attempts beside the first one, each after another delay.
    pub max_hedges: NonZeroU32,
}

/// Time without a response before another attempt is sent beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HedgeDelay {
    /// A constant time.
    Fixed(Duration),
    /// Duration within which this share of recent calls finished.
    Quantile {
        /// The share, such as 0.95.
        quantile: Rate,
        /// Minimum delay; also the delay before enough calls are known.
        at_least: Duration,
    },
}

/// Maximum number of calls in each interval.
///
/// # Source  Rules LIM-2 and LIM-3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimitSettings {
    /// Number of calls, or units of weight, in each `per`.
    pub rate: f64,
    /// The interval.
    pub per: Duration,
    /// Units that may be used at once after an idle time.
    pub burst: NonZeroU32,
    /// Maximum wait of a call for its turn; a call that would wait longer is refused at once.
    pub max_wait: Duration,
}

impl RateLimitSettings {
    /// Maximum time to replenish a burst; a longer one would overflow governor's arithmetic.
    const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 100);

    /// Returns the time to replenish one unit.
    #[must_use]
    pub fn unit(&self) -> Duration {
        let seconds = self.per.as_secs_f64() / self.rate;
        let unit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        unit.clamp(Duration::from_nanos(1), Self::LONGEST / self.burst.get())
    }
}

/// A rate limit that the replicas of a fleet have together.
///
/// # Source  Rule FLT-13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateSharing {
    /// Span of its recent demand that a replica takes from the board at once; `None` for 100 ms, or
    /// ten units where that is longer.
    pub lease: Option<Duration>,
}

/// Reaction when a dependency asks for less traffic.
///
/// # Source  Rule LIM-1.
#[derive(Debug, Clone, PartialEq)]
pub struct ThrottleSettings {
    /// Pause when the dependency gives no hint, by the number of throttles in a row. Its jitter is
    /// added on top of hints too.
    pub backoff: BackoffSettings,
    /// Maximum wait of a call for the end of a pause, prolongations included. A call that would
    /// wait longer is refused at once. Retries wait as long as their call has time.
    pub max_wait: Duration,
    /// End of the pause for a used-up quota, when the dependency does not give one itself.
    pub quota_reset: QuotaReset,
    /// Longest wait that a hint of the dependency can cause: a pause, or the open time of the
    /// breaker. A longer hint counts as this one.
    pub max: Duration,
}

impl ThrottleSettings {
    /// Returns the hint of a dependency as far as it is believed.
    #[must_use]
    pub fn believed(&self, hint: Duration) -> Duration {
        // LIM-1: a hint counts in full up to here, and no further.
        hint.min(self.max)
    }
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        Self {
            backoff: BackoffSettings {
                base: Duration::from_secs(1),
                factor: 2.0,
                max: Duration::from_secs(60),
                jitter: RetryJitter::Added(0.2),
            },
            max_wait: Duration::ZERO,
            quota_reset: QuotaReset::After(Duration::from_secs(3600)),
            max: Duration::from_secs(24 * 3600),
        }
    }
}

/// Time at which a used-up quota is full again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaReset {
    /// This long after it was found used up.
    After(Duration),
    /// Every day at this wall-clock time.
    Daily {
        /// Hour, 0 to 23.
        hour: u8,
        /// Minute, 0 to 59.
        minute: u8,
        /// The time zone's name in the IANA database, such as `America/Los_Angeles`.
        zone: String,
    },
}

/// An adaptive limit on calls in flight, below `max_concurrent`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveSettings {
    /// Learning rule.
    pub rule: AdaptiveRule,
    /// Minimum of the limit.
    pub min: NonZeroU32,
    /// Initial limit, to which it returns after `idle`.
    pub initial: NonZeroU32,
    /// Time without a call after which the limit moves back to `initial`, step by step.
    pub idle: Duration,
}

impl Default for AdaptiveSettings {
    fn default() -> Self {
        Self {
            rule: AdaptiveRule::Gradient { tolerance: 1.5 },
            min: ONE,
            initial: nonzero(10),
            idle: Duration::from_secs(30),
        }
    }
}

/// Learning rule of an adaptive limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AdaptiveRule {
    /// Grows by one while it is used and calls succeed; falls by a share at a failure or a
    /// throttle.
    Aimd {
        /// Share of the limit that remains after a decrease, in [0, 1].
        backoff: Rate,
    },
    /// Follows the ratio of long-run to current latency.
    Gradient {
        /// Factor by which latency may exceed its usual value without a decrease; at least 1.
        tolerance: f64,
    },
}

/// Separate breakers for the keys of a dependency's requests: a tenant, a model, a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySettings {
    /// Maximum number of keys with a breaker of their own. The keys that were idle longest make
    /// room; without room, a call uses the dependency's own breaker.
    pub max_entries: NonZeroU32,
    /// Idle time after which a key is forgotten, unless its breaker is open or calls are in flight.
    pub idle: Duration,
}

impl DependencySettings {
    /// Returns the settings of the breaker of a key: those of the dependency's own, but for the lease.
    #[must_use]
    pub fn breaker_of_key(&self) -> BreakerSettings {
        let mut breaker = self.breaker.clone();
        // FLT-7: a breaker that no replica knows of asks for no lease.
        breaker.half_open.lease = self.key_lease;
        breaker
    }
}

impl Default for KeySettings {
    fn default() -> Self {
        Self {
            max_entries: nonzero(1000),
            idle: Duration::from_secs(600),
        }
    }
}

/// Result of a call that the breaker refused and no fallback could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAllDown {
    /// The error.
    #[default]
    Refuse,
    /// One attempt past the breaker: a slow answer is better than none.
    Try,
}

/// Injected faults, for tests and drills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChaosSettings {
    /// Share of attempts that are delayed.
    pub latency_rate: Rate,
    /// Length of the delay.
    pub latency: Duration,
    /// Share of attempts that fail without reaching the dependency.
    pub error_rate: Rate,
    /// Share of attempts that never end.
    pub hang_rate: Rate,
    /// Share of attempts that panic.
    pub panic_rate: Rate,
    /// Time for which the faults stay active after they were set; `None` until they are removed.
    pub lasts: Option<Duration>,
}

impl Default for ChaosSettings {
    fn default() -> Self {
        Self {
            latency_rate: Rate::ZERO,
            latency: Duration::ZERO,
            error_rate: Rate::ZERO,
            hang_rate: Rate::ZERO,
            panic_rate: Rate::ZERO,
            lasts: Some(Duration::from_secs(600)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_unit_is_short_enough_for_every_burst() {
        let mut limit = RateLimitSettings {
            rate: 8.0,
            per: Duration::from_secs(2),
            burst: NonZeroU32::MIN.saturating_add(3),
            max_wait: Duration::ZERO,
        };
        assert_eq!(limit.unit(), Duration::from_millis(250));
        // A hundred years, for four units together.
        limit.rate = 1e-9;
        assert_eq!(
            limit.unit() * 4,
            Duration::from_secs(60 * 60 * 24 * 365 * 100)
        );
    }
}
