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

use super::content_watch::{ContentWatch, DecodedWatch};
use super::read_ahead::{BodyEnd, ReadAhead};
use crate::buffer_budget::{BufferBudget, BufferShare};
use crate::model::{
    AnswerFigures, ApiShape, ModelErrorKind, ModelVerdict, StreamEnd, StreamError, StreamWatch,
    WatchEvent, figures_of, has_answer, is_whole, judge,
};
use crate::sidecar::gateway::http::content_coding::{self, PieceDecoder};
use crate::sidecar::gateway::http::error::{ErrorResponse, HttpError, ModelFailure};
use crate::sidecar::gateway::http::error_body::ErrorBody;
use crate::sidecar::gateway::http::model_verdict::{
    KeyOwner, is_affair_of_caller, is_event_stream, verdict_of,
};
use crate::sidecar::gateway::http::pool::PooledBody;
use crate::sidecar::gateway::message::{ContentFailure, HttpFailure};
use crate::sidecar::gateway::model_figures::{ContentEnd, ModelFigureTable, StreamTimes};
use crate::sidecar::gateway::token_limits::{HeldTokens, TokenHold};
use crate::{Verdict, retry_after};

/// Maximum size of a whole answer that is read before its head is passed on, in bytes.
const MAX_WHOLE: usize = 8_000_000;
/// The same for the opening of a stream, and for an error.
const MAX_OPENING: usize = 65_536;
/// Maximum time to wait for the rest of an error, and of a stream behind its end or error.
pub(super) const REST: Duration = Duration::from_millis(500);

/// Facts of an attempt that are known before its answer comes.
pub(crate) struct ModelReading<'a> {
    pub(crate) shape: ApiShape,
    /// True if the answer is to be a stream.
    pub(crate) is_stream: bool,
    /// Maximum time between two pieces of content (`timeout.gap`).
    pub(crate) gap: Option<Duration>,
    pub(crate) classify: &'a ClassifySettings,
    pub(crate) owner: KeyOwner,
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
                let mut head = head.clone();
                // The words were read without it.
                head.headers.remove(CONTENT_ENCODING);
                let failure = late_error(&head, &error.verdict, words, self);
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
    /// The figures of a whole answer.
    whole: Option<AnswerFigures>,
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
            whole: None,
            share: ahead.share,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns the figures of a whole answer.
    pub(super) fn whole_figures(&self) -> Option<&AnswerFigures> {
        self.whole.as_ref()
    }

    /// Returns the figures of a stream, as far as it has come.
    pub(super) fn stream_figures(&self) -> Option<&AnswerFigures> {
        Some(self.watch.as_ref()?.watch.watch.figures())
    }

    /// Turns an unsuccessful response into an error, before any of it is passed on.
    pub(super) fn into_error(self, head: Parts, rest: PooledBody) -> HttpError {
        let is_broken = self.end == Some(BodyEnd::Broken);
        let rest = self.end.is_none().then_some(rest);
        HttpError {
            failure: HttpFailure::Status(head.status.as_u16()),
            executed: None,
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

    /// Returns the number of the next event, and true if no part of an event has been passed on;
    /// `None` for a stream with a coding, to which no event can be added.
    pub(super) fn place(&self) -> Option<(u64, bool)> {
        let content = self.watch.as_ref()?;
        let watch = &content.watch;
        let kept = content.kept.as_ref().map_or(0, Bytes::len);
        let is_whole = watch.watch.unfinished() <= kept as u64;
        let place = (watch.watch.next_sequence(), is_whole);
        watch.is_plain().then_some(place)
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
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.is_cut_off()) {
            self.end = Some(BodyEnd::Whole);
            return Poll::Ready(watch.at_end(false).map(Err));
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
                    let failure = watch.at_end(is_broken);
                    let rest = watch.kept.take().filter(|_| failure.is_none());
                    return Poll::Ready(rest.map(Ok).or(failure.map(Err)));
                }
            }
        }
    }
}

/// Returns the failure, with its verdict before any content was passed on.
fn failure_of(judged: &ModelVerdict, reading: &ModelReading<'_>) -> Box<ModelFailure> {
    let Some(kind) = reading.rejected_for_others(judged) else {
        return ModelFailure::new(verdict_of(judged, reading.owner));
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
        _ if is_affair_of_caller(judged, reading.owner) => Class::Rejected,
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
    body: PooledBody,
    reading: &ModelReading<'_>,
) -> Result<(ModelBody, PooledBody), HttpError> {
    if head.status.as_u16() >= 400 {
        return read_error(head, body, reading).await;
    }
    let ahead = ReadAhead::new(reading.budget);
    if !reading.shape.is_generating() {
        let verdict = Verdict::from(Class::Success);
        return Ok((ModelBody::new(ahead, verdict, None), body));
    }
    let Some(decoder) = PieceDecoder::of(&head.headers) else {
        // There is no decoder for it here. Its prompt was read, and counts.
        reading.held.take().into_iter().for_each(TokenHold::used);
        let verdict = Verdict::from(Class::Success);
        return Ok((ModelBody::new(ahead, verdict, None), body));
    };
    if is_stream(&head.headers, reading) {
        return read_stream(head, (ahead, body), decoder, reading).await;
    }
    read_whole(head, (ahead, body), reading).await
}

/// Reads a stream until its first content.
async fn read_stream(
    head: &mut Parts,
    (mut ahead, mut body): (ReadAhead, PooledBody),
    decoder: PieceDecoder,
    reading: &ModelReading<'_>,
) -> Result<(ModelBody, PooledBody), HttpError> {
    let watch = DecodedWatch::new(decoder, reading.shape, &head.headers);
    let watch = hold_back(head, (&mut ahead, &mut body), (watch, reading)).await?;
    if let Some(judged) = watch.watch.blocked() {
        let figures = watch.watch.figures();
        reading.figures.count(reading.dependency, figures, None);
        reading
            .held
            .take()
            .into_iter()
            .for_each(|hold| hold.settle(figures));
        return Err(said_so(head, &judged, (ahead, body), reading));
    }
    let mut watch = ContentWatch::new(watch, reading);
    if let Some(last) = ahead.pieces.pop_back() {
        ahead.pieces.push_back(watch.passable(last));
    }
    // An event of ours may follow.
    head.headers.remove(CONTENT_LENGTH);
    let verdict = Verdict::from(Class::Success);
    Ok((ModelBody::new(ahead, verdict, Some(watch)), body))
}

/// Reads a whole answer before its head is sent.
///
/// # Source  Rule LLM-10 in docs/rules.md.
async fn read_whole(
    head: &Parts,
    (mut ahead, mut body): (ReadAhead, PooledBody),
    reading: &ModelReading<'_>,
) -> Result<(ModelBody, PooledBody), HttpError> {
    while ahead.next(&mut body, MAX_WHOLE).await.is_some() {}
    let mut figures = None;
    match ahead.end {
        Some(BodyEnd::Broken) => return Err(HttpFailure::Reset.into()),
        Some(BodyEnd::Whole) => {
            let whole = ahead.joined();
            let plain = content_coding::decoded_up_to(&head.headers, &whole, MAX_WHOLE);
            let plain = plain.unwrap_or_default();
            let judged = judge(reading.shape, head.status.as_u16(), &head.headers, &plain);
            if !judged.is_good() {
                // LLM-3: a success with an error instead of an answer is that error.
                return Err(late_error(head, &judged, whole, reading));
            }
            // LLM-10: a part of an answer, or the page of a proxy, is none.
            let is_bounded = plain.len() >= MAX_WHOLE;
            if head.status.is_success() && !is_bounded && !is_whole(&plain) {
                return Err(HttpFailure::Content(match plain.is_empty() {
                    true => ContentFailure::Empty,
                    false => ContentFailure::Truncated,
                })
                .into());
            }
            // LLM-3: nor is the error of a server that speaks no API of models.
            if head.status.is_success() && !is_bounded && !has_answer(reading.shape, &plain) {
                return Err(HttpFailure::Content(ContentFailure::NoAnswer).into());
            }
            let read = figures_of(reading.shape, &plain);
            reading.figures.count(reading.dependency, &read, None);
            if let Some(hold) = reading.held.take() {
                hold.settle(&read);
            }
            figures = Some(read);
        }
        // It is too long to be judged, and its usage is not known.
        None => reading.held.take().into_iter().for_each(TokenHold::used),
    }
    let verdict = Verdict::from(Class::Success);
    let mut whole = ModelBody::new(ahead, verdict, None);
    whole.whole = figures;
    Ok((whole, body))
}

/// Reads a stream until its first content.
async fn hold_back(
    head: &Parts,
    (ahead, body): (&mut ReadAhead, &mut PooledBody),
    (mut watch, reading): (DecodedWatch, &ModelReading<'_>),
) -> Result<DecodedWatch, HttpError> {
    // LLM-6: the answer begins with the first content.
    while let Some(piece) = ahead.next(body, MAX_OPENING).await {
        let events = watch.feed(&piece);
        if let Some(error) = error_in(events) {
            return Err(reading.without_content(&watch.watch, Some((head, error)), false));
        }
        if watch.watch.has_content() || watch.watch.is_ended() {
            return Ok(watch);
        }
    }
    let Some(ended) = ahead.end else {
        // It is passed on from here: there is no room for more.
        return Ok(watch);
    };
    let (end, events) = watch.watch.finish();
    match error_in(events) {
        None if end == StreamEnd::Good || watch.watch.has_content() => Ok(watch),
        None if ended == BodyEnd::Whole => {
            // LLM-3: some say their errors without the words of a stream.
            let whole = ahead.joined();
            let plain = content_coding::decoded(&head.headers, &whole).unwrap_or_default();
            let judged = judge(reading.shape, head.status.as_u16(), &head.headers, &plain);
            let failure = reading.without_content(&watch.watch, None, false);
            Err(match judged.is_good() {
                true => failure,
                false => late_error(head, &judged, whole, reading),
            })
        }
        error => {
            let error = error.map(|error| (head, error));
            Err(reading.without_content(&watch.watch, error, ended == BodyEnd::Broken))
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
    Err(said_so(head, &judged, (ahead, body), reading))
}

/// Returns the error of an answer that is passed on as it came, if no other one is found.
fn said_so(
    head: &Parts,
    judged: &ModelVerdict,
    (ahead, body): (ReadAhead, PooledBody),
    reading: &ModelReading<'_>,
) -> HttpError {
    let is_broken = ahead.end == Some(BodyEnd::Broken);
    let rest = ahead.end.is_none().then_some(body);
    let said = ErrorBody::resumed(ahead.pieces, rest, (is_broken, ahead.share));
    HttpError {
        failure: HttpFailure::Status(judged.status),
        executed: None,
        retry_after: judged.retry_after,
        said: Some(Box::new(ErrorResponse {
            head: head.clone(),
            body: said,
        })),
        model: Some(failure_of(judged, reading)),
    }
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
        executed: None,
        retry_after: judged.retry_after,
        said: Some(Box::new(ErrorResponse {
            head,
            body: ErrorBody::whole(words, None),
        })),
        model: Some(failure_of(judged, reading)),
    }
}

/// Returns true if an answer is a stream of events. One that should be a stream, and is no JSON, is
/// read as one: its provider may have named it wrongly.
fn is_stream(headers: &HeaderMap, reading: &ModelReading<'_>) -> bool {
    let is_wanted = reading.is_stream && !retry_after::is_json(headers, b"");
    reading.shape == ApiShape::ContentArray || is_event_stream(headers) || is_wanted
}
