//! The books of a dependency: what was submitted and what became of it.
//!
//! Counters only go up. They never decide anything.

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
    pub(crate) submitted: AtomicU64,
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
    /// What had been counted when the present span began.
    before: Option<Histogram>,
    began: Time,
}

/// How long a quantile is taken for new.
const FRESH: Duration = Duration::from_secs(1);
/// How long a span of latest calls grows before another one begins, and how many calls one must have to tell anything.
const SPAN: Duration = Duration::from_secs(20);
const FEWEST: u64 = 20;

impl Totals {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            submitted: zero(),
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

    /// How long this share of the latest calls took, those of at most twenty seconds, or of all
    /// calls where the latest were few; `None` before there are twenty.
    pub(crate) fn recent(&self, quantile: Rate, now: Time) -> Option<Duration> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = recent.quantile == quantile && now.since(recent.at) < FRESH;
        if is_fresh && recent.value.is_some() {
            return recent.value;
        }
        let all = self.latency.as_ref()?.load();
        let latest = recent.before.as_ref().map(|old| all.wrapping_sub(old));
        let latest = latest.and_then(Result::ok).filter(|it| count(it) >= FEWEST);
        let chosen = latest.as_ref().unwrap_or(&all);
        recent.value = (count(chosen) >= FEWEST)
            .then(|| chosen.quantile_bucket(quantile.as_f64()).ok()?)
            .flatten()
            .map(|bucket| Duration::from_micros(bucket.end()));
        recent.at = now;
        recent.quantile = quantile;
        if recent.before.is_none() || now.since(recent.began) >= SPAN {
            recent.before = Some(all);
            recent.began = now;
        }
        recent.value
    }

    pub(crate) fn observe(&self, elapsed: Duration) {
        if let Some(latency) = &self.latency {
            let longest = (1 << MAX_VALUE_POWER) - 1;
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(longest);
            // A value within the configured power cannot be refused.
            let _ = latency.increment(micros.min(longest));
        }
    }

    /// The counters at one moment.
    ///
    /// Ends are read before starts, so that a sum taken under load never exceeds `submitted`.
    pub(crate) fn read(&self) -> TotalsView {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let (primary, fallback, refused, failed, cancelled) = (
            read(&self.primary),
            read(&self.fallback),
            read(&self.refused),
            read(&self.failed),
            read(&self.cancelled),
        );
        TotalsView {
            submitted: read(&self.submitted),
            primary,
            fallback,
            refused,
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
