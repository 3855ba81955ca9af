//! Additive increase, multiplicative decrease.

use std::num::NonZeroU32;

use crate::Rate;

/// A limit that grows by one while it is used and calls succeed, and falls by a share at a drop.
///
/// # Source  concurrency-limits, `AIMDLimit`.
#[derive(Debug, Clone)]
pub(super) struct AimdLimit {
    limit: u32,
    min: NonZeroU32,
    max: NonZeroU32,
    backoff: Rate,
}

impl AimdLimit {
    /// Returns a limit that starts at `initial`, within `min` and `max`.
    ///
    /// # Units   `backoff`: share of the limit that remains after a drop, in [0, 1].
    pub(super) fn new(initial: u32, min: NonZeroU32, max: NonZeroU32, backoff: Rate) -> Self {
        let max = max.max(min);
        Self {
            limit: initial.clamp(min.get(), max.get()),
            min,
            max,
            backoff,
        }
    }

    /// Learns from one call, and returns the limit.
    ///
    /// # Units   `in_flight`: calls in flight at the time of the sample, this one included.
    pub(super) fn sample(&mut self, in_flight: u32, dropped: bool) -> u32 {
        if dropped {
            let left = self.backoff.part_of(u64::from(self.limit));
            self.limit = u32::try_from(left).unwrap_or(u32::MAX);
        } else if in_flight.saturating_mul(2) >= self.limit {
            self.limit = self.limit.saturating_add(1);
        }
        self.limit = self.limit.clamp(self.min.get(), self.max.get());
        self.limit
    }

    /// Returns the limit.
    pub(super) const fn limit(&self) -> u32 {
        self.limit
    }

    /// Continues from this limit, within its bounds.
    pub(super) fn set(&mut self, limit: u32) {
        self.limit = limit.clamp(self.min.get(), self.max.get());
    }
}
