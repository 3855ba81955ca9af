//! How many restarts are too many, and how long to wait before one.

use std::collections::VecDeque;
use std::time::Duration;

use super::spec::RestartBackoff;
use crate::{BackoffSettings, Intensity, Random, RetryJitter, Time};

/// The restarts of the last while: a true sliding window.
///
/// A restart at `t` counts while `now - t < within`; at exactly `within` it is forgotten.
///
/// # Source  Rule SUP-2.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    restarts: VecDeque<Time>,
}

impl Window {
    /// Whether one more restart at `now` is tolerated. Forgets those that have left the window.
    pub(super) fn has_room(&mut self, intensity: Intensity, now: Time) -> bool {
        while let Some(first) = self.restarts.front() {
            if now.since(*first) < intensity.within {
                break;
            }
            self.restarts.pop_front();
        }
        self.restarts.len() < intensity.max as usize
    }

    /// Counts a restart.
    pub(super) fn count(&mut self, now: Time) {
        self.restarts.push_back(now);
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.restarts.clear();
    }
}

/// The wait before the restart that follows the `streak`-th failure in a row (from 1).
///
/// # Source  Rule SUP-3.
pub(super) fn delay(
    backoff: Option<&RestartBackoff>,
    streak: u32,
    random: &mut dyn Random,
) -> Duration {
    match backoff {
        None => Duration::ZERO,
        Some(backoff) if streak <= 1 => backoff.first,
        Some(backoff) => grown(&backoff.delay, streak - 2, random),
    }
}

/// `min(base * factor^n, max)`, spread.
fn grown(settings: &BackoffSettings, n: u32, random: &mut dyn Random) -> Duration {
    let power = settings.factor.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let exact = settings.base.as_secs_f64() * power;
    let delay = Duration::try_from_secs_f64(exact)
        .unwrap_or(settings.max)
        .min(settings.max);
    let share = match settings.jitter {
        RetryJitter::None => return delay,
        RetryJitter::Full => random.unit(),
        RetryJitter::Equal => 0.5 + 0.5 * random.unit(),
        RetryJitter::Added(most) => 1.0 + most * random.unit(),
    };
    Duration::try_from_secs_f64(delay.as_secs_f64() * share).unwrap_or(delay)
}
