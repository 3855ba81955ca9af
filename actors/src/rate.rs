//! How many calls may go out in each interval, and in which order those wait that came too early.
//!
//! The counting is governor's. Here stands what it does not do: who waits keeps its place, and
//! nobody waits in vain.

use std::future::{Future, poll_fn};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use breakerbox_policy::{RateLimitSettings, Time};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use tokio::sync::Semaphore;
use tokio::task::unconstrained;

use crate::clock::{Clock, Given, is_too_late, waking};

/// The longest time in which the units of a burst come back; more would not fit into the counting.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 100);

/// A dependency's rate limit.
///
/// # Source  Rules LIM-2 and LIM-3 in docs/rules.md.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, Given, NoOpMiddleware<Nanos>>,
    burst: NonZeroU32,
    /// The time that one unit takes to come back.
    unit: Duration,
    max_wait: Duration,
    clock: Clock,
    line: Mutex<Line>,
    /// Calls in the line, to be read without the lock.
    waiting: AtomicUsize,
    /// Whoever is first in the line waits for its units; the others wait for their turn.
    turn: Semaphore,
}

/// What is known of those who wait.
#[derive(Debug, Default)]
struct Line {
    calls: usize,
    /// When everything will have come back that has gone out; true while anybody waits.
    full_at: Time,
    /// How long the units of those who wait will take to come back after that.
    owed: Duration,
}

/// Why a call may not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooFast {
    /// Its turn would come too late: after its deadline, or after a longer wait than is allowed.
    NotBefore(Duration),
    /// It weighs more than ever comes together.
    TooHeavy,
}

impl RateLimit {
    pub(crate) fn new(settings: &RateLimitSettings, clock: Clock) -> Self {
        let unit = unit_of(settings);
        Given::set(clock.now());
        let quota = Quota::with_period(unit)
            // A unit is at least a nanosecond.
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX))
            .allow_burst(settings.burst);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, Given),
            burst: settings.burst,
            unit,
            max_wait: settings.max_wait,
            clock,
            line: Mutex::default(),
            waiting: AtomicUsize::new(0),
            turn: Semaphore::new(1),
        }
    }

    /// The largest weight that can ever go out.
    pub(crate) fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// Takes `weight` units at once, if they are there and nobody waits.
    #[inline]
    pub(crate) fn try_enter(&self, weight: NonZeroU32, now: Time) -> bool {
        self.waiting.load(Ordering::Acquire) == 0 && matches!(self.take(weight, now), Ok(None))
    }

    /// Waits for `weight` units, behind those who wait already.
    ///
    /// # Errors  [`TooFast`], at once and not after waiting; after waiting only where a thread was
    /// held up for so long that the deadline would be missed.
    /// # Cancel safety   Dropped while it waits, it takes no units, and those behind move up.
    pub(crate) async fn enter(
        &self,
        weight: NonZeroU32,
        deadline: Option<Time>,
    ) -> Result<(), TooFast> {
        let mut queued = pin!(unconstrained(self.turn.acquire()));
        let mut turn = None;
        let lined_up = poll_fn(|cx| {
            // Both lines are joined under one lock, or two threads could do it crosswise.
            let mut line = self.lock();
            let place = self.line_up(&mut line, weight, deadline);
            if let Ok(Some(_)) = place
                && let Poll::Ready(first) = queued.as_mut().poll(cx)
            {
                turn = Some(first);
            }
            Poll::Ready(place)
        });
        let Some(place) = lined_up.await? else {
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

    /// Takes the units if nobody waits and they are there; else a place at the end of the line,
    /// unless that is too far back.
    fn line_up(
        &self,
        line: &mut Line,
        weight: NonZeroU32,
        deadline: Option<Time>,
    ) -> Result<Option<Place<'_>>, TooFast> {
        let now = self.clock.now();
        if line.calls == 0 {
            match self.take(weight, now)? {
                None => return Ok(None),
                Some(at) => line.full_at = at.after(self.spare(weight)),
            }
        } else if weight > self.burst {
            return Err(TooFast::TooHeavy);
        }
        let full = line.full_at.after(line.owed);
        let at = Time::ZERO.after(full.since(Time::ZERO.after(self.spare(weight))));
        let wait = at.since(now);
        if wait > self.max_wait || is_too_late(at.max(now), deadline) {
            return Err(TooFast::NotBefore(wait));
        }
        // What a timer is late is lost where nothing has been spared for it.
        let begins = waking(at).max(now);
        let cost = full.max(begins).after(self.span(weight)).since(full);
        line.owed = line.owed.saturating_add(cost);
        line.calls += 1;
        self.waiting.store(line.calls, Ordering::Release);
        Ok(Some(Place {
            limit: self,
            weight,
            cost,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the units, or says when they are there.
    fn take(&self, weight: NonZeroU32, now: Time) -> Result<Option<Time>, TooFast> {
        if weight > self.burst {
            // Not for the counting to find out: it would overflow on its way there.
            return Err(TooFast::TooHeavy);
        }
        let at = |not: NotUntil<Nanos>| Time::from_nanos(not.earliest_possible().as_u64());
        Given::set(now);
        match self.limiter.check_n(weight) {
            Ok(Ok(())) => Ok(None),
            Ok(Err(not)) => Ok(Some(at(not))),
            Err(_more_than_the_burst) => Err(TooFast::TooHeavy),
        }
    }

    /// How long before everything has come back there is room for this weight.
    fn spare(&self, weight: NonZeroU32) -> Duration {
        let units = self.burst.get().saturating_sub(weight.get());
        self.unit.saturating_mul(units)
    }

    /// How long this weight takes to come back.
    fn span(&self, weight: NonZeroU32) -> Duration {
        self.unit.saturating_mul(weight.get())
    }
}

/// A place in the line.
struct Place<'a> {
    limit: &'a RateLimit,
    weight: NonZeroU32,
    /// By how much those behind move up when it leaves.
    cost: Duration,
}

impl Place<'_> {
    /// Notes the true time at which the first in the line will have its units.
    fn will_be_served(&self, at: Time) {
        self.limit.lock().full_at = at.after(self.limit.spare(self.weight));
    }

    /// Notes that the units have been taken just now.
    fn served(self) {
        let mut line = self.limit.lock();
        line.full_at = line.full_at.after(self.limit.span(self.weight));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.limit.lock();
        line.calls -= 1;
        line.owed = line.owed.saturating_sub(self.cost);
        self.limit.waiting.store(line.calls, Ordering::Release);
    }
}

fn unit_of(settings: &RateLimitSettings) -> Duration {
    let seconds = settings.per.as_secs_f64() / settings.rate;
    let unit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    unit.clamp(Duration::from_nanos(1), LONGEST / settings.burst.get())
}

#[cfg(test)]
mod tests;
