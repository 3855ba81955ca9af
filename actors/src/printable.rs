//! Texts of other parties as they may be written to a terminal, a log or a table.
//!
//! Control characters move a terminal, and bidirectional marks reorder what it shows: a name could
//! look like another one. They are written out. Secrets are masked by [`crate::redact()`].

use std::borrow::Cow;

/// Returns the text with every character written out that moves or reorders a terminal, such as
/// `\n`, `\u{1b}` and `\u{202e}`.
///
/// # Source  Rule EDGE-7 in docs/rules.md.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    written_out(text, is_moving, |clean, letter| {
        clean.extend(letter.escape_default());
    })
}

/// Returns JSON text with the same characters written as JSON does (`\u202e`), so that its meaning
/// is the same. Line ends are kept: within JSON's strings they are written out already.
#[must_use]
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let moves = |letter| letter != '\n' && is_moving(letter);
    written_out(json, moves, |clean, letter| {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            clean.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

/// Returns a line of a log with the same characters written out, but for line ends and the colours
/// of its writer.
#[must_use]
pub fn printable_line(line: &str) -> Cow<'_, str> {
    let moves = |letter| !matches!(letter, '\n' | '\u{1b}') && is_moving(letter);
    written_out(line, moves, |clean, letter| {
        clean.extend(letter.escape_default());
    })
}

fn written_out(
    text: &str,
    is_moving: impl Fn(char) -> bool,
    write: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.chars().any(&is_moving) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_moving(letter) {
            write(&mut clean, letter);
        } else {
            clean.push(letter);
        }
    }
    Cow::Owned(clean)
}

/// Returns true for control characters, line separators, and marks of the direction of writing.
fn is_moving(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_7_characters_that_move_a_terminal_are_written_out() {
        let cases = [
            ("plain é 漢 \"quoted\"", "plain é 漢 \"quoted\""),
            ("a\u{1b}[2Jb\n\r\t\u{7f}", "a\\u{1b}[2Jb\\n\\r\\t\\u{7f}"),
            (
                "\u{9b}2J\u{202e}evil\u{2066}",
                "\\u{9b}2J\\u{202e}evil\\u{2066}",
            ),
            ("\u{200f}\u{61c}\u{2028}", "\\u{200f}\\u{61c}\\u{2028}"),
        ];
        for (given, clean) in cases {
            assert_eq!(printable(given), clean);
        }
        assert_eq!(
            printable_line("\u{1b}[2mred\u{202e}\n"),
            "\u{1b}[2mred\\u{202e}\n"
        );
    }

    #[test]
    fn edge_7_json_keeps_its_meaning() {
        let given = "{\n \"a\": \"\u{9b}\u{202e}\u{e0041}é\"\n}";
        let clean = printable_json(given);
        assert_eq!(clean, "{\n \"a\": \"\\u009b\\u202e\\udb40\\udc41é\"\n}");
    }
}
