//! The breakers of a dependency's keys: made at a key's first call, and told when they are forgotten.
//!
//! It decides nothing about which one is forgotten.

use std::sync::Arc;

use breakerbox_policy::Time;

use super::Shared;
use crate::breaker::shared::SharedBreaker;

impl Shared {
    /// Returns the breaker for a call with this key: the key's own if there is room for it, else
    /// `None` for the dependency's.
    pub(crate) fn breaker_of_key(&self, key: &str, now: Time) -> Option<Arc<SharedBreaker>> {
        let room = self.settings().keys;
        let make = |key| {
            // Loaded here, because older settings, from before a reload, would stay with the key.
            let breaker = self.settings().breaker_of_key();
            SharedBreaker::new(Arc::clone(&self.name), Some(key), &breaker, now)
        };
        self.telling_forgotten(|forgotten| self.keys.get(key, &room, now, make, forgotten))
    }

    /// Evicts the keys that were idle for too long.
    pub(crate) fn forget_idle_keys(&self, now: Time) {
        let settings = self.settings().keys;
        self.telling_forgotten(|forgotten| self.keys.forget_idle(&settings, now, forgotten));
    }

    /// Tells of the breakers that `change` evicts, if that ends something that was told of them.
    fn telling_forgotten<T>(&self, change: impl FnOnce(&mut dyn FnMut(&SharedBreaker)) -> T) -> T {
        let mut has_events = false;
        let result = change(&mut |gone| {
            // OPS-1: under the lock of the table, so before all events of a new breaker of the key.
            if let Some(kind) = gone.forgotten() {
                self.events.record(&gone.subject(&self.name), kind);
                has_events = true;
            }
        });
        if has_events {
            // A listener may ask for the status, so no lock may be held.
            self.events.tell();
        }
        result
    }
}
