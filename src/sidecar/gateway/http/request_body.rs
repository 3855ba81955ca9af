//! A request's body on its way to the dependency: whole, or streamed once.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::answer_fault::AnswerFault;
use super::caller_body::CallerBody;
use super::pending_bodies::BodyPlace;
use super::slow_body::{LEAST_PIECE, SlowBody, SlowBodyWatch};
use crate::AttemptProgress;
use crate::config::GatewayConfig;
use crate::lock::LockExt as _;
use crate::sidecar::gateway::headers::without_head_fields;
use crate::sidecar::gateway::message::HttpFailure;

/// Limits of a request body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) max_body: u64,
    pub(crate) max_replay: u64,
    /// Maximum time in which the next [`LEAST_PIECE`] has to come, of the time that is spent waiting
    /// for it.
    pub(crate) pause: Duration,
    /// True if the pieces are messages, which may be short and far apart.
    pub(crate) is_of_messages: bool,
    /// True if another attempt may begin while one is made.
    pub(crate) is_hedged: bool,
}

impl BodyLimits {
    /// Returns the limits of all dependencies.
    pub(crate) fn of(config: &GatewayConfig) -> Self {
        Self {
            max_body: config.max_body,
            max_replay: config.max_replay_body,
            pause: config.body_timeout,
            is_of_messages: false,
            is_hedged: false,
        }
    }

    /// Returns the maximum size of a body that is buffered even if it is sent only once: a slow
    /// caller then takes no connection to the dependency.
    pub(crate) fn max_short(&self) -> u64 {
        self.max_replay.min(MAX_SHORT)
    }
}

/// The key of [`BodyLimits::max_body`].
pub(super) const MAX_BODY: &str = "gateway.max_body";

/// See [`BodyLimits::max_short`].
const MAX_SHORT: u64 = 64_000;

/// A body to send.
pub(crate) enum Upload {
    Whole(Option<Bytes>),
    /// A whole body with trailers behind it.
    Trailed(Box<TrailedBody>),
    Passing(PassingBody),
}

/// A body that is passed on as it comes. Dropped before a piece was asked for, it goes back to where
/// the next attempt finds it.
pub(crate) struct PassingBody {
    body: Option<Box<StreamedBody>>,
    /// The way back, until the body is begun.
    back: Option<Arc<UnbegunBody>>,
}

/// A body that no attempt has begun to read.
#[derive(Default)]
pub(super) struct UnbegunBody(Mutex<Option<Box<StreamedBody>>>);

impl UnbegunBody {
    /// Takes the body, if it is back.
    pub(super) fn take(&self) -> Option<Box<StreamedBody>> {
        self.0.acquire().take()
    }
}

impl PassingBody {
    /// Passes a body on. `back`: the way back.
    pub(super) fn new(body: Box<StreamedBody>, back: Arc<UnbegunBody>) -> Self {
        Self {
            body: Some(body),
            back: Some(back),
        }
    }

    /// Returns the status of the body.
    fn trace(&self) -> Arc<UploadStatus> {
        self.body
            .as_ref()
            .map_or_else(Arc::default, |body| body.trace())
    }
}

impl Drop for PassingBody {
    fn drop(&mut self) {
        if let (Some(mut body), Some(back)) = (self.body.take(), self.back.take()) {
            body.watch = None;
            *back.0.acquire() = Some(body);
        }
    }
}

impl Body for PassingBody {
    type Data = Bytes;
    type Error = HttpFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpFailure>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        if this.back.take().is_some() {
            // CALL-2: from here on a part may have gone out, and cannot be sent again.
            body.trace.progress.forbid_repeats();
        }
        Pin::new(&mut **body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map(|body| body.size_hint());
        hint.unwrap_or_default()
    }
}

/// A whole body that ends with trailers. Its length is not told: HTTP/1.1 has trailers only behind
/// chunks.
pub(crate) struct TrailedBody {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Upload {
    /// Returns the status of a body that is passed on.
    pub(crate) fn trace(&self) -> Option<Arc<UploadStatus>> {
        match self {
            Self::Passing(passing) => Some(passing.trace()),
            Self::Whole(_) | Self::Trailed(_) => None,
        }
    }

    /// Returns a whole body with its trailers, if it has any.
    pub(super) fn kept(body: Bytes, trailers: Option<HeaderMap>) -> Self {
        match trailers {
            None => Self::Whole(Some(body)),
            trailers => Self::Trailed(Box::new(TrailedBody {
                data: (!body.is_empty()).then_some(body),
                trailers,
            })),
        }
    }
}

/// A body that is streamed with back-pressure: the next piece is read once the previous one has
/// been sent.
pub(crate) struct StreamedBody {
    /// The pieces that were read before.
    before: VecDeque<Bytes>,
    rest: CallerBody,
    room: u64,
    pause: Duration,
    /// The end of the present wait for the caller, and its start.
    alarm: Option<(Pin<Box<Sleep>>, Instant)>,
    /// The earlier waits for the next [`LEAST_PIECE`], and the bytes that they have brought.
    waited: Duration,
    fresh: usize,
    is_of_messages: bool,
    trace: Arc<UploadStatus>,
    /// Gives the place of the call back, once it is passed on too slowly.
    watch: Option<SlowBodyWatch>,
}

/// Status of a streamed body, shared with other tasks.
#[derive(Debug, Default)]
pub(crate) struct UploadStatus {
    fault: AtomicU8,
    ended: AtomicBool,
    answered: AtomicBool,
    /// Progress of the upload, for the limits of the attempt.
    progress: AttemptProgress,
}

impl UploadStatus {
    /// Returns the caller's error, if there was one.
    pub(crate) fn fault(&self) -> Option<HttpFailure> {
        match self.fault.load(Ordering::Acquire) {
            0 => None,
            1 => Some(HttpFailure::BodyTooLarge(MAX_BODY)),
            2 => Some(HttpFailure::BodyCut),
            number => {
                let slow = SlowBody::ALL.get(usize::from(number) - 3).copied();
                slow.map(HttpFailure::BodyTooSlow)
            }
        }
    }

    /// Returns the failure of a request, as far as its body explains it.
    pub(crate) fn blamed(&self, failure: HttpFailure) -> HttpFailure {
        match self.fault() {
            Some(fault) => fault,
            // EDGE-1: while the body is on its way, it may be the reason.
            None if is_break(failure) && !self.has_ended() => HttpFailure::UploadCut,
            None => failure,
        }
    }

    /// Returns true if the whole body has been read.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.progress.end_upload();
    }

    /// Notes that the head of the answer has come.
    pub(crate) fn answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// Returns true while the body waits for the caller.
    pub(crate) fn waits(&self) -> bool {
        self.progress.is_paused()
    }

    /// The progress of the upload, for the limits of the attempt.
    pub(crate) fn progress(&self) -> AttemptProgress {
        self.progress.clone()
    }
}

/// Returns true if the connection broke before any answer.
fn is_break(failure: HttpFailure) -> bool {
    matches!(
        failure,
        HttpFailure::Reset | HttpFailure::Answer(AnswerFault::Closed)
    )
}

impl StreamedBody {
    pub(super) fn new(rest: CallerBody, limits: BodyLimits) -> Self {
        let trace = Arc::<UploadStatus>::default();
        trace.progress.begin_upload();
        Self {
            before: VecDeque::new(),
            rest,
            room: limits.max_body,
            pause: limits.pause,
            alarm: None,
            waited: Duration::ZERO,
            fresh: 0,
            is_of_messages: limits.is_of_messages,
            trace,
            watch: None,
        }
    }

    pub(crate) fn trace(&self) -> Arc<UploadStatus> {
        Arc::clone(&self.trace)
    }

    /// Lets it give its place back if slow bodies take too many. `end`: the time by which it has to
    /// have come, unless the answer begins before.
    pub(super) fn watched(mut self, place: BodyPlace, end: Option<Instant>) -> Self {
        self.watch = Some(SlowBodyWatch::new(place, end));
        self
    }

    /// Puts back a piece that was read, before all others.
    pub(super) fn put_back(&mut self, piece: Bytes) {
        self.before.push_front(piece);
    }

    fn fail(&self, failure: HttpFailure) -> HttpFailure {
        let number = match failure {
            HttpFailure::BodyTooLarge(_) => 1,
            HttpFailure::BodyTooSlow(slow) => 3 + slow as u8,
            _ => 2,
        };
        self.trace.fault.store(number, Ordering::Release);
        failure
    }

    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpFailure>>> {
        if self.trace.is_answered() {
            self.watch = None;
        }
        // EDGE-1: a probe that waits for its caller says nothing of the dependency.
        let is_over = |watch: &mut SlowBodyWatch| watch.poll_end(cx).is_ready();
        if self.watch.as_mut().is_some_and(is_over) {
            let slow = HttpFailure::BodyTooSlow(SlowBody::Probe);
            return Poll::Ready(Some(Err(self.fail(slow))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(cx) else {
            self.trace.progress.pause();
            let left = self.pause.saturating_sub(self.waited);
            let begin = || (Box::pin(sleep(left)), Instant::now());
            let (alarm, _) = self.alarm.get_or_insert_with(begin);
            let slow = match alarm.as_mut().poll(cx) {
                Poll::Ready(()) => SlowBody::Pause,
                // EDGE-4: until the dependency answers, a slow body holds a place that others need.
                Poll::Pending => match &mut self.watch {
                    Some(watch) => {
                        ready!(watch.poll_too_many(cx));
                        SlowBody::Place
                    }
                    None => return Poll::Pending,
                },
            };
            let slow = HttpFailure::BodyTooSlow(slow);
            return Poll::Ready(Some(Err(self.fail(slow))));
        };
        // EDGE-1: while a body flows, the limits of the attempt have not begun.
        self.trace.progress.note();
        if let Some((_, since)) = self.alarm.take() {
            self.waited += since.elapsed();
        }
        let frame = match frame.map(|frame| frame.map(without_head_fields)) {
            None | Some(Ok(None)) => {
                self.trace.end();
                return Poll::Ready(None);
            }
            Some(Err(_lost)) => return Poll::Ready(Some(Err(self.fail(HttpFailure::BodyCut)))),
            Some(Ok(Some(frame))) => frame,
        };
        let length = frame.data_ref().map_or(0, |piece| piece.len() as u64);
        let Some(room) = self.room.checked_sub(length) else {
            return Poll::Ready(Some(Err(self.fail(HttpFailure::BodyTooLarge(MAX_BODY)))));
        };
        self.room = room;
        // EDGE-4: until the answer begins, a body that drips has an end, however short its pauses are.
        self.fresh = self
            .fresh
            .saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if self.fresh >= LEAST_PIECE || self.is_of_messages || self.trace.is_answered() {
            (self.waited, self.fresh) = (Duration::ZERO, 0);
        }
        if let Some(watch) = &mut self.watch {
            watch.arrived(length);
        }
        // A reader that knows the length does not poll for the end, which HTTP/2 may send apart.
        let has_all_bytes = self.rest.size_hint().exact() == Some(0);
        let has_ended = has_all_bytes || self.rest.is_end_stream() || frame.is_trailers();
        if has_ended {
            self.trace.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = HttpFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpFailure>>> {
        let this = self.get_mut();
        match this.before.pop_front() {
            Some(before) => Poll::Ready(Some(Ok(Frame::data(before)))),
            None => this.poll_rest(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.before.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let before: u64 = self.before.iter().map(|piece| piece.len() as u64).sum();
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
    type Error = HttpFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpFailure>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Trailed(body) => {
                let data = body.data.take().map(Frame::data);
                let frame = data.or_else(|| body.trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            Self::Passing(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Trailed(body) => body.data.is_none() && body.trailers.is_none(),
            Self::Passing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Trailed(_) => SizeHint::default(),
            Self::Passing(body) => body.size_hint(),
        }
    }
}
