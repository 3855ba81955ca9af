//! A limit on amounts that are known only after an attempt, such as tokens of a language model.
//!
//! The machine in `policy` decides. This module adds the queue: waiters are served in their order, a
//! refund wakes the first of them, and none waits for longer than it may.

mod metered_call;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::{Meter, MeterRefusal, MeterSettings, Reservation, Time};
use tokio::sync::{Notify, Semaphore};

pub use metered_call::MeteredCall;
pub(crate) use metered_call::UnusedShares;

use crate::clock::Clock;
use crate::sync::LockExt;

/// A limit by reservation and settlement. Cheap to clone: all clones are one limit.
///
/// Before an attempt the expected amount is reserved; after it the used amount is settled. Where
/// several limits hold, such as input and output apart, reserve at each of them in the same order.
///
/// # Source  Rules LLM-19 and LLM-20 in docs/rules.md.
#[derive(Clone)]
pub struct MeteredLimit {
    shared: Arc<SharedMeter>,
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
    shared: Arc<SharedMeter>,
    /// `None` once it is settled.
    reservation: Option<Reservation>,
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
        Self {
            shared: Arc::new(SharedMeter {
                queue: Mutex::new(queue),
                clock,
                turn: Semaphore::new(1),
                refunded: Notify::new(),
            }),
        }
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
        let shared = &self.shared;
        let place = match shared.join(amount, deadline)? {
            JoinedQueue::Reserved(reservation) => return Ok(self.share(reservation)),
            JoinedQueue::Waiting(place) => place,
        };
        // CALL-9: it waits no longer than its own time, however long the one before it does.
        let _turn = tokio::select! {
            biased;
            // The semaphore is never closed.
            turn = shared.turn.acquire() => turn,
            () = shared.clock.sleep_until(place.latest) => return Err(self.too_late(amount)),
        };
        loop {
            let wait = match shared.try_reserve(amount) {
                Ok(reservation) => return Ok(self.share(reservation)),
                Err(MeterRefusal::NotBefore(wait)) => wait,
                Err(never) => return Err(never),
            };
            let at = shared.clock.now().after(wait);
            // A debt that came after it has joined.
            if at > place.latest {
                return Err(MeterRefusal::NotBefore(wait));
            }
            tokio::select! {
                () = shared.clock.sleep_until(at) => {}
                () = shared.refunded.notified() => {}
            }
        }
    }

    /// Returns the refusal of a call that has waited for as long as it may.
    fn too_late(&self, amount: u64) -> MeterRefusal {
        let wait = self.wait_for(amount);
        wait.map_or_else(|refusal| refusal, MeterRefusal::NotBefore)
    }

    /// Returns the sum of the amounts that attempts hold.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.shared.queue.acquire().meter.reserved()
    }

    /// Returns the amount that is available at once, if no call waits.
    #[must_use]
    pub fn available(&self) -> u64 {
        let queue = self.shared.queue.acquire();
        queue.meter.available(self.shared.clock.now())
    }

    /// Returns the wait of a call that reserves so much now, behind those that wait already; zero if
    /// it would not wait. It reserves nothing.
    ///
    /// # Errors  [`MeterRefusal`]: it would be refused.
    pub fn wait_for(&self, amount: u64) -> Result<Duration, MeterRefusal> {
        let queue = self.shared.queue.acquire();
        let wait = queue.wait_for(self.shared.clock.now(), amount)?;
        match wait <= queue.max_wait {
            true => Ok(wait),
            false => Err(MeterRefusal::NotBefore(wait)),
        }
    }

    /// Changes rate and burst, and the maximum wait of later calls. Units that are held, available or
    /// owed stay so.
    pub fn change(&self, settings: MeterSettings, max_wait: Duration) {
        let now = self.shared.clock.now();
        let mut queue = self.shared.queue.acquire();
        queue.meter.change(now, settings);
        queue.max_wait = max_wait;
        drop(queue);
        self.shared.refunded.notify_one();
    }

    fn share(&self, reservation: Reservation) -> MeteredShare {
        MeteredShare {
            shared: Arc::clone(&self.shared),
            reservation: Some(reservation),
        }
    }
}

impl fmt::Debug for MeteredLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.shared.queue.acquire();
        out.debug_struct("MeteredLimit")
            .field("meter", &queue.meter)
            .field("max_wait", &queue.max_wait)
            .finish_non_exhaustive()
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

impl MeteredShare {
    /// Returns the amount that is held.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.reservation.as_ref().map_or(0, Reservation::amount)
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
        if let Some(reservation) = self.reservation.take() {
            let now = self.shared.clock.now();
            let mut queue = self.shared.queue.acquire();
            queue.meter.settle(now, reservation, used);
            drop(queue);
            self.shared.refunded.notify_one();
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
