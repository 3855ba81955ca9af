//! The bodies of answers: whole ones, and those that are passed on as they come.
//!
//! A body that breaks off is an error of the body, so that the caller's connection is broken off
//! too: nobody takes a part for the whole.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream as _;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::cache::Keeping;
use super::connection::Waiting;
use super::exchange::{Exchange, Piece};
use super::pool::Arriving;
use super::trace::RequestSpan;
use crate::Streamed;

/// The body of an answer to a caller.
pub(super) struct ReplyBody {
    kind: Kind,
    /// Tells the connection's watch how the caller gets on.
    waiting: Option<Waiting>,
    /// It ends with the body.
    span: Option<RequestSpan>,
}

enum Kind {
    Whole(Option<Bytes>),
    Relayed(Box<Relayed>),
    Rest(Box<Rest>),
    Ours(Ours),
}

/// An answer that is made here, and can be a stream.
type Ours = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// An answer broke off after its head had been sent.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub(super) struct Cut(String);

/// An answer of the dependency, under its breaker.
struct Relayed {
    stream: Streamed<Exchange>,
    keeping: Option<Keeping>,
    hint: SizeHint,
    /// The last piece, which waits until it is counted what the whole came to (rule CALL-3).
    last: Option<Frame<Bytes>>,
    ended: bool,
}

/// What an answer that is no success goes on with. Its outcome is counted already.
struct Rest {
    body: Arriving,
    idle: Option<Duration>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ReplyBody {
    pub(super) fn whole(body: Bytes) -> Self {
        Self::of(Kind::Whole((!body.is_empty()).then_some(body)))
    }

    pub(super) fn relayed(stream: Streamed<Exchange>, keeping: Option<Keeping>) -> Self {
        let hint = stream.get_ref().map(Exchange::size_hint);
        Self::of(Kind::Relayed(Box::new(Relayed {
            stream,
            keeping,
            hint: hint.unwrap_or_default(),
            last: None,
            ended: false,
        })))
    }

    pub(super) fn rest(body: Arriving, idle: Option<Duration>) -> Self {
        Self::of(Kind::Rest(Box::new(Rest {
            body,
            idle,
            alarm: None,
        })))
    }

    pub(super) fn ours(body: Ours) -> Self {
        Self::of(Kind::Ours(body))
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            waiting: None,
            span: None,
        }
    }

    /// The same, with the span of its request.
    pub(super) fn traced(mut self, span: RequestSpan) -> Self {
        self.span = Some(span);
        self
    }

    /// The same, watched by its connection.
    pub(super) fn watched(mut self, waiting: Waiting) -> Self {
        self.waiting = Some(waiting);
        self
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, Cut>>>;

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        if let Some(waiting) = &mut this.waiting {
            waiting.asked();
        }
        let frame = ready!(match &mut this.kind {
            Kind::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Kind::Relayed(relayed) => relayed.poll_frame(cx),
            Kind::Rest(rest) => rest.poll_frame(cx),
            Kind::Ours(ours) => Pin::new(ours)
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
            Kind::Whole(body) => body.is_none(),
            Kind::Relayed(relayed) => relayed.ended && relayed.last.is_none(),
            Kind::Rest(rest) => rest.body.is_end_stream(),
            Kind::Ours(ours) => ours.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Relayed(relayed) => relayed.hint,
            Kind::Rest(rest) => rest.body.size_hint(),
            Kind::Ours(ours) => ours.size_hint(),
        }
    }
}

impl Relayed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
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
                        Piece::Frame(frame) => frame,
                        // The head is taken before there is a body.
                        Piece::Head(_) => Frame::data(Bytes::new()),
                    };
                    if let (Some(keeping), Some(data)) = (&mut self.keeping, frame.data_ref()) {
                        keeping.add(data);
                    }
                    let is_last = self.stream.get_ref().is_none_or(Exchange::is_over);
                    if !is_last {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    self.last = Some(frame);
                }
            }
        }
        // Whoever knows the length asks for nothing behind the last piece, and would never hear
        // what the whole came to.
        match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            None => {
                self.end();
                Poll::Ready(self.last.take().map(Ok))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(self.cut(&error)))),
            Some(Ok(Piece::Frame(next))) => {
                let frame = self.last.replace(next);
                Poll::Ready(frame.map(Ok))
            }
            Some(Ok(Piece::Head(_))) => Poll::Ready(self.last.take().map(Ok)),
        }
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(keeping) = self.keeping.take() {
            keeping.keep();
        }
    }

    fn cut(&mut self, error: &crate::CallError<super::failure::HttpError>) -> Cut {
        self.ended = true;
        self.keeping = None;
        self.last = None;
        Cut(error.to_string())
    }
}

impl Rest {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.alarm = None;
            let cut = |_| Cut("the connection broke".to_owned());
            return Poll::Ready(frame.map(|frame| frame.map_err(cut)));
        }
        let Some(idle) = self.idle else {
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(idle)));
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Some(Err(Cut(format!("nothing came for {idle:?}")))))
    }
}
