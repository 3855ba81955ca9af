//! New settings for what runs already (rule CFG-2): checked before, taken over by each dependency
//! as a whole, with its state and its counters kept.
//!
//! What the program set in code stays; a section that it left alone follows the configuration.

use std::sync::{Mutex, MutexGuard, PoisonError};

use breakerbox_policy::{DependencySettings, WorkerSettings};

use crate::client::Core;
use crate::dependency::Dependency;
use crate::event::EventKind;
use crate::message::Reconfigure;

/// What a reload has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReloadReport {
    /// The dependencies that run by other settings now, by name.
    pub changed: Vec<DependencyReload>,
    /// Names that are configured and that nobody has started.
    pub not_started: Vec<String>,
    /// Names that run and are configured no more: they keep their settings. Take them out with
    /// [`Runtime::remove`](crate::Runtime::remove).
    pub not_configured: Vec<String>,
}

/// What a reload has changed of one dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DependencyReload {
    /// Its name.
    pub name: String,
    /// A line a setting: `key: old -> new`.
    pub changed: Vec<String>,
    /// Those that hold only after the dependency was started anew.
    pub waits: Vec<String>,
}

/// The settings that the configuration gave a dependency, and what the program made of them.
#[derive(Debug, Clone)]
pub(crate) struct Configured {
    /// What the configuration said when they were last taken over.
    given: DependencySettings,
    /// What was made of it.
    made: DependencySettings,
}

/// Takes each section of `new` but those in which the program differs from what it was given.
macro_rules! merge {
    ($one:expr, $new:expr, [$($section:ident),* $(,)?]) => {
        DependencySettings {
            $($section: if $one.given.$section == $one.made.$section {
                $new.$section.clone()
            } else {
                $one.made.$section.clone()
            }),*
        }
    };
}

impl Configured {
    /// What the configuration gave, and what the program made of it.
    pub(crate) fn new(given: DependencySettings, made: DependencySettings) -> Self {
        Self { given, made }
    }

    /// What holds once the configuration says `new`.
    fn with(&self, new: &DependencySettings) -> DependencySettings {
        merge!(
            self,
            new,
            [
                breaker,
                timeout,
                retry,
                hedge,
                rate_limit,
                throttle,
                bulkhead,
                workers,
                classify,
                keys,
                when_all_down,
                chaos,
                fallback_only,
            ]
        )
    }
}

/// Has a dependency take over what the configuration says now; `None` when that changes nothing.
pub(crate) async fn follow<D: Dependency>(
    core: &Core<D>,
    given: &DependencySettings,
    by: &str,
) -> Option<DependencyReload> {
    let (old, new) = {
        let mut configured = lock(&core.configured);
        let made = configured.with(given);
        let old = std::mem::replace(&mut configured.made, made.clone());
        configured.given = given.clone();
        (old, made)
    };
    take_over(core, &old, new, by).await
}

/// Has a dependency take over what the program says; `None` when that changes nothing.
pub(crate) async fn set<D: Dependency>(
    core: &Core<D>,
    new: DependencySettings,
    by: &str,
) -> Option<DependencyReload> {
    let old = std::mem::replace(&mut lock(&core.configured).made, new.clone());
    take_over(core, &old, new, by).await
}

/// Resolves when the new settings hold. What only a new start can change stays as it is.
async fn take_over<D: Dependency>(
    core: &Core<D>,
    old: &DependencySettings,
    new: DependencySettings,
    by: &str,
) -> Option<DependencyReload> {
    let shared = &core.shared;
    let at_once = |line: &String| line.starts_with("workers.while_restarting:");
    let workers = old.worker_changes(&new).into_iter();
    let (now, waits): (Vec<_>, Vec<_>) = workers.partition(at_once);
    let changed = [old.changes(&new), now].concat();
    if changed.is_empty() && waits.is_empty() {
        return None;
    }
    let started = shared.settings().workers.clone();
    let new = DependencySettings {
        // The tree is as it was started; only what calls look at follows.
        workers: WorkerSettings {
            while_restarting: new.workers.while_restarting,
            ..started
        },
        fallback_only: shared.settings().fallback_only,
        ..new
    };
    // A breaker that is gone has no settings any more.
    let _ = core.breaker.addr.send(Reconfigure(Box::new(new))).await;
    let report = DependencyReload {
        name: shared.name.to_string(),
        changed,
        waits,
    };
    let kind = EventKind::Reloaded {
        by: by.to_owned(),
        changed: report.changed.clone(),
        waits: report.waits.clone(),
    };
    shared.events.emit(&shared.name, kind);
    Some(report)
}

fn lock(configured: &Mutex<Configured>) -> MutexGuard<'_, Configured> {
    configured.lock().unwrap_or_else(PoisonError::into_inner)
}
