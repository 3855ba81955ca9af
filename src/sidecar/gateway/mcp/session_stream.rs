//! Stream of a session's own messages, and those of them that a caller may have missed.
//!
//! MCP-5: messages are numbered, and the number is the id of their event. A caller that comes back
//! gets the messages that it missed, or is told of a gap. The memory for them is bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::caller_message::CallerMessage;
use super::message_history::{KeptMessage, MAX_MESSAGE, MessageHistory};
use crate::lock::LockExt as _;

/// Maximum number of messages that are kept for a session.
const MAX_KEPT: usize = 256;
/// Maximum size of the messages that are kept for a session, in bytes.
const MAX_KEPT_BYTES: usize = MAX_MESSAGE;

/// A message with its number.
#[derive(Debug, Clone)]
pub(super) struct SessionEvent {
    pub(super) number: u64,
    pub(super) message: CallerMessage,
}

/// The messages of a session that belong to none of its calls.
pub(super) struct SessionStream {
    history: Arc<MessageHistory>,
    state: Mutex<StreamState>,
}

#[derive(Default)]
struct StreamState {
    sender: Option<mpsc::Sender<SessionEvent>>,
    /// The latest messages, with gaps where one was too large or had no room.
    kept: VecDeque<(u64, Arc<KeptMessage>)>,
    kept_bytes: usize,
    /// Number of the last message.
    last: u64,
    /// Number of the last message that went into a stream.
    handed: u64,
    /// True if no message comes any more.
    is_finished: bool,
}

impl StreamState {
    fn keep(&mut self, message: Arc<KeptMessage>) {
        self.kept_bytes += message.size;
        self.kept.push_back((self.last, message));
        while self.kept.len() > MAX_KEPT || self.kept_bytes > MAX_KEPT_BYTES {
            // CALL-6: nothing is unbounded.
            if let Some((_, oldest)) = self.kept.pop_front() {
                self.kept_bytes -= oldest.size;
            }
        }
    }
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
    pub(super) fn new(history: &Arc<MessageHistory>) -> Self {
        Self {
            history: Arc::clone(history),
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
            let Some(text) = message.text() else {
                continue;
            };
            let event = SessionEvent {
                number: *number,
                message: vec![text],
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
        let kept = self.history.keep(&message);
        self.tell_kept(message, kept)
    }

    /// Sends a message of which there is a kept copy, if there was room for one.
    pub(super) fn tell_kept(&self, message: CallerMessage, kept: Option<Arc<KeptMessage>>) -> bool {
        let mut state = self.state.acquire();
        state.last += 1;
        let number = state.last;
        let copy = kept.as_ref().and_then(|kept| kept.text());
        let message = copy.map_or(message, |copy| vec![copy]);
        if let Some(kept) = kept {
            state.keep(kept);
        }
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
    use bytes::Bytes;

    use super::*;
    use crate::buffer_budget::BufferBudget;

    fn stream_of(budget: &BufferBudget) -> SessionStream {
        SessionStream::new(&MessageHistory::new(budget))
    }

    fn stream() -> SessionStream {
        stream_of(&BufferBudget::new(4 << 20))
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
        let stream = stream_of(&budget);
        let body = budget.try_take(10);
        stream.tell(message(&"x".repeat(95)));
        stream.tell(message(&"y".repeat(60)));
        assert_eq!(budget.present().used, 70);
        let missed = |after| stream.open(Some(after)).unwrap().missed;
        assert_eq!((missed(0), missed(1)), (1, 0), "the first has no room");
        drop((stream, body));
        assert_eq!(budget.present().used, 0);
    }

    #[test]
    fn edge_4_kept_messages_count_once_and_the_oldest_give_way() {
        let budget = BufferBudget::new(1000);
        let history = MessageHistory::new(&budget);
        let streams: Vec<_> = (0..300).map(|_| SessionStream::new(&history)).collect();
        for number in 0..9 {
            let message = message(&number.to_string().repeat(100));
            let kept = history.keep(&message);
            for stream in &streams {
                stream.tell_kept(message.clone(), kept.clone());
            }
        }
        assert_eq!(budget.present().used, 900, "one copy for all");
        let body = budget.try_take(400).unwrap();
        assert_eq!(budget.present().refused, 0);
        let mut opened = streams[7].open(Some(0)).unwrap();
        let left = waiting(&mut opened);
        assert_eq!(
            left.first().map(|(number, _)| *number),
            Some(1 + opened.missed)
        );
        assert!((3..=5).contains(&opened.missed), "{}", opened.missed);
        drop((opened, left, streams, body));
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
