//! The settings that every call reads.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{DependencySettings, WhenAllDown};

/// The part of a dependency's settings that every call reads, copied when the call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallSettings {
    pub(crate) attempt_limit: Option<Duration>,
    pub(crate) total: Option<Duration>,
    /// True if the settings bound an attempt, at least its silence.
    pub(crate) has_limit: bool,
    pub(crate) max_attempts: NonZeroU32,
    pub(crate) is_hedged: bool,
    /// True if there is a rate limit.
    pub(crate) has_rate_limit: bool,
    /// True if one attempt goes past the breaker when nothing else could answer.
    pub(crate) last_resort: bool,
    /// True if a call that the breaker refuses waits for another try.
    pub(crate) waits_on_open: bool,
}

impl CallSettings {
    #[inline]
    pub(crate) fn of(settings: &DependencySettings) -> Self {
        let retry = &settings.retry;
        Self {
            attempt_limit: settings.timeout.attempt,
            total: settings.timeout.total,
            has_limit: settings.timeout.attempt.is_some() || settings.timeout.first_byte.is_some(),
            max_attempts: retry.max_attempts,
            is_hedged: settings.hedge.is_some(),
            has_rate_limit: settings.rate_limit.is_some(),
            last_resort: settings.when_all_down == WhenAllDown::Try,
            waits_on_open: retry.on_open && retry.max_attempts.get() > 1,
        }
    }
}
