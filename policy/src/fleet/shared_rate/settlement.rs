//! Units that are known only after the call: reservation, settlement, refund and debt.
//!
//! A call takes the units that it may need. Units that it did not use go back into the stock. Those that
//! it used beyond them are owed: they are paid from the stock, and else told with the next lease before
//! any unit of that is taken. So the number on the board is moved on by no unit twice, and by each that
//! was used.
//!
//! A refund is not the units that the call took: their places may have passed. Had it taken fewer,
//! the later calls would have taken earlier units. So the units of the latest places that were taken
//! come back, as many as were there all the while: with a stock that lay full, the refund is lost, as
//! it is in a bucket that has run over.
//!
//! # Source  Rules FLT-13 and LLM-19 in docs/rules.md.

use super::super::board_clock::BoardTime;
use super::stock::UnitStock;
use super::{SharedRate, SharedRateSettings, UnitAnswer};
use crate::Time;
use crate::meter::MAX_DEBT;
use crate::room_log::RoomLog;
use crate::time::nanos;

/// Maximum number of spans of used units that are known; a refund of older ones is lost.
const MAX_USED: usize = 512;

/// The part of a metered limit.
#[derive(Debug, Clone, Default)]
pub(super) struct Settlement {
    /// Units that were taken, with places that have not passed.
    pub(super) used: UnitStock,
    /// The least number of them since each reservation.
    room: RoomLog,
    /// The same for the own share, in nanoseconds that are owed.
    own_room: RoomLog,
    /// The sum of the reservations that are not settled.
    reserved: u64,
    /// Number of them.
    running: usize,
    next_sequence: u64,
}

/// Units of a metered limit that a call holds. They are settled exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is not settled stays taken"]
pub struct UnitReservation {
    amount: u64,
    sequence: u64,
    /// True if they are of the own share.
    is_own: bool,
}

impl UnitReservation {
    /// Returns the number of units.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }
}

impl SharedRate {
    /// Notes that a call will settle the units that it has just taken; `None` if this limit has no
    /// settlement. `is_own`: by [`take_alone`](Self::take_alone).
    pub fn reserved_now(
        &mut self,
        now: Time,
        amount: u64,
        is_own: bool,
    ) -> Option<UnitReservation> {
        if !self.settings.is_metered {
            return None;
        }
        let sequence = self.settlement.next_sequence;
        self.settlement.next_sequence += 1;
        self.settlement.running += 1;
        self.settlement.reserved = self.settlement.reserved.saturating_add(amount);
        let (room, own_room) = self.rooms(now);
        match is_own {
            true => self.settlement.own_room.begin(sequence, own_room),
            false => self.settlement.room.begin(sequence, room),
        }
        Some(UnitReservation {
            amount,
            sequence,
            is_own,
        })
    }

    /// Settles a reservation by the units that were used. The rest is given back, or a lack is owed.
    pub fn settle(&mut self, now: Time, reservation: UnitReservation, used: u64) {
        let UnitReservation {
            amount,
            sequence,
            is_own,
        } = reservation;
        self.forget_ended(now);
        self.observe(now);
        let unit = self.settings.unit;
        let rest = amount.saturating_sub(used);
        self.demand.returned(now, rest, self.settings.span);
        let settlement = &mut self.settlement;
        if is_own {
            let rest = rest.saturating_mul(unit);
            let worth = worth(settlement.own_room.take(sequence, rest.into()));
            self.set_owed(now, self.owed(now).saturating_sub(worth));
        } else {
            let worth = worth(settlement.room.take(sequence, rest.into()));
            let stock = &mut self.stock;
            let back = |span| stock.join(span, unit, usize::MAX);
            settlement.used.take_latest((worth, unit), back);
        }
        self.owe(now, used.saturating_sub(amount));
        self.pay(now);
        let settlement = &mut self.settlement;
        settlement.reserved = settlement.reserved.saturating_sub(amount);
        settlement.running = settlement.running.saturating_sub(1);
        if settlement.running == 0 {
            (settlement.room, settlement.own_room) = Default::default();
        }
    }

    /// Returns the sum of the reservations that are not settled.
    #[must_use]
    pub const fn reserved(&self) -> u64 {
        self.settlement.reserved
    }

    /// Returns the units that are owed and not told to the board, rounded up.
    #[must_use]
    pub fn debt(&self, now: Time) -> u64 {
        self.owed(now).div_ceil(self.settings.unit)
    }

    /// Returns true if the board should be told of units that are owed, whether calls come or not.
    #[must_use]
    pub fn owes(&self, now: Time) -> bool {
        self.settings.is_metered && self.owed(now) >= self.settings.unit
    }

    /// Returns the units that a call could take by this replica's knowledge.
    #[must_use]
    pub fn available(&self, now: Time) -> u64 {
        let SharedRateSettings { unit, early, .. } = self.settings;
        let least = self.clock.at_least(now);
        if let Some(least) = least.filter(|_| self.is_connected && !self.is_silent(now)) {
            let latest = least.plus(early);
            let begin = self.believed(now).max(least).plus(self.owed(now));
            let at_board = latest.0.saturating_sub(begin.0) / unit;
            return at_board.saturating_add(self.stock.units_until(latest, unit));
        }
        let burst = self.settings.burst() / u64::from(self.replicas);
        burst.saturating_sub(self.owed(now)) / unit
    }

    /// Returns the time at which a call could have its units, behind `ahead` units of others. It takes
    /// none.
    #[must_use]
    pub fn time_of(&self, now: Time, ahead: u64, weight: u64) -> Time {
        if self.is_connected && !self.is_silent(now) {
            return match self.turn(now, ahead, weight) {
                UnitAnswer::NotBefore(at) => at,
                _ => now,
            };
        }
        self.alone_at(now, ahead, weight).unwrap_or(Time::MAX)
    }

    /// Owes so many units, more than a day only if it did so before.
    pub fn owe(&mut self, now: Time, units: u64) {
        if units == 0 {
            return;
        }
        self.observe(now);
        let owed = self.owed(now);
        // LIM-1: an absurd usage is believed for a day, and not for centuries.
        let most = nanos(MAX_DEBT).max(owed);
        let more = units.saturating_mul(self.settings.unit);
        self.set_owed(now, owed.saturating_add(more).min(most));
    }

    /// Applies new settings of a metered limit.
    pub(super) fn reconfigure_meter(&mut self, now: Time, settings: SharedRateSettings) {
        let (before, unit) = (self.settings.unit, settings.unit);
        if before != unit {
            // LLM-19: no reload forgives a debt.
            let owed = u128::from(self.owed(now)) * u128::from(unit) / u128::from(before);
            self.set_owed(now, u64::try_from(owed).unwrap_or(u64::MAX));
            // The rest of reservations of before is not given back.
            (self.settlement.room, self.settlement.own_room) = Default::default();
            self.settlement.used = UnitStock::default();
        }
        self.settings = settings;
    }

    /// Takes the units of a call from the stock, with places up to `latest`.
    pub(super) fn take_metered(&mut self, now: Time, weight: u64, latest: BoardTime) -> bool {
        self.observe(now);
        let at_once = self.settings.at_once(weight);
        let is_taken = self.use_up(at_once, latest);
        if is_taken {
            self.owe(now, weight - at_once);
            self.pay(now);
        }
        is_taken
    }

    /// Pays the debt from the stock: so no call takes a unit before it is paid.
    pub(super) fn pay(&mut self, now: Time) {
        if !self.owes(now) {
            return;
        }
        self.forget_ended(now);
        self.observe(now);
        let unit = self.settings.unit;
        let owed = self.owed(now);
        let units = (owed / unit).min(self.stock.units(unit));
        self.use_up(units, BoardTime(u64::MAX));
        self.set_owed(now, owed - units * unit);
    }

    /// Returns the units of a lease, and the nanoseconds that it pays; `None` if the rate is used up
    /// for longer than a burst.
    pub(super) fn leasable(&self, now: Time, least: BoardTime, units: u64) -> Option<(u64, u64)> {
        let owed = self.owed(now);
        if !self.settings.is_metered {
            return Some((units, owed));
        }
        let burst = self.settings.burst();
        // A number of more than two bursts is not believed.
        if self.believed(now) > least.plus(burst) {
            return None;
        }
        let paid = owed.min(burst);
        let more = self.settings.unit.saturating_mul(units);
        let units = if more > burst - paid && paid > 0 {
            0
        } else {
            units
        };
        Some((units, paid))
    }

    /// Records how much could be given back now, before that becomes more.
    pub(super) fn observe(&mut self, now: Time) {
        if self.settings.is_metered {
            let (room, own_room) = self.rooms(now);
            self.settlement.room.observe(room);
            self.settlement.own_room.observe(own_room);
        }
    }

    fn rooms(&self, now: Time) -> (i128, i128) {
        let used = self.settlement.used.units(self.settings.unit);
        (used.into(), self.owed(now).into())
    }

    fn use_up(&mut self, units: u64, latest: BoardTime) -> bool {
        let unit = self.settings.unit;
        let used = &mut self.settlement.used;
        self.stock.take((units, unit), latest, |span| {
            used.join(span, unit, MAX_USED);
        })
    }
}

fn worth(parts: i128) -> u64 {
    u64::try_from(parts).unwrap_or(0)
}
