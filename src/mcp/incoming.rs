//! Messages of a server as they come, and the faults of those that cannot be read.
//!
//! MCP-3: a message that cannot be read costs the call that it answers, or the question that it asks,
//! and no other. It is never guessed what its content might be.

use std::fmt;

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::audience::{ServerNotice, ServerQuestion};
use super::call_table::RequestOutcome;
use super::error::McpError;
use super::id_scanner::{IdScanner, ScannedId};
use super::message::{MessageFault, MessageId, RawMessage, RawReply, RpcError, code};

/// Number of messages in a text after which its notifications are dropped.
const MAX_LIST: usize = 1000;
/// Number of messages in a text after which all others are dropped: no real list of answers is so long.
const MAX_WAITED_FOR: usize = 32 * 1024;
/// Mark of the byte order, with which some programs begin their output.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A message of the server, with all that was read of it.
#[derive(Debug)]
pub(super) enum IncomingMessage {
    Answer(Option<MessageId>, RequestOutcome),
    Notification(ServerNotice),
    Request {
        id: MessageId,
        question: ServerQuestion,
    },
    /// A request that cannot be read, with its answer.
    Malformed {
        id: MessageId,
        error: RpcError,
    },
}

impl IncomingMessage {
    /// The answer to a call that cannot be used, or to no call.
    fn unusable(id: Option<MessageId>) -> Self {
        let error = McpError::unusable("it is no message of the protocol");
        Self::Answer(id, Err(error))
    }

    /// The messages that are left of a text that is longer than `max_line`.
    pub(super) fn too_long(found: Vec<ScannedId>, max_line: usize) -> Vec<Self> {
        let unusable = |id| Self::Answer(id, Err(McpError::too_long(max_line)));
        if found.is_empty() {
            // It may be an answer all the same.
            return vec![unusable(None)];
        }
        let message = |scanned| match scanned {
            ScannedId::Answer(id) => unusable(Some(id)),
            ScannedId::Request(id) => {
                let text = format!("the request is longer than max_line = {max_line} bytes");
                let error = RpcError::new(code::INVALID_REQUEST, text);
                Self::Malformed { id, error }
            }
        };
        found.into_iter().map(message).collect()
    }
}

impl From<RawMessage> for IncomingMessage {
    /// Reads the head of a result too, which takes as long as reading the message.
    fn from(message: RawMessage) -> Self {
        match message {
            RawMessage::Answer { id, outcome } => {
                let outcome = outcome.map(RawReply::of).map_err(McpError::from);
                Self::Answer(id, outcome)
            }
            RawMessage::Notification { method, params } => {
                Self::Notification(ServerNotice::new(method, params))
            }
            RawMessage::Request { id, method, params } => {
                let question = ServerQuestion::new(method, params);
                Self::Request { id, question }
            }
        }
    }
}

/// The content of a text.
#[derive(Debug)]
pub(super) enum IncomingText {
    One(IncomingMessage),
    /// The messages of a list, which servers of old versions send.
    Several(Vec<IncomingMessage>),
    /// The answers and questions that a text is about which cannot be read.
    Broken(Vec<IncomingMessage>),
    /// A message that cannot be read, and that nothing waits for.
    Unknown,
    /// Not a message.
    Stray,
}

impl IncomingText {
    /// Reads a text. One that answers a call always answers it, and one that asks is answered.
    pub(super) fn read(text: &Bytes) -> Self {
        let text = text.slice_ref(without_marks(text));
        match RawMessage::read(&text) {
            Ok(message) => Self::One(message.into()),
            Err(MessageFault::Shape(Some(id))) => Self::One(IncomingMessage::unusable(Some(id))),
            Err(fault) => {
                let read = match (text.first(), &fault) {
                    (Some(b'['), _) => Self::read_list(&text),
                    (_, MessageFault::Syntax) => Self::read_joined(&text),
                    _ => Self::Stray,
                };
                match read {
                    Self::Stray => Self::scanned(&text, &fault),
                    read => read,
                }
            }
        }
    }

    /// Searches a text that is no message for the ids of the calls and of the questions that it is about.
    fn scanned(text: &[u8], fault: &MessageFault) -> Self {
        let mut scanner = IdScanner::default();
        scanner.feed(text);
        if !scanner.is_structured() {
            return Self::Stray;
        }
        let message = |scanned| match scanned {
            ScannedId::Answer(id) => IncomingMessage::unusable(Some(id)),
            ScannedId::Request(id) => {
                let error = match fault {
                    MessageFault::Syntax => RpcError::new(code::PARSE_ERROR, "it is no JSON"),
                    _ => RpcError::new(code::INVALID_REQUEST, "it is no request of JSON-RPC 2.0"),
                };
                IncomingMessage::Malformed { id, error }
            }
        };
        let found: Vec<IncomingMessage> = scanner.found().into_iter().map(message).collect();
        match fault {
            _ if !found.is_empty() => Self::Broken(found),
            MessageFault::Request(_) => Self::Unknown,
            // Another program's log line may have an id too.
            _ => Self::Stray,
        }
    }

    /// Reads messages without a line end in between, such as those of threads that share an output.
    fn read_joined(text: &Bytes) -> Self {
        let mut list = MessageList::of(text);
        for value in serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>() {
            match value {
                // The whole text was read before.
                Ok(raw) if raw.get().starts_with('{') && raw.get().len() < text.len() => {
                    list.add(raw);
                }
                _ => return Self::Stray,
            }
        }
        list.into_text()
    }

    fn read_list(text: &Bytes) -> Self {
        let mut source = serde_json::Deserializer::from_slice(text);
        let list = source.deserialize_seq(MessageList::of(text));
        match list.and_then(|list| source.end().map(|()| list)) {
            Ok(list) => list.into_text(),
            Err(_) => Self::Stray,
        }
    }

    /// Returns true if it was read as it is.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::One(_) | Self::Several(_))
    }

    /// Returns the messages.
    pub(super) fn into_messages(self) -> Vec<IncomingMessage> {
        match self {
            Self::One(message) => vec![message],
            Self::Several(messages) | Self::Broken(messages) => messages,
            Self::Unknown | Self::Stray => Vec::new(),
        }
    }
}

/// Returns a text without the blanks, marks and controls around it, such as the colours that a program
/// sets for a terminal. Where words are before a message, it may be a log line that shows another one.
pub(super) fn without_marks(text: &[u8]) -> &[u8] {
    let mut rest = text.trim_ascii();
    loop {
        let next = match rest {
            [0x1b, b'[', sequence @ ..] => {
                let end = sequence
                    .iter()
                    .position(|byte| (0x40..=0x7e).contains(byte));
                end.map_or(rest, |end| &sequence[end + 1..])
            }
            [0..=0x1f | 0x7f, next @ ..] => next,
            _ => rest.strip_prefix(MARK).unwrap_or(rest),
        };
        if next.len() == rest.len() {
            break;
        }
        rest = next.trim_ascii_start();
    }
    // What ends a message is no part of a sequence.
    match rest.iter().rposition(|byte| b"}]".contains(byte)) {
        Some(end) if rest[end + 1..].first() == Some(&0x1b) => &rest[..=end],
        _ => rest,
    }
}

/// The messages of a text, in their order.
struct MessageList<'t> {
    text: &'t Bytes,
    messages: Vec<IncomingMessage>,
}

impl<'t> MessageList<'t> {
    fn of(text: &'t Bytes) -> Self {
        Self {
            text,
            messages: Vec::new(),
        }
    }

    /// Adds the message that an element of the text is, if it is one.
    fn add(&mut self, raw: &RawValue) {
        if !raw.get().starts_with('{') {
            return;
        }
        let object = self.text.slice_ref(raw.get().as_bytes());
        for message in IncomingText::read(&object).into_messages() {
            // CALL-6: so many are not kept. MCP-3: something waits for answers and questions.
            let most = match message {
                IncomingMessage::Notification(_) => MAX_LIST,
                _ => MAX_WAITED_FOR,
            };
            if self.messages.len() < most {
                self.messages.push(message);
            }
        }
    }

    fn into_text(self) -> IncomingText {
        match self.messages.is_empty() {
            true => IncomingText::Stray,
            false => IncomingText::Several(self.messages),
        }
    }
}

impl<'de> Visitor<'de> for MessageList<'_> {
    type Value = Self;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some(raw) = list.next_element::<&'de RawValue>()? {
            self.add(raw);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> IncomingText {
        IncomingText::read(&Bytes::copy_from_slice(text.as_bytes()))
    }

    /// The id that a text answers, 0 for a stray one, and the result's or the error's text.
    fn id_of(text: &str) -> Option<u64> {
        let read = read(text);
        if matches!(read, IncomingText::Stray) {
            return Some(0);
        }
        match read.into_messages().pop() {
            Some(IncomingMessage::Answer(id, Err(_))) => id.and_then(|id| id.number()),
            _ => None,
        }
    }

    #[test]
    fn mcp_3_m6_output_that_cannot_be_read_answers_its_call_if_it_has_one() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"error":3}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":}}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":"9"}"#, Some(9)),
            ("hello", Some(0)),
            // A log line of a program may have an id too.
            (r#"{"level":"info","id":7}"#, Some(0)),
            (r#"{"level":"info","id":7"#, Some(0)),
            (r#"{"level":"info","id":7,"method":"GET"}"#, None),
            // A5: a member that is there twice, and a name with an escape.
            (r#"{"jsonrpc":"2.0","id":7,"id":7,"result":{}}"#, Some(7)),
            (
                r#"{"jsonrpc":"2.0","id":7,"result":{},"result":{}}"#,
                Some(7),
            ),
            (r#"{"jsonrpc":"2.0","\u0069d":7,"result":{"a":}}"#, Some(7)),
            ("[INFO] it runs", Some(0)),
            ("\u{1b}[31m", Some(0)),
            ("\u{1b}[", Some(0)),
            // A log line that shows a message is none.
            (r#"sent {"jsonrpc":"2.0","id":7,"result":{}}"#, Some(0)),
            (
                "\u{1b}[2m12:00 {\"jsonrpc\":\"2.0\",\"id\":7,\"error\":3}",
                Some(0),
            ),
            (r#"[1,"x",{"level":"info"}]"#, Some(0)),
            // In a list or a line with others it is answered too.
            (r#"[{"jsonrpc":"2.0","id":7,"result":{"a":}}]"#, Some(7)),
            (
                r#"{"jsonrpc":"2.0","method":"x"}{"jsonrpc":"2.0","id":7,"result":{"#,
                Some(7),
            ),
        ] {
            assert_eq!(id_of(text), expected, "{text}");
        }
    }

    #[test]
    fn mcp_3_a5_an_answer_behind_a_mark_in_a_list_or_with_another_form_of_its_id_is_one() {
        for text in [
            "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\r\n",
            "\u{1b}[2K\u{1b}[0m\r\u{0}{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\u{1b}[0m",
            r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#,
            r#"[{"jsonrpc":"2.0","method":"x"},{"jsonrpc":"2.0","id":7,"result":{}}]"#,
            r#"{"jsonrpc":"2.0","method":"x"}{"jsonrpc":"2.0","id":7,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"method":null,"params":null,"error":null}"#,
        ] {
            let answer = read(text).into_messages().pop();
            let Some(IncomingMessage::Answer(Some(id), Ok(_))) = answer else {
                panic!("{text}: {answer:?}");
            };
            assert_eq!(id.number(), Some(7), "{text}");
        }
    }

    #[test]
    fn mcp_3_an_answer_behind_many_notifications_in_a_list_or_a_line_is_one() {
        let notice = "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}";
        let answer = "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}";
        let all = [vec![notice; 3000], vec![answer]].concat();
        let question = r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#;
        let questions = format!("[{}]", vec![question; 40_000].join(","));
        assert_eq!(read(&questions).into_messages().len(), MAX_WAITED_FOR);
        for text in [format!("[{}]", all.join(",")), all.concat()] {
            let mut messages = read(&text).into_messages();
            assert_eq!(messages.len(), MAX_LIST + 1);
            let last = messages.pop();
            assert!(
                matches!(last, Some(IncomingMessage::Answer(Some(id), Ok(_)))
                if id.number() == Some(7))
            );
        }
    }

    #[test]
    fn mcp_5_a6_a_question_that_cannot_be_read_is_answered() {
        for (text, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":"s","method":"x","params":[1]}"#,
                code::INVALID_REQUEST,
            ),
            (
                r#"{"jsonrpc":"2.0","id":"s","method":"x","params":{"a":1,}}"#,
                code::PARSE_ERROR,
            ),
        ] {
            let question = read(text).into_messages().pop();
            let Some(IncomingMessage::Malformed { id, error }) = question else {
                panic!("{text}");
            };
            assert_eq!((id.as_json(), error.code), ("\"s\"", expected));
        }
        let mut scanner = IdScanner::default();
        scanner.feed(br#"{"jsonrpc":"2.0","id":"s","method":"x","params":{"#);
        let long = IncomingMessage::too_long(scanner.found(), 9).pop();
        assert!(
            matches!(long, Some(IncomingMessage::Malformed { error, .. })
            if error.code == code::INVALID_REQUEST)
        );
    }
}
