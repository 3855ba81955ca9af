//! By how much longer calls take now than they took in the long run.

use std::num::NonZeroU32;
use std::time::Duration;

/// How many calls the present average goes back, roughly. One call alone says little: a
/// dependency with quick and slow requests would never look steady.
const SHORT_RUN: f64 = 10.0;

/// How many calls the average goes back to which the present one is compared.
const LONG_RUN: f64 = 600.0;

/// How much of the way to its goal a limit goes with one call.
const SMOOTHING: f64 = 0.2;

/// A limit never aims below this share of itself, so that one outlier sheds few calls.
const STEEPEST: f64 = 0.5;

/// A limit that falls while calls take longer than usual, and grows while they do not.
///
/// Its goal is itself, times how much quicker the usual call was, plus room for a queue: the
/// square root of itself. It learns from the time of calls only while it is used, so that idle
/// callers do not raise it to the sky. A drop is as bad as calls can get.
///
/// # Source  concurrency-limits, `Gradient2Limit`.
#[derive(Debug, Clone)]
pub struct GradientLimit {
    limit: f64,
    min: NonZeroU32,
    max: NonZeroU32,
    tolerance: f64,
    now: Average,
    usual: Average,
}

impl GradientLimit {
    /// A limit that starts at `initial`, within `min` and `max`.
    ///
    /// # Units   `tolerance`: how many times as long is still as good as usual; at least 1.
    #[must_use]
    pub fn new(initial: u32, min: NonZeroU32, max: NonZeroU32, tolerance: f64) -> Self {
        let max = max.max(min);
        Self {
            limit: f64::from(initial.clamp(min.get(), max.get())),
            min,
            max,
            tolerance: tolerance.max(1.0),
            now: Average::over(SHORT_RUN),
            usual: Average::over(LONG_RUN),
        }
    }

    /// Learns from one call, and returns the limit.
    ///
    /// # Units   `in_flight`: calls at the time of the sample, this one included. `rtt`: how long
    /// the call took; of a drop it is not looked at, and zero tells nothing about the dependency.
    pub fn sample(&mut self, in_flight: u32, rtt: Duration, dropped: bool) -> u32 {
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

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = self.limit as u32;
        whole
    }

    /// Forgets how long calls took, and goes on from this limit, within its bounds.
    pub(super) fn restart(&mut self, limit: u32) {
        self.now = Average::over(SHORT_RUN);
        self.usual = Average::over(LONG_RUN);
        self.set(f64::from(limit));
    }

    /// Goes on from what another one has learnt, within its own bounds.
    pub(super) fn go_on_from(&mut self, other: Self) {
        self.now = other.now;
        self.usual = other.usual;
        self.set(other.limit);
    }

    fn gradient(&mut self, rtt: Duration) -> f64 {
        let seconds = rtt.as_secs_f64();
        if seconds > 0.0 {
            let now = self.now.add(seconds);
            // After a long time of trouble what was usual then is quickly forgotten.
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

/// An exponential average, and a plain one until it has seen enough for that.
#[derive(Debug, Clone)]
struct Average {
    /// What a new value counts for at least.
    share: f64,
    seen: u32,
    mean: f64,
}

impl Average {
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
