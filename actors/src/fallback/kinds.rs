//! The other kinds of fallbacks: a fixed value, a function, a user's actor.

use std::fmt;
use std::future::Future;

use actix::{Message, Recipient};
use breakerbox_policy::Time;

use super::{Fallback, FallbackFuture, FallbackOutcome};
use crate::dependency::Dependency;
use crate::error::CallError;

/// Fallback that always gives the same answer.
#[derive(Debug, Clone)]
pub struct Fixed<T>(pub T);

impl<D: Dependency> Fallback<D> for Fixed<D::Response>
where
    D::Response: Clone + Sync,
{
    fn name(&self) -> &str {
        "fixed"
    }

    fn answer(
        &self,
        _: D::Request,
        _: &CallError<D::Error>,
        _: Time,
    ) -> FallbackFuture<D::Response> {
        let fallen = FallbackOutcome::Answer(self.0.clone(), None);
        Box::pin(std::future::ready(fallen))
    }
}

impl<D, F, W, E> Fallback<D> for F
where
    D: Dependency,
    F: Fn(D::Request, &CallError<D::Error>) -> W + Send + Sync + 'static,
    W: Future<Output = Result<D::Response, E>> + Send + 'static,
    E: fmt::Display,
{
    fn name(&self) -> &str {
        "function"
    }

    fn answer(
        &self,
        request: D::Request,
        why: &CallError<D::Error>,
        _: Time,
    ) -> FallbackFuture<D::Response> {
        let answer = self(request, why);
        Box::pin(async move {
            match answer.await {
                Ok(value) => FallbackOutcome::Answer(value, None),
                Err(error) => FallbackOutcome::failed(error.to_string()),
            }
        })
    }
}

/// The message to a user's fallback actor.
#[derive(Debug)]
pub struct FallbackCall<D: Dependency> {
    /// The request that got no primary answer.
    pub request: D::Request,
    /// The reason, as text.
    pub why: String,
}

impl<D: Dependency> Message for FallbackCall<D> {
    type Result = Result<D::Response, String>;
}

/// A user's own actor as a fallback.
pub struct ActorFallback<D: Dependency> {
    name: String,
    actor: Recipient<FallbackCall<D>>,
}

impl<D: Dependency> ActorFallback<D> {
    /// Makes a fallback from an actor, under the name shown in answers and events.
    #[must_use]
    pub fn new(name: impl Into<String>, actor: Recipient<FallbackCall<D>>) -> Self {
        Self {
            name: name.into(),
            actor,
        }
    }
}

impl<D: Dependency> Fallback<D> for ActorFallback<D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(
        &self,
        request: D::Request,
        why: &CallError<D::Error>,
        _: Time,
    ) -> FallbackFuture<D::Response> {
        let why = why.to_string();
        let asked = self.actor.send(FallbackCall { request, why });
        Box::pin(async move {
            match asked.await {
                Ok(Ok(value)) => FallbackOutcome::Answer(value, None),
                Ok(Err(message)) => FallbackOutcome::failed(message),
                Err(_closed) => FallbackOutcome::failed("the fallback actor is gone"),
            }
        })
    }
}

impl<D: Dependency> fmt::Debug for ActorFallback<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ActorFallback")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
