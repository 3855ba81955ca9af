//! The response to a call as a stream of events: what the server says meanwhile, and the answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};

use super::caller_message::CallerMessage;
use super::session_stream::{OpenedStream, SessionEvent};
use crate::mcp::json_text::in_one_line;

/// Time without an event after which a comment is sent: a caller that is gone is noticed by it.
const ALIVE: Duration = Duration::from_secs(15);

/// The answer of a call; `None` if the caller has cancelled it.
pub(super) type FinalMessage = Pin<Box<dyn Future<Output = Option<CallerMessage>>>>;

/// The messages of a stream.
enum MessageSource {
    /// They cannot be asked for again.
    Plain(mpsc::Receiver<CallerMessage>),
    /// Their events have ids.
    Session(mpsc::Receiver<SessionEvent>),
}

impl MessageSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Option<u64>, CallerMessage)>> {
        match self {
            Self::Plain(messages) => messages
                .poll_recv(cx)
                .map(|one| one.map(|message| (None, message))),
            Self::Session(messages) => messages
                .poll_recv(cx)
                .map(|one| one.map(|event| (Some(event.number), event.message))),
        }
    }

    fn try_next(&mut self) -> Option<CallerMessage> {
        match self {
            Self::Plain(messages) => messages.try_recv().ok(),
            Self::Session(messages) => messages.try_recv().ok().map(|event| event.message),
        }
    }
}

/// A stream of events. Dropping it drops the call.
pub(super) struct EventBody {
    messages: Option<MessageSource>,
    call: Option<FinalMessage>,
    ready: VecDeque<Bytes>,
    alive: Pin<Box<Sleep>>,
    has_ended: bool,
    /// Of the ids of its events.
    prefix: String,
    /// Kept as long as the stream.
    _guard: Option<Box<dyn std::any::Any>>,
}

impl EventBody {
    /// Creates the stream of a call. `first`: the messages that have come already.
    pub(super) fn of_call(
        first: Vec<CallerMessage>,
        messages: mpsc::Receiver<CallerMessage>,
        call: FinalMessage,
    ) -> Self {
        let mut body = Self::begun(MessageSource::Plain(messages));
        for message in first {
            body.push(None, message);
        }
        body.call = Some(call);
        body
    }

    /// Creates a stream without an answer, which ends with its sender. `guard`: kept as long.
    pub(super) fn of_messages(
        first: CallerMessage,
        messages: mpsc::Receiver<CallerMessage>,
        guard: Box<dyn std::any::Any>,
    ) -> Self {
        let mut body = Self::begun(MessageSource::Plain(messages));
        body.push(None, first);
        body._guard = Some(guard);
        body
    }

    /// Creates a stream that can be taken up again, which ends with its sender. `prefix`: of its ids;
    /// `primes`: the caller is given the id after which the stream begins, so that it can come back
    /// before the first message.
    pub(super) fn of_session(
        opened: OpenedStream,
        (prefix, primes): (String, bool),
        first: Vec<CallerMessage>,
    ) -> Self {
        let mut body = Self::begun(MessageSource::Session(opened.messages));
        // The head of the response is sent with its first bytes.
        body.ready.push_back(match primes {
            true => Bytes::from(format!("id: {prefix}{}\ndata:\n\n", opened.after)),
            false => Bytes::from_static(b": open\n\n"),
        });
        for message in first {
            body.push(None, message);
        }
        body.prefix = prefix;
        body
    }

    fn begun(messages: MessageSource) -> Self {
        Self {
            messages: Some(messages),
            call: None,
            ready: VecDeque::new(),
            alive: Box::pin(sleep(ALIVE)),
            has_ended: false,
            prefix: String::new(),
            _guard: None,
        }
    }

    fn push(&mut self, id: Option<u64>, message: CallerMessage) {
        if let Some(id) = id {
            let id = format!("id: {}{id}\n", self.prefix);
            self.ready.push_back(Bytes::from(id));
        }
        self.ready
            .push_back(Bytes::from_static(b"event: message\ndata: "));
        self.ready.extend(message.into_iter().map(in_one_line));
        self.ready.push_back(Bytes::from_static(b"\n\n"));
    }

    /// Takes a message that has come. Returns false if none has.
    fn take_message(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(messages) = &mut self.messages else {
            return false;
        };
        match messages.poll_next(cx) {
            Poll::Ready(Some((id, message))) => {
                self.push(id, message);
                true
            }
            Poll::Ready(None) => {
                self.messages = None;
                self.has_ended |= self.call.is_none();
                self.has_ended
            }
            Poll::Pending => false,
        }
    }

    /// Takes the answer, if it has come.
    fn take_answer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(call) = &mut self.call else {
            return false;
        };
        let Poll::Ready(answer) = call.as_mut().poll(cx) else {
            return false;
        };
        self.call = None;
        // Earlier messages of the server come before its answer.
        while let Some(message) = self.messages.as_mut().and_then(MessageSource::try_next) {
            self.push(None, message);
        }
        if let Some(answer) = answer {
            self.push(None, answer);
        }
        self.has_ended = true;
        true
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.ready.pop_front() {
                if this.ready.is_empty() {
                    this.alive.as_mut().reset(Instant::now() + ALIVE);
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.has_ended {
                return Poll::Ready(None);
            }
            if this.take_message(cx) || this.take_answer(cx) {
                continue;
            }
            if this.alive.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.alive.as_mut().reset(Instant::now() + ALIVE);
            this.ready.push_back(Bytes::from_static(b": alive\n\n"));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended && self.ready.is_empty()
    }
}
