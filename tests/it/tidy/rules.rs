//! The rules of docs/rules.md: each is named where it is kept, and proved by a test.

use std::collections::BTreeSet;

use super::functions::functions;
use super::source::{all_production, before_item, inline_tests, is_test_path, scan};
use super::{expect_none, read, root, sources};

#[test]
fn rules_stand_where_they_are_kept() {
    let comments: Vec<String> = all_production()
        .into_iter()
        .flat_map(|file| file.comments)
        .map(|comment| comment.text)
        .filter(|text| !text.starts_with("///") && !text.starts_with("//!"))
        .collect();
    let tests = test_functions();
    let mut offences = Vec::new();
    for rule in rules() {
        if rule.status != "now" {
            continue;
        }
        if !comments.iter().any(|text| is_named(text, &rule.id)) {
            offences.push(format!("{}: no `//` comment names it", rule.id));
        }
        let prefix = format!("{}_", rule.id.to_lowercase().replace('-', "_"));
        if !tests.iter().any(|name| name.starts_with(&prefix)) {
            offences.push(format!("{}: no test function is named {prefix}…", rule.id));
        }
    }
    expect_none("a rule that holds now stands nowhere", &offences);
}

struct Rule {
    id: String,
    status: String,
}

/// Returns the rows of the rules' tables.
fn rules() -> Vec<Rule> {
    let page = read(&root().join("docs/rules.md"));
    let mut known = BTreeSet::new();
    let mut rules = Vec::new();
    for row in page.lines() {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        if !row.starts_with('|') || !is_id(cells[0]) {
            continue;
        }
        let id = cells[0].to_owned();
        assert_eq!(cells.len(), 3, "{id}: its row has not three cells");
        let status = cells[2].to_owned();
        assert!(
            ["now", "in work", "later"].contains(&status.as_str()),
            "{id}: {status:?} is no status"
        );
        assert!(known.insert(id.clone()), "{id} stands twice");
        rules.push(Rule { id, status });
    }
    assert!(!rules.is_empty(), "docs/rules.md has no rules");
    rules
}

/// Returns true for a group of capitals, a hyphen and a number.
fn is_id(cell: &str) -> bool {
    let (group, number) = cell.split_once('-').unwrap_or_default();
    let capitals = group.chars().all(|letter| letter.is_ascii_uppercase());
    !group.is_empty() && capitals && number.parse::<u32>().is_ok()
}

/// Returns true if the id stands there as a whole: BRK-1 is not named by BRK-12.
fn is_named(text: &str, id: &str) -> bool {
    text.match_indices(id).any(|(at, _)| {
        let after = text[at + id.len()..].chars().next();
        let before = text[..at].chars().next_back();
        !after.is_some_and(|letter| letter.is_ascii_digit())
            && !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '-')
    })
}

/// Returns the names of all test functions, in test files and in inline test modules.
fn test_functions() -> Vec<String> {
    let mut names = Vec::new();
    for path in sources() {
        let (code, _) = scan(&read(&root().join(&path)));
        let start = if is_test_path(&path.to_string_lossy()) {
            Some(0)
        } else {
            inline_tests(&code)
        };
        let code = start.map_or("", |start| &code[start..]);
        let tests = functions(code).filter(|function| {
            let attributes = before_item(code, function.at);
            attributes.contains("#[test]") || attributes.contains("::test")
        });
        names.extend(tests.map(|function| function.name.to_owned()));
    }
    names
}
