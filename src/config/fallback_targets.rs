//! Validation of the dependencies that are fallbacks of others.

use std::collections::{BTreeMap, BTreeSet};

use super::dependency::DependencyConfig;
use super::fallback::FallbackKind;
use super::section::Section;
use super::url::origin;
use breakerbox_actors::did_you_mean;

/// Maximum number of dependencies that stand in for one another. Each call waits within the one before
/// it, and so takes more of its thread's stack.
const MAX_CHAIN: usize = 8;

/// Reports fallbacks on unknown dependencies, cycles, and chains that are too long.
pub(super) fn check(dependencies: &BTreeMap<String, DependencyConfig>, table: &Section<'_>) {
    for (owner, config) in dependencies {
        for (index, name) in named_by(config) {
            if dependencies.contains_key(name) {
                continue;
            }
            let hint = did_you_mean(name, dependencies.keys().map(String::as_str));
            let names: Vec<&str> = dependencies.keys().map(String::as_str).collect();
            table.conflict(
                &format!("{owner}.fallback[{index}].name"),
                format!("there is no such dependency{hint}"),
                &format!("one of {}", names.join(", ")),
            );
        }
    }
    let mut done = BTreeSet::new();
    for start in dependencies.keys() {
        walk(dependencies, table, &mut vec![start], &mut done);
    }
    let mut lengths = BTreeMap::new();
    for owner in dependencies.keys() {
        // EDGE-4: no configuration lets a caller's request exhaust the stack. The longer chains that
        // lead here are no further mistake.
        if chain_length(dependencies, owner, &mut lengths) != MAX_CHAIN + 1 {
            continue;
        }
        let named = dependencies.get(owner).into_iter().flat_map(named_by);
        for (index, _) in named.filter(|(_, name)| lengths.get(name) == Some(&MAX_CHAIN)) {
            table.conflict(
                &format!("{owner}.fallback[{index}].name"),
                format!("a chain of {} dependencies", MAX_CHAIN + 1),
                &format!("at most {MAX_CHAIN}, each the fallback of the one before it"),
            );
        }
    }
}

/// Returns the number of dependencies in the longest chain that begins with one. `known`: those that
/// were visited.
fn chain_length<'a>(
    dependencies: &'a BTreeMap<String, DependencyConfig>,
    owner: &'a str,
    known: &mut BTreeMap<&'a str, usize>,
) -> usize {
    if let Some(length) = known.get(owner) {
        return *length;
    }
    // A cycle, which is reported before, ends here.
    known.insert(owner, 0);
    let named = dependencies.get(owner).into_iter().flat_map(named_by);
    let rest = named.map(|(_, next)| chain_length(dependencies, next, known));
    let length = 1 + rest.max().unwrap_or(0);
    known.insert(owner, length);
    length
}

/// Sets which fallbacks get the credentials of callers, where the configuration leaves it open.
pub(super) fn trust_same_origin(dependencies: &mut BTreeMap<String, DependencyConfig>) {
    let place = |config: &DependencyConfig| config.url.as_deref().map(origin);
    let origins: BTreeMap<String, _> = dependencies
        .iter()
        .map(|(name, config)| (name.clone(), place(config)))
        .collect();
    for config in dependencies.values_mut() {
        let own = place(config);
        for fallback in &mut config.fallbacks {
            if let FallbackKind::Dependency { name, credentials } = &mut fallback.kind {
                // EDGE-2: another origin may be another company's.
                let is_same = || own.is_some() && origins.get(name) == Some(&own);
                credentials.get_or_insert_with(is_same);
            }
        }
    }
}

/// Follows the fallbacks of the last name on `path`, visiting each dependency once. A step back to
/// a name on `path` is a cycle.
fn walk<'a>(
    dependencies: &'a BTreeMap<String, DependencyConfig>,
    table: &Section<'_>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) {
    let Some(owner) = path.last().copied() else {
        return;
    };
    let Some(config) = dependencies.get(owner) else {
        return;
    };
    if !done.insert(owner) {
        return;
    }
    for (index, next) in named_by(config) {
        if let Some(begin) = path.iter().position(|name| *name == next) {
            let circle = path[begin..].join("->");
            table.conflict(
                &format!("{owner}.fallback[{index}].name"),
                format!("a circle, {circle}->{next}"),
                "dependencies that do not fall back on each other",
            );
        } else {
            path.push(next);
            walk(dependencies, table, path, done);
            path.pop();
        }
    }
}

fn named_by(config: &DependencyConfig) -> impl Iterator<Item = (usize, &str)> {
    let fallbacks = config.fallbacks.iter().enumerate();
    fallbacks.filter_map(|(index, fallback)| match &fallback.kind {
        FallbackKind::Dependency { name, .. } => Some((index, name.as_str())),
        _ => None,
    })
}
