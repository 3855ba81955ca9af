//! One answer of an HTTP dependency as a stream: its head, then what follows.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::response::Parts;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use breakerbox_policy::{Class, ClassifySettings, Symptom};

use super::failure::{Failure, HttpError, Said, SaidBody};
use super::headers::strip_one_hop;
use super::pool::Arriving;
use super::trace::AttemptSpan;
use crate::hint;

/// An answer that is no success is read as a whole up to here, so that its connection stays good
/// and hints in it are found.
const MAX_SAID: u64 = 64_000;

/// An answer as it comes.
pub(super) struct Exchange {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    head: Option<Parts>,
    body: Arriving,
    span: Option<AttemptSpan>,
}

/// A part of an answer.
pub(super) enum Piece {
    Head(Parts),
    Frame(Frame<Bytes>),
}

impl Exchange {
    /// Takes an answer whose head has come.
    ///
    /// # Errors  It is one that may be tried again or that fallbacks may stand in for, by the
    /// classes of the settings.
    pub(super) async fn begin(
        answered: Response<Arriving>,
        classify: impl FnOnce(Symptom) -> Class,
        span: Option<AttemptSpan>,
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
                retry_after: hint::read(&head.headers, None),
                head: Some(head),
                body,
                span,
            });
        }
        let is_short = body
            .size_hint()
            .upper()
            .is_some_and(|most| most <= MAX_SAID);
        let body = if is_short {
            let whole = body.collect().await.map_err(|_| Failure::Reset)?;
            SaidBody::Whole(whole.to_bytes())
        } else {
            SaidBody::Rest(body)
        };
        let read = match &body {
            SaidBody::Whole(body) => Some(&body[..]),
            SaidBody::Rest(_) => None,
        };
        Err(HttpError {
            failure: Failure::Status(status.as_u16()),
            retry_after: hint::read(&head.headers, read),
            said: Some(Box::new(Said { head, body })),
        })
    }

    /// Whether nothing follows any more.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Stream for Exchange {
    type Item = Result<Piece, HttpError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(head) = this.head.take() {
            return Poll::Ready(Some(Ok(Piece::Head(head))));
        }
        Pin::new(&mut this.body).poll_frame(cx).map(|frame| {
            let frame = frame?;
            if let (Err(_), Some(span)) = (&frame, &mut this.span) {
                span.broke_off();
            }
            Some(frame.map(Piece::Frame).map_err(|_| Failure::Reset.into()))
        })
    }
}

/// The classes as the settings have them.
pub(super) fn by(settings: &ClassifySettings) -> impl FnOnce(Symptom) -> Class + '_ {
    |symptom| settings.class_of(symptom)
}
