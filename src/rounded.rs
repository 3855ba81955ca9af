//! Durations as numbers for programs and people: milliseconds without the debris of floating point.

use std::time::Duration;

/// Converts to milliseconds with at most three places.
///
/// # Units   The result is exact to the microsecond.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds are exact for 285 years"
)]
pub(crate) fn millis(span: Duration) -> f64 {
    // A division of whole numbers gives the nearest number, and its shortest text has three places.
    let micros = (span.as_nanos() + 500) / 1_000;
    micros as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_milliseconds_have_at_most_three_places() {
        for (nanos, shown) in [
            (0, "0.0"),
            (13_566_999_999, "13567.0"),
            (17_968_999, "17.969"),
            (1_499, "0.001"),
            (1_500, "0.002"),
        ] {
            let span = Duration::from_nanos(nanos);
            assert_eq!(format!("{:?}", millis(span)), shown);
        }
        let sum: Duration = (0..1000).map(|_| Duration::from_micros(1)).sum();
        assert_eq!(millis(sum).to_string(), "1");
    }
}
