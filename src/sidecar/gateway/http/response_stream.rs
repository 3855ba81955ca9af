//! A response of an HTTP dependency as a stream: its head, then its body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::response::Parts;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use breakerbox_policy::{Class, ClassifySettings, Symptom};

use super::error::{ErrorResponse, HttpError};
use super::error_body::{ErrorBody, failure_of};
use super::pool::PooledBody;
use crate::buffer_budget::BufferBudget;
use crate::retry_after;
use crate::sidecar::gateway::headers::strip_one_hop;
use crate::sidecar::gateway::message::HttpFailure;
use crate::sidecar::gateway::trace::AttemptSpan;

/// A response as it arrives.
pub(crate) struct ResponseStream {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    head: Option<Parts>,
    body: PooledBody,
    span: Option<AttemptSpan>,
}

/// A part of a response.
pub(crate) enum ResponsePiece {
    Head(Parts),
    Frame(Frame<Bytes>),
}

impl ResponseStream {
    /// Accepts a response once its head has arrived. `ahead`: the time that the attempt
    /// has left, and the budget for the part that is read ahead.
    ///
    /// # Errors  The settings class the response as one that may be retried or answered by a
    /// fallback.
    pub(crate) async fn begin(
        answered: Response<PooledBody>,
        classify: impl FnOnce(Symptom) -> Class,
        (span, ahead): (Option<AttemptSpan>, (Option<Duration>, &BufferBudget)),
    ) -> Result<Self, HttpError> {
        let (mut head, body) = answered.into_parts();
        strip_one_hop(&mut head.headers);
        let status = head.status;
        if status.as_u16() < 400 {
            return Ok(Self {
                status,
                retry_after: None,
                head: Some(head),
                body,
                span,
            });
        }
        let failed = match classify(Symptom::Status(status.as_u16())) {
            Class::Failure | Class::Throttled | Class::Misconfigured => true,
            Class::Success | Class::Rejected | Class::Cancelled => false,
        };
        if !failed {
            return Ok(Self {
                status,
                retry_after: retry_after::read(status.as_u16(), &head.headers, None),
                head: Some(head),
                body,
                span,
            });
        }
        let body = ErrorBody::read_ahead(&head, body, ahead).await;
        Err(HttpError {
            failure: failure_of(&head),
            retry_after: body.hint(&head),
            said: Some(Box::new(ErrorResponse { head, body })),
        })
    }

    /// Returns true if nothing follows.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Stream for ResponseStream {
    type Item = Result<ResponsePiece, HttpError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(head) = this.head.take() {
            return Poll::Ready(Some(Ok(ResponsePiece::Head(head))));
        }
        Pin::new(&mut this.body).poll_frame(cx).map(|frame| {
            let frame = frame?;
            if let (Err(_), Some(span)) = (&frame, &mut this.span) {
                span.broke_off();
            }
            Some(
                frame
                    .map(ResponsePiece::Frame)
                    .map_err(|_| HttpFailure::Reset.into()),
            )
        })
    }
}

/// Classifies a symptom by the settings.
pub(crate) fn by(settings: &ClassifySettings) -> impl FnOnce(Symptom) -> Class + '_ {
    |symptom| settings.class_of(symptom)
}
