//! One rate limit for all replicas of a fleet, taken in leases.
//!
//! The board holds one number: the time at which all units that were given out will have come back,
//! as in the generic cell rate algorithm. A replica moves it on by compare-and-swap, and by that owns
//! the units between the old number and the new one. It paces them by itself; no call waits for a
//! message while it has units.
//!
//! Each unit may go out in a span of its own, which ends `burst - 1` units after it began. Since no
//! two units have the same place, no order of calls anywhere lets out more than
//! `burst + rate × t`. Part of the burst is the time for which a replica keeps its units
//! ([`SharedRateSettings::new`]).
//!
//! - *Loss*: without an answer of the board for `timeout`, calls go by the replica's own share
//!   ([`UnitAnswer::Alone`]). It begins as full as the number was, and the units that go out by it are told with
//!   the next lease.
//! - *Clocks*: the board's, between two bounds ([`BoardClock`]). A unit begins by the lower and ends by
//!   the upper one.
//!
//! - *Settlement*: units of a metered limit come back, or more are owed, after the call (`settlement`).
//!
//! # Source  Rule FLT-13 in docs/rules.md; ITU-T I.371 (generic cell rate algorithm).

mod message;
mod settlement;
mod stock;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use message::{
    RateAnswer, RateCounts, RateInput, RateNumber, RateRequest, SharedRateSettings, UnitAnswer,
    UnitSpan,
};

use super::Revision;
use super::board_clock::{BoardClock, BoardTime};
use super::rate_demand::RateDemand;
use crate::Time;
use crate::time::nanos;
use settlement::Settlement;
pub use settlement::UnitReservation;
use stock::UnitStock;

/// Weight of the latest round trip in their average.
const SMOOTHED: u64 = 4;

/// Time beyond all leases of the fleet from which a number on the board is nonsense.
const BEYOND: u64 = 10_000_000_000;

/// A request for a lease, or to give one back, that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AskedLease {
    request: RateRequest,
    /// The units that it takes; `None` if it takes none.
    units: Option<UnitSpan>,
    /// Time in which the rate makes up the units of the own share, and is told by it.
    owed: u64,
    at: Time,
}

impl AskedLease {
    /// Returns true if it takes units, or pays for some.
    fn takes(&self) -> bool {
        self.units.is_some() || self.owed > 0
    }
}

/// A shared rate as one replica has it.
///
/// # Units   `now`, everywhere: never decreasing.
/// # Source  Rule FLT-13.
#[derive(Debug, Clone)]
pub struct SharedRate {
    settings: SharedRateSettings,
    clock: BoardClock,
    is_connected: bool,
    number: RateNumber,
    stock: UnitStock,
    asked: Option<AskedLease>,
    /// The last request, for the time at which the board wrote it.
    sent: Option<AskedLease>,
    /// Revision that another replica has replaced by one that is not heard yet.
    replaced: Option<(Revision, Time)>,
    /// Time of the last request without an answer, until the board is heard again.
    silent: Option<Time>,
    demand: RateDemand,
    /// Units of the calls that wait.
    waiting: u64,
    /// Average time from a request to its answer, in nanoseconds.
    round_trip: u64,
    replicas: u32,
    counts: RateCounts,
    /// Time from which calls by the own share count as one more lease without the board.
    alone_from: Time,
    /// Time at which the own share has made up its units.
    own_full_at: Time,
    /// Time at which it begins to do so: at that of the number, all that the board knows of has come back.
    own_from: Time,
    /// The state of a metered limit.
    settlement: Settlement,
}

impl SharedRate {
    /// Returns a rate without a board.
    #[must_use]
    pub fn new(settings: SharedRateSettings) -> Self {
        Self {
            settings,
            clock: BoardClock::default(),
            is_connected: false,
            number: RateNumber::default(),
            stock: UnitStock::default(),
            asked: None,
            sent: None,
            replaced: None,
            silent: None,
            demand: RateDemand::default(),
            waiting: 0,
            round_trip: 0,
            replicas: 1,
            counts: RateCounts::default(),
            alone_from: Time::ZERO,
            own_full_at: Time::ZERO,
            own_from: Time::ZERO,
            settlement: Settlement::default(),
        }
    }

    /// Takes `weight` units for a call that comes now, if they are here.
    ///
    /// # Units   `weight`: at most the burst.
    #[must_use]
    pub fn take_at_once(&mut self, now: Time, weight: u64) -> bool {
        let is_taken = self.take(now, weight);
        if is_taken {
            self.demand.note(now, weight, self.settings.span);
        }
        is_taken
    }

    /// Notes a call that finds no units.
    pub fn note_demand(&mut self, now: Time, weight: u64) {
        self.demand.note(now, weight, self.settings.span);
    }

    /// Takes `weight` units of this replica's own share, the part of one of all replicas in the rate and
    /// in the burst. The units that the board knew to be given out have to come back first. `ahead`: units of
    /// calls that wait before it; it takes none then.
    ///
    /// # Errors  The time from which they are there; `None` if the share never has so many.
    pub fn take_alone(&mut self, now: Time, ahead: u64, weight: u64) -> Result<(), Option<Time>> {
        self.observe(now);
        self.set_owed(now, self.owed(now));
        let at = self.alone_at(now, ahead, weight).ok_or(None)?;
        if ahead > 0 || at > now {
            return Err(Some(at.max(now)));
        }
        self.own_full_at = self.own_full_at.after(self.own_span(weight));
        Ok(())
    }

    /// Returns the time from which the own share has so many units; `None` if it never has.
    fn alone_at(&self, now: Time, ahead: u64, weight: u64) -> Option<Time> {
        // FLT-13: at least one unit.
        let burst = self.settings.burst() / self.settings.unit / u64::from(self.replicas);
        let burst = match self.settings.is_metered {
            // One call at least, once nothing is owed: it delays the next one.
            true => burst.max(weight),
            false => burst.max(1),
        };
        if weight > burst {
            return None;
        }
        let span = self.own_span(ahead.saturating_add(weight));
        let owed = self.owed(now).saturating_mul(self.replicas.into());
        let full_at = self.clock.when(self.believed(now), now);
        let full_at = full_at
            .after(Duration::from_nanos(owed))
            .after(span)
            .as_nanos();
        let at = full_at.saturating_sub(nanos(self.own_span(burst)));
        Some(Time::from_nanos(at).max(now))
    }

    /// Returns the time in which the own share makes so many units.
    fn own_span(&self, units: u64) -> Duration {
        let each = self.settings.unit.saturating_mul(self.replicas.into());
        Duration::from_nanos(each.saturating_mul(units))
    }

    /// Notes the units of the calls that wait: while there are some, none is given back.
    pub const fn set_waiting(&mut self, units: u64) {
        self.waiting = units;
    }

    /// Takes `weight` units for the first call that waits, or tells when to come again. `ahead`:
    /// units of calls that wait before it; it takes none then.
    #[must_use]
    pub fn answer(&mut self, now: Time, ahead: u64, weight: u64) -> UnitAnswer {
        if ahead == 0 && self.take(now, weight) {
            return UnitAnswer::Granted;
        }
        if !self.is_connected || self.is_silent(now) {
            return self.alone(now);
        }
        self.turn(now, ahead, weight)
    }

    /// Tells when the turn of a call comes by the number.
    fn turn(&self, now: Time, ahead: u64, weight: u64) -> UnitAnswer {
        let units = ahead.saturating_add(self.settings.at_once(weight));
        let unit = self.settings.unit;
        let full_at = match self.stock.place(units, unit) {
            Ok(full_at) => full_at,
            Err(missing) => {
                let Some(least) = self.clock.at_least(now) else {
                    return UnitAnswer::Asked;
                };
                let begin = self.believed(now).max(least).plus(self.owed(now));
                begin.plus(unit.saturating_mul(missing))
            }
        };
        match self.begins(full_at, now) {
            at if at > now => UnitAnswer::NotBefore(at),
            _ => UnitAnswer::Asked,
        }
    }

    /// Returns the request that should go to the board now. `waiting`: units of the calls that wait;
    /// `first`: of the first of them.
    #[must_use]
    pub fn request(&mut self, now: Time, waiting: u64, first: u64) -> Option<RateRequest> {
        self.waiting = waiting;
        if !self.may_ask(now) {
            return None;
        }
        self.forget_ended(now);
        let span = self.settings.span;
        let recent = self.demand.recent(now, span);
        let ahead = recent.saturating_mul(self.round_trip) / span.max(1);
        let needed = recent.saturating_add(ahead).max(waiting);
        let stock = self.stock.units(self.settings.unit);
        let is_enough = needed == 0 || stock >= waiting && stock.saturating_mul(2) > needed;
        if self.is_booked_ahead(now) || is_enough && !self.owes(now) {
            return None;
        }
        if is_enough {
            return self.lease(now, 0);
        }
        let most = (span / self.settings.unit).max(first).max(1);
        let units = needed.saturating_sub(stock).clamp(1, most);
        self.lease(now, units.max(first.saturating_sub(stock)))
    }

    /// Takes in an event. Returns the request that should go to the board for it.
    pub fn on(&mut self, now: Time, input: RateInput) -> Option<RateRequest> {
        match input {
            RateInput::Connected { clock, number } => {
                self.is_connected = true;
                self.clock.join(now, &clock);
                // FLT-15: the board may be a new one, with revisions that start anew.
                let owed = self.owed(now);
                self.number = number;
                self.set_owed(now, owed);
                self.asked = None;
                self.replaced = None;
                self.silent = None;
            }
            RateInput::Disconnected => {
                self.is_connected = false;
                self.asked = None;
            }
            RateInput::Heard {
                number,
                written,
                is_own,
            } => return self.heard(now, number, written, is_own),
            RateInput::Answered { expected, answer } => self.answered(now, expected, answer),
            RateInput::Replicas(count) => {
                let owed = self.owed(now);
                self.replicas = count.max(1);
                self.set_owed(now, owed);
            }
        }
        None
    }

    /// Applies new settings. Units that it has stay.
    pub fn reconfigure(&mut self, now: Time, settings: SharedRateSettings) {
        if settings.is_metered {
            return self.reconfigure_meter(now, settings);
        }
        self.settings = settings;
        // FLT-13: no more is owed than a burst of the new rate.
        let most = Duration::from_nanos(settings.burst().saturating_mul(self.replicas.into()));
        self.own_full_at = self.own_full_at.min(self.own_from.after(most));
    }

    /// Returns the settings.
    #[must_use]
    pub const fn settings(&self) -> &SharedRateSettings {
        &self.settings
    }

    /// Returns the number of live replicas, this one among them, as it was last known.
    #[must_use]
    pub const fn replicas(&self) -> u32 {
        self.replicas
    }

    /// Returns true while the board can be reached, as far as it was told.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Returns the counters.
    #[must_use]
    pub const fn counts(&self) -> RateCounts {
        self.counts
    }

    fn take(&mut self, now: Time, weight: u64) -> bool {
        self.forget_ended(now);
        let Some(least) = self.clock.at_least(now) else {
            return false;
        };
        // Without an upper bound no unit is known to last.
        if self.clock.at_most(now).is_none() {
            return false;
        }
        // FLT-13: a unit goes out no earlier than the burst allows.
        let latest = least.plus(self.settings.early);
        if self.settings.is_metered {
            return self.take_metered(now, weight, latest);
        }
        self.stock
            .take((weight, self.settings.unit), latest, |_| {})
    }

    /// Forgets the units that have come back unused.
    fn forget_ended(&mut self, now: Time) {
        if let Some(most) = self.clock.at_most(now) {
            let SharedRateSettings { unit, life, .. } = self.settings;
            // FLT-13: a unit goes out before the rate has made it up, less the rest of the burst.
            let earliest = most.plus(unit).minus(life);
            self.stock.forget_before(earliest, unit);
            self.settlement.used.forget_before(earliest, unit);
        }
    }

    fn begins(&self, full_at: BoardTime, now: Time) -> Time {
        self.clock.when(full_at.minus(self.settings.early), now)
    }

    /// Returns true if the last lease has not begun: no other one is booked ahead then.
    fn is_booked_ahead(&self, now: Time) -> bool {
        let last = self.stock.last();
        last.is_some_and(|span| self.begins(span.first, now) > now)
    }

    fn is_silent(&self, now: Time) -> bool {
        let limit = self.settings.timeout;
        let is_late = |asked: &AskedLease| asked.at.after(limit) <= now;
        self.silent.is_some() || self.asked.as_ref().is_some_and(is_late)
    }

    fn may_ask(&mut self, now: Time) -> bool {
        let limit = self.settings.timeout;
        // Its answer is lost.
        if let Some(asked) = self.asked.filter(|asked| asked.at.after(limit * 4) <= now) {
            self.asked = None;
            self.silent = Some(asked.at);
        }
        if let Some((revision, until)) = self.replaced
            && (revision != self.number.revision || until <= now)
        {
            self.replaced = None;
        }
        let is_patient = |since: Time| since.after(limit) > now;
        self.is_connected
            && self.asked.is_none()
            && self.replaced.is_none()
            && !self.silent.is_some_and(is_patient)
    }

    fn alone(&mut self, now: Time) -> UnitAnswer {
        if self.alone_from <= now {
            self.counts.offline += 1;
            self.alone_from = now.after(Duration::from_nanos(self.settings.span));
        }
        UnitAnswer::Alone
    }

    /// Returns the time in which the rate makes up the recent units of the own share.
    fn owed(&self, now: Time) -> u64 {
        let left = self.own_full_at.since(self.own_from.max(now));
        nanos(left) / u64::from(self.replicas)
    }

    /// Sets that time, which begins once the number has come back: the rate makes each unit once.
    fn set_owed(&mut self, now: Time, owed: u64) {
        let left = owed.saturating_mul(self.replicas.into());
        self.own_from = self.clock.when(self.believed(now), now);
        self.own_full_at = self.own_from.after(Duration::from_nanos(left));
    }

    /// Returns the number, as far as it can be true: the board's clock may have been set back.
    fn believed(&self, now: Time) -> BoardTime {
        let SharedRateSettings {
            early, life, span, ..
        } = self.settings;
        let leases = span.saturating_mul(2 * u64::from(self.replicas));
        // All replicas may owe a burst together.
        let burst = early.saturating_add(life);
        let most = burst.saturating_mul(2).saturating_add(BEYOND);
        let Some(latest) = self.clock.at_most(now).or(self.clock.at_least(now)) else {
            return self.number.full_at;
        };
        match self.number.full_at <= latest.plus(most.saturating_add(leases)) {
            true => self.number.full_at,
            false => BoardTime::default(),
        }
    }

    fn lease(&mut self, now: Time, units: u64) -> Option<RateRequest> {
        let least = self.clock.at_least(now)?;
        let SharedRateSettings { unit, life, .. } = self.settings;
        let (units, owed) = self.leasable(now, least, units)?;
        // The answer takes its time, and the units begin with it.
        let arrival = least.plus(self.round_trip.min(nanos(self.settings.timeout)));
        let full_at = self.believed(now);
        // What another replica gave back comes first.
        let usable = arrival.plus(unit).minus(life);
        let free = self.number.free.filter(|_| owed == 0);
        let back = free.and_then(|free| free.from(usable, unit));
        let (taken, number) = match back {
            Some(free) => {
                let (taken, left) = free.split(units, unit);
                (Some(taken), (full_at, left))
            }
            None => {
                // FLT-13: units without the board count, or its return would be one more burst.
                let begin = full_at.max(arrival).plus(owed);
                let end = begin.plus(unit.saturating_mul(units));
                let first = begin.plus(unit);
                let taken = (units > 0).then_some(UnitSpan { first, last: end });
                (taken, (end, None))
            }
        };
        Some(self.ask(now, number, (taken, owed)))
    }

    fn ask(
        &mut self,
        now: Time,
        (full_at, free): (BoardTime, Option<UnitSpan>),
        (units, owed): (Option<UnitSpan>, u64),
    ) -> RateRequest {
        let request = RateRequest {
            expected: self.number.revision,
            full_at,
            free,
        };
        let asked = AskedLease {
            request,
            units,
            owed,
            at: now,
        };
        self.asked = Some(asked);
        self.sent = Some(asked);
        request
    }

    fn heard(
        &mut self,
        now: Time,
        number: RateNumber,
        written: Option<BoardTime>,
        is_own: bool,
    ) -> Option<RateRequest> {
        if let Some(written) = written {
            self.clock.heard(now, written);
        }
        let of_request = |one: &AskedLease| {
            (one.request.full_at, one.request.free) == (number.full_at, number.free)
        };
        let own = self.sent.filter(|sent| is_own && of_request(sent));
        if let (Some(sent), Some(written)) = (own, written) {
            self.clock.sent(sent.at, now, written);
        }
        if number.revision > self.number.revision {
            let owed = self.owed(now);
            self.number = number;
            self.set_owed(now, owed);
        }
        self.silent = None;
        if own.is_some() {
            // Its answer may come later, or never.
            self.granted(now);
            self.sent = None;
            return None;
        }
        self.give_back(now)
    }

    fn answered(&mut self, now: Time, expected: Revision, answer: RateAnswer) {
        let asked = self.asked.filter(|one| one.request.expected == expected);
        let Some(asked) = asked else {
            // Its word was heard before.
            return;
        };
        match answer {
            RateAnswer::Done(revision) => {
                self.silent = None;
                if revision > self.number.revision {
                    self.number = RateNumber {
                        full_at: asked.request.full_at,
                        free: asked.request.free,
                        revision,
                    };
                }
                self.granted(now);
            }
            RateAnswer::Lost => {
                self.silent = None;
                self.asked = None;
                self.sent = None;
                self.counts.conflict += 1;
                let until = now.after(self.settings.timeout);
                self.replaced = Some((asked.request.expected, until));
            }
            RateAnswer::Unknown => {
                self.asked = None;
                self.silent = Some(now);
                self.counts.offline += u64::from(asked.takes());
            }
        }
    }

    /// The last request has been written.
    fn granted(&mut self, now: Time) {
        let known = self.asked.take().or(self.sent);
        let Some(AskedLease {
            units, owed, at, ..
        }) = known.filter(AskedLease::takes)
        else {
            return;
        };
        let trip = nanos(now.since(at));
        let all = self.round_trip.saturating_mul(SMOOTHED - 1);
        self.round_trip = all.saturating_add(trip) / SMOOTHED;
        self.counts.granted += 1;
        if let Some(units) = units {
            self.stock.put(units);
        }
        self.set_owed(now, self.owed(now).saturating_sub(owed));
        self.pay(now);
        // Read once, whether by its answer or by its word.
        if let Some(sent) = &mut self.sent {
            (sent.units, sent.owed) = (None, 0);
        }
    }

    /// Gives units back while another replica takes some and this one has no calls.
    fn give_back(&mut self, now: Time) -> Option<RateRequest> {
        if !self.may_ask(now) {
            return None;
        }
        self.forget_ended(now);
        if self.waiting > 0 || self.demand.recent(now, self.settings.span) > 0 {
            return None;
        }
        // Another replica's can be taken still.
        let SharedRateSettings { unit, life, .. } = self.settings;
        let least = self.clock.at_least(now)?;
        let usable = least.plus(unit).minus(life);
        let free = self.number.free;
        if free.is_some_and(|free| free.last > usable) {
            return None;
        }
        // FLT-13: from here on the calls of this replica do without them.
        let span = self.stock.give_back()?;
        Some(self.ask(now, (self.believed(now), Some(span)), (None, 0)))
    }
}
