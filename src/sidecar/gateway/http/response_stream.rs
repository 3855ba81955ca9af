//! A response of an HTTP dependency as a stream: its head, then its body.

mod content;

mod content_watch;

mod read_ahead;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::response::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use breakerbox_policy::{Class, ClassifySettings, Symptom};

pub(crate) use content::ModelReading;

use content::ModelBody;

use super::answer_fault::DeclinedMethod;
use super::dependency::of_status;
use super::error::{ErrorResponse, HttpError, declined};
use super::error_body::{ErrorBody, failure_of};
use super::grpc::GrpcAnswer;
use super::pool::PooledBody;
use super::tunnel::TunnelStream;
use super::upgrade;
use crate::buffer_budget::BufferBudget;
use crate::sidecar::gateway::headers::strip_answer;
use crate::sidecar::gateway::message::HttpFailure;
use crate::sidecar::gateway::trace::AttemptSpan;
use crate::{CallError, Streamed, Verdict, retry_after};

/// Length of an answer that the system's buffers take even if the caller does not read.
const BUFFERED: u64 = 64_000;

/// A response as it arrives.
pub(crate) struct ResponseStream {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    head: Option<Parts>,
    body: PooledBody,
    /// The status of an answer of gRPC.
    grpc: Option<GrpcAnswer>,
    /// The bytes behind the head, in place of a body, if the connection has changed its protocol.
    tunnel: Option<TunnelStream>,
    span: Option<AttemptSpan>,
    /// The answer of a model.
    model: Option<Box<ModelBody>>,
    /// True if it declines a method that only this caller wanted.
    declines_method: bool,
}

/// A part of a response.
pub(crate) enum ResponsePiece {
    Head(Parts),
    Frame(Frame<Bytes>),
}

impl ResponseStream {
    /// Accepts a response once its head has arrived. `ahead`: the time that
    /// the attempt has left, and the budget for the part that is read ahead.
    ///
    /// # Errors  The settings class the response as one that may be retried or answered by a
    /// fallback.
    pub(crate) async fn begin(
        mut answered: Response<PooledBody>,
        classify: impl FnOnce(Symptom) -> Class,
        (span, ahead): (Option<AttemptSpan>, (Option<Duration>, &BufferBudget)),
    ) -> Result<Self, HttpError> {
        let switched = upgrade::switched(&mut answered);
        let (mut head, body) = answered.into_parts();
        strip_answer(&mut head);
        let tunnel = switched.map(|(connection, protocol)| {
            upgrade::name_in(&mut head.headers, protocol);
            TunnelStream::new(connection)
        });
        let (status, grpc) = (head.status, GrpcAnswer::of(&head));
        let symptom = match &grpc {
            Some(grpc) => grpc.symptom(),
            None => (status.as_u16() >= 400).then_some(Symptom::Status(status.as_u16())),
        };
        let declines_method = head.extensions.get::<DeclinedMethod>().is_some();
        let failed = match symptom.filter(|_| !declines_method).map(classify) {
            Some(Class::Failure | Class::Throttled | Class::Misconfigured) => true,
            None | Some(Class::Success | Class::Rejected | Class::Cancelled) => false,
        };
        let retry_after = match status.as_u16() {
            status @ 400.. => retry_after::read(status, &head.headers, None),
            _ => None,
        };
        let this = Self {
            status,
            retry_after,
            head: Some(head),
            body,
            grpc,
            tunnel,
            span,
            model: None,
            declines_method,
        };
        if failed {
            return Err(this.into_error(ahead).await);
        }
        Ok(this)
    }

    /// Accepts the answer of a model once its first content has arrived, or once it is whole.
    ///
    /// # Errors  It is an error, or none at all.
    pub(crate) async fn begin_model(
        answered: Response<PooledBody>,
        reading: &ModelReading<'_>,
        span: Option<AttemptSpan>,
    ) -> Result<Self, HttpError> {
        let (mut head, body) = answered.into_parts();
        strip_answer(&mut head);
        let (model, body) = content::read(&mut head, body, reading).await?;
        let mut span = span;
        if let (Some(span), Some(figures)) = (&mut span, model.whole_figures()) {
            span.generated(figures);
        }
        Ok(Self {
            status: head.status,
            retry_after: None,
            head: Some(head),
            body,
            grpc: None,
            tunnel: None,
            span,
            model: Some(Box::new(model)),
            declines_method: false,
        })
    }

    /// Returns true if it is a stream of a model's content.
    pub(crate) fn is_content(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.is_watched())
    }

    /// Returns true if content has come for this long.
    pub(crate) fn has_content_for(&self, span: Duration) -> bool {
        let model = self.model.as_ref();
        model.is_some_and(|model| model.has_content_for(span))
    }

    /// Returns the number of the next event of a stream, and true if it stands between two events;
    /// `None` if no event can be added.
    pub(crate) fn event_place(&self) -> Option<(u64, bool)> {
        self.model.as_ref()?.place()
    }

    /// Turns a response into an error: the call has no usable answer. Only before the head
    /// is taken. `ahead`: the time that the attempt has left, and the budget of what is kept.
    pub(crate) async fn into_error(self, ahead: (Option<Duration>, &BufferBudget)) -> HttpError {
        let Some(head) = self.head else {
            return HttpFailure::Reset.into();
        };
        if let Some(model) = self.model {
            return model.into_error(head, self.body);
        }
        let body = ErrorBody::read_ahead(&head, self.body, ahead).await;
        let (failure, retry_after) = match self.grpc.and_then(|grpc| Some((grpc, grpc.error()?))) {
            Some((grpc, code)) => (HttpFailure::Grpc(code), grpc.retry_after()),
            None => (failure_of(&head), body.hint(&head)),
        };
        HttpError {
            failure,
            executed: None,
            retry_after,
            model: None,
            said: Some(Box::new(ErrorResponse { head, body })),
        }
    }

    /// Returns true if the dependency says that it has no answer.
    pub(crate) fn is_error(&self) -> bool {
        let has_error = self.grpc.is_some_and(|grpc| grpc.error().is_some());
        self.status.as_u16() >= 400 || has_error
    }

    /// Returns the verdict on a response that has ended.
    fn verdict(&self) -> Verdict {
        if let Some(model) = &self.model {
            return model.verdict();
        }
        match &self.grpc {
            Some(grpc) => grpc.verdict(),
            None if self.declines_method => declined(),
            None => of_status(self.status, self.retry_after),
        }
    }

    /// Returns the tunnel of a response that changes the protocol.
    pub(super) fn tunnel(&self) -> Option<&TunnelStream> {
        self.tunnel.as_ref()
    }

    /// Returns true if no content follows. The end of the stream, or trailers, may still be to come.
    pub(crate) fn is_over(&self) -> bool {
        let is_passed = self.model.as_ref().is_none_or(|model| model.is_passed());
        // EDGE-1: in HTTP/2 the end may come in a frame of its own, behind all bytes of the length.
        is_passed && (self.body.is_end_stream() || self.size_hint().exact() == Some(0))
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        match &self.model {
            Some(model) => model.size_hint(&rest),
            None => rest,
        }
    }

    /// Returns true if its end may come late because the caller reads slowly. The result of gRPC comes
    /// with the end only.
    pub(crate) fn may_wait_for_caller(&self) -> bool {
        let is_long = self.size_hint().upper().is_none_or(|most| most > BUFFERED);
        is_long && self.grpc.is_none()
    }
}

impl Stream for ResponseStream {
    type Item = Result<ResponsePiece, HttpError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(head) = this.head.take() {
            return Poll::Ready(Some(Ok(ResponsePiece::Head(head))));
        }
        if let Some(tunnel) = &mut this.tunnel {
            let piece = |()| ResponsePiece::Frame(Frame::data(Bytes::new()));
            let moved = tunnel.poll_next(cx);
            return moved.map(|moved| Some(moved?.map(piece).map_err(HttpError::from)));
        }
        if let Some(model) = &mut this.model {
            let piece = ready!(model.poll_next(&mut this.body, cx));
            if let Some(span) = this.span.as_mut().filter(|_| !matches!(piece, Some(Ok(_)))) {
                if piece.is_some() {
                    span.broke_off();
                }
                model
                    .stream_figures()
                    .into_iter()
                    .for_each(|figures| span.generated(figures));
            }
            let frame = |piece| ResponsePiece::Frame(Frame::data(piece));
            return Poll::Ready(piece.map(|piece| piece.map(frame)));
        }
        Pin::new(&mut this.body).poll_frame(cx).map(|frame| {
            let frame = frame?;
            if let (Some(grpc), Ok(frame)) = (&mut this.grpc, &frame)
                && let Some(trailers) = frame.trailers_ref()
            {
                grpc.read(trailers);
            }
            if let (Err(_), Some(span)) = (&frame, &mut this.span) {
                span.broke_off();
            }
            Some(
                frame
                    .map(ResponsePiece::Frame)
                    .map_err(|error| HttpFailure::of_body(&error).into()),
            )
        })
    }
}

/// Returns true if a response has no content, also if its head names a length.
///
/// # Source  RFC 9110, section 6.4.1.
pub(crate) fn has_no_content(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Waits for the end of a response of which no content is to come, and returns its trailers.
pub(crate) async fn end_of(
    stream: &mut Streamed<ResponseStream>,
) -> Result<Option<HeaderMap>, CallError<HttpError>> {
    let mut trailers = None;
    while let Some(piece) = stream.next().await {
        let ResponsePiece::Frame(frame) = piece? else {
            continue;
        };
        if frame.data_ref().is_some_and(|data| !data.is_empty()) {
            // Its server breaks the rules, and may do so without an end.
            break;
        }
        trailers = frame.into_trailers().ok().or(trailers);
    }
    Ok(trailers)
}

/// Returns the verdict on a response that has ended, or on an attempt without one.
pub(crate) fn verdict(result: Result<&ResponseStream, &HttpError>) -> Verdict {
    match result {
        Ok(response) => response.verdict(),
        Err(error) => error.verdict(),
    }
}

/// Classifies a symptom by the settings.
pub(crate) fn by(settings: &ClassifySettings) -> impl FnOnce(Symptom) -> Class + '_ {
    |symptom| settings.class_of(symptom)
}
