//! Delays that grow, spread at random so that callers do not retry together.
//!
//! Nothing here draws a random number: it is an argument.

use std::time::Duration;

use crate::{BackoffSettings, OpenTime, RandomSource, RetryJitter};

/// Returns the delay before retry number `n`, 0 for the first.
///
/// # Units   Never longer than `max`, except by [`RetryJitter::Added`].
/// # Source  Rule LIM-1 in docs/rules.md: 100 ms, 200 ms, … at factor 2 without jitter.
pub(crate) fn delay(settings: &BackoffSettings, n: u32, random: &mut dyn RandomSource) -> Duration {
    delay_after(settings, n, None, random)
}

/// Returns the delay before retry number `n`, given the delay before the retry ahead of it.
///
/// [`RetryJitter::Decorrelated`] continues from `previous`; the other kinds ignore it.
pub(crate) fn delay_after(
    settings: &BackoffSettings,
    n: u32,
    previous: Option<Duration>,
    random: &mut dyn RandomSource,
) -> Duration {
    let DelayParts { fixed, spread } = parts(settings, n, previous, random);
    fixed.saturating_add(spread)
}

/// Returns the delay before retry number `n` when the dependency requested one.
///
/// The hint is never shortened, and the random part is added on top: callers with the same hint
/// must not return at the same instant.
///
/// # Source  Rule LIM-1 in docs/rules.md.
pub(crate) fn delay_with_hint(
    settings: &BackoffSettings,
    n: u32,
    hint: Duration,
    random: &mut dyn RandomSource,
) -> Duration {
    let DelayParts { fixed, spread } = parts(settings, n, None, random);
    fixed.max(hint).saturating_add(spread)
}

/// Returns a pause that the dependency requested: its hint, independent of the backoff's own delay,
/// plus the backoff's random part.
///
/// # Source  Rule LIM-1 in docs/rules.md.
pub(crate) fn hinted(
    settings: &BackoffSettings,
    n: u32,
    hint: Duration,
    random: &mut dyn RandomSource,
) -> Duration {
    let DelayParts { spread, .. } = parts(settings, n, None, random);
    // LIM-1: never shorter than asked, with jitter on top.
    hint.saturating_add(spread)
}

/// Returns the open time of a breaker that opened `attempt` times in a row before, 0 for the first.
///
/// # Units   At least `min(base * factor^attempt, max)`: jitter only lengthens.
/// # Source  Rule BRK-8 in docs/rules.md.
pub(crate) fn open_time(
    settings: &OpenTime,
    attempt: u32,
    random: &mut dyn RandomSource,
) -> Duration {
    let nominal = grown(settings.base, settings.factor, settings.max, attempt);
    let share = settings.jitter.clamp(0.0, 1.0) * random.unit();
    nominal.saturating_add(scaled(nominal, share))
}

struct DelayParts {
    fixed: Duration,
    spread: Duration,
}

fn parts(
    settings: &BackoffSettings,
    n: u32,
    previous: Option<Duration>,
    random: &mut dyn RandomSource,
) -> DelayParts {
    let nominal = grown(settings.base, settings.factor, settings.max, n);
    let (fixed, widest) = match settings.jitter {
        RetryJitter::None => (nominal, Duration::ZERO),
        RetryJitter::Full => (Duration::ZERO, nominal),
        RetryJitter::Equal => (nominal - nominal / 2, nominal / 2),
        RetryJitter::Added(share) => (nominal, scaled(nominal, share.clamp(0.0, 1.0))),
        RetryJitter::Decorrelated => {
            let base = settings.base.min(settings.max);
            let before = previous.unwrap_or_else(|| match n {
                0 => base,
                n => grown(settings.base, settings.factor, settings.max, n - 1),
            });
            let widest = before.saturating_mul(3).min(settings.max);
            (base, widest.saturating_sub(base))
        }
    };
    let spread = if widest.is_zero() {
        Duration::ZERO
    } else {
        scaled(widest, random.unit())
    };
    DelayParts { fixed, spread }
}

/// Returns `min(base * factor^n, max)`; a factor below one, or not a number, does not grow.
fn grown(base: Duration, factor: f64, max: Duration, n: u32) -> Duration {
    if n == 0 || factor <= 1.0 {
        return base.min(max);
    }
    let exponent = i32::try_from(n).unwrap_or(i32::MAX);
    let grown = scaled(base, factor.max(1.0).powi(exponent));
    grown.min(max)
}

/// Multiplies a span by a number that is not negative, saturating.
fn scaled(span: Duration, by: f64) -> Duration {
    Duration::try_from_secs_f64(span.as_secs_f64() * by).unwrap_or(if span.is_zero() {
        Duration::ZERO
    } else {
        Duration::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn settings(jitter: RetryJitter) -> BackoffSettings {
        BackoffSettings {
            base: 100 * MS,
            factor: 2.0,
            max: 350 * MS,
            jitter,
        }
    }

    #[test]
    fn a_delay_doubles_up_to_its_maximum() {
        let settings = settings(RetryJitter::None);
        let delays: Vec<_> = (0..4).map(|n| delay(&settings, n, &mut || 0.9)).collect();
        assert_eq!(delays, [100 * MS, 200 * MS, 350 * MS, 350 * MS]);
        assert_eq!(delay(&settings, u32::MAX, &mut || 0.9), 350 * MS);
    }

    #[test]
    fn each_jitter_stays_within_its_bounds() {
        for (jitter, low, high) in [
            (RetryJitter::Full, 0, 100),
            (RetryJitter::Equal, 50, 100),
            (RetryJitter::Added(0.2), 100, 120),
        ] {
            let settings = settings(jitter);
            assert_eq!(delay(&settings, 0, &mut || 0.0), low * MS);
            let most = delay(&settings, 0, &mut || 0.999_999);
            assert!(most <= high * MS && most > (high - 1) * MS, "{most:?}");
        }
    }

    #[test]
    fn decorrelated_delays_go_on_from_the_one_before() {
        let settings = settings(RetryJitter::Decorrelated);
        let next = |previous, unit: f64| delay_after(&settings, 1, previous, &mut || unit);
        assert_eq!(next(Some(100 * MS), 0.0), 100 * MS);
        assert_eq!(next(Some(110 * MS), 0.5), 215 * MS, "between 100 and 330");
        assert_eq!(next(Some(300 * MS), 0.999_9).as_millis(), 349);
        assert_eq!(next(None, 0.5), 200 * MS, "as after the first delay");
    }

    #[test]
    fn lim_1_a_hint_is_never_shortened_and_spread_upward() {
        let full = settings(RetryJitter::Full);
        assert_eq!(delay_with_hint(&full, 0, 7000 * MS, &mut || 0.0), 7000 * MS);
        assert_eq!(delay_with_hint(&full, 0, 7000 * MS, &mut || 0.5), 7050 * MS);
        let none = settings(RetryJitter::None);
        assert_eq!(delay_with_hint(&none, 0, MS, &mut || 0.5), 100 * MS);
    }

    #[test]
    fn brk_8_open_time_grows_by_the_attempt_and_jitter_only_lengthens() {
        let open = OpenTime {
            base: Duration::from_secs(5),
            factor: 2.0,
            max: Duration::from_secs(15),
            jitter: 0.1,
        };
        let seconds = |attempt, unit: f64| open_time(&open, attempt, &mut || unit).as_secs_f64();
        assert_eq!(seconds(0, 0.0), 5.0);
        assert_eq!(seconds(1, 0.0), 10.0);
        assert_eq!(seconds(9, 0.0), 15.0);
        assert!((seconds(0, 0.5) - 5.25).abs() < 1e-9);
    }

    #[test]
    fn nothing_overflows() {
        let huge = BackoffSettings {
            base: Duration::MAX,
            factor: f64::MAX,
            max: Duration::MAX,
            jitter: RetryJitter::Added(1.0),
        };
        assert_eq!(delay(&huge, u32::MAX, &mut || 0.5), Duration::MAX);
        let zero = BackoffSettings {
            base: Duration::ZERO,
            ..huge
        };
        assert_eq!(delay(&zero, u32::MAX, &mut || 0.5), Duration::ZERO);
    }

    #[test]
    fn a_delay_that_does_not_grow_is_exact() {
        // As a float, it would lose its last nanosecond.
        let exact = Duration::new(100_000_000, 1);
        for factor in [1.0, 0.5] {
            assert_eq!(grown(exact, factor, Duration::MAX, 3), exact);
        }
        assert_eq!(grown(exact, 2.0, Duration::MAX, 0), exact);
    }
}
