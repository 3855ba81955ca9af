//! The part of one replica in a rate limit of a whole fleet, in front of a limit of its own.
//!
//! The machine in `policy` owns the leased units, and the replica's own share. This module adds the
//! line of the calls that wait. It sends nothing itself: the fleet's child has given it a [`RateLink`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakerbox_policy::fleet::{
    RateCounts, RateInput, RateRequest, SharedRate, SharedRateSettings, UnitAnswer, UnitReservation,
};
use breakerbox_policy::{MeterSettings, RateLimitSettings, RateSharing, Time};
use tokio::sync::{Notify, Semaphore};

use super::TooFast;
use crate::clock::{Clock, is_too_late};
use crate::sync::LockExt;

/// Wait for the board until a fleet has set its own.
const TIMEOUT: Duration = Duration::from_millis(250);

/// The way from a shared rate to its fleet.
#[derive(Clone)]
pub struct RateLink {
    /// Longest wait of a call for the board.
    pub timeout: Duration,
    /// Passes a request on, without blocking.
    pub ask: Arc<dyn Fn(RateRequest) + Send + Sync>,
}

impl fmt::Debug for RateLink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RateLink").finish_non_exhaustive()
    }
}

/// The state of a shared rate for its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedRateView {
    /// True while it takes leases at the board.
    pub is_connected: bool,
    /// Counters of its leases.
    pub counts: RateCounts,
}

/// A limit that all replicas have together.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SharedLimit {
    /// Of calls.
    Calls(RateLimitSettings, RateSharing),
    /// Of amounts that are settled after a call, with the maximum wait of a call.
    Metered(MeterSettings, Duration),
}

impl SharedLimit {
    fn burst(&self) -> u64 {
        match self {
            Self::Calls(limit, _) => limit.burst.get().into(),
            Self::Metered(limit, _) => limit.burst.get(),
        }
    }

    fn max_wait(&self) -> Duration {
        match self {
            Self::Calls(limit, _) => limit.max_wait,
            Self::Metered(_, max_wait) => *max_wait,
        }
    }

    /// Returns the settings of the machine. `timeout`: the longest wait for the board.
    fn machine(&self, timeout: Duration) -> SharedRateSettings {
        match self {
            Self::Calls(limit, sharing) => SharedRateSettings::new(limit, *sharing, timeout),
            Self::Metered(limit, _) => SharedRateSettings::of_meter(limit, timeout),
        }
    }
}

/// The part of one replica in a shared rate.
///
/// # Source  Rule FLT-13 in docs/rules.md.
pub(crate) struct RateShare {
    state: Mutex<ShareState>,
    /// Tells the first waiter that there is news of the board.
    news: Notify,
    /// Held by the first waiter; the others wait for this semaphore.
    turn: Semaphore,
    clock: Clock,
}

struct ShareState {
    limit: SharedLimit,
    machine: SharedRate,
    link: Option<RateLink>,
    waiters: usize,
    /// Units of the waiters.
    waiting: u64,
}

/// Next step of a call.
enum ShareStep {
    /// It has its units, and settles them if this is a limit of amounts.
    Entered(Option<UnitReservation>),
    /// It waits for news, until then.
    Wait(Time),
}

impl ShareState {
    fn new(limit: SharedLimit, clock: &Clock, replicas: u32) -> Self {
        let mut machine = SharedRate::new(limit.machine(TIMEOUT));
        machine.on(clock.now(), RateInput::Replicas(replicas));
        Self {
            limit,
            machine,
            link: None,
            waiters: 0,
            waiting: 0,
        }
    }

    /// Asks the fleet as the machine wants it. `first`: weight of the call that waits first.
    fn request(&mut self, now: Time, first: u64) {
        if let Some(request) = self.machine.request(now, self.waiting, first) {
            self.send(request);
        }
    }

    /// Tells the board of units that are owed.
    fn pay(&mut self, now: Time) {
        if self.machine.owes(now) {
            self.request(now, 1);
        }
    }

    fn send(&self, request: RateRequest) {
        if let Some(link) = &self.link {
            (link.ask)(request);
        }
    }
}

impl RateShare {
    pub(crate) fn new(limit: SharedLimit, clock: Clock, replicas: u32) -> Self {
        Self {
            state: Mutex::new(ShareState::new(limit, &clock, replicas)),
            news: Notify::new(),
            turn: Semaphore::new(1),
            clock,
        }
    }

    /// Applies new settings; units that it has stay.
    pub(crate) fn reconfigure(&self, limit: SharedLimit) {
        let mut state = self.lock();
        let timeout = state.machine.settings().timeout();
        state.limit = limit;
        state
            .machine
            .reconfigure(self.clock.now(), limit.machine(timeout));
        drop(state);
        // A raised limit has room for those that wait.
        self.news.notify_one();
    }

    /// Takes in an event of the fleet, which is reached by `link` from now on.
    pub(crate) fn feed(&self, input: RateInput, link: &RateLink) {
        let now = self.clock.now();
        let mut state = self.lock();
        if let RateInput::Connected { .. } = input {
            let settings = state.limit.machine(link.timeout);
            state.machine.reconfigure(now, settings);
            state.link = Some(link.clone());
        }
        match state.machine.on(now, input) {
            Some(request) => state.send(request),
            None => state.pay(now),
        }
        drop(state);
        self.news.notify_one();
    }

    /// Takes in the number of live replicas.
    pub(crate) fn set_replicas(&self, replicas: u32) {
        let mut state = self.lock();
        if state.machine.replicas() != replicas {
            state
                .machine
                .on(self.clock.now(), RateInput::Replicas(replicas));
            drop(state);
            self.news.notify_one();
        }
    }

    pub(crate) fn view(&self) -> SharedRateView {
        let state = self.lock();
        SharedRateView {
            is_connected: state.machine.is_connected(),
            counts: state.machine.counts(),
        }
    }

    /// Settles the units of a call by the amount that it used.
    pub(crate) fn settle(&self, held: UnitReservation, used: u64) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.machine.settle(now, held, used);
        state.pay(now);
        drop(state);
        self.news.notify_one();
    }

    /// Owes so many units.
    pub(crate) fn owe(&self, units: u64) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.machine.owe(now, units);
        state.pay(now);
    }

    pub(crate) fn burst(&self) -> u64 {
        self.lock().limit.burst()
    }

    /// Returns the units that are owed and not told to the board.
    pub(crate) fn debt(&self) -> u64 {
        self.lock().machine.debt(self.clock.now())
    }

    /// Returns the units that calls hold until they are settled.
    pub(crate) fn reserved(&self) -> u64 {
        self.lock().machine.reserved()
    }

    /// Returns the units that a call could have now, as far as this replica knows.
    pub(crate) fn available(&self) -> u64 {
        self.lock().machine.available(self.clock.now())
    }

    /// Returns the wait of a call that comes now, behind those that wait already. It takes nothing.
    ///
    /// # Errors  [`TooFast`]: it would be refused.
    pub(crate) fn wait_for(&self, weight: u64) -> Result<Duration, TooFast> {
        let now = self.clock.now();
        let state = self.lock();
        if weight > state.limit.burst() {
            return Err(TooFast::TooHeavy);
        }
        if weight == 0 {
            return Ok(Duration::ZERO);
        }
        let wait = state.machine.time_of(now, state.waiting, weight).since(now);
        match wait <= state.limit.max_wait() {
            true => Ok(wait),
            false => Err(TooFast::NotBefore(wait)),
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.lock().waiters > 0
    }

    /// Takes `weight` units at once, if they are here and no call waits.
    pub(super) fn try_enter(&self, weight: u64, now: Time) -> bool {
        let mut state = self.lock();
        if state.waiters > 0 {
            return false;
        }
        if state.machine.take_at_once(now, weight) {
            state.request(now, 1);
            return true;
        }
        !state.machine.is_connected() && state.machine.take_alone(now, 0, weight).is_ok()
    }

    /// Waits for `weight` units, behind the calls that already wait. Returns the units to settle, if
    /// this is a limit of amounts.
    ///
    /// # Errors  [`TooFast`]: the rate is used up for longer than the call may wait.
    /// # Cancel safety   If the future is dropped while it waits, it takes no units.
    pub(crate) async fn enter(
        &self,
        weight: u64,
        deadline: Option<Time>,
    ) -> Result<Option<UnitReservation>, TooFast> {
        let began = self.clock.now();
        if weight == 0 {
            return Ok(self.lock().machine.reserved_now(began, 0, false));
        }
        let (place, step) = self.join(weight, began, deadline)?;
        let turn = match step {
            ShareStep::Wait(_) => tokio::select! {
                biased;
                // The semaphore is never closed.
                turn = self.turn.acquire() => Some(turn),
                // CALL-9: it waits no longer than its own time, however long the one before it does.
                () = self.clock.sleep_until(place.latest()) => return place.at_last(),
            },
            _ => None,
        };
        let mut step = match turn {
            Some(_) => place.look(self.clock.now())?,
            None => step,
        };
        loop {
            match step {
                ShareStep::Entered(held) => return Ok(held),
                ShareStep::Wait(until) => {
                    tokio::select! {
                        () = self.clock.sleep_until(until) => {}
                        () = self.news.notified() => {}
                    }
                }
            }
            step = place.look(self.clock.now())?;
        }
    }

    /// Joins the end of the line, unless the wait would be too long, and takes the first step.
    fn join(
        &self,
        weight: u64,
        began: Time,
        deadline: Option<Time>,
    ) -> Result<(ShareWaiter<'_>, ShareStep), TooFast> {
        let mut state = self.lock();
        if weight > state.limit.burst() {
            return Err(TooFast::TooHeavy);
        }
        state.machine.note_demand(began, weight);
        let ahead = state.waiting;
        state.waiters += 1;
        state.waiting = state.waiting.saturating_add(weight);
        drop(state);
        let place = ShareWaiter {
            share: self,
            weight,
            began,
            deadline,
        };
        let step = place.look_behind(began, ahead)?;
        Ok((place, step))
    }

    fn lock(&self) -> MutexGuard<'_, ShareState> {
        self.state.acquire()
    }
}

impl fmt::Debug for RateShare {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RateShare").finish_non_exhaustive()
    }
}

/// A waiter in the line.
struct ShareWaiter<'a> {
    share: &'a RateShare,
    weight: u64,
    began: Time,
    deadline: Option<Time>,
}

impl ShareWaiter<'_> {
    /// The end of its time: its deadline, or the longest wait that is allowed.
    fn latest(&self) -> Time {
        let state = self.share.lock();
        // FLT-1: it may wait for a silent board as long as that.
        let patience = state.machine.settings().timeout();
        let latest = self.began.after(state.limit.max_wait().max(patience));
        self.deadline
            .map_or(latest, |deadline| deadline.min(latest))
    }

    /// Takes the last step of a call that has waited behind others for as long as it may. Units that are
    /// there for it are better than a refusal, also if a heavier call before it still waits.
    fn at_last(&self) -> Result<Option<UnitReservation>, TooFast> {
        let now = self.share.clock.now();
        match self.look(now)? {
            ShareStep::Entered(held) => Ok(held),
            ShareStep::Wait(until) => Err(TooFast::NotBefore(until.since(now))),
        }
    }

    /// Takes the next step of the first waiter.
    fn look(&self, now: Time) -> Result<ShareStep, TooFast> {
        self.look_behind(now, 0)
    }

    /// Takes the next step of a call with these units of others before it.
    fn look_behind(&self, now: Time, ahead: u64) -> Result<ShareStep, TooFast> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(TooFast::NotBefore(Duration::ZERO));
        }
        let mut state = self.share.lock();
        let weight = self.weight;
        let answer = state.machine.answer(now, ahead, weight);
        // FLT-1: a call waits for the board for this long, and for its own deadline.
        let patience = self.began.after(state.machine.settings().timeout());
        // FLT-13: also by a call that goes alone: the answer tells that the board is there again.
        state.request(
            now,
            if answer == UnitAnswer::Granted {
                1
            } else {
                weight
            },
        );
        // The time from which it waits for the rate, and that of its turn; `None`: for the board.
        let turn = match answer {
            UnitAnswer::Granted => {
                let held = state.machine.reserved_now(now, weight, false);
                return Ok(ShareStep::Entered(held));
            }
            UnitAnswer::NotBefore(at) => Some((self.began, at)),
            UnitAnswer::Asked if now < patience => None,
            UnitAnswer::Asked | UnitAnswer::Alone => {
                match state.machine.take_alone(now, ahead, weight) {
                    Ok(()) => {
                        let held = state.machine.reserved_now(now, weight, true);
                        return Ok(ShareStep::Entered(held));
                    }
                    // The whole burst would hold it, and the share's does not.
                    Err(None) => return Err(TooFast::NotBefore(TIMEOUT)),
                    Err(Some(at)) => Some((now.min(patience), at)),
                }
            }
        };
        if let Some((since, at)) = turn
            && (at.since(since) > state.limit.max_wait() || is_too_late(at, self.deadline))
        {
            return Err(TooFast::NotBefore(at.since(now)));
        }
        let until = turn.map_or(patience, |(_, at)| at);
        let until = self.deadline.map_or(until, |deadline| until.min(deadline));
        Ok(ShareStep::Wait(until))
    }
}

impl Drop for ShareWaiter<'_> {
    fn drop(&mut self) {
        let mut state = self.share.lock();
        state.waiters -= 1;
        state.waiting = state.waiting.saturating_sub(self.weight);
        let waiting = state.waiting;
        state.machine.set_waiting(waiting);
    }
}
