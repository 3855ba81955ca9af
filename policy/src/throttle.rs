//! The pause that a dependency requested, shared by all its callers.
//!
//! It never touches the breaker: a dependency that throttles works. A used-up quota is a pause too,
//! until the quota is full again.

use std::fmt;
use std::time::Duration;

use crate::{RandomSource, ThrottleSettings, Time, backoff};

/// Reason for a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PauseReason {
    /// The dependency reported too much traffic.
    Throttled,
    /// Its quota for a day, or another span, is used up.
    QuotaUsedUp,
}

impl fmt::Display for PauseReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Throttled => "it asked for less traffic",
            Self::QuotaUsedUp => "its quota is used up",
        })
    }
}

/// A pause that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Time at which calls may go out again.
    pub until: Time,
    /// Reason for the pause.
    pub reason: PauseReason,
}

/// Pause state of one dependency.
///
/// # Source  Rule LIM-1 in docs/rules.md.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    pause: Option<Pause>,
    /// Number of pauses in a row without a success between them.
    streak: u32,
}

impl Throttle {
    /// Records a throttled attempt; returns the pause if it became longer.
    ///
    /// The largest hint wins: a later, shorter one never shortens a pause. Responses to calls that
    /// were in flight when the pause began count as one throttle.
    ///
    /// # Units   `hint`: wait from `now`; jitter is added on top of it, never subtracted. No pause is
    /// longer than the settings' `max`.
    pub fn throttled(
        &mut self,
        now: Time,
        hint: Option<Duration>,
        settings: &ThrottleSettings,
        random: &mut dyn RandomSource,
    ) -> Option<Pause> {
        let is_new = self.paused(now).is_none();
        if !is_new && hint.is_none() {
            return None;
        }
        let wait = match hint {
            Some(hint) => backoff::hinted(&settings.backoff, self.streak, hint, random),
            None => backoff::delay(&settings.backoff, self.streak, random),
        };
        // The cap comes last: with its jitter, a hint at the cap would exceed it.
        let wait = settings.believed(wait);
        self.streak = self.streak.saturating_add(u32::from(is_new));
        self.pause_until(now, now.after(wait), PauseReason::Throttled)
    }

    /// Takes over the pause that another replica was asked for; returns it if it became longer.
    ///
    /// # Units   `wait`: from `now`; jitter is added on top of it, never subtracted.
    /// # Source  Rule FLT-11 in docs/rules.md.
    pub fn adopt(
        &mut self,
        now: Time,
        wait: Duration,
        reason: PauseReason,
        settings: &ThrottleSettings,
        random: &mut dyn RandomSource,
    ) -> Option<Pause> {
        // FLT-11: never shorter than its hint, with jitter of this replica's own.
        let wait = backoff::hinted(&settings.backoff, 0, wait, random);
        let wait = match reason {
            PauseReason::Throttled => settings.believed(wait),
            PauseReason::QuotaUsedUp => wait,
        };
        self.pause_until(now, now.after(wait), reason)
    }

    /// Records that the quota is used up until `until`.
    pub fn quota_used_up(&mut self, now: Time, until: Time) -> Option<Pause> {
        self.pause_until(now, until, PauseReason::QuotaUsedUp)
    }

    /// Records a success: the next pause is a first one again.
    pub const fn succeeded(&mut self) {
        self.streak = 0;
    }

    /// Returns the pause in effect, if any; at exactly its end there is none.
    #[must_use]
    pub fn paused(&self, now: Time) -> Option<Pause> {
        self.pause.filter(|pause| now < pause.until)
    }

    /// Ends the pause at an operator's command.
    pub const fn lift(&mut self) {
        self.pause = None;
        self.streak = 0;
    }

    fn pause_until(&mut self, now: Time, until: Time, reason: PauseReason) -> Option<Pause> {
        let present = self.paused(now);
        // LIM-1: the longest pause applies; a later hint never shortens it.
        if until <= now || present.is_some_and(|pause| pause.until >= until) {
            return None;
        }
        let pause = Pause { until, reason };
        self.pause = Some(pause);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn throttle(state: &mut Throttle, now: Time, hint: Option<Duration>) -> Option<Time> {
        let settings = ThrottleSettings::default();
        let pause = state.throttled(now, hint, &settings, &mut || 0.0);
        pause.map(|pause| pause.until)
    }

    #[test]
    fn lim_1_the_largest_hint_wins_and_is_never_shortened() {
        let mut state = Throttle::default();
        assert_eq!(
            throttle(&mut state, at(0), Some(3 * SECOND)),
            Some(at(3_000))
        );
        assert_eq!(
            throttle(&mut state, at(10), Some(7 * SECOND)),
            Some(at(7_010))
        );
        assert_eq!(throttle(&mut state, at(20), Some(SECOND)), None);
        assert_eq!(throttle(&mut state, at(20), None), None);
        assert!(state.paused(at(7_009)).is_some());
        assert_eq!(state.paused(at(7_010)), None);
    }

    #[test]
    fn lim_1_jitter_comes_on_top_of_a_hint() {
        let settings = ThrottleSettings::default();
        let mut state = Throttle::default();
        let pause = state.throttled(at(0), Some(7 * SECOND), &settings, &mut || 0.5);
        let until = pause.map(|pause| pause.until);
        assert_eq!(until, Some(at(7_100)), "a fifth of a second, halved");
    }

    #[test]
    fn lim_1_without_a_hint_pauses_grow_until_a_success() {
        let mut state = Throttle::default();
        assert_eq!(throttle(&mut state, at(0), None), Some(at(1_000)));
        assert_eq!(throttle(&mut state, at(1_000), None), Some(at(3_000)));
        assert_eq!(throttle(&mut state, at(2_000), None), None, "the same one");
        assert_eq!(throttle(&mut state, at(3_000), None), Some(at(7_000)));
        state.succeeded();
        assert_eq!(throttle(&mut state, at(8_000), None), Some(at(9_000)));
    }

    #[test]
    fn lim_1_e10a_no_hint_is_believed_beyond_the_cap() {
        let day = 24 * 3600 * SECOND;
        for hint in [day, 365 * day, Duration::from_secs(u64::MAX), Duration::MAX] {
            let settings = ThrottleSettings::default();
            let mut state = Throttle::default();
            let pause = state.throttled(at(5), Some(hint), &settings, &mut || 0.9);
            assert_eq!(pause.map(|pause| pause.until), Some(at(5).after(day)));
        }
        let short = ThrottleSettings {
            max: 10 * SECOND,
            ..ThrottleSettings::default()
        };
        let mut state = Throttle::default();
        let pause = state.throttled(at(0), Some(9 * SECOND), &short, &mut || 0.0);
        assert_eq!(pause.map(|pause| pause.until), Some(at(9_000)), "in full");
    }

    #[test]
    fn lim_1_a_hint_of_no_time_is_no_pause() {
        let mut state = Throttle::default();
        assert_eq!(throttle(&mut state, at(0), Some(Duration::ZERO)), None);
        assert_eq!(state.paused(at(0)), None);
    }

    #[test]
    fn lim_1_a_used_up_quota_outlasts_a_throttle() {
        let mut state = Throttle::default();
        let hour = at(3_600_000);
        let pause = state.quota_used_up(at(0), hour);
        assert_eq!(pause.map(|one| one.reason), Some(PauseReason::QuotaUsedUp));
        assert_eq!(throttle(&mut state, at(10), Some(7 * SECOND)), None);
        let now = state.paused(at(20)).map(|one| (one.until, one.reason));
        assert_eq!(now, Some((hour, PauseReason::QuotaUsedUp)));
        state.lift();
        assert_eq!(state.paused(at(30)), None);
    }

    #[test]
    fn flt_11_a_pause_of_another_replica_is_taken_over_with_own_jitter() {
        let settings = ThrottleSettings::default();
        let adopt = |state: &mut Throttle, wait, reason| {
            let pause = state.adopt(at(0), wait, reason, &settings, &mut || 0.5);
            pause.map(|pause| (pause.until, pause.reason))
        };
        let mut state = Throttle::default();
        let throttled = PauseReason::Throttled;
        let pause = Some((at(7_100), throttled));
        assert_eq!(adopt(&mut state, 7 * SECOND, throttled), pause);
        assert_eq!(adopt(&mut state, SECOND, throttled), None, "a shorter one");
        // A hint is believed for a day; the end of a quota is known.
        let day = 24 * 3600 * SECOND;
        let pause = Some((at(0).after(day), throttled));
        assert_eq!(adopt(&mut state, 9 * day, throttled), pause);
        let used_up = PauseReason::QuotaUsedUp;
        let pause = adopt(&mut state, 9 * day, used_up).unwrap();
        assert!(pause.0 >= at(0).after(9 * day));
        assert_eq!(pause.1, used_up);
    }

    #[test]
    fn a_pause_is_told_with_its_reason() {
        let words = [PauseReason::Throttled, PauseReason::QuotaUsedUp].map(|one| one.to_string());
        assert_eq!(words, ["it asked for less traffic", "its quota is used up"]);
    }
}
