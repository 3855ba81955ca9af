//! The board's clock, as far as a replica can know it: between two bounds.
//!
//! A word that arrives was written before, so the board's clock is at least at its time. A word of
//! this replica's own was written after it was sent, so the clock was at most there. No wall clock of
//! a replica is read.

use crate::Time;
use crate::time::nanos;

/// A moment on the board's clock, in nanoseconds since an origin of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BoardTime(pub u64);

impl BoardTime {
    pub(super) const fn plus(self, span: u64) -> Self {
        Self(self.0.saturating_add(span))
    }

    pub(super) const fn minus(self, span: u64) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

/// Part of a span by which two clocks may drift apart: 488 millionths.
const DRIFT: u64 = 2048;

/// Distance from which a sample that contradicts an older one means that the board's clock was set.
const SET: u64 = 1_000_000_000;

/// A replica's knowledge of the board's clock.
///
/// # Source  Rule FLT-13; the lower bound is the filter of the fastest packet in NTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BoardClock {
    least: Option<ClockBound>,
    most: Option<ClockBound>,
}

/// A reading of both clocks at one moment, true from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClockBound {
    board: BoardTime,
    at: Time,
}

impl ClockBound {
    fn elapsed(self, now: Time) -> u64 {
        nanos(now.since(self.at))
    }
}

impl BoardClock {
    /// Takes in a word that has just arrived, and was written at that time.
    pub fn heard(&mut self, now: Time, written: BoardTime) {
        let fresh = ClockBound {
            board: written,
            at: now,
        };
        match self.at_least(now) {
            Some(known) if written < known && known.0 - written.0 < SET => return,
            Some(known) if written < known => *self = Self::default(),
            _ => {}
        }
        self.least = Some(fresh);
        if self.at_most(now).is_some_and(|most| most < written) {
            self.most = None;
        }
    }

    /// Takes in the time at which a word was written that this replica sent at `sent`.
    pub fn sent(&mut self, sent: Time, now: Time, written: BoardTime) {
        let fresh = ClockBound {
            board: written,
            at: sent,
        };
        let elapsed = fresh.elapsed(now);
        let is_lower = |most: BoardTime| written.plus(elapsed + elapsed / DRIFT) <= most;
        if self.at_most(now).is_none_or(is_lower) {
            self.most = Some(fresh);
        }
        if let (Some(least), Some(most)) = (self.at_least(now), self.at_most(now))
            && most < least
        {
            // It was set back.
            self.most = Some(fresh);
            self.least = Some(ClockBound {
                board: written,
                at: now,
            });
        }
    }

    /// Takes over the bounds of another clock of the same board where they are closer.
    pub fn join(&mut self, now: Time, other: &Self) {
        if let Some(least) = other.at_least(now) {
            self.heard(now, least);
        }
    }

    /// Returns a time that the board's clock has reached; `None` while nothing is known.
    #[must_use]
    pub fn at_least(&self, now: Time) -> Option<BoardTime> {
        let bound = self.least?;
        let elapsed = bound.elapsed(now);
        Some(bound.board.plus(elapsed - elapsed / DRIFT))
    }

    /// Returns a time that the board's clock has not passed; `None` while nothing is known.
    #[must_use]
    pub fn at_most(&self, now: Time) -> Option<BoardTime> {
        let bound = self.most?;
        let elapsed = bound.elapsed(now);
        Some(bound.board.plus(elapsed + elapsed / DRIFT))
    }

    /// Returns this replica's time at which the board's clock has surely reached `board`.
    pub(super) fn when(&self, board: BoardTime, now: Time) -> Time {
        let Some(least) = self.at_least(now) else {
            return now;
        };
        let left = board.0.saturating_sub(least.0);
        let left = left.saturating_add(left / (DRIFT - 1));
        Time::from_nanos(now.as_nanos().saturating_add(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn board(millis: u64) -> BoardTime {
        BoardTime(millis * 1_000_000)
    }

    #[test]
    fn flt_13_the_fastest_word_counts_and_slow_ones_change_nothing() {
        let mut clock = BoardClock::default();
        assert_eq!(clock.at_least(at(5)), None);
        clock.heard(at(10), board(1_000));
        clock.heard(at(30), board(1_005));
        assert!(clock.at_least(at(30)).unwrap() > board(1_019));
        clock.heard(at(40), board(1_035));
        assert_eq!(clock.at_least(at(40)), Some(board(1_035)));
        clock.sent(at(38), at(40), board(1_034));
        assert!(clock.at_most(at(40)).unwrap() > board(1_036));
        assert!(clock.at_most(at(40)).unwrap() < board(1_037));
        assert!(clock.when(board(1_045), at(40)) > at(50));
    }

    #[test]
    fn flt_13_a_clock_that_was_set_is_read_anew() {
        let mut clock = BoardClock::default();
        clock.heard(at(10), board(10_000));
        clock.sent(at(9), at(10), board(10_000));
        clock.heard(at(20), board(2_000));
        assert_eq!(clock.at_least(at(20)), Some(board(2_000)));
        assert_eq!(clock.at_most(at(20)), None);
        clock.heard(at(30), board(50_000));
        assert_eq!(clock.at_least(at(30)), Some(board(50_000)));
        clock.sent(at(39), at(40), board(49_900));
        assert_eq!(clock.at_least(at(40)), Some(board(49_900)));
        assert!(clock.at_most(at(40)).unwrap() < board(49_902));
    }

    #[test]
    fn flt_13_the_bounds_part_by_the_drift_of_both_clocks() {
        let mut clock = BoardClock::default();
        clock.heard(at(0), board(1_000));
        clock.sent(at(0), at(0), board(1_000));
        assert_eq!(clock.at_least(at(0)), Some(board(1_000)));
        assert_eq!(clock.at_most(at(0)), Some(board(1_000)));
        // In 2,048 ms, one clock may be a millisecond before or behind the other.
        assert_eq!(clock.at_least(at(2_048)), Some(board(3_047)));
        assert_eq!(clock.at_most(at(2_048)), Some(board(3_049)));
        assert_eq!(clock.when(board(3_047), at(0)), at(2_048));
        assert_eq!(clock.when(board(900), at(5)), at(5), "it is over");
        assert_eq!(BoardClock::default().when(board(9), at(5)), at(5));
    }

    #[test]
    fn flt_13_a_second_tells_a_slow_word_from_a_clock_that_was_set() {
        let mut clock = BoardClock::default();
        clock.heard(at(10), board(10_000));
        clock.sent(at(10), at(10), board(10_000));
        clock.heard(at(10), board(10_000));
        assert_eq!(clock.at_most(at(10)), Some(board(10_000)), "no news");
        clock.heard(at(10), BoardTime(board(9_000).0 + 1));
        assert_eq!(clock.at_least(at(10)), Some(board(10_000)), "a slow word");
        clock.heard(at(10), board(9_000));
        assert_eq!(clock.at_least(at(10)), Some(board(9_000)));
        assert_eq!(clock.at_most(at(10)), None);
        clock.sent(at(10), at(10), board(9_000));
        clock.heard(at(10), board(9_001));
        assert_eq!(clock.at_most(at(10)), None, "it was more than the most");
    }

    #[test]
    fn flt_13_the_lowest_upper_bound_counts_to_the_nanosecond() {
        let most_after = |known: u64| {
            let mut clock = BoardClock::default();
            clock.sent(at(10), at(10), BoardTime(known));
            // Now this one is at 1,001 ms and 488 ns.
            clock.sent(at(9), at(10), board(1_000));
            clock.at_most(at(10))
        };
        let own = Some(BoardTime(1_001_000_488));
        assert_eq!(most_after(1_001_000_000), Some(BoardTime(1_001_000_000)));
        assert_eq!(most_after(1_001_000_488), own);
        assert_eq!(most_after(1_001_000_500), own);
        assert_eq!(most_after(1_900_000_000), own);
    }

    #[test]
    fn flt_13_bounds_that_meet_contradict_nothing() {
        let mut clock = BoardClock::default();
        clock.heard(at(10), board(1_001));
        clock.sent(at(9), at(10), BoardTime(board(1_000).0 - 488));
        assert_eq!(clock.at_most(at(10)), Some(board(1_001)));
        assert_eq!(clock.at_least(at(10)), Some(board(1_001)));
    }
}
