//! Another HTTP dependency as a fallback: it gets the request without its credentials.

use std::fmt;

use breakerbox_policy::Time;

use super::dependency::HttpDependency;
use super::error::HttpError;
use crate::sidecar::gateway::credentials;
use crate::sidecar::gateway::message::{HttpReply, HttpRequest};
use crate::{ByName, CallError, Fallback, FallbackFuture};

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
            request.changed(target, credentials::strip)
        };
        Fallback::<HttpDependency>::answer(&self.other, request, why, now)
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
