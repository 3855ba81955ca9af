//! The last good answers, for a while.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use breakerbox_policy::Time;
use quick_cache::sync::Cache;

use super::{Fallback, FallbackFuture, Fallen, Turn};
use crate::dependency::Dependency;
use crate::error::CallError;

/// Answers with the last good answer to the same request, while it is not too old.
///
/// Only the dependency's own answers are kept, never those of a fallback (rule FBK-3).
pub struct StaleCache<D: Dependency> {
    kept: Cache<D::Request, (D::Response, Time)>,
    max_age: Duration,
    refresh: bool,
    renewed: Renewed<D::Request>,
    of: PhantomData<fn() -> D>,
}

/// The requests whose answers are being renewed.
type Renewed<Q> = Arc<Mutex<HashSet<Q>>>;

fn lock<Q>(renewed: &Renewed<Q>) -> MutexGuard<'_, HashSet<Q>> {
    // What a panicking `Hash` or `Eq` leaves behind is a set all the same.
    renewed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of them, until it is dropped.
struct OneTurn<Q: Eq + Hash> {
    renewed: Renewed<Q>,
    request: Q,
}

impl<Q: Eq + Hash> Drop for OneTurn<Q> {
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
    /// # Units   `max_age`: at exactly this age an answer is still served. `max_entries`: answers
    /// that are kept; the least used goes first.
    #[must_use]
    pub fn new(max_age: Duration, max_entries: usize) -> Self {
        Self {
            kept: Cache::new(max_entries),
            max_age,
            refresh: false,
            renewed: Renewed::default(),
            of: PhantomData,
        }
    }

    /// Whether each stale answer is followed by one call in the background that renews it, never
    /// two for the same request. While the breaker is open that call waits for the end of its
    /// open time: then the dependency is tried by it, and not at a caller's expense.
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
                Fallen::Answer(response, Some(now.since(at)))
            }
            _ => Fallen::Nothing,
        };
        Box::pin(std::future::ready(fallen))
    }

    fn remember(&self, request: &D::Request, response: &D::Response, now: Time) {
        if !D::is_write(request) {
            self.kept.insert(request.clone(), (response.clone(), now));
        }
    }

    fn turn_to_renew(&self, request: &D::Request) -> Option<Turn> {
        let wanted = self.refresh && !D::is_write(request);
        if !wanted || !lock(&self.renewed).insert(request.clone()) {
            return None;
        }
        Some(Box::new(OneTurn {
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
