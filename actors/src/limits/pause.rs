//! Pause of a dependency that asked for less traffic, shared by all its callers, or by those with one
//! key.
//!
//! The kernel decides its length (rule LIM-1). This module publishes its end as one atomic word.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use breakerbox_policy::{
    Pause, PauseReason, QuotaReset, SettingProblem, Throttle, ThrottleSettings, Time,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::Notify;

use crate::clock::{Clock, random};
use crate::sync::LockExt;
use crate::verdict::Verdict;

/// The pause of a dependency, or of one of its keys.
#[derive(Debug, Default)]
pub(crate) struct PauseState {
    /// End of the pause, in nanoseconds; 0 when there was none.
    until: AtomicU64,
    /// True if the dependency asked for less since the last success, so that a success must reset
    /// the kernel's streak.
    streak: AtomicBool,
    /// True since a quota was found used up, until a success.
    quota: AtomicBool,
    kernel: Mutex<Throttle>,
    /// Notified when the end of the pause changes.
    changed: Notify,
}

impl PauseState {
    /// The present pause, if there is one.
    #[inline]
    pub(crate) fn current(&self, now: Time) -> Option<Pause> {
        if self.until.load(Ordering::Acquire) <= now.as_nanos() {
            return None;
        }
        self.lock().paused(now)
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        self.kernel.acquire()
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

impl PauseState {
    /// Notes a success of an attempt that began at `began`. Returns true if a used-up quota is back with
    /// it.
    #[inline]
    pub(crate) fn note_success(&self, began: Time) -> bool {
        // An attempt from before the pause does not show that the pause has helped.
        if self.streak.load(Ordering::Relaxed)
            && began.as_nanos() >= self.until.load(Ordering::Acquire)
        {
            self.streak.store(false, Ordering::Relaxed);
            self.lock().succeeded();
            return self.quota.swap(false, Ordering::Relaxed);
        }
        false
    }

    /// Returns true if a quota was used up, and no success has shown since that it is back.
    pub(crate) fn awaits_quota(&self) -> bool {
        self.quota.load(Ordering::Relaxed)
    }

    /// Takes over the pause that another replica was asked for. Returns it if it became longer.
    pub(crate) fn adopt(
        &self,
        wait: Duration,
        reason: PauseReason,
        settings: &ThrottleSettings,
        now: Time,
    ) -> Option<Pause> {
        let mut kernel = self.lock();
        let pause = kernel.adopt(now, wait, reason, settings, &mut random())?;
        if reason == PauseReason::QuotaUsedUp {
            self.quota.store(true, Ordering::Relaxed);
            self.streak.store(true, Ordering::Relaxed);
        }
        self.until.store(pause.until.as_nanos(), Ordering::Release);
        drop(kernel);
        self.changed.notify_waiters();
        Some(pause)
    }

    /// Begins or prolongs a pause after a throttled attempt. Returns it if it is a new one: a
    /// hundred throttled calls that were in flight are one pause, and one warning.
    /// A hint that is cut off is a new one too.
    pub(crate) fn begin(
        &self,
        verdict: &Verdict,
        settings: &ThrottleSettings,
        now: Time,
        wall: impl FnOnce() -> Timestamp,
    ) -> Option<Pause> {
        let (before, pause) = {
            let mut kernel = self.lock();
            let before = kernel.paused(now);
            let pause = if verdict.quota_used_up {
                let reset = || until_reset(&settings.quota_reset, wall());
                let hint = verdict.retry_after;
                let wait = hint.map_or_else(reset, |hint| settings.believed(hint));
                self.quota.store(true, Ordering::Relaxed);
                kernel.quota_used_up(now, now.after(wait))
            } else {
                // LIM-1: the pause is never shorter than the hint.
                let hint = verdict.retry_after;
                kernel.throttled(now, hint, settings, &mut random())
            };
            if let Some(pause) = pause {
                self.until.store(pause.until.as_nanos(), Ordering::Release);
            }
            self.streak.store(true, Ordering::Relaxed);
            (before, pause)
        };
        let pause = pause?;
        self.changed.notify_waiters();
        let is_new = before.is_none_or(|before| {
            // A hint that is cut off is reported even if it prolongs a pause, once.
            let is_cut = verdict.retry_after.is_some_and(|hint| hint > settings.max);
            let was_long = before.until.since(now) > settings.max / 2;
            before.reason != pause.reason || is_cut && !was_long
        });
        is_new.then_some(pause)
    }
}

/// The pauses that a call has to observe: the dependency's, and that of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallPauses<'a> {
    pub(crate) dependency: &'a PauseState,
    pub(crate) key: Option<&'a PauseState>,
}

impl CallPauses<'_> {
    /// The present pause that ends last, if there is one.
    #[inline]
    pub(crate) fn current(self, now: Time) -> Option<Pause> {
        let all = self.dependency.current(now);
        let Some(key) = self.key else { return all };
        let own = key.current(now);
        let longest = all.into_iter().chain(own);
        longest.max_by_key(|pause| pause.until)
    }

    /// Waits until there is no pause, however often it is prolonged, while `may` permits the
    /// present one. A pause that `may` does not permit is returned at once.
    ///
    /// # Cancel safety   A dropped future leaves nothing behind.
    pub(crate) async fn wait_out(
        self,
        clock: &Clock,
        may: impl Fn(&Pause) -> bool,
    ) -> Result<(), Pause> {
        loop {
            let mut changed = pin!(self.dependency.changed.notified());
            changed.as_mut().enable();
            let mut changed_for_key = pin!(self.key.unwrap_or(self.dependency).changed.notified());
            changed_for_key.as_mut().enable();
            match self.current(clock.now()) {
                None => return Ok(()),
                Some(pause) if !may(&pause) => return Err(pause),
                Some(pause) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = changed_for_key => {}
                    () = clock.sleep_until(pause.until) => {}
                },
            }
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

/// Judges the parts of the settings that need the database of time zones.
///
/// # Errors  The time zone is unknown.
pub(crate) fn judge(settings: &ThrottleSettings) -> Result<(), SettingProblem> {
    match &settings.quota_reset {
        QuotaReset::Daily { zone, .. } if TimeZone::get(zone).is_err() => Err(SettingProblem {
            key: "throttle.quota_reset.zone".to_owned(),
            given: format!("{zone:?}"),
            allowed: "a time zone of the IANA database, such as \"America/Los_Angeles\"".to_owned(),
        }),
        _ => Ok(()),
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
