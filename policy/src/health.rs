//! The service that callers of a dependency get, judged by a sliding record of their answers.
//!
//! It judges counts that others keep. It never asks for the state of the breaker: an open breaker
//! behind which a fallback answers, and a closed one behind which a third of the calls fail, are told
//! apart by the answers.

use std::fmt;
use std::time::Duration;

use crate::Rate;
use crate::text::CountedNoun;

/// The time for which an answer counts for the health. A dependency that gives good answers again is
/// told so after this time at the latest.
pub const HEALTH_SPAN: Duration = Duration::from_secs(30);

/// Number of answers from which a share of errors is judged and shown (rule BRK-14).
pub const HEALTH_MINIMUM_CALLS: u64 = 20;

/// Number of answers from which a dependency is down by its errors alone. Below it, one failed call
/// of a quiet dependency would be an outage.
pub const DOWN_MINIMUM_CALLS: u64 = 5;

/// When the answers of a dependency make it degraded.
///
/// # Source  Rule HLT-1 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSettings {
    /// Share of errors, in [0, 1], at or above which the dependency is degraded.
    pub degraded_at: Rate,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            degraded_at: Rate::FIVE_PERCENT,
        }
    }
}

/// Number of answers that callers got, by their source. Callers' own mistakes, cancelled calls and
/// other outcomes that say nothing of the service are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswerCounts {
    /// Answers of the dependency itself.
    pub own: u64,
    /// Answers of its fallbacks.
    pub by_fallback: u64,
    /// Errors.
    pub errors: u64,
}

/// Service that callers get, by their answers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceLevel {
    /// Too few errors to matter, or too few answers to judge.
    Good,
    /// The share of errors is at or above [`HealthSettings::degraded_at`].
    Degraded,
    /// Half of the answers, or more, are errors.
    Down,
}

impl AnswerCounts {
    /// Number of answers.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.own + self.by_fallback + self.errors
    }

    /// Returns the share of errors, in [0, 1]; `None` before [`HEALTH_MINIMUM_CALLS`] answers.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        // BRK-14: a share of fewer answers is not told.
        (self.calls() >= HEALTH_MINIMUM_CALLS).then(|| self.exact_share())
    }

    /// Returns the share of errors of however few answers, in [0, 1]; 0 without any.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown in percent")]
    pub fn exact_share(&self) -> f64 {
        self.errors as f64 / self.calls().max(1) as f64
    }

    /// Returns true if half of the answers, or more, are errors.
    #[must_use]
    pub const fn are_mostly_errors(&self) -> bool {
        self.errors > 0 && self.errors >= self.own + self.by_fallback
    }

    /// Returns the answers that came after `earlier`, which was read from the same counters.
    #[must_use]
    pub const fn since(&self, earlier: Self) -> Self {
        Self {
            own: self.own.saturating_sub(earlier.own),
            by_fallback: self.by_fallback.saturating_sub(earlier.by_fallback),
            errors: self.errors.saturating_sub(earlier.errors),
        }
    }

    /// Returns the smaller count of each kind: the answers of the shorter of two periods that end
    /// at the same moment.
    #[must_use]
    pub fn at_most(&self, other: Self) -> Self {
        Self {
            own: self.own.min(other.own),
            by_fallback: self.by_fallback.min(other.by_fallback),
            errors: self.errors.min(other.errors),
        }
    }

    /// Returns the sum of two counts.
    #[must_use]
    pub const fn plus(&self, other: Self) -> Self {
        Self {
            own: self.own + other.own,
            by_fallback: self.by_fallback + other.by_fallback,
            errors: self.errors + other.errors,
        }
    }

    /// Judges the service by these answers, in integers.
    #[must_use]
    pub fn judge(&self, settings: &HealthSettings) -> ServiceLevel {
        let calls = self.calls();
        // HLT-1: half of the answers are errors: callers find it down, also with fallbacks.
        if calls >= DOWN_MINIMUM_CALLS && self.are_mostly_errors() {
            return ServiceLevel::Down;
        }
        // HLT-1: at or above the share, with enough answers to tell one.
        let is_told = calls >= HEALTH_MINIMUM_CALLS && self.errors > 0;
        if is_told && settings.degraded_at.is_reached(self.errors, calls) {
            ServiceLevel::Degraded
        } else {
            ServiceLevel::Good
        }
    }
}

/// The errors among the answers: their share, or before enough answers their number.
impl fmt::Display for AnswerCounts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = CountedNoun(self.calls(), "call");
        match self.share() {
            Some(share) if share >= 0.0995 || share == 0.0 => {
                write!(out, "{:.0} % of {calls} got errors", share * 100.0)
            }
            Some(share) => write!(out, "{:.1} % of {calls} got errors", share * 100.0),
            // BRK-14: before that, how many of how many.
            None => write!(out, "{} of {calls} got errors", self.errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(own: u64, by_fallback: u64, errors: u64) -> AnswerCounts {
        AnswerCounts {
            own,
            by_fallback,
            errors,
        }
    }

    fn judged(own: u64, by_fallback: u64, errors: u64) -> ServiceLevel {
        counts(own, by_fallback, errors).judge(&HealthSettings::default())
    }

    #[test]
    fn hlt_1_a_share_of_five_percent_degrades_from_twenty_answers_on() {
        assert_eq!(judged(19, 0, 1), ServiceLevel::Degraded);
        assert_eq!(judged(18, 0, 1), ServiceLevel::Good, "19 answers");
        assert_eq!(judged(39, 0, 2), ServiceLevel::Good, "4.9 %");
        assert_eq!(judged(1_000, 0, 0), ServiceLevel::Good);
        assert_eq!(judged(0, 19, 1), ServiceLevel::Degraded, "by fallbacks too");
    }

    #[test]
    fn hlt_1_half_of_the_answers_are_errors_is_down() {
        assert_eq!(judged(30, 0, 30), ServiceLevel::Down);
        assert_eq!(judged(31, 0, 30), ServiceLevel::Degraded);
        assert_eq!(judged(0, 0, 5), ServiceLevel::Down);
        assert_eq!(judged(0, 0, 4), ServiceLevel::Good, "too few to judge");
        assert_eq!(judged(0, 30, 30), ServiceLevel::Down);
    }

    #[test]
    fn hlt_1_the_share_that_degrades_is_a_setting() {
        let never = HealthSettings {
            degraded_at: Rate::new(0.4).unwrap(),
        };
        assert_eq!(counts(61, 0, 39).judge(&never), ServiceLevel::Good);
        assert_eq!(counts(60, 0, 40).judge(&never), ServiceLevel::Degraded);
    }

    #[test]
    fn brk_14_the_share_is_told_from_twenty_answers_on() {
        assert_eq!(counts(10, 0, 9).share(), None);
        assert_eq!(counts(10, 0, 10).share(), Some(0.5));
        assert!(counts(0, 0, 0).exact_share() < f64::EPSILON);
    }

    #[test]
    fn brk_14_errors_are_told_as_a_share_or_as_a_number() {
        assert_eq!(counts(41, 0, 20).to_string(), "33 % of 61 calls got errors");
        assert_eq!(
            counts(95, 0, 5).to_string(),
            "5.0 % of 100 calls got errors"
        );
        assert_eq!(counts(0, 0, 1).to_string(), "1 of 1 call got errors");
        assert_eq!(counts(3, 0, 5).to_string(), "5 of 8 calls got errors");
    }

    #[test]
    fn the_shorter_of_two_periods_has_the_smaller_counts() {
        let all = counts(10, 5, 3);
        assert_eq!(all.since(counts(4, 5, 0)), counts(6, 0, 3));
        assert_eq!(counts(1, 2, 3).since(all), AnswerCounts::default());
        assert_eq!(all.at_most(counts(6, 9, 0)), counts(6, 5, 0));
        assert_eq!(all.plus(counts(1, 1, 1)), counts(11, 6, 4));
    }

    #[test]
    fn hlt_1_without_an_error_a_service_is_good_whatever_is_set() {
        assert!(!counts(0, 0, 0).are_mostly_errors());
        let at_any = HealthSettings {
            degraded_at: Rate::ZERO,
        };
        assert_eq!(counts(100, 0, 0).judge(&at_any), ServiceLevel::Good);
        assert_eq!(counts(99, 0, 1).judge(&at_any), ServiceLevel::Degraded);
    }
}
