//! The changes of the process's own settings: those that hold at once, and those that wait for its
//! next start.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{EffectiveValue, Settings};

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
        let lines = sections
            .into_iter()
            .flat_map(|(section, is_changed)| lines((section, is_changed), old, new));
        // CFG-2: a reload tells what it has not applied, too.
        let is_fixed = |line: &String| FIXED.iter().any(|fixed| line.starts_with(fixed));
        let (waits, at_once) = lines.partition(is_fixed);
        Self { at_once, waits }
    }
}

/// Returns a line for each secret of a dependency with another value. Other changes of a dependency
/// are told by its settings. `failed`: those that go on with their former values.
pub(super) fn secrets_of_dependencies(
    old: &Settings,
    new: &Settings,
    failed: &[String],
) -> Vec<String> {
    let names = new.dependencies.keys();
    let names = names.filter(|name| old.dependencies.contains_key(*name) && !failed.contains(name));
    let lines = names.flat_map(|name| lines((&format!("dependencies.{name}."), false), old, new));
    lines.collect()
}

/// Returns a line for each key of a section with another value; unless the section `is_changed`, for
/// each with another secret or another file alone: a value may be written in two ways.
fn lines((section, is_changed): (&str, bool), old: &Settings, new: &Settings) -> Vec<String> {
    let (old, new) = (values(section, old), values(section, new));
    let all: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let line = |key: &&&str| {
        let (before, after) = (old.get(**key), new.get(**key));
        let shown = |value: Option<&&EffectiveValue>| {
            value.map_or("unset", |one| one.value.as_str()).to_owned()
        };
        let hidden = |value: Option<&&EffectiveValue>| value.and_then(|one| one.hidden.clone());
        let (was, is) = (shown(before), shown(after));
        // CFG-2: a secret with another value is told as such. SEC-1: both are shown as the same.
        let has_other = hidden(before) != hidden(after);
        if has_other && was == is && !is.contains(SECRET) {
            return Some(format!("{key}: other contents of {is}"));
        }
        (has_other || is_changed && was != is).then(|| format!("{key}: {was} -> {is}"))
    };
    all.iter().filter_map(line).collect()
}

/// Returns the effective values of a section, by key.
fn values<'s>(section: &str, settings: &'s Settings) -> BTreeMap<&'s str, &'s EffectiveValue> {
    let all = settings.effective().iter();
    let own = all.filter(|one| one.key.starts_with(section));
    own.map(|one| (&*one.key, one)).collect()
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

    #[test]
    fn cfg_2_sec_1_each_changed_secret_is_told_beside_other_changes_and_never_its_value() {
        let text = |admin: &str, tokens: &str, body: &str| {
            format!(
                "[admin]\ntoken = \"{admin}-of-sixteen-letters\"\nhosts = [\"{admin}\"]\n\
                 [gateway]\nmax_body = \"{body}\"\nauth.tokens = [\"{tokens}-of-sixteen-letters\"]\n"
            )
        };
        let old = settings(&text("one", "caller", "1MB"));
        let new = settings(&text("two", "caller", "2MB"));
        let changed = ChangedSettings::between(&old, &new);
        assert_eq!(
            changed.waits,
            [
                "admin.hosts: [\"one\"] -> [\"two\"]",
                "admin.token: *** -> ***"
            ]
        );
        // The token of callers is as before.
        assert_eq!(changed.at_once, ["gateway.max_body: \"1MB\" -> \"2MB\""]);
        let both = ChangedSettings::between(&old, &settings(&text("one", "other", "2MB")));
        assert_eq!(both.at_once[0], "gateway.auth.tokens: *** -> ***");
        assert_eq!(both.at_once.len(), 2, "{both:?}");
    }

    #[cfg(feature = "fleet")]
    #[test]
    fn cfg_2_sec_1_another_content_of_a_file_of_credentials_waits_for_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nats.creds");
        let read = |contents: &str| {
            std::fs::write(&path, contents).unwrap();
            settings(&format!(
                "[fleet]\nservers = [\"nats://127.0.0.1:4222\"]\ncredentials = {path:?}\n"
            ))
        };
        let (old, same, new) = (read("first"), read("first"), read("second"));
        assert_eq!(
            ChangedSettings::between(&old, &same),
            ChangedSettings::default()
        );
        let changed = ChangedSettings::between(&old, &new);
        let line = format!("fleet.credentials: other contents of {path:?}");
        assert_eq!((changed.waits, changed.at_once), (vec![line], Vec::new()));
    }

    #[test]
    fn cfg_2_sec_1_a_changed_secret_of_a_dependency_is_told_unless_it_goes_on_as_before() {
        let text = |key: &str, proxy: &str| {
            settings(&format!(
                "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
                 headers = {{ x-api-key = \"{key}\", x-team = \"blue\" }}\n\
                 proxy = \"http://me:{proxy}@proxy:1\"\n"
            ))
        };
        let (old, new) = (text("first", "one"), text("second", "two"));
        assert_eq!(
            secrets_of_dependencies(&old, &new, &[]),
            [
                "dependencies.web.headers.x-api-key: *** -> ***",
                "dependencies.web.proxy: \"http://***@proxy:1\" -> \"http://***@proxy:1\"",
            ]
        );
        let failed = ["web".to_owned()];
        assert!(secrets_of_dependencies(&old, &new, &failed).is_empty());
        assert!(secrets_of_dependencies(&new, &new, &[]).is_empty());
    }
}
