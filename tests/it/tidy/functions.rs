//! The length of functions.

use super::expect_none;
use super::source::{all_production, closing, line_at, words};

/// Lines from `fn` to the closing brace, both included. Aim at 50.
const MAX_LINES: usize = 80;

#[test]
fn no_function_is_longer_than_80_lines() {
    let mut offences = Vec::new();
    for file in all_production() {
        let long = functions(&file.code).filter(|function| function.lines > MAX_LINES);
        offences.extend(long.map(|long| {
            let line = line_at(&file.code, long.at);
            format!(
                "{}:{line}: {} has {} lines",
                file.path, long.name, long.lines
            )
        }));
    }
    expect_none("a function is too long", &offences);
}

/// A function with a body.
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    /// The offset of its `fn`.
    pub(super) at: usize,
    lines: usize,
}

/// Returns the functions of a file, nested ones too. `fn` in a type or before a macro's
/// variable is none.
pub(super) fn functions(code: &str) -> impl Iterator<Item = Function<'_>> {
    words(code).filter_map(|(at, word)| {
        let rest = code[at..].strip_prefix("fn ").filter(|_| word == "fn")?;
        let (0, name) = words(rest).next()? else {
            return None;
        };
        let open = body(code, at)?;
        let close = closing(code, open)?;
        let lines = code[at..close].matches('\n').count() + 1;
        Some(Function { name, at, lines })
    })
}

/// Returns the offset of the brace that opens a function's body; a declaration has none.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    let end = code[at..].char_indices().find(|(_, letter)| {
        depth += match letter {
            '(' | '[' => 1,
            ')' | ']' => -1,
            _ => 0,
        };
        depth == 0 && matches!(letter, '{' | ';')
    });
    end.filter(|(_, letter)| *letter == '{')
        .map(|(below, _)| at + below)
}
