//! Stream of a session's own messages, and those of them that a caller may have missed.
//!
//! MCP-5: messages are numbered, and the number is the id of their event. A caller that comes back
//! gets the messages that it missed, or is told of a gap. The memory for them is bounded.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::caller_message::CallerMessage;
use crate::buffer_budget::BufferBudget;
use crate::lock::LockExt as _;

/// Maximum number of messages that are kept for a session.
const MAX_KEPT: usize = 256;
/// Maximum size of the messages that are kept for a session, in bytes.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// A message with its number.
#[derive(Debug, Clone)]
pub(super) struct SessionEvent {
    pub(super) number: u64,
    pub(super) message: CallerMessage,
}

/// The messages of a session that belong to none of its calls.
pub(super) struct SessionStream {
    budget: BufferBudget,
    state: Mutex<StreamState>,
}

#[derive(Default)]
struct StreamState {
    sender: Option<mpsc::Sender<SessionEvent>>,
    /// The latest messages, with gaps where one was too large or had no room.
    kept: VecDeque<(u64, Bytes)>,
    kept_bytes: usize,
    /// Number of the last message.
    last: u64,
    /// Number of the last message that went into a stream.
    handed: u64,
    /// True if no message comes any more.
    is_finished: bool,
}

/// A stream that was opened.
pub(super) struct OpenedStream {
    pub(super) messages: mpsc::Receiver<SessionEvent>,
    /// Number of the last message before it.
    pub(super) after: u64,
    /// Number of messages after that which are not kept any more.
    pub(super) missed: u64,
}

impl SessionStream {
    pub(super) fn new(budget: &BufferBudget) -> Self {
        Self {
            budget: budget.clone(),
            state: Mutex::default(),
        }
    }

    /// Opens the stream. A former one ends. `after`: the last message that the caller has got; else
    /// it gets those that went into no stream.
    ///
    /// # Errors  There was no such message: the last number.
    pub(super) fn open(&self, after: Option<u64>) -> Result<OpenedStream, u64> {
        let (sender, messages) = mpsc::channel(2 * MAX_KEPT);
        let mut state = self.state.acquire();
        let after = match after {
            Some(after) if after > state.last => return Err(state.last),
            Some(after) => after,
            None => state.handed,
        };
        let mut replayed = 0;
        for (number, message) in state.kept.iter().filter(|(number, _)| *number > after) {
            let event = SessionEvent {
                number: *number,
                message: vec![message.clone()],
            };
            // There is room for all of them.
            let _ = sender.try_send(event);
            replayed += 1;
        }
        // The stream of a call that is over ends with the messages that are kept.
        state.sender = (!state.is_finished).then_some(sender);
        state.handed = state.last;
        Ok(OpenedStream {
            messages,
            after,
            missed: state.last - after - replayed,
        })
    }

    /// Sends a message, and keeps it. Returns true if a stream has taken it.
    pub(super) fn tell(&self, message: CallerMessage) -> bool {
        let mut state = self.state.acquire();
        state.last += 1;
        let number = state.last;
        let message = match self.keep(&mut state, &message) {
            Some(kept) => vec![kept],
            None => message,
        };
        let Some(sender) = &state.sender else {
            return false;
        };
        if sender.try_send(SessionEvent { number, message }).is_ok() {
            state.handed = number;
            return true;
        }
        // A caller that is gone, or reads too slowly: it may come back for the rest.
        state.sender = None;
        false
    }

    /// Sends a message if a stream is open. Returns false if none is.
    pub(super) fn tell_now(&self, message: CallerMessage) -> bool {
        self.is_open() && self.tell(message)
    }

    /// Keeps a copy of a message, if there is room for it.
    fn keep(&self, state: &mut StreamState, message: &CallerMessage) -> Option<Bytes> {
        let size: usize = message.iter().map(Bytes::len).sum();
        if size > MAX_KEPT_BYTES {
            return None;
        }
        // EDGE-4: kept messages count. A copy, since the message is a part of a larger text.
        let room = self.budget.try_take(size)?;
        let kept = room.hold(message.concat());
        state.kept.push_back((state.last, kept.clone()));
        state.kept_bytes += size;
        while state.kept.len() > MAX_KEPT || state.kept_bytes > MAX_KEPT_BYTES {
            // CALL-6: nothing is unbounded.
            if let Some((_, oldest)) = state.kept.pop_front() {
                state.kept_bytes -= oldest.len();
            }
        }
        Some(kept)
    }

    /// Returns true while a caller reads the stream.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.acquire();
        let sender = state.sender.as_ref();
        sender.is_some_and(|sender| !sender.is_closed())
    }

    /// Returns true if a caller reads so slowly that it should be waited for.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state.acquire();
        let sender = state.sender.as_ref().filter(|sender| !sender.is_closed());
        // As many as may wait in a call come at once with its answer.
        sender.is_some_and(|sender| sender.capacity() <= MAX_KEPT + 1)
    }

    /// Ends the stream for good. Kept messages can still be read.
    pub(super) fn finish(&self) {
        let mut state = self.state.acquire();
        state.is_finished = true;
        state.sender = None;
    }

    /// Lets the kept messages go. A caller that comes back is told of the gap.
    pub(super) fn forget(&self) {
        let mut state = self.state.acquire();
        state.kept.clear();
        state.kept_bytes = 0;
    }

    /// Returns true if no message comes any more.
    pub(super) fn is_finished(&self) -> bool {
        self.state.acquire().is_finished
    }

    /// Ends the stream.
    pub(super) fn end(&self) {
        self.state.acquire().sender = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> SessionStream {
        SessionStream::new(&BufferBudget::new(4 << 20))
    }

    fn message(text: &str) -> CallerMessage {
        vec![Bytes::copy_from_slice(text.as_bytes())]
    }

    /// The messages that wait in a stream.
    fn waiting(opened: &mut OpenedStream) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        while let Ok(event) = opened.messages.try_recv() {
            let text = String::from_utf8(event.message.concat()).unwrap();
            all.push((event.number, text));
        }
        all
    }

    fn numbered(numbers: std::ops::RangeInclusive<u64>) -> Vec<(u64, String)> {
        numbers.map(|number| (number, number.to_string())).collect()
    }

    #[test]
    fn mcp_5_a_caller_that_comes_back_gets_what_it_missed() {
        let stream = stream();
        stream.tell(message("1"));
        let mut first = stream.open(None).unwrap();
        assert!(stream.tell(message("2")));
        assert_eq!(waiting(&mut first), numbered(1..=2));
        drop(first);
        assert!(!stream.tell(message("3")));
        assert!(!stream.tell_now(message("unsent")), "no stream is open");
        // The second one was lost with the connection.
        let mut again = stream.open(Some(1)).unwrap();
        assert_eq!((again.after, again.missed), (1, 0));
        assert_eq!(waiting(&mut again), numbered(2..=3));
        // Without an id it gets the rest.
        let mut plain = stream.open(None).unwrap();
        assert_eq!((waiting(&mut plain), plain.after), (Vec::new(), 3));
        assert_eq!(stream.open(Some(4)).err(), Some(3), "there was none");
    }

    #[test]
    fn mcp_5_what_is_kept_is_bounded_and_a_gap_is_told() {
        let stream = stream();
        for number in 1..=300 {
            stream.tell(message(&number.to_string()));
        }
        let mut opened = stream.open(Some(10)).unwrap();
        assert_eq!(opened.missed, 34);
        assert_eq!(waiting(&mut opened), numbered(45..=300));
        let large = "x".repeat(MAX_KEPT_BYTES / 2);
        for _ in 0..3 {
            stream.tell(message(&large));
        }
        assert_eq!(stream.open(Some(300)).unwrap().missed, 1);
        stream.tell(message(&"x".repeat(MAX_KEPT_BYTES + 1)));
        assert_eq!(stream.open(Some(302)).unwrap().missed, 1, "it is too large");
    }

    #[test]
    fn edge_4_mcp_5_what_is_kept_counts_in_the_budget() {
        let budget = BufferBudget::new(100);
        let stream = SessionStream::new(&budget);
        stream.tell(message(&"x".repeat(60)));
        stream.tell(message(&"y".repeat(60)));
        assert_eq!(budget.present().used, 60);
        assert_eq!(stream.open(Some(0)).unwrap().missed, 1);
        drop(stream);
        assert_eq!(budget.present().used, 0);
    }

    #[test]
    fn mcp_5_a_slow_caller_comes_back_for_the_rest() {
        let stream = stream();
        let mut slow = stream.open(None).unwrap();
        for number in 1..=600 {
            stream.tell(message(&number.to_string()));
        }
        let got = waiting(&mut slow);
        assert_eq!(got, numbered(1..=512));
        assert!(slow.messages.try_recv().is_err());
        let mut again = stream.open(Some(512)).unwrap();
        assert_eq!(
            (waiting(&mut again), again.missed),
            (numbered(513..=600), 0)
        );
    }
}
