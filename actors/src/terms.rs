//! What every call needs of its dependency's settings, in one word.
//!
//! The settings as a whole are behind a pointer that a reload exchanges, and to follow it costs
//! two atomic operations. One word is read with one load, and cannot be half old and half new.

use std::time::Duration;

use breakerbox_policy::{DependencySettings, WhenAllDown};

/// The settings that a call without hedges and retries goes by.
///
/// # Units   Both timeouts in whole milliseconds of 25 bits, 9 hours; 0 for none. Settings that do
/// not fit are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallSettings {
    pub(crate) attempt: Option<Duration>,
    pub(crate) total: Option<Duration>,
    pub(crate) max_attempts: u32,
    pub(crate) is_hedged: bool,
    /// Whether one attempt goes past the breaker when nobody could answer.
    pub(crate) last_resort: bool,
    /// Whether a call that the breaker refuses waits for another try.
    pub(crate) waits_on_open: bool,
}

const MILLIS_BITS: u32 = 25;
const MILLIS_MASK: u64 = (1 << MILLIS_BITS) - 1;
const ATTEMPTS_BITS: u32 = 8;
const ATTEMPTS_MASK: u64 = (1 << ATTEMPTS_BITS) - 1;
const TOTAL: u32 = MILLIS_BITS;
const ATTEMPTS: u32 = 2 * MILLIS_BITS;
const FLAGS: u32 = ATTEMPTS + ATTEMPTS_BITS;
const HEDGED: u64 = 1 << FLAGS;
const LAST_RESORT: u64 = 2 << FLAGS;
const WAITS: u64 = 4 << FLAGS;

/// The word of settings that do not fit: no call has 0 attempts.
const DOES_NOT_FIT: u64 = 0;

impl CallSettings {
    pub(crate) fn of(settings: &DependencySettings) -> Self {
        let retry = &settings.retry;
        Self {
            attempt: settings.timeout.attempt,
            total: settings.timeout.total,
            max_attempts: retry.max_attempts.get(),
            is_hedged: settings.hedge.is_some(),
            last_resort: settings.when_all_down == WhenAllDown::Try,
            waits_on_open: retry.on_open && retry.max_attempts.get() > 1,
        }
    }

    #[inline]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        if word == DOES_NOT_FIT {
            return None;
        }
        let millis = |bits: u64| match bits & MILLIS_MASK {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        };
        Some(Self {
            attempt: millis(word),
            total: millis(word >> TOTAL),
            max_attempts: (word >> ATTEMPTS & ATTEMPTS_MASK) as u32,
            is_hedged: word & HEDGED != 0,
            last_resort: word & LAST_RESORT != 0,
            waits_on_open: word & WAITS != 0,
        })
    }

    pub(crate) fn word(self) -> u64 {
        self.fitting().unwrap_or(DOES_NOT_FIT)
    }

    fn fitting(self) -> Option<u64> {
        let millis = |span: Option<Duration>| match span {
            None => Some(0),
            Some(span) => {
                let millis = u64::try_from(span.as_millis()).ok()?;
                let is_whole = Duration::from_millis(millis) == span;
                (is_whole && millis > 0 && millis <= MILLIS_MASK).then_some(millis)
            }
        };
        let attempts = u64::from(self.max_attempts);
        let flag = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
        (attempts <= ATTEMPTS_MASK).then_some(
            millis(self.attempt)?
                | millis(self.total)? << TOTAL
                | attempts << ATTEMPTS
                | flag(self.is_hedged, HEDGED)
                | flag(self.last_resort, LAST_RESORT)
                | flag(self.waits_on_open, WAITS),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span() -> impl Strategy<Value = Option<Duration>> {
        let millis = (1..2 * MILLIS_MASK).prop_map(Duration::from_millis);
        let nanos = (1..u64::MAX).prop_map(Duration::from_nanos);
        proptest::option::of(prop_oneof![millis, nanos])
    }

    proptest! {
        #[test]
        fn cfg_2_a_word_says_what_was_put_in_or_that_it_does_not_fit(
            (attempt, total) in (span(), span()),
            max_attempts in 1_u32..300,
            flags in any::<[bool; 3]>(),
        ) {
            let [is_hedged, last_resort, waits_on_open] = flags;
            let terms = CallSettings {
                attempt, total, max_attempts, is_hedged, last_resort, waits_on_open,
            };
            let fits = |span: Option<Duration>| span.is_none_or(|span| {
                let hours = Duration::from_millis(MILLIS_MASK);
                span <= hours && span.subsec_nanos() % 1_000_000 == 0
            });
            let expected = fits(attempt) && fits(total) && max_attempts < 256;
            prop_assert_eq!(CallSettings::from_word(terms.word()), expected.then_some(terms));
        }
    }

    #[test]
    fn cfg_2_usual_settings_fit() {
        let usual = CallSettings::of(&DependencySettings::default());
        assert_eq!(CallSettings::from_word(usual.word()), Some(usual));
        let longest = Some(Duration::from_millis(MILLIS_MASK));
        let most = CallSettings {
            attempt: longest,
            total: longest,
            max_attempts: 255,
            ..usual
        };
        assert_eq!(CallSettings::from_word(most.word()), Some(most));
    }
}
