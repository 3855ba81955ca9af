//! Messages that a server writes over several lines, as programs do that print JSON for people.
//!
//! MCP-3: they begin with a line of one brace, go on with indented lines, and end with a line that
//! begins with the other brace. All lines together are read as one text.

use bytes::Bytes;

/// A text of the output, and the number of its lines.
pub(super) type OutputText = (Bytes, u32);

/// The lines so far of a message over several lines, if there are any.
#[derive(Debug, Default)]
pub(super) struct SpreadMessage {
    text: Vec<u8>,
    lines: u32,
}

impl SpreadMessage {
    /// Returns the lines so far, if the next one does not go on with them. `max`: of a message, in
    /// bytes.
    pub(super) fn broken_by(&mut self, line: &[u8], max: usize) -> Option<OutputText> {
        let goes_on = matches!(line.first(), Some(b' ' | b'\t' | b'}'));
        // CALL-6: it takes as much memory as a line may.
        let fits = self.text.len() + line.len() <= max;
        if goes_on && fits { None } else { self.rest() }
    }

    /// Takes the next line. Returns a text to be read: the line itself, or the whole that ends with it.
    pub(super) fn take(&mut self, line: Bytes) -> Option<OutputText> {
        if self.lines == 0 && line.trim_ascii() != b"{" {
            return Some((line, 1));
        }
        self.text.extend_from_slice(line.trim_ascii_end());
        self.text.push(b' ');
        self.lines += 1;
        let is_end = self.lines > 1 && line.first() == Some(&b'}');
        is_end.then(|| self.rest()).flatten()
    }

    /// Returns the lines so far, which are no message.
    pub(super) fn rest(&mut self) -> Option<OutputText> {
        let Self { text, lines } = std::mem::take(self);
        (lines > 0).then(|| (Bytes::from(text), lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of an output, each with the number of its lines.
    fn texts(output: &str) -> Vec<(String, u32)> {
        let mut spread = SpreadMessage::default();
        let mut texts = Vec::new();
        for line in output.split_inclusive('\n') {
            texts.extend(spread.broken_by(line.as_bytes(), 60));
            texts.extend(spread.take(Bytes::copy_from_slice(line.as_bytes())));
        }
        texts.extend(spread.rest());
        let shown = |(text, lines): OutputText| {
            let text = String::from_utf8(text.to_vec()).unwrap();
            (text.trim_end().to_owned(), lines)
        };
        texts.into_iter().map(shown).collect()
    }

    #[test]
    fn mcp_3_lines_that_are_one_object_together_are_one_text() {
        let all = texts("a\n{\r\n  \"id\": 7,\r\n\t\"x\": []\r\n}\r\n}\n");
        let whole = ("{   \"id\": 7, \t\"x\": [] }".to_owned(), 4);
        assert_eq!(all, [("a".to_owned(), 1), whole, ("}".to_owned(), 1)]);
        // What is between them ends the object, and so does the limit.
        let broken = texts("{\n  \"id\": 7,\nhello\n}\n");
        assert_eq!(broken[0], ("{   \"id\": 7,".to_owned(), 2));
        assert_eq!(broken[1], ("hello".to_owned(), 1));
        let long = texts(&("{\n".to_owned() + &"  \"a lengthy line\": 7,\n".repeat(9)));
        assert_eq!((long[0].1, long.len()), (3, 8));
    }
}
