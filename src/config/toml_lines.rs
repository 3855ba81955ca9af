//! The tables and keys that the lines of a TOML text name, also of a text that is no TOML.
//!
//! Line by line, so that a mistake in one hides no other. Nothing here shows a value.

use std::collections::BTreeMap;

/// A place at which a text names a table or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPlace {
    /// Number of the line, from 1.
    pub(super) line: usize,
    /// Number of the character in its line, from 1.
    pub(super) column: usize,
    /// The full path.
    pub(super) path: String,
    /// True for the line that begins a table, or one of an array.
    pub(super) is_header: bool,
}

/// Returns the places that name a table or a key, in their order.
pub(super) fn named_places(text: &str) -> Vec<NamedPlace> {
    let mut section = String::new();
    let mut found = Vec::new();
    let mut lists: BTreeMap<String, usize> = BTreeMap::new();
    for (line, content) in (1..).zip(text.lines()) {
        let indent = content
            .chars()
            .take_while(|one| one.is_whitespace())
            .count();
        let trimmed = content.trim();
        if let Some(header) = header(trimmed) {
            section = header;
            found.push(NamedPlace {
                line,
                column: indent + 1,
                path: section.clone(),
                is_header: true,
            });
            // Each table of an array has a number of its own.
            if trimmed.starts_with("[[") {
                let next = lists.entry(section.clone()).or_default();
                section.push_str(&format!("[{next}]"));
                *next += 1;
            }
        } else if !trimmed.starts_with('#') {
            let keys = keys_of_line(content).into_iter();
            found.extend(keys.map(|(column, name)| NamedPlace {
                line,
                column,
                path: joined(&section, &name),
                is_header: false,
            }));
        }
    }
    found
}

/// Returns the name of the table that a line begins.
pub(super) fn header(line: &str) -> Option<String> {
    let inner = line.strip_prefix('[')?.trim_start_matches('[');
    let inner = inner.split(']').next()?.trim();
    // A list within a list begins with a quote or a number.
    if !inner.starts_with(|letter: char| letter.is_alphabetic()) {
        return None;
    }
    (!inner.is_empty() && !inner.contains([',', '='])).then(|| plain(inner))
}

/// Returns a name without its quotes and blanks.
pub(super) fn plain(name: &str) -> String {
    name.chars()
        .filter(|letter| !letter.is_whitespace() && !"\"'".contains(*letter))
        .collect()
}

pub(super) fn joined(section: &str, name: &str) -> String {
    match section {
        "" => name.to_owned(),
        section => format!("{section}.{name}"),
    }
}

/// An opened table or list within a line.
struct OpenedValue {
    /// Path of the keys in it.
    path: String,
    /// Index of the present element, of a list.
    index: Option<usize>,
}

/// Returns the keys of a line with their columns: the one that it begins with, and those of the tables
/// within its value. A name without a value counts too.
pub(super) fn keys_of_line(line: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Vec<OpenedValue> = Vec::new();
    let mut name = String::new();
    let (mut begin, mut is_name) = (0, true);
    let mut quote = None;
    for (at, letter) in (1..).zip(line.chars()) {
        if let Some(end) = quote {
            quote = (letter != end).then_some(end);
            name.push(letter);
            continue;
        }
        let path = open.last().map_or("", |opened| opened.path.as_str());
        match letter {
            '#' => break,
            '=' if is_name => {
                let full = joined(path, &plain(&name));
                found.push((begin.max(1), full));
                is_name = false;
                name.clear();
            }
            '{' | '[' if !is_name => {
                let key = found.last().map_or("", |(_, key)| key.as_str());
                let path = match open.last() {
                    Some(OpenedValue {
                        path,
                        index: Some(index),
                    }) => format!("{path}[{index}]"),
                    _ => key.to_owned(),
                };
                let index = (letter == '[').then_some(0);
                is_name = index.is_none();
                open.push(OpenedValue { path, index });
                name.clear();
                begin = 0;
            }
            ',' | '}' | ']' => {
                if is_name && !name.trim().is_empty() {
                    found.push((begin, joined(path, &plain(&name))));
                }
                if letter == ',' {
                    match open.last_mut() {
                        Some(OpenedValue {
                            index: Some(index), ..
                        }) => *index += 1,
                        Some(_) => is_name = true,
                        None => {}
                    }
                } else {
                    open.pop();
                    is_name = false;
                }
                name.clear();
                begin = 0;
            }
            _ => {
                if "\"'".contains(letter) {
                    quote = Some(letter);
                }
                if name.trim().is_empty() && !letter.is_whitespace() {
                    name.clear();
                    begin = at;
                }
                name.push(letter);
            }
        }
    }
    if is_name && !open.is_empty() && !name.trim().is_empty() {
        let path = open.last().map_or("", |opened| opened.path.as_str());
        found.push((begin, joined(path, &plain(&name))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_1_the_keys_of_a_line_have_their_columns() {
        let keys = |line: &str| -> Vec<String> {
            let keys = keys_of_line(line).into_iter();
            keys.map(|(column, key)| format!("{column} {key}"))
                .collect()
        };
        assert_eq!(keys("timeout = \"a = b\" # c = d"), ["1 timeout"]);
        assert_eq!(
            keys("timeout = { attempt = \"1s\", total.x = 2 }"),
            ["1 timeout", "13 timeout.attempt", "29 timeout.total.x"]
        );
        assert_eq!(
            keys("list = [{ a = 1 }, { a = 2 }]"),
            ["1 list", "11 list[0].a", "22 list[1].a"]
        );
        assert_eq!(keys("a = { \"hunter2"), ["1 a", "7 a.hunter2"]);
        assert_eq!(keys("  \"x\".y = 1"), ["3 x.y"]);
        assert_eq!(keys("a word alone"), Vec::<String>::new());
    }
}
