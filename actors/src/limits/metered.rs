//! A limit on amounts that are known only after an attempt, such as tokens of a language model.
//!
//! The machine in `policy` decides. This module adds the queue: waiters are served in their order, a
//! refund wakes the first of them, and none waits for longer than it may.

mod metered_call;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::fleet::UnitReservation;
use breakerbox_policy::{Meter, MeterRefusal, MeterSettings, Reservation, Time};
use tokio::sync::{Notify, Semaphore};

pub use metered_call::MeteredCall;
pub(crate) use metered_call::UnusedShares;

use crate::clock::Clock;
use crate::limits::rate::TooFast;
use crate::limits::rate::share::{RateShare, SharedLimit};
use crate::sync::LockExt;

/// A limit by reservation and settlement. Cheap to clone: all clones are one limit.
///
/// Before an attempt the expected amount is reserved; after it the used amount is settled. Where
/// several limits hold, such as input and output apart, reserve at each of them in the same order.
///
/// # Source  Rules LLM-19 and LLM-20 in docs/rules.md.
#[derive(Clone)]
pub struct MeteredLimit(MeterKind);

#[derive(Clone)]
enum MeterKind {
    /// Of this replica alone.
    Own(Arc<SharedMeter>),
    /// The part of this replica in a limit of its fleet.
    Fleet(Arc<RateShare>),
}

struct SharedMeter {
    queue: Mutex<MeterQueue>,
    clock: Clock,
    /// Held by the first waiter; the others wait for this semaphore.
    turn: Semaphore,
    /// Tells the first waiter that an amount was given back.
    refunded: Notify,
}

struct MeterQueue {
    meter: Meter,
    /// The sum of the amounts of the waiters.
    waiting: u64,
    /// Maximum wait of a call.
    max_wait: Duration,
}

/// An amount that one attempt holds. Dropped without a settlement, it counts as used in full.
#[must_use = "dropped, it counts as used in full"]
pub struct MeteredShare {
    /// `None` once it is settled.
    held: Option<HeldAmount>,
}

enum HeldAmount {
    Own(Arc<SharedMeter>, Reservation),
    Fleet(Arc<RateShare>, UnitReservation),
}

impl MeteredLimit {
    /// Creates a limit. `max_wait`: of a call for its amount; one that would wait longer is refused
    /// at once.
    #[must_use]
    pub fn new(settings: MeterSettings, max_wait: Duration, clock: Clock) -> Self {
        let meter = Meter::new(settings, clock.now());
        let queue = MeterQueue {
            meter,
            waiting: 0,
            max_wait,
        };
        Self(MeterKind::Own(Arc::new(SharedMeter {
            queue: Mutex::new(queue),
            clock,
            turn: Semaphore::new(1),
            refunded: Notify::new(),
        })))
    }

    /// Returns the part of this replica in a limit of its fleet.
    pub(crate) const fn of_fleet(share: Arc<RateShare>) -> Self {
        Self(MeterKind::Fleet(share))
    }

    /// Reserves an amount, behind the calls that already wait.
    ///
    /// # Errors  [`MeterRefusal`], at once and not after waiting; after waiting only if others have
    /// used more than they reserved.
    /// # Cancel safety   If the future is dropped while it waits, nothing is reserved, and the
    /// waiters behind it move up.
    pub async fn reserve(
        &self,
        amount: u64,
        deadline: Option<Time>,
    ) -> Result<MeteredShare, MeterRefusal> {
        match &self.0 {
            MeterKind::Own(meter) => {
                let reservation = meter.reserve(amount, deadline).await?;
                Ok(HeldAmount::Own(Arc::clone(meter), reservation).into())
            }
            MeterKind::Fleet(share) => {
                let entered = share.enter(amount, deadline).await;
                let held = entered.map_err(|refusal| refused(refusal, amount, share))?;
                let held = held.map(|held| HeldAmount::Fleet(Arc::clone(share), held));
                Ok(MeteredShare { held })
            }
        }
    }

    /// Returns the sum of the amounts that attempts hold.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        match &self.0 {
            MeterKind::Own(meter) => meter.queue.acquire().meter.reserved(),
            MeterKind::Fleet(share) => share.reserved(),
        }
    }

    /// Returns the amount that is available at once, if no call waits.
    #[must_use]
    pub fn available(&self) -> u64 {
        match &self.0 {
            MeterKind::Own(meter) => {
                let queue = meter.queue.acquire();
                queue.meter.available(meter.clock.now())
            }
            MeterKind::Fleet(share) => share.available(),
        }
    }

    /// Returns the amount that is owed. Of a limit of the fleet: by this replica, and not yet told.
    #[must_use]
    pub fn owed(&self) -> u64 {
        match &self.0 {
            MeterKind::Own(meter) => meter.queue.acquire().meter.owed(meter.clock.now()),
            MeterKind::Fleet(share) => share.debt(),
        }
    }

    /// Owes so much, for calls at a limit that this one replaces.
    pub fn owe(&self, amount: u64) {
        match &self.0 {
            MeterKind::Own(meter) => {
                if let Ok(nothing) = meter.try_reserve(0) {
                    meter.settle(nothing, amount);
                }
            }
            MeterKind::Fleet(share) => share.owe(amount),
        }
    }

    /// Returns the wait of a call that reserves so much now, behind those that wait already; zero if
    /// it would not wait. It reserves nothing.
    ///
    /// # Errors  [`MeterRefusal`]: it would be refused.
    pub fn wait_for(&self, amount: u64) -> Result<Duration, MeterRefusal> {
        match &self.0 {
            MeterKind::Own(meter) => meter.wait_for(amount),
            MeterKind::Fleet(share) => {
                let wait = share.wait_for(amount);
                wait.map_err(|refusal| refused(refusal, amount, share))
            }
        }
    }

    /// Changes rate and burst, and the maximum wait of later calls. Units that are held, available or
    /// owed stay so.
    pub fn change(&self, settings: MeterSettings, max_wait: Duration) {
        match &self.0 {
            MeterKind::Own(meter) => meter.change(settings, max_wait),
            MeterKind::Fleet(share) => share.reconfigure(SharedLimit::Metered(settings, max_wait)),
        }
    }
}

fn refused(refusal: TooFast, asked: u64, share: &RateShare) -> MeterRefusal {
    match refusal {
        TooFast::NotBefore(wait) => MeterRefusal::NotBefore(wait),
        TooFast::TooHeavy => MeterRefusal::TooMuch {
            asked,
            burst: share.burst(),
        },
    }
}

impl SharedMeter {
    async fn reserve(
        &self,
        amount: u64,
        deadline: Option<Time>,
    ) -> Result<Reservation, MeterRefusal> {
        let place = match self.join(amount, deadline)? {
            JoinedQueue::Reserved(reservation) => return Ok(reservation),
            JoinedQueue::Waiting(place) => place,
        };
        // CALL-9: it waits no longer than its own time, however long the one before it does.
        let _turn = tokio::select! {
            biased;
            // The semaphore is never closed.
            turn = self.turn.acquire() => turn,
            () = self.clock.sleep_until(place.latest) => return Err(self.too_late(amount)),
        };
        loop {
            let wait = match self.try_reserve(amount) {
                Ok(reservation) => return Ok(reservation),
                Err(MeterRefusal::NotBefore(wait)) => wait,
                Err(never) => return Err(never),
            };
            let at = self.clock.now().after(wait);
            // A debt that came after it has joined.
            if at > place.latest {
                return Err(MeterRefusal::NotBefore(wait));
            }
            tokio::select! {
                () = self.clock.sleep_until(at) => {}
                () = self.refunded.notified() => {}
            }
        }
    }

    /// Returns the refusal of a call that has waited for as long as it may.
    fn too_late(&self, amount: u64) -> MeterRefusal {
        let wait = self.wait_for(amount);
        wait.map_or_else(|refusal| refusal, MeterRefusal::NotBefore)
    }

    fn wait_for(&self, amount: u64) -> Result<Duration, MeterRefusal> {
        let queue = self.queue.acquire();
        let wait = queue.wait_for(self.clock.now(), amount)?;
        match wait <= queue.max_wait {
            true => Ok(wait),
            false => Err(MeterRefusal::NotBefore(wait)),
        }
    }

    fn change(&self, settings: MeterSettings, max_wait: Duration) {
        let now = self.clock.now();
        let mut queue = self.queue.acquire();
        queue.meter.change(now, settings);
        queue.max_wait = max_wait;
        drop(queue);
        self.refunded.notify_one();
    }

    fn settle(&self, reservation: Reservation, used: u64) {
        let now = self.clock.now();
        let mut queue = self.queue.acquire();
        queue.meter.settle(now, reservation, used);
        drop(queue);
        self.refunded.notify_one();
    }
}

impl fmt::Debug for MeteredLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = out.debug_struct("MeteredLimit");
        if let MeterKind::Own(meter) = &self.0 {
            let queue = meter.queue.acquire();
            debug
                .field("meter", &queue.meter)
                .field("max_wait", &queue.max_wait);
        }
        debug.finish_non_exhaustive()
    }
}

/// The result of joining the queue.
enum JoinedQueue<'a> {
    /// Nothing had to be waited for.
    Reserved(Reservation),
    Waiting(MeterWaiter<'a>),
}

/// A waiter in the queue.
struct MeterWaiter<'a> {
    shared: &'a SharedMeter,
    amount: u64,
    /// The end of its patience.
    latest: Time,
}

impl Drop for MeterWaiter<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.acquire();
        queue.waiting = queue.waiting.saturating_sub(self.amount);
    }
}

impl MeterQueue {
    /// Returns the wait of a call at the end of the queue.
    fn wait_for(&self, now: Time, amount: u64) -> Result<Duration, MeterRefusal> {
        let burst = self.meter.settings().burst.get();
        // LLM-20: it would wait in vain.
        if amount > burst {
            return Err(MeterRefusal::TooMuch {
                asked: amount,
                burst,
            });
        }
        let all = self.waiting.saturating_add(amount);
        Ok(match amount {
            0 if self.waiting == 0 => Duration::ZERO,
            _ => self.meter.wait_for(now, all),
        })
    }
}

impl SharedMeter {
    /// Reserves the amount if it is available and no call waits. Otherwise joins the end of the
    /// queue, unless the wait would be too long.
    fn join(&self, amount: u64, deadline: Option<Time>) -> Result<JoinedQueue<'_>, MeterRefusal> {
        let now = self.clock.now();
        let mut queue = self.queue.acquire();
        if queue.waiting == 0
            && let Ok(reservation) = queue.meter.try_reserve(now, amount)
        {
            return Ok(JoinedQueue::Reserved(reservation));
        }
        let wait = queue.wait_for(now, amount)?;
        let patience = now.after(queue.max_wait);
        let latest = deadline.map_or(patience, |deadline| deadline.min(patience));
        // LIM-2: a call that cannot start in time is refused at once.
        if now.after(wait) > latest {
            return Err(MeterRefusal::NotBefore(wait));
        }
        queue.waiting = queue.waiting.saturating_add(amount);
        Ok(JoinedQueue::Waiting(MeterWaiter {
            shared: self,
            amount,
            latest,
        }))
    }

    fn try_reserve(&self, amount: u64) -> Result<Reservation, MeterRefusal> {
        let now = self.clock.now();
        self.queue.acquire().meter.try_reserve(now, amount)
    }
}

impl From<HeldAmount> for MeteredShare {
    fn from(held: HeldAmount) -> Self {
        Self { held: Some(held) }
    }
}

impl MeteredShare {
    /// Returns the amount that is held.
    #[must_use]
    pub fn amount(&self) -> u64 {
        match &self.held {
            Some(HeldAmount::Own(_, held)) => held.amount(),
            Some(HeldAmount::Fleet(_, held)) => held.amount(),
            None => 0,
        }
    }

    /// Settles by the amount that was used. The rest is given back, and an excess is owed.
    pub fn settle(mut self, used: u64) {
        self.end(used);
    }

    /// Gives all of it back: the attempt was not executed.
    pub fn give_back(mut self) {
        self.end(0);
    }

    fn end(&mut self, used: u64) {
        match self.held.take() {
            Some(HeldAmount::Own(meter, held)) => meter.settle(held, used),
            Some(HeldAmount::Fleet(share, held)) => share.settle(held, used),
            None => {}
        }
    }
}

impl Drop for MeteredShare {
    fn drop(&mut self) {
        self.end(self.amount());
    }
}

impl fmt::Debug for MeteredShare {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MeteredShare")
            .field("amount", &self.amount())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
