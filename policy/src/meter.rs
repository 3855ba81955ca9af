//! A limit on amounts that are known only afterwards: reservation, settlement, refund and debt.
//!
//! It is a token bucket, the same as the generic cell rate algorithm. Before an attempt the expected
//! amount is reserved. After it the amount that was used is settled: a rest is given back, and an
//! excess is owed. A debt delays later attempts only. The meter never waits; it says how
//! long a wait would be.
//!
//! Time refills the bucket while attempts run, so a refund could count twice: once as time, and once
//! as tokens. It counts as much as the bucket would now hold if only the used amount had been
//! taken, and never more.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::Time;
use crate::room_log::RoomLog;
use crate::time::nanos;

/// Longest wait that a debt causes.
pub(crate) const MAX_DEBT: Duration = Duration::from_secs(24 * 60 * 60);

/// Settings of a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterSettings {
    /// The amount in each `per`.
    pub rate: NonZeroU64,
    /// The interval.
    pub per: Duration,
    /// The amount that may be used at once after an idle time, and the largest single reservation.
    pub burst: NonZeroU64,
}

/// Reason why an amount cannot be reserved now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeterRefusal {
    /// It is available after this wait, if nothing else is reserved or owed until then.
    NotBefore(Duration),
    /// It exceeds the burst, so it can never be reserved.
    TooMuch {
        /// The amount.
        asked: u64,
        /// The burst.
        burst: u64,
    },
}

/// An amount that is set aside for one attempt. It is settled, or given back, exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is not settled stays taken"]
pub struct Reservation {
    amount: u64,
    sequence: u64,
}

impl Reservation {
    /// Returns the amount.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }
}

/// A meter.
///
/// # Units   An amount is `per` in nanoseconds times as many parts, so that a nanosecond refills
/// `rate` parts, and nothing is ever rounded.
/// # Source  Rule LLM-19 in docs/rules.md.
#[derive(Debug, Clone)]
pub struct Meter {
    settings: MeterSettings,
    /// Parts in one unit of an amount.
    parts: i128,
    /// Parts that are available; below zero they are owed.
    balance: i128,
    refilled: Time,
    /// The sum of the reservations that are not settled.
    reserved: u64,
    next_sequence: u64,
    room: RoomLog,
}

impl Meter {
    /// Returns a meter with its whole burst available.
    #[must_use]
    pub fn new(settings: MeterSettings, now: Time) -> Self {
        let parts = parts_of(&settings);
        Self {
            settings,
            parts,
            balance: capacity(&settings, parts),
            refilled: now,
            reserved: 0,
            next_sequence: 0,
            room: RoomLog::default(),
        }
    }

    /// Returns the settings.
    #[must_use]
    pub const fn settings(&self) -> &MeterSettings {
        &self.settings
    }

    /// Reserves an amount, if it is available.
    ///
    /// # Errors  [`MeterRefusal`]; nothing is reserved then.
    pub fn try_reserve(&mut self, now: Time, amount: u64) -> Result<Reservation, MeterRefusal> {
        // LLM-20: no wait would help.
        if amount > self.settings.burst.get() {
            return Err(MeterRefusal::TooMuch {
                asked: amount,
                burst: self.settings.burst.get(),
            });
        }
        self.pass(now);
        let parts = self.parts_in(amount);
        if parts > self.balance && amount > 0 {
            return Err(MeterRefusal::NotBefore(
                self.time_for(parts.saturating_sub(self.balance)),
            ));
        }
        // LLM-19: taken before the attempt, so that no two attempts count on the same amount.
        self.balance -= parts;
        self.reserved = self.reserved.saturating_add(amount);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.room.begin(sequence, self.room_now());
        Ok(Reservation { amount, sequence })
    }

    /// Settles a reservation by the amount that was used. The difference is given back, or owed.
    pub fn settle(&mut self, now: Time, reservation: Reservation, used: u64) {
        self.pass(now);
        let Reservation { amount, sequence } = reservation;
        let difference = self.parts_in(amount) - self.parts_in(used);
        // LLM-19: a debt delays later calls; this one is over.
        self.balance = if difference < 0 {
            // LIM-1: an absurd usage is believed for a day, and not for centuries.
            let day = i128::from(nanos(MAX_DEBT)).saturating_mul(self.settings.rate.get().into());
            let owed = self.balance.saturating_add(difference);
            owed.max(self.balance.min(-day))
        } else {
            self.balance + self.room.take(sequence, difference)
        };
        self.reserved = self.reserved.saturating_sub(amount);
        if self.reserved == 0 {
            self.room = RoomLog::default();
        }
    }

    /// Gives a whole reservation back: its attempt was not executed.
    pub fn give_back(&mut self, now: Time, reservation: Reservation) {
        self.settle(now, reservation, 0);
    }

    /// Returns the time until so much is available, if nothing else is reserved or owed until then.
    /// For a queue of calls: the sum of their amounts may exceed the burst.
    #[must_use]
    pub fn wait_for(&self, now: Time, amount: u64) -> Duration {
        let missing = self.parts_in(amount).saturating_sub(self.balance_at(now));
        self.time_for(missing)
    }

    /// Returns the sum of the reservations that are not settled.
    #[must_use]
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Returns the amount that is available, rounded down; zero while some is owed.
    #[must_use]
    pub fn available(&self, now: Time) -> u64 {
        let balance = self.balance_at(now).max(0);
        u64::try_from(balance / self.parts).unwrap_or(u64::MAX)
    }

    /// Returns the amount that is owed, rounded up.
    #[must_use]
    pub fn owed(&self, now: Time) -> u64 {
        let debt = self.balance_at(now).min(0).unsigned_abs();
        u64::try_from(debt.div_ceil(self.parts.unsigned_abs())).unwrap_or(u64::MAX)
    }

    /// Changes the settings. Units that are available or owed stay so, up to the new burst. Reservations
    /// of before are settled as others; their rest is not given back.
    pub fn change(&mut self, now: Time, settings: MeterSettings) {
        self.pass(now);
        let parts = parts_of(&settings);
        // A part of a unit is lost or won at most.
        let balance = (self.balance / self.parts).saturating_mul(parts);
        self.settings = settings;
        self.parts = parts;
        self.balance = balance.min(capacity(&settings, parts));
        self.room = RoomLog::default();
    }

    /// Refills the bucket for the time that has passed.
    fn pass(&mut self, now: Time) {
        self.balance = self.balance_at(now);
        self.refilled = self.refilled.max(now);
        let room = self.room_now();
        self.room.observe(room);
    }

    fn balance_at(&self, now: Time) -> i128 {
        let nanos = i128::from(nanos(now.since(self.refilled)));
        let refill = nanos.saturating_mul(i128::from(self.settings.rate.get()));
        let full = capacity(&self.settings, self.parts);
        self.balance.saturating_add(refill).min(full)
    }

    fn room_now(&self) -> i128 {
        capacity(&self.settings, self.parts).saturating_sub(self.balance)
    }

    fn parts_in(&self, amount: u64) -> i128 {
        i128::from(amount).saturating_mul(self.parts)
    }

    /// Returns the time in which so many parts are refilled, rounded up.
    fn time_for(&self, parts: i128) -> Duration {
        let rate = u128::from(self.settings.rate.get());
        let nanos = parts.max(0).unsigned_abs().div_ceil(rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn parts_of(settings: &MeterSettings) -> i128 {
    i128::from(nanos(settings.per).max(1))
}

fn capacity(settings: &MeterSettings, parts: i128) -> i128 {
    i128::from(settings.burst.get()).saturating_mul(parts)
}

#[cfg(test)]
mod tests;
