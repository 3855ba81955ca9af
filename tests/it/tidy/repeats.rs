//! Things of which the repository has one, or none.

use super::source::{PACKAGES, production, words};
use super::{expect_none, files, read, root};

#[test]
fn one_of_each() {
    let mut offences = Vec::new();
    for package in PACKAGES {
        // Poisoned locks are handled in one place of a package.
        let files = production(package).into_iter();
        let using = files.filter(|file| words(&file.code).any(|(_, word)| word == "PoisonError"));
        let using: Vec<String> = using.map(|file| file.path).collect();
        if using.len() > 1 {
            let (count, paths) = (using.len(), using.join(" "));
            offences.push(format!(
                "{package}: {count} files with PoisonError: {paths}"
            ));
        }
    }
    for path in [".rs", ".md", ".toml"]
        .iter()
        .flat_map(|end| files("", end))
    {
        let text = flat(&read(&root().join(&path)));
        let found = outside_references().into_iter();
        let found = found.filter(|phrase| text.contains(phrase.as_str()));
        offences.extend(found.map(|phrase| format!("{}: {phrase:?}", path.display())));
    }
    expect_none("more than one, or a reference that leads out", &offences);
}

/// Names of pages that are not in the repository, in lower case. They are put together here, so
/// that this file does not hold what it looks for.
fn outside_references() -> [String; 3] {
    [
        ("design", "§"),
        ("research", "notes"),
        ("acceptance", "list"),
    ]
    .map(|(first, second)| format!("{first} {second}"))
}

/// Returns a text in lower case as one line, without the marks of comments, so that a phrase is
/// found where a line ends in it.
fn flat(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim_start();
        match line.strip_prefix("//") {
            Some(comment) => comment.trim_start_matches(['/', '!']),
            None => line.trim_start_matches(['#', '>', '*']),
        }
    });
    let words = lines.flat_map(str::split_whitespace);
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}
