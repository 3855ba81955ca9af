//! How many calls may go out in each interval, and in which order those wait that came too early.
//!
//! The counting is governor's. Here stands what it does not do: who waits keeps its place, and
//! nobody waits in vain.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use breakerbox_policy::{RateLimitSettings, Time};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use tokio::sync::Semaphore;

use crate::clock::Clock;

/// A dependency's rate limit.
///
/// # Source  Rules LIM-2 and LIM-3 in docs/rules.md.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Nanos>>,
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

/// Who waits, and how long the last one will.
#[derive(Debug, Default)]
struct Line {
    calls: usize,
    /// When the last one goes out; nobody who comes later goes earlier.
    last_at: Time,
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
        let quota = Quota::with_period(unit)
            // A unit is at least a nanosecond.
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX))
            .allow_burst(settings.burst);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, clock.clone()),
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
    pub(crate) fn try_enter(&self, weight: NonZeroU32) -> bool {
        self.waiting.load(Ordering::Acquire) == 0 && matches!(self.take(weight), Ok(None))
    }

    /// Waits for `weight` units, behind those who wait already.
    ///
    /// # Errors  [`TooFast`], at once and not after waiting.
    /// # Cancel safety   Dropped while it waits, it takes no units, and those behind move up.
    pub(crate) async fn enter(
        &self,
        weight: NonZeroU32,
        deadline: Option<Time>,
    ) -> Result<(), TooFast> {
        let Some(mut place) = self.line_up(weight, deadline)? else {
            return Ok(());
        };
        // Never closed.
        let _turn = self.turn.acquire().await;
        while let Some(at) = self.take(weight)? {
            self.clock.sleep_until(at).await;
        }
        place.served = true;
        Ok(())
    }

    /// Takes the units if nobody waits and they are there; else a place at the end of the line,
    /// unless that is too far back.
    fn line_up(
        &self,
        weight: NonZeroU32,
        deadline: Option<Time>,
    ) -> Result<Option<Place<'_>>, TooFast> {
        if weight > self.burst {
            return Err(TooFast::TooHeavy);
        }
        let took = times(self.unit, weight);
        let mut line = self.lock();
        let at = if line.calls == 0 {
            match self.take(weight)? {
                None => return Ok(None),
                Some(at) => at,
            }
        } else {
            line.last_at.after(took)
        };
        let wait = at.since(self.clock.now());
        if wait > self.max_wait || deadline.is_some_and(|deadline| at >= deadline) {
            return Err(TooFast::NotBefore(wait));
        }
        line.last_at = at;
        line.calls += 1;
        self.waiting.store(line.calls, Ordering::Release);
        Ok(Some(Place {
            limit: self,
            took,
            served: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the units, or says when they are there.
    fn take(&self, weight: NonZeroU32) -> Result<Option<Time>, TooFast> {
        let at = |not: NotUntil<Nanos>| Time::from_nanos(not.earliest_possible().as_u64());
        match self.limiter.check_n(weight) {
            Ok(Ok(())) => Ok(None),
            Ok(Err(not)) => Ok(Some(at(not))),
            Err(_more_than_the_burst) => Err(TooFast::TooHeavy),
        }
    }
}

/// A place in the line.
struct Place<'a> {
    limit: &'a RateLimit,
    /// By how much those behind move up when it leaves.
    took: Duration,
    served: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.limit.lock();
        line.calls -= 1;
        if !self.served {
            let last = line.last_at.since(Time::ZERO).saturating_sub(self.took);
            line.last_at = Time::ZERO.after(last);
        }
        self.limit.waiting.store(line.calls, Ordering::Release);
    }
}

fn unit_of(settings: &RateLimitSettings) -> Duration {
    let seconds = settings.per.as_secs_f64() / settings.rate;
    let unit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    unit.max(Duration::from_nanos(1))
}

fn times(unit: Duration, weight: NonZeroU32) -> Duration {
    unit.saturating_mul(weight.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(rate: f64, burst: u32, max_wait: u64) -> RateLimit {
        let settings = RateLimitSettings {
            rate,
            per: Duration::from_secs(1),
            burst: NonZeroU32::new(burst).unwrap(),
            max_wait: Duration::from_millis(max_wait),
        };
        RateLimit::new(&settings, Clock::tokio())
    }

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    #[tokio::test(start_paused = true)]
    async fn lim_2_a_burst_goes_out_and_the_rest_is_paced_in_order() {
        let limit = limit(5.0, 5, 1_000);
        let begin = limit.clock.now();
        let calls = (0..20).map(|_| async {
            let entered = limit.enter(ONE, None).await;
            (entered, limit.clock.now().since(begin).as_millis())
        });
        let ends = futures_util::future::join_all(calls).await;
        let mut expected = vec![(Ok(()), 0); 5];
        expected.extend((1..=5).map(|turn| (Ok(()), turn * 200)));
        let refused = TooFast::NotBefore(Duration::from_millis(1_200));
        expected.extend(vec![(Err(refused), 0); 10]);
        assert_eq!(ends, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn lim_3_a_weight_takes_its_units_and_too_much_never_goes() {
        let limit = limit(10.0, 10, 1_000);
        let weight = |units| NonZeroU32::new(units).unwrap();
        assert!(limit.try_enter(weight(8)));
        assert!(!limit.try_enter(weight(3)));
        assert!(limit.try_enter(weight(2)));
        let begin = limit.clock.now();
        assert_eq!(limit.enter(weight(5), None).await, Ok(()));
        assert_eq!(limit.clock.now().since(begin).as_millis(), 500);
        assert_eq!(limit.enter(weight(11), None).await, Err(TooFast::TooHeavy));
    }

    #[tokio::test(start_paused = true)]
    async fn lim_2_who_leaves_the_line_lets_the_others_move_up() {
        let limit = limit(1.0, 1, 3_000);
        assert!(limit.try_enter(ONE));
        let mut first = Box::pin(limit.enter(ONE, None));
        let mut second = Box::pin(limit.enter(ONE, None));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        let mut third = Box::pin(limit.enter(ONE, None));
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        let refused = TooFast::NotBefore(Duration::from_secs(4));
        assert_eq!(limit.enter(ONE, None).await, Err(refused));
        drop(first);
        let begin = limit.clock.now();
        let fourth = limit.enter(ONE, None);
        let (second, third, fourth) = tokio::join!(second, third, fourth);
        assert_eq!((second, third, fourth), (Ok(()), Ok(()), Ok(())));
        assert_eq!(limit.clock.now().since(begin).as_secs(), 3);
        assert_eq!(limit.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn lim_2_whose_turn_comes_at_the_deadline_is_refused_at_once() {
        let limit = limit(1.0, 1, 60_000);
        assert!(limit.try_enter(ONE));
        let at = |millis| Some(limit.clock.now().after(Duration::from_millis(millis)));
        let refused = Err(TooFast::NotBefore(Duration::from_secs(1)));
        assert_eq!(limit.enter(ONE, at(1_000)).await, refused);
        assert_eq!(limit.enter(ONE, at(1_001)).await, Ok(()));
    }
}
