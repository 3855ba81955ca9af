//! A cache of the last good answers, each kept for a limited time.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakerbox_policy::Time;
use quick_cache::sync::Cache;

use super::{Fallback, FallbackFuture, FallbackOutcome, RefreshGuard};
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::sync::LockExt;

/// Fallback that answers with the last good answer to the same request, until it is too old.
///
/// Only the dependency's own answers are cached, never those of a fallback (rule FBK-3).
pub struct StaleCache<D: Dependency> {
    kept: Arc<Cache<D::Request, (D::Response, Time)>>,
    max_age: Duration,
    refresh: bool,
    renewed: Renewed<D::Request>,
    of: PhantomData<fn() -> D>,
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
            kept: Arc::new(Cache::new(max_entries)),
            max_age,
            refresh: false,
            renewed: Renewed::default(),
            of: PhantomData,
        }
    }

    /// Returns a cache with other limits and the same answers: both share them from then on.
    ///
    /// # Units   As [`StaleCache::new`].
    #[must_use]
    pub fn with_limits(&self, max_age: Duration, max_entries: usize) -> Self {
        let capacity = u64::try_from(max_entries).unwrap_or(u64::MAX);
        if self.kept.capacity() != capacity {
            self.kept.set_capacity(capacity);
        }
        Self {
            kept: Arc::clone(&self.kept),
            max_age,
            refresh: self.refresh,
            renewed: Arc::clone(&self.renewed),
            of: PhantomData,
        }
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
