//! Response bodies: complete ones, and those that are streamed as they arrive.
//!
//! A body that breaks off is an error of the body. The caller's connection is then cut too, so that
//! no caller takes a part for the whole.

mod content_ending;

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream as _;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use content_ending::ContentEnding;

use content_ending::LastPiece;

use super::cache::CacheWriter;
use super::error_body::{BrokenBody, ErrorBody};
use super::response_stream::{ResponsePiece, ResponseStream};
use super::tunnel::CallerTunnel;
use breakerbox_policy::RoundedDuration;

use crate::Streamed;
use crate::sidecar::gateway::access_log::AccessEntry;
use crate::sidecar::gateway::activity::RequestActivity;
use crate::sidecar::gateway::caller_limits::CallerPlace;
use crate::sidecar::gateway::headers::without_head_fields;
use crate::sidecar::gateway::trace::RequestSpan;

/// The body of a response to a caller.
pub(crate) struct ReplyBody {
    kind: BodyKind,
    /// The end of its call, if the call has one.
    until: Option<Instant>,
    /// Reports the caller's progress to the connection's timer.
    waiting: Option<RequestActivity>,
    /// The request's span, which ends with the body.
    span: Option<RequestSpan>,
    /// The caller's place, given back with the body.
    place: Option<CallerPlace>,
    /// The request's line in the access log, written with the end of the body.
    access: Option<AccessEntry>,
}

enum BodyKind {
    Whole(Option<Bytes>),
    Relayed(Box<RelayedBody>),
    Failed(Box<FailedBody>),
    Ours(OwnBody),
    /// No body, and a tunnel behind the head.
    Tunnel(Option<Box<CallerTunnel>>),
}

/// A response made by the gateway itself, possibly a stream.
type OwnBody = Pin<Box<dyn Body<Data = Bytes, Error = std::convert::Infallible>>>;

/// The response broke off after its head had been sent.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub(crate) struct TruncatedBody(String);

/// A response of the dependency, streamed under its breaker.
struct RelayedBody {
    stream: Streamed<ResponseStream>,
    keeping: Option<CacheWriter>,
    hint: SizeHint,
    /// The last piece and the trailers, held back until the outcome of the call is recorded (rule
    /// CALL-3).
    last: VecDeque<Frame<Bytes>>,
    ended: bool,
    /// The end of a model's stream that its provider does not end.
    content: Option<Box<ContentEnding>>,
    cut: Option<BodyCut>,
}

/// The break of a body behind its last piece.
struct BodyCut {
    error: TruncatedBody,
    /// True once what came before the break had time to be sent.
    is_flushed: bool,
}

/// An unsuccessful response. Its outcome is recorded already; its slot goes with it.
struct FailedBody {
    body: ErrorBody,
    limits: RestLimits,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// Limits of the rest of an unsuccessful response.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RestLimits {
    /// Maximum time between two pieces.
    pub(crate) idle: Option<Duration>,
    /// End of the whole call.
    pub(crate) until: Option<Instant>,
}

impl ReplyBody {
    pub(crate) fn whole(body: Bytes) -> Self {
        Self::of(BodyKind::Whole((!body.is_empty()).then_some(body)))
    }

    pub(crate) fn relayed(
        stream: Streamed<ResponseStream>,
        keeping: Option<CacheWriter>,
        content: Option<Box<ContentEnding>>,
    ) -> Self {
        let hint = stream.get_ref().map(ResponseStream::size_hint);
        let until = stream.time_left().map(|left| Instant::now() + left);
        let kind = BodyKind::Relayed(Box::new(RelayedBody {
            stream,
            keeping,
            hint: hint.unwrap_or_default(),
            last: VecDeque::new(),
            ended: false,
            content,
            cut: None,
        }));
        let body = Self::of(kind);
        Self { until, ..body }
    }

    pub(crate) fn failed(body: ErrorBody, limits: RestLimits) -> Self {
        let until = limits.until;
        let body = Self::of(BodyKind::Failed(Box::new(FailedBody {
            body,
            limits,
            alarm: None,
        })));
        Self { until, ..body }
    }

    pub(crate) fn ours(
        body: impl Body<Data = Bytes, Error = std::convert::Infallible> + 'static,
    ) -> Self {
        Self::of(BodyKind::Ours(Box::pin(body)))
    }

    pub(crate) fn tunnel(tunnel: Box<CallerTunnel>) -> Self {
        Self::of(BodyKind::Tunnel(Some(tunnel)))
    }

    /// Takes the tunnel that begins behind the head.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<CallerTunnel>> {
        let BodyKind::Tunnel(tunnel) = &mut self.kind else {
            return None;
        };
        let mut tunnel = tunnel.take()?;
        tunnel.span = self.span.take();
        tunnel.place = self.place.take();
        tunnel.access = self.access.take();
        Some(tunnel)
    }

    fn of(kind: BodyKind) -> Self {
        Self {
            kind,
            until: None,
            waiting: None,
            span: None,
            place: None,
            access: None,
        }
    }

    /// Attaches the span of the request.
    pub(crate) fn traced(mut self, span: Option<RequestSpan>) -> Self {
        self.span = span;
        self
    }

    /// Attaches the line of the access log.
    pub(crate) fn logged(mut self, access: Option<AccessEntry>) -> Self {
        self.access = access;
        self.note_end();
        self
    }

    /// Notes in the access log that nothing of the body is left.
    fn note_end(&mut self) {
        if self.access.is_some() && self.is_end_stream() {
            self.access.iter_mut().for_each(AccessEntry::completed);
        }
    }

    /// Attaches the caller's place.
    pub(crate) fn placed(mut self, place: Option<CallerPlace>) -> Self {
        self.place = place;
        self
    }

    /// Attaches the connection's timer.
    pub(crate) fn watched(mut self, mut waiting: RequestActivity) -> Self {
        // EDGE-4: the call's own end holds while its caller reads nothing, too.
        waiting.until = self.until;
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
            BodyKind::Failed(failed) => failed.poll_frame(cx),
            BodyKind::Tunnel(_) => Poll::Ready(None),
            BodyKind::Ours(ours) => ours
                .as_mut()
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        });
        // EDGE-3: nothing follows trailers, so that without any the body has ended.
        let frame = match frame {
            Some(Ok(frame)) => without_head_fields(frame).map(Ok),
            other => other,
        };
        if let (Some(waiting), Some(Ok(_))) = (&mut this.waiting, &frame) {
            waiting.given();
        }
        if let (Some(span), Some(Err(_))) = (&mut this.span, &frame) {
            span.broke_off();
        }
        match &frame {
            None => this.access.iter_mut().for_each(AccessEntry::completed),
            Some(Ok(_)) => this.note_end(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Whole(body) => body.is_none(),
            BodyKind::Relayed(relayed) => relayed.is_over(),
            BodyKind::Failed(failed) => failed.body.is_over(),
            BodyKind::Ours(ours) => ours.is_end_stream(),
            BodyKind::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64)
            }
            BodyKind::Relayed(relayed) => relayed.hint,
            BodyKind::Failed(failed) => failed.body.size_hint(),
            BodyKind::Ours(ours) => ours.size_hint(),
            BodyKind::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

impl RelayedBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        while !self.ended {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                None => self.end(),
                Some(Err(error)) => return Poll::Ready(Some(self.cut(&error))),
                Some(Ok(piece)) => {
                    if let Some(content) = &mut self.content {
                        content.note(&mut self.stream);
                    }
                    let frame = match piece {
                        ResponsePiece::Frame(frame) => frame,
                        // The head is taken before the body is read.
                        ResponsePiece::Head(_) => Frame::data(Bytes::new()),
                    };
                    if frame.data_ref().is_some_and(Bytes::is_empty) {
                        continue;
                    }
                    if let (Some(keeping), Some(data)) = (&mut self.keeping, frame.data_ref()) {
                        keeping.add(data);
                    }
                    // CALL-3: a reader that knows the length does not poll after the last piece, nor
                    // HTTP/2 after trailers. The end of the stream, and with it the outcome, would
                    // never be recorded.
                    let is_over = self.stream.get_ref().is_none_or(ResponseStream::is_over);
                    if !is_over && !frame.is_trailers() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    self.last.push_back(frame);
                }
            }
        }
        let last = self.last.pop_front().map(Ok);
        match self.cut.take() {
            Some(cut) if last.is_none() => self.break_off(cut, cx),
            cut => {
                self.cut = cut;
                Poll::Ready(last)
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ended && self.last.is_empty() && self.cut.is_none()
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(keeping) = self.keeping.take() {
            keeping.keep();
        }
    }

    /// Ends the body after a failure: with its break, or with a last piece before it.
    fn cut(
        &mut self,
        error: &crate::CallError<super::error::HttpError>,
    ) -> Result<Frame<Bytes>, TruncatedBody> {
        self.ended = true;
        self.keeping = None;
        let last = self.last.pop_front();
        self.last.clear();
        let last = last.and_then(|frame| frame.into_data().ok());
        let broken = TruncatedBody(error.to_string());
        let Some(content) = self.content.take() else {
            return Err(broken);
        };
        let LastPiece { bytes, is_whole } = content.of(error, last);
        self.cut = (!is_whole).then_some(BodyCut {
            error: broken,
            is_flushed: false,
        });
        Ok(Frame::data(bytes))
    }

    /// Breaks the body off, once its last piece had time to be sent.
    fn break_off(&mut self, cut: BodyCut, cx: &mut Context<'_>) -> PolledFrame {
        if cut.is_flushed {
            return Poll::Ready(Some(Err(cut.error)));
        }
        self.cut = Some(BodyCut {
            is_flushed: true,
            ..cut
        });
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl FailedBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        let is_late = |until: Instant| until <= Instant::now();
        if self.body.is_open() && self.limits.until.is_some_and(is_late) {
            return self.give_up("its time was over".to_owned());
        }
        if let Poll::Ready(frame) = self.body.poll_next(cx) {
            self.alarm = None;
            let cut = |BrokenBody| TruncatedBody("the connection broke".to_owned());
            return Poll::Ready(frame.map(|frame| frame.map_err(cut)));
        }
        let RestLimits { idle, until } = self.limits;
        let silence = idle.map(|idle| Instant::now() + idle);
        let Some(end) = silence.into_iter().chain(until).min() else {
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(end)));
        ready!(alarm.as_mut().poll(cx));
        match idle {
            Some(idle) if !until.is_some_and(is_late) => {
                let idle = RoundedDuration(idle);
                self.give_up(format!("nothing arrived for {idle}"))
            }
            _ => self.give_up("its time was over".to_owned()),
        }
    }

    /// Ends the body early. The slot is given back at once: a caller that reads no further may take
    /// long to notice.
    fn give_up(&mut self, why: String) -> PolledFrame {
        self.body = ErrorBody::default();
        Poll::Ready(Some(Err(TruncatedBody(why))))
    }
}
