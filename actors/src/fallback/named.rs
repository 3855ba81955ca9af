//! Another dependency as a fallback, looked up by its name at each call.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use breakerbox_policy::Time;

use super::{Fallback, FallbackFuture, FallbackOutcome};
use crate::dependency::Dependency;
use crate::error::CallError;

/// Another dependency of the same runtime as a fallback, under its own breaker and with its own
/// fallbacks. Its requests and responses must have the same types.
///
/// It is looked up at each call, because it may be started later than the dependency that falls
/// back on it. Until it is started, this fallback fails.
#[derive(Clone)]
pub struct ByName {
    name: String,
    /// Holds its runtime weakly: a dependency of the same runtime owns this fallback.
    directory: Arc<dyn FallbackDirectory>,
}

/// A dependency with its own type erased: only its request and response types are known.
pub(crate) struct ErasedFallback<Q, R>(Box<dyn FnOnce(Q) -> FallbackFuture<R>>);

impl<Q: 'static, R: 'static> ErasedFallback<Q, R> {
    pub(crate) fn new(ask: impl FnOnce(Q) -> FallbackFuture<R> + 'static) -> Self {
        Self(Box::new(ask))
    }
}

/// Finds the dependencies of a runtime by their names, as fallbacks.
pub(crate) trait FallbackDirectory: Send + Sync {
    /// Returns the running dependency of this name as an [`ErasedFallback`].
    fn find(&self, name: &str) -> Option<Box<dyn Any>>;
}

impl ByName {
    pub(crate) fn of(directory: Arc<dyn FallbackDirectory>, name: String) -> Self {
        Self { name, directory }
    }

    /// Returns the dependency, if it is started, or an error if its request or response type
    /// differs.
    fn find<Q: 'static, R: 'static>(&self) -> Option<Result<ErasedFallback<Q, R>, String>> {
        let found = self.directory.find(&self.name)?;
        let fits = found.downcast::<ErasedFallback<Q, R>>();
        Some(fits.map(|fitting| *fitting).map_err(|_other| {
            let name = &self.name;
            format!("{name} takes other requests, or gives other responses")
        }))
    }
}

impl<D: Dependency> Fallback<D> for ByName {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(
        &self,
        request: D::Request,
        _: &CallError<D::Error>,
        _: Time,
    ) -> FallbackFuture<D::Response> {
        let problem = match self.find::<D::Request, D::Response>() {
            Some(Ok(ErasedFallback(ask))) => return ask(request),
            Some(Err(problem)) => problem,
            None => format!("there is no dependency {}", self.name),
        };
        Box::pin(std::future::ready(FallbackOutcome::not_begun(problem)))
    }

    fn depends_on(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn problem(&self) -> Option<String> {
        self.find::<D::Request, D::Response>()?.err()
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ByName")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Returns the cycle of fallbacks from `name` back to itself, such as `a->b->a`, if there is one.
/// `name` falls back on `first`; `falls_back_on` returns the fallbacks of the others.
pub(crate) fn find_cycle(
    name: &str,
    first: Vec<String>,
    falls_back_on: impl Fn(&str) -> Vec<String>,
) -> Option<String> {
    let mut seen: Vec<String> = Vec::new();
    let begin = |next| (vec![name.to_owned()], next);
    let mut open: Vec<(Vec<String>, String)> = first.into_iter().map(begin).collect();
    while let Some((mut way, next)) = open.pop() {
        way.push(next.clone());
        if next == name {
            return Some(way.join("->"));
        }
        if !seen.contains(&next) {
            let beyond = falls_back_on(&next).into_iter();
            open.extend(beyond.map(|one| (way.clone(), one)));
            seen.push(next);
        }
    }
    None
}
