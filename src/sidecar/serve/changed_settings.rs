//! The changes of the process's own settings: those that hold at once, and those that wait for its
//! next start.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Settings;

/// A secret among the effective values.
const SECRET: &str = "***";

/// Sections, and keys of other sections, that are read at the start only.
const FIXED: [&str; 10] = [
    "admin.",
    "fleet.",
    "gateway.access_log",
    "gateway.bind",
    "gateway.max_connections",
    "gateway.threads",
    "otel.",
    "recorder.",
    "reload.debounce",
    "reload.watch",
];

/// Changes between two configurations, a line for each key.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ChangedSettings {
    /// They hold at once.
    pub(super) at_once: Vec<String>,
    /// They wait for the next start.
    pub(super) waits: Vec<String>,
}

impl ChangedSettings {
    /// Compares all keys outside of dependencies and consumers, which tell their own changes.
    pub(super) fn between(old: &Settings, new: &Settings) -> Self {
        let sections = [
            ("admin.", old.admin != new.admin),
            ("fleet.", old.fleet != new.fleet),
            ("gateway.", old.gateway != new.gateway),
            ("otel.", old.otel != new.otel),
            ("recorder.", old.recorder != new.recorder),
            ("reload.", old.reload != new.reload),
        ];
        let changed = sections.into_iter().filter(|(_, is_changed)| *is_changed);
        let lines = changed.flat_map(|(section, _)| lines(section, old, new));
        // CFG-2: a reload tells what it has not applied, too.
        let is_fixed = |line: &String| FIXED.iter().any(|fixed| line.starts_with(fixed));
        let (waits, at_once) = lines.partition(is_fixed);
        Self { at_once, waits }
    }
}

/// Returns a line for each key of a section with another value.
fn lines(section: &str, old: &Settings, new: &Settings) -> Vec<String> {
    let of = |settings: &Settings| {
        let all = settings.effective().iter();
        let own = all.filter(|one| one.key.starts_with(section));
        own.map(|one| (one.key.clone(), one.value.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let (old, new) = (of(old), of(new));
    let all: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let shown = |value: Option<&String>| value.map_or("unset", String::as_str).to_owned();
    let line = |key: &&String| {
        let (before, after) = (shown(old.get(*key)), shown(new.get(*key)));
        (before != after).then(|| format!("{key}: {before} -> {after}"))
    };
    let lines: Vec<_> = all.iter().filter_map(line).collect();
    if !lines.is_empty() {
        return lines;
    }
    // SEC-1: secrets are shown as the same, so that one of them is what differs.
    let secrets = new.iter().filter(|(_, value)| value.contains(SECRET));
    secrets
        .map(|(key, value)| format!("{key}: {value} -> {value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::loader().bare().toml(text).load().unwrap()
    }

    #[test]
    fn cfg_2_a_changed_key_is_told_with_its_values_and_one_that_waits_as_such() {
        let old = settings("[admin]\ntoken = \"a-token-of-sixteen\"\n");
        let new = settings(
            "[gateway]\nmax_body = \"1MB\"\nthreads = 2\n[admin]\ntoken = \"another-token-of-it\"\n",
        );
        let changed = ChangedSettings::between(&old, &new);
        assert_eq!(changed.at_once.len(), 1, "{changed:?}");
        assert!(changed.at_once[0].starts_with("gateway.max_body: "));
        assert!(changed.at_once[0].ends_with(" -> \"1MB\""), "{changed:?}");
        let waits: Vec<_> = changed.waits.iter().map(String::as_str).collect();
        assert_eq!(waits[0], "admin.token: *** -> ***");
        assert!(waits[1].starts_with("gateway.threads: "), "{waits:?}");
        assert_eq!(waits.len(), 2, "{waits:?}");
        assert_eq!(
            ChangedSettings::between(&new, &new),
            ChangedSettings::default()
        );
    }
}
