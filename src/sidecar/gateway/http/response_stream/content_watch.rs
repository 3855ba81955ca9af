//! The watch of a model's stream: the clock of its content, and its true end.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::time::{Instant, Sleep, sleep_until};

use super::content::{ModelReading, REST};
use crate::Verdict;
use crate::model::{ApiShape, StreamEnd, StreamWatch, WatchEvent};
use crate::sidecar::gateway::http::content_coding::PieceDecoder;
use crate::sidecar::gateway::http::error::{HttpError, ModelFailure};
use crate::sidecar::gateway::http::model_verdict::{KeyOwner, verdict_of};
use crate::sidecar::gateway::message::{ContentFailure, HttpFailure};
use crate::sidecar::gateway::model_figures::{ContentEnd, ModelFigureTable, StreamTimes};
use crate::sidecar::gateway::token_limits::TokenHold;

/// Maximum length of the mark of the end, with the ends of its lines.
const MAX_MARK: u64 = 16;
/// Its forms.
const MARKS: [&[u8]; 2] = [b"data: [DONE]", b"data:[DONE]"];

/// An error event, and the bytes behind it.
struct FailedStream {
    verdict: Verdict,
    status: u16,
    passed: BytesMut,
}

impl FailedStream {
    fn into_error(self, is_whole: bool) -> HttpError {
        HttpError {
            model: Some(Box::new(ModelFailure {
                verdict: self.verdict,
                rejected: None,
                event: Some((self.passed.freeze(), is_whole)),
            })),
            ..HttpFailure::Status(self.status).into()
        }
    }
}

/// The watch of a stream, which reads it without its coding.
pub(super) struct DecodedWatch {
    decoder: PieceDecoder,
    pub(super) watch: StreamWatch,
}

impl DecodedWatch {
    pub(super) fn new(decoder: PieceDecoder, shape: ApiShape, headers: &HeaderMap) -> Self {
        Self {
            decoder,
            watch: StreamWatch::new(shape).with_head(headers),
        }
    }

    /// Takes the next piece as it came, and returns the events that end in it.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Vec<WatchEvent> {
        if self.decoder.is_plain() {
            return self.watch.feed(piece);
        }
        let mut events = Vec::new();
        let (decoder, watch) = (&mut self.decoder, &mut self.watch);
        decoder.decode(piece, &mut |plain| events.extend(watch.feed(plain)));
        events
    }

    /// Returns true if the stream has no coding.
    pub(super) fn is_plain(&self) -> bool {
        self.decoder.is_plain()
    }
}

/// The watch of a stream, and the clock of its content.
pub(super) struct ContentWatch {
    pub(super) watch: DecodedWatch,
    owner: KeyOwner,
    gap: Option<Duration>,
    /// Time that the provider has taken since the last content, before the present wait.
    waited: Duration,
    /// Start of the present wait.
    asked: Option<Instant>,
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Times of the first and the last content.
    pub(super) content: Option<(Instant, Instant)>,
    failed: Option<FailedStream>,
    /// True if the mark of the end must not pass before the answer has ended.
    checks_mark: bool,
    /// The beginning of an event that may be the mark of the end.
    pub(super) kept: Option<Bytes>,
    /// End of the wait for what follows an end or an error.
    rest_until: Option<Instant>,
    figures: ModelFigureTable,
    dependency: Arc<str>,
    first_token: Option<Duration>,
    longest_gap: Duration,
    end: ContentEnd,
    held: Option<TokenHold>,
}

/// The end of an answer, also where its caller has left: dropping the body has ended its request.
impl Drop for ContentWatch {
    fn drop(&mut self) {
        let times = StreamTimes {
            end: self.end,
            first_token: self.first_token,
            longest_gap: self.longest_gap,
        };
        let answer = self.watch.watch.figures();
        // LLM-23: the tokens until here are counted and settled.
        self.figures.count(&self.dependency, answer, Some(times));
        if let Some(hold) = self.held.take() {
            hold.settle(answer);
        }
    }
}

impl ContentWatch {
    pub(super) fn new(watch: DecodedWatch, reading: &ModelReading<'_>) -> Self {
        let now = Instant::now();
        Self {
            owner: reading.owner,
            gap: reading.gap,
            waited: Duration::ZERO,
            asked: None,
            alarm: None,
            content: Some((now, now)),
            failed: None,
            checks_mark: watch.is_plain() && reading.shape == ApiShape::Chat,
            kept: None,
            rest_until: None,
            first_token: Some(now - reading.began),
            longest_gap: Duration::ZERO,
            end: ContentEnd::Cancelled,
            held: reading.held.take(),
            figures: reading.figures.clone(),
            dependency: Arc::clone(reading.dependency),
            watch,
        }
    }

    /// Returns true once the mark of the end has come although the answer has not ended.
    pub(super) fn is_cut_off(&self) -> bool {
        self.checks_mark && self.watch.watch.is_cut_off()
    }

    /// Returns the part of a piece that was read and can be passed on.
    pub(super) fn passable(&mut self, mut piece: Bytes) -> Bytes {
        let unfinished = self.watch.watch.unfinished();
        if self.is_cut_off() {
            // LLM-8: a client library takes the mark for a good end; our event comes in its place.
            piece.truncate(place_of_mark(&piece));
        } else if self.checks_mark && (1..=MAX_MARK).contains(&unfinished) {
            let begin = (piece.len() as u64).saturating_sub(unfinished) as usize;
            if may_be_mark(&piece[begin..]) {
                self.kept = Some(piece.split_off(begin));
            }
        }
        piece
    }

    /// Takes a piece. Returns it if it can be passed on.
    pub(super) fn take(&mut self, piece: Bytes) -> Option<Bytes> {
        let now = Instant::now();
        if let Some(asked) = self.asked.take() {
            self.waited += now - asked;
        }
        if let Some(failed) = &mut self.failed {
            failed.passed.extend_from_slice(&piece);
            return None;
        }
        let events = self.watch.feed(&piece);
        let piece = match self.kept.take() {
            Some(kept) => Bytes::from([kept, piece].concat()),
            None => piece,
        };
        for event in events {
            match event {
                WatchEvent::Content => {
                    // LLM-9: pings and comments are none.
                    self.longest_gap = self.longest_gap.max(self.waited);
                    self.waited = Duration::ZERO;
                    let first = self.content.map_or(now, |(first, _)| first);
                    self.content = Some((first, now));
                }
                WatchEvent::Error(error) if self.failed.is_none() => {
                    self.end = ContentEnd::ErrorEvent;
                    self.failed = Some(FailedStream {
                        verdict: verdict_of(&error.verdict, self.owner),
                        status: error.verdict.status,
                        passed: BytesMut::from(&piece[..]),
                    });
                }
                _ => {}
            }
        }
        // LLM-8: an error is counted before the caller sees it.
        if self.failed.is_some() {
            return None;
        }
        Some(self.passable(piece)).filter(|piece| !piece.is_empty())
    }

    /// Checks the limits while the provider sends nothing: ready with a failure, or with `None` where
    /// the stream has ended well.
    pub(super) fn poll_gap(&mut self, cx: &mut Context<'_>) -> Poll<Option<HttpError>> {
        let now = Instant::now();
        let is_over = self.failed.is_some() || self.watch.watch.is_ended();
        let until = if is_over {
            Some(*self.rest_until.get_or_insert(now + REST))
        } else {
            // LLM-9: time that the caller takes counts for nothing.
            let asked = *self.asked.get_or_insert(now);
            self.gap.map(|gap| asked + gap.saturating_sub(self.waited))
        };
        let Some(until) = until else {
            return Poll::Pending;
        };
        loop {
            let early = self.alarm.as_mut().filter(|(at, _)| *at <= until);
            let Some((_, alarm)) = early else {
                self.alarm = Some((until, Box::pin(sleep_until(until))));
                continue;
            };
            ready!(alarm.as_mut().poll(cx));
            self.alarm = None;
            if Instant::now() >= until {
                break;
            }
        }
        if let Some(failed) = self.failed.take() {
            return Poll::Ready(Some(failed.into_error(false)));
        }
        if self.watch.watch.is_ended() {
            self.end = ContentEnd::Good;
            return Poll::Ready(None);
        }
        self.end = ContentEnd::Gap;
        self.longest_gap = self.longest_gap.max(self.gap.unwrap_or_default());
        Poll::Ready(Some(HttpFailure::Content(ContentFailure::Gap).into()))
    }

    /// Returns the failure of a body that has ended, if it is one.
    pub(super) fn at_end(&mut self, is_broken: bool) -> Option<HttpError> {
        if let Some(failed) = self.failed.take() {
            return Some(failed.into_error(!is_broken));
        }
        let (end, events) = self.watch.watch.finish();
        self.end = match end {
            StreamEnd::Good => ContentEnd::Good,
            StreamEnd::Failed => ContentEnd::ErrorEvent,
            StreamEnd::Truncated if is_broken => ContentEnd::Cut,
            StreamEnd::Truncated => ContentEnd::Truncated,
        };
        match (end, events) {
            (StreamEnd::Good, _) => None,
            (StreamEnd::Truncated, _) if is_broken => Some(HttpFailure::Reset.into()),
            (StreamEnd::Truncated, _) => {
                Some(HttpFailure::Content(ContentFailure::Truncated).into())
            }
            // Most of its bytes have been passed on.
            (StreamEnd::Failed, events) => {
                let error = events.into_iter().find_map(|event| match event {
                    WatchEvent::Error(error) => Some(error.verdict),
                    _ => None,
                })?;
                let failed = FailedStream {
                    verdict: verdict_of(&error, self.owner),
                    status: error.status,
                    passed: BytesMut::from(&self.kept.take().unwrap_or_default()[..]),
                };
                Some(failed.into_error(!is_broken))
            }
        }
    }
}

/// Returns true if an event that begins so may be the mark.
fn may_be_mark(begin: &[u8]) -> bool {
    let is_either = |mark: &&[u8]| mark.starts_with(begin) || begin.starts_with(mark);
    MARKS.iter().any(is_either)
}

/// Returns the place of the line that marks the end of a stream; the end if there is none.
fn place_of_mark(piece: &[u8]) -> usize {
    let mut place = 0;
    for line in piece.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let value = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii);
        if value == Some(b"[DONE]") {
            return place;
        }
        place += line.len();
    }
    piece.len()
}
