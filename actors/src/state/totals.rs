//! Totals of a dependency: the calls submitted, and their results.
//!
//! Counters only go up. They never decide anything.

mod answers;

mod buckets;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::{Rate, Time};
use histogram::Histogram;
use thread_local::ThreadLocal;

use crate::sync::LockExt;
pub use answers::RecentAnswers;
use answers::{AnswerMark, AnswerSlots};

/// Range of the histogram: a microsecond to over an hour in steps of at most 3 %.
const GROUPING_POWER: u8 = 5;
const MAX_VALUE_POWER: u8 = 32;

/// Live counters, separate for each thread. A thread that counts alone needs no atomic addition,
/// and does not take the counters away from another thread's cache.
#[derive(Debug)]
pub(crate) struct Totals {
    shards: ThreadLocal<TotalsShard>,
    pub(crate) restarts: AtomicU64,
    pub(crate) trips: AtomicU64,
    recent: Mutex<RecentLatency>,
    /// The answers so far at the time from which the health is judged.
    judged_from: Mutex<AnswerMark>,
}

/// The counters of one thread. No other thread writes them; a new thread may reuse those of a
/// thread that has ended.
#[derive(Debug)]
pub(super) struct TotalsShard {
    counters: [AtomicU64; TotalsCounter::ALL],
    /// Latencies in microseconds of calls that ended with an answer or a failure of the dependency:
    /// the buckets of a histogram, numbered by [`bucket_of`].
    latency: Box<[AtomicU64]>,
    answers: AnswerSlots,
}

/// The events that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TotalsCounter {
    /// Calls submitted, without those refused at once.
    Submitted,
    /// Calls refused by an open breaker before anything else. One addition counts both the call and
    /// its refusal, since counting is most of the cost of such a refusal.
    RefusedAtOnce,
    Primary,
    Fallback,
    Refused,
    Failed,
    Cancelled,
    Attempts,
    /// Hedges among the attempts.
    Hedges,
    /// Own answers that say nothing of the service, such as a 404: among the primary ones.
    Neutral,
    /// Calls that ended with an error of the service, without those refused at once. Among them
    /// those that were given up while no call was answered.
    Errors,
    /// Answers of a stream that have begun.
    Begun,
}

impl TotalsCounter {
    const ALL: usize = Self::Begun as usize + 1;
}

impl TotalsShard {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            counters: Default::default(),
            latency: std::iter::repeat_with(zero).take(BUCKETS).collect(),
            answers: AnswerSlots::default(),
        }
    }

    #[inline]
    pub(super) fn add_one(&self, counter: TotalsCounter) {
        bump(&self.counters[counter as usize]);
    }
}

/// Adds one to a counter that only this thread writes, so that no addition is lost.
#[inline]
fn bump(counter: &AtomicU64) {
    let next = counter.load(Ordering::Relaxed).wrapping_add(1);
    counter.store(next, Ordering::Release);
}

/// Index of the histogram bucket for a value. Below twice the grouping, each value has its own
/// bucket; above, each power of two is divided into as many buckets as the grouping says.
#[inline]
const fn bucket_of(value: u64) -> usize {
    let power = GROUPING_POWER as u32;
    let shift = (value | 1).ilog2().saturating_sub(power);
    (((shift as u64) << power) + (value >> shift)) as usize
}

/// Number of buckets.
const BUCKETS: usize = bucket_of(LONGEST) + 1;
/// Longest latency in microseconds that is distinguished from longer ones.
const LONGEST: u64 = (1 << MAX_VALUE_POWER) - 1;

/// A quantile of the latest calls, recomputed from time to time.
#[derive(Debug, Default)]
struct RecentLatency {
    at: Time,
    value: Option<Duration>,
    quantile: Rate,
    /// Counts at the start of the previous span; `None` at first.
    before: Option<Histogram>,
    /// Counts at the start of the present span.
    begin: Option<Histogram>,
    began: Time,
}

/// Time for which a computed quantile is reused.
const FRESH: Duration = Duration::from_secs(1);
/// The latest calls are those of the present span and of the one before it. A span lasts this long,
/// or until it has enough calls to be meaningful.
const SPAN: Duration = Duration::from_secs(10);
const FEWEST: u64 = 20;

impl Totals {
    pub(crate) fn new() -> Self {
        Self {
            shards: ThreadLocal::new(),
            restarts: AtomicU64::new(0),
            trips: AtomicU64::new(0),
            recent: Mutex::default(),
            judged_from: Mutex::default(),
        }
    }

    #[inline]
    pub(super) fn shard(&self) -> &TotalsShard {
        self.shards.get_or(TotalsShard::new)
    }

    fn sum(&self, counter: TotalsCounter) -> u64 {
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.counters[counter as usize].load(Ordering::Acquire))
            .sum()
    }

    /// All latencies counted so far.
    fn latencies(&self) -> Option<Histogram> {
        let mut buckets = vec![0_u64; BUCKETS];
        for shard in self.shards.iter() {
            for (sum, counted) in buckets.iter_mut().zip(&shard.latency) {
                *sum += counted.load(Ordering::Acquire);
            }
        }
        Histogram::from_buckets(GROUPING_POWER, MAX_VALUE_POWER, buckets).ok()
    }

    /// Returns the duration within which this share of the latest calls ended. The latest calls are
    /// those of at most twenty seconds, or of the time needed to have twenty of them; `None` before
    /// that.
    pub(crate) fn recent(&self, quantile: Rate, now: Time) -> Option<Duration> {
        let mut recent = self.recent.acquire();
        let is_fresh = recent.quantile == quantile && now.since(recent.at) < FRESH;
        if is_fresh && recent.value.is_some() {
            return recent.value;
        }
        let all = self.latencies()?;
        // A full span ends before the quantile is computed. Otherwise the calls from before a
        // silence would still count after it.
        if now.since(recent.began) >= SPAN && count(&since(&all, recent.begin.as_ref())) >= FEWEST {
            recent.before = recent.begin.replace(all.clone());
            recent.began = now;
        }
        let latest = since(&all, recent.before.as_ref());
        recent.value = (count(&latest) >= FEWEST)
            .then(|| latest.quantile_bucket(quantile.as_f64()).ok()?)
            .flatten()
            .map(|bucket| Duration::from_micros(bucket.end()));
        recent.at = now;
        recent.quantile = quantile;
        recent.value
    }

    /// Counts an attempt that ended at `now` after this time.
    #[inline]
    pub(crate) fn observe(&self, elapsed: Duration, now: Time) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(LONGEST);
        let shard = self.shard();
        shard.turn(now);
        if let Some(bucket) = shard.latency.get(bucket_of(micros.min(LONGEST))) {
            bump(bucket);
        }
    }

    /// Number of calls submitted.
    pub(crate) fn submitted(&self) -> u64 {
        self.sum(TotalsCounter::Submitted) + self.refused_at_once()
    }

    pub(crate) fn refused_at_once(&self) -> u64 {
        self.sum(TotalsCounter::RefusedAtOnce)
    }

    /// Counts a call and its refusal in one.
    #[inline]
    pub(crate) fn count_refused_at_once(&self, now: Time) {
        let shard = self.shard();
        shard.turn(now);
        shard.add_one(TotalsCounter::RefusedAtOnce);
    }

    /// Counts an attempt that goes out, as a hedge or not.
    #[inline]
    pub(crate) fn attempt(&self, is_hedge: bool) {
        let shard = self.shard();
        shard.add_one(TotalsCounter::Attempts);
        if is_hedge {
            shard.add_one(TotalsCounter::Hedges);
        }
    }

    /// Number of attempts sent as hedges.
    pub(crate) fn hedges(&self) -> u64 {
        self.sum(TotalsCounter::Hedges)
    }

    /// Snapshot of the counters.
    ///
    /// Ends are read before starts, so that a sum taken under load never exceeds `submitted`.
    pub(crate) fn read(&self) -> TotalsView {
        let at_once = self.refused_at_once();
        let (primary, fallback, refused, failed, cancelled) = (
            self.sum(TotalsCounter::Primary),
            self.sum(TotalsCounter::Fallback),
            self.sum(TotalsCounter::Refused),
            self.sum(TotalsCounter::Failed),
            self.sum(TotalsCounter::Cancelled),
        );
        TotalsView {
            submitted: self.sum(TotalsCounter::Submitted) + at_once,
            primary,
            fallback,
            refused: refused + at_once,
            failed,
            cancelled,
            attempts: self.sum(TotalsCounter::Attempts),
            hedges: self.hedges(),
            restarts: self.restarts.load(Ordering::Acquire),
            trips: self.trips.load(Ordering::Acquire),
        }
    }

    /// The latencies within which these shares of the calls ended.
    pub(crate) fn latency(&self) -> LatencyView {
        let all = self.latencies();
        let quantile = |share: f64| {
            let bucket = all.as_ref()?.quantile_bucket(share).ok()??;
            Some(Duration::from_micros(bucket.end()))
        };
        LatencyView {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
        }
    }
}

/// Results of the calls so far.
///
/// `submitted = primary + fallback + refused + failed + cancelled + in flight` (rule CALL-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TotalsView {
    /// Calls submitted.
    pub submitted: u64,
    /// Answered by the dependency.
    pub primary: u64,
    /// Answered by a fallback.
    pub fallback: u64,
    /// Ended with a local refusal.
    pub refused: u64,
    /// Ended with an error after the dependency was asked.
    pub failed: u64,
    /// Given up by the caller.
    pub cancelled: u64,
    /// Attempts sent to the dependency.
    pub attempts: u64,
    /// Hedges among the attempts.
    pub hedges: u64,
    /// Restarts of its workers.
    pub restarts: u64,
    /// Number of times that its breaker opened.
    pub trips: u64,
}

impl TotalsView {
    /// Number of calls that ended, in any way.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.primary + self.fallback + self.refused + self.failed + self.cancelled
    }

    /// Number of calls that have not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.submitted.saturating_sub(self.ended())
    }
}

/// Quantiles of the duration of calls; `None` before the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LatencyView {
    /// Half of the calls ended within this.
    pub p50: Option<Duration>,
    /// Nine of ten calls ended within this.
    pub p90: Option<Duration>,
    /// Ninety-nine of a hundred calls ended within this.
    pub p99: Option<Duration>,
}

/// Counts added after `before`.
fn since(all: &Histogram, before: Option<&Histogram>) -> Histogram {
    let latest = before.and_then(|before| all.wrapping_sub(before).ok());
    latest.unwrap_or_else(|| all.clone())
}

fn count(histogram: &Histogram) -> u64 {
    histogram.as_slice().iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Makes ten calls of this length a second from `from` on. Returns the quantile after each
    /// second.
    fn calls(totals: &Totals, from: u64, seconds: u64, took: u64) -> Vec<Option<Duration>> {
        let median = Rate::new(0.5).unwrap();
        let second = |second| {
            (0..10).for_each(|_| totals.observe(ms(took), Time::ZERO));
            totals.recent(median, Time::from_millis((from + second) * 1_000))
        };
        (1..=seconds).map(second).collect()
    }

    #[test]
    fn ops_1_a_value_is_counted_in_the_histograms_own_bucket() {
        let powers = (0..u32::from(MAX_VALUE_POWER)).map(|power| 1_u64 << power);
        let values = powers.flat_map(|power| [power - 1, power, power + 1, power * 3 / 2]);
        for value in values.chain(0..5_000).chain([LONGEST]) {
            let mut whole = Histogram::new(GROUPING_POWER, MAX_VALUE_POWER).unwrap();
            whole.increment(value).unwrap();
            let counted = whole.as_slice().iter().position(|count| *count == 1);
            assert_eq!(counted, Some(bucket_of(value)), "{value}");
            assert_eq!(whole.as_slice().len(), BUCKETS);
        }
    }

    fn is(known: Option<Duration>, took: u64) -> bool {
        // Steps of at most 3 %.
        known.is_some_and(|known| known >= ms(took) && known <= ms(took) * 104 / 100)
    }

    #[test]
    fn call_7_nothing_is_known_before_twenty_calls() {
        let totals = Totals::new();
        let known = calls(&totals, 0, 3, 50);
        assert_eq!(known[0], None);
        assert!(is(known[1], 50) && is(known[2], 50), "{known:?}");
    }

    #[test]
    fn call_7_the_quantile_follows_a_shift_and_does_not_fall_back() {
        let totals = Totals::new();
        // A long history, which must not come back.
        (0..100_000).for_each(|_| totals.observe(ms(10), Time::ZERO));
        assert!(
            calls(&totals, 0, 100, 10)
                .into_iter()
                .all(|known| is(known, 10))
        );
        let known = calls(&totals, 100, 60, 500);
        let since = known.iter().position(|known| is(*known, 500));
        let since = since.expect("it follows");
        assert!(since < 20, "only after {since} s");
        assert!(
            known[since..].iter().all(|known| is(*known, 500)),
            "{known:?}"
        );
        let known = calls(&totals, 160, 60, 20);
        assert!(known[20..].iter().all(|known| is(*known, 20)), "{known:?}");
    }

    #[test]
    fn call_7_after_a_silence_the_latest_calls_count() {
        let totals = Totals::new();
        calls(&totals, 0, 30, 10);
        // No call for an hour; then it takes a while to have enough of them.
        let known = calls(&totals, 3_600, 30, 500);
        assert!(known.iter().all(Option::is_some));
        assert!(known[20..].iter().all(|known| is(*known, 500)), "{known:?}");
    }

    #[test]
    fn call_7_few_calls_are_looked_back_on_for_longer() {
        let totals = Totals::new();
        let median = Rate::new(0.5).unwrap();
        calls(&totals, 0, 30, 10);
        // One call in five seconds: twenty of them take a while.
        for call in 1..=50 {
            totals.observe(ms(500), Time::ZERO);
            let known = totals.recent(median, Time::from_millis(30_000 + call * 5_000));
            assert!(is(known, 10) || is(known, 500), "call {call}: {known:?}");
            assert!(call < 45 || is(known, 500), "call {call}: {known:?}");
        }
    }
}
