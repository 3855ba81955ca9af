//! Settings, inputs and outputs of a shared rate.

use std::time::Duration;

use super::super::Revision;
use super::super::board_clock::{BoardClock, BoardTime};
use crate::time::nanos;
use crate::{MeterSettings, RateLimitSettings, RateSharing, Time};

/// Shortest lease that is chosen by itself.
const SHORTEST_SPAN: Duration = Duration::from_millis(100);
/// Units of a lease that is chosen by itself, at least.
const FEWEST_UNITS: u32 = 10;
/// Longest lease of a metered limit.
const LONGEST_SPAN: Duration = Duration::from_secs(10);
/// Part of the burst of a metered limit that is one lease.
const LEASES_IN_BURST: u64 = 16;
/// Time for which a unit can be kept at least, with any burst.
const SHORTEST_LIFE: Duration = Duration::from_millis(20);

/// Settings of a shared rate, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedRateSettings {
    /// Time in which the rate makes one unit.
    pub(super) unit: u64,
    /// Time by which a unit may go out before the rate has made all units up to it.
    pub(super) early: u64,
    /// Time for which a unit can be kept after that.
    pub(super) life: u64,
    /// Span of demand that is leased at once.
    pub(super) span: u64,
    /// Longest wait for the board.
    pub(super) timeout: Duration,
    /// True if a call settles its units after its end.
    pub(super) is_metered: bool,
}

impl SharedRateSettings {
    /// Derives them from a rate limit and its sharing. `timeout`: the longest wait for the board.
    ///
    /// A lease is as long as it is set, or 100 ms, or ten units where that is longer, and at most
    /// half of the burst: the units that a replica keeps are part of the burst. Below a burst of
    /// 20 ms the units can be kept for 20 ms all the same.
    #[must_use]
    pub fn new(limit: &RateLimitSettings, sharing: RateSharing, timeout: Duration) -> Self {
        let unit = nanos(limit.unit()).max(1);
        let burst = unit.saturating_mul(u64::from(limit.burst.get()));
        let tens = Duration::from_nanos(unit.saturating_mul(u64::from(FEWEST_UNITS)));
        let span = nanos(sharing.lease.unwrap_or(SHORTEST_SPAN.max(tens)));
        Self::with_span(unit, burst, span, timeout)
    }

    /// Derives them from a limit of amounts that are settled after the call. `timeout`: the longest
    /// wait for the board.
    ///
    /// Such a call takes many units, so a lease is longer: a sixteenth of the burst, from 100 ms to
    /// 10 s. A unit has a whole number of nanoseconds, rounded up.
    #[must_use]
    pub fn of_meter(limit: &MeterSettings, timeout: Duration) -> Self {
        let unit = nanos(limit.per).div_ceil(limit.rate.get()).max(1);
        let burst = unit.saturating_mul(limit.burst.get());
        let span = (burst / LEASES_IN_BURST).clamp(nanos(SHORTEST_SPAN), nanos(LONGEST_SPAN));
        Self {
            is_metered: true,
            ..Self::with_span(unit, burst, span, timeout)
        }
    }

    fn with_span(unit: u64, burst: u64, span: u64, timeout: Duration) -> Self {
        // FLT-13: keeping units is part of the burst, so that all of it stays below.
        let life = span
            .min(burst / 2)
            .min(burst - unit)
            .max(nanos(SHORTEST_LIFE));
        Self {
            unit,
            early: burst.saturating_sub(life).max(unit),
            life,
            span: span.min(life),
            timeout,
            is_metered: false,
        }
    }

    /// Returns the time in which the rate makes the burst.
    pub(super) const fn burst(&self) -> u64 {
        self.early.saturating_add(self.life)
    }

    /// Returns the units that a call takes at once. Those of a heavier call of a metered limit would not
    /// stand in its stock at one time, as those for it end while others begin: it owes its rest.
    pub(super) fn at_once(&self, weight: u64) -> u64 {
        if !self.is_metered {
            return weight;
        }
        let slack = self.life.min(self.early / 8);
        weight.min(((self.early - slack) / self.unit).max(1))
    }

    /// Returns the longest wait for the board.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Units with places one after another: the time at which each has come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitSpan {
    /// Place of the first unit.
    pub first: BoardTime,
    /// Place of the last unit.
    pub last: BoardTime,
}

impl UnitSpan {
    pub(super) fn units(&self, unit: u64) -> u64 {
        self.units_until(self.last, unit)
    }

    /// Returns the number of units with places up to `latest`.
    pub(super) fn units_until(&self, latest: BoardTime, unit: u64) -> u64 {
        let latest = latest.min(self.last);
        match latest.0.checked_sub(self.first.0) {
            Some(span) => span / unit + 1,
            None => 0,
        }
    }

    /// Returns the units with places from `earliest` on.
    pub(super) fn from(self, earliest: BoardTime, unit: u64) -> Option<Self> {
        let gone = earliest.0.saturating_sub(self.first.0).div_ceil(unit);
        let first = self.first.plus(gone.saturating_mul(unit));
        (first <= self.last).then_some(Self { first, ..self })
    }

    /// Returns the first `count` units, at least one, and the rest.
    pub(super) fn split(self, count: u64, unit: u64) -> (Self, Option<Self>) {
        let last = self
            .first
            .plus(unit.saturating_mul(count.saturating_sub(1)));
        if last >= self.last {
            return (self, None);
        }
        let rest = self.from(last.plus(unit), unit);
        (Self { last, ..self }, rest)
    }
}

/// The number of a shared rate on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateNumber {
    /// Time at which all units that were given out have come back.
    pub full_at: BoardTime,
    /// Units that a replica has given back.
    pub free: Option<UnitSpan>,
    /// The revision of its key.
    pub revision: Revision,
}

/// A compare-and-swap of a shared rate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateRequest {
    /// The revision that the key must have.
    pub expected: Revision,
    /// The new number.
    pub full_at: BoardTime,
    /// The units that are free.
    pub free: Option<UnitSpan>,
}

/// The answer of the board to a [`RateRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateAnswer {
    /// It is written, with this revision.
    Done(Revision),
    /// Another replica was faster.
    Lost,
    /// There was no answer in time; it may have been written.
    Unknown,
}

/// An event for a shared rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateInput {
    /// The board is reached, and this is its number.
    Connected {
        /// The board's clock, as far as it is known.
        clock: BoardClock,
        /// The present number; the default for none.
        number: RateNumber,
    },
    /// The board is not reached any more.
    Disconnected,
    /// A number was written to the board.
    Heard {
        /// The number.
        number: RateNumber,
        /// Time at which it was written, if it has just arrived.
        written: Option<BoardTime>,
        /// True if this replica wrote it.
        is_own: bool,
    },
    /// The answer to a request.
    Answered {
        /// The revision that it expected.
        expected: Revision,
        /// The answer.
        answer: RateAnswer,
    },
    /// Number of live replicas, this one among them.
    Replicas(u32),
}

/// Answer to a call without units at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitAnswer {
    /// It has its units.
    Granted,
    /// A lease could be had at once: it is worth a wait of [`SharedRateSettings::timeout`].
    Asked,
    /// The rate is used up until then.
    NotBefore(Time),
    /// The board is not reached: the call goes by the replica's own share
    /// ([`SharedRate::take_alone`](super::SharedRate::take_alone)).
    Alone,
}

/// Counters of leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateCounts {
    /// Leases that the board granted.
    pub granted: u64,
    /// Requests that another replica was faster with.
    pub conflict: u64,
    /// Requests without an answer, and lease spans in which calls went by the own share.
    pub offline: u64,
}
