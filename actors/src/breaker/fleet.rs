//! The part of a breaker in a fleet: the effects of others' evidence, and of the fleet's orders.
//!
//! The dependency's own breaker takes part, and those of its keys where they are shared by hashes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox_policy::{Class, OverrideMode, PauseReason, State, Suspicion, Time};

use super::judgement::{BreakerScope, change};
use super::shared::SharedBreaker;
use crate::event::EventKind;
use crate::state::Shared;

/// A breaker of which a fleet speaks: that of a dependency, or of one of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetBreaker<'a> {
    /// Name of the dependency.
    pub dependency: &'a str,
    /// The key; `None` for the dependency's own breaker.
    pub key: Option<&'a str>,
}

impl<'a> FleetBreaker<'a> {
    /// The dependency's own breaker.
    #[must_use]
    pub const fn of(dependency: &'a str) -> Self {
        Self {
            dependency,
            key: None,
        }
    }

    /// Returns the scope of changes; `None` if the key has no breaker.
    pub(crate) fn scope(self, shared: &Shared) -> Option<BreakerScope> {
        match self.key {
            None => Some(None),
            Some(key) => shared.keys.find(key).map(Some),
        }
    }
}

/// The state of a breaker, as far as a fleet asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetView {
    /// Numbers of the dependency and of its breaker, which no other one of the name has.
    pub life: (u64, u32),
    /// The breaker's automatic state.
    pub state: State,
    /// Mode of the override in force.
    pub overridden: Option<OverrideMode>,
    /// Number of half-open periods in a row that have failed.
    pub failed_periods: u32,
    /// Number of probes under way.
    pub probes: u64,
    /// Number of attempts of the dependency so far.
    pub attempts: u64,
    /// Latest begin of an attempt that succeeded while the breaker was suspicious.
    pub last_success: Option<Time>,
}

impl FleetView {
    /// `key`: the breaker of the key; `None` for the dependency's own.
    pub(crate) fn of(shared: &Shared, key: Option<&SharedBreaker>) -> Self {
        let breaker = key.unwrap_or(&shared.breaker);
        let machine = breaker.lock();
        let view = machine.view(shared.clock.now());
        Self {
            life: (shared.life, breaker.number.get()),
            state: machine.state(),
            overridden: machine.overridden().map(|set| set.mode),
            failed_periods: view.open_attempt,
            probes: view.half_open.map_or(0, |period| period.in_flight),
            attempts: shared.totals.read().attempts,
            last_success: breaker.last_success(),
        }
    }
}

/// Lets a breaker take the evidence of other replicas into account, or no longer.
pub(crate) fn suspect(shared: &Shared, scope: &BreakerScope, suspicion: Option<Suspicion>) {
    // FLT-4: the gate reports every outcome while the breaker is suspicious, and only then.
    change(shared, scope, |machine, now| {
        machine.suspect(now, suspicion)
    });
}

/// Lets all calls of a dependency, or of a key, wait for a pause that another replica was asked for.
/// Returns true if it became longer by it.
pub(crate) fn adopt_pause(
    shared: &Shared,
    key: Option<&SharedBreaker>,
    (reason, wait): (PauseReason, Duration),
    by: &str,
) -> bool {
    let now = shared.clock.now();
    let settings = shared.settings();
    let pauses = key.map_or(&shared.pauses, |key| &key.pauses);
    let Some(pause) = pauses.adopt(wait, reason, &settings.throttle, now) else {
        return false;
    };
    let kind = EventKind::Paused {
        reason,
        for_: pause.until.since(now),
        hint: Some(wait),
        by: Some(Arc::from(by)),
    };
    let breaker = key.unwrap_or(&shared.breaker);
    shared.events.emit(&breaker.subject(&shared.name), kind);
    true
}

impl SharedBreaker {
    /// Notes a success of which the breaker was told, for the fleet.
    pub(super) fn note_success(&self, class: Class, began: Time) {
        if class == Class::Success {
            self.success.fetch_max(began.as_nanos(), Ordering::Relaxed);
        }
    }

    fn last_success(&self) -> Option<Time> {
        let began = self.success.load(Ordering::Relaxed);
        (began > 0).then(|| Time::from_nanos(began))
    }
}
