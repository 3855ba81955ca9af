//! All keys that the readers of the sections know, for advice about those that none of them knows.

use std::collections::BTreeSet;

/// Begin of the keys of a dependency.
const ANY: &str = "dependencies.*";

/// The known keys, and the sections that they are in.
pub(super) struct KnownKeys(BTreeSet<String>);

impl KnownKeys {
    pub(super) fn new() -> Self {
        let mut all = BTreeSet::new();
        for key in super::Settings::keys() {
            let dots = key.match_indices('.').map(|(at, _)| key[..at].to_owned());
            all.extend(dots);
            all.insert(key);
        }
        Self(all)
    }

    /// Returns true if a key or a section has this name, in any section.
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.0.iter().any(|key| last_of(key) == name)
    }

    /// Returns the names directly below a section; `path` may name a dependency.
    pub(super) fn below(&self, path: &str) -> Vec<&str> {
        let begin = format!("{}.", general(path));
        let below = self.0.iter().filter_map(|key| key.strip_prefix(&begin));
        let mut names: Vec<&str> = below.filter(|rest| !rest.contains('.')).collect();
        names
            .iter_mut()
            .for_each(|name| *name = name.trim_end_matches("[0]"));
        names.dedup();
        names
    }

    /// Returns the paths of a dependency's keys, relative to it.
    pub(super) fn of_dependency(&self) -> impl Iterator<Item = &str> {
        let all = self.0.iter();
        all.filter_map(|key| key.strip_prefix(ANY)?.strip_prefix('.'))
    }

    /// Returns the paths of the keys outside of dependencies.
    pub(super) fn of_process(&self) -> impl Iterator<Item = &str> {
        let all = self.0.iter().map(String::as_str);
        all.filter(|key| !key.starts_with(ANY))
    }
}

/// Returns the last part of a key.
pub(super) fn last_of(key: &str) -> &str {
    let last = key.rsplit('.').next().unwrap_or(key);
    last.trim_end_matches("[0]")
}

/// Returns a name without its separators, in small letters: `maxAttempts` is `max_attempts`.
pub(super) fn folded(name: &str) -> String {
    let letters = name.chars().filter(|letter| letter.is_ascii_alphanumeric());
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Replaces the name of the dependency, and indices, by those that the known keys have.
fn general(path: &str) -> String {
    let parts = path
        .split('.')
        .enumerate()
        .map(|(place, part)| match place {
            1 if path.starts_with("dependencies.") => "*".to_owned(),
            _ => match part.split_once('[') {
                Some((name, _)) => format!("{name}[0]"),
                None => part.to_owned(),
            },
        });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_are_known_as_well_as_the_keys() {
        let known = KnownKeys::new();
        assert!(known.has_name("recovery_timeout") && known.has_name("breaker"));
        assert!(!known.has_name("recovery_tmeout"));
        let timeout = known.below("dependencies.web.timeout");
        assert_eq!(
            timeout,
            [
                "attempt",
                "connect",
                "first_byte",
                "first_token",
                "gap",
                "idle",
                "keep",
                "total"
            ]
        );
        assert!(
            known
                .below("dependencies.web.fallback[3]")
                .contains(&"max_age")
        );
        assert!(
            known
                .of_dependency()
                .any(|key| key == "breaker.window.kind")
        );
        assert!(known.of_process().any(|key| key == "gateway.bind"));
    }
}
