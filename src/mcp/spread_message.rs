//! Messages that a server writes over several lines, as programs do that print JSON for people, and
//! those that are longer than a message may be.
//!
//! MCP-3: they begin with a line in which a bracket stays open, go on while lines can be parts of JSON,
//! and end when the brackets are closed. All lines together are read as one text. One that is too long
//! is not kept, but searched for the calls that it answers.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::id_scanner::{IdScanner, ScannedId};
use super::incoming::without_marks;

/// A text of the output, and the number of its lines.
pub(super) type OutputText = (Bytes, u32);

/// A message over several lines that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SpreadEnd {
    Text(OutputText),
    /// It is longer than a message may be. The requests that it is about.
    TooLong(Vec<ScannedId>),
}

/// The lines so far of a message over several lines.
#[derive(Debug, Default)]
pub(super) struct SpreadMessage {
    /// `None` if it is longer than a message may be.
    text: Option<Vec<u8>>,
    lines: u32,
    scanner: IdScanner,
}

impl SpreadMessage {
    /// Returns the message that a line begins; `None` if it does not, or if it ends there.
    pub(super) fn begun_by(line: &[u8]) -> Option<Box<Self>> {
        let line = without_marks(line);
        if !matches!(line.first(), Some(b'{' | b'[')) || !lacks_end(line) {
            return None;
        }
        let mut begun = Box::new(Self {
            text: Some(Vec::new()),
            ..Self::default()
        });
        begun.take(line, line.len());
        (begun.is_structured() && begun.is_open()).then_some(begun)
    }

    /// Returns true if a line goes on with it: a part of JSON that is no message of its own.
    pub(super) fn goes_on_with(&self, line: &[u8]) -> bool {
        let mut own = IdScanner::default();
        if matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) {
            own.feed(line);
        }
        let is_other = match self.scanner.last_in_list() {
            Some(b',') => false,
            // A bracket alone may be no list.
            Some(b'[') => own.is_whole(),
            _ => true,
        };
        is_part(line) && !(is_other && own.has_rpc())
    }

    /// Returns true if a line that begins so goes on with it.
    pub(super) fn goes_on_at(&self, begin: &[u8]) -> bool {
        let begin = begin.trim_ascii_start();
        let mut own = IdScanner::default();
        own.feed(&begin[..begin.len().min(BEGIN)]);
        let is_item = matches!(self.scanner.last_in_list(), Some(b',' | b'['));
        begin.first().is_some_and(|byte| is_json(*byte)) && (is_item || !own.has_rpc())
    }

    /// Takes a line that goes on with it. `max`: of a message, in bytes.
    pub(super) fn take(&mut self, line: &[u8], max: usize) {
        self.scanner.feed(line);
        self.lines = self.lines.saturating_add(1);
        let Some(text) = &mut self.text else {
            return;
        };
        if text.len() + line.len() > max {
            // CALL-6: it takes as much memory as a line may.
            self.text = None;
            return;
        }
        text.extend_from_slice(line.trim_ascii_end());
        text.push(b' ');
    }

    /// Takes a part of a line that is longer than a message may be.
    pub(super) fn skip(&mut self, part: &[u8]) {
        self.text = None;
        self.scanner.feed(part);
    }

    /// Returns true if it goes on after this line.
    pub(super) fn is_open(&self) -> bool {
        self.scanner.is_open()
    }

    /// Returns true unless it has begun as something else than a message or a list of them.
    pub(super) fn is_structured(&self) -> bool {
        self.scanner.is_structured()
    }

    /// Ends it, whether it is whole or not.
    pub(super) fn end(self) -> SpreadEnd {
        match self.text {
            Some(text) => SpreadEnd::Text((Bytes::from(text), self.lines)),
            None => SpreadEnd::TooLong(self.scanner.found()),
        }
    }
}

/// Length of the begin of a long line that tells a message of its own, in bytes.
const BEGIN: usize = 4096;

/// Returns true for a byte that stands in JSON outside of texts.
fn is_json(byte: u8) -> bool {
    b"{}[],:\"+-.eEtrufalsn".contains(&byte) || byte.is_ascii_digit() || byte.is_ascii_whitespace()
}

/// Returns true if nothing is wrong with a text but that its end is missing.
fn lacks_end(text: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    values.any(|value| value.is_err_and(|error| error.is_eof()))
}

/// Returns true if a line can be a part of JSON: there are no words outside of texts, and no text is
/// open at its end.
fn is_part(line: &[u8]) -> bool {
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in line {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            byte if !in_text && !is_json(*byte) => return false,
            _ => {}
        }
    }
    !in_text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of an output, each with the number of its lines.
    fn texts(output: &str) -> Vec<(String, u32)> {
        let mut texts = Vec::new();
        let mut end = |spread: Option<Box<SpreadMessage>>| {
            texts.extend(spread.map(|spread| match spread.end() {
                SpreadEnd::Text((text, lines)) => {
                    let text = String::from_utf8(text.to_vec()).unwrap();
                    (text.trim_end().to_owned(), lines)
                }
                SpreadEnd::TooLong(found) => (format!("{found:?}"), 0),
            }));
        };
        let mut spread: Option<Box<SpreadMessage>> = None;
        for line in output.lines().map(str::as_bytes) {
            if let Some(own) = spread.as_mut().filter(|own| own.goes_on_with(line)) {
                own.take(line, 60);
            } else {
                end(spread.take());
                spread = SpreadMessage::begun_by(line);
                if spread.is_none() {
                    let mut single = Box::new(SpreadMessage {
                        text: Some(Vec::new()),
                        ..SpreadMessage::default()
                    });
                    single.take(line, 60);
                    spread = Some(single);
                }
            }
            if spread.as_ref().is_some_and(|spread| !spread.is_open()) {
                end(spread.take());
            }
        }
        end(spread);
        texts
    }

    #[test]
    fn mcp_3_lines_that_are_one_object_or_one_list_together_are_one_text() {
        for whole in [
            "{\n  \"id\": 7,\n\t\"x\": []\n}",
            "{\n\"id\": 7,\n\"x\": [\n{\n\"y\": true\n}\n]\n}",
            "{\"jsonrpc\":\"2.0\",\n \"id\": 7,\n \"x\":{\"y\":[]}}",
            "{ \"jsonrpc\": \"2.0\"\n, \"id\": 7\n}",
            "[\n  {\n    \"jsonrpc\": \"2.0\"\n  }\n]",
            "[{\"jsonrpc\":\"2.0\"},\n{\"jsonrpc\":\"2.0\"},\n{\"jsonrpc\":\"2.0\"}]",
            "[\n{\"jsonrpc\":\"2.0\"},\n{\"jsonrpc\":\"2.0\"}\n]",
            "\u{feff}{\n\"id\": 7}",
        ] {
            let expected = whole.trim_start_matches('\u{feff}').replace('\n', " ");
            let lines = u32::try_from(whole.lines().count()).unwrap();
            let all = texts(&format!("a\n{whole}\n}}\n"));
            let expected = [("a".to_owned(), 1), (expected, lines), ("}".to_owned(), 1)];
            assert_eq!(all, expected);
        }
    }

    #[test]
    fn mcp_3_a_line_that_is_no_part_of_a_message_ends_it() {
        let message = "{\"jsonrpc\":\"2.0\",\"id\":8}";
        let all = texts(&format!("[\n{message}\n"));
        assert_eq!(all, [("[".to_owned(), 1), (message.to_owned(), 1)]);
        for other in ["hello", "[INFO] x", message] {
            let all = texts(&format!("{{\n  \"id\": 7,\n{other}\n"));
            let expected = [("{   \"id\": 7,", 2), (other, 1)];
            assert_eq!(all, expected.map(|(text, lines)| (text.to_owned(), lines)));
        }
        // What is wrong in itself does not go on, nor does a text that is open at the end of its line.
        for line in ["{\"id\":7,\"x\":\"a", "[1, 2", "{}", "hello {", "{\"x\":[}"] {
            assert!(SpreadMessage::begun_by(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn mcp_3_a_message_over_several_lines_that_is_too_long_names_its_call() {
        let lines = "  \"a lengthy line\": 7,\n".repeat(9);
        let all = texts(&format!("{{\n{lines}  \"id\": 5, \"result\": 1\n}}\nb\n"));
        assert_eq!(all.len(), 2);
        assert!(all[0].0.contains("Answer") && all[0].1 == 0, "{all:?}");
        let begun = SpreadMessage::begun_by(b"{").unwrap();
        assert!(begun.goes_on_at(b"  \"x\": \"yyy"));
        assert!(begun.goes_on_at(b"{\"type\":\"text\",\"text\":\"yyy"));
        assert!(!begun.goes_on_at(b"{\"jsonrpc\":\"2.0\",\"result\":\"yyy"));
        assert!(!begun.goes_on_at(b"hello"));
    }
}
