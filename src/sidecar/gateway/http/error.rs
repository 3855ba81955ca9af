//! Failures of attempts at an HTTP dependency, and their verdicts.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;

use breakerbox_policy::{Class, Executed, Symptom};

use super::connect_failure::ConnectFailure;
use super::error_body::ErrorBody;
use super::grpc;
use super::send_mark::SendMark;
use crate::CallError;
use crate::model::ModelErrorKind;
use crate::sidecar::gateway::message::HttpFailure;
use crate::{OpenAnswer, Verdict};

/// An attempt without a usable response.
#[derive(Debug)]
pub struct HttpError {
    pub(crate) failure: HttpFailure,
    /// The execution, where the sending knows more of it than the failure says.
    pub(crate) executed: Option<Executed>,
    /// The unsuccessful response, passed on if there is no other answer.
    pub(crate) said: Option<Box<ErrorResponse>>,
    pub(crate) retry_after: Option<Duration>,
    /// The finding of a model's dialect.
    pub(crate) model: Option<Box<ModelFailure>>,
}

impl ModelFailure {
    pub(crate) fn new(verdict: Verdict) -> Box<Self> {
        Box::new(Self {
            verdict,
            rejected: None,
            event: None,
        })
    }
}

/// A failure as the dialect of a model has it.
#[derive(Debug)]
pub(crate) struct ModelFailure {
    pub(crate) verdict: Verdict,
    /// The reason why it rejected a prompt that another model may answer.
    pub(crate) rejected: Option<ModelErrorKind>,
    /// The provider's error event with the bytes behind it, and true if the body ended there.
    pub(crate) event: Option<(Bytes, bool)>,
}

/// An unsuccessful response.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    pub(crate) head: Parts,
    pub(crate) body: ErrorBody,
}

/// Returns the verdict on an answer that declines the method.
pub(super) fn declined() -> Verdict {
    // EDGE-1: a caller chooses the method.
    Verdict::from(Class::Rejected).executed(Executed::No)
}

impl From<HttpFailure> for HttpError {
    fn from(failure: HttpFailure) -> Self {
        Self {
            failure,
            executed: None,
            said: None,
            retry_after: None,
            model: None,
        }
    }
}

impl HttpError {
    /// Returns the error of an attempt without an answer. `mark`: that of its sending.
    pub(super) fn of_sending(failure: HttpFailure, mark: &SendMark) -> Self {
        let mut error = Self::from(failure);
        error.executed = match error.verdict().executed {
            // CALL-2: the request that went out before may have been executed.
            Executed::No if mark.is_repeated() => Some(Executed::Maybe),
            // CALL-2: no connection has taken it.
            Executed::Maybe if !mark.has_sent() => Some(Executed::No),
            _ => None,
        };
        error
    }

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
        if let Some(model) = &self.model {
            return model.verdict;
        }
        let verdict = match self.failure {
            HttpFailure::Status(status) => {
                let verdict = Verdict::from(Symptom::Status(status));
                // FBK-2: no fallback covers what speaks of this caller, of any class.
                if speaks_of_caller(status) {
                    verdict.for_caller()
                } else {
                    verdict
                }
            }
            HttpFailure::Declined => declined(),
            HttpFailure::Grpc(code) => grpc::verdict(code),
            // EDGE-1: our own lack of descriptors is no fault of the dependency, nor is the end of a
            // connection that it has announced.
            HttpFailure::Connect(ConnectFailure::NoResources(_)) | HttpFailure::Leaving => {
                Verdict::from(Class::Cancelled).executed(Executed::No)
            }
            HttpFailure::Connect(ConnectFailure::Late(limit)) => {
                let verdict = Verdict::from(Symptom::Timeout).limited_by(limit);
                verdict.executed(Executed::No)
            }
            HttpFailure::Connect(_) => Verdict::from(Symptom::Connect),
            // CALL-2: the protocol promises that nothing was done.
            HttpFailure::Unprocessed => {
                Verdict::from(Symptom::Reset).executed(Executed::No)
            }
            // EDGE-1: the request's own body, or the moment of its sending, may be the reason.
            HttpFailure::UploadCut | HttpFailure::ClosedOnReuse => {
                Verdict::from(Class::Cancelled).executed(Executed::Maybe)
            }
            // EDGE-1: the dependency was not asked. It is our own lack of memory.
            HttpFailure::NoMemory => Verdict::from(Class::Cancelled).executed(Executed::No),
            HttpFailure::Unsent(_) => Verdict::from(Class::Rejected).executed(Executed::No),
            HttpFailure::Late(limit) => Verdict::from(Symptom::Timeout).limited_by(limit),
            HttpFailure::Content(failure) => match failure.limit() {
                // EDGE-8: the limit that cut is named.
                Some(limit) => Verdict::from(Symptom::Timeout).limited_by(limit),
                None => Verdict::from(Symptom::Reset),
            },
            HttpFailure::Reset | HttpFailure::Answer(_) | HttpFailure::TooLong => {
                Verdict::from(Symptom::Reset)
            }
            HttpFailure::BodyTooLarge(_)
            | HttpFailure::BodyTooSlow(_)
            | HttpFailure::BodyCut
            // Parts of the body may have reached the dependency.
            | HttpFailure::BodyGone => Verdict::from(Class::Rejected).executed(Executed::Maybe),
        };
        let verdict = match self.failure {
            // The status is told by itself.
            HttpFailure::Status(_) | HttpFailure::Declined | HttpFailure::Grpc(_) => verdict,
            failure => verdict.cause(failure.cause()),
        };
        let verdict = match self.executed {
            Some(executed) => verdict.executed(executed),
            None => verdict,
        };
        match self.retry_after {
            Some(wait) => verdict.retry_after(wait),
            None => verdict,
        }
    }
}

/// Returns true if an unsuccessful status speaks of the caller: of its credentials (401, 403, 407)
/// or of its request. The others may as well speak of the dependency or its state.
pub(crate) fn speaks_of_caller(status: u16) -> bool {
    matches!(status, 400..=499) && !matches!(status, 404 | 408 | 410 | 421 | 424 | 425 | 429)
}

impl fmt::Display for HttpError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(out)
    }
}

impl std::error::Error for HttpError {}

/// Returns the dependency's unsuccessful response, if that made the call fail.
pub(crate) fn said_by(error: CallError<HttpError>) -> Option<Box<ErrorResponse>> {
    match error {
        CallError::Failed { error, .. } => error.said.filter(|said| said.body.is_whole()),
        CallError::FallbackFailed { cause, .. } => said_by(*cause),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::super::request_body::Upload;
    use super::super::send_mark::MarkedBody;
    use super::*;
    use crate::AttemptProgress;

    #[test]
    fn call_2_the_sending_says_more_than_the_failure() {
        let verdict = |failure, mark: &SendMark| HttpError::of_sending(failure, mark).verdict();
        let executed = |failure, mark: &SendMark| verdict(failure, mark).executed;
        let lost = HttpFailure::Connect(ConnectFailure::CertificateDemanded);
        let mark = SendMark::begin(AttemptProgress::default());
        assert_eq!(executed(HttpFailure::Reset, &mark), Executed::No);
        assert!(MarkedBody::new(Upload::Whole(None), &mark).is_end_stream());
        assert_eq!(executed(HttpFailure::Reset, &mark), Executed::Maybe);
        assert_eq!(executed(HttpFailure::Unprocessed, &mark), Executed::No);
        mark.repeat();
        for failure in [HttpFailure::Unprocessed, HttpFailure::Leaving, lost] {
            assert_eq!(executed(failure, &mark), Executed::Maybe, "{failure:?}");
            // EDGE-1: the fault is the same as without the first request.
            let alone = HttpError::from(failure).verdict();
            assert_eq!(verdict(failure, &mark).class, alone.class, "{failure:?}");
        }
    }
}
