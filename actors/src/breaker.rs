//! The breaker actor: the only writer of a dependency's breaker.
//!
//! It takes calls, permits and outcomes, tells the kernel's machine, publishes the gate and makes
//! events of what moved. It executes nothing and decides nothing by itself.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use actix::{MessageResult, ResponseFuture};
use breakerbox_policy::{
    BreakerEvent, Cause, IllegalTransition, OverrideMode, Permit, PermitKind, State, Time,
};

use crate::admission::{Admission, Held};
use crate::call;
use crate::client::Core;
use crate::clock::random;
use crate::dependency::{Dependency, Shared};
use crate::event::EventKind;
use crate::gate::{GateWord, Mode, Successes, tag_of};
use crate::message::{Acquire, Call, Flush, Operate, Release, Report};

/// The actor of one dependency's breaker; any actor may send it a [`Call`].
///
/// # Source  DESIGN §1; rules BRK-3, BRK-12 and CALL-3.
pub struct Breaker<D: Dependency> {
    core: Arc<Core<D>>,
    timer: Option<(Time, SpawnHandle)>,
}

impl<D: Dependency> std::fmt::Debug for Breaker<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Breaker").finish_non_exhaustive()
    }
}

/// What the gate shall say about this machine.
pub(crate) fn word_of(machine: &breakerbox_policy::Breaker, now: Time) -> GateWord {
    let go = || {
        if machine.needs_every_success() {
            Mode::Watchful
        } else {
            Mode::Closed
        }
    };
    let mode = match (machine.overridden().map(|one| one.mode), machine.state()) {
        (Some(OverrideMode::ForcedOpen), _) => Mode::ForcedOpen,
        (Some(OverrideMode::Disabled), _) => Mode::Disabled,
        (Some(OverrideMode::Shadow), _) | (None, State::Closed) => go(),
        (None, State::Open) => Mode::Open,
        (None, State::HalfOpen) => Mode::HalfOpen,
    };
    let wait = match mode {
        Mode::Open | Mode::ForcedOpen => machine.view(now).retry_after,
        _ => None,
    };
    // Rounded up: the gate must not let anybody ask early.
    let retry_at = wait.map_or(0, |wait| now.after(wait).as_nanos().div_ceil(1_000_000));
    GateWord::new(mode, machine.generation(), retry_at)
}

impl<D: Dependency> Breaker<D> {
    pub(crate) fn new(core: Arc<Core<D>>) -> Self {
        Self { core, timer: None }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.core.shared
    }

    /// Lets the machine take something in, and makes known what came of it.
    fn with_machine<T>(
        &mut self,
        ctx: &mut Context<Self>,
        change: impl FnOnce(&mut breakerbox_policy::Breaker, Time) -> T,
    ) -> T {
        let shared = Arc::clone(self.shared());
        let now = shared.clock.now();
        let mut machine = lock(&shared);
        take_in_counted(&mut machine, &shared, now);
        let result = change(&mut machine, now);
        let moved = publish(&shared, &mut machine, now);
        let deadline = machine.next_deadline();
        drop(machine);
        // Whoever listens may ask for the status: without the lock.
        for event in moved {
            shared.events.emit(&shared.name, EventKind::Breaker(event));
        }
        self.arm(deadline, ctx);
        result
    }

    /// Sets the one timer to the machine's next deadline.
    fn arm(&mut self, deadline: Option<Time>, ctx: &mut Context<Self>) {
        if self.timer.as_ref().map(|(at, _)| *at) == deadline {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = deadline {
            let sleep = self.shared().clock.sleep_until(at);
            let fire = sleep.into_actor(self).map(|(), breaker, ctx| {
                breaker.timer = None;
                breaker.with_machine(ctx, |machine, now| machine.on_time(now, &mut random()));
            });
            self.timer = Some((at, ctx.spawn(fire)));
        }
    }

    /// Looks at the calls in flight again and again (rule BRK-9).
    fn watch_overdue(&self, ctx: &mut Context<Self>) {
        let Some(tick) = self.shared().in_flight.as_ref().map(|ring| ring.tick()) else {
            return;
        };
        let tick = tick.max(Duration::from_millis(1));
        ctx.run_interval(tick, |breaker, ctx| {
            let shared = Arc::clone(breaker.shared());
            let Some(ring) = &shared.in_flight else {
                return;
            };
            breaker.with_machine(ctx, |machine, now| {
                let overdue = ring.overdue(now, tag_of(machine.generation()));
                machine.set_overdue(now, overdue, &mut random());
            });
        });
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, breakerbox_policy::Breaker> {
    // A poisoned machine is one whose actor crashed; `started` puts it in order.
    shared
        .machine
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Records what was counted at the gate so far.
pub(crate) fn take_in_counted(
    machine: &mut breakerbox_policy::Breaker,
    shared: &Shared,
    now: Time,
) {
    if let Some(successes) = shared.gate.take_successes() {
        take_in(machine, shared, successes, now);
    }
}

/// Records what was counted at the gate, for the time and generation it was counted in.
fn take_in(
    machine: &mut breakerbox_policy::Breaker,
    shared: &Shared,
    successes: Successes,
    now: Time,
) {
    let at = match shared.bucket_nanos {
        0 => now,
        width => {
            let bucket = successes.bucket_before(now.as_nanos() / width);
            Time::from_nanos(bucket.saturating_mul(width))
        }
    };
    let generation = generation_of(machine, successes.tag());
    machine.record_successes(at, generation, successes.count(), &mut random());
}

/// The generation that a gate's tag stands for; any other than the present one is late.
fn generation_of(machine: &breakerbox_policy::Breaker, tag: u64) -> u64 {
    let present = machine.generation();
    if tag_of(present) == tag {
        present
    } else {
        u64::MAX
    }
}

/// Publishes the gate, and gives back what moved to be told.
fn publish(
    shared: &Shared,
    machine: &mut breakerbox_policy::Breaker,
    now: Time,
) -> Vec<BreakerEvent> {
    let word = word_of(machine, now);
    if word != shared.gate.read() {
        shared.gate.publish(word);
    }
    let mut moved = Vec::new();
    while let Some(event) = machine.poll_event() {
        note(shared, &event);
        moved.push(event);
    }
    moved
}

/// Keeps the words for refusals and the count of trips.
fn note(shared: &Shared, event: &BreakerEvent) {
    use std::sync::atomic::Ordering;
    match event {
        BreakerEvent::Transition { to, cause, .. } => {
            if *to == State::Open {
                shared.totals.trips.fetch_add(1, Ordering::Relaxed);
                shared.set_notice(cause.to_string());
            } else if !matches!(cause, Cause::OpenTimeOver) {
                shared.set_notice(cause.to_string());
            }
        }
        BreakerEvent::Overridden { reason, by, .. } => {
            shared.set_notice(format!("set by {by}: {reason}"));
        }
        _ => {}
    }
}

impl<D: Dependency> Actor for Breaker<D> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let crashed = self.shared().machine.is_poisoned();
        self.shared().machine.clear_poison();
        self.with_machine(ctx, |machine, now| {
            if crashed {
                machine.recover(now);
            }
            machine.on_time(now, &mut random());
        });
        self.watch_overdue(ctx);
    }
}

impl<D: Dependency> Unpin for Breaker<D> {}

impl<D: Dependency> Handler<Call<D>> for Breaker<D> {
    type Result = Answering<D>;

    fn handle(&mut self, call: Call<D>, _: &mut Context<Self>) -> Self::Result {
        let core = Arc::clone(&self.core);
        Answering(Box::pin(async move {
            call::ask(&core, call.request, call.options).await
        }))
    }
}

/// A call on its way; unlike actix's own it ends with whoever asked (rule CALL-4).
pub struct Answering<D: Dependency>(ResponseFuture<<Call<D> as actix::Message>::Result>);

impl<D: Dependency> MessageResponse<Breaker<D>, Call<D>> for Answering<D> {
    fn handle(
        self,
        _: &mut Context<Breaker<D>>,
        caller: Option<OneshotSender<<Call<D> as actix::Message>::Result>>,
    ) {
        actix_rt::spawn(async move {
            let Some(mut caller) = caller else {
                // Sent without a wish for an answer.
                drop(self.0.await);
                return;
            };
            tokio::select! {
                biased;
                // The caller may have gone just now.
                answer = self.0 => drop(caller.send(answer)),
                () = caller.closed() => {}
            }
        });
    }
}

impl<D: Dependency> std::fmt::Debug for Answering<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Answering").finish_non_exhaustive()
    }
}

impl<D: Dependency> Handler<Acquire> for Breaker<D> {
    type Result = MessageResult<Acquire>;

    fn handle(&mut self, acquire: Acquire, ctx: &mut Context<Self>) -> Self::Result {
        let (admitted, now) = self.with_machine(ctx, |machine, now| (machine.admit(now), now));
        MessageResult(admitted.map(|permit| {
            // As the gate gives them, so that there is one kind of normal permits.
            let permit = match permit.kind() {
                PermitKind::Normal => Permit::normal(tag_of(permit.generation()), now),
                PermitKind::Probe(_) | PermitKind::Unrecorded => permit,
            };
            let shared = Arc::clone(self.shared());
            let held = Held::new(permit, now, acquire.deadline);
            Admission::new(shared, held)
        }))
    }
}

impl<D: Dependency> Handler<Report> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, mut report: Report, ctx: &mut Context<Self>) {
        if let Some(permit) = report.permit.take() {
            let outcome = report.outcome;
            self.with_machine(ctx, |machine, now| {
                let permit = match permit.kind() {
                    PermitKind::Normal => {
                        let generation = generation_of(machine, permit.generation());
                        Permit::normal(generation, permit.started())
                    }
                    PermitKind::Probe(_) | PermitKind::Unrecorded => permit,
                };
                machine.record(now, permit, &outcome, &mut random());
            });
        }
        // Dropping the report runs what follows it, now that it is counted.
        drop(report);
    }
}

impl<D: Dependency> Handler<Release> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, Release(permit): Release, ctx: &mut Context<Self>) {
        self.with_machine(ctx, |machine, now| machine.release(now, permit));
    }
}

impl<D: Dependency> Handler<Flush> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, Flush(successes): Flush, ctx: &mut Context<Self>) {
        let shared = Arc::clone(self.shared());
        self.with_machine(ctx, |machine, now| {
            take_in(machine, &shared, successes, now);
        });
    }
}

impl<D: Dependency> Handler<Operate> for Breaker<D> {
    type Result = Result<(), IllegalTransition>;

    fn handle(&mut self, Operate(command): Operate, ctx: &mut Context<Self>) -> Self::Result {
        self.with_machine(ctx, |machine, now| {
            machine.command(now, command, &mut random())
        })
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
