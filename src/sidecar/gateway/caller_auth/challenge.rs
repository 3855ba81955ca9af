//! The answers to callers without valid credentials.
//!
//! They say which kind of mistake it was, and never repeat anything of a token.

use std::fmt::Write as _;

use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderValue, Response};

use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::problem::{GatewayProblem, ProblemKind};

/// Reason why a caller is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthRefusal {
    /// It presents no bearer token.
    Missing,
    /// Its token is not valid, for this reason.
    Invalid(&'static str),
    /// Its token lacks a scope.
    Scope,
    /// No key of the issuer is known so far.
    NoKeys,
}

impl AuthRefusal {
    /// Builds the response. `link`: address of the resource's metadata.
    ///
    /// # Source  RFC 6750, section 3; RFC 9728, section 5.1.
    pub(super) fn into_response(
        self,
        name: Option<&str>,
        link: Option<&str>,
        scopes: &[String],
    ) -> Response<ReplyBody> {
        let (kind, detail, error) = match self {
            Self::Missing => (
                ProblemKind::UNAUTHORIZED,
                "the request has no bearer token; send authorization: Bearer …",
                None,
            ),
            Self::Invalid(why) => (ProblemKind::UNAUTHORIZED, why, Some("invalid_token")),
            Self::Scope => (
                ProblemKind::NO_SCOPE,
                "the token lacks a scope that this dependency needs",
                Some("insufficient_scope"),
            ),
            Self::NoKeys => (
                ProblemKind::NO_KEYS,
                "the token cannot be checked: no key of its issuer could be read so far",
                None,
            ),
        };
        let mut response = GatewayProblem::of(kind, name, detail).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self == Self::NoKeys {
            return response;
        }
        let mut challenge = "Bearer realm=\"breakerbox\"".to_owned();
        let mut add = |name: &str, value: &str| {
            // Writing into a string cannot fail.
            let _ = write!(challenge, ", {name}=\"{value}\"");
        };
        if let Some(error) = error {
            add("error", error);
            add("error_description", detail);
        }
        if !scopes.is_empty() {
            add("scope", &scopes.join(" "));
        }
        if let Some(link) = link {
            add("resource_metadata", link);
        }
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
