//! The facade: every name that crate `breakerbox` and its prelude export, as a list in a file.

use std::collections::BTreeSet;

use super::imports::leaves;
use super::source::{before_item, enclosing, scan, words};
use super::{expect_none, read, root};

/// The list: one path a line, sorted by bytes, `(hidden)` behind those that the documentation
/// does not show. `prelude::` marks the names of the prelude. The contents of modules that have a
/// file of their own are not listed.
const LIST: &str = "tests/it/tidy/facade.txt";

/// Set to `write`, the environment variable makes the test write the list instead.
const WRITE: &str = "BREAKERBOX_TEST_FACADE";

#[test]
fn the_facade_is_the_list() {
    let exports: Vec<String> = exports("src/lib.rs").into_iter().collect();
    let path = root().join(LIST);
    if std::env::var(WRITE).is_ok_and(|value| value == "write") {
        let text = exports.join("\n") + "\n";
        std::fs::write(&path, text).expect("a writable list");
    }
    let text = read(&path);
    let list: Vec<&str> = text.lines().collect();
    let added = exports.iter().filter(|name| !list.contains(&name.as_str()));
    let mut offences: Vec<String> = added.map(|name| format!("+ {name}")).collect();
    let removed = list
        .iter()
        .filter(|name| !exports.iter().any(|export| export == **name));
    offences.extend(removed.map(|name| format!("- {name}")));
    if offences.is_empty() && list != exports {
        offences.push("the list is not sorted, or has a name twice".to_owned());
    }
    let headline = format!(
        "the facade has changed; if that is meant, change {LIST} ({WRITE}=write does) and add a \
         line to CHANGELOG.md"
    );
    expect_none(&headline, &offences);
}

/// Returns the crate's folder behind a name that a `pub use` leads to.
fn crate_root(name: &str) -> Option<&'static str> {
    match name {
        "breakerbox_actors" => Some("actors/src/lib.rs"),
        "breakerbox_policy" => Some("policy/src/lib.rs"),
        _ => None,
    }
}

/// Returns the paths of all exports of a crate, read from the `pub use` and `pub mod` items of
/// its root.
fn exports(file: &str) -> BTreeSet<String> {
    let (code, _) = scan(&read(&root().join(file)));
    let mut found = BTreeSet::new();
    for (at, word) in words(&code).filter(|(_, word)| *word == "pub") {
        let (Some(prefix), Some((keyword, item))) = (
            module_around(&code, at),
            code[at + word.len()..].trim_start().split_once(' '),
        ) else {
            continue;
        };
        let attributes = before_item(&code, at).replace(' ', "");
        if attributes.contains("cfg(test)") {
            continue;
        }
        let hidden = attributes.contains("doc(hidden)");
        let mut add = |name: &str| {
            let mark = if hidden { " (hidden)" } else { "" };
            found.insert(format!("{prefix}{name}{mark}"));
        };
        match keyword {
            "use" => used(item, &mut add),
            "mod" => add(words(item).next().map_or("", |(_, name)| name)),
            _ => {}
        }
    }
    found
}

/// Adds the names that a `pub use` exports; those of a whole crate one by one.
fn used(item: &str, add: &mut impl FnMut(&str)) {
    let tree = item.split(';').next().unwrap_or(item);
    for leaf in leaves("", tree) {
        let names: Vec<&str> = leaf.path.iter().map(String::as_str).collect();
        match names[..] {
            [name, "*"] if crate_root(name).is_some() => {
                let all = crate_root(name).map(exports).unwrap_or_default();
                all.iter().for_each(|name| add(name));
            }
            [.., "*"] => add(&names.join("::")),
            [name] if crate_root(name).is_some() => {
                add(&leaf.name);
                let all = crate_root(name).map(exports).unwrap_or_default();
                all.iter()
                    .for_each(|name| add(&format!("{}::{name}", leaf.name)));
            }
            _ => add(&leaf.name),
        }
    }
}

/// Returns the path of the public inline modules around an item; `None` inside of anything else.
fn module_around(code: &str, at: usize) -> Option<String> {
    let Some(open) = enclosing(code, at) else {
        return Some(String::new());
    };
    let header = before_item(code, open).trim_end();
    let start = header.rfind("pub mod ")?;
    let name = &header[start + "pub mod ".len()..];
    let around = module_around(code, open)?;
    Some(format!("{around}{name}::"))
}
