//! What changes while the runtime runs: settings (rule CFG-2), and dependencies that come and go.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Runtime, RuntimeSettings, lock};
use crate::dependency::Shared;
use crate::event::EventKind;
use crate::reload::ReloadReport;

impl Runtime {
    /// Gives new settings to the dependencies that run; those that are started later get them too.
    /// Only `dependencies` is looked at.
    ///
    /// Each dependency takes its settings over as a whole, with its state and its counters kept;
    /// calls in flight go on by those they began with. What the program set in code stays. `by` is
    /// who or what brought them: it stands in the events.
    ///
    /// # Cancel safety   Dropped, the dependencies that have not been reached keep the old ones.
    /// # Source  Rule CFG-2 in docs/rules.md.
    pub async fn reload(&self, settings: impl Into<RuntimeSettings>, by: &str) -> ReloadReport {
        let _one_at_a_time = self.inner.reloading.lock().await;
        let new = settings.into().dependencies;
        let old = std::mem::replace(&mut *lock(&self.inner.settings), new.clone());
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

    /// Tells everyone who listens that new settings were refused and the old ones hold.
    pub fn refuse_reload(&self, by: &str, problems: &str) {
        let kind = EventKind::ReloadRefused {
            by: by.to_owned(),
            problems: problems.to_owned(),
        };
        self.inner.around.events.emit(&Arc::from("runtime"), kind);
    }

    /// Takes a dependency out while the others go on: refuses its new calls, lets those in flight
    /// finish within its drain time, stops it, and frees its name. False when there is none of
    /// this name.
    ///
    /// # Cancel safety   Dropped, it goes on draining; call it again to free the name.
    pub async fn remove(&self, name: &str, by: &str) -> bool {
        let Some(one) = self.registry().get(name).cloned() else {
            return false;
        };
        one.drain();
        // It may have ended by itself, or been taken out of the tree by hand.
        let _ = self.inner.root.terminate(name).await;
        let _ = self.inner.root.delete(name).await;
        one.stop();
        lock(&self.inner.groups).remove(name);
        let mut registry = self.registry();
        if registry.get(name).is_some_and(|now| Arc::ptr_eq(now, &one)) {
            registry.remove(name);
        }
        drop(registry);
        let kind = EventKind::Removed { by: by.to_owned() };
        self.inner.around.events.emit(&Arc::from(name), kind);
        true
    }

    /// The number of this runtime, which no other one has.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.inner.id
    }

    /// What the actors around a dependency share, by its name.
    pub(crate) fn shared(&self, name: &str) -> Option<Arc<Shared>> {
        self.registry()
            .get(name)
            .map(|one| Arc::clone(one.shared()))
    }

    /// The names of what runs.
    pub(crate) fn running(&self) -> BTreeSet<String> {
        let registry = self.registry();
        let running = registry.iter().filter(|(_, one)| !one.is_stopped());
        running.map(|(name, _)| name.clone()).collect()
    }

    /// The names that the configuration has.
    pub(crate) fn configured(&self) -> BTreeSet<String> {
        lock(&self.inner.settings).keys().cloned().collect()
    }
}
