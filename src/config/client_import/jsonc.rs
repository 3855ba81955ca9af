//! JSON with comments and trailing commas, as editors have it in their settings.

/// Returns the text without comments and without commas before a closing bracket. Line ends stay,
/// so that errors name the right line.
pub(super) fn plain(text: &str) -> String {
    without_commas(&without_comments(text))
}

fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.trim_start_matches('\u{feff}').chars().peekable();
    let mut in_text = false;
    while let Some(letter) = letters.next() {
        if in_text {
            plain.push(letter);
            match letter {
                '\\' => plain.extend(letters.next()),
                '"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match (letter, letters.peek()) {
            ('/', Some('/')) => {
                while letters.peek().is_some_and(|next| *next != '\n') {
                    letters.next();
                }
            }
            ('/', Some('*')) => {
                letters.next();
                let mut before = ' ';
                for next in letters.by_ref() {
                    if next == '\n' {
                        plain.push('\n');
                    }
                    if before == '*' && next == '/' {
                        break;
                    }
                    before = next;
                }
            }
            _ => {
                in_text = letter == '"';
                plain.push(letter);
            }
        }
    }
    plain
}

fn without_commas(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut in_text = false;
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        if in_text {
            plain.push(letter);
            match letter {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => in_text = false,
                _ => {}
            }
            continue;
        }
        in_text = letter == '"';
        let is_last = letter == ',' && text[at + 1..].trim_start().starts_with(['}', ']']);
        if !is_last {
            plain.push(letter);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn comments_and_last_commas_go_and_texts_stay() {
        let text = "\u{feff}{ // a \"\n \"a\": \"//b, }\\\"/*\", /* c\n */ \"d\": [1, 2,\n], }";
        let value: serde_json::Value = serde_json::from_str(&plain(text)).unwrap();
        assert_eq!(value, serde_json::json!({ "a": "//b, }\"/*", "d": [1, 2] }));
        assert_eq!(plain(text).lines().count(), text.lines().count());
    }
}
