//! A cache of the last good answers, each kept for a limited time.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakerbox_policy::Time;
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

use super::{Fallback, FallbackFuture, FallbackOutcome, RefreshGuard};
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::sync::LockExt;

/// The last good answer to each request, with the time of its arrival.
type KeptAnswers<D> =
    Cache<<D as Dependency>::Request, (<D as Dependency>::Response, Time), EntryWeight<D>>;

/// Fallback that answers with the last good answer to the same request, until it is too old.
///
/// Only the dependency's own answers are cached, never those of a fallback (rule FBK-3).
pub struct StaleCache<D: Dependency> {
    kept: Arc<KeptAnswers<D>>,
    /// True if its bounds are in bytes.
    by_bytes: bool,
    max_age: Duration,
    refresh: bool,
    renewed: Renewed<D::Request>,
    of: PhantomData<fn() -> D>,
}

/// Size of an entry, in bytes.
type EntrySize<D> = fn(&<D as Dependency>::Request, &<D as Dependency>::Response) -> u64;

/// Weight of an entry: one for each, or its bytes.
struct EntryWeight<D: Dependency> {
    size: Option<EntrySize<D>>,
    /// Minimum weight, so that the number of entries stays bounded too.
    least: u64,
}

impl<D: Dependency> Clone for EntryWeight<D> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<D: Dependency> Weighter<D::Request, (D::Response, Time)> for EntryWeight<D> {
    fn weight(&self, request: &D::Request, (response, _): &(D::Response, Time)) -> u64 {
        let size = self.size.map_or(0, |size| size(request, response));
        size.max(self.least)
    }
}

/// The requests with a refresh in progress.
type Renewed<Q> = Arc<Mutex<HashSet<Q>>>;

fn lock<Q>(renewed: &Renewed<Q>) -> MutexGuard<'_, HashSet<Q>> {
    // A panic in `Hash` or `Eq` leaves a set that is still usable.
    renewed.acquire()
}

/// Guard of one request's refresh: removes the request from the set when dropped.
struct KeyRefreshGuard<Q: Eq + Hash> {
    renewed: Renewed<Q>,
    request: Q,
}

impl<Q: Eq + Hash> Drop for KeyRefreshGuard<Q> {
    fn drop(&mut self) {
        lock(&self.renewed).remove(&self.request);
    }
}

impl<D> StaleCache<D>
where
    D: Dependency,
    D::Request: Eq + Hash + Sync,
    D::Response: Clone + Sync,
{
    /// An empty cache.
    ///
    /// # Units   `max_age`: an answer of exactly this age is still served. `max_entries`: maximum
    /// number of cached answers; the least used is evicted first.
    #[must_use]
    pub fn new(max_age: Duration, max_entries: usize) -> Self {
        Self {
            kept: Arc::new(Cache::with_weighter(
                max_entries,
                u64::try_from(max_entries).unwrap_or(u64::MAX),
                EntryWeight {
                    size: None,
                    least: 1,
                },
            )),
            by_bytes: false,
            max_age,
            refresh: false,
            renewed: Renewed::default(),
            of: PhantomData,
        }
    }

    /// Returns a cache with other limits and the same answers: both share them from then on.
    ///
    /// A cache with [`StaleCache::max_bytes`] keeps its bounds; only `max_age` is applied to it.
    ///
    /// # Units   As [`StaleCache::new`].
    #[must_use]
    pub fn with_limits(&self, max_age: Duration, max_entries: usize) -> Self {
        let capacity = u64::try_from(max_entries).unwrap_or(u64::MAX);
        if !self.by_bytes && self.kept.capacity() != capacity {
            self.kept.set_capacity(capacity);
        }
        Self {
            kept: Arc::clone(&self.kept),
            by_bytes: self.by_bytes,
            max_age,
            refresh: self.refresh,
            renewed: Arc::clone(&self.renewed),
            of: PhantomData,
        }
    }

    /// Bounds the cache by the bytes of its entries too (rule CALL-6). An entry larger than
    /// `max_entry` is not cached.
    ///
    /// An entry takes at least its share of `max_bytes`, so that there are never more than
    /// `max_entries`.
    ///
    /// # Units   `max_bytes`, `max_entry`, and the result of `size`: bytes.
    #[must_use]
    pub fn max_bytes(
        self,
        (max_entries, max_bytes): (usize, u64),
        max_entry: u64,
        size: fn(&D::Request, &D::Response) -> u64,
    ) -> Self {
        let entries = u64::try_from(max_entries).unwrap_or(u64::MAX).max(1);
        // A single entry may fill at most 97 % of the cache: see `hot_allocation`.
        let shared_out = if entries > 8 {
            max_bytes
        } else {
            max_bytes / 100 * 95
        };
        let least = (shared_out / entries).max(1);
        // Each shard has its part of the bytes, and an entry that fills its shard is not cached:
        // few large shards if entries may be large.
        let shards = max_bytes / max_entry.max(least).saturating_mul(16).max(1);
        // Rounded down to a power of two; the cache rounds up.
        let shards = 1_usize << shards.max(1).ilog2().min(6);
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(max_entries)
            .weight_capacity(max_bytes)
            .build();
        let Ok(options) = options else { return self };
        let weight = EntryWeight {
            size: Some(size),
            least,
        };
        let kept = Cache::with_options(
            options,
            weight,
            quick_cache::DefaultHashBuilder::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        );
        Self {
            kept: Arc::new(kept),
            by_bytes: true,
            ..self
        }
    }

    /// Removes the answer to a request: a newer one has replaced it, and is not to be cached.
    pub fn forget(&self, request: &D::Request) {
        self.kept.remove(request);
    }

    /// Returns the weight of all entries: their bytes, if the cache is bounded by bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.kept.weight()
    }

    /// Evicts the oldest eighth of the entries, at least one, because their memory is needed.
    pub fn shed(&self) {
        let times = RefCell::new(Vec::new());
        self.kept.retain(|_, (_, at)| {
            times.borrow_mut().push(*at);
            true
        });
        let mut times = times.into_inner();
        if times.is_empty() {
            return;
        }
        let last = times.len() / 8;
        let (_, newest, _) = times.select_nth_unstable(last);
        let newest = *newest;
        self.kept.retain(|_, (_, at)| *at > newest);
    }

    /// Sets whether each stale answer is followed by one background call that refreshes it; one
    /// request never has two at a time. While the breaker is open, that call waits for the end of
    /// the open time, so that it tries the dependency at no caller's expense.
    #[must_use]
    pub fn refresh(self, refresh: bool) -> Self {
        Self { refresh, ..self }
    }
}

impl<D> Fallback<D> for StaleCache<D>
where
    D: Dependency,
    D::Request: Eq + Hash + Sync,
    D::Response: Clone + Sync,
{
    fn name(&self) -> &str {
        "stale_cache"
    }

    fn answer(
        &self,
        request: D::Request,
        _: &CallError<D::Error>,
        now: Time,
    ) -> FallbackFuture<D::Response> {
        let fallen = match self.kept.get(&request) {
            Some((response, at)) if now.since(at) <= self.max_age => {
                FallbackOutcome::Answer(response, Some(now.since(at)))
            }
            _ => FallbackOutcome::Nothing,
        };
        Box::pin(std::future::ready(fallen))
    }

    fn remember(&self, request: &D::Request, response: &D::Response, now: Time) {
        if !D::is_write(request) {
            self.kept.insert(request.clone(), (response.clone(), now));
        }
    }

    fn refresh_guard(&self, request: &D::Request) -> Option<RefreshGuard> {
        let wanted = self.refresh && !D::is_write(request);
        if !wanted || !lock(&self.renewed).insert(request.clone()) {
            return None;
        }
        Some(Box::new(KeyRefreshGuard {
            renewed: Arc::clone(&self.renewed),
            request: request.clone(),
        }))
    }
}

impl<D: Dependency> fmt::Debug for StaleCache<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StaleCache")
            .field("max_age", &self.max_age)
            .field("refresh", &self.refresh)
            .finish_non_exhaustive()
    }
}
