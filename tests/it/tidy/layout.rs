//! The layout of `actors/src`: the inherent methods of a type stand with it, and one driver runs
//! every call.

use super::expect_none;
use super::imports::Modules;
use super::source::{closing, enclosing, line_at, production, words};

/// Types of the actor runtime, each with the module of all its inherent methods.
const PLACES: [(&str, &str); 3] = [
    ("Shared", "actors/src/state"),
    ("Runtime", "actors/src/runtime"),
    ("Client", "actors/src/client"),
];

#[test]
fn what_belongs_to_a_type_stands_with_it() {
    let files = production("actors/src");
    let mut offences = Vec::new();
    for (name, module) in PLACES {
        let mut blocks = 0;
        for file in &files {
            let found = inherent_impls(&file.code).filter(|(_, of)| *of == name);
            let found: Vec<usize> = found.map(|(at, _)| line_at(&file.code, at)).collect();
            blocks += found.len();
            if file.path != format!("{module}.rs") && !file.path.starts_with(&format!("{module}/"))
            {
                let lines = found.into_iter();
                offences.extend(lines.map(|line| format!("{}:{line}: impl {name}", file.path)));
            }
        }
        if blocks == 0 {
            offences.push(format!("no `impl {name}` in actors/src: was it renamed?"));
        }
    }
    offences.extend(limits_that_know_the_state());
    expect_none("a method far from its type, or an arrow upward", &offences);
}

/// Returns the imports of `state` by a module of `limits`.
fn limits_that_know_the_state() -> Vec<String> {
    let modules = Modules::read("actors/src");
    let limits = ["limits".to_owned()];
    let mut found = Vec::new();
    if !modules.known.contains(&limits[..]) {
        found.push("actors/src/limits is missing: was it moved?".to_owned());
    }
    for (module, paths) in modules.below(&[]) {
        if !module.starts_with(&limits) {
            continue;
        }
        for path in paths {
            let target = modules.resolve(module, path).unwrap_or_default();
            let leads = target.first().is_some_and(|name| name == "state");
            if leads || path.starts_with(&["crate".to_owned(), "state".to_owned()]) {
                let (module, path) = (module.join("/"), path.join("::"));
                found.push(format!("actors/src/{module}.rs: imports {path}"));
            }
        }
    }
    found
}

/// Returns the offset of each `impl` block without a trait, and the name of its type.
fn inherent_impls(code: &str) -> impl Iterator<Item = (usize, &str)> {
    words(code).filter_map(|(at, word)| {
        let before = code[..at].trim_end();
        let begins = before.is_empty()
            || before.ends_with(['}', '{', ';', ']'])
            || before.ends_with("unsafe");
        if word != "impl" || !begins {
            return None;
        }
        let rest = skip_generics(code[at + word.len()..].trim_start());
        let header = rest.split(['{', ';']).next()?;
        let has_trait = words(header).any(|(at, word)| word == "for" && depth(&header[..at]) == 0);
        if has_trait {
            return None;
        }
        let path = header.split(['<', ' ', '\n']).find(|part| !part.is_empty());
        Some((at, path?.rsplit("::").next()?))
    })
}

/// Returns the text after the generic parameters that it begins with.
fn skip_generics(text: &str) -> &str {
    if !text.starts_with('<') {
        return text;
    }
    let mut ends = text.match_indices('>').map(|(at, _)| at + 1);
    let end = ends.find(|end| depth(&text[..*end]) == 0);
    text[end.unwrap_or(0)..].trim_start()
}

/// Returns the number of angle brackets that are still open; an arrow closes none.
fn depth(text: &str) -> i32 {
    let text = text.replace("->", "").replace("=>", "");
    let mut depth = 0;
    for letter in text.chars() {
        depth += i32::from(letter == '<') - i32::from(letter == '>');
    }
    depth
}

/// Files that may make a [`CallError::TimedOut`]: the driver, and the worker that runs the call.
const MAX_TIMED_OUT: usize = 2;

#[test]
fn a_call_has_one_driver() {
    let files = production("actors/src");
    let (mut timed_out, mut retries) = (Vec::new(), Vec::new());
    for file in &files {
        let at_lines = |found: Vec<usize>| {
            let lines = found
                .into_iter()
                .map(|at| line_at(&file.code, at).to_string());
            let lines: Vec<String> = lines.collect();
            (!lines.is_empty()).then(|| format!("{}:{}", file.path, lines.join(",")))
        };
        timed_out.extend(at_lines(timeouts_made(&file.code)));
        retries.extend(at_lines(retry_steps(&file.code)));
    }
    let mut offences = Vec::new();
    if timed_out.len() > MAX_TIMED_OUT {
        let (count, places) = (timed_out.len(), timed_out.join(" "));
        offences.push(format!(
            "CallError::TimedOut is made in {count} files (at most {MAX_TIMED_OUT}): {places}"
        ));
    }
    if timed_out.is_empty() {
        offences.push("CallError::TimedOut is made nowhere: was it renamed?".to_owned());
    }
    if retries.len() != 1 {
        let (count, places) = (retries.len(), retries.join(" "));
        offences.push(format!(
            "RetryState::next is called in {count} files, not in one: {places}"
        ));
    }
    expect_none("a call has more than one driver", &offences);
}

/// Returns the offsets at which a `CallError::TimedOut` is constructed; patterns do not count.
fn timeouts_made(code: &str) -> Vec<usize> {
    let found = words(code).filter(|(at, word)| {
        let of = code[..*at].trim_end();
        let of_error = ["CallError::", "Self::", ">::"]
            .iter()
            .any(|path| of.ends_with(path));
        let after = &code[at + word.len()..];
        let open = at + word.len() + after.len() - after.trim_start().len();
        *word == "TimedOut"
            && of_error
            && code[open..].starts_with('{')
            && closing(code, open).is_some_and(|close| !is_pattern(code, open, close))
    });
    found.map(|(at, _)| at).collect()
}

/// Returns true if the braces of a struct variant are those of a pattern: they end with `..`, or
/// an arm, a binding or an alternative follows them or the brackets around them.
fn is_pattern(code: &str, open: usize, close: usize) -> bool {
    if code[open..close].trim_end().ends_with("..") {
        return true;
    }
    let (mut start, mut end) = (open, close);
    loop {
        let after = code[end + 1..].trim_start();
        let binds = after.starts_with('=') && !after.starts_with("==");
        if binds || after.starts_with('|') || after.starts_with("if ") {
            return true;
        }
        let Some(outer) = enclosing(code, start) else {
            return false;
        };
        if code[outer..].starts_with('{') {
            return false;
        }
        if code[..outer].ends_with("matches!") {
            return code[outer..start].contains(',');
        }
        let Some(outer_end) = closing(code, outer) else {
            return false;
        };
        (start, end) = (outer, outer_end);
    }
}

/// Returns the offsets of the calls to `RetryState::next`. It takes arguments; the method of that
/// name that iterators and streams have takes none.
fn retry_steps(code: &str) -> Vec<usize> {
    let found = words(code).filter(|(at, word)| {
        let before = code[..*at].trim_end();
        let arguments = code[at + word.len()..].strip_prefix('(');
        let arguments = arguments.map(str::trim_start);
        let takes_some = arguments.is_some_and(|rest| !rest.starts_with(')'));
        *word == "next" && takes_some && (before.ends_with('.') || before.ends_with("RetryState::"))
    });
    found.map(|(at, _)| at).collect()
}
