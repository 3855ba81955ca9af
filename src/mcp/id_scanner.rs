//! Search for the id of a message that is too long, or too broken, to be read.
//!
//! It looks at each byte once and keeps a few of them, however long the message is.

use super::message::MessageId;

/// Maximum length of a name or an id that is looked at, in bytes.
const MAX_KEPT: usize = 128;

/// The request that a scanned message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScannedId {
    /// It answers one of ours.
    Answer(MessageId),
    /// It is a request of the other side.
    Request(MessageId),
    /// None was found.
    None,
}

/// Scanner of a message's first level.
#[derive(Debug, Default)]
pub(super) struct IdScanner {
    depth: u32,
    in_text: bool,
    is_escaped: bool,
    /// The text or the scalar at the first level that is being read.
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
    has_begun: bool,
    is_object: bool,
}

impl IdScanner {
    /// Looks at the next part of the message.
    pub(super) fn feed(&mut self, part: &[u8]) {
        for byte in part {
            self.step(*byte);
        }
    }

    /// Returns the id that was found. A request without a member of JSON-RPC is none.
    pub(super) fn found(mut self) -> ScannedId {
        self.end_value();
        match self.id {
            Some(id) if self.has_method && self.is_rpc => ScannedId::Request(id),
            Some(id) if self.is_answer && !self.has_method => ScannedId::Answer(id),
            _ => ScannedId::None,
        }
    }

    /// Returns true unless the message has begun as something else than an object.
    pub(super) fn is_object(&self) -> bool {
        !self.has_begun || self.is_object
    }

    fn step(&mut self, byte: u8) {
        if self.in_text {
            return self.step_in_text(byte);
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                self.in_text = true;
                self.keep(byte);
            }
            b'{' | b'[' => {
                if !self.has_begun {
                    self.is_object = byte == b'{';
                }
                self.depth += 1;
            }
            b'}' | b']' => {
                if self.depth == 1 {
                    self.end_value();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b':' if self.depth == 1 => {
                self.name = unescaped(std::mem::take(&mut self.kept));
                self.in_value = true;
                self.has_method |= self.name == b"\"method\"";
                self.is_answer |= self.name == b"\"result\"" || self.name == b"\"error\"";
                self.is_rpc |= self.name == b"\"jsonrpc\"";
            }
            b',' if self.depth == 1 => self.end_value(),
            other => self.keep(other),
        }
        self.has_begun |= !byte.is_ascii_whitespace();
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

    fn keep(&mut self, byte: u8) {
        if self.depth == 1 && self.kept.len() < MAX_KEPT {
            self.kept.push(byte);
        }
    }

    fn end_value(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        if std::mem::take(&mut self.in_value) && self.name == b"\"id\"" {
            let id = std::str::from_utf8(&kept).ok().and_then(MessageId::new);
            self.id = self.id.take().or(id);
        }
        self.name.clear();
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

    fn found(text: &str) -> Option<u64> {
        let mut scanner = IdScanner::default();
        for part in text.as_bytes().chunks(3) {
            scanner.feed(part);
        }
        match scanner.found() {
            ScannedId::Answer(id) => id.number(),
            _ => None,
        }
    }

    #[test]
    fn mcp_3_m6_an_id_is_found_wherever_it_stands() {
        assert_eq!(
            found(r#"{"jsonrpc":"2.0","id":7,"result":{"id":9,"a":"#),
            Some(7)
        );
        assert_eq!(
            found(r#"{"result":{"id":9,"x":"}\"id\":8,"},"id": 12 }"#),
            Some(12)
        );
        assert_eq!(found(r#"{"result":["#), None);
        assert_eq!(found(r#"{"id":3,"method":"x","params":{"#), None);
        assert_eq!(found(r#"{"id":null,"result":1}"#), None);
        assert_eq!(found(r#"{"error":"\\","id":5"#), Some(5));
        assert_eq!(found(r#"{"level":"info","id":5}"#), None);
        assert_eq!(found(r#"{"\u0069d":7.0,"result":"#), Some(7));
    }

    #[test]
    fn mcp_3_m6_an_object_is_told_from_other_output() {
        for (text, is_object) in [
            (" {\"a\"", true),
            ("xxxx", false),
            ("[1]", false),
            ("", true),
        ] {
            let mut scanner = IdScanner::default();
            scanner.feed(text.as_bytes());
            assert_eq!(scanner.is_object(), is_object, "{text}");
        }
    }
}
