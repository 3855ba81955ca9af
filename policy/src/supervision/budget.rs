//! Restart intensity, and the wait before a restart.

use std::collections::VecDeque;
use std::time::Duration;

use super::spec::RestartBackoff;
use crate::{Intensity, RandomSource, Time, backoff};

/// Recent restarts, in a true sliding window.
///
/// A restart at `t` counts while `now - t < within`; at exactly `within` it is forgotten.
///
/// # Source  Rule SUP-2.
#[derive(Debug, Clone, Default)]
pub(super) struct RestartWindow {
    restarts: VecDeque<Time>,
}

impl RestartWindow {
    /// Returns true if one more restart at `now` is tolerated. Forgets restarts that left the
    /// window.
    pub(super) fn has_room(&mut self, intensity: Intensity, now: Time) -> bool {
        while let Some(first) = self.restarts.front() {
            if now.since(*first) < intensity.within {
                break;
            }
            self.restarts.pop_front();
        }
        // SUP-2: more than `max` restarts within the sliding window are too many.
        self.restarts.len() < intensity.max as usize
    }

    /// Counts a restart.
    pub(super) fn count(&mut self, now: Time) {
        self.restarts.push_back(now);
    }

    /// Forgets all restarts.
    pub(super) fn clear(&mut self) {
        self.restarts.clear();
    }
}

/// Returns the wait before the restart that follows the `streak`-th failure in a row (from 1).
///
/// # Source  Rule SUP-3.
pub(super) fn delay(
    restarts: Option<&RestartBackoff>,
    streak: u32,
    random: &mut dyn RandomSource,
) -> Duration {
    match restarts {
        None => Duration::ZERO,
        Some(one) if streak <= 1 => one.first,
        Some(one) => backoff::delay(&one.delay, streak - 2, random),
    }
}
