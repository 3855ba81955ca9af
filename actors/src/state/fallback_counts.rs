//! Number of answers of each fallback, by its name. The counters outlive the fallbacks: a reload
//! replaces fallbacks, and counters only go up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::{LockExt, Mutex};

/// The counter of each name.
#[derive(Debug, Default)]
pub(crate) struct FallbackCounts(Mutex<BTreeMap<Arc<str>, Arc<AtomicU64>>>);

impl FallbackCounts {
    /// Returns the counter of this name. Fallbacks of the same name share it.
    pub(crate) fn of(&self, name: &Arc<str>) -> Arc<AtomicU64> {
        let mut counters = self.0.acquire();
        Arc::clone(counters.entry(Arc::clone(name)).or_default())
    }

    /// Returns the counts: of the present fallbacks in their order, then of former ones that have
    /// answered.
    pub(crate) fn read<'a>(&self, present: impl Iterator<Item = &'a str>) -> Vec<(String, u64)> {
        let counters = self.0.acquire();
        let mut found: Vec<(String, u64)> = Vec::new();
        let read = |counter: &Arc<AtomicU64>| counter.load(Ordering::Relaxed);
        for name in present {
            if !found.iter().any(|(known, _)| known == name) {
                found.push((name.to_owned(), counters.get(name).map_or(0, read)));
            }
        }
        for (name, counter) in &*counters {
            let served = read(counter);
            let is_known = found.iter().any(|(known, _)| **known == **name);
            if served > 0 && !is_known {
                found.push((name.to_string(), served));
            }
        }
        found
    }
}
