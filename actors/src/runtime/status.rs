//! The status of a dependency at one moment, for operators and tests. Reading it changes nothing.

use std::time::Duration;

use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{
    ChaosSettings, EndedPermits, HalfOpenView, Outage, Override, PauseReason, State, Time,
    WindowCounts,
};

use super::health::{self, Health};
use crate::breaker::active_probe::ActiveProbeStatus;
use crate::call::core::DependencyCore;
use crate::dependency::Dependency;
use crate::limits::pause::PauseState;
use crate::state::Route;
use crate::state::counts::CountsView;
use crate::state::totals::{LatencyView, RecentAnswers, TotalsView};
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
    /// True if the dependency itself asked for the open time of its breaker (`Retry-After`).
    pub wait_is_asked: bool,
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
    /// Probes that the program makes by itself; `None` if it makes none.
    pub active_probes: Option<ActiveProbeStatus>,
    /// The faults injected at present.
    pub chaos: Option<ChaosSettings>,
    /// The dependency's health, with the reason if it is not `Ok`.
    pub health: Health,
    /// The answers that callers got in the last seconds, which the health is judged by.
    pub answers: RecentAnswers,
    /// The outage that stands, if there is one.
    pub outage: Option<Outage>,
    /// True if its breaker's open time is over and no call has come to try it (rule BRK-13).
    pub waits_for_call: bool,
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
        let answers = shared.totals.recent_answers(now);
        let outage = shared.standing_outage();
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
            wait_is_asked: view.wait_is_asked,
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
            active_probes: shared.active_probes.load().as_deref().cloned(),
            chaos: shared.chaos.active(now).map(|chaos| *chaos.settings()),
            health: health::health(core, &view, &answers.counts, outage.as_ref()),
            waits_for_call: health::waits_for_call(shared, &view),
            answers,
            outage,
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
    /// True if its open time is over and no call with the key has come to try it (rule BRK-13).
    pub waits_for_call: bool,
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
            waits_for_call: health::is_untried(&view),
            paused: paused(&circuit.pauses, now),
            window: view.counts,
            minimum_calls: view.minimum_calls,
            tally: *view.tally,
        });
    });
    all
}
