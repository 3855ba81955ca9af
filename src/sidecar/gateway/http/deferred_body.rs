//! A request's body that is not read before its call is admitted.
//!
//! The first attempt reads it. Later attempts and fallbacks share the kept bytes; a body that
//! is not kept is passed on once.

use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::sync::Mutex;
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};

use super::caller_body::CallerBody;
use super::pending_bodies::{BodyPlace, PendingBodies};
use super::request_body::{
    BodyLimits, MAX_BODY, PassingBody, StreamedBody, UnbegunBody, Upload, UploadStatus,
};
use super::slow_body::{AGAIN, LEAST_PIECE, PATIENCE, SlowBody};
use crate::buffer_budget::{BufferBudget, BufferShare};
use crate::sidecar::gateway::message::{HttpFailure, UnsentBody};

/// Difference between the time limit of a body and the end of its call. The body's must expire
/// first, so that the caller is blamed and not the dependency.
const AHEAD: Duration = Duration::from_millis(10);

/// Maximum time and size of a body that is read only to keep the caller's connection. A longer one
/// would enlarge the buffers of many connections when many calls are refused.
const REST: (Duration, u64) = (Duration::from_millis(5), 16_000);

/// The reason for which a body is kept while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKeeping {
    /// None: it is passed on as it comes, unless it is short.
    Short,
    /// It may go out once more if a kept connection closes under it. A caller that is slow to send it, and
    /// a lack of memory, let it be passed on.
    IfQuick,
    /// A retry or a fallback may need it.
    Needed,
}

/// A request's body, read when it is needed first.
pub(crate) struct DeferredBody {
    /// The whole body, once it was read.
    whole: OnceLock<WholeBody>,
    stage: Mutex<ReadingStage>,
    status: Arc<UploadStatus>,
    /// End of the call.
    until: Option<Instant>,
    is_hedged: bool,
}

/// A body that was read, and its trailers.
type WholeBody = (Bytes, Option<HeaderMap>);

/// Progress of reading a body.
enum ReadingStage {
    /// A part may be read already.
    Reading(Box<BodyReader>),
    /// It is passed on, and comes back if the attempt ends before its first piece.
    Passing(Arc<UnbegunBody>),
    /// It was read, or dropped.
    Gone,
    Failed(HttpFailure),
}

/// A body while it is read.
struct BodyReader {
    body: StreamedBody,
    limits: BodyLimits,
    keeping: BodyKeeping,
    kept: Vec<u8>,
    trailers: Option<HeaderMap>,
    share: BufferShare,
    /// The present span of `gateway.body_timeout`, and the bytes that were there at its start.
    window: Option<(Pin<Box<Sleep>>, usize)>,
}

impl DeferredBody {
    /// Wraps a body of which nothing is read yet. Returns true if it is kept, unless it turns out to
    /// be too long. `until`: the end of the call.
    ///
    /// # Errors  It says that it is longer than allowed.
    pub(crate) fn begin(
        body: CallerBody,
        limits: BodyLimits,
        (keeping, until): (BodyKeeping, Option<Instant>),
        budget: &BufferBudget,
    ) -> Result<(Arc<Self>, bool), HttpFailure> {
        let hint = body.size_hint();
        if hint.lower() > limits.max_body {
            return Err(HttpFailure::BodyTooLarge(MAX_BODY));
        }
        let keeping = match hint.lower() <= limits.max_replay {
            true => keeping,
            false => BodyKeeping::Short,
        };
        let is_short = hint.upper().is_some_and(|most| most <= limits.max_short());
        // EDGE-4: nothing of it is read before the call is admitted.
        let deferred = Self::new(body, (limits, keeping), until, budget);
        let is_kept = keeping != BodyKeeping::Short || is_short;
        Ok((Arc::new(deferred), is_kept))
    }

    fn new(
        body: CallerBody,
        (limits, keeping): (BodyLimits, BodyKeeping),
        until: Option<Instant>,
        budget: &BufferBudget,
    ) -> Self {
        let body = StreamedBody::new(body, limits);
        Self {
            whole: OnceLock::new(),
            status: body.trace(),
            stage: Mutex::new(ReadingStage::Reading(Box::new(BodyReader {
                body,
                limits,
                keeping,
                kept: Vec::new(),
                trailers: None,
                share: budget.share(),
                window: None,
            }))),
            until,
            is_hedged: limits.is_hedged,
        }
    }

    /// Returns the whole body, once it was read.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        self.whole.get().map(|(body, _)| body)
    }

    /// Returns the body to send once more, if it was read whole.
    pub(crate) fn kept_upload(&self) -> Option<Upload> {
        let (body, trailers) = self.whole.get()?;
        Some(Upload::kept(body.clone(), trailers.clone()))
    }

    /// The status of reading and sending it.
    pub(crate) fn status(&self) -> &Arc<UploadStatus> {
        &self.status
    }

    /// Returns the body to send, and reads it before if it is to be kept. `left`: a time limit
    /// beside those of the call. `bodies`: those that are read for the same dependency, and true
    /// if the call is a write.
    ///
    /// # Errors  It cannot be read, or was passed on before.
    /// # Cancel safety   Dropped, the bytes that were read are kept for the next attempt.
    pub(crate) async fn upload(
        &self,
        left: Option<Duration>,
        (bodies, is_write): (&Arc<PendingBodies>, bool),
    ) -> Result<Upload, HttpFailure> {
        let mut stage = self.stage.lock().await;
        if let Some(kept) = self.kept_upload() {
            return Ok(kept);
        }
        let reader = match &mut *stage {
            ReadingStage::Reading(reader) => reader,
            ReadingStage::Passing(back) => {
                // CALL-2: what no attempt has begun to read goes out whole with the next one.
                let Some(body) = back.take() else {
                    return Err(HttpFailure::BodyGone);
                };
                let back = Arc::clone(back);
                return Ok(self.passing(*body, self.place(bodies, is_write), back));
            }
            ReadingStage::Gone => return Err(HttpFailure::BodyGone),
            ReadingStage::Failed(failure) => return Err(*failure),
        };
        let now = Instant::now();
        let (place, probe_end) = self.place(bodies, is_write);
        let left = left.map(|left| now + left);
        let until = [left, probe_end, self.until].into_iter().flatten().min();
        let slow = match until == probe_end {
            true if probe_end.is_some() => SlowBody::Probe,
            _ => SlowBody::CallEnd,
        };
        let too_slow = Err(HttpFailure::Unsent(UnsentBody::TooSlow(slow)));
        let begun = place.begin();
        let reading = reader.read(&place);
        let read = match until.and_then(|until| until.checked_sub(AHEAD)) {
            // EDGE-4: the call's own end holds for its body too.
            Some(until) => timeout_at(until, reading).await.unwrap_or(too_slow),
            None => reading.await,
        };
        drop(begun);
        let is_whole = match read {
            Ok(is_whole) => is_whole,
            Err(failure) => {
                *stage = ReadingStage::Failed(failure);
                return Err(failure);
            }
        };
        let read = mem::replace(&mut *stage, ReadingStage::Gone);
        let ReadingStage::Reading(reader) = read else {
            return Err(HttpFailure::BodyGone);
        };
        if is_whole {
            let (body, trailers) = self.whole.get_or_init(|| reader.into_whole());
            return Ok(Upload::kept(body.clone(), trailers.clone()));
        }
        let back = Arc::<UnbegunBody>::default();
        *stage = ReadingStage::Passing(Arc::clone(&back));
        Ok(self.passing(reader.into_passing(), (place, probe_end), back))
    }

    /// Passes a body on. `back`: the way back, until it is begun.
    fn passing(
        &self,
        body: StreamedBody,
        (place, probe_end): (BodyPlace, Option<Instant>),
        back: Arc<UnbegunBody>,
    ) -> Upload {
        if self.is_hedged {
            // Two attempts at once cannot share it.
            self.status.progress().forbid_repeats();
        }
        let body = Box::new(body.watched(place, probe_end));
        Upload::Passing(PassingBody::new(body, back))
    }

    /// Returns the place of the call, and the time by which a probe has to have its body.
    fn place(&self, bodies: &Arc<PendingBodies>, is_write: bool) -> (BodyPlace, Option<Instant>) {
        let probe_end = self.status.progress().upload_limit();
        let probe_end = probe_end.map(|limit| Instant::now() + limit);
        let place = BodyPlace {
            bodies: Arc::clone(bodies),
            progress: self.status.progress(),
            is_write,
            is_probe: probe_end.is_some(),
        };
        (place, probe_end)
    }

    /// Reads and drops a body that nothing needs, if it has arrived already: the caller's
    /// connection can then be used again.
    pub(crate) async fn discard(&self) {
        let Ok(mut stage) = self.stage.try_lock() else {
            return;
        };
        let read = mem::replace(&mut *stage, ReadingStage::Gone);
        let body = match read {
            ReadingStage::Reading(reader) => Some(reader.body),
            ReadingStage::Passing(back) => back.take().map(|body| *body),
            ReadingStage::Gone | ReadingStage::Failed(_) => None,
        };
        let Some(mut body) = body else { return };
        let (time, size) = REST;
        if body.size_hint().upper().is_none_or(|most| most > size) {
            return;
        }
        let reading = async { while let Some(Ok(_)) = next_of(&mut body).await {} };
        // The connection is closed if it takes longer.
        let _ = timeout(time, reading).await;
    }
}

impl BodyReader {
    /// Reads the body if it is to be kept, or is short. Returns false if it is to be passed on.
    /// [`BodyKeeping::IfQuick`] waits [`PATIENCE`] for each [`LEAST_PIECE`].
    async fn read(&mut self, place: &BodyPlace) -> Result<bool, HttpFailure> {
        let BodyLimits {
            max_replay, pause, ..
        } = self.limits;
        let most = self.limits.max_short();
        let is_short = self
            .body
            .size_hint()
            .upper()
            .is_some_and(|upper| upper <= most);
        // EDGE-1: a body that goes out once more on a new connection has to be there, in any framing.
        let holds = is_short || self.keeping == BodyKeeping::Needed;
        if !holds && self.keeping == BodyKeeping::Short {
            return Ok(false);
        }
        let mut patience = pin!(sleep(PATIENCE));
        let mut looked = self.kept.len();
        loop {
            let length = self.kept.len();
            let begin = || (Box::pin(sleep(pause)), length);
            let (window, before) = self.window.get_or_insert_with(begin);
            let frame = tokio::select! {
                biased;
                frame = next_of(&mut self.body) => frame,
                () = window.as_mut() => {
                    // EDGE-4: a body that drips has an end, however short its pauses are.
                    if length - *before < LEAST_PIECE {
                        return Err(HttpFailure::Unsent(UnsentBody::TooSlow(SlowBody::Pause)));
                    }
                    self.window = None;
                    continue;
                }
                () = patience.as_mut() => {
                    if !holds {
                        return Ok(false);
                    }
                    if place.is_wanted() {
                        return Err(HttpFailure::Unsent(UnsentBody::TooSlow(SlowBody::Place)));
                    }
                    patience.as_mut().reset(Instant::now() + AGAIN);
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            match frame.map_err(HttpFailure::before_sending)?.into_data() {
                Ok(piece) => {
                    if !self.keep(&piece) {
                        return self.without_memory(piece);
                    }
                }
                // EDGE-3: they are sent with the kept body.
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    break;
                }
            }
            if self.kept.len() - looked >= LEAST_PIECE {
                looked = self.kept.len();
                patience.as_mut().reset(Instant::now() + PATIENCE);
            }
            if self.kept.len() as u64 > max_replay {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keeps a piece. Returns false if the budget is used up.
    fn keep(&mut self, piece: &Bytes) -> bool {
        let length = self.kept.len() + piece.len();
        if length > self.kept.capacity() {
            let rest = usize::try_from(self.body.size_hint().upper().unwrap_or(u64::MAX));
            let whole = length.saturating_add(rest.unwrap_or(usize::MAX));
            // Not more than the body can need, and not all of what it only announces.
            let wanted = whole.min(length.max(2 * self.kept.capacity()));
            if !self.share.grow_to(wanted) {
                return false;
            }
            self.kept.reserve_exact(wanted - self.kept.len());
        }
        self.kept.extend_from_slice(piece);
        true
    }

    /// Decides on a body after a piece for which there is no memory.
    fn without_memory(&mut self, piece: Bytes) -> Result<bool, HttpFailure> {
        // EDGE-4: above the budget, what need not be kept is passed on.
        if self.keeping == BodyKeeping::Needed {
            return Err(HttpFailure::NoMemory);
        }
        self.body.put_back(piece);
        Ok(false)
    }

    fn into_whole(self: Box<Self>) -> WholeBody {
        let body = match self.kept.is_empty() {
            true => Bytes::new(),
            false => self.share.hold(self.kept),
        };
        (body, self.trailers)
    }

    fn into_passing(mut self: Box<Self>) -> StreamedBody {
        if !self.kept.is_empty() {
            self.body.put_back(self.share.hold(self.kept));
        }
        self.body
    }
}

async fn next_of(body: &mut StreamedBody) -> Option<Result<Frame<Bytes>, HttpFailure>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}
