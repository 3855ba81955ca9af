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
use std::time::Duration;

use breakerbox_policy::supervision::{PanicReport, StopCause};
use breakerbox_policy::{Class, Time};

use super::inline::InlineExecutor;
use super::{QueuedJob, Responder, WorkerJob};
use crate::attempt_progress::AttemptProgress;
use crate::call::failed_attempt::FailedAttempt;
use crate::clock::earliest;
use crate::deadline::{self, CallScope, Timer};
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::event::EventKind;
use crate::limits::chaos::InjectedFailure;
use crate::state::Shared;
use crate::supervisor::{Incarnation, caught};
use crate::time_limit::TimeLimit;
use crate::verdict::Verdict;

/// The user's future.
pub(super) type Attempt<D> = Pin<Box<dyn Future<Output = Result<UserResult<D>, InjectedFailure>>>>;
/// The user's result.
pub(crate) type UserResult<D> = Result<<D as Dependency>::Response, <D as Dependency>::Error>;

/// The time limits of a call that begins, and the fingerprint that identifies it if it crashes its
/// worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallBounds {
    began: Time,
    until: Option<Time>,
    /// The deadline of the whole call, and the limit that it is of.
    deadline: (Option<Time>, TimeLimit),
    /// Conditions of the calls that it makes.
    pub(super) scope: CallScope,
    fingerprint: Option<u64>,
}

impl CallBounds {
    pub(super) fn of<D: Dependency>(job: &WorkerJob<D>, now: Time) -> Self {
        let total = job.context.deadline;
        Self {
            began: now,
            until: earliest(job.context.attempt_limit.map(|span| now.after(span)), total),
            deadline: (total, job.deadline_limit),
            scope: job.scope,
            fingerprint: job.context.fingerprint,
        }
    }

    /// Returns the fingerprint of the call, if it has one.
    pub(super) fn fingerprint(&self) -> Option<u64> {
        self.fingerprint
    }
}

/// An attempt with a limit of its silence.
pub(super) struct ProlongedAttempt {
    progress: AttemptProgress,
    /// The limit of its silence; `None` for no limit.
    limit: Option<Duration>,
    deadline: Option<Time>,
}

impl ProlongedAttempt {
    /// Returns the limits of an attempt that notes its progress.
    pub(super) fn of<D: Dependency>(job: &WorkerJob<D>) -> Option<Box<Self>> {
        let progress = job.progress.clone()?;
        Some(Box::new(Self {
            progress,
            limit: job.context.attempt_limit,
            deadline: job.context.deadline,
        }))
    }

    /// Returns the end of the attempt by its progress, if that is later than now.
    fn later(&self, began: Time, now: Time) -> Option<Time> {
        // EDGE-1: a user that is asked has time, which is not the dependency's.
        let moved = |end| AttemptProgress::moved(Some(&self.progress), end, now);
        let end = self.deadline.map(moved);
        if end.is_some_and(|end| end <= now) {
            return None;
        }
        let whole = now.since(began);
        let Some(limit) = self.limit else {
            return end;
        };
        // A note may be of an earlier attempt.
        let silent = self.progress.silent_for()?.min(whole);
        let left = limit.checked_sub(silent)?;
        let until = earliest(Some(now.after(left)), end);
        until.filter(|until| *until > now)
    }
}

/// A call being executed.
pub(crate) struct Execution<D: Dependency> {
    shared: Arc<Shared>,
    future: Option<Attempt<D>>,
    pub(super) responder: Option<Responder<D>>,
    /// The attempt's deadline; checked from the second poll on.
    timer: Timer,
    /// The progress that prolongs the attempt.
    pub(super) prolonged: Option<Box<ProlongedAttempt>>,
    began: Time,
    /// The deadline of the whole call, and the limit that it is of.
    deadline: (Option<Time>, TimeLimit),
    polled: bool,
    fingerprint: Option<u64>,
    /// Conditions of the calls that it makes.
    scope: CallScope,
    incarnation: Rc<Incarnation>,
    crashed_call: Rc<RefCell<Option<Responder<D>>>>,
}

impl<D: Dependency> Execution<D> {
    pub(super) fn new(
        inline: &InlineExecutor<D>,
        QueuedJob { job, responder }: QueuedJob<D>,
        now: Time,
    ) -> Self {
        let bounds = CallBounds::of(&job, now);
        let prolonged = ProlongedAttempt::of(&job);
        let future = inline.attempt(job.request, job.context, now);
        let mut execution = Self::begun(inline, Some(future), bounds);
        execution.prolonged = prolonged;
        execution.responder = Some(responder);
        execution.polled = false;
        execution
    }

    /// Makes an execution that was polled once already, and that has no responder yet.
    pub(super) fn begun(
        inline: &InlineExecutor<D>,
        future: Option<Attempt<D>>,
        bounds: CallBounds,
    ) -> Self {
        Self {
            shared: Arc::clone(&inline.shared),
            future,
            responder: None,
            timer: Timer::new(bounds.until),
            prolonged: None,
            began: bounds.began,
            deadline: bounds.deadline,
            polled: true,
            fingerprint: bounds.fingerprint,
            scope: bounds.scope,
            incarnation: Rc::clone(&inline.incarnation),
            crashed_call: Rc::clone(&inline.crashed_call),
        }
    }

    /// Returns the fingerprint of the call, if it has one.
    pub(super) fn fingerprint(&self) -> Option<u64> {
        self.fingerprint
    }

    /// Ends the call with the dependency's own result.
    fn finish(&mut self, result: UserResult<D>) {
        self.drop_future();
        let verdict = match caught(|| D::classify(result.as_ref())) {
            Ok(verdict) => self.shared.judge(verdict),
            Err(panic) => return self.crash(panic),
        };
        self.shared.clear_suspicion(self.fingerprint, &verdict);
        let Some(mut responder) = self.responder.take() else {
            return;
        };
        if self.incarnation.is_fenced() {
            // Another incarnation has taken over, so this result is stale.
            responder.cause = Some(StopCause::Lost);
            return;
        }
        let now = self.shared.clock.now();
        // CALL-8: the verdict goes with the result, so that it is asked for once.
        let reply = match result {
            Ok(value) if verdict.is_bad() => {
                Err(FailedAttempt::answered(&self.shared, value, &verdict))
            }
            Ok(value) => Ok((value, verdict.class == Class::Success)),
            Err(error) => {
                let failed = CallError::Failed {
                    dependency: Arc::clone(&self.shared.name),
                    error,
                    executed: verdict.executed,
                };
                Err(FailedAttempt::failed(failed, &verdict))
            }
        };
        responder.answer(verdict, now, reply);
    }

    fn time_out(&mut self) {
        self.drop_future();
        if let Some(responder) = self.responder.take() {
            let now = self.shared.clock.now();
            let own = self.prolonged.as_deref();
            let limit = match (self.deadline, own) {
                ((Some(deadline), limit), _) if deadline <= now => limit,
                (_, Some(own)) => self.shared.limit_of_attempt(own.limit),
                (_, None) => {
                    let span = self.timer.deadline.map(|end| end.since(self.began));
                    self.shared.limit_of_attempt(span)
                }
            };
            let exceeded = (limit, now.since(self.began));
            let executed = AttemptProgress::executed(own.map(|own| &own.progress));
            let verdict = self
                .shared
                .timed_out_unless_held(limit, own.map(|own| &own.progress));
            responder.time_out(now, exceeded, (executed, verdict));
        }
    }

    /// Ends a call with its injected failure.
    fn inject(&mut self) {
        self.drop_future();
        if let Some(responder) = self.responder.take() {
            let error = CallError::Injected {
                dependency: Arc::clone(&self.shared.name),
            };
            let now = self.shared.clock.now();
            let failed = FailedAttempt::by_worker(&self.shared, error);
            responder.answer(Verdict::from(Class::Failure), now, Err(failed));
        }
    }

    /// Handles a panic of the call. The caller is not answered before the driver has marked the
    /// worker down.
    pub(super) fn crash(&mut self, panic: PanicReport) {
        self.drop_future();
        let Some(mut responder) = self.responder.take() else {
            return;
        };
        let shared = &self.shared;
        if let (Some(fingerprint), Some(quarantine)) = (self.fingerprint, &shared.quarantine)
            && let Some(ttl) = quarantine.note(fingerprint, shared.clock.now())
        {
            let kind = EventKind::Quarantined { fingerprint, ttl };
            shared.events.emit(&shared.name, kind);
        }
        self.incarnation.crash(panic.clone());
        responder.poison = Some(panic);
        *self.crashed_call.borrow_mut() = Some(responder);
    }

    /// Drops the user's future, and catches a panic of its destructor.
    fn drop_future(&mut self) {
        let future = self.future.take();
        if let Err(panic) = caught(|| drop(future)) {
            match self.incarnation.death() {
                None => self.incarnation.crash(panic),
                Some(_) => self.incarnation.note_second_panic(panic),
            }
        }
    }
}

impl<D: Dependency> Drop for Execution<D> {
    fn drop(&mut self) {
        self.drop_future();
        if let Some(responder) = &mut self.responder {
            responder.cause = self.incarnation.death();
        }
    }
}

impl<D: Dependency> Unpin for Execution<D> {}

impl<D: Dependency> Future for Execution<D> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let (Some(future), Some(responder)) = (&mut this.future, &this.responder) else {
            return Poll::Ready(());
        };
        let scope = this.scope;
        let poll = || deadline::within(scope, || future.as_mut().poll(cx));
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Ready(Ok(result))) => {
                this.finish(result);
                return Poll::Ready(());
            }
            Ok(Poll::Ready(Err(InjectedFailure))) => {
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
        while this.timer.poll(&this.shared.clock, cx).is_ready() {
            let prolonged = this.prolonged.as_ref();
            let now = this.shared.clock.now();
            match prolonged.and_then(|prolonged| prolonged.later(this.began, now)) {
                Some(until) => this.timer = Timer::new(Some(until)),
                None => {
                    this.time_out();
                    return Poll::Ready(());
                }
            }
        }
        if responder.poll_abandoned(cx) {
            this.drop_future();
            if let Some(responder) = &mut this.responder {
                responder.forget();
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
