//! A call being executed: the user's future, its deadline and its outcome.
//!
//! It answers exactly once, for every way to end. It restarts nothing: a panic is a crash of its
//! worker, which is reported to the driver.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use breakerbox_policy::supervision::{PanicReport, StopCause};
use breakerbox_policy::{Class, Executed, Time};

use super::hands::InlineExecutor;
use super::{Job, QueuedJob, Responder};
use crate::call::least;
use crate::chaos::Injected;
use crate::clock::Moment;
use crate::deadline;
use crate::dependency::{Dependency, Shared, Verdict};
use crate::error::CallError;
use crate::event::EventKind;
use crate::reply::{Timer, timed_out};
use crate::supervisor::{Incarnation, caught};

/// The user's future.
pub(super) type Attempt<D> = Pin<Box<dyn Future<Output = Result<UserResult<D>, Injected>>>>;
/// The user's result.
pub(crate) type UserResult<D> = Result<<D as Dependency>::Response, <D as Dependency>::Error>;

/// The time limits of a call that begins, and the fingerprint that identifies it if it crashes its
/// worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    began: Time,
    until: Option<Time>,
    /// Deadline of the calls that it makes.
    pub(super) scope: Option<Moment>,
    fingerprint: Option<u64>,
}

impl Bounds {
    pub(super) fn of<D: Dependency>(hands: &InlineExecutor<D>, order: &Job<D>, now: Time) -> Self {
        let total = order.context.deadline;
        Self {
            began: now,
            until: least(order.attempt.map(|span| now.after(span)), total),
            scope: total.map(|end| hands.shared.clock.moment(end)),
            fingerprint: order.fingerprint,
        }
    }
}

/// A call being executed.
pub(crate) struct Execution<D: Dependency> {
    shared: Arc<Shared>,
    future: Option<Attempt<D>>,
    pub(super) duty: Option<Responder<D>>,
    /// The attempt's deadline; checked from the second poll on.
    timer: Timer,
    began: Time,
    polled: bool,
    fingerprint: Option<u64>,
    /// Deadline of the calls that it makes.
    scope: Option<Moment>,
    life: Rc<Incarnation>,
    crashed_call: Rc<RefCell<Option<Responder<D>>>>,
}

impl<D: Dependency> Execution<D> {
    pub(super) fn new(
        hands: &InlineExecutor<D>,
        QueuedJob { order, duty }: QueuedJob<D>,
        now: Time,
    ) -> Self {
        let bounds = Bounds::of(hands, &order, now);
        let future = hands.attempt(order.request, order.context, now);
        let mut execution = Self::begun(hands, Some(future), bounds);
        execution.duty = Some(duty);
        execution.polled = false;
        execution
    }

    /// Makes an execution that was polled once already, and that has no responder yet.
    pub(super) fn begun(
        hands: &InlineExecutor<D>,
        future: Option<Attempt<D>>,
        bounds: Bounds,
    ) -> Self {
        Self {
            shared: Arc::clone(&hands.shared),
            future,
            duty: None,
            timer: Timer::new(bounds.until),
            began: bounds.began,
            polled: true,
            fingerprint: bounds.fingerprint,
            scope: bounds.scope,
            life: Rc::clone(&hands.life),
            crashed_call: Rc::clone(&hands.crashed_call),
        }
    }

    /// Ends the call with the dependency's own result.
    fn finish(&mut self, result: UserResult<D>) {
        self.drop_future();
        let verdict = match caught(|| D::classify(result.as_ref())) {
            Ok(verdict) => verdict.judged(&self.shared),
            Err(panic) => return self.crash(panic),
        };
        let Some(mut duty) = self.duty.take() else {
            return;
        };
        if self.life.is_fenced() {
            // Another incarnation has taken over, so this result is stale.
            duty.cause = Some(StopCause::Lost);
            return;
        }
        let now = self.shared.clock.now();
        let reply = result.map_err(|error| CallError::Failed {
            dependency: Arc::clone(&self.shared.name),
            error,
            executed: verdict.executed,
        });
        duty.answer(verdict, now, reply);
    }

    fn time_out(&mut self) {
        self.drop_future();
        if let Some(duty) = self.duty.take() {
            let now = self.shared.clock.now();
            let error = CallError::TimedOut {
                dependency: Arc::clone(&self.shared.name),
                after: now.since(self.began),
                executed: Executed::Maybe,
            };
            duty.answer(timed_out(&self.shared), now, Err(error));
        }
    }

    /// Ends a call with its injected failure.
    fn inject(&mut self) {
        self.drop_future();
        if let Some(duty) = self.duty.take() {
            let error = CallError::Injected {
                dependency: Arc::clone(&self.shared.name),
            };
            let now = self.shared.clock.now();
            duty.answer(Verdict::from(Class::Failure), now, Err(error));
        }
    }

    /// Handles a panic of the call. The caller is not answered before the driver has marked the
    /// worker down.
    pub(super) fn crash(&mut self, panic: PanicReport) {
        self.drop_future();
        let Some(mut duty) = self.duty.take() else {
            return;
        };
        let shared = &self.shared;
        if let (Some(fingerprint), Some(quarantine)) = (self.fingerprint, &shared.quarantine)
            && let Some(ttl) = quarantine.note(fingerprint, shared.clock.now())
        {
            let kind = EventKind::Quarantined { fingerprint, ttl };
            shared.events.emit(&shared.name, kind);
        }
        self.life.crash(panic.clone());
        duty.poison = Some(panic);
        *self.crashed_call.borrow_mut() = Some(duty);
    }

    /// Drops the user's future, and catches a panic of its destructor.
    fn drop_future(&mut self) {
        let future = self.future.take();
        if let Err(panic) = caught(|| drop(future)) {
            match self.life.death() {
                None => self.life.crash(panic),
                Some(_) => self.life.note_second_panic(panic),
            }
        }
    }
}

impl<D: Dependency> Drop for Execution<D> {
    fn drop(&mut self) {
        self.drop_future();
        if let Some(duty) = &mut self.duty {
            duty.cause = self.life.death();
        }
    }
}

impl<D: Dependency> Unpin for Execution<D> {}

impl<D: Dependency> Future for Execution<D> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let (Some(future), Some(duty)) = (&mut this.future, &this.duty) else {
            return Poll::Ready(());
        };
        let scope = this.scope;
        let poll = || deadline::within(scope, || future.as_mut().poll(cx));
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Ready(Ok(result))) => {
                this.finish(result);
                return Poll::Ready(());
            }
            Ok(Poll::Ready(Err(Injected))) => {
                this.inject();
                return Poll::Ready(());
            }
            Err(payload) => {
                this.crash(crate::supervisor::panic_report(payload));
                return Poll::Ready(());
            }
            Ok(Poll::Pending) => {}
        }
        if !this.polled {
            this.polled = true;
            return Poll::Pending;
        }
        if this.timer.poll(&this.shared.clock, cx).is_ready() {
            this.time_out();
            return Poll::Ready(());
        }
        if duty.poll_abandoned(cx) {
            this.drop_future();
            if let Some(duty) = &mut this.duty {
                duty.forget();
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
