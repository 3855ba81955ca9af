//! The books of a dependency: what was submitted and what became of it.
//!
//! Counters only go up. They never decide anything.

mod buckets;

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use breakerbox_policy::{Rate, Time};
use histogram::{AtomicHistogram, Config, Histogram};

use crate::dependency::Shared;

/// A microsecond to over an hour in steps of at most 3 %.
const GROUPING_POWER: u8 = 5;
const MAX_VALUE_POWER: u8 = 32;

/// Live counters.
#[derive(Debug)]
pub(crate) struct Totals {
    /// Calls that were made; those that were refused at once are not among them.
    submitted: AtomicU64,
    /// Calls that were made and refused by an open breaker before anything else: counted once,
    /// which is most of what such a refusal costs.
    refused_at_once: AtomicU64,
    pub(crate) primary: AtomicU64,
    pub(crate) fallback: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) attempts: AtomicU64,
    /// Attempts among them that were sent beside another one.
    pub(crate) hedges: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) trips: AtomicU64,
    /// Microseconds of calls that ended with an answer or a failure of the dependency.
    latency: Option<AtomicHistogram>,
    recent: Mutex<Recent>,
}

/// A quantile of the latest calls, looked up once in a while.
#[derive(Debug, Default)]
struct Recent {
    at: Time,
    value: Option<Duration>,
    quantile: Rate,
    /// What had been counted when the span before the present one began; nothing at first.
    before: Option<Histogram>,
    /// What had been counted when the present span began.
    begin: Option<Histogram>,
    began: Time,
}

/// How long a quantile is taken for new.
const FRESH: Duration = Duration::from_secs(1);
/// The latest calls are those of the present span and of the one before it. A span is so long, or
/// as long as it takes to have calls enough to tell anything.
const SPAN: Duration = Duration::from_secs(10);
const FEWEST: u64 = 20;

impl Totals {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            submitted: zero(),
            refused_at_once: zero(),
            primary: zero(),
            fallback: zero(),
            refused: zero(),
            failed: zero(),
            cancelled: zero(),
            attempts: zero(),
            hedges: zero(),
            restarts: zero(),
            trips: zero(),
            latency: Config::new(GROUPING_POWER, MAX_VALUE_POWER)
                .ok()
                .map(|config| AtomicHistogram::with_config(&config)),
            recent: Mutex::default(),
        }
    }

    /// How long this share of the latest calls took: those of at most twenty seconds, or of as
    /// long as it takes to have twenty of them; `None` before that.
    pub(crate) fn recent(&self, quantile: Rate, now: Time) -> Option<Duration> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = recent.quantile == quantile && now.since(recent.at) < FRESH;
        if is_fresh && recent.value.is_some() {
            return recent.value;
        }
        let all = self.latency.as_ref()?.load();
        // A span that is full ends before it is looked back on: else the calls of a silence
        // would still count after it.
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

    #[inline]
    pub(crate) fn observe(&self, elapsed: Duration) {
        if let Some(latency) = &self.latency {
            let longest = (1 << MAX_VALUE_POWER) - 1;
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(longest);
            // A value within the configured power cannot be refused.
            let _ = latency.increment(micros.min(longest));
        }
    }

    /// Calls that were made.
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Relaxed) + self.refused_at_once()
    }

    pub(crate) fn refused_at_once(&self) -> u64 {
        self.refused_at_once.load(Ordering::Acquire)
    }

    /// Counts a call that is made and refused in one.
    pub(crate) fn refuse_at_once(&self) {
        self.refused_at_once.fetch_add(1, Ordering::Release);
    }

    /// The counters at one moment.
    ///
    /// Ends are read before starts, so that a sum taken under load never exceeds `submitted`.
    pub(crate) fn read(&self) -> TotalsView {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let at_once = self.refused_at_once();
        let (primary, fallback, refused, failed, cancelled) = (
            read(&self.primary),
            read(&self.fallback),
            read(&self.refused),
            read(&self.failed),
            read(&self.cancelled),
        );
        TotalsView {
            submitted: read(&self.submitted) + at_once,
            primary,
            fallback,
            refused: refused + at_once,
            failed,
            cancelled,
            attempts: read(&self.attempts),
            hedges: read(&self.hedges),
            restarts: read(&self.restarts),
            trips: read(&self.trips),
        }
    }

    /// The latency below which these shares of the calls ended.
    pub(crate) fn latency(&self) -> LatencyView {
        let quantile = |share: f64| {
            let bucket = self
                .latency
                .as_ref()?
                .load()
                .quantile_bucket(share)
                .ok()??;
            Some(Duration::from_micros(bucket.end()))
        };
        LatencyView {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
        }
    }
}

/// What became of the calls so far.
///
/// `submitted = primary + fallback + refused + failed + cancelled + in flight` (rule CALL-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TotalsView {
    /// Calls that were made.
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
    /// Times that work was sent to the dependency.
    pub attempts: u64,
    /// Attempts among them that were sent beside another one.
    pub hedges: u64,
    /// Restarts of its workers.
    pub restarts: u64,
    /// Times that its breaker opened.
    pub trips: u64,
}

impl TotalsView {
    /// Calls that ended, whatever way.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.primary + self.fallback + self.refused + self.failed + self.cancelled
    }

    /// Calls that have not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.submitted.saturating_sub(self.ended())
    }
}

/// Quantiles of how long calls took; `None` before the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LatencyView {
    /// Half of the calls ended within this.
    pub p50: Option<Duration>,
    /// Nine of ten.
    pub p90: Option<Duration>,
    /// Ninety-nine of a hundred.
    pub p99: Option<Duration>,
}

/// What was counted after `before`.
fn since(all: &Histogram, before: Option<&Histogram>) -> Histogram {
    let latest = before.and_then(|before| all.wrapping_sub(before).ok());
    latest.unwrap_or_else(|| all.clone())
}

fn count(histogram: &Histogram) -> u64 {
    histogram.as_slice().iter().sum()
}

/// How a call ended, for the books.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Primary,
    Fallback,
    Refused,
    Failed,
}

/// One call in the books: counted when it is made, and once more when it ends.
///
/// Dropped without an ending it is the caller who went away (rule CALL-1).
#[derive(Debug)]
pub(crate) struct Entry<S: Deref<Target = Shared>> {
    shared: S,
    ended: bool,
}

impl<S: Deref<Target = Shared>> Entry<S> {
    pub(crate) fn open(shared: S) -> Self {
        shared.totals.submitted.fetch_add(1, Ordering::Release);
        Self {
            shared,
            ended: false,
        }
    }

    #[inline]
    pub(crate) fn close(mut self, ending: Ending) {
        self.ended = true;
        let totals = &self.shared.totals;
        let counter = match ending {
            Ending::Primary => &totals.primary,
            Ending::Fallback => &totals.fallback,
            Ending::Refused => &totals.refused,
            Ending::Failed => &totals.failed,
        };
        counter.fetch_add(1, Ordering::Release);
    }
}

impl<S: Deref<Target = Shared>> Drop for Entry<S> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.totals.cancelled.fetch_add(1, Ordering::Release);
        }
        self.shared.call_ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Calls of this length, ten a second from `from` on, and what is known of them each second.
    fn calls(totals: &Totals, from: u64, seconds: u64, took: u64) -> Vec<Option<Duration>> {
        let median = Rate::new(0.5).unwrap();
        let second = |second| {
            (0..10).for_each(|_| totals.observe(ms(took)));
            totals.recent(median, Time::from_millis((from + second) * 1_000))
        };
        (1..=seconds).map(second).collect()
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
        (0..100_000).for_each(|_| totals.observe(ms(10)));
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
        // Nobody asked for an hour; then it takes as long as it takes to know enough.
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
            totals.observe(ms(500));
            let known = totals.recent(median, Time::from_millis(30_000 + call * 5_000));
            assert!(is(known, 10) || is(known, 500), "call {call}: {known:?}");
            assert!(call < 45 || is(known, 500), "call {call}: {known:?}");
        }
    }
}
