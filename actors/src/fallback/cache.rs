//! The last good answers, for a while.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

use breakerbox_policy::Time;
use quick_cache::sync::Cache;

use super::{Fallback, FallbackFuture, Fallen};
use crate::dependency::Dependency;
use crate::error::CallError;

/// Answers with the last good answer to the same request, while it is not too old.
///
/// Only the dependency's own answers are kept, never those of a fallback (rule FBK-3).
pub struct StaleCache<D: Dependency> {
    kept: Cache<D::Request, (D::Response, Time)>,
    max_age: Duration,
    of: PhantomData<fn() -> D>,
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
            of: PhantomData,
        }
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
}

impl<D: Dependency> fmt::Debug for StaleCache<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StaleCache")
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}
