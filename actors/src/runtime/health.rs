//! The health of a dependency, told by the answers that its callers get (rule HLT-1).
//!
//! The state of the breaker and the workers says why no own answer can come at present. Whether
//! that makes the dependency degraded or down is decided by the answers, not by what is configured.

use std::fmt;
use std::sync::atomic::Ordering;

use breakerbox_policy::{
    AnswerCounts, BreakerView, CountedNoun, Outage, OverrideMode, ServiceLevel, State,
};

use crate::breaker::active_probe::ActiveProbeResult;
use crate::call::core::{DependencyCore, WorkerSlot};
use crate::dependency::Dependency;
use crate::redact::redact;
use crate::state::{Route, Shared};
use crate::supervisor::Condition;

/// The health of a dependency: the service that its callers get at present. Only its own answers
/// make it `Ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The dependency itself answers.
    Ok,
    /// Fallbacks answer the callers, the dependency is only being probed, or more of the answers of
    /// the last 30 seconds are errors than `health.degraded_at` allows.
    Degraded {
        /// The reason.
        reason: String,
    },
    /// Half of the answers of the last 30 seconds are errors, or no source can answer.
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

/// Returns the health: the most serious problem first, rated by the answers.
pub(super) fn health<D: Dependency>(
    core: &DependencyCore<D>,
    view: &BreakerView<'_>,
    recent: &AnswerCounts,
    outage: Option<&Outage>,
) -> Health {
    let shared = &core.shared;
    if let Some(reason) = obstacle(core, view) {
        let has_answers = shared.route() != Route::Stopped && is_served(core, recent, outage);
        return rated(has_answers, reason);
    }
    if view.overridden.is_none() && view.state == State::HalfOpen {
        let has_answers = recent.calls() == 0 || !recent.are_mostly_errors();
        return rated(has_answers, half_open(shared, view));
    }
    if shared.misconfiguration.is_refused() {
        let reason = "it refuses our configuration".to_owned();
        return rated(is_served(core, recent, outage), reason);
    }
    if let Some(figures) = shared.noted_hang() {
        // HLT-1: callers that give up get nothing, and no other caller gets an own answer.
        return rated(recent.by_fallback > 0, format!("it hangs: {figures}"));
    }
    // HLT-1: what callers get, although nothing is in the way of their calls.
    match recent.judge(&shared.settings().health) {
        // HLT-1: it failed last, and silence is no own answer.
        ServiceLevel::Good if shared.errors_stand() => {
            let cause = outage.map_or("its calls failed", |outage| &outage.cause.text);
            return rated(true, format!("no good answer since: {cause}"));
        }
        ServiceLevel::Good => {}
        ServiceLevel::Degraded => {
            let errors = share_of_errors(recent);
            let lack = lack_of_workers(core);
            let reason = lack.map_or_else(|| errors.clone(), |lack| format!("{lack}; {errors}"));
            return rated(true, reason);
        }
        ServiceLevel::Down => return rated(false, share_of_errors(recent)),
    }
    let served = shared.outage.load(Ordering::Relaxed);
    if served > 0 {
        let calls = CountedNoun(served, "call");
        return rated(true, format!("fallbacks answered {calls} just now"));
    }
    let complaint = || Some(shared.complaint.load().as_ref()?.to_string());
    let reason = lack_of_workers(core).or_else(complaint);
    reason.map_or(Health::Ok, |reason| Health::Degraded { reason })
}

fn rated(has_answers: bool, reason: String) -> Health {
    if has_answers {
        Health::Degraded { reason }
    } else {
        Health::Down { reason }
    }
}

fn share_of_errors(recent: &AnswerCounts) -> String {
    format!("{recent} in the last 30 s")
}

/// Returns true if callers get answers although the dependency itself gives none.
fn is_served<D: Dependency>(
    core: &DependencyCore<D>,
    recent: &AnswerCounts,
    outage: Option<&Outage>,
) -> bool {
    // HLT-1: a fallback that is configured and does not answer is no stand-in.
    let answers = [Some(recent), outage.map(|outage| &outage.affected)];
    let told = answers
        .into_iter()
        .flatten()
        .find(|counts| counts.by_fallback > 0 || counts.errors > 0);
    match told {
        Some(counts) => {
            let is_down = counts.judge(&core.shared.settings().health) == ServiceLevel::Down;
            counts.by_fallback > 0 && !is_down
        }
        // No call has come. Closures may have fallbacks of their own, which are known only once
        // they have answered.
        None => !core.fallbacks.is_empty() || core.shared.outage.load(Ordering::Relaxed) > 0,
    }
}

/// Returns the reason why calls do not reach the dependency at present, if there is one.
fn obstacle<D: Dependency>(core: &DependencyCore<D>, view: &BreakerView<'_>) -> Option<String> {
    let shared = &core.shared;
    let running = |slot: &WorkerSlot<D>| slot.mail.health.condition() == Condition::Running;
    let refused = match (view.overridden, view.state) {
        (Some(set), _) if set.mode == OverrideMode::ForcedOpen => Some(set.reason.clone()),
        (None, State::Open) => Some(format!("its breaker is open: {}", view.cause)),
        _ => None,
    };
    match shared.route() {
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
    }
}

/// Returns true if the breaker is half-open, and neither a call nor an active probe tries the
/// dependency.
pub(super) fn waits_for_call(shared: &Shared, view: &BreakerView<'_>) -> bool {
    is_untried(view) && !is_probed(shared)
}

/// Returns true if the breaker is half-open, and no call tries the dependency. An active probe is no
/// call, and tries no key.
pub(super) fn is_untried(view: &BreakerView<'_>) -> bool {
    let tries = view.half_open.is_some_and(|period| period.in_flight > 0);
    view.overridden.is_none() && view.state == State::HalfOpen && !tries
}

/// Returns true if the program probes the dependency by itself, with answers that count.
fn is_probed(shared: &Shared) -> bool {
    let probes = shared.active_probes.load();
    // BRK-13: a probe that asks wrongly closes nothing, so calls are needed all the same.
    probes.as_ref().is_some_and(|probes| {
        let last = probes.last.as_ref();
        last.is_none_or(|(_, result, _)| *result != ActiveProbeResult::NotCounted)
    })
}

/// Returns the state of a half-open period.
fn half_open(shared: &Shared, view: &BreakerView<'_>) -> String {
    let successes = view.half_open.map_or(0, |period| period.successes);
    let needed = view.half_open.map_or(0, |period| period.needed);
    let so_far = if successes > 0 {
        format!("{successes} of {needed} probes succeeded; ")
    } else {
        String::new()
    };
    // BRK-13: without traffic it is not being tried, it waits for a call.
    if waits_for_call(shared, view) {
        format!("{so_far}it waits for a call to try it")
    } else {
        format!("{so_far}it is being tried again")
    }
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
