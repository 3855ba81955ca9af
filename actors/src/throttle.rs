//! Pause of a dependency that asked for less traffic, shared by all its callers.
//!
//! The kernel decides its length (rule LIM-1). This module publishes its end as one atomic word.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use breakerbox_policy::{Class, Pause, QuotaReset, Throttle, Time};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::Notify;

use crate::clock::{Clock, random};
use crate::dependency::{Shared, Verdict};
use crate::error::{CallError, Limit};
use crate::event::EventKind;

/// The pause of a dependency.
#[derive(Debug, Default)]
pub(crate) struct PauseState {
    /// End of the pause, in nanoseconds; 0 when there was none.
    until: AtomicU64,
    /// True if the dependency asked for less since the last success, so that a success must reset
    /// the kernel's streak.
    streak: AtomicBool,
    kernel: Mutex<Throttle>,
    /// Notified when the end of the pause changes.
    changed: Notify,
}

impl PauseState {
    /// The present pause, if there is one.
    #[inline]
    pub(crate) fn now(&self, now: Time) -> Option<Pause> {
        if self.until.load(Ordering::Acquire) <= now.as_nanos() {
            return None;
        }
        self.lock().paused(now)
    }

    /// Waits until there is no pause, however often it is prolonged, while `may` permits the
    /// present one. A pause that `may` does not permit is returned at once.
    ///
    /// # Cancel safety   A dropped future leaves nothing behind.
    pub(crate) async fn wait_out(
        &self,
        clock: &Clock,
        may: impl Fn(&Pause) -> bool,
    ) -> Result<(), Pause> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.now(clock.now()) {
                None => return Ok(()),
                Some(pause) if !may(&pause) => return Err(pause),
                Some(pause) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = clock.sleep_until(pause.until) => {}
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pause at an operator's request.
    pub(crate) fn lift(&self) {
        let mut kernel = self.lock();
        kernel.lift();
        self.until.store(0, Ordering::Release);
        drop(kernel);
        self.changed.notify_waiters();
    }
}

impl Shared {
    /// Counts an attempt, and updates the pause by its result.
    #[inline]
    pub(crate) fn note_traffic(&self, verdict: &Verdict, began: Time, now: Time) {
        self.counts.attempt(verdict.class);
        match verdict.class {
            Class::Throttled => self.pause(verdict, now),
            // Only a success of an attempt begun after the pause shows that the pause has helped.
            Class::Success
                if self.pauses.streak.load(Ordering::Relaxed)
                    && began.as_nanos() >= self.pauses.until.load(Ordering::Acquire) =>
            {
                self.pauses.streak.store(false, Ordering::Relaxed);
                self.pauses.lock().succeeded();
            }
            _ => {}
        }
    }

    /// The error of a call that is held back by the pause.
    pub(crate) fn paused<E>(&self, pause: Pause, now: Time) -> CallError<E> {
        CallError::RateLimited {
            dependency: Arc::clone(&self.name),
            limit: Limit::Pause(pause.reason),
            retry_after: Some(pause.until.since(now)),
        }
    }

    fn pause(&self, verdict: &Verdict, now: Time) {
        let settings = self.settings();
        let throttle = &settings.throttle;
        let (before, pause) = {
            let mut kernel = self.pauses.lock();
            let before = kernel.paused(now);
            let pause = if verdict.quota_used_up {
                let reset = || until_reset(&throttle.quota_reset, self.clock.wall());
                let wait = verdict.retry_after.unwrap_or_else(reset);
                kernel.quota_used_up(now, now.after(wait))
            } else {
                let hint = verdict.retry_after;
                kernel.throttled(now, hint, &throttle.backoff, &mut random())
            };
            if let Some(pause) = pause {
                let until = pause.until.as_nanos();
                self.pauses.until.store(until, Ordering::Release);
            }
            self.pauses.streak.store(true, Ordering::Relaxed);
            (before, pause)
        };
        let Some(pause) = pause else {
            return;
        };
        self.pauses.changed.notify_waiters();
        // A hundred throttled answers to calls in flight are one pause, and one warning.
        if before.is_none_or(|before| before.reason != pause.reason) {
            let kind = EventKind::Paused {
                reason: pause.reason,
                for_: pause.until.since(now),
                hint: verdict.retry_after,
            };
            self.events.emit(&self.name, kind);
        }
    }
}

/// Time until the quota is full again.
fn until_reset(reset: &QuotaReset, wall: Timestamp) -> Duration {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    match reset {
        QuotaReset::After(span) => *span,
        QuotaReset::Daily { hour, minute, zone } => {
            // The configuration refuses an unknown zone name; a day is the longest possible wait.
            next_time_of_day(*hour, *minute, zone, wall).unwrap_or(DAY)
        }
    }
}

/// Time until local clocks in that zone next show this time of day.
fn next_time_of_day(hour: u8, minute: u8, zone: &str, wall: Timestamp) -> Option<Duration> {
    let zone = TimeZone::get(zone).ok()?;
    let now = wall.to_zoned_datetime(zone.clone());
    let time = jiff::civil::time(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
    let mut date = now.date();
    loop {
        // If a change of the clocks skips this time, the time after the gap is taken.
        let next = date
            .to_datetime(time)
            .to_zoned_datetime(zone.clone())
            .ok()?;
        if next > now {
            let span = next.timestamp().duration_since(wall);
            return Duration::try_from(span).ok();
        }
        date = date.tomorrow().ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn midnight_pacific(wall: &str) -> Duration {
        let reset = QuotaReset::Daily {
            hour: 0,
            minute: 0,
            zone: "America/Los_Angeles".to_owned(),
        };
        until_reset(&reset, wall.parse().unwrap())
    }

    #[test]
    fn lim_1_a_quota_is_full_again_at_a_time_of_day_in_its_zone() {
        let hours = |count: u64| Duration::from_secs(count * 3600);
        // Pacific Standard Time, and a second before midnight.
        assert_eq!(midnight_pacific("2026-01-10T20:00:00Z"), hours(12));
        let second = Duration::from_secs(1);
        assert_eq!(midnight_pacific("2026-01-10T07:59:59Z"), second);
        assert_eq!(midnight_pacific("2026-01-10T08:00:00Z"), hours(24));
        // The night the clocks are put forward has 23 hours.
        assert_eq!(midnight_pacific("2026-03-08T08:00:00Z"), hours(23));
        assert_eq!(midnight_pacific("2026-11-01T07:00:00Z"), hours(25));
    }

    #[test]
    fn lim_1_a_quota_may_be_full_again_after_a_span() {
        let reset = QuotaReset::After(Duration::from_secs(90));
        let wall = Timestamp::UNIX_EPOCH;
        assert_eq!(until_reset(&reset, wall), Duration::from_secs(90));
    }
}
