//! A limit that follows the ratio of long-run to current latency.

use std::num::NonZeroU32;
use std::time::Duration;

/// Approximate number of calls in the current average. One call alone says little: a dependency
/// with fast and slow requests would never look steady.
const SHORT_RUN: f64 = 10.0;

/// Approximate number of calls in the long-run average, to which the current one is compared.
const LONG_RUN: f64 = 600.0;

/// Fraction of the distance to its goal that a limit moves per call.
const SMOOTHING: f64 = 0.2;

/// Minimum of the goal as a share of the limit, so that one outlier sheds few calls.
const STEEPEST: f64 = 0.5;

/// A limit that falls while calls take longer than usual, and grows otherwise.
///
/// Its goal is the limit times the ratio of usual to current latency, plus room for a queue: the
/// square root of the limit. Latency moves the limit only while the limit is used, so that idle
/// callers do not raise it without bound. A drop has the effect of the worst latency.
///
/// # Source  concurrency-limits, `Gradient2Limit`.
#[derive(Debug, Clone)]
pub(super) struct GradientLimit {
    limit: f64,
    min: NonZeroU32,
    max: NonZeroU32,
    tolerance: f64,
    now: LatencyAverage,
    usual: LatencyAverage,
}

impl GradientLimit {
    /// Returns a limit that starts at `initial`, within `min` and `max`.
    ///
    /// # Units   `tolerance`: factor by which latency may exceed its usual value without a
    /// decrease; at least 1.
    pub(super) fn new(initial: u32, min: NonZeroU32, max: NonZeroU32, tolerance: f64) -> Self {
        let max = max.max(min);
        Self {
            limit: f64::from(initial.clamp(min.get(), max.get())),
            min,
            max,
            tolerance: tolerance.max(1.0),
            now: LatencyAverage::over(SHORT_RUN),
            usual: LatencyAverage::over(LONG_RUN),
        }
    }

    /// Learns from one call, and returns the limit.
    ///
    /// # Units   `in_flight`: calls in flight at the time of the sample, this one included. `rtt`:
    /// duration of the call; ignored for a drop, and zero says nothing about the dependency.
    pub(super) fn sample(&mut self, in_flight: u32, rtt: Duration, dropped: bool) -> u32 {
        if dropped {
            self.approach(self.limit * STEEPEST);
            return self.limit();
        }
        let gradient = self.gradient(rtt);
        if in_flight.saturating_mul(2) >= self.limit() {
            self.approach(self.limit * gradient + self.limit.sqrt());
        }
        self.limit()
    }

    /// Returns the limit.
    pub(super) const fn limit(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = self.limit as u32;
        whole
    }

    /// Forgets the latencies, and continues from this limit, within its bounds.
    pub(super) fn restart(&mut self, limit: u32) {
        self.now = LatencyAverage::over(SHORT_RUN);
        self.usual = LatencyAverage::over(LONG_RUN);
        self.set(f64::from(limit));
    }

    /// Continues from the state of another limit, within its own bounds.
    pub(super) fn go_on_from(&mut self, other: Self) {
        self.now = other.now;
        self.usual = other.usual;
        self.set(other.limit);
    }

    fn gradient(&mut self, rtt: Duration) -> f64 {
        let seconds = rtt.as_secs_f64();
        if seconds > 0.0 {
            let now = self.now.add(seconds);
            // After a long disturbance, the raised long-run average decays quickly.
            if self.usual.add(seconds) > 2.0 * now {
                self.usual.mean *= 0.95;
            }
        }
        if self.now.mean > 0.0 {
            (self.tolerance * self.usual.mean / self.now.mean).clamp(STEEPEST, 1.0)
        } else {
            1.0
        }
    }

    fn approach(&mut self, goal: f64) {
        self.set(self.limit + (goal - self.limit) * SMOOTHING);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(self.min.get()), f64::from(self.max.get()));
    }
}

/// An exponential average, and a plain average until it has enough values.
#[derive(Debug, Clone)]
struct LatencyAverage {
    /// Minimum weight of a new value.
    share: f64,
    seen: u32,
    mean: f64,
}

impl LatencyAverage {
    fn over(run: f64) -> Self {
        Self {
            share: 2.0 / (run + 1.0),
            seen: 0,
            mean: 0.0,
        }
    }

    fn add(&mut self, value: f64) -> f64 {
        self.seen = self.seen.saturating_add(1);
        let share = self.share.max(1.0 / f64::from(self.seen));
        self.mean += (value - self.mean) * share;
        self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(times: &[(u64, u32)]) -> GradientLimit {
        let most = NonZeroU32::MIN.saturating_add(99);
        let mut limit = GradientLimit::new(100, NonZeroU32::MIN, most, 1.5);
        for &(millis, calls) in times {
            for _ in 0..calls {
                limit.sample(100, Duration::from_millis(millis), false);
            }
        }
        limit
    }

    #[test]
    fn a_call_without_a_time_moves_no_average() {
        let with = after(&[(10, 50), (0, 50), (40, 5), (0, 50)]);
        let without = after(&[(10, 50), (40, 5)]);
        assert_eq!(
            (with.now.mean, with.usual.mean),
            (without.now.mean, without.usual.mean)
        );
    }

    #[test]
    fn the_long_run_average_decays_quickly_after_a_disturbance() {
        let calm = after(&[(100, 600), (10, 60)]);
        // Down to twice the present latency, from ten times of it.
        assert!(calm.usual.mean < 0.021, "{calm:?}");
        assert!(calm.usual.mean > 1.8 * calm.now.mean, "{calm:?}");
    }

    #[test]
    fn a_new_value_weighs_two_of_the_run_and_itself() {
        let mut average = LatencyAverage::over(9.0);
        for _ in 0..100 {
            average.add(0.0);
        }
        assert!((average.add(1.0) - 0.2).abs() < 1e-9, "{average:?}");
        let mut short = LatencyAverage::over(9.0);
        assert!((short.add(1.0) - 1.0).abs() < 1e-9);
        assert!(
            (short.add(2.0) - 1.5).abs() < 1e-9,
            "the plain average of two"
        );
    }
}
