//! A fallback of a language model, for the ends of calls that its configuration names.
//!
//! The runtime knows no prompts that are too long or filtered: here they are told apart.

use std::fmt;

use breakerbox_policy::Time;

use super::dependency::HttpDependency;
use super::error::HttpError;
use crate::config::FallbackOn;
use crate::model::ModelErrorKind;
use crate::sidecar::gateway::message::{HttpReply, HttpRequest};
use crate::{CallError, Fallback, FallbackFuture, FallbackOutcome, RefreshGuard};

/// A fallback that serves these ends only.
pub(crate) struct ModelFallback<F> {
    inner: F,
    on: Vec<FallbackOn>,
}

impl<F> ModelFallback<F> {
    pub(crate) fn new(inner: F, on: &[FallbackOn]) -> Self {
        Self {
            inner,
            on: on.to_vec(),
        }
    }
}

/// Returns the end of a call.
fn end_of(why: &CallError<HttpError>) -> FallbackOn {
    let rejected = match why {
        CallError::Failed { error, .. } => error.model.as_ref().and_then(|model| model.rejected),
        _ => None,
    };
    match rejected {
        Some(ModelErrorKind::TooLong) => FallbackOn::TooLong,
        Some(_) => FallbackOn::Filtered,
        None if why.is_refusal() => FallbackOn::Refused,
        None => FallbackOn::Failed,
    }
}

impl<F: Fallback<HttpDependency>> Fallback<HttpDependency> for ModelFallback<F> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn answer(
        &self,
        request: HttpRequest,
        why: &CallError<HttpError>,
        now: Time,
    ) -> FallbackFuture<HttpReply> {
        // LLM-17: another model may answer such a prompt where the configuration says so.
        if !self.on.contains(&end_of(why)) {
            return Box::pin(async { FallbackOutcome::Nothing });
        }
        self.inner.answer(request, why, now)
    }

    fn remember(&self, request: &HttpRequest, response: &HttpReply, now: Time) {
        self.inner.remember(request, response, now);
    }

    fn refresh_guard(&self, request: &HttpRequest) -> Option<RefreshGuard> {
        self.inner.refresh_guard(request)
    }

    fn depends_on(&self) -> Option<&str> {
        self.inner.depends_on()
    }

    fn problem(&self) -> Option<String> {
        self.inner.problem()
    }

    fn has_own_limits(&self) -> bool {
        self.inner.has_own_limits()
    }
}

impl<F> fmt::Debug for ModelFallback<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ModelFallback")
            .field("on", &self.on)
            .finish_non_exhaustive()
    }
}
