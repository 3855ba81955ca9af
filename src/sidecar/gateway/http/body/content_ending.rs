//! The end of a model's stream where its provider has not ended it: an error in the dialect's words.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Executed;
use bytes::{Bytes, BytesMut};

use crate::model::{ApiShape, ModelProblem, error_event};
use crate::sidecar::gateway::http::error::HttpError;
use crate::sidecar::gateway::http::response_stream::ResponseStream;
use crate::sidecar::gateway::problem::code_and_status;
use crate::{CallError, Streamed};

/// A stream of a model, as it is passed on.
pub(crate) struct ContentEnding {
    shape: ApiShape,
    dependency: Arc<str>,
    may_retry: bool,
    /// Time of content after which a probe is good; `None` once it is told.
    probe: Option<Duration>,
    /// Number of the next event, and true if it stands between two events; `None` if no event can be
    /// added.
    place: Option<(u64, bool)>,
}

/// The last piece of a stream that failed, and true if the body ends with it as it should.
pub(super) struct LastPiece {
    pub(super) bytes: Bytes,
    pub(super) is_whole: bool,
}

impl ContentEnding {
    pub(crate) fn new(
        shape: ApiShape,
        dependency: &Arc<str>,
        (may_retry, probe): (bool, Duration),
    ) -> Self {
        Self {
            shape,
            dependency: Arc::clone(dependency),
            may_retry,
            probe: Some(probe),
            place: None,
        }
    }

    /// Notes how far the stream has come.
    pub(super) fn note(&mut self, stream: &mut Streamed<ResponseStream>) {
        let Some(response) = stream.get_ref() else {
            return;
        };
        self.place = response.event_place();
        // LLM-7: the head of a stream says nothing of a probe.
        if self
            .probe
            .is_some_and(|span| response.has_content_for(span))
        {
            self.probe = None;
            stream.probe_succeeded();
        }
    }

    /// Returns the last piece of a stream that failed. `last`: a piece that was held back.
    pub(super) fn of(&self, error: &CallError<HttpError>, last: Option<Bytes>) -> LastPiece {
        let mut bytes = BytesMut::from(last.unwrap_or_default().as_ref());
        let event = match error {
            CallError::Failed { error, .. } => {
                error.model.as_ref().and_then(|model| model.event.as_ref())
            }
            _ => None,
        };
        if let Some((event, is_whole)) = event {
            // LLM-8: the provider's own words, as they came.
            bytes.extend_from_slice(event);
            return LastPiece {
                bytes: bytes.freeze(),
                is_whole: *is_whole,
            };
        }
        let Some((sequence, is_between)) = self.place else {
            // Its break tells the caller.
            return LastPiece {
                bytes: bytes.freeze(),
                is_whole: false,
            };
        };
        let (code, status) = code_and_status(error);
        let message = format!("{}: the answer broke off: {error}", self.dependency);
        let problem = ModelProblem {
            status: status.as_u16(),
            code,
            message: &message,
            dependency: Some(&self.dependency),
            state: None,
            executed: Executed::Maybe,
            retry_after: None,
            may_retry: self.may_retry,
        };
        if !is_between && self.shape != ApiShape::ContentArray {
            bytes.extend_from_slice(b"\n\n");
        }
        // LLM-8: an error, and no end of ours.
        bytes.extend_from_slice(error_event(self.shape, &problem, sequence).as_bytes());
        LastPiece {
            bytes: bytes.freeze(),
            is_whole: false,
        }
    }
}
