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

/// The sequences by which the writer of a log colours it: no other one is its own.
const COLOURS: [&str; 9] = [
    "\u{1b}[0m",
    "\u{1b}[1m",
    "\u{1b}[2m",
    "\u{1b}[3m",
    "\u{1b}[31m",
    "\u{1b}[32m",
    "\u{1b}[33m",
    "\u{1b}[34m",
    "\u{1b}[35m",
];
/// Begin of the further lines of an entry, so that none of them looks like an entry of its own.
const FURTHER: &str = "\n    ";

/// Returns an entry of a log with the same characters written out, but for the line end behind it, and
/// the colours of its writer if it is `coloured`. Further lines within it are indented: a text of
/// another party cannot look like the next entry.
///
/// # Source  Rule EDGE-7 in docs/rules.md.
#[must_use]
pub fn printable_line(line: &str, coloured: bool) -> Cow<'_, str> {
    let (entry, end) = match line.strip_suffix('\n') {
        Some(entry) => (entry, "\n"),
        None => (line, ""),
    };
    if !entry.chars().any(is_moving) {
        return Cow::Borrowed(line);
    }
    let mut clean = String::with_capacity(line.len() + 16);
    let mut rest = entry;
    while let Some(letter) = rest.chars().next() {
        let mut colours = COLOURS.iter().filter(|_| coloured && letter == '\u{1b}');
        let colour = colours.find(|colour| rest.starts_with(**colour));
        rest = &rest[colour.map_or(letter.len_utf8(), |colour| colour.len())..];
        match (colour, letter) {
            (Some(colour), _) => clean.push_str(colour),
            (None, '\n') => clean.push_str(FURTHER),
            (None, letter) if is_moving(letter) => clean.extend(letter.escape_default()),
            (None, letter) => clean.push(letter),
        }
    }
    clean.push_str(end);
    Cow::Owned(clean)
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
    }

    #[test]
    fn edge_7_an_entry_of_a_log_has_the_colours_of_its_writer_and_no_line_of_another() {
        let given =
            "\u{1b}[33mWARN\u{1b}[0m cause=\u{1b}[2J\u{1b}[8mx\u{202e}\n12:00 INFO forged\n";
        assert_eq!(
            printable_line(given, true),
            "\u{1b}[33mWARN\u{1b}[0m cause=\\u{1b}[2J\\u{1b}[8mx\\u{202e}\n    12:00 INFO forged\n"
        );
        assert!(!printable_line(given, false).contains('\u{1b}'));
        let plain = "12:00 INFO nothing odd\n";
        assert!(matches!(printable_line(plain, true), Cow::Borrowed(_)));
    }

    #[test]
    fn edge_7_json_keeps_its_meaning() {
        let given = "{\n \"a\": \"\u{9b}\u{202e}\u{e0041}é\"\n}";
        let clean = printable_json(given);
        assert_eq!(clean, "{\n \"a\": \"\\u009b\\u202e\\udb40\\udc41é\"\n}");
    }
}
