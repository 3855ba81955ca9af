//! The settings of what a call meets around the breaker: rates, pauses, places, second tries.
//!
//! Plain values; nothing here decides.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{BackoffSettings, ONE, RetryJitter, nonzero};
use crate::Rate;

/// When an idempotent call is sent a second time although the first has not failed.
///
/// # Source  Dean and Barroso, "The tail at scale"; rule CALL-7.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HedgeSettings {
    /// How long the first attempt may be silent.
    pub delay: HedgeDelay,
    /// Attempts beside the first one, each after another delay.
    pub max_hedges: NonZeroU32,
}

/// How long an attempt may be silent before another one is sent beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HedgeDelay {
    /// Always so long.
    Fixed(Duration),
    /// As long as this share of the calls took lately.
    Quantile {
        /// The share, such as 0.95.
        quantile: Rate,
        /// Never sooner than this; also the delay before enough calls are known.
        at_least: Duration,
    },
}

/// How many calls may go out in each interval.
///
/// # Source  Rules LIM-2 and LIM-3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimitSettings {
    /// Calls, or units of weight, in each `per`.
    pub rate: f64,
    /// The interval.
    pub per: Duration,
    /// Units that may come at once after a quiet time.
    pub burst: NonZeroU32,
    /// How long a call may wait for its turn; one that would wait longer is refused at once.
    pub max_wait: Duration,
}

/// What follows when a dependency asks for less traffic.
///
/// # Source  Rule LIM-1.
#[derive(Debug, Clone, PartialEq)]
pub struct ThrottleSettings {
    /// The pause where the dependency gives no hint, by how often it throttled in a row; its
    /// jitter is added on top of hints too.
    pub backoff: BackoffSettings,
    /// How long a call may wait for the end of a pause, prolongations included; one that would
    /// wait longer is refused at once. Retries wait for it as long as their call has time.
    pub max_wait: Duration,
    /// Until when it is left alone once its quota is used up and it does not say so itself.
    pub quota_reset: QuotaReset,
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
        }
    }
}

/// When a used-up quota is full again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaReset {
    /// So long after it was found used up.
    After(Duration),
    /// Every day at this time of the clock on the wall.
    Daily {
        /// Hour, 0 to 23.
        hour: u8,
        /// Minute, 0 to 59.
        minute: u8,
        /// The time zone's name in the IANA database, such as `America/Los_Angeles`.
        zone: String,
    },
}

/// A limit of calls in flight that finds its own height below `max_concurrent`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveSettings {
    /// How it learns.
    pub rule: AdaptiveRule,
    /// It never falls below this.
    pub min: NonZeroU32,
    /// It begins here, and comes back here after `idle`.
    pub initial: NonZeroU32,
    /// After so long without a call what was learnt is forgotten, step by step.
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

/// How an adaptive limit learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AdaptiveRule {
    /// One more while it is used and all is well; a share less at a failure or a throttle.
    Aimd {
        /// The share that is left, in [0, 1].
        backoff: Rate,
    },
    /// By how much longer calls take now than they took in the long run.
    Gradient {
        /// How many times as long is still as good as usual; at least 1.
        tolerance: f64,
    },
}

/// One breaker for each key of a dependency's requests: a tenant, a model, a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySettings {
    /// Keys that have a breaker of their own at most; the ones that were idle longest make room,
    /// and without room a call goes by the dependency's own breaker.
    pub max_entries: NonZeroU32,
    /// A key that was not used for so long is forgotten, unless its breaker is open or calls are
    /// in flight.
    pub idle: Duration,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self {
            max_entries: nonzero(1000),
            idle: Duration::from_secs(600),
        }
    }
}

/// What a call gets that the breaker refused and that no fallback could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAllDown {
    /// The error.
    #[default]
    Refuse,
    /// One attempt all the same, past the breaker: better a slow answer than none.
    Try,
}

/// Faults that are made on purpose, for tests and drills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChaosSettings {
    /// Share of attempts that are delayed.
    pub latency_rate: Rate,
    /// By how much.
    pub latency: Duration,
    /// Share of attempts that fail without reaching the dependency.
    pub error_rate: Rate,
    /// Share of attempts that never end.
    pub hang_rate: Rate,
    /// Share of attempts that panic.
    pub panic_rate: Rate,
    /// For how long, from when it was set; `None` until it is taken off.
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
