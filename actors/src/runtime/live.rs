//! Changes to a running runtime: new settings (rule CFG-2).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Runtime, RuntimeSettings};
use crate::event::{AppliedReload, EventKind};
use crate::runtime::reload::ReloadReport;
use crate::state::Shared;
use crate::sync::LockExt;

impl Runtime {
    /// Gives new settings to the running dependencies; those started later get them too. Only
    /// `dependencies` is read.
    ///
    /// Each dependency applies its settings as a whole, and keeps its state and counters. The
    /// limits of a call in flight are those at its start; its classification, pauses and retries use
    /// the present settings. Settings that the program set in code stay. `by`
    /// is the origin of the settings; it appears in the events.
    ///
    /// # Cancel safety   Dropped, the dependencies that have not been reached keep their old
    /// settings.
    /// # Source  Rule CFG-2 in docs/rules.md.
    pub async fn reload(&self, settings: impl Into<RuntimeSettings>, by: &str) -> ReloadReport {
        let _one_at_a_time = self.inner.reloading.lock().await;
        let new = settings.into().dependencies;
        let old = std::mem::replace(&mut *self.inner.settings.acquire(), new.clone());
        let running: Vec<_> = {
            let registry = self.registry();
            let all = registry.iter();
            all.map(|(name, one)| (name.clone(), Arc::clone(one)))
                .collect()
        };
        let mut report = ReloadReport::default();
        let is_running = |name: &&String| running.iter().any(|(other, _)| other == *name);
        let idle = new.keys().filter(|name| !is_running(name));
        report.not_started = idle.cloned().collect();
        for (name, one) in &running {
            match new.get(name) {
                Some(given) => report.changed.extend(one.follow(given, by).await),
                None if old.contains_key(name) => report.not_configured.push(name.clone()),
                None => {}
            }
        }
        report
    }

    /// Emits the event that new settings were refused and the old ones stay in effect.
    pub fn refuse_reload(&self, by: &str, problems: &str) {
        let kind = EventKind::ReloadRefused {
            by: by.to_owned(),
            problems: problems.to_owned(),
        };
        self.inner.around.events.emit(&Arc::from("runtime"), kind);
    }

    /// Emits the event that a whole configuration was applied, for a program that adds, replaces
    /// and removes dependencies besides [`Runtime::reload`].
    pub fn note_reload(&self, by: &str, report: AppliedReload) {
        let by = by.to_owned();
        let kind = EventKind::ReloadApplied { by, report };
        self.inner.around.events.emit(&Arc::from("runtime"), kind);
    }

    /// Emits the event of changed settings of the program itself, beside those of its dependencies.
    /// Each is a line `key: old -> new`; those in `waits` hold only after a new start of the program.
    pub fn note_changes(&self, by: &str, changed: Vec<String>, waits: Vec<String>) {
        let by = by.to_owned();
        let kind = EventKind::Reloaded { by, changed, waits };
        self.inner.around.events.emit(&Arc::from("runtime"), kind);
    }

    /// Returns true once a shutdown has begun.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.inner.is_shut_down.load(Ordering::Acquire)
    }

    /// The id of this runtime, unique in the process.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.inner.id
    }

    /// Returns the state shared by the actors around a dependency, by its name.
    pub(crate) fn shared(&self, name: &str) -> Option<Arc<Shared>> {
        self.registry()
            .get(name)
            .map(|one| Arc::clone(one.shared()))
    }

    /// Returns the names of the running dependencies.
    pub(crate) fn running(&self) -> BTreeSet<String> {
        let registry = self.registry();
        let running = registry.iter().filter(|(_, one)| !one.is_stopped());
        running.map(|(name, _)| name.clone()).collect()
    }

    /// Returns the names of the configured dependencies.
    pub(crate) fn configured(&self) -> BTreeSet<String> {
        self.inner.settings.acquire().keys().cloned().collect()
    }
}
