//! Failures of attempts at an HTTP dependency, and their verdicts.

use std::fmt;
use std::time::Duration;

use http::response::Parts;

use breakerbox_policy::{Class, Executed, Symptom};

use super::error_body::ErrorBody;
use crate::sidecar::gateway::message::HttpFailure;
use crate::{OpenAnswer, Verdict};

/// An attempt without a usable response.
#[derive(Debug)]
pub struct HttpError {
    pub(crate) failure: HttpFailure,
    /// The unsuccessful response, passed on if there is no other answer.
    pub(crate) said: Option<Box<ErrorResponse>>,
    pub(crate) retry_after: Option<Duration>,
}

/// An unsuccessful response.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    pub(crate) head: Parts,
    pub(crate) body: ErrorBody,
}

impl From<HttpFailure> for HttpError {
    fn from(failure: HttpFailure) -> Self {
        Self {
            failure,
            said: None,
            retry_after: None,
        }
    }
}

impl HttpError {
    /// Returns the reason.
    pub(crate) fn failure(&self) -> HttpFailure {
        self.failure
    }

    /// Returns the unsuccessful response while its rest still arrives.
    pub(crate) fn open_answer(&mut self) -> Option<&mut dyn OpenAnswer> {
        let said = self.said.as_mut().filter(|said| said.body.is_open());
        said.map(|said| &mut said.body as &mut dyn OpenAnswer)
    }

    /// Returns the verdict. The caller's errors do not count against the dependency.
    pub(crate) fn verdict(&self) -> Verdict {
        let verdict = match self.failure {
            HttpFailure::Status(status) => Verdict::from(Symptom::Status(status)),
            HttpFailure::Connect => Verdict::from(Symptom::Connect),
            HttpFailure::Late => Verdict::from(Symptom::Timeout),
            HttpFailure::Reset | HttpFailure::TooLong => Verdict::from(Symptom::Reset),
            HttpFailure::BodyTooLarge
            | HttpFailure::BodyTooSlow
            | HttpFailure::BodyCut
            // Parts of the body may have reached the dependency.
            | HttpFailure::BodyGone => Verdict::from(Class::Rejected).executed(Executed::Maybe),
        };
        match self.retry_after {
            Some(wait) => verdict.retry_after(wait),
            None => verdict,
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(out)
    }
}

impl std::error::Error for HttpError {}
