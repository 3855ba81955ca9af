//! Another HTTP dependency as a fallback: it gets the request without its credentials.
//!
//! For a caller of the gateway, the task of the caller calls it, so that its answer is passed on as it
//! arrives. Else a worker does.

use std::fmt;

use breakerbox_policy::Time;
use tokio::sync::oneshot;

use super::dependency::HttpDependency;
use super::error::HttpError;
use crate::model::without_key_in_query;
use crate::sidecar::gateway::credentials;
use crate::sidecar::gateway::message::{HttpReply, HttpRequest, SubstituteCall, SubstituteResult};
use crate::{ByName, CallError, Fallback, FallbackFuture, FallbackOutcome};

/// Another dependency that answers in place of this one.
pub(crate) struct SubstituteDependency {
    other: ByName,
    /// True if it may see the credentials of callers.
    is_trusted: bool,
}

impl SubstituteDependency {
    pub(crate) fn new(other: ByName, is_trusted: bool) -> Self {
        Self { other, is_trusted }
    }
}

impl Fallback<HttpDependency> for SubstituteDependency {
    fn name(&self) -> &str {
        Fallback::<HttpDependency>::name(&self.other)
    }

    fn answer(
        &self,
        request: HttpRequest,
        why: &CallError<HttpError>,
        now: Time,
    ) -> FallbackFuture<HttpReply> {
        let request = if self.is_trusted {
            request
        } else {
            // EDGE-2: credentials are meant for the service that the caller has named, no other.
            let target = credentials::without_secrets(request.target());
            // LLM-14: Google's key has a name that others give to plain values.
            let target = match request.model_call() {
                Some(_) => without_key_in_query(&target).into_owned(),
                None => target,
            };
            request.changed(target, credentials::strip)
        };
        let asked = request.substitutes().and_then(|way| {
            let (reply, answer) = oneshot::channel();
            let call = SubstituteCall {
                name: Fallback::<HttpDependency>::name(&self.other).to_owned(),
                request: request.clone(),
                reply,
            };
            way.send(call).ok().map(|()| answer)
        });
        let request = request.with_substitutes(None);
        let by_worker = Fallback::<HttpDependency>::answer(&self.other, request, why, now);
        let Some(answer) = asked else {
            return by_worker;
        };
        Box::pin(async move {
            match answer.await {
                // EDGE-3: the answer stays with the caller's task, which streams it.
                Ok(SubstituteResult::Answered(age)) => {
                    FallbackOutcome::Answer(HttpReply::elsewhere(), age)
                }
                Ok(SubstituteResult::Failed(message, executed)) => {
                    FallbackOutcome::Failed { message, executed }
                }
                Ok(SubstituteResult::Unknown) => by_worker.await,
                // The caller is gone.
                Err(_) => FallbackOutcome::Nothing,
            }
        })
    }

    fn has_own_limits(&self) -> bool {
        true
    }

    fn depends_on(&self) -> Option<&str> {
        Fallback::<HttpDependency>::depends_on(&self.other)
    }

    fn problem(&self) -> Option<String> {
        Fallback::<HttpDependency>::problem(&self.other)
    }
}

impl fmt::Debug for SubstituteDependency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SubstituteDependency")
            .field("other", &self.other)
            .field("is_trusted", &self.is_trusted)
            .finish()
    }
}
