//! The breaker actor: the only writer of a dependency's breaker.
//!
//! It receives calls, permits and outcomes, feeds the kernel's state machine, publishes the gate,
//! and emits events for the changes. It executes nothing and decides nothing by itself.

pub(crate) mod admission;

pub(crate) mod gate;

pub(crate) mod gate_decision;

#[cfg(test)]
mod gate_tests;

pub(crate) mod hedge_member;

pub(crate) mod in_flight;

pub(crate) mod keyed;

pub(crate) mod message;

mod periodic;

pub(crate) mod shared;

mod thread_counters;

use std::collections::HashMap;
use std::sync::Arc;

use actix::MessageResult;
use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use breakerbox_policy::{
    BreakerCause, BreakerCommand, BreakerEvent, Class, IllegalTransition, Outcome, Override,
    OverrideMode, Permit, PermitKind, State, Time,
};

use futures_util::FutureExt as _;
use tracing::Level;

use crate::breaker::admission::{Admission, PermitGuard};
use crate::breaker::gate::tag_of;
use crate::breaker::gate_decision::is_asked_for_all;
use crate::breaker::message::{
    Acquire, AnswerFuture, Call, CallAnswer, CallMaker, FlushSuccesses, OperateBreaker,
    Reconfigure, Release, Report,
};
use crate::breaker::shared::{SharedBreaker, generation_of, record_batch, record_counted, word_of};
use crate::clock::random;
use crate::dependency::Dependency;
use crate::event::EventKind;
use crate::state::{Route, Shared};
use periodic::PeriodicTasks;

/// The actor of one dependency's breaker; any actor may send it a [`Call`].
///
/// # Source  Rules BRK-3, BRK-12 and CALL-3 in docs/rules.md.
pub struct Breaker<D: Dependency> {
    shared: Arc<Shared>,
    /// Makes the calls that arrive as messages.
    calls: Arc<dyn CallMaker<D>>,
    /// The address that outlives this incarnation.
    addr: Addr<Self>,
    /// The next deadline of each breaker that has one, by its key.
    timers: HashMap<Option<Arc<str>>, (Time, SpawnHandle)>,
    periodic: PeriodicTasks,
}

/// The breaker of one key; `None` is the dependency's own.
type BreakerScope = Option<Arc<SharedBreaker>>;

impl<D: Dependency> std::fmt::Debug for Breaker<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Breaker").finish_non_exhaustive()
    }
}

impl<D: Dependency> Breaker<D> {
    pub(crate) fn new(shared: Arc<Shared>, calls: Arc<dyn CallMaker<D>>, addr: Addr<Self>) -> Self {
        Self {
            shared,
            calls,
            addr,
            timers: HashMap::new(),
            periodic: PeriodicTasks::default(),
        }
    }

    /// Applies a change to a machine, and publishes the result.
    fn with_machine<T>(
        &mut self,
        scope: &BreakerScope,
        ctx: &mut Context<Self>,
        change: impl FnOnce(&mut breakerbox_policy::Breaker, Time) -> T,
    ) -> T {
        let (result, shadow) = self.change(scope, ctx, change);
        if scope.is_none() && self.shared.keys.set_shadow(shadow.as_ref()) {
            // A shadow (measured, never tripped) holds for each key too (rule BRK-10).
            self.each_key(|breaker, key| {
                let target = Arc::clone(&key);
                breaker.change(&Some(key), ctx, |machine, now| {
                    target.apply_shadow(machine, shadow.as_ref(), now);
                });
            });
        }
        result
    }

    /// Applies a change to this machine alone. Also returns its shadow override, if it has one.
    fn change<T>(
        &mut self,
        scope: &BreakerScope,
        ctx: &mut Context<Self>,
        change: impl FnOnce(&mut breakerbox_policy::Breaker, Time) -> T,
    ) -> (T, Option<Override>) {
        let shared = Arc::clone(&self.shared);
        let target = scope.as_deref().unwrap_or(&shared.breaker);
        let now = shared.clock.now();
        let mut machine = target.lock();
        record_counted(&mut machine, target, now);
        let result = change(&mut machine, now);
        let events = publish(&shared, target, &mut machine, now);
        let deadline = machine.next_deadline();
        let shadow = machine.overridden().filter(|set| is_shadow(set)).cloned();
        drop(machine);
        // Without the lock: a listener may ask for the status.
        emit_events(&shared, target, events);
        self.arm(scope, deadline, ctx);
        (result, shadow)
    }

    /// Sets the one timer of a breaker to its machine's next deadline.
    fn arm(&mut self, scope: &BreakerScope, deadline: Option<Time>, ctx: &mut Context<Self>) {
        let key = scope.as_ref().and_then(|target| target.key.clone());
        if self.timers.get(&key).map(|(at, _)| *at) == deadline {
            return;
        }
        if let Some((_, handle)) = self.timers.remove(&key) {
            ctx.cancel_future(handle);
        }
        if let Some(at) = deadline {
            let sleep = self.shared.clock.sleep_until(at);
            let of = key.clone();
            let fire = sleep.into_actor(self).map(move |(), breaker, ctx| {
                breaker.timers.remove(&of);
                // Looked up by its key, since a timer must not protect a key from eviction.
                let scope = of.as_deref().map(|key| breaker.shared.keys.find(key));
                if scope.as_ref().is_some_and(Option::is_none) {
                    return;
                }
                breaker.with_machine(&scope.flatten(), ctx, |machine, now| {
                    machine.on_time(now, &mut random());
                });
            });
            self.timers.insert(key, (at, ctx.spawn(fire)));
        }
    }

    /// Visits the breaker of each key, one after the other.
    fn each_key(&mut self, mut visit: impl FnMut(&mut Self, Arc<SharedBreaker>)) {
        let shared = Arc::clone(&self.shared);
        shared.keys.each(|key| visit(self, key));
    }

    /// Visits every breaker, the dependency's own first.
    fn each_breaker(&mut self, mut visit: impl FnMut(&mut Self, &BreakerScope)) {
        visit(self, &None);
        self.each_key(|breaker, key| visit(breaker, &Some(key)));
    }

    /// Counts the outcome of a key for the whole dependency, while that is closed.
    fn count_for_all(&mut self, outcome: &Outcome, ctx: &mut Context<Self>) {
        // EDGE-5: many keys that fail are one dependency that fails. One key alone cannot open the
        // breaker of all, and a new key is no way around it.
        self.with_machine(&None, ctx, |machine, now| {
            if machine.state() == State::Closed {
                let permit = Permit::normal(machine.generation(), now);
                machine.record(now, permit, outcome, &mut random());
            }
        });
    }

    fn restart_periodic(&mut self) {
        self.periodic.set(&self.shared, &self.addr);
    }
}

fn is_shadow(set: &Override) -> bool {
    set.mode == OverrideMode::Shadow
}

/// Failures counted by a closed breaker, and the number that opens it; `-` where only rates do.
fn failures_so_far(machine: &breakerbox_policy::Breaker, now: Time) -> Option<(u64, String)> {
    let settings = machine.settings();
    let threshold = settings.failure_threshold.or(settings.consecutive_failures);
    let threshold = threshold.map_or_else(|| "-".to_owned(), |set| set.to_string());
    let closed = machine.state() == State::Closed;
    closed.then(|| (machine.view(now).counts.failures, threshold))
}

/// Emits the events of a change. An override passed down to a key is left out: it was already
/// reported for the dependency.
fn emit_events(shared: &Shared, target: &SharedBreaker, events: Vec<BreakerEvent>) {
    if events.is_empty() {
        return;
    }
    let subject = target.subject(&shared.name);
    let is_inherited = |event: &BreakerEvent| {
        let of_override = matches!(
            event,
            BreakerEvent::Overridden { .. } | BreakerEvent::OverrideRemoved { .. }
        );
        of_override && target.has_inherited_override()
    };
    for event in events.into_iter().filter(|event| !is_inherited(event)) {
        shared.events.emit(&subject, EventKind::Breaker(event));
    }
}

/// Publishes the gate, and returns the events to emit.
fn publish(
    shared: &Shared,
    target: &SharedBreaker,
    machine: &mut breakerbox_policy::Breaker,
    now: Time,
) -> Vec<BreakerEvent> {
    let word = word_of(machine, now);
    if word != target.gate.read() {
        target.gate.publish(word);
    }
    let mut events = Vec::new();
    while let Some(event) = machine.poll_event() {
        note(shared, target, &event);
        events.push(event);
    }
    events
}

/// Stores the reason for refusals, and counts trips.
fn note(shared: &Shared, target: &SharedBreaker, event: &BreakerEvent) {
    use std::sync::atomic::Ordering;
    match event {
        BreakerEvent::Transition { to, cause, .. } => {
            if *to == State::Open {
                shared.totals.trips.fetch_add(1, Ordering::Relaxed);
                target.set_reason(cause.to_string());
            } else if !matches!(cause, BreakerCause::OpenTimeOver) {
                target.set_reason(cause.to_string());
            }
        }
        BreakerEvent::Overridden { reason, by, .. } => {
            target.set_reason(format!("set by {by}: {reason}"));
        }
        _ => {}
    }
}

impl<D: Dependency> Actor for Breaker<D> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let shared = Arc::clone(&self.shared);
        self.each_breaker(|breaker, scope| {
            let machine = &scope.as_deref().unwrap_or(&shared.breaker).machine;
            let crashed = machine.is_poisoned();
            machine.clear_poison();
            breaker.with_machine(scope, ctx, |machine, now| {
                if crashed {
                    machine.recover(now);
                }
                machine.on_time(now, &mut random());
            });
        });
        self.restart_periodic();
    }
}

impl<D: Dependency> Unpin for Breaker<D> {}

impl<D: Dependency> Handler<Call<D>> for Breaker<D> {
    type Result = AnswerInProgress<D>;

    fn handle(&mut self, call: Call<D>, _: &mut Context<Self>) -> Self::Result {
        AnswerInProgress(Arc::clone(&self.calls).make(call))
    }
}

/// A call in progress. Unlike actix's own response, it ends when its caller goes away (rule
/// CALL-4).
pub struct AnswerInProgress<D: Dependency>(AnswerFuture<D>);

impl<D: Dependency> MessageResponse<Breaker<D>, Call<D>> for AnswerInProgress<D> {
    fn handle(self, _: &mut Context<Breaker<D>>, caller: Option<OneshotSender<CallAnswer<D>>>) {
        let Self(mut answering) = self;
        // Many calls end at their first poll; only the others are worth a task. A caller that has
        // gone needs no answer.
        // CALL-4: a caller that is gone costs the dependency nothing.
        let is_gone = caller.as_ref().is_some_and(OneshotSender::is_closed);
        if is_gone {
            return;
        }
        if let Some(answer) = answering.as_mut().now_or_never() {
            if let Some(caller) = caller {
                // The caller may have gone just now.
                let _ = caller.send(answer);
            }
            return;
        }
        actix_rt::spawn(async move {
            let Some(mut caller) = caller else {
                // The sender does not want an answer.
                drop(answering.await);
                return;
            };
            tokio::select! {
                biased;
                answer = answering => drop(caller.send(answer)),
                () = caller.closed() => {}
            }
        });
    }
}

impl<D: Dependency> std::fmt::Debug for AnswerInProgress<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("AnswerInProgress").finish_non_exhaustive()
    }
}

impl<D: Dependency> Handler<Acquire> for Breaker<D> {
    type Result = MessageResult<Acquire>;

    fn handle(&mut self, acquire: Acquire, ctx: &mut Context<Self>) -> Self::Result {
        let Acquire { key, deadline } = acquire;
        let admit = |machine: &mut breakerbox_policy::Breaker, now| (machine.admit(now), now);
        let is_for_all = key
            .as_ref()
            .is_some_and(|key| is_asked_for_all(&self.shared, key));
        let scope = key.clone().filter(|_| !is_for_all);
        let (admitted, now) = self.with_machine(&scope, ctx, admit);
        MessageResult(admitted.map(|permit| {
            // The same as the gate grants, so that there is one kind of normal permit.
            let permit = match permit.kind() {
                PermitKind::Normal => Permit::normal(tag_of(permit.generation()), now),
                PermitKind::Probe(_) | PermitKind::Unrecorded => permit,
            };
            let shared = Arc::clone(&self.shared);
            let held = PermitGuard::new(key, permit, now, deadline);
            Admission::new(shared, if is_for_all { held.of_all() } else { held })
        }))
    }
}

impl<D: Dependency> Handler<Report> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, mut report: Report, ctx: &mut Context<Self>) {
        if let Some(permit) = report.permit.take() {
            let (outcome, key) = (report.outcome, report.key.take());
            let (failures, has_opened) = self.with_machine(&key, ctx, |machine, now| {
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
            if report.counts_for_all {
                self.count_for_all(&outcome, ctx);
            }
            let shared = &self.shared;
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
}

impl<D: Dependency> Handler<Release> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, release: Release, ctx: &mut Context<Self>) {
        let Release { key, permit } = release;
        self.with_machine(&key, ctx, |machine, now| machine.release(now, permit));
    }
}

impl<D: Dependency> Handler<FlushSuccesses> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, flush: FlushSuccesses, ctx: &mut Context<Self>) {
        let shared = Arc::clone(&self.shared);
        let FlushSuccesses { key, successes } = flush;
        let target = key.as_deref().unwrap_or(&shared.breaker);
        self.with_machine(&key, ctx, |machine, now| {
            record_batch(machine, target, successes, now);
        });
    }
}

impl<D: Dependency> Handler<OperateBreaker> for Breaker<D> {
    type Result = Result<(), IllegalTransition>;

    fn handle(&mut self, operate: OperateBreaker, ctx: &mut Context<Self>) -> Self::Result {
        let OperateBreaker { key, command, note } = operate;
        let closes = matches!(
            command,
            BreakerCommand::Close { .. } | BreakerCommand::Reset { .. } | BreakerCommand::Clear
        );
        if key.is_none() && closes {
            // Closing or resetting a dependency applies to its keys too.
            self.each_key(|breaker, each| {
                let command = command.clone();
                // None of the three commands is ever refused.
                let _ = breaker.with_machine(&Some(each), ctx, |machine, now| {
                    machine.command(now, command, &mut random())
                });
            });
        }
        if let Some(key) = &key {
            key.clear_inherited_mark();
        }
        if matches!(command, BreakerCommand::Reset { .. }) {
            match &key {
                Some(key) => key.pauses.lift(),
                None => {
                    self.shared.pauses.lift();
                    self.each_key(|_, key| key.pauses.lift());
                }
            }
        }
        // SUP-4: without a worker it stays open, even if an operator's own override is removed.
        let is_parked = key.is_none() && closes && self.shared.worker_route() == Route::Parked;
        let park = self.shared.park_reason.load_full().filter(|_| is_parked);
        let done = self.with_machine(&key, ctx, |machine, now| {
            let done = machine.command(now, command, &mut random());
            if let Some(reason) = park {
                let reason = String::clone(&reason);
                // It is never refused.
                let _ = machine.command(now, BreakerCommand::Park { reason }, &mut random());
            }
            done
        });
        if let Some(note) = note.filter(|_| done.is_ok()) {
            // OPS-1: told here, commands of several operators are told in the order of their effects.
            self.shared.events.emit(&self.shared.name, note);
        }
        done
    }
}

impl<D: Dependency> Handler<Reconfigure> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, Reconfigure(settings): Reconfigure, ctx: &mut Context<Self>) {
        let shared = Arc::clone(&self.shared);
        let old = shared.settings().breaker.clone();
        let breaker = settings.breaker.clone();
        shared.reconfigure(*settings);
        if old != breaker {
            shared.record_settings();
            self.each_breaker(|actor, scope| {
                let target = scope.as_deref().unwrap_or(&shared.breaker);
                actor.with_machine(scope, ctx, |machine, now| {
                    machine.reconfigure(now, breaker.clone());
                    target.apply_measurement_settings(machine);
                });
            });
        }
        self.restart_periodic();
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
