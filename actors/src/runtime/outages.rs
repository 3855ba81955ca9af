//! The health and the outages of all dependencies (rules HLT-1 and HLT-2).

use std::sync::Arc;

use breakerbox_policy::{Outage, Time};

use super::Runtime;
use crate::runtime::status::DependencyStatus;
use crate::state::Shared;

/// An outage, with its dependency.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DependencyOutage {
    /// The dependency.
    pub dependency: String,
    /// The outage.
    pub outage: Outage,
}

impl Runtime {
    /// Returns the status of every dependency, ordered by name.
    #[must_use]
    pub fn statuses(&self) -> Vec<DependencyStatus> {
        self.observe_health();
        let registry = self.registry();
        registry.values().map(|one| one.status()).collect()
    }

    /// Returns the status of one dependency, or `None` if none has this name.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<DependencyStatus> {
        self.shared(name)?.look_at_answers();
        self.registry().get(name).map(|one| one.status())
    }

    /// Looks at the answers that the callers of each dependency got in the last seconds. A share of
    /// errors that begins or ends an outage is noted, with its event.
    ///
    /// Errors and reads of the status do so by themselves. A program that reads no status calls it
    /// now and then, if it is to be told of the end of an outage without further traffic.
    pub fn observe_health(&self) {
        for shared in self.all_shared() {
            // Without the registry's lock: a listener of the event may read the status.
            shared.look_at_answers();
        }
    }

    /// Returns the outages of all dependencies: those that stand, then the last ones that have ended,
    /// newest first.
    ///
    /// # Source  Rule HLT-2 in docs/rules.md.
    #[must_use]
    pub fn outages(&self) -> Vec<DependencyOutage> {
        self.observe_health();
        let all = self.all_shared().into_iter().flat_map(|shared| {
            let kept = shared.kept_outages().into_iter();
            kept.map(move |outage| DependencyOutage {
                dependency: shared.name.to_string(),
                outage,
            })
        });
        let mut all: Vec<DependencyOutage> = all.collect();
        // HLT-2: one that stands is never below one that has ended.
        all.sort_by_key(|one| (one.outage.ended.is_some(), std::cmp::Reverse(one.outage.id)));
        all
    }

    /// Notes that an operator looks after an outage, and returns its dependency; `None` if no outage
    /// of this number is kept.
    pub fn acknowledge_outage(&self, id: u64, by: &str, note: &str) -> Option<String> {
        let mut all = self.all_shared().into_iter();
        let shared = all.find(|shared| shared.acknowledge_outage(id, by, note))?;
        Some(shared.name.to_string())
    }

    /// Makes the numbers of new outages follow this one, so that those of an earlier process can be
    /// kept beside them.
    pub fn number_outages_after(&self, last: u64) {
        self.inner.around.events.number_outages_after(last);
    }

    /// Returns the outage that a dependency had at this time, if it is kept. It looks at no answers,
    /// so a listener of events may call it.
    #[must_use]
    pub fn outage_at(&self, name: &str, at: Time) -> Option<Outage> {
        let kept = self.shared(name)?.kept_outages();
        let covers =
            |outage: &Outage| outage.since <= at && outage.ended.is_none_or(|ended| at <= ended);
        kept.into_iter().find(covers)
    }

    fn all_shared(&self) -> Vec<Arc<Shared>> {
        let registry = self.registry();
        let all = registry.values().map(|one| Arc::clone(one.shared()));
        all.collect()
    }
}
