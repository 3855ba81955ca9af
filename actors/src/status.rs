//! How a dependency is at one moment, for operators and tests. It changes nothing.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{
    ChaosSettings, Counts, HalfOpenView, Override, OverrideMode, PauseReason, State, Tally, Time,
    View,
};

use crate::client::{Core, Slot};
use crate::counts::CountsView;
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
    /// What became of the attempts, and why calls were refused.
    pub counts: CountsView,
    /// How long they took.
    pub latency: LatencyView,
    /// Calls at the dependency.
    pub in_flight: u32,
    /// Calls that may be there at once now: `max_concurrent`, or less by an adaptive limit.
    pub limit: u32,
    /// Writes at the dependency.
    pub writes: u32,
    /// Calls that wait for a place.
    pub queued: u32,
    /// The workers, in order.
    pub workers: Vec<WorkerStatus>,
    /// Fallbacks by name, and how often each answered.
    pub fallbacks: Vec<(String, u64)>,
    /// Whether it is kept down after too many crashes.
    pub parked: bool,
    /// The pause that it asked for, while there is one, and how long it lasts.
    pub paused: Option<(PauseReason, Duration)>,
    /// The breakers of its keys, by key.
    pub keys: Vec<KeyStatus>,
    /// Faults that are made on purpose now.
    pub chaos: Option<ChaosSettings>,
    /// How well it does, and why not better.
    pub health: Health,
}

/// How well a dependency does. Only its own answers make it `Ok`: what its fallbacks answer shows
/// that callers are served, never that it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers by itself.
    Ok,
    /// Its callers are answered by fallbacks, or it is only being tried again.
    Degraded {
        /// Why.
        reason: String,
    },
    /// Its callers get errors.
    Down {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Health {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => out.write_str("ok"),
            Self::Degraded { reason } => write!(out, "degraded: {reason}"),
            Self::Down { reason } => write!(out, "down: {reason}"),
        }
    }
}

/// A worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its number, from 1.
    pub id: u32,
    /// Whether it takes calls.
    pub running: bool,
    /// Which of its lives, from 1; 0 before the first.
    pub incarnation: u64,
    /// How often its supervisor started it again.
    pub restarts: u64,
    /// How its latest life ended.
    pub last_exit: Option<StopCause>,
    /// When its next life begins, if that is known and it is down.
    pub back_in: Option<Duration>,
}

impl DependencyStatus {
    pub(crate) fn of<D: Dependency>(core: &Core<D>) -> Self {
        let shared = &core.shared;
        let now = shared.clock.now();
        let circuit = &shared.circuit;
        let mut machine = circuit.lock();
        // Counted at the gate, and not told yet. They cannot move the breaker.
        crate::breaker::take_in_counted(&mut machine, circuit, now);
        let view = machine.view(now);
        let workers = core.workers.iter().zip(1..).map(|(slot, id)| {
            let health = &slot.mail.health;
            let running = health.condition() == Condition::Running;
            WorkerStatus {
                id,
                running,
                incarnation: health.incarnation(),
                restarts: health.restarts(),
                last_exit: health.last_exit(),
                back_in: health.back_in(now).filter(|_| !running),
            }
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
            counts: CountsView::of(shared),
            latency: shared.totals.latency(),
            in_flight: shared.bulkhead.in_flight(),
            limit: shared.bulkhead.limit(now),
            writes: shared.bulkhead.writes(),
            queued: shared.bulkhead.queued(),
            workers: workers.collect(),
            fallbacks: core.fallbacks.served(),
            parked: shared.route() == Route::Parked,
            paused: shared
                .pauses
                .now(now)
                .map(|pause| (pause.reason, pause.until.since(now))),
            keys: key_statuses(core, now),
            chaos: shared.drill.active(now).map(|chaos| *chaos.settings()),
            health: health(core, &view),
        }
    }
}

/// The breaker of one key at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyStatus {
    /// The key.
    pub key: String,
    /// Its breaker's automatic state.
    pub state: State,
    /// What lies over it.
    pub overridden: Option<Override>,
    /// Why it is in that state.
    pub reason: String,
    /// How long its calls will be refused, if they are and it is known.
    pub retry_after: Option<Duration>,
    /// What its window holds.
    pub window: Counts,
    /// What it counted since the key came, or came back.
    pub tally: Tally,
}

fn key_statuses<D: Dependency>(core: &Core<D>, now: Time) -> Vec<KeyStatus> {
    let mut all = Vec::new();
    core.shared.keys.each(|circuit| {
        let mut machine = circuit.lock();
        crate::breaker::take_in_counted(&mut machine, &circuit, now);
        let view = machine.view(now);
        all.push(KeyStatus {
            key: circuit.key.as_deref().unwrap_or_default().to_owned(),
            state: view.state,
            overridden: view.overridden.cloned(),
            reason: view.cause.to_string(),
            retry_after: view.retry_after,
            window: view.counts,
            tally: *view.tally,
        });
    });
    all
}

/// What is wrong, the gravest first, and whether anybody stands in.
fn health<D: Dependency>(core: &Core<D>, view: &View<'_>) -> Health {
    let shared = &core.shared;
    let running = |slot: &Slot<D>| slot.mail.health.condition() == Condition::Running;
    let served = shared.outage.load(Ordering::Relaxed);
    let refused = match (view.overridden, view.state) {
        (Some(set), _) if set.mode == OverrideMode::ForcedOpen => Some(set.reason.clone()),
        (None, State::Open) => Some(format!("its breaker is open: {}", view.cause)),
        _ => None,
    };
    let wrong = match shared.route() {
        Route::Draining | Route::Stopped | Route::FallbackOnly | Route::Parked => {
            Some(shared.absence().to_string())
        }
        Route::Workers if !core.workers.is_empty() && !core.workers.iter().any(running) => {
            Some("no worker runs".to_owned())
        }
        Route::Workers => refused.or_else(|| {
            let pause = shared.pauses.now(shared.clock.now())?;
            Some(format!("it is paused, for {}", pause.reason))
        }),
    };
    match wrong {
        // Closures may have fallbacks of their own, which only show when they answer.
        Some(reason)
            if core.fallbacks.is_empty() && served == 0 || shared.route() == Route::Stopped =>
        {
            Health::Down { reason }
        }
        Some(reason) => Health::Degraded { reason },
        None if view.overridden.is_none() && view.state == State::HalfOpen => Health::Degraded {
            reason: "it is being tried again".to_owned(),
        },
        None if shared.setup.is_refused() => {
            let reason = "it refuses our set-up".to_owned();
            if core.fallbacks.is_empty() {
                Health::Down { reason }
            } else {
                Health::Degraded { reason }
            }
        }
        None if served > 0 => Health::Degraded {
            reason: format!("fallbacks answered {served} calls just now"),
        },
        None => match &*shared.complaint.load() {
            Some(complaint) => Health::Degraded {
                reason: complaint.to_string(),
            },
            None => Health::Ok,
        },
    }
}
