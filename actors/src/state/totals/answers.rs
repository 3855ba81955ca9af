//! The sliding record of the answers that callers got in the last seconds (rule HLT-1).
//!
//! Each thread notes its counters when a slot of time begins, so an answer costs no more than the
//! comparison of two slot numbers. The answers of the record are the present counters without those
//! at its begin. It judges nothing.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use breakerbox_policy::{AnswerCounts, Time};

use super::{Totals, TotalsCounter, TotalsShard};
use crate::sync::LockExt;

/// Length of a slot as a power of two of nanoseconds: 4.3 s. A shift is cheaper than a division.
const SLOT_POWER: u32 = 32;

/// Number of slots of the record, the present one included: together [`HEALTH_SPAN`](breakerbox_policy::HEALTH_SPAN).
const SLOTS: u64 = 7;

/// Number of slots with a noted begin: one more than the record has.
const NOTED: usize = 8;

/// A thread's counters at the begin of each of the last slots.
#[derive(Debug, Default)]
pub(super) struct AnswerSlots {
    present: AtomicU64,
    begins: [SlotBegin; NOTED],
}

/// A thread's counters at the begin of a slot.
#[derive(Debug, Default)]
struct SlotBegin {
    /// The slot; [`BEING_WRITTEN`] while the counters are written.
    slot: AtomicU64,
    own: AtomicU64,
    by_fallback: AtomicU64,
    errors: AtomicU64,
}

const BEING_WRITTEN: u64 = u64::MAX;

/// The answers so far at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerMark {
    at: Time,
    answers: AnswerCounts,
}

/// The answers of the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecentAnswers {
    /// Their numbers.
    pub counts: AnswerCounts,
    /// All answers of the record, those before a recovery too.
    pub calls: u64,
    /// The time in which callers got those.
    pub over: Duration,
    /// The time in which callers got `counts`: at most [`HEALTH_SPAN`](breakerbox_policy::HEALTH_SPAN), and less after a recovery.
    pub span: Duration,
}

const fn slot_of(now: Time) -> u64 {
    now.as_nanos() >> SLOT_POWER
}

impl SlotBegin {
    fn write(&self, slot: u64, counts: AnswerCounts) {
        self.slot.store(BEING_WRITTEN, Ordering::Relaxed);
        fence(Ordering::Release);
        self.own.store(counts.own, Ordering::Relaxed);
        self.by_fallback
            .store(counts.by_fallback, Ordering::Relaxed);
        self.errors.store(counts.errors, Ordering::Relaxed);
        self.slot.store(slot, Ordering::Release);
    }

    /// Returns the slot and the counters, unless another thread is writing them.
    fn read(&self) -> Option<(u64, AnswerCounts)> {
        let slot = self.slot.load(Ordering::Acquire);
        let counts = AnswerCounts {
            own: self.own.load(Ordering::Relaxed),
            by_fallback: self.by_fallback.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let is_whole = slot != BEING_WRITTEN && self.slot.load(Ordering::Relaxed) == slot;
        is_whole.then_some((slot, counts))
    }
}

impl TotalsShard {
    /// Notes the counters if a slot has begun since the last call.
    #[inline]
    pub(in crate::state) fn turn(&self, now: Time) {
        let slot = slot_of(now);
        if slot > self.answers.present.load(Ordering::Relaxed) {
            self.begin_slot(slot);
        }
    }

    #[cold]
    fn begin_slot(&self, slot: u64) {
        let begin = usize::try_from(slot % NOTED as u64).unwrap_or_default();
        if let Some(begin) = self.answers.begins.get(begin) {
            begin.write(slot, self.answers());
        }
        self.answers.present.store(slot, Ordering::Relaxed);
    }

    /// All answers of this thread.
    fn answers(&self) -> AnswerCounts {
        let read = |counter| self.counters[counter as usize].load(Ordering::Acquire);
        // HLT-1: an own answer to a caller's mistake says nothing of the service.
        let neutral = read(TotalsCounter::Neutral);
        AnswerCounts {
            own: read(TotalsCounter::Primary).saturating_sub(neutral),
            by_fallback: read(TotalsCounter::Fallback),
            errors: read(TotalsCounter::Errors) + read(TotalsCounter::RefusedAtOnce),
        }
    }

    /// The answers of this thread since the begin of the slot `first`.
    fn answers_since(&self, first: u64) -> AnswerCounts {
        let all = self.answers();
        let begins = self.answers.begins.iter().filter_map(SlotBegin::read);
        let within = begins.filter(|(slot, _)| *slot >= first);
        // A thread that has noted no slot since then has counted nothing since then.
        let begin = within.min_by_key(|(slot, _)| *slot);
        begin.map_or(AnswerCounts::default(), |(_, begin)| all.since(begin))
    }
}

impl Totals {
    /// All answers so far.
    pub(crate) fn answers(&self) -> AnswerCounts {
        let shards = self.shards.iter().map(TotalsShard::answers);
        shards.fold(AnswerCounts::default(), |sum, one| sum.plus(one))
    }

    /// The answers of the last seconds, since the latest recovery.
    pub(crate) fn recent_answers(&self, now: Time) -> RecentAnswers {
        let mark = *self.judged_from.acquire();
        let first = slot_of(now).saturating_sub(SLOTS - 1);
        let shards = self.shards.iter().map(|shard| shard.answers_since(first));
        let slid = shards.fold(AnswerCounts::default(), |sum, one| sum.plus(one));
        let began = Time::from_nanos(first << SLOT_POWER);
        RecentAnswers {
            calls: slid.calls(),
            over: now.since(began),
            counts: slid.at_most(self.answers().since(mark.answers)),
            span: now.since(began.max(mark.at)),
        }
    }

    /// Begins the record anew: what came before a recovery says nothing of the service now.
    pub(crate) fn judge_from(&self, now: Time) {
        let answers = self.answers();
        *self.judged_from.acquire() = AnswerMark { at: now, answers };
    }

    /// Counts calls that were given up without an answer as errors of the service.
    #[cold]
    pub(crate) fn count_unanswered(&self, calls: u64, now: Time) {
        let shard = self.shard();
        shard.turn(now);
        for _ in 0..calls {
            shard.add_one(TotalsCounter::Errors);
        }
    }

    /// Counts the begin of a stream's answer.
    pub(crate) fn count_begun(&self) {
        self.shard().add_one(TotalsCounter::Begun);
    }

    /// Number of streams with an answer that has begun.
    pub(crate) fn begun(&self) -> u64 {
        self.sum(TotalsCounter::Begun)
    }

    /// Counts an own answer of a closure as one that says nothing of the service.
    #[cold]
    pub(crate) fn count_neutral(&self) {
        self.shard().add_one(TotalsCounter::Neutral);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    fn count(totals: &Totals, seconds: u64, counter: TotalsCounter) {
        let shard = totals.shard();
        shard.turn(at(seconds));
        shard.add_one(counter);
    }

    fn recent(totals: &Totals, seconds: u64) -> (u64, u64, u64) {
        let counts = totals.recent_answers(at(seconds)).counts;
        (counts.own, counts.by_fallback, counts.errors)
    }

    #[test]
    fn hlt_1_an_answer_counts_for_at_most_thirty_seconds_and_for_twenty_five_at_least() {
        let span = Duration::from_nanos(SLOTS << SLOT_POWER);
        assert_eq!(span.as_secs(), breakerbox_policy::HEALTH_SPAN.as_secs());
        for begin in 0..60 {
            let totals = Totals::new();
            count(&totals, begin, TotalsCounter::Errors);
            for later in 0..=25 {
                assert_eq!(recent(&totals, begin + later), (0, 0, 1), "{begin}+{later}");
            }
            assert_eq!(recent(&totals, begin + 31), (0, 0, 0), "{begin}");
        }
    }

    #[test]
    fn hlt_1_the_record_slides_over_steady_calls() {
        let totals = Totals::new();
        for second in 0..300 {
            for _ in 0..10 {
                count(&totals, second, TotalsCounter::Primary);
            }
            if second % 2 == 0 {
                count(&totals, second, TotalsCounter::Errors);
            }
            let (own, _, errors) = recent(&totals, second);
            assert!(own <= 310 && errors <= 16, "{second}: {own} {errors}");
            assert!(second < 30 || own >= 250, "{second}: {own}");
        }
        let RecentAnswers { counts, span, .. } = totals.recent_answers(at(299));
        let seconds = u64::try_from(span.as_millis()).unwrap();
        let a_second = counts.own * 1_000 / seconds;
        assert!((9..=11).contains(&a_second), "{a_second}");
    }

    #[test]
    fn hlt_1_the_threads_are_summed_and_a_silent_one_has_no_part() {
        let totals = Totals::new();
        std::thread::scope(|scope| {
            let elsewhere = || count(&totals, 1, TotalsCounter::Errors);
            scope.spawn(elsewhere).join().unwrap();
            count(&totals, 1, TotalsCounter::Fallback);
            assert_eq!(recent(&totals, 2), (0, 1, 1));
            count(&totals, 100, TotalsCounter::Primary);
            assert_eq!(recent(&totals, 100), (1, 0, 0));
        });
    }

    #[test]
    fn hlt_1_what_came_before_a_recovery_does_not_count() {
        let totals = Totals::new();
        for _ in 0..30 {
            count(&totals, 10, TotalsCounter::Errors);
        }
        totals.judge_from(at(12));
        assert_eq!(recent(&totals, 12), (0, 0, 0));
        count(&totals, 13, TotalsCounter::Primary);
        assert_eq!(recent(&totals, 14), (1, 0, 0));
        assert_eq!(totals.recent_answers(at(14)).span, Duration::from_secs(2));
        assert_eq!(recent(&totals, 50), (0, 0, 0));
    }

    #[test]
    fn hlt_1_callers_own_mistakes_are_no_answers() {
        let totals = Totals::new();
        for _ in 0..3 {
            count(&totals, 1, TotalsCounter::Primary);
        }
        totals.count_neutral();
        assert_eq!(recent(&totals, 1), (2, 0, 0));
    }
}
