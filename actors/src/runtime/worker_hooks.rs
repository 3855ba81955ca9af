//! The effects of a worker's starts and ends on its dependency: its route, its breaker, and the
//! cause that callers are told while no worker runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{BreakerCommand, CountedNoun, Intensity, RoundedDuration, Time};

use crate::breaker::judgement::operate;
use crate::breaker::message::OperateBreaker;
use crate::call::core::{DependencyCore, WorkerSlot};
use crate::dependency::Dependency;
use crate::redact::redact;
use crate::state::{Route, Shared};
use crate::supervisor::{ChildHooks, Condition};

/// The effects of a worker's start and end on its dependency.
pub(super) struct WorkerHooks<D: Dependency> {
    pub(super) core: Arc<DependencyCore<D>>,
    pub(super) index: usize,
}

impl<D: Dependency> WorkerHooks<D> {
    fn close_for_good(&self) {
        self.core.workers[self.index].close_for_good();
    }

    /// Takes this worker out, and refuses all calls if no other one is left: one that runs, or that
    /// its supervisor starts again.
    fn take_out(&self) {
        let own = &self.core.workers[self.index];
        let others = self.core.workers.iter();
        let mut others = others.filter(|slot| !std::ptr::eq(*slot, own));
        // SUP-4: siblings live on, and serve those who wait for this one.
        if let Some(other) = others.find(|slot| slot.mail.health.condition() != Condition::Gone) {
            return own.close_into(other);
        }
        // Callers who wait are told the reason, so it is set before they are refused.
        self.park_with_last();
        self.close_for_good();
    }

    /// Parks the dependency with its last worker, if that was given up, or one before it.
    fn park_with_last(&self) {
        let route = self.core.shared.worker_route();
        if !matches!(route, Route::Workers | Route::Parked) {
            return;
        }
        let parked = self.core.workers.iter().enumerate().rev();
        let parked = parked.filter_map(|(index, slot)| Some((index, slot.parked()?)));
        let (own, others): (Vec<_>, Vec<_>) = parked.partition(|(index, _)| *index == self.index);
        if let Some((index, cause)) = own.into_iter().chain(others).next() {
            self.park(index, "is parked", &cause);
        }
    }

    /// Refuses all calls, for this reason. Nothing is done by parts that do not speak for the
    /// dependency.
    fn park(&self, index: usize, state: &str, cause: &StopCause) {
        let shared = &self.core.shared;
        if !self.core.is_current.load(Ordering::Acquire) {
            return;
        }
        self.note_cause(cause);
        let Intensity { max, within } = shared.settings().workers.intensity;
        let within = RoundedDuration(within);
        let max = CountedNoun(max.into(), "restart");
        let cause = redact(&cause.to_string()).into_owned();
        let reason = format!(
            "worker-{} {state}: {cause} (more than {max} in {within}, workers.intensity)",
            index + 1
        );
        let told = shared.park_reason.swap(Some(Arc::new(reason.clone())));
        let is_told = told.is_some_and(|told| *told == *reason);
        // An event tells of each new reason, and not of each try.
        if !is_told || shared.worker_route() != Route::Parked {
            shared.set_route(Route::Parked);
            shared.note_no_worker(&cause, &reason);
            operate_as_supervisor(shared, BreakerCommand::Park { reason });
        }
    }

    /// Notes why no worker runs, for callers that wait for one.
    fn note_cause(&self, cause: &StopCause) {
        if !self.core.is_current.load(Ordering::Acquire) {
            return;
        }
        let cause = redact(&cause.to_string()).into_owned();
        self.core.shared.worker_failure.store(Some(Arc::new(cause)));
    }
}

impl<D: Dependency> DependencyCore<D> {
    fn is_any_running(&self) -> bool {
        let runs = |slot: &WorkerSlot<D>| slot.mail.health.condition() == Condition::Running;
        self.workers.iter().any(runs)
    }

    /// Brings the dependency back after all its workers were parked, if these are the parts that speak
    /// for it and one of them runs. It is asked when either has changed.
    pub(super) fn unpark(&self) {
        if !self.is_current.load(Ordering::Acquire) || !self.is_any_running() {
            return;
        }
        let shared = &self.shared;
        if shared.worker_failure.load().is_some() {
            shared.worker_failure.store(None);
        }
        if shared.worker_route() == Route::Parked {
            shared.set_route(Route::Workers);
            shared.note_worker();
            // SUP-4: the breaker stays forced open only while no worker is left.
            operate_as_supervisor(shared, BreakerCommand::Unpark);
        }
    }
}

fn operate_as_supervisor(shared: &Arc<Shared>, command: BreakerCommand) {
    // The supervisor's commands depend on no state.
    let _ = operate(shared, OperateBreaker::all(command));
}

impl<D: Dependency> ChildHooks for WorkerHooks<D> {
    fn running(&self, incarnation: u64) {
        if incarnation > 1 {
            let totals = &self.core.shared.totals;
            totals.restarts.fetch_add(1, Ordering::Relaxed);
        }
        self.core.workers[self.index].set_parked(None);
        self.core.unpark();
    }

    fn waits(&self, until: Time) {
        self.core.workers[self.index].mail.health.set_back_at(until);
    }

    fn parked(&self, cause: &StopCause) {
        self.core.workers[self.index].set_parked(Some(cause.clone()));
        self.take_out();
    }

    fn not_started(&self, cause: &StopCause) {
        if self.core.workers[self.index].parked().is_some() {
            // An operator's order has not brought it back.
            return self.parked(cause);
        }
        if !self.core.is_any_running() {
            self.note_cause(cause);
        }
    }

    fn exhausted(&self, cause: &StopCause) {
        // MCP-1: the others serve on; without one, callers learn why at once, and health is down.
        if !self.core.is_any_running() {
            self.park(
                self.index,
                "does not run and is started again after each backoff",
                cause,
            );
        }
        self.close_for_good();
    }

    fn stopped(&self) {
        self.take_out();
    }

    fn gone(&self) {
        self.close_for_good();
    }
}
