//! Words for people: rounded durations, and counts with their noun. Nothing here decides.

use std::fmt;
use std::time::Duration;

/// A duration with two significant digits and a unit, such as `30 s`, `1.5 s` or `250 ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundedDuration(pub Duration);

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

/// A duration as a file of the configuration has it, exactly: `1m 30s`, `250ms`, `1day`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfiguredSpan(pub Duration);

impl fmt::Display for ConfiguredSpan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if self.0.is_zero() {
            return out.write_str("0s");
        }
        let days = seconds / 86_400;
        let parts = [
            (days, if days == 1 { "day" } else { "days" }),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(nanos / 1_000_000), "ms"),
            (u64::from(nanos / 1_000 % 1_000), "us"),
            (u64::from(nanos % 1_000), "ns"),
        ];
        let mut blank = "";
        for (number, unit) in parts.iter().filter(|(number, _)| *number > 0) {
            write!(out, "{blank}{number}{unit}")?;
            blank = " ";
        }
        Ok(())
    }
}

/// A count and its noun, such as `1 call`, `2 calls` or `3 dependencies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedNoun(pub u64, pub &'static str);

impl fmt::Display for CountedNoun {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        if *count == 1 {
            return write!(out, "1 {noun}");
        }
        let is_vowel = |letter: char| "aeiou".contains(letter);
        match noun.strip_suffix('y') {
            Some(stem) if !stem.ends_with(is_vowel) => write!(out, "{count} {stem}ies"),
            _ => write!(out, "{count} {noun}s"),
        }
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

    #[test]
    fn a_span_of_the_configuration_is_exact() {
        for (span, shown) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(250), "250ms"),
            (Duration::from_millis(1_500), "1s 500ms"),
            (Duration::from_secs(60), "1m"),
            (Duration::from_secs(600), "10m"),
            (Duration::from_secs(3_723), "1h 2m 3s"),
            (Duration::from_secs(86_400), "1day"),
            (Duration::from_secs(2 * 86_400 + 1), "2days 1s"),
            (Duration::from_nanos(1_002_003), "1ms 2us 3ns"),
        ] {
            assert_eq!(ConfiguredSpan(span).to_string(), shown);
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(CountedNoun(1, "probe").to_string(), "1 probe");
        assert_eq!(CountedNoun(0, "probe").to_string(), "0 probes");
        assert_eq!(CountedNoun(2, "dependency").to_string(), "2 dependencies");
        assert_eq!(CountedNoun(2, "key").to_string(), "2 keys");
    }
}
