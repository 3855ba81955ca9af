//! The answer of a language model: held back until its first content, and judged by its true end.
//!
//! No byte is changed, and none is added: the gateway's own event at a missing end is added where
//! the body is passed on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING,
};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body as _, SizeHint};
use tokio::time::{Instant, timeout_at};

use breakerbox_policy::{Class, ClassifySettings, Executed, Symptom};

use super::content_watch::ContentWatch;
use super::read_ahead::{BodyEnd, ReadAhead};
use crate::Verdict;
use crate::buffer_budget::{BufferBudget, BufferShare};
use crate::config::ContentLimits;
use crate::model::{
    ApiShape, ErrorScope, ModelErrorKind, ModelVerdict, StreamEnd, StreamError, StreamWatch,
    WatchEvent, figures_of, judge,
};
use crate::sidecar::gateway::http::content_coding;
use crate::sidecar::gateway::http::error::{ErrorResponse, HttpError, ModelFailure};
use crate::sidecar::gateway::http::error_body::ErrorBody;
use crate::sidecar::gateway::http::pool::PooledBody;
use crate::sidecar::gateway::message::{ContentFailure, HttpFailure};
use crate::sidecar::gateway::model_figures::{ContentEnd, ModelFigureTable, StreamTimes};
use crate::sidecar::gateway::token_limits::HeldTokens;

/// Maximum size of a whole answer that is read before its head is passed on, in bytes.
const MAX_WHOLE: usize = 8_000_000;
/// The same for the opening of a stream, and for an error.
const MAX_OPENING: usize = 65_536;
/// Maximum time to wait for the rest of an error, and of a stream behind its end or error.
pub(super) const REST: Duration = Duration::from_millis(500);

/// Facts of an attempt that are known before its answer comes.
pub(crate) struct ModelReading<'a> {
    pub(crate) shape: ApiShape,
    pub(crate) limits: ContentLimits,
    pub(crate) classify: &'a ClassifySettings,
    /// True if the key is ours, and not the caller's.
    pub(crate) has_key: bool,
    pub(crate) budget: &'a BufferBudget,
    /// Kinds of rejected prompts that another model may answer.
    pub(crate) for_others: &'a [ModelErrorKind],
    pub(crate) figures: &'a ModelFigureTable,
    pub(crate) dependency: &'a Arc<str>,
    /// Start of the attempt.
    pub(crate) began: Instant,
    /// The tokens that are set aside for the attempt.
    pub(crate) held: &'a HeldTokens,
}

impl ModelReading<'_> {
    /// Returns the failure of a stream that brought no content.
    fn without_content(
        &self,
        watch: &StreamWatch,
        error: Option<(&Parts, StreamError)>,
        is_broken: bool,
    ) -> HttpError {
        let (end, failure) = match (error, is_broken) {
            (Some((head, error)), _) => {
                let words = Bytes::from(error.body);
                let failure = late_error(head, &error.verdict, words, self);
                (ContentEnd::ErrorEvent, failure)
            }
            (None, true) => (ContentEnd::Cut, HttpFailure::Reset.into()),
            (None, false) => {
                let empty = HttpFailure::Content(ContentFailure::Empty);
                (ContentEnd::Truncated, empty.into())
            }
        };
        let times = StreamTimes {
            end,
            first_token: None,
            longest_gap: Duration::ZERO,
        };
        self.figures
            .count(self.dependency, watch.figures(), Some(times));
        failure
    }

    /// Returns the reason of a rejected prompt that another model may answer.
    fn rejected_for_others(&self, judged: &ModelVerdict) -> Option<ModelErrorKind> {
        judged.kind.filter(|kind| self.for_others.contains(kind))
    }
}

/// The body of a model's answer.
pub(super) struct ModelBody {
    /// The pieces that were read ahead.
    ahead: VecDeque<Bytes>,
    ahead_length: u64,
    /// The end of the body, if it was read ahead to there.
    end: Option<BodyEnd>,
    /// The verdict at a good end.
    verdict: Verdict,
    watch: Option<ContentWatch>,
    /// The share of the budget for the pieces.
    share: BufferShare,
}

impl ModelBody {
    fn new(ahead: ReadAhead, verdict: Verdict, watch: Option<ContentWatch>) -> Self {
        let length: usize = ahead.pieces.iter().map(Bytes::len).sum();
        Self {
            ahead: ahead.pieces,
            ahead_length: length as u64,
            end: ahead.end,
            verdict,
            watch,
            share: ahead.share,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Turns an unsuccessful response into an error, before any of it is passed on.
    pub(super) fn into_error(self, head: Parts, rest: PooledBody) -> HttpError {
        let is_broken = self.end == Some(BodyEnd::Broken);
        let rest = self.end.is_none().then_some(rest);
        HttpError {
            failure: HttpFailure::Status(head.status.as_u16()),
            retry_after: self.verdict.retry_after,
            said: Some(Box::new(ErrorResponse {
                head,
                body: ErrorBody::resumed(self.ahead, rest, (is_broken, self.share)),
            })),
            model: Some(ModelFailure::new(self.verdict)),
        }
    }

    /// Returns true if nothing of the part that was read ahead is left.
    pub(super) fn is_passed(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Returns the size of the whole body. `rest`: of what still comes.
    pub(super) fn size_hint(&self, rest: &SizeHint) -> SizeHint {
        if self.watch.is_some() {
            // An event of ours may follow.
            return SizeHint::default();
        }
        let mut hint = SizeHint::new();
        hint.set_lower(self.ahead_length + rest.lower());
        if let Some(upper) = rest.upper().filter(|_| self.end != Some(BodyEnd::Broken)) {
            hint.set_upper(self.ahead_length + upper);
        }
        hint
    }

    /// Returns true if content has come for this long.
    pub(super) fn has_content_for(&self, span: Duration) -> bool {
        let content = self.watch.as_ref().and_then(|watch| watch.content);
        content.is_some_and(|(first, last)| last - first >= span)
    }

    /// Returns true if it is a stream of events.
    pub(super) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Returns the number of the next event, and true if no part of an event has been passed on.
    pub(super) fn place(&self) -> (u64, bool) {
        self.watch.as_ref().map_or((0, true), |watch| {
            (watch.watch.next_sequence(), watch.watch.unfinished() == 0)
        })
    }

    /// Polls for the next piece.
    pub(super) fn poll_next(
        &mut self,
        body: &mut PooledBody,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, HttpError>>> {
        if let Some(piece) = self.ahead.pop_front() {
            self.ahead_length -= piece.len() as u64;
            return Poll::Ready(Some(Ok(piece)));
        }
        loop {
            let ended = match self.end {
                Some(BodyEnd::Whole) => None,
                Some(BodyEnd::Broken) => Some(Err(())),
                None => match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(None) => None,
                    Poll::Ready(Some(Err(_))) => Some(Err(())),
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(piece) => Some(Ok(piece)),
                        // No API of models has trailers.
                        Err(_) => continue,
                    },
                    Poll::Pending => match &mut self.watch {
                        Some(watch) => {
                            return watch.poll_gap(cx).map(|failure| failure.map(Err));
                        }
                        None => return Poll::Pending,
                    },
                },
            };
            let Some(watch) = &mut self.watch else {
                return Poll::Ready(
                    ended.map(|piece| piece.map_err(|()| HttpFailure::Reset.into())),
                );
            };
            match ended {
                Some(Ok(piece)) => {
                    if let Some(passed) = watch.take(piece) {
                        return Poll::Ready(Some(Ok(passed)));
                    }
                }
                ended => {
                    self.end = Some(BodyEnd::Whole);
                    let is_broken = ended.is_some();
                    return Poll::Ready(watch.at_end(is_broken).map(Err));
                }
            }
        }
    }
}

/// Returns the verdict for the runtime. `has_key`: the key is ours.
pub(super) fn verdict_of(judged: &ModelVerdict, has_key: bool) -> Verdict {
    let verdict = judged.verdict();
    if speaks_of_key(judged) && !has_key {
        // FBK-2: the caller's own key is its own affair.
        return Verdict::from(Class::Rejected)
            .symptom(Symptom::Status(judged.status))
            .for_caller();
    }
    match judged.scope() {
        // LLM-18: a used-up quota and a wrong key hold for every model.
        ErrorScope::Dependency => verdict.for_all_keys(),
        ErrorScope::Model => verdict,
    }
}

fn speaks_of_key(judged: &ModelVerdict) -> bool {
    use ModelErrorKind::{NotPermitted, WrongKey};
    matches!(judged.kind, Some(WrongKey | NotPermitted))
}

/// Returns the failure, with its verdict before any content was passed on.
fn failure_of(judged: &ModelVerdict, reading: &ModelReading<'_>) -> Box<ModelFailure> {
    let Some(kind) = reading.rejected_for_others(judged) else {
        return ModelFailure::new(verdict_of(judged, reading.has_key));
    };
    // LLM-17: no failure of the provider, and no reason to ask it again; another model may answer.
    let verdict = Verdict::from(Class::Cancelled)
        .symptom(Symptom::Status(judged.status))
        .executed(Executed::Yes);
    Box::new(ModelFailure {
        verdict,
        rejected: Some(kind),
        event: None,
    })
}

/// Returns true if the answer is none: the call may be repeated, or answered by others.
fn is_failed(judged: &ModelVerdict, reading: &ModelReading<'_>) -> bool {
    use ModelErrorKind::{Failure, Overloaded};
    let class = match judged.kind {
        Some(Overloaded | Failure) if judged.status >= 500 => {
            reading.classify.class_of(Symptom::Status(judged.status))
        }
        _ if speaks_of_key(judged) && !reading.has_key => Class::Rejected,
        _ if reading.rejected_for_others(judged).is_some() => return true,
        _ => judged.class(),
    };
    matches!(
        class,
        Class::Failure | Class::Throttled | Class::Misconfigured
    )
}

/// Reads an answer as far as its dialect needs it.
///
/// # Errors  It is an error of the provider, or none at all.
pub(super) async fn read(
    head: &mut Parts,
    mut body: PooledBody,
    reading: &ModelReading<'_>,
) -> Result<(ModelBody, PooledBody), HttpError> {
    if head.status.as_u16() >= 400 {
        return read_error(head, body, reading).await;
    }
    let mut ahead = ReadAhead::new(reading.budget);
    let is_array = reading.shape == ApiShape::ContentArray;
    let is_coded = head.headers.contains_key(CONTENT_ENCODING);
    if !reading.shape.is_generating() || is_coded {
        let verdict = Verdict::from(Class::Success);
        return Ok((ModelBody::new(ahead, verdict, None), body));
    }
    if is_array || is_event_stream(&head.headers) {
        let watch = hold_back(head, (&mut ahead, &mut body), reading).await?;
        let watch = ContentWatch::new(watch, reading);
        // An event of ours may follow.
        head.headers.remove(CONTENT_LENGTH);
        let verdict = Verdict::from(Class::Success);
        return Ok((ModelBody::new(ahead, verdict, Some(watch)), body));
    }
    // LLM-10: a whole answer is read before its head is sent.
    while ahead.next(&mut body, MAX_WHOLE).await.is_some() {}
    match ahead.end {
        Some(BodyEnd::Broken) => return Err(HttpFailure::Reset.into()),
        Some(BodyEnd::Whole) => {
            let whole = ahead.joined();
            let judged = judge(reading.shape, head.status.as_u16(), &head.headers, &whole);
            if !judged.is_good() {
                // LLM-3: a success with an error instead of an answer is that error.
                return Err(late_error(head, &judged, whole, reading));
            }
            let figures = figures_of(reading.shape, &whole);
            reading.figures.count(reading.dependency, &figures, None);
            if let Some(hold) = reading.held.take() {
                hold.settle(&figures);
            }
        }
        // It is too long to be judged.
        None => {}
    }
    let verdict = Verdict::from(Class::Success);
    Ok((ModelBody::new(ahead, verdict, None), body))
}

/// Reads a stream until its first content.
async fn hold_back(
    head: &Parts,
    (ahead, body): (&mut ReadAhead, &mut PooledBody),
    reading: &ModelReading<'_>,
) -> Result<StreamWatch, HttpError> {
    let mut watch = StreamWatch::new(reading.shape);
    // LLM-6: the answer begins with the first content.
    while let Some(piece) = ahead.next(body, MAX_OPENING).await {
        let events = watch.feed(&piece);
        if let Some(error) = error_in(events) {
            return Err(reading.without_content(&watch, Some((head, error)), false));
        }
        if watch.has_content() || watch.is_ended() {
            return Ok(watch);
        }
    }
    let Some(ended) = ahead.end else {
        // It is passed on from here: there is no room for more.
        return Ok(watch);
    };
    let (end, events) = watch.finish();
    match error_in(events) {
        None if end == StreamEnd::Good || watch.has_content() => Ok(watch),
        error => {
            let error = error.map(|error| (head, error));
            Err(reading.without_content(&watch, error, ended == BodyEnd::Broken))
        }
    }
}

fn error_in(events: Vec<WatchEvent>) -> Option<StreamError> {
    events.into_iter().find_map(|event| match event {
        WatchEvent::Error(error) => Some(*error),
        _ => None,
    })
}

/// Reads an error, as far as it comes in time.
async fn read_error(
    head: &mut Parts,
    mut body: PooledBody,
    reading: &ModelReading<'_>,
) -> Result<(ModelBody, PooledBody), HttpError> {
    let mut ahead = ReadAhead::new(reading.budget);
    let until = Instant::now() + REST;
    let reading_it = async { while ahead.next(&mut body, MAX_OPENING).await.is_some() {} };
    // The pieces that came by then are judged.
    let _ = timeout_at(until, reading_it).await;
    let joined = ahead.joined();
    let plain = content_coding::decoded(&head.headers, &joined);
    let status = head.status.as_u16();
    let judged = judge(
        reading.shape,
        status,
        &head.headers,
        plain.as_deref().unwrap_or_default(),
    );
    let failure = failure_of(&judged, reading);
    if !is_failed(&judged, reading) {
        let verdict = failure.verdict;
        return Ok((ModelBody::new(ahead, verdict, None), body));
    }
    let is_broken = ahead.end == Some(BodyEnd::Broken);
    let rest = ahead.end.is_none().then_some(body);
    let said = ErrorBody::resumed(ahead.pieces, rest, (is_broken, ahead.share));
    Err(HttpError {
        failure: HttpFailure::Status(status),
        retry_after: judged.retry_after,
        said: Some(Box::new(ErrorResponse {
            head: head.clone(),
            body: said,
        })),
        model: Some(failure),
    })
}

/// Returns the error of an answer that began as a success. `words`: the provider's error as a body.
fn late_error(
    head: &Parts,
    judged: &ModelVerdict,
    words: Bytes,
    reading: &ModelReading<'_>,
) -> HttpError {
    let mut head = head.clone();
    // LLM-6: the error has an HTTP status of its own.
    head.status = StatusCode::from_u16(judged.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    let json = HeaderValue::from_static("application/json");
    head.headers.insert(CONTENT_TYPE, json);
    if let Some(wait) = judged.retry_after {
        let seconds = u64::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX);
        head.headers
            .entry(RETRY_AFTER)
            .or_insert_with(|| seconds.into());
    }
    HttpError {
        failure: HttpFailure::Status(judged.status),
        retry_after: judged.retry_after,
        said: Some(Box::new(ErrorResponse {
            head,
            body: ErrorBody::whole(words, None),
        })),
        model: Some(failure_of(judged, reading)),
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    media.is_some_and(|media| media.starts_with(b"text/event-stream"))
}
