//! Rate limit: the number of calls that may go out in each interval, and the order of the waiters.
//!
//! Governor does the counting. This module adds the queue: a waiter keeps its position, and no call
//! waits in vain.

pub(crate) mod share;

use std::future::{Future, poll_fn};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use breakerbox_policy::{RateLimitSettings, RateSharing, Time};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use tokio::sync::Semaphore;
use tokio::task::unconstrained;

use crate::clock::{CallerClock, Clock, is_too_late, waking};
use crate::sync::LockExt;
use share::{RateShare, SharedLimit};

/// A dependency's rate limit.
///
/// # Source  Rules LIM-2 and LIM-3 in docs/rules.md.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, CallerClock, NoOpMiddleware<Nanos>>,
    burst: NonZeroU32,
    /// Time to replenish one unit.
    unit: Duration,
    max_wait: Duration,
    clock: Clock,
    queue: Mutex<RateQueue>,
    /// Number of waiters, readable without the lock. A shared rate has one for ever, so that the
    /// path of any other one does not ask for it.
    waiting: AtomicUsize,
    /// Held by the first waiter, which waits for its units; the others wait for this semaphore.
    turn: Semaphore,
    /// The limit that stands in place of this one; `None` for one of this replica alone.
    share: Option<Arc<RateShare>>,
}

/// State of the waiters.
#[derive(Debug, Default)]
struct RateQueue {
    calls: usize,
    /// Time at which all units taken so far will be replenished; accurate while a call waits.
    full_at: Time,
    /// Further time to replenish the units of the waiters.
    waiters_cost: Duration,
}

/// Reason why a call may not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooFast {
    /// Its turn would come too late: after its deadline, or after a longer wait than is allowed.
    NotBefore(Duration),
    /// Its weight exceeds the burst, so it could never go out.
    TooHeavy,
}

impl RateLimit {
    pub(crate) fn new(settings: &RateLimitSettings, clock: Clock) -> Self {
        let unit = settings.unit();
        CallerClock::set(clock.now());
        let quota = Quota::with_period(unit)
            // A unit is at least a nanosecond.
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX))
            .allow_burst(settings.burst);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, CallerClock),
            burst: settings.burst,
            unit,
            max_wait: settings.max_wait,
            clock,
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            turn: Semaphore::new(1),
            share: None,
        }
    }

    /// Creates a limit in place of another one, and takes over its part in a shared rate.
    /// `replicas`: number of live replicas, this one among them.
    pub(crate) fn renewed(
        (settings, sharing): (&RateLimitSettings, Option<RateSharing>),
        clock: Clock,
        before: Option<&Self>,
        replicas: u32,
    ) -> Self {
        let mut limit = Self::new(settings, clock.clone());
        if let Some(sharing) = sharing {
            let shared = SharedLimit::Calls(*settings, sharing);
            let share = match before.and_then(|before| before.share.clone()) {
                Some(share) => {
                    share.reconfigure(shared);
                    share
                }
                None => Arc::new(RateShare::new(shared, clock, replicas)),
            };
            limit.share = Some(share);
            limit.waiting = AtomicUsize::new(1);
        }
        limit
    }

    /// The part in a shared rate; `None` for a limit of this replica alone.
    pub(crate) fn share(&self) -> Option<&Arc<RateShare>> {
        self.share.as_ref()
    }

    /// Maximum weight that can ever go out.
    pub(crate) fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// Returns true if calls wait for their units.
    pub(crate) fn is_waited_for(&self) -> bool {
        match &self.share {
            Some(share) => share.is_waited_for(),
            None => self.waiting.load(Ordering::Acquire) > 0,
        }
    }

    /// Takes `weight` units at once, if they are available and no call waits.
    #[inline]
    pub(crate) fn try_enter(&self, weight: NonZeroU32, now: Time) -> bool {
        // LIM-3: a call takes the units of its weight.
        match self.waiting.load(Ordering::Acquire) {
            0 => matches!(self.take(weight, now), Ok(None)),
            _ => self.try_enter_share(weight, now),
        }
    }

    #[cold]
    fn try_enter_share(&self, weight: NonZeroU32, now: Time) -> bool {
        let share = self.share.as_ref();
        share.is_some_and(|share| share.try_enter(weight.get().into(), now))
    }

    /// Waits for `weight` units, behind the calls that already wait.
    ///
    /// # Errors  [`TooFast`], at once and not after waiting; after waiting only if a thread was
    /// delayed for so long that the deadline would be missed.
    /// # Cancel safety   If the future is dropped while it waits, it takes no units, and the
    /// waiters behind it move up.
    pub(crate) async fn enter(
        &self,
        weight: NonZeroU32,
        deadline: Option<Time>,
    ) -> Result<(), TooFast> {
        match &self.share {
            Some(share) => share.enter(weight.get().into(), deadline).await.map(drop),
            None => self.enter_alone(weight, deadline).await,
        }
    }

    /// Does the same at the limit of this replica alone.
    async fn enter_alone(&self, weight: NonZeroU32, deadline: Option<Time>) -> Result<(), TooFast> {
        let mut queued = pin!(unconstrained(self.turn.acquire()));
        let mut turn = None;
        let joined = poll_fn(|cx| {
            // Both queues are joined under one lock; otherwise two threads could join them in
            // opposite orders.
            let mut queue = self.lock();
            let place = self.join_queue(&mut queue, weight, deadline);
            if let Ok(Some(_)) = place
                && let Poll::Ready(first) = queued.as_mut().poll(cx)
            {
                turn = Some(first);
            }
            Poll::Ready(place)
        });
        let Some(place) = joined.await? else {
            return Ok(());
        };
        // The semaphore is never closed.
        let _turn = match turn {
            Some(first) => first,
            None => queued.await,
        };
        loop {
            let now = self.clock.now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Err(TooFast::NotBefore(Duration::ZERO));
            }
            let Some(at) = self.take(weight, now)? else {
                break;
            };
            place.will_be_served(at);
            if is_too_late(at, deadline) {
                return Err(TooFast::NotBefore(at.since(now)));
            }
            self.clock.sleep_until(at).await;
        }
        place.served();
        Ok(())
    }

    /// Takes the units if they are available and no call waits. Otherwise joins the end of the
    /// queue, unless the wait would be too long.
    fn join_queue(
        &self,
        queue: &mut RateQueue,
        weight: NonZeroU32,
        deadline: Option<Time>,
    ) -> Result<Option<RateWaiter<'_>>, TooFast> {
        let now = self.clock.now();
        if queue.calls == 0 {
            match self.take(weight, now)? {
                None => return Ok(None),
                Some(at) => queue.full_at = at.after(self.spare(weight)),
            }
        } else if weight > self.burst {
            return Err(TooFast::TooHeavy);
        }
        let full = queue.full_at.after(queue.waiters_cost);
        let at = Time::ZERO.after(full.since(Time::ZERO.after(self.spare(weight))));
        let wait = at.since(now);
        if wait > self.max_wait || is_too_late(at.max(now), deadline) {
            return Err(TooFast::NotBefore(wait));
        }
        // If the timer fires after the burst is full again, the units of the time between are lost.
        let begins = waking(at).max(now);
        let cost = full.max(begins).after(self.span(weight)).since(full);
        queue.waiters_cost = queue.waiters_cost.saturating_add(cost);
        queue.calls += 1;
        self.waiting.store(queue.calls, Ordering::Release);
        Ok(Some(RateWaiter {
            limit: self,
            weight,
            cost,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, RateQueue> {
        self.queue.acquire()
    }

    /// Takes the units, or returns the time at which they will be available.
    fn take(&self, weight: NonZeroU32, now: Time) -> Result<Option<Time>, TooFast> {
        if weight > self.burst {
            // Checked here, because governor's arithmetic would overflow.
            return Err(TooFast::TooHeavy);
        }
        let at = |not: NotUntil<Nanos>| Time::from_nanos(not.earliest_possible().as_u64());
        CallerClock::set(now);
        match self.limiter.check_n(weight) {
            Ok(Ok(())) => Ok(None),
            Ok(Err(not)) => Ok(Some(at(not))),
            Err(_more_than_the_burst) => Err(TooFast::TooHeavy),
        }
    }

    /// Time by which this weight is available before the burst is full.
    fn spare(&self, weight: NonZeroU32) -> Duration {
        let units = self.burst.get().saturating_sub(weight.get());
        self.unit.saturating_mul(units)
    }

    /// Time to replenish this weight.
    fn span(&self, weight: NonZeroU32) -> Duration {
        self.unit.saturating_mul(weight.get())
    }
}

/// A waiter in the queue.
struct RateWaiter<'a> {
    limit: &'a RateLimit,
    weight: NonZeroU32,
    /// Time by which the waiters behind it move up when it leaves.
    cost: Duration,
}

impl RateWaiter<'_> {
    /// Records the true time at which the first waiter will have its units.
    fn will_be_served(&self, at: Time) {
        self.limit.lock().full_at = at.after(self.limit.spare(self.weight));
    }

    /// Records that the units have just been taken.
    fn served(self) {
        let mut queue = self.limit.lock();
        queue.full_at = queue.full_at.after(self.limit.span(self.weight));
    }
}

impl Drop for RateWaiter<'_> {
    fn drop(&mut self) {
        let mut queue = self.limit.lock();
        queue.calls -= 1;
        queue.waiters_cost = queue.waiters_cost.saturating_sub(self.cost);
        self.limit.waiting.store(queue.calls, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
