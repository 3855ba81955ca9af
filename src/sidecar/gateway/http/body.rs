//! Response bodies: complete ones, and those that are streamed as they arrive.
//!
//! A body that breaks off is an error of the body. The caller's connection is then cut too, so that
//! no caller takes a part for the whole.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream as _;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::cache::CacheWriter;
use super::pool::PooledBody;
use super::response_stream::{ResponsePiece, ResponseStream};
use breakerbox_policy::RoundedDuration;

use crate::Streamed;
use crate::sidecar::gateway::activity::RequestActivity;
use crate::sidecar::gateway::trace::RequestSpan;

/// The body of a response to a caller.
pub(crate) struct ReplyBody {
    kind: BodyKind,
    /// Reports the caller's progress to the connection's timer.
    waiting: Option<RequestActivity>,
    /// The request's span, which ends with the body.
    span: Option<RequestSpan>,
}

enum BodyKind {
    Whole(Option<Bytes>),
    Relayed(Box<RelayedBody>),
    Rest(Box<RemainingBody>),
    Ours(OwnBody),
}

/// A response made by the gateway itself, possibly a stream.
type OwnBody = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// The response broke off after its head had been sent.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub(crate) struct TruncatedBody(String);

/// A response of the dependency, streamed under its breaker.
struct RelayedBody {
    stream: Streamed<ResponseStream>,
    keeping: Option<CacheWriter>,
    hint: SizeHint,
    /// The last piece, held back until the outcome of the call is recorded (rule CALL-3).
    last: Option<Frame<Bytes>>,
    ended: bool,
}

/// The rest of an unsuccessful response. Its outcome is recorded already.
struct RemainingBody {
    body: PooledBody,
    idle: Option<Duration>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ReplyBody {
    pub(crate) fn whole(body: Bytes) -> Self {
        Self::of(BodyKind::Whole((!body.is_empty()).then_some(body)))
    }

    pub(crate) fn relayed(stream: Streamed<ResponseStream>, keeping: Option<CacheWriter>) -> Self {
        let hint = stream.get_ref().map(ResponseStream::size_hint);
        Self::of(BodyKind::Relayed(Box::new(RelayedBody {
            stream,
            keeping,
            hint: hint.unwrap_or_default(),
            last: None,
            ended: false,
        })))
    }

    pub(crate) fn rest(body: PooledBody, idle: Option<Duration>) -> Self {
        Self::of(BodyKind::Rest(Box::new(RemainingBody {
            body,
            idle,
            alarm: None,
        })))
    }

    pub(crate) fn ours(body: OwnBody) -> Self {
        Self::of(BodyKind::Ours(body))
    }

    fn of(kind: BodyKind) -> Self {
        Self {
            kind,
            waiting: None,
            span: None,
        }
    }

    /// Attaches the span of the request.
    pub(crate) fn traced(mut self, span: RequestSpan) -> Self {
        self.span = Some(span);
        self
    }

    /// Attaches the connection's timer.
    pub(crate) fn watched(mut self, waiting: RequestActivity) -> Self {
        self.waiting = Some(waiting);
        self
    }
}

type PolledFrame = Poll<Option<Result<Frame<Bytes>, TruncatedBody>>>;

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = TruncatedBody;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let this = self.get_mut();
        if let Some(waiting) = &mut this.waiting {
            waiting.asked();
        }
        let frame = ready!(match &mut this.kind {
            BodyKind::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            BodyKind::Relayed(relayed) => relayed.poll_frame(cx),
            BodyKind::Rest(rest) => rest.poll_frame(cx),
            BodyKind::Ours(ours) => Pin::new(ours)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        });
        if let (Some(waiting), Some(Ok(_))) = (&mut this.waiting, &frame) {
            waiting.given();
        }
        if let (Some(span), Some(Err(_))) = (&mut this.span, &frame) {
            span.broke_off();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Whole(body) => body.is_none(),
            BodyKind::Relayed(relayed) => relayed.ended && relayed.last.is_none(),
            BodyKind::Rest(rest) => rest.body.is_end_stream(),
            BodyKind::Ours(ours) => ours.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64)
            }
            BodyKind::Relayed(relayed) => relayed.hint,
            BodyKind::Rest(rest) => rest.body.size_hint(),
            BodyKind::Ours(ours) => ours.size_hint(),
        }
    }
}

impl RelayedBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if self.ended {
            return Poll::Ready(self.last.take().map(Ok));
        }
        if self.last.is_none() {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                None => {
                    self.end();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.cut(&error)))),
                Some(Ok(piece)) => {
                    let frame = match piece {
                        ResponsePiece::Frame(frame) => frame,
                        // The head is taken before the body is read.
                        ResponsePiece::Head(_) => Frame::data(Bytes::new()),
                    };
                    if let (Some(keeping), Some(data)) = (&mut self.keeping, frame.data_ref()) {
                        keeping.add(data);
                    }
                    let is_last = self.stream.get_ref().is_none_or(ResponseStream::is_over);
                    if !is_last {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    self.last = Some(frame);
                }
            }
        }
        // A reader that knows the length does not poll after the last piece. The end of the stream,
        // and with it the outcome, would never be recorded.
        match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            None => {
                self.end();
                Poll::Ready(self.last.take().map(Ok))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(self.cut(&error)))),
            Some(Ok(ResponsePiece::Frame(next))) => {
                let frame = self.last.replace(next);
                Poll::Ready(frame.map(Ok))
            }
            Some(Ok(ResponsePiece::Head(_))) => Poll::Ready(self.last.take().map(Ok)),
        }
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(keeping) = self.keeping.take() {
            keeping.keep();
        }
    }

    fn cut(&mut self, error: &crate::CallError<super::error::HttpError>) -> TruncatedBody {
        self.ended = true;
        self.keeping = None;
        self.last = None;
        TruncatedBody(error.to_string())
    }
}

impl RemainingBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.alarm = None;
            let cut = |_| TruncatedBody("the connection broke".to_owned());
            return Poll::Ready(frame.map(|frame| frame.map_err(cut)));
        }
        let Some(idle) = self.idle else {
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(idle)));
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Some(Err(TruncatedBody(format!(
            "nothing arrived for {}",
            RoundedDuration(idle)
        )))))
    }
}
