//! Another dependency that stands in, found by its name when it is needed.

use std::any::Any;
use std::fmt;

use breakerbox_policy::Time;

use super::kinds::ask_other;
use super::{Fallback, FallbackFuture, Fallen};
use crate::client::Client;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::runtime::{Runtime, WeakRuntime};

/// Another dependency of the same runtime stands in, under its own breaker and with its own
/// fallbacks; it needs the same requests and responses.
///
/// It is looked for at each call: it may be started later than whoever falls back on it. Until it
/// is there, this fallback fails.
#[derive(Clone)]
pub struct ByName {
    name: String,
    /// It is kept by a dependency of this very runtime.
    runtime: WeakRuntime,
}

/// How a dependency of these requests and responses is asked, whatever else it is.
pub(crate) struct StandIn<Q, R>(Box<dyn FnOnce(Q) -> FallbackFuture<R>>);

impl<Q: 'static, R: 'static> StandIn<Q, R> {
    /// A dependency's, for those who know what it is asked and answers.
    pub(crate) fn of<O: Dependency<Request = Q, Response = R>>(other: Client<O>) -> Box<dyn Any> {
        Box::new(Self(Box::new(|request| ask_other(other, request))))
    }
}

impl ByName {
    /// The dependency of this name in `runtime`.
    #[must_use]
    pub fn new(runtime: &Runtime, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            runtime: runtime.downgrade(),
        }
    }

    /// The dependency, if there is one; it may be asked other things than we need.
    fn find<Q: 'static, R: 'static>(&self) -> Option<Result<StandIn<Q, R>, String>> {
        let found = self.runtime.upgrade()?.stand_in(&self.name)?;
        let fits = found.downcast::<StandIn<Q, R>>();
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
            Some(Ok(StandIn(ask))) => return ask(request),
            Some(Err(problem)) => problem,
            None => format!("there is no dependency {}", self.name),
        };
        Box::pin(std::future::ready(Fallen::Failed(problem)))
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

/// The way on which `name` comes back to itself, as `a->b->a`, when it falls back on `first` and
/// the others on whom `falls_back_on` says.
pub(crate) fn circle(
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
