//! How an attempt at an HTTP dependency fails, and what that counts for.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;

use breakerbox_policy::{Class, Symptom};

use super::pool::Arriving;
use crate::Verdict;

/// An attempt that gave no answer that can be used.
#[derive(Debug)]
pub struct HttpError {
    pub(super) failure: Failure,
    /// What it said all the same: passed on when nobody else answers.
    pub(super) said: Option<Box<Said>>,
    pub(super) retry_after: Option<Duration>,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It answered with this status.
    Status(u16),
    /// There is no connection.
    Connect,
    /// The connection broke, or what came was no HTTP.
    Reset,
    /// It took too long to begin its answer, or to go on with it.
    Late,
    /// Its answer is longer than what is kept in one piece.
    TooLong,
    /// The caller's body is longer than allowed.
    BodyTooLarge,
    /// The caller sent its body too slowly.
    BodyTooSlow,
    /// The caller did not send all of its body.
    BodyCut,
    /// The body was passed on before, and there is none to send again.
    BodyGone,
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) head: Parts,
    pub(super) body: SaidBody,
}

#[derive(Debug)]
pub(super) enum SaidBody {
    Whole(Bytes),
    Rest(Arriving),
}

impl From<Failure> for HttpError {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            said: None,
            retry_after: None,
        }
    }
}

impl HttpError {
    /// What it counts for. What the caller did wrong is nothing of the dependency's.
    pub(super) fn verdict(&self) -> Verdict {
        let verdict = match self.failure {
            Failure::Status(status) => Verdict::from(Symptom::Status(status)),
            Failure::Connect => Verdict::from(Symptom::Connect),
            Failure::Late => Verdict::from(Symptom::Timeout),
            Failure::Reset | Failure::TooLong => Verdict::from(Symptom::Reset),
            Failure::BodyTooLarge | Failure::BodyTooSlow | Failure::BodyCut | Failure::BodyGone => {
                Verdict::from(Class::Rejected)
            }
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

/// No address and no word of a message stands in it: they may hold secrets.
impl fmt::Display for Failure {
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

impl std::error::Error for Failure {}
