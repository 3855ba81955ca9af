//! Callers that give up while a dependency answers no call at all.
//!
//! A caller that leaves proves nothing by itself: it may have lost interest, or never have enough of it.
//! Many of them, each of which waited longer than usual and saw no call answered meanwhile, are a
//! dependency that hangs. Nothing here touches a breaker.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::text::{CountedNoun, RoundedDuration};
use crate::{DOWN_MINIMUM_CALLS, HEALTH_SPAN, Time};

/// Shortest wait after which a caller that gives up can count.
pub const GIVE_UP_MINIMUM: Duration = Duration::from_secs(1);

/// Time for which two calls of one caller wait at once, so that they count as those of two.
const OVERLAP: Duration = Duration::from_millis(500);
/// Maximum number of callers that are told apart; further ones count as known already.
const MAX_CALLERS: usize = 64;

/// Time for which the usual duration of a call is remembered. Calls that hang are among the latest
/// durations, and must not pass for usual.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The latest callers that gave up without any answer to any call.
///
/// # Source  Rules HLT-1 and EDGE-1 in docs/rules.md.
#[derive(Debug, Clone, Default)]
pub struct UnansweredCalls {
    /// The dependency's answers at the begin of the silence.
    answered: u64,
    /// Time from which no call has been answered.
    silent_since: Time,
    /// Callers that gave up, and waited within the silence only.
    calls: u64,
    /// Shortest wait of them.
    shortest: Duration,
    /// Time at which the latest caller gave up.
    latest: Time,
    /// Usual duration of a call, from before the silence.
    usual: Option<Duration>,
    /// Known callers that gave up in the silence, each with the latest time.
    callers: Vec<(NonZeroU64, Time)>,
}

/// A dependency that hangs: callers that gave up, and the shortest wait of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HangFigures {
    /// Number of callers.
    pub calls: u64,
    /// Shortest wait of them.
    pub after: Duration,
}

impl UnansweredCalls {
    /// Notes a caller that gave up after this wait, without an answer; it has a number if it is known.
    /// Its deadline has not passed: one that its caller set itself is no sign of anything. `answered`: number of answers
    /// that the dependency has begun or given so far. `usual`: the time within which nearly all calls
    /// end. Returns the number of callers that count newly as calls without an answer.
    pub fn give_up(
        &mut self,
        now: Time,
        (waited, caller): (Duration, Option<NonZeroU64>),
        answered: u64,
        usual: impl FnOnce() -> Option<Duration>,
    ) -> u64 {
        if self.latest == Time::ZERO || now.since(self.latest) >= REMEMBERED {
            self.usual = usual();
        }
        self.latest = now;
        if self.silent_since == Time::ZERO || answered != self.answered {
            // An answer may have come at any time up to now.
            self.answered = answered;
            self.silent_since = now.max(Time::from_nanos(1));
            self.calls = 0;
            self.callers.clear();
        }
        let patience = self.usual.unwrap_or_default().max(GIVE_UP_MINIMUM);
        // EDGE-1: it counts only if it waited unusually long, and no call was answered meanwhile.
        if waited < patience || now.since(self.silent_since) < waited {
            return 0;
        }
        if !caller.is_none_or(|caller| self.is_another(caller, waited, now)) {
            return 0;
        }
        self.shortest = match self.calls {
            0 => waited,
            _ => self.shortest.min(waited),
        };
        self.calls += 1;
        match self.calls {
            DOWN_MINIMUM_CALLS => DOWN_MINIMUM_CALLS,
            more if more > DOWN_MINIMUM_CALLS => 1,
            _ => 0,
        }
    }

    /// Returns true if a caller that is known counts as one more: its first call in the silence, or one
    /// that waited at the same time as an earlier one. An impatient caller, which tries again and again,
    /// is one.
    fn is_another(&mut self, caller: NonZeroU64, waited: Duration, now: Time) -> bool {
        let mut callers = self.callers.iter_mut();
        if let Some((_, latest)) = callers.find(|(own, _)| *own == caller) {
            let since = now.since(*latest);
            *latest = now;
            // EDGE-1: the call began before the earlier one was given up.
            return waited >= since + OVERLAP;
        }
        let is_told_apart = self.callers.len() < MAX_CALLERS;
        if is_told_apart {
            self.callers.push((caller, now));
        }
        is_told_apart
    }

    /// Returns true if callers have given up, so that the answers need a look.
    #[must_use]
    pub const fn is_suspected(&self) -> bool {
        self.calls >= DOWN_MINIMUM_CALLS
    }

    /// Returns true if a call has been answered since the silence began.
    #[must_use]
    pub const fn is_answered(&self, answered: u64) -> bool {
        answered != self.answered
    }

    /// Returns the figures of a dependency that hangs; `None` if a call has been answered since, or
    /// no caller has given up in the last seconds.
    #[must_use]
    pub fn hang(&self, now: Time, answered: u64) -> Option<HangFigures> {
        let is_recent = now.since(self.latest) < HEALTH_SPAN;
        let hangs = self.is_suspected() && is_recent && answered == self.answered;
        hangs.then_some(HangFigures {
            calls: self.calls,
            after: self.shortest,
        })
    }
}

impl fmt::Display for HangFigures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} gave up after {} or more, and no call was answered meanwhile",
            CountedNoun(self.calls, "caller"),
            RoundedDuration(self.after)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn unknown() -> Option<Duration> {
        None
    }

    #[test]
    fn hlt_1_five_callers_that_gave_up_in_a_silence_are_a_hang() {
        let mut calls = UnansweredCalls::default();
        // The first one may have waited while another call was answered.
        let counted =
            (1..=8).map(|number| calls.give_up(at(number * 2_000), (ms(2_000), None), 7, unknown));
        assert_eq!(counted.collect::<Vec<_>>(), [0, 0, 0, 0, 0, 5, 1, 1]);
        let figures = calls.hang(at(16_500), 7).unwrap();
        assert_eq!((figures.calls, figures.after), (7, ms(2_000)));
        assert_eq!(
            figures.to_string(),
            "7 callers gave up after 2 s or more, and no call was answered meanwhile"
        );
        assert_eq!(calls.hang(at(16_500), 8), None, "a call was answered");
        assert_eq!(calls.hang(at(46_000), 7), None, "no caller for 30 s");
    }

    #[test]
    fn edge_1_callers_that_leave_beside_an_answer_count_for_nothing() {
        let mut calls = UnansweredCalls::default();
        for number in 1..=100 {
            // One answer for each three callers that leave.
            assert_eq!(
                calls.give_up(at(number * 1_500), (ms(1_500), None), number / 3, unknown),
                0
            );
        }
        // Many at once, that all waited since before the latest answer.
        for _ in 0..50 {
            assert_eq!(
                calls.give_up(at(200_000), (ms(2_000), None), 500, unknown),
                0
            );
        }
        assert!(!calls.is_suspected());
    }

    #[test]
    fn edge_1_callers_that_leave_early_count_for_nothing() {
        let mut calls = UnansweredCalls::default();
        let slow = || Some(ms(20_000));
        for number in 1..=100 {
            assert_eq!(
                calls.give_up(at(number * 1_000), (ms(999), None), 0, unknown),
                0
            );
        }
        let mut calls = UnansweredCalls::default();
        for number in 1..=100 {
            let counted = calls.give_up(at(number * 10_000), (ms(10_000), None), 0, slow);
            assert_eq!(counted, 0, "20 s are usual");
        }
    }

    #[test]
    fn edge_1_f14_one_caller_that_tries_again_and_again_is_no_hang() {
        let caller = |number| NonZeroU64::new(number);
        let mut calls = UnansweredCalls::default();
        for number in 1..=50 {
            let left = (ms(1_200), caller(7));
            assert_eq!(calls.give_up(at(number * 1_210), left, 0, unknown), 0);
        }
        assert!(!calls.is_suspected());
        // Others give up too.
        let mut calls = UnansweredCalls::default();
        let counted = (1..=8).map(|number| {
            calls.give_up(at(number * 2_000), (ms(2_000), caller(number)), 0, unknown)
        });
        assert_eq!(counted.sum::<u64>(), 7);
    }

    #[test]
    fn hlt_1_calls_of_one_caller_that_wait_at_once_are_a_hang() {
        let mut calls = UnansweredCalls::default();
        // Two tasks behind one address, each of which gives up after 2 s.
        let left = (ms(2_000), NonZeroU64::new(7));
        let counted = (2..=12).map(|number| calls.give_up(at(number * 1_000), left, 0, unknown));
        assert!(counted.sum::<u64>() >= DOWN_MINIMUM_CALLS);
        assert!(calls.hang(at(12_500), 0).is_some());
    }

    #[test]
    fn hlt_1_calls_that_hang_do_not_become_usual() {
        let mut calls = UnansweredCalls::default();
        let mut counted = 0;
        for number in 1..=100 {
            let usual = || Some(ms(if number < 5 { 10 } else { 60_000 }));
            counted += calls.give_up(at(number * 2_000), (ms(2_000), None), 0, usual);
        }
        assert_eq!(counted, 99);
    }
}
