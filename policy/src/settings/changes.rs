//! Differences between two sets of settings, as text by the keys of the configuration.

use super::DependencySettings;
use super::shown::{ShownEntry, ShownValue};

impl DependencySettings {
    /// Lists the changes from these settings to `new`, one line per key of the configuration:
    /// `key: old -> new`, with the values that a file would have.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<String> {
        sections(&self.shown(), &new.shown())
    }

    /// Lists the changes that need a restart of the dependency: its workers, and `fallback_only`.
    #[must_use]
    pub fn worker_changes(&self, new: &Self) -> Vec<String> {
        sections(&self.shown_at_start(), &new.shown_at_start())
    }
}

/// Compares section by section. A key that only one side has depends on another key, which says it.
fn sections(old: &[ShownEntry], new: &[ShownEntry]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, old) in old {
        let Some(new) = value_of(new, name) else {
            continue;
        };
        match (old, new) {
            (ShownValue::Table(old), ShownValue::Table(new)) => {
                for (key, old) in old {
                    if let Some(new) = value_of(new, key) {
                        compare(&mut found, &format!("{name}.{key}"), old, new);
                    }
                }
            }
            _ => compare(&mut found, name, old, new),
        }
    }
    found
}

/// Compares two values. Tables of the same keys are compared key by key, others as a whole.
fn compare(found: &mut Vec<String>, key: &str, old: &ShownValue, new: &ShownValue) {
    if old == new {
        return;
    }
    match (old, new) {
        (ShownValue::Table(olds), ShownValue::Table(news)) if has_same_keys(olds, news) => {
            for ((name, old), (_, new)) in olds.iter().zip(news) {
                compare(found, &format!("{key}.{name}"), old, new);
            }
        }
        _ => found.push(format!("{key}: {old} -> {new}")),
    }
}

fn value_of<'e>(entries: &'e [ShownEntry], key: &str) -> Option<&'e ShownValue> {
    let entry = entries.iter().find(|(name, _)| *name == key);
    entry.map(|(_, value)| value)
}

/// Returns true for two tables of one kind.
fn has_same_keys(one: &[ShownEntry], other: &[ShownEntry]) -> bool {
    let kind = |entries: &[ShownEntry]| value_of(entries, "kind").cloned();
    let keys = |entries: &[ShownEntry]| entries.iter().map(|(key, _)| *key).collect::<Vec<_>>();
    keys(one) == keys(other) && kind(one) == kind(other)
}

#[cfg(test)]
mod tests;
