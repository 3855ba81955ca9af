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
use crate::mcp::json_text::in_one_line;

/// Time without an event after which a comment is sent: a caller that is gone is noticed by it.
const ALIVE: Duration = Duration::from_secs(15);

/// The answer of a call; `None` if the caller has cancelled it.
pub(super) type FinalMessage = Pin<Box<dyn Future<Output = Option<CallerMessage>>>>;

/// A stream of events. Dropping it drops the call.
pub(super) struct EventBody {
    messages: Option<mpsc::Receiver<CallerMessage>>,
    call: Option<FinalMessage>,
    ready: VecDeque<Bytes>,
    alive: Pin<Box<Sleep>>,
    has_ended: bool,
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
        let mut body = Self::begun(messages);
        for message in first {
            body.push(message);
        }
        body.call = Some(call);
        body
    }

    /// Creates a stream without an answer, which ends with its sender. `guard`: kept as long.
    pub(super) fn of_messages(
        first: Option<CallerMessage>,
        messages: mpsc::Receiver<CallerMessage>,
        guard: Option<Box<dyn std::any::Any>>,
    ) -> Self {
        let mut body = Self::begun(messages);
        match first {
            Some(message) => body.push(message),
            // The head of the response is sent with its first bytes.
            None => body.ready.push_back(Bytes::from_static(b": open\n\n")),
        }
        body._guard = guard;
        body
    }

    fn begun(messages: mpsc::Receiver<CallerMessage>) -> Self {
        Self {
            messages: Some(messages),
            call: None,
            ready: VecDeque::new(),
            alive: Box::pin(sleep(ALIVE)),
            has_ended: false,
            _guard: None,
        }
    }

    fn push(&mut self, message: CallerMessage) {
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
        match messages.poll_recv(cx) {
            Poll::Ready(Some(message)) => {
                self.push(message);
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
        // What the server said before its answer comes before it.
        while let Some(Ok(message)) = self.messages.as_mut().map(mpsc::Receiver::try_recv) {
            self.push(message);
        }
        if let Some(answer) = answer {
            self.push(answer);
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
