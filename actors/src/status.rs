//! How a dependency is at one moment, for operators and tests. It changes nothing.

use std::sync::PoisonError;
use std::time::Duration;

use breakerbox_policy::{Counts, HalfOpenView, Override, State, Tally, Time};

use crate::client::Core;
use crate::dependency::{Dependency, Route};
use crate::supervisor::Condition;
use crate::totals::{LatencyView, TotalsView};

/// A dependency at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct DependencyStatus {
    /// Its name.
    pub name: String,
    /// The breaker's automatic state.
    pub state: State,
    /// What lies over it.
    pub overridden: Option<Override>,
    /// The breaker's generation.
    pub generation: u64,
    /// When the state began.
    pub since: Time,
    /// Why it did.
    pub reason: String,
    /// How long calls will be refused, if they are and it is known.
    pub retry_after: Option<Duration>,
    /// What the window holds.
    pub window: Counts,
    /// The half-open period, while there is one.
    pub half_open: Option<HalfOpenView>,
    /// What the breaker counted over its life.
    pub tally: Tally,
    /// What became of the calls.
    pub totals: TotalsView,
    /// How long they took.
    pub latency: LatencyView,
    /// Calls at the dependency.
    pub in_flight: u32,
    /// Calls that wait for a place.
    pub queued: u32,
    /// The workers, in order.
    pub workers: Vec<WorkerStatus>,
    /// Fallbacks by name, and how often each answered.
    pub fallbacks: Vec<(String, u64)>,
    /// Whether it is kept down after too many crashes.
    pub parked: bool,
}

/// A worker at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its number, from 1.
    pub id: u32,
    /// Whether it takes calls.
    pub running: bool,
    /// Which of its lives, from 1; 0 before the first.
    pub incarnation: u64,
}

impl DependencyStatus {
    pub(crate) fn of<D: Dependency>(core: &Core<D>) -> Self {
        let shared = &core.shared;
        let now = shared.clock.now();
        let mut machine = shared
            .machine
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Counted at the gate, and not told yet. They cannot move the breaker.
        crate::breaker::take_in_counted(&mut machine, shared, now);
        let view = machine.view(now);
        let workers = core.workers.iter().zip(1..).map(|(slot, id)| WorkerStatus {
            id,
            running: slot.health.condition() == Condition::Running,
            incarnation: slot.health.incarnation(),
        });
        Self {
            name: shared.name.to_string(),
            state: view.state,
            overridden: view.overridden.cloned(),
            generation: view.generation,
            since: view.since,
            reason: view.cause.to_string(),
            retry_after: view.retry_after,
            window: view.counts,
            half_open: view.half_open,
            tally: *view.tally,
            totals: shared.totals.read(),
            latency: shared.totals.latency(),
            in_flight: shared.bulkhead.in_flight(),
            queued: shared.bulkhead.queued(),
            workers: workers.collect(),
            fallbacks: core.fallbacks.served(),
            parked: shared.route() == Route::Parked,
        }
    }
}
