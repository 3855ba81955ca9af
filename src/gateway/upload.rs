//! A request's body on its way to the dependency: kept to be sent again, or passed on as it comes.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::failure::Failure;

/// What is allowed of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_body: u64,
    pub(super) max_replay: u64,
    /// The longest time between two pieces.
    pub(super) pause: Duration,
}

/// A body, as far as it was read before the dependency is asked.
pub(super) enum Read {
    /// All of it.
    Whole(Bytes),
    /// It is passed on as it comes, once.
    Passing(Passing),
}

/// Reads a body that is short enough to be kept, so that a slow caller holds no place of the
/// dependency. `keep`: whether one of unknown length is to be kept if it turns out to be short.
pub(super) async fn read(body: Incoming, keep: bool, limits: Limits) -> Result<Read, Failure> {
    let hint = body.size_hint();
    if hint.lower() > limits.max_body {
        return Err(Failure::BodyTooLarge);
    }
    let is_short = hint.upper().is_some_and(|most| most <= limits.max_replay);
    let mut passing = Passing::new(body, limits);
    if !is_short && (!keep || hint.lower() > limits.max_replay) {
        return Ok(Read::Passing(passing));
    }
    let mut kept = BytesMut::new();
    while let Some(frame) = next(&mut passing).await {
        match frame?.into_data() {
            Ok(piece) => kept.extend_from_slice(&piece),
            // Trailers of a request are rare, and nobody's to keep.
            Err(_trailers) => break,
        }
        if kept.len() as u64 > limits.max_replay {
            passing.before = Some(kept.freeze());
            return Ok(Read::Passing(passing));
        }
    }
    Ok(Read::Whole(kept.freeze()))
}

async fn next(body: &mut Passing) -> Option<Result<Frame<Bytes>, Failure>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// A body on its way.
pub(super) enum Upload {
    Whole(Option<Bytes>),
    Passing(Box<Passing>),
}

/// A body that is passed on as it comes, with back-pressure: the next piece is read when the one
/// before has gone out.
pub(super) struct Passing {
    /// What was read already.
    before: Option<Bytes>,
    rest: Incoming,
    room: u64,
    pause: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    trace: Arc<Trace>,
}

/// What others may know of a body that is passed on.
#[derive(Debug, Default)]
pub(super) struct Trace {
    fault: AtomicU8,
    waits: AtomicBool,
    ended: AtomicBool,
}

impl Trace {
    /// What went wrong with it on the caller's side.
    pub(super) fn fault(&self) -> Option<Failure> {
        match self.fault.load(Ordering::Acquire) {
            1 => Some(Failure::BodyTooLarge),
            2 => Some(Failure::BodyTooSlow),
            3 => Some(Failure::BodyCut),
            _ => None,
        }
    }

    /// Whether all of it has been read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether the caller is waited for.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }
}

impl Passing {
    fn new(rest: Incoming, limits: Limits) -> Self {
        Self {
            before: None,
            rest,
            room: limits.max_body,
            pause: limits.pause,
            alarm: None,
            trace: Arc::default(),
        }
    }

    pub(super) fn trace(&self) -> Arc<Trace> {
        Arc::clone(&self.trace)
    }

    fn fail(&self, failure: Failure) -> Failure {
        let number = match failure {
            Failure::BodyTooLarge => 1,
            Failure::BodyTooSlow => 2,
            _ => 3,
        };
        self.trace.fault.store(number, Ordering::Release);
        failure
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(cx) else {
            self.trace.waits.store(true, Ordering::Release);
            let pause = self.pause;
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(alarm.as_mut().poll(cx));
            return Poll::Ready(Some(Err(self.fail(Failure::BodyTooSlow))));
        };
        self.trace.waits.store(false, Ordering::Release);
        self.alarm = None;
        let frame = match frame {
            None => {
                self.trace.ended.store(true, Ordering::Release);
                return Poll::Ready(None);
            }
            Some(Err(_lost)) => return Poll::Ready(Some(Err(self.fail(Failure::BodyCut)))),
            Some(Ok(frame)) => frame,
        };
        let length = frame.data_ref().map_or(0, |piece| piece.len() as u64);
        let Some(room) = self.room.checked_sub(length) else {
            return Poll::Ready(Some(Err(self.fail(Failure::BodyTooLarge))));
        };
        self.room = room;
        // Whoever knows the length does not ask for an end.
        let has_ended = self.rest.is_end_stream();
        self.trace.ended.store(has_ended, Ordering::Release);
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        match this.before.take() {
            Some(before) => Poll::Ready(Some(Ok(Frame::data(before)))),
            None => this.poll_rest(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.before.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let before = self.before.as_ref().map_or(0, |before| before.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + before);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + before);
        }
        hint
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Passing(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Passing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Passing(body) => body.size_hint(),
        }
    }
}
