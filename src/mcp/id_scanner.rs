//! Search for the ids of messages that are too long, or too broken, to be read.
//!
//! It looks at each byte once and keeps a few of them, however long the messages are.

use super::message::MessageId;

/// Maximum length of a name or an id that is looked at, in bytes.
const MAX_KEPT: usize = 128;
/// Maximum number of ids that are kept. CALL-6: the text may be longer than any memory.
const MAX_FOUND: usize = 1000;

/// The request that a scanned message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScannedId {
    /// It answers one of ours.
    Answer(MessageId),
    /// It is a request of the other side.
    Request(MessageId),
}

/// Scanner of the first level of messages: one, several in a row, or those of a list.
#[derive(Debug, Default)]
pub(super) struct IdScanner {
    depth: u32,
    /// Depth of the members of a message: one more in a list.
    level: u32,
    in_text: bool,
    is_escaped: bool,
    sequence: TerminalSequence,
    form: TextForm,
    /// The last byte outside of texts that is no blank.
    last: u8,
    message: ScannedMembers,
    found: Vec<ScannedId>,
    /// True if a whole message had a member of JSON-RPC.
    has_rpc: bool,
}

/// The members of the present message.
#[derive(Debug, Default)]
struct ScannedMembers {
    /// The text or the scalar that is being read.
    kept: Vec<u8>,
    /// The name of the member before its value.
    name: Vec<u8>,
    in_value: bool,
    id: Option<MessageId>,
    has_method: bool,
    /// True if a member of an answer was seen.
    is_answer: bool,
    /// True if a member of JSON-RPC was seen.
    is_rpc: bool,
}

/// The form of a text, by its begin.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum TextForm {
    #[default]
    Blank,
    /// A list, of which nothing was seen yet.
    List,
    Messages,
    Other,
}

/// A control sequence for a terminal, such as one that sets a colour.
#[derive(Debug, Default, Clone, Copy)]
enum TerminalSequence {
    #[default]
    None,
    Escape,
    Body,
}

impl IdScanner {
    /// Looks at the next part of the text.
    pub(super) fn feed(&mut self, part: &[u8]) {
        for byte in part {
            self.step(*byte);
        }
    }

    /// Returns the ids that were found. A request without a member of JSON-RPC is none.
    pub(super) fn found(mut self) -> Vec<ScannedId> {
        self.end_message();
        self.found
    }

    /// Returns true unless the text has begun as something else than a message or a list of them.
    pub(super) fn is_structured(&self) -> bool {
        self.form != TextForm::Other
    }

    /// Returns true within a message or a list, unless a text in it is open.
    pub(super) fn is_open(&self) -> bool {
        self.depth > 0 && !self.in_text
    }

    /// Returns true if the last message or list is closed, and nothing stands behind it.
    pub(super) fn is_whole(&self) -> bool {
        self.depth == 0 && matches!(self.last, b'}' | b']')
    }

    /// Returns the last byte between the items of a list that is open.
    pub(super) fn last_in_list(&self) -> Option<u8> {
        (self.depth == 1 && self.level == 2).then_some(self.last)
    }

    /// Returns true if a member of JSON-RPC was seen, in a message that may go on.
    pub(super) fn has_rpc(&self) -> bool {
        self.has_rpc || self.message.is_rpc
    }

    fn step(&mut self, byte: u8) {
        if self.in_text {
            return self.step_in_text(byte);
        }
        if byte.is_ascii_whitespace() || self.depth == 0 && self.is_mark(byte) {
            return;
        }
        self.form = match (self.form, byte) {
            (TextForm::Blank | TextForm::List, b'{') => TextForm::Messages,
            (TextForm::Blank, b'[') => TextForm::List,
            (TextForm::Blank | TextForm::List, _) => TextForm::Other,
            (form, _) => form,
        };
        let is_member = self.is_at_members();
        match byte {
            b'"' => {
                self.in_text = true;
                self.keep(byte);
            }
            b'{' | b'[' => {
                if self.depth == 0 {
                    self.level = if byte == b'{' { 1 } else { 2 };
                }
                self.depth += 1;
            }
            b'}' | b']' => {
                if is_member {
                    self.end_message();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b':' if is_member => self.message.begin_value(),
            b',' if is_member => self.message.end_value(),
            other => self.keep(other),
        }
        self.last = byte;
    }

    fn step_in_text(&mut self, byte: u8) {
        self.keep(byte);
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' => self.is_escaped = true,
            b'"' => self.in_text = false,
            _ => {}
        }
    }

    /// Returns true for a byte around messages that says nothing: of a mark of the byte order, or of a
    /// control sequence.
    fn is_mark(&mut self, byte: u8) -> bool {
        let (sequence, is_mark) = match (self.sequence, byte) {
            (TerminalSequence::Escape, b'[') => (TerminalSequence::Body, true),
            (TerminalSequence::Body, 0x40..=0x7e) => (TerminalSequence::None, true),
            (TerminalSequence::Body, _) => (TerminalSequence::Body, true),
            (_, 0x1b) => (TerminalSequence::Escape, true),
            (_, 0..=0x1f | 0x7f | 0xef | 0xbb | 0xbf) => (TerminalSequence::None, true),
            _ => (TerminalSequence::None, false),
        };
        self.sequence = sequence;
        is_mark
    }

    fn is_at_members(&self) -> bool {
        self.depth > 0 && self.depth == self.level
    }

    fn keep(&mut self, byte: u8) {
        if self.is_at_members() && self.message.kept.len() < MAX_KEPT {
            self.message.kept.push(byte);
        }
    }

    fn end_message(&mut self) {
        let mut message = std::mem::take(&mut self.message);
        message.end_value();
        self.has_rpc |= message.is_rpc;
        if self.found.len() < MAX_FOUND {
            self.found.extend(message.found());
        }
    }
}

impl ScannedMembers {
    fn begin_value(&mut self) {
        self.name = unescaped(std::mem::take(&mut self.kept));
        self.in_value = true;
        self.has_method |= self.name == b"\"method\"";
        self.is_answer |= self.name == b"\"result\"" || self.name == b"\"error\"";
        self.is_rpc |= self.name == b"\"jsonrpc\"";
    }

    fn end_value(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        if std::mem::take(&mut self.in_value) && self.name == b"\"id\"" {
            let id = std::str::from_utf8(&kept).ok().and_then(MessageId::new);
            self.id = self.id.take().or(id);
        }
        self.name.clear();
    }

    fn found(self) -> Option<ScannedId> {
        match self.id {
            Some(id) if self.has_method && self.is_rpc => Some(ScannedId::Request(id)),
            Some(id) if self.is_answer && !self.has_method => Some(ScannedId::Answer(id)),
            _ => None,
        }
    }
}

/// Returns a name without escapes.
fn unescaped(name: Vec<u8>) -> Vec<u8> {
    if !name.contains(&b'\\') {
        return name;
    }
    match serde_json::from_slice::<String>(&name) {
        Ok(plain) => format!("\"{plain}\"").into_bytes(),
        Err(_) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(text: &str) -> IdScanner {
        let mut scanner = IdScanner::default();
        for part in text.as_bytes().chunks(3) {
            scanner.feed(part);
        }
        scanner
    }

    /// The numbers of the answers in a text.
    fn answers(text: &str) -> Vec<u64> {
        let found = scanned(text).found().into_iter();
        let number = |id| match id {
            ScannedId::Answer(id) => id.number(),
            ScannedId::Request(_) => None,
        };
        found.filter_map(number).collect()
    }

    #[test]
    fn mcp_3_m6_an_id_is_found_wherever_it_stands() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"id":9,"a":"#, Some(7)),
            (
                r#"{"result":{"id":9,"x":"}\"id\":8,"},"id": 12 }"#,
                Some(12),
            ),
            (r#"{"result":["#, None),
            (r#"{"id":3,"method":"x","params":{"#, None),
            (r#"{"id":null,"result":1}"#, None),
            (r#"{"error":"\\","id":5"#, Some(5)),
            (r#"{"level":"info","id":5}"#, None),
            (r#"{"\u0069d":7.0,"result":"#, Some(7)),
            ("\u{feff}{\"id\":7,\"result\":1}", Some(7)),
            ("\u{1b}[0m\r{\"id\":7,\"result\":1}\u{1b}[0m", Some(7)),
            ("{\n\"id\": 7,\n\"result\": [\n1", Some(7)),
        ] {
            assert_eq!(answers(text), Vec::from_iter(expected), "{text}");
        }
    }

    #[test]
    fn mcp_3_the_ids_of_several_messages_in_a_list_or_a_line_are_found() {
        let first = r#"{"jsonrpc":"2.0","method":"x"}"#;
        let one = r#"{"jsonrpc":"2.0","id":7,"result":[{"id":1,"result":2}]}"#;
        let other = r#"{"id":"8","error":{},"jsonrpc":"2.0"}"#;
        let all = [first, one, other];
        for text in [all.concat(), format!("[ {}", all.join(", "))] {
            assert_eq!(answers(&text), [7, 8], "{text}");
        }
        let many = r#"{"id":7,"result":1}"#.repeat(5000);
        assert_eq!(answers(&many).len(), MAX_FOUND);
    }

    #[test]
    fn mcp_3_m6_messages_are_told_from_other_output() {
        for (text, is_structured) in [
            (" {\"a\"", true),
            ("[", true),
            ("[ {", true),
            ("\u{feff}{", true),
            ("xxxx", false),
            ("[1]", false),
            ("[INFO] x", false),
            ("\"x\"", false),
            ("", true),
        ] {
            assert_eq!(scanned(text).is_structured(), is_structured, "{text}");
        }
    }
}
