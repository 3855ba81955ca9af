//! The values that settings may have, for files and for code alike.
//!
//! The reader of the configuration takes its ranges from here, and [`DependencySettings::judge`]
//! judges settings that a program has made.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{
    AdaptiveRule, BackoffSettings, DependencySettings, HalfOpenRule, QuotaReset, RetryJitter,
};

/// Maximum duration of any setting.
pub const YEAR: Duration = Duration::from_secs(31_557_600);
/// Minimum duration of settings for which zero is meaningless.
pub const TICK: Duration = Duration::from_millis(1);
/// A duration that zero would make meaningless.
pub const SPAN: RangeInclusive<Duration> = TICK..=YEAR;
/// A duration that may be zero.
pub const WAIT: RangeInclusive<Duration> = Duration::ZERO..=YEAR;
/// The growth of a delay, from one to the next.
pub const FACTOR: RangeInclusive<f64> = 1.0..=100.0;
/// A share of a whole.
pub const SHARE: RangeInclusive<f64> = 0.0..=1.0;
/// The number of calls, or units of weight, in each interval of a rate limit.
pub const CALL_RATE: RangeInclusive<f64> = 0.001..=1e9;
/// The factor by which latency may exceed its usual value, for an adaptive limit.
pub const TOLERANCE: RangeInclusive<f64> = 1.0..=100.0;

/// A setting with a value that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {given}, it must be {allowed}")]
pub struct SettingProblem {
    /// The key, as in a file.
    pub key: String,
    /// The given value.
    pub given: String,
    /// The values that are allowed.
    pub allowed: String,
}

/// The first problem of some settings.
type Judged = Result<(), SettingProblem>;

impl DependencySettings {
    /// Judges the settings as those of a file are judged: numbers are in their ranges, and a half-open
    /// breaker can close. Durations may be any: zero and years have a meaning, and tests use them.
    ///
    /// # Errors  The first setting that cannot work, by its key.
    pub fn judge(&self) -> Judged {
        self.judge_breaker()?;
        backoff("retry.backoff", &self.retry.backoff)?;
        if let Some(budget) = &self.retry.budget {
            number("retry.budget.ratio", budget.ratio, &SHARE)?;
        }
        self.judge_limits()?;
        self.judge_workers()
    }

    fn judge_breaker(&self) -> Judged {
        let breaker = &self.breaker;
        let growth = "breaker.recovery_backoff";
        number(&format!("{growth}.factor"), breaker.open.factor, &FACTOR)?;
        number(&format!("{growth}.jitter"), breaker.open.jitter, &SHARE)?;
        let half_open = &breaker.half_open;
        let needed = match half_open.rule {
            HalfOpenRule::KOfN { needed, of } if of < needed => {
                let allowed = format!("at least half_open_attempt_limit, which is {needed}");
                return problem("breaker.half_open_rule.of", of, allowed);
            }
            HalfOpenRule::Successes(needed) | HalfOpenRule::KOfN { needed, .. } => needed,
            HalfOpenRule::Rate { results } => results,
            HalfOpenRule::AutoClose => return Ok(()),
        };
        match half_open.max_admitted.filter(|most| *most < needed) {
            None => Ok(()),
            Some(most) => {
                let allowed = format!("at least half_open_attempt_limit, which is {needed}");
                problem("breaker.half_open_max_admitted", most, allowed)
            }
        }
    }

    fn judge_limits(&self) -> Judged {
        if let Some(rate) = &self.rate_limit {
            number("rate_limit.rate", rate.rate, &CALL_RATE)?;
        }
        let throttle = &self.throttle;
        backoff("throttle.backoff", &throttle.backoff)?;
        match throttle.quota_reset {
            QuotaReset::Daily { hour, minute, .. } if hour > 23 || minute > 59 => {
                let given = format!("{hour:02}:{minute:02}");
                let allowed = "a time of day from 00:00 to 23:59".to_owned();
                return problem("throttle.quota_reset.at", given, allowed);
            }
            QuotaReset::After(_) | QuotaReset::Daily { .. } => {}
        }
        match self
            .bulkhead
            .adaptive
            .as_ref()
            .map(|adaptive| &adaptive.rule)
        {
            Some(AdaptiveRule::Gradient { tolerance }) => {
                number("bulkhead.adaptive.tolerance", *tolerance, &TOLERANCE)
            }
            _ => Ok(()),
        }
    }

    fn judge_workers(&self) -> Judged {
        let within = self.workers.intensity.within;
        if within.is_zero() {
            let allowed = "longer than that".to_owned();
            return problem("workers.intensity.within", "0s", allowed);
        }
        backoff("workers.backoff", &self.workers.backoff)
    }
}

fn backoff(key: &str, delays: &BackoffSettings) -> Judged {
    number(&format!("{key}.factor"), delays.factor, &FACTOR)?;
    match delays.jitter {
        RetryJitter::Added(share) => number(&format!("{key}.jitter"), share, &SHARE),
        _ => Ok(()),
    }
}

/// Judges a number. NaN is in no range.
fn number(key: &str, given: f64, range: &RangeInclusive<f64>) -> Judged {
    if range.contains(&given) {
        return Ok(());
    }
    let allowed = format!("a number from {} to {}", range.start(), range.end());
    problem(key, given, allowed)
}

fn problem(key: &str, given: impl fmt::Display, allowed: String) -> Judged {
    Err(SettingProblem {
        key: key.to_owned(),
        given: given.to_string(),
        allowed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RateLimitSettings;

    /// Changes one setting.
    type Change = fn(&mut DependencySettings);

    #[test]
    fn cfg_1_the_defaults_and_the_ends_of_ranges_are_allowed() {
        let mut settings = DependencySettings::default();
        assert_eq!(settings.judge(), Ok(()));
        settings.timeout.total = Some(Duration::MAX);
        settings.timeout.idle = Some(Duration::ZERO);
        settings.bulkhead.max_wait = Duration::ZERO;
        settings.retry.backoff.factor = 100.0;
        assert_eq!(settings.judge(), Ok(()));
    }

    #[test]
    fn cfg_1_numbers_that_cannot_work_are_named() {
        let limit = |rate| RateLimitSettings {
            rate,
            per: Duration::from_secs(1),
            burst: std::num::NonZeroU32::MIN,
            max_wait: Duration::ZERO,
        };
        let cases: [(&str, Change); 6] = [
            ("workers.intensity.within", |s| {
                s.workers.intensity.within = Duration::ZERO;
            }),
            ("retry.backoff.factor", |s| {
                s.retry.backoff.factor = f64::NAN
            }),
            ("retry.budget.ratio", |s| {
                s.retry.budget.as_mut().unwrap().ratio = f64::INFINITY;
            }),
            ("workers.backoff.factor", |s| s.workers.backoff.factor = 0.5),
            ("workers.backoff.jitter", |s| {
                s.workers.backoff.jitter = RetryJitter::Added(-1.0);
            }),
            ("breaker.recovery_backoff.jitter", |s| {
                s.breaker.open.jitter = f64::NEG_INFINITY;
            }),
        ];
        for (key, change) in cases {
            let mut settings = DependencySettings::default();
            change(&mut settings);
            assert_eq!(settings.judge().unwrap_err().key, key);
        }
        for rate in [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e-12] {
            let settings = DependencySettings {
                rate_limit: Some(limit(rate)),
                ..DependencySettings::default()
            };
            let told = settings.judge().unwrap_err().to_string();
            assert!(told.starts_with("rate_limit.rate is "), "{told}");
        }
    }

    #[test]
    fn cfg_1_a_half_open_breaker_can_reach_its_decision() {
        let one = |number| std::num::NonZeroU32::new(number).unwrap();
        let judged = |rule, most: Option<u32>| {
            let mut settings = DependencySettings::default();
            settings.breaker.half_open.rule = rule;
            settings.breaker.half_open.max_admitted = most.map(one);
            settings.judge().map_err(|problem| problem.to_string())
        };
        let k_of_n = |needed, of| HalfOpenRule::KOfN {
            needed: one(needed),
            of: one(of),
        };
        assert_eq!(judged(k_of_n(3, 3), None), Ok(()));
        assert_eq!(judged(k_of_n(3, 4), None), Ok(()));
        let told = "breaker.half_open_rule.of is 2, it must be at least half_open_attempt_limit, \
                    which is 3";
        assert_eq!(judged(k_of_n(3, 2), None), Err(told.into()));
        for rule in [
            k_of_n(3, 5),
            HalfOpenRule::Successes(one(3)),
            HalfOpenRule::Rate { results: one(3) },
        ] {
            assert_eq!(judged(rule, Some(3)), Ok(()));
            assert_eq!(judged(rule, Some(4)), Ok(()));
            let told = "breaker.half_open_max_admitted is 2, it must be at least \
                        half_open_attempt_limit, which is 3";
            assert_eq!(judged(rule, Some(2)), Err(told.into()));
        }
        assert_eq!(judged(HalfOpenRule::AutoClose, Some(1)), Ok(()));
    }

    #[test]
    fn cfg_1_a_quota_ends_at_a_time_of_day_and_a_tolerance_has_its_range() {
        for (hour, minute, works) in [
            (0, 0, true),
            (23, 59, true),
            (24, 0, false),
            (23, 60, false),
            (24, 60, false),
        ] {
            let mut settings = DependencySettings::default();
            settings.throttle.quota_reset = QuotaReset::Daily {
                hour,
                minute,
                zone: "UTC".into(),
            };
            let key = settings.judge().map_err(|problem| problem.key);
            let named = Err("throttle.quota_reset.at".to_owned());
            assert_eq!(key, if works { Ok(()) } else { named }, "{hour}:{minute}");
        }
        for (tolerance, works) in [(1.0, true), (100.0, true), (0.9, false), (f64::NAN, false)] {
            let mut settings = DependencySettings::default();
            settings.bulkhead.adaptive = Some(crate::AdaptiveSettings {
                rule: AdaptiveRule::Gradient { tolerance },
                ..crate::AdaptiveSettings::default()
            });
            assert_eq!(settings.judge().is_ok(), works, "{tolerance}");
        }
    }
}
