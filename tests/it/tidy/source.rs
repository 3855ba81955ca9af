//! Production sources, and a scanner that separates code, comments and literals.
//!
//! The scanner knows no grammar: it serves counts by pattern, on code that rustfmt has formatted.

use super::{files, read, root};

/// The folders of production code, one for each package.
pub(super) const PACKAGES: [&str; 4] = ["policy/src", "actors/src", "macros/src", "src"];

/// One file of production code.
pub(super) struct SourceFile {
    /// Its path below the root, with `/` on every system.
    pub(super) path: String,
    /// The whole text, inline test module included.
    pub(super) text: String,
    /// The code before the inline test module: no comments, every literal replaced by `""`.
    /// Line numbers are those of the text.
    pub(super) code: String,
    /// The `//` comments before the inline test module, doc comments included.
    pub(super) comments: Vec<Comment>,
}

/// One `//` comment: its line, counted from 1, and its text with the slashes.
pub(super) struct Comment {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Returns the production files of one package.
pub(super) fn production(package: &str) -> Vec<SourceFile> {
    let paths = files(package, ".rs").into_iter();
    let paths = paths.filter(|path| !is_test_path(&path.to_string_lossy()));
    paths
        .map(|path| {
            let text = read(&root().join(&path));
            let (mut code, mut comments) = scan(&text);
            if let Some(at) = inline_tests(&code) {
                let last = line_at(&code, at);
                code.truncate(at);
                comments.retain(|comment| comment.line < last);
            }
            SourceFile {
                path: path.to_string_lossy().replace('\\', "/"),
                text,
                code,
                comments,
            }
        })
        .collect()
}

/// Returns the production files of all packages.
pub(super) fn all_production() -> Vec<SourceFile> {
    PACKAGES.into_iter().flat_map(production).collect()
}

/// Returns true for a file in a folder of tests, and for `tests.rs`.
pub(super) fn is_test_path(path: &str) -> bool {
    let mut parts = path.split(['/', '\\']);
    parts.any(|part| ["test", "tests", "test.rs", "tests.rs"].contains(&part))
}

/// Splits a text into its code and its `//` comments. Newlines stay in the code.
pub(super) fn scan(text: &str) -> (String, Vec<Comment>) {
    let (mut code, mut comments) = (String::new(), Vec::new());
    let (mut at, mut line) = (0, 1);
    while let Some(letter) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = if let Some(length) = literal(rest) {
            code.push_str("\"\"");
            length
        } else if let Some(length) = comment(rest) {
            if rest.starts_with("//") {
                let text = rest[..length].to_owned();
                comments.push(Comment { line, text });
            }
            length
        } else {
            code.push(letter);
            line += usize::from(letter == '\n');
            at += letter.len_utf8();
            continue;
        };
        let newlines = rest[..length].matches('\n').count();
        code.extend(std::iter::repeat_n('\n', newlines));
        line += newlines;
        at += length;
    }
    (code, comments)
}

/// Returns the length of the comment that the text begins with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let inside = text.strip_prefix("/*")?;
    Some(inside.find("*/")? + 4)
}

/// Returns the length of the literal that the text begins with: raw string, string or letter.
fn literal(text: &str) -> Option<usize> {
    match text.as_bytes().first()? {
        b'r' => {
            let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
            let inside = text[1 + hashes..].strip_prefix('"')?;
            let end = format!("\"{}", "#".repeat(hashes));
            Some(2 + hashes + inside.find(&end)? + end.len())
        }
        b'"' => {
            let mut escaped = false;
            let end = text[1..].find(|letter| {
                let ends = letter == '"' && !escaped;
                escaped = letter == '\\' && !escaped;
                ends
            });
            Some(end? + 2)
        }
        b'\'' => letter(text),
        _ => None,
    }
}

/// Returns the length of the character literal that the text begins with; a lifetime is none.
fn letter(text: &str) -> Option<usize> {
    let inside = &text[1..];
    let first = inside.chars().next()?;
    let length = if let Some(unicode) = inside.strip_prefix("\\u{") {
        unicode.find('}')? + 4
    } else if first == '\\' {
        1 + inside[1..].chars().next()?.len_utf8()
    } else if first == '\'' || first == '\n' {
        return None;
    } else {
        first.len_utf8()
    };
    inside[length..].starts_with('\'').then_some(length + 2)
}

/// Returns the offset of the attribute of an inline test module: `#[cfg(test)] mod … {`.
pub(super) fn inline_tests(text: &str) -> Option<usize> {
    let mut attributes = text.match_indices("#[cfg(");
    let found = attributes.find(|(at, attribute)| {
        let rest = &text[at + attribute.len()..];
        let rest = rest.strip_prefix("all(").unwrap_or(rest);
        let line = rest.split('\n').next().unwrap_or(rest);
        let mut ends = line.match_indices(")]");
        rest.starts_with("test") && ends.any(|(end, _)| is_inline_module(&rest[end + 2..]))
    });
    found.map(|(at, _)| at)
}

fn is_inline_module(text: &str) -> bool {
    let Some(name) = text.trim_start().strip_prefix("mod ") else {
        return false;
    };
    let rest = name.trim_start_matches(is_word_letter);
    rest.len() < name.len() && rest.starts_with(" {")
}

pub(super) fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Returns the words of a text, identifiers and keywords of code among them, with their offsets.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += text[at..].find(is_word_letter)?;
        let start = at;
        let length = text[at..].find(|letter| !is_word_letter(letter));
        at += length.unwrap_or(text.len() - at);
        Some((start, &text[start..at]))
    })
}

/// Returns the line of an offset, counted from 1.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Returns the offset of the bracket that closes the one at `open`, of whatever kind.
pub(super) fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    let found = code[open..].char_indices().find(|(_, letter)| {
        depth += bracket(*letter);
        depth == 0
    });
    found.map(|(at, _)| open + at)
}

/// Returns the offset of the innermost bracket that is open at an offset.
pub(super) fn enclosing(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    let found = code[..at].char_indices().rev().find(|(_, letter)| {
        depth += bracket(*letter);
        depth == 1
    });
    found.map(|(at, _)| at)
}

fn bracket(letter: char) -> i32 {
    match letter {
        '(' | '[' | '{' => 1,
        ')' | ']' | '}' => -1,
        _ => 0,
    }
}

/// Returns the attributes and the visibility that stand before the item at an offset.
pub(super) fn before_item(code: &str, at: usize) -> &str {
    let start = code[..at].rfind(['{', '}', ';']).map_or(0, |end| end + 1);
    &code[start..at]
}
