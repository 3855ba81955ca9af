//! Failures of attempts at an HTTP dependency, and their verdicts.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;

use breakerbox_policy::{Class, Symptom};

use super::pool::PooledBody;
use crate::Verdict;

/// An attempt without a usable response.
#[derive(Debug)]
pub struct HttpError {
    pub(crate) failure: HttpFailure,
    /// The unsuccessful response, passed on if there is no other answer.
    pub(crate) said: Option<Box<ErrorResponse>>,
    pub(crate) retry_after: Option<Duration>,
}

/// The reason for a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpFailure {
    /// It responded with this status.
    Status(u16),
    /// No connection could be made.
    Connect,
    /// The connection broke, or the response was not HTTP.
    Reset,
    /// The response did not begin, or did not continue, in time.
    Late,
    /// The response is too long to be buffered.
    TooLong,
    /// The caller's body is longer than allowed.
    BodyTooLarge,
    /// The caller sent its body too slowly.
    BodyTooSlow,
    /// The caller did not send all of its body.
    BodyCut,
    /// The body was streamed before, and cannot be sent again.
    BodyGone,
}

/// An unsuccessful response.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    pub(crate) head: Parts,
    pub(crate) body: ErrorBody,
}

#[derive(Debug)]
pub(crate) enum ErrorBody {
    Whole(Bytes),
    Rest(PooledBody),
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
            | HttpFailure::BodyGone => Verdict::from(Class::Rejected),
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

/// Contains no address and no part of a message: they may hold secrets.
impl fmt::Display for HttpFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Status(status) => return write!(out, "it answered {status}"),
            Self::Connect => "no connection",
            Self::Reset => "the connection broke",
            Self::Late => "nothing came in time",
            Self::TooLong => "its answer is too long to be kept in one piece",
            Self::BodyTooLarge => "the request's body is longer than allowed",
            Self::BodyTooSlow => "the request's body came too slowly",
            Self::BodyCut => "the request's body was cut off",
            Self::BodyGone => "the request's body was passed on and cannot be sent again",
        })
    }
}

impl std::error::Error for HttpError {}

impl std::error::Error for HttpFailure {}
