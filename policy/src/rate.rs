//! Fractions that are compared as integers, and the source of randomness.

use std::fmt;

/// A fraction in [0, 1], stored in millionths so that comparisons are exact.
///
/// Floating-point rates drift: 49.6 % rounded to two digits reads as 50 % and opens a breaker
/// that should have stayed closed.
///
/// # Source  Rule BRK-1 in docs/rules.md.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rate(u32);

/// A rate outside of [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{given} is not a fraction between 0 and 1")]
pub struct RateError {
    /// The given value.
    pub given: f64,
}

impl Rate {
    const ONE: u32 = 1_000_000;

    /// The rate zero.
    pub const ZERO: Self = Self(0);

    /// A twentieth.
    pub(crate) const FIVE_PERCENT: Self = Self(50_000);

    /// Ninety-nine of a hundred: nearly all.
    pub const NEARLY_ALL: Self = Self(990_000);

    /// Converts a fraction to a rate.
    ///
    /// # Units   `fraction`: [0, 1], rounded to the nearest millionth.
    /// # Errors  [`RateError`] when the fraction is not a number in [0, 1].
    pub fn new(fraction: f64) -> Result<Self, RateError> {
        if (0.0..=1.0).contains(&fraction) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Ok(Self((fraction * f64::from(Self::ONE)).round() as u32))
        } else {
            Err(RateError { given: fraction })
        }
    }

    /// Returns the fraction, in [0, 1].
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ONE)
    }

    /// Returns true if `part` of `whole` reaches this rate (`>=`). Zero of zero reaches no rate.
    pub(crate) fn is_reached(self, part: u64, whole: u64) -> bool {
        whole > 0
            && u128::from(part) * u128::from(Self::ONE) >= u128::from(self.0) * u128::from(whole)
    }

    /// Returns the smallest part of `whole` that reaches this rate.
    pub(crate) fn least_part(self, whole: u64) -> u64 {
        let exact = u128::from(self.0) * u128::from(whole);
        u64::try_from(exact.div_ceil(u128::from(Self::ONE))).unwrap_or(u64::MAX)
    }

    /// Returns this share of `whole`, rounded down.
    pub(crate) fn part_of(self, whole: u64) -> u64 {
        let exact = u128::from(self.0) * u128::from(whole);
        u64::try_from(exact / u128::from(Self::ONE)).unwrap_or(u64::MAX)
    }
}

/// The fraction, so that settings that contain a rate show it as it was written.
impl fmt::Debug for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.as_f64())
    }
}

/// Source of the kernel's random numbers.
///
/// The kernel draws none itself: tests pass a constant, the runtime passes its generator.
pub trait RandomSource {
    /// Returns a number in [0, 1).
    fn unit(&mut self) -> f64;
}

impl<F: FnMut() -> f64> RandomSource for F {
    fn unit(&mut self) -> f64 {
        self()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brk_1_a_rate_is_reached_at_its_exact_value_and_not_below() {
        let half = Rate::new(0.5).unwrap();
        assert!(half.is_reached(5, 10));
        assert!(!half.is_reached(496, 1000));
        assert!(!half.is_reached(0, 0));
        assert_eq!(half.least_part(5), 3);
    }

    #[test]
    fn a_fraction_outside_of_zero_and_one_is_refused() {
        for given in [-0.1, 1.000_1, f64::NAN, f64::INFINITY] {
            assert!(Rate::new(given).is_err());
        }
    }

    #[test]
    fn a_rate_is_shown_as_it_was_written() {
        let rate = Rate::new(0.25).unwrap();
        assert_eq!(
            (rate.to_string(), format!("{rate:?}")),
            ("0.25".into(), "0.25".into())
        );
    }
}
