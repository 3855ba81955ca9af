//! New settings for running dependencies (rule CFG-2). They are checked beforehand, and each
//! dependency applies them as a whole, with its state and counters kept.
//!
//! Sections that the program set in code stay; the others follow the configuration.

use breakerbox_policy::{DependencySettings, WorkerSettings};

use crate::breaker::judgement::reconfigure;
use crate::call::core::DependencyCore;
use crate::dependency::Dependency;
use crate::event::EventKind;
use crate::state::configured::judge;
use crate::sync::LockExt;

/// The changes made by a reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReloadReport {
    /// The dependencies with changed settings, by name.
    pub changed: Vec<DependencyReload>,
    /// Names that are configured but not started.
    pub not_started: Vec<String>,
    /// Names that run but are not in the new configuration: they keep their settings. Remove them
    /// with [`Runtime::remove`](crate::Runtime::remove).
    pub not_configured: Vec<String>,
}

/// The changes that a reload made to one dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DependencyReload {
    /// Its name.
    pub name: String,
    /// One line for each changed setting: `key: old -> new`.
    pub changed: Vec<String>,
    /// The changes that take effect only when the dependency is started again.
    pub waits: Vec<String>,
}

/// Applies the current configuration to a dependency. Returns `None` if nothing changes, or if a
/// setting cannot work.
pub(crate) async fn apply_configuration<D: Dependency>(
    core: &DependencyCore<D>,
    given: &DependencySettings,
    by: &str,
) -> Option<DependencyReload> {
    // CFG-1: a program may have made these settings itself.
    if let Err(problem) = judge(given) {
        let kind = EventKind::ReloadRefused {
            by: by.to_owned(),
            problems: problem.to_string(),
        };
        core.shared.events.emit(&core.shared.name, kind);
        return None;
    }
    let _one_at_a_time = core.changing.lock().await;
    let (old, new) = core.configured.acquire().follow(given);
    take_over(core, &old, new, by).await
}

/// Applies the program's settings to a dependency. Returns `None` if nothing changes.
pub(crate) async fn set<D: Dependency>(
    core: &DependencyCore<D>,
    new: DependencySettings,
    by: &str,
) -> Option<DependencyReload> {
    let _one_at_a_time = core.changing.lock().await;
    let old = core.configured.acquire().set(new.clone());
    take_over(core, &old, new, by).await
}

/// Resolves when the new settings are in effect. Settings that only a new start can change stay as
/// they are.
async fn take_over<D: Dependency>(
    core: &DependencyCore<D>,
    old: &DependencySettings,
    new: DependencySettings,
    by: &str,
) -> Option<DependencyReload> {
    let shared = &core.shared;
    // Those who can replace the fallbacks change `fallback_only` with them.
    let only = core.fallbacks.are_replaceable;
    let at_once = |line: &String| {
        line.starts_with("workers.while_restarting:") || only && line.starts_with("fallback_only:")
    };
    let workers = old.worker_changes(&new).into_iter();
    let (now, waits): (Vec<_>, Vec<_>) = workers.partition(at_once);
    let changed = [old.changes(&new), now].concat();
    // A change without a line of its own is one too.
    if changed.is_empty() && waits.is_empty() && *old == new {
        return None;
    }
    let started = shared.settings().workers.clone();
    let new = DependencySettings {
        // The tree keeps the settings it was started with; only the settings that calls read
        // change.
        workers: WorkerSettings {
            while_restarting: new.workers.while_restarting,
            ..started
        },
        ..new
    };
    reconfigure(shared, new);
    let report = DependencyReload {
        name: shared.name.to_string(),
        changed,
        waits,
    };
    if !(report.changed.is_empty() && report.waits.is_empty()) {
        let kind = EventKind::Reloaded {
            by: by.to_owned(),
            changed: report.changed.clone(),
            waits: report.waits.clone(),
        };
        shared.events.emit(&shared.name, kind);
    }
    Some(report)
}

/// Applies the settings of parts that have just taken the place of others: those of their workers,
/// too.
pub(crate) async fn install<D: Dependency>(core: &DependencyCore<D>, settings: DependencySettings) {
    core.shared.set_fallback_only(settings.fallback_only);
    reconfigure(&core.shared, settings);
}
