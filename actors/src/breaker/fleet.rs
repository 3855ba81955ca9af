//! The part of a breaker in a fleet: the effects of others' evidence, and of the fleet's orders.
//!
//! Only the dependency's own breaker takes part; those of its keys decide alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox_policy::{Class, OverrideMode, PauseReason, State, Suspicion, Time};

use super::judgement::change;
use super::shared::SharedBreaker;
use crate::event::EventKind;
use crate::state::Shared;

/// The state of a dependency, as far as a fleet asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetView {
    /// Number of the dependency, which no other one of its name has.
    pub life: u64,
    /// The breaker's automatic state.
    pub state: State,
    /// Mode of the override in force.
    pub overridden: Option<OverrideMode>,
    /// Number of half-open periods in a row that have failed.
    pub failed_periods: u32,
    /// Number of probes under way.
    pub probes: u64,
    /// Number of attempts so far.
    pub attempts: u64,
    /// Latest begin of an attempt that succeeded while the breaker was suspicious.
    pub last_success: Option<Time>,
}

impl FleetView {
    pub(crate) fn of(shared: &Shared) -> Self {
        let machine = shared.breaker.lock();
        let view = machine.view(shared.clock.now());
        Self {
            life: shared.life,
            state: machine.state(),
            overridden: machine.overridden().map(|set| set.mode),
            failed_periods: view.open_attempt,
            probes: view.half_open.map_or(0, |period| period.in_flight),
            attempts: shared.totals.read().attempts,
            last_success: shared.breaker.last_success(),
        }
    }
}

/// Lets a breaker take the evidence of other replicas into account, or no longer.
pub(crate) fn suspect(shared: &Shared, suspicion: Option<Suspicion>) {
    // FLT-4: the gate reports every outcome while the breaker is suspicious, and only then.
    change(shared, &None, |machine, now| {
        machine.suspect(now, suspicion)
    });
}

/// Lets all calls of a dependency wait for a pause that another replica was asked for. Returns true
/// if it became longer by it.
pub(crate) fn adopt_pause(
    shared: &Shared,
    (reason, wait): (PauseReason, Duration),
    by: &str,
) -> bool {
    let now = shared.clock.now();
    let settings = shared.settings();
    let Some(pause) = shared.pauses.adopt(wait, reason, &settings.throttle, now) else {
        return false;
    };
    let kind = EventKind::Paused {
        reason,
        for_: pause.until.since(now),
        hint: Some(wait),
        by: Some(Arc::from(by)),
    };
    shared.events.emit(&shared.name, kind);
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
