//! The status of a dependency at one moment, for operators and tests. Reading it changes nothing.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{
    BreakerView, ChaosSettings, EndedPermits, HalfOpenView, Override, OverrideMode, PauseReason,
    State, Time, WindowCounts,
};

use crate::call::core::{DependencyCore, WorkerSlot};
use crate::dependency::Dependency;
use crate::limits::pause::PauseState;
use crate::redact::redact;
use crate::state::Route;
use crate::state::counts::CountsView;
use crate::state::totals::{LatencyView, TotalsView};
use crate::supervisor::Condition;

/// The status of a dependency at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct DependencyStatus {
    /// The dependency's name.
    pub name: String,
    /// The breaker's automatic state.
    pub state: State,
    /// The manual override on top of it.
    pub overridden: Option<Override>,
    /// The breaker's generation.
    pub generation: u64,
    /// Time at which the state began.
    pub since: Time,
    /// The reason for the state.
    pub reason: String,
    /// Time for which calls will be refused, if they are and it is known.
    pub retry_after: Option<Duration>,
    /// The contents of the window.
    pub window: WindowCounts,
    /// Number of outcomes in the window from which a rate is shown (rule BRK-14).
    pub minimum_calls: u64,
    /// The current half-open period, if there is one.
    pub half_open: Option<HalfOpenView>,
    /// The breaker's counters over its lifetime.
    pub tally: EndedPermits,
    /// The results of the calls.
    pub totals: TotalsView,
    /// The results of the attempts, and the reasons for refusals.
    pub counts: CountsView,
    /// The latencies of the attempts.
    pub latency: LatencyView,
    /// Calls in flight.
    pub in_flight: u32,
    /// Current maximum of calls in flight: `max_concurrent`, or less if an adaptive limit is set.
    pub limit: u32,
    /// Writes in flight.
    pub writes: u32,
    /// Calls that wait for a bulkhead slot, or in the mailbox of the breaker actor.
    pub queued: u32,
    /// The workers, in order.
    pub workers: Vec<WorkerStatus>,
    /// Fallbacks by name, each with its number of answers.
    pub fallbacks: Vec<(String, u64)>,
    /// True if the dependency is parked after too many crashes.
    pub parked: bool,
    /// The current pause that the dependency asked for, if there is one, with its remaining time.
    pub paused: Option<(PauseReason, Duration)>,
    /// The breakers of the dependency's keys, by key.
    pub keys: Vec<KeyStatus>,
    /// The faults injected at present.
    pub chaos: Option<ChaosSettings>,
    /// The dependency's health, with the reason if it is not `Ok`.
    pub health: Health,
}

/// The health of a dependency. Only its own answers make it `Ok`: answers of its fallbacks show
/// that callers are served, never that the dependency works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The dependency itself answers.
    Ok,
    /// Fallbacks answer the callers, or the dependency is only being probed.
    Degraded {
        /// The reason.
        reason: String,
    },
    /// The callers get errors.
    Down {
        /// The reason.
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

/// The status of a worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// The worker's number, from 1.
    pub id: u32,
    /// True if the worker takes calls.
    pub running: bool,
    /// The number of its incarnation, from 1; 0 before the first.
    pub incarnation: u64,
    /// Number of restarts by its supervisor.
    pub restarts: u64,
    /// The cause of the latest incarnation's end.
    pub last_exit: Option<StopCause>,
    /// Wait until the next incarnation, if the worker is down and the time is known.
    pub back_in: Option<Duration>,
}

impl DependencyStatus {
    pub(crate) fn of<D: Dependency>(core: &DependencyCore<D>) -> Self {
        let shared = &core.shared;
        let now = shared.clock.now();
        let circuit = &shared.breaker;
        let mut machine = circuit.lock();
        // Counted at the gate, but not reported yet. These successes cannot change the breaker's
        // state.
        crate::breaker::shared::record_counted(&mut machine, circuit, now);
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
            minimum_calls: view.minimum_calls,
            half_open: view.half_open,
            tally: *view.tally,
            totals: shared.totals.read(),
            counts: CountsView::of(shared),
            latency: shared.totals.latency(),
            in_flight: shared.bulkhead.in_flight(),
            limit: shared.bulkhead.limit(now),
            writes: shared.bulkhead.writes(),
            queued: shared
                .bulkhead
                .queued()
                .saturating_add(core.mailbox.waiting()),
            workers: workers.collect(),
            fallbacks: core.fallbacks.served(shared),
            parked: shared.worker_route() == Route::Parked,
            paused: paused(&shared.pauses, now),
            keys: key_statuses(core, now),
            chaos: shared.chaos.active(now).map(|chaos| *chaos.settings()),
            health: health(core, &view),
        }
    }
}

/// The status of one key's breaker at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyStatus {
    /// The key.
    pub key: String,
    /// The breaker's automatic state.
    pub state: State,
    /// The manual override on top of it.
    pub overridden: Option<Override>,
    /// The reason for the state.
    pub reason: String,
    /// Time for which the key's calls will be refused, if they are and it is known.
    pub retry_after: Option<Duration>,
    /// The current pause of the key's calls, if there is one, with its remaining time.
    pub paused: Option<(PauseReason, Duration)>,
    /// The contents of the window.
    pub window: WindowCounts,
    /// Number of outcomes in the window from which a rate is shown (rule BRK-14).
    pub minimum_calls: u64,
    /// The counters since the key was added, or added again.
    pub tally: EndedPermits,
}

/// Returns the present pause, if there is one, with its remaining time.
fn paused(pauses: &PauseState, now: Time) -> Option<(PauseReason, Duration)> {
    let pause = pauses.current(now)?;
    Some((pause.reason, pause.until.since(now)))
}

fn key_statuses<D: Dependency>(core: &DependencyCore<D>, now: Time) -> Vec<KeyStatus> {
    let mut all = Vec::new();
    core.shared.keys.each(|circuit| {
        let mut machine = circuit.lock();
        crate::breaker::shared::record_counted(&mut machine, &circuit, now);
        let view = machine.view(now);
        all.push(KeyStatus {
            key: circuit.key.as_deref().unwrap_or_default().to_owned(),
            state: view.state,
            overridden: view.overridden.cloned(),
            reason: view.cause.to_string(),
            retry_after: view.retry_after,
            paused: paused(&circuit.pauses, now),
            window: view.counts,
            minimum_calls: view.minimum_calls,
            tally: *view.tally,
        });
    });
    all
}

/// Returns how many workers are left, if some of them do not run again by themselves.
fn lack_of_workers<D: Dependency>(core: &DependencyCore<D>) -> Option<String> {
    let has = |slot: &&WorkerSlot<D>, condition| slot.mail.health.condition() == condition;
    let gone = core
        .workers
        .iter()
        .filter(|slot| has(slot, Condition::Gone));
    let (mut gone, all) = (gone.peekable(), core.workers.len());
    gone.peek()?;
    let running = core.workers.iter();
    let running = running.filter(|slot| has(slot, Condition::Running)).count();
    let cause = gone.find_map(|slot| slot.parked());
    Some(match cause {
        Some(cause) => {
            let cause = redact(&cause.to_string()).into_owned();
            format!("{running} of {all} workers run; one is parked: {cause}")
        }
        None => format!("{running} of {all} workers run"),
    })
}

/// Returns the health: the most serious problem first, rated by the presence of fallbacks.
fn health<D: Dependency>(core: &DependencyCore<D>, view: &BreakerView<'_>) -> Health {
    let shared = &core.shared;
    let running = |slot: &WorkerSlot<D>| slot.mail.health.condition() == Condition::Running;
    let served = shared.outage.load(Ordering::Relaxed);
    let refused = match (view.overridden, view.state) {
        (Some(set), _) if set.mode == OverrideMode::ForcedOpen => Some(set.reason.clone()),
        (None, State::Open) => Some(format!("its breaker is open: {}", view.cause)),
        _ => None,
    };
    let wrong = match shared.route() {
        Route::Parked => refused.or_else(|| Some(shared.absence().to_string())),
        Route::Draining | Route::Stopped | Route::FallbackOnly => {
            Some(shared.absence().to_string())
        }
        Route::Workers if !core.workers.is_empty() && !core.workers.iter().any(running) => {
            let cause = shared.worker_failure.load();
            let is_new = |slot: &WorkerSlot<D>| slot.mail.health.incarnation() == 0;
            Some(match &*cause {
                Some(cause) => format!("no worker runs: {cause}"),
                None if core.workers.iter().all(is_new) => "it is being started".to_owned(),
                None => "no worker runs".to_owned(),
            })
        }
        Route::Workers => refused.or_else(|| {
            let pause = shared.pauses.current(shared.clock.now())?;
            Some(format!("it is paused, for {}", pause.reason))
        }),
    };
    match wrong {
        // Closures may have fallbacks of their own, which are known only once they answer.
        Some(reason)
            if core.fallbacks.is_empty() && served == 0 || shared.route() == Route::Stopped =>
        {
            Health::Down { reason }
        }
        Some(reason) => Health::Degraded { reason },
        None if view.overridden.is_none() && view.state == State::HalfOpen => Health::Degraded {
            reason: "it is being tried again".to_owned(),
        },
        None if shared.misconfiguration.is_refused() => {
            let reason = "it refuses our configuration".to_owned();
            if core.fallbacks.is_empty() {
                Health::Down { reason }
            } else {
                Health::Degraded { reason }
            }
        }
        None if served > 0 => Health::Degraded {
            reason: format!("fallbacks answered {served} calls just now"),
        },
        None => {
            let complaint = || Some(shared.complaint.load().as_ref()?.to_string());
            let reason = lack_of_workers(core).or_else(complaint);
            reason.map_or(Health::Ok, |reason| Health::Degraded { reason })
        }
    }
}
