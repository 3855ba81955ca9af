//! Durations in texts for people.

use std::fmt;
use std::time::Duration;

/// A duration with two significant digits and a unit, such as `30 s`, `1.5 s` or `250 ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoundedDuration(pub(crate) Duration);

/// Each unit in seconds, its sign, and the number from which the next one is used.
const UNITS: [(f64, &str, f64); 7] = [
    (1e-9, "ns", 1_000.0),
    (1e-6, "µs", 1_000.0),
    (1e-3, "ms", 1_000.0),
    (1.0, "s", 100.0),
    (60.0, "min", 100.0),
    (3_600.0, "h", 100.0),
    (86_400.0, "d", f64::INFINITY),
];

impl fmt::Display for RoundedDuration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return out.write_str("0 s");
        }
        let shown = UNITS.iter().find_map(|&(unit, sign, next)| {
            let rounded = two_digits(self.0.as_secs_f64() / unit);
            (rounded < next).then_some((rounded, sign))
        });
        let (number, sign) = shown.unwrap_or((f64::INFINITY, "d"));
        write!(out, "{number} {sign}")
    }
}

fn two_digits(number: f64) -> f64 {
    if number < 10.0 {
        (number * 10.0).round() / 10.0
    } else {
        let step = 10_f64.powf(number.log10().floor() - 1.0);
        (number / step).round() * step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_two_digits_and_a_unit() {
        for (span, shown) in [
            (Duration::ZERO, "0 s"),
            (Duration::from_nanos(7), "7 ns"),
            (Duration::from_nanos(1_234), "1.2 µs"),
            (Duration::from_millis(250), "250 ms"),
            (Duration::from_millis(257), "260 ms"),
            (Duration::from_micros(999_600), "1 s"),
            (Duration::from_millis(1_500), "1.5 s"),
            (Duration::from_millis(29_999), "30 s"),
            (Duration::from_secs(99), "99 s"),
            (Duration::from_secs(125), "2.1 min"),
            (Duration::from_secs(3_600), "60 min"),
            (Duration::from_secs(2 * 3_600), "2 h"),
            (Duration::from_secs(30 * 86_400), "30 d"),
        ] {
            assert_eq!(RoundedDuration(span).to_string(), shown);
        }
        assert!(RoundedDuration(Duration::MAX).to_string().ends_with(" d"));
    }
}
