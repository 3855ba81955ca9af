//! The watch of a stream: the meaning of each of its events, wherever the stream is cut into pieces.

use http::HeaderMap;

use super::event_facts::EventFacts;
use super::event_splitter::{EventSplitter, SplitEvent};
use super::shape_state::ShapeState;
use super::stream_error::stream_error;
use super::{AnswerFigures, ApiShape, ModelProblem, ModelVerdict, StreamError, error_event};

/// An event of a stream, as far as it matters for the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A comment, a ping, or an event that cannot be read.
    Ping,
    /// An event of the answer without content: its opening, an empty piece, the end of a part.
    Opening,
    /// Content: text, reasoning, a refusal, a tool call.
    Content,
    /// The provider's error event.
    Error(Box<StreamError>),
    /// The good end of the shape.
    End,
}

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamEnd {
    /// It has ended as its shape ends.
    Good,
    /// An error event has come.
    Failed,
    /// It ended without the mark of its end.
    Truncated,
}

/// A reader beside a stream. It keeps at most one event, of 4 MiB; of a longer one it reads the
/// beginning and the end only.
///
/// # Source  Rules LLM-6 and LLM-8 in docs/rules.md.
#[derive(Debug)]
pub struct StreamWatch {
    shape: ApiShape,
    splitter: EventSplitter,
    state: ShapeState,
    figures: AnswerFigures,
    has_content: bool,
    is_ended: bool,
    is_cut_off: bool,
    has_failed: bool,
    /// The hints in the head of the answer.
    hints: HeaderMap,
}

impl StreamWatch {
    /// Creates the watch of one stream.
    #[must_use]
    pub fn new(shape: ApiShape) -> Self {
        Self {
            shape,
            splitter: EventSplitter::new(shape == ApiShape::ContentArray),
            state: ShapeState::new(shape),
            figures: AnswerFigures::default(),
            has_content: false,
            is_ended: false,
            is_cut_off: false,
            has_failed: false,
            hints: HeaderMap::new(),
        }
    }

    /// Sets the head of the answer, in which the waits and resets stand that an error event may mean.
    #[must_use]
    pub fn with_head(mut self, headers: &HeaderMap) -> Self {
        let is_hint = |name: &str| {
            let words = ["retry", "ratelimit", "rate-limit"];
            words.iter().any(|word| name.contains(word))
        };
        for (name, value) in headers.iter().filter(|(name, _)| is_hint(name.as_str())) {
            self.hints.append(name.clone(), value.clone());
        }
        self
    }

    /// Takes the next piece of the body, and returns the events that end in it, in their order.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        let mut splitter = std::mem::take(&mut self.splitter);
        splitter.feed(piece, &mut |event| self.take(event, &mut events));
        self.splitter = splitter;
        events
    }

    /// Takes the end of the body. An event without the empty line behind it counts: some providers
    /// leave that out at the end.
    pub fn finish(&mut self) -> (StreamEnd, Vec<WatchEvent>) {
        let mut events = Vec::new();
        let mut splitter = std::mem::take(&mut self.splitter);
        splitter.finish(&mut |event| self.take(event, &mut events));
        self.splitter = splitter;
        // A stream of an unknown operation has no mark.
        let is_ended = self.is_ended && !self.is_cut_off || !self.shape.is_generating();
        let end = match (self.has_failed, is_ended) {
            (true, _) => StreamEnd::Failed,
            (false, true) => StreamEnd::Good,
            // LLM-8: an end without its mark is none.
            (false, false) => StreamEnd::Truncated,
        };
        (end, events)
    }

    fn take(&mut self, event: SplitEvent<'_>, events: &mut Vec<WatchEvent>) {
        let SplitEvent::Data(data) = event else {
            events.push(WatchEvent::Ping);
            return;
        };
        match self.state.read(data, &mut self.figures) {
            EventFacts::Nothing => events.push(WatchEvent::Ping),
            EventFacts::CutOff => {
                self.is_cut_off = true;
                events.push(WatchEvent::Opening);
            }
            EventFacts::Failed => {
                self.has_failed = true;
                let error = stream_error(self.shape, data.text, &self.hints);
                events.push(WatchEvent::Error(Box::new(error)));
            }
            EventFacts::Part {
                has_content,
                is_end,
            } => {
                let is_first_end = is_end && !self.is_ended;
                // LLM-6: only content begins the answer for the caller.
                if has_content {
                    self.has_content = true;
                    events.push(WatchEvent::Content);
                } else if !is_first_end {
                    events.push(WatchEvent::Opening);
                }
                if is_first_end {
                    self.is_ended = true;
                    events.push(WatchEvent::End);
                }
            }
        }
    }

    /// Returns true once content has come.
    #[must_use]
    pub const fn has_content(&self) -> bool {
        self.has_content
    }

    /// Returns true once the good end has come.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Returns true once the mark of the stream's end has come although the answer has not ended: a
    /// `[DONE]` without the finish reason of each choice. A client library takes that for a good end.
    #[must_use]
    pub const fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Returns the verdict on a stream with a blocked prompt: there will be no content.
    #[must_use]
    pub fn blocked(&self) -> Option<ModelVerdict> {
        let is_blocked = self.state.is_blocked() && !self.has_content;
        is_blocked.then(|| ModelVerdict::blocked(200))
    }

    /// Returns the figures of the answer so far: usage, the model, the bytes of its content.
    #[must_use]
    pub const fn figures(&self) -> &AnswerFigures {
        &self.figures
    }

    /// Returns the number of bytes since the last whole event. Where they are held back until their
    /// event is whole, an event of ours can follow without a broken one before it.
    #[must_use]
    pub const fn unfinished(&self) -> u64 {
        self.splitter.unfinished()
    }

    /// Returns the number of bytes that are kept, of an event that is not whole.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.splitter.kept()
    }

    /// Returns the number of the next event, which Responses counts.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.state.next_sequence()
    }

    /// Returns our error as the last event of this stream, for an answer that cannot go on. If a
    /// part of an event has been passed on, an empty line ends it first.
    ///
    /// # Source  Rule LLM-8.
    #[must_use]
    pub fn error_event(&self, problem: &ModelProblem<'_>) -> String {
        let event = error_event(self.shape, problem, self.next_sequence());
        if self.unfinished() == 0 || self.shape == ApiShape::ContentArray {
            event
        } else {
            format!("\n\n{event}")
        }
    }
}
