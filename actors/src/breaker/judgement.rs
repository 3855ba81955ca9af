//! Changes to the machines of breakers, made by the thread that has cause for them.
//!
//! A breaker decides under the lock of its machine, on the thread on which an outcome, a question or
//! a command arises. No decision waits for another thread, so code that blocks its thread delays
//! none (rule CALL-9). Timers are left to the [keeper](super::keeper).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use breakerbox_policy::{
    BreakerCause, BreakerCommand, BreakerEvent, Class, ConfiguredOverride, DependencySettings,
    IllegalTransition, Outcome, Override, OverrideMode, Permit, PermitKind, Refusal, State, Time,
};
use tracing::Level;

use super::admission::PermitGuard;
use super::gate::{SuccessBatch, tag_of};
use super::gate_decision::is_asked_for_all;
use super::message::{OperateBreaker, Report};
use super::shared::{SharedBreaker, generation_of, record_batch, record_counted, word_of};
use crate::clock::random;
use crate::deadline::CallDeadline;
use crate::event::EventKind;
use crate::state::{Route, Shared};

/// The breaker of one key; `None` is the dependency's own.
pub(crate) type BreakerScope = Option<Arc<SharedBreaker>>;

/// Applies a change to a machine, and publishes the result.
pub(super) fn change<T>(
    shared: &Shared,
    scope: &BreakerScope,
    change: impl FnOnce(&mut breakerbox_policy::Breaker, Time) -> T,
) -> T {
    change_and_note(shared, scope, change, |_| None)
}

/// Applies a change to a machine, publishes the result, and emits the event that `note` makes of it
/// after those of the machine.
fn change_and_note<T>(
    shared: &Shared,
    scope: &BreakerScope,
    change: impl FnOnce(&mut breakerbox_policy::Breaker, Time) -> T,
    note: impl FnOnce(&T) -> Option<EventKind>,
) -> T {
    let (result, is_new_shadow) = change_one(shared, scope, change, note);
    if is_new_shadow {
        // A shadow (measured, never tripped) holds for each key too (rule BRK-10).
        shared.keys.each(|key| {
            let target = Arc::clone(&key);
            let shade = |machine: &mut breakerbox_policy::Breaker, now| {
                let shadow = shared.keys.shadow();
                target.apply_shadow(machine, shadow.as_deref(), now);
            };
            change_one(shared, &Some(key), shade, |()| None);
        });
    }
    result
}

/// Applies a change to this machine alone. Also returns true if it gives the dependency another
/// shadow override, or takes it away.
fn change_one<T>(
    shared: &Shared,
    scope: &BreakerScope,
    change: impl FnOnce(&mut breakerbox_policy::Breaker, Time) -> T,
    note: impl FnOnce(&T) -> Option<EventKind>,
) -> (T, bool) {
    let target = scope.as_deref().unwrap_or(&shared.breaker);
    let mut machine = target.lock();
    // Under the lock, so that no change is dated before the one that preceded it.
    let now = shared.clock.now();
    record_counted(&mut machine, target, now);
    let result = change(&mut machine, now);
    let mut has_events = publish(shared, target, &mut machine, now);
    if let Some(note) = note(&result) {
        shared.events.record(&target.subject(&shared.name), note);
        has_events = true;
    }
    let deadline = machine.next_deadline();
    if target.set_armed(deadline) {
        shared.desk.set_alarm((target.key.clone(), deadline));
    }
    let is_new_shadow = scope.is_none() && {
        let shadow = machine.overridden().filter(|set| is_shadow(set));
        shared.keys.set_shadow(shadow)
    };
    drop(machine);
    if has_events {
        // A listener may ask for the status, so no lock may be held.
        shared.events.tell();
    }
    (result, is_new_shadow)
}

fn is_shadow(set: &Override) -> bool {
    set.mode == OverrideMode::Shadow
}

/// Publishes the gate, and records the events of a change under its lock: the last one is the state
/// that holds. Returns true if there are any. An override passed down to a key is left out: it was already reported for the dependency.
fn publish(
    shared: &Shared,
    target: &SharedBreaker,
    machine: &mut breakerbox_policy::Breaker,
    now: Time,
) -> bool {
    let word = word_of(machine, now);
    if word != target.gate.read() {
        target.gate.publish(word);
    }
    let mut has_events = false;
    while let Some(event) = machine.poll_event() {
        note(shared, target, &event, machine, now);
        // HLT-2: calls with a key are probes too, of the outage that they are a part of.
        shared.note_probes_of(&event, now);
        if target.key.is_none() {
            shared.note_breaker(&event, now);
        }
        let is_of_override = matches!(
            event,
            BreakerEvent::Overridden { .. } | BreakerEvent::OverrideRemoved { .. }
        );
        if is_of_override && target.key.is_none() {
            shared.note_override(machine.overridden());
        }
        if !(is_of_override && target.has_inherited_override()) {
            let subject = target.subject(&shared.name);
            shared.events.record(&subject, EventKind::Breaker(event));
            has_events = true;
        }
    }
    has_events
}

/// Stores the reason for refusals, and counts trips.
fn note(
    shared: &Shared,
    target: &SharedBreaker,
    event: &BreakerEvent,
    machine: &breakerbox_policy::Breaker,
    now: Time,
) {
    match event {
        BreakerEvent::Transition { to, cause, .. } => {
            if *to == State::Open {
                shared.totals.trips.fetch_add(1, Ordering::Relaxed);
            }
            let keeps_reason = matches!(
                cause,
                BreakerCause::OpenTimeOver | BreakerCause::LeaseGranted
            );
            // BRK-11: an override refuses while it stands, and the reason is its own.
            if !keeps_reason && machine.overridden().is_none() {
                target.set_reason(cause.to_string());
            }
        }
        BreakerEvent::Overridden { .. } | BreakerEvent::OverrideRemoved { .. } => {
            target.set_reason(match machine.overridden() {
                Some(set) => format!("set by {}: {}", set.by, set.reason),
                None => machine.view(now).cause.to_string(),
            });
        }
        _ => {}
    }
}

/// Visits every breaker, the dependency's own first.
pub(super) fn each_breaker(shared: &Shared, mut visit: impl FnMut(&BreakerScope)) {
    visit(&None);
    shared.keys.each(|key| visit(&Some(key)));
}

/// Repairs the machines after a crash, and catches up with the time.
pub(super) fn recover(shared: &Shared) {
    each_breaker(shared, |scope| {
        let machine = &scope.as_deref().unwrap_or(&shared.breaker).machine;
        let crashed = machine.is_poisoned();
        machine.clear_poison();
        change(shared, scope, |machine, now| {
            if crashed {
                machine.recover(now);
            }
            machine.on_time(now, &mut random());
        });
    });
}

/// Asks the breaker for a permit, if its gate alone cannot give one.
pub(super) fn acquire(
    shared: &Shared,
    key: Option<&Arc<SharedBreaker>>,
    deadline: CallDeadline,
) -> Result<PermitGuard, Refusal> {
    let is_for_all = key.is_some_and(|key| is_asked_for_all(shared, key));
    let scope = key.cloned().filter(|_| !is_for_all);
    let admit = |machine: &mut breakerbox_policy::Breaker, now| (machine.admit(now), now);
    let (admitted, now) = change(shared, &scope, admit);
    let permit = admitted?;
    // The same as the gate grants, so that there is one kind of normal permit.
    let permit = match permit.kind() {
        PermitKind::Normal => Permit::normal(tag_of(permit.generation()), now),
        PermitKind::Probe(_) | PermitKind::Unrecorded => permit,
    };
    let held = PermitGuard::new(key.cloned(), permit, now, deadline);
    Ok(if is_for_all { held.of_all() } else { held })
}

/// Counts the end of an attempt. Its follow-up runs after that.
pub(crate) fn count(shared: &Shared, mut report: Report) {
    if let Some(permit) = report.permit.take() {
        let (outcome, key) = (report.outcome, report.key.take());
        if let Some(key) = &key {
            key.note_success(outcome.class, permit.started());
        }
        if key.is_none() || report.counts_for_all.is_some() {
            shared.breaker.note_success(outcome.class, permit.started());
        }
        let (failures, has_opened) = change(shared, &key, |machine, now| {
            let permit = match permit.kind() {
                PermitKind::Normal => {
                    let generation = generation_of(machine, permit.generation());
                    Permit::normal(generation, permit.started())
                }
                PermitKind::Probe(_) | PermitKind::Unrecorded => permit,
            };
            let was_open = machine.state() == State::Open;
            machine.record(now, permit, &outcome, &mut random());
            let has_opened = !was_open && machine.state() == State::Open;
            let told = outcome.class == Class::Failure && tracing::enabled!(Level::DEBUG);
            let failures = told.then(|| failures_so_far(machine, now)).flatten();
            (failures, has_opened)
        });
        if let Some(tag) = report.counts_for_all {
            count_for_all(shared, tag, &outcome);
        }
        let target = key.as_deref().unwrap_or(&shared.breaker);
        if has_opened
            && let (Some(asked), Some(believed)) = (report.asked, outcome.retry_after)
            && believed < asked
        {
            let cut = EventKind::HintCut { asked, believed };
            shared.events.emit(&target.subject(&shared.name), cut);
        }
        if let Some((failures, threshold)) = failures {
            tracing::debug!(
                dependency = &*target.subject(&shared.name),
                "call failed, {failures}/{threshold}"
            );
        }
    }
    // Dropping the report runs its follow-up, since the outcome is counted.
    drop(report);
}

/// Counts the outcome of a key for the whole dependency, while that is closed. `tag`: the generation in
/// which the call went out.
fn count_for_all(shared: &Shared, tag: u64, outcome: &Outcome) {
    // EDGE-5: many keys that fail are one dependency that fails. One key alone cannot open the
    // breaker of all, and a new key is no way around it.
    change(shared, &None, |machine, now| {
        // BRK-3: one of an earlier generation is late.
        let is_late = tag_of(machine.generation()) != tag;
        if machine.state() == State::Closed && !is_late {
            let permit = Permit::normal(machine.generation(), now);
            machine.record(now, permit, outcome, &mut random());
        }
    });
}

/// Failures counted by a closed breaker, and the number that opens it; `-` where only rates do.
fn failures_so_far(machine: &breakerbox_policy::Breaker, now: Time) -> Option<(u64, String)> {
    let settings = machine.settings();
    let threshold = settings.failure_threshold.or(settings.consecutive_failures);
    let threshold = threshold.map_or_else(|| "-".to_owned(), |set| set.to_string());
    let closed = machine.state() == State::Closed;
    closed.then(|| (machine.view(now).counts.failures, threshold))
}

/// Takes back a permit that was not used.
pub(super) fn release(shared: &Shared, key: &BreakerScope, permit: Permit) {
    change(shared, key, |machine, now| machine.release(now, permit));
}

/// Records successes that were counted at a gate.
#[cold]
pub(super) fn flush(shared: &Shared, key: &BreakerScope, successes: SuccessBatch) {
    let target = key.as_deref().unwrap_or(&shared.breaker);
    change(shared, key, |machine, now| {
        record_batch(machine, target, successes, now);
    });
}

/// Carries out an operator's or the supervisor's command. A stopped dependency takes none.
///
/// # Errors  The breaker's state does not allow it.
pub(crate) fn operate(shared: &Shared, operate: OperateBreaker) -> Result<(), IllegalTransition> {
    let OperateBreaker { key, command, note } = operate;
    if shared.worker_route() == Route::Stopped {
        return Ok(());
    }
    let closes = matches!(
        command,
        BreakerCommand::Close { .. } | BreakerCommand::Reset { .. } | BreakerCommand::Clear
    );
    if key.is_none() && closes {
        // Closing or resetting a dependency applies to its keys too.
        shared.keys.each(|each| {
            let command = command.clone();
            // None of the three commands is ever refused.
            let _ = change(shared, &Some(each), |machine, now| {
                machine.command(now, command, &mut random())
            });
        });
    }
    if let Some(key) = &key {
        key.clear_inherited_mark();
    } else if closes {
        // What came before the operator's word says nothing of the dependency after it.
        shared.totals.judge_from(shared.clock.now());
    }
    if matches!(command, BreakerCommand::Reset { .. }) {
        match &key {
            Some(key) => key.pauses.lift(),
            None => {
                shared.pauses.lift();
                shared.keys.each(|key| key.pauses.lift());
            }
        }
    }
    // SUP-4: without a worker it stays open, even if an operator's own override is removed.
    let is_parked = key.is_none() && closes && shared.worker_route() == Route::Parked;
    let park = shared.park_reason.load_full().filter(|_| is_parked);
    let carry_out = |machine: &mut breakerbox_policy::Breaker, now| {
        let done = machine.command(now, command, &mut random());
        if let Some(reason) = park {
            let reason = String::clone(&reason);
            // It is never refused.
            let _ = machine.command(now, BreakerCommand::Park { reason }, &mut random());
        }
        done
    };
    // OPS-1: noted under the lock, commands of several operators are told in the order of their effects.
    change_and_note(shared, &key, carry_out, |done| {
        note.filter(|_| done.is_ok())
    })
}

/// Applies new settings; they hold from the next decision on (rule CFG-2).
pub(crate) fn reconfigure(shared: &Shared, settings: DependencySettings) {
    let of = |settings: &DependencySettings| (settings.breaker.clone(), settings.breaker_of_key());
    let old = of(&shared.settings());
    let new = of(&settings);
    let former = shared.settings().configured_override.clone();
    let set = settings.configured_override.clone();
    shared.reconfigure(settings);
    if old != new {
        shared.record_settings();
        each_breaker(shared, |scope| {
            let target = scope.as_deref().unwrap_or(&shared.breaker);
            let settings = if scope.is_some() { &new.1 } else { &new.0 };
            change(shared, scope, |machine, now| {
                machine.reconfigure(now, settings.clone());
                target.apply_measurement_settings(machine);
            });
        });
    }
    if former != set {
        configure_override(shared, set);
    }
    // The intervals of its rounds may have changed.
    shared.desk.tell_keeper();
}

/// Sets the override of the configuration, or removes it.
pub(crate) fn configure_override(shared: &Shared, set: Option<ConfiguredOverride>) {
    let command = BreakerCommand::Configure { set };
    // It is never refused.
    let _ = operate(shared, OperateBreaker::all(command));
}
