//! The worker actor: executes calls under a permit, one incarnation of the user's dependency at
//! a time.
//!
//! It never decides whether a call may go out, and it never outlives a panic: the driver throws
//! it away and the factory makes a new one.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use actix::{Actor, ActorContext, Context, Handler};
use breakerbox_policy::supervision::{PanicReport, StopCause};
use breakerbox_policy::{Class, Executed, Time};
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::bulkhead::Place;
use crate::dependency::{CallContext, Dependency, Route, Shared, Verdict};
use crate::error::CallError;
use crate::event::EventKind;
use crate::reply::{Begin, Replier, Timer, timed_out};
use crate::supervisor::{Life, Manner, Readiness, caught};

/// What a call comes to.
pub(crate) type Reply<D> = Result<<D as Dependency>::Response, CallError<<D as Dependency>::Error>>;

/// One attempt on its way to a worker, with its permit and its place.
///
/// However it is dropped, its caller is answered (rule CALL-1).
pub(crate) struct Work<D: Dependency> {
    pub(crate) request: D::Request,
    pub(crate) context: CallContext,
    pub(crate) fingerprint: Option<u64>,
    pub(crate) duty: Duty<D>,
}

/// The duty to answer a caller.
pub(crate) struct Duty<D: Dependency> {
    shared: Arc<Shared>,
    replier: Option<Replier<Reply<D>>>,
    /// Held until the work has ended, also when its caller is gone.
    place: Option<Place>,
    /// Why the incarnation that began the work went away.
    cause: Option<StopCause>,
    /// Set when this is the call that panicked.
    poison: Option<PanicReport>,
}

impl<D: Dependency> Duty<D> {
    pub(crate) fn new(shared: Arc<Shared>, replier: Replier<Reply<D>>, place: Place) -> Self {
        Self {
            shared,
            replier: Some(replier),
            place: Some(place),
            cause: None,
            poison: None,
        }
    }

    /// Takes the work on; false when there is nothing to do any more.
    fn begin(&mut self, now: Time) -> bool {
        let begin = match &self.replier {
            Some(replier) => replier.begin(now),
            None => Begin::Deserted,
        };
        if begin == Begin::Go {
            return true;
        }
        self.place = None;
        let replier = self.replier.take();
        if let (Some(replier), Begin::Overtaken) = (replier, begin) {
            replier.refuse(Err(CallError::Open(self.shared.overtaken(now))));
        }
        false
    }

    fn answer(&mut self, verdict: Verdict, now: Time, reply: Reply<D>) {
        // The place first: who hears the answer may call again at once.
        self.place = None;
        if let Some(replier) = self.replier.take() {
            replier.settle(verdict, now, reply);
        }
    }

    /// The error of a begun call whose worker went away.
    fn loss(&mut self) -> CallError<D::Error> {
        let dependency = Arc::clone(&self.shared.name);
        if let Some(panic) = self.poison.take() {
            return CallError::WorkerCrashed { dependency, panic };
        }
        CallError::Interrupted {
            dependency,
            cause: self.cause.take().unwrap_or(StopCause::Killed),
        }
    }
}

impl<D: Dependency> Drop for Duty<D> {
    fn drop(&mut self) {
        let Some(replier) = self.replier.take() else {
            return;
        };
        self.place = None;
        if replier.has_begun() {
            // A crash counts once for each call that it hit.
            let failure = Verdict::from(Class::Failure);
            replier.settle(failure, self.shared.clock.now(), Err(self.loss()));
        } else {
            replier.refuse(Err(CallError::NotExecuted {
                dependency: Arc::clone(&self.shared.name),
                reason: self.shared.absence(),
                retry_after: None,
            }));
        }
    }
}

/// Makes one incarnation's dependency; may take its time and may fail.
pub(crate) type Factory<D> = Arc<dyn Fn() -> StartFuture<D> + Send + Sync>;
pub(crate) type StartFuture<D> = Pin<Box<dyn Future<Output = Result<D, String>>>>;

/// One incarnation.
pub(crate) struct Worker<D: Dependency> {
    shared: Arc<Shared>,
    life: Rc<Life>,
    stage: Stage<D>,
    in_flight: FuturesUnordered<Execution<D>>,
    /// The call that panicked, kept until the driver has marked this worker down.
    wreck: Rc<RefCell<Option<Duty<D>>>>,
    drained: Pin<Box<dyn Future<Output = ()>>>,
}

enum Stage<D> {
    Starting(StartFuture<D>),
    Running(Rc<D>),
    Gone,
}

impl<D: Dependency> Worker<D> {
    pub(crate) fn new(shared: Arc<Shared>, factory: &Factory<D>, life: &Rc<Life>) -> Self {
        life.set_readiness(Readiness::Starting);
        let drained = drained(Arc::clone(&shared));
        Self {
            shared,
            life: Rc::clone(life),
            stage: Stage::Starting(factory()),
            in_flight: FuturesUnordered::new(),
            wreck: Rc::default(),
            drained: Box::pin(drained),
        }
    }

    fn poll_start(&mut self, cx: &mut TaskContext<'_>) {
        let Stage::Starting(start) = &mut self.stage else {
            return;
        };
        match start.as_mut().poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(dependency)) => {
                self.stage = Stage::Running(Rc::new(dependency));
                self.life.set_readiness(Readiness::Ready);
            }
            Poll::Ready(Err(why)) => {
                self.stage = Stage::Gone;
                self.life.set_readiness(Readiness::Failed(why));
            }
        }
    }
}

/// Resolves when the dependency is not draining as a whole, or no call of it is pending.
async fn drained(shared: Arc<Shared>) {
    loop {
        let told = shared.drained.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if shared.route() != Route::Draining || shared.totals.read().in_flight() == 0 {
            return;
        }
        told.await;
    }
}

impl<D: Dependency> Drop for Worker<D> {
    fn drop(&mut self) {
        // The user's destructors, each on its own: two panics in one unwind abort the process.
        let stage = std::mem::replace(&mut self.stage, Stage::Gone);
        if let Err(panic) = caught(|| drop(stage)) {
            self.life.note_second_panic(panic);
        }
    }
}

impl<D: Dependency> Actor for Worker<D> {
    type Context = Context<Self>;
}

impl<D: Dependency> Unpin for Worker<D> {}

impl<D: Dependency> Handler<Work<D>> for Worker<D> {
    type Result = ();

    fn handle(&mut self, mut work: Work<D>, _: &mut Context<Self>) {
        let Stage::Running(dependency) = &self.stage else {
            // The driver lets no message through before; dropping the work answers its caller.
            return;
        };
        let now = self.shared.clock.now();
        if !work.duty.begin(now) {
            return;
        }
        let mut execution = Execution::new(self, Rc::clone(dependency), work, now);
        // Many calls end at once; only those that do not are worth a place in the set.
        let mut cx = TaskContext::from_waker(Waker::noop());
        if Pin::new(&mut execution).poll(&mut cx).is_pending() {
            self.in_flight.push(execution);
        }
    }
}

/// The user's own future.
type Attempt<D> =
    Pin<Box<dyn Future<Output = Result<<D as Dependency>::Response, <D as Dependency>::Error>>>>;

/// A call being executed.
struct Execution<D: Dependency> {
    future: Option<Attempt<D>>,
    duty: Option<Duty<D>>,
    /// The attempt's deadline; looked at from the second poll on.
    timer: Timer,
    began: Time,
    polled: bool,
    fingerprint: Option<u64>,
    life: Rc<Life>,
    wreck: Rc<RefCell<Option<Duty<D>>>>,
}

impl<D: Dependency> Execution<D> {
    fn new(worker: &Worker<D>, dependency: Rc<D>, work: Work<D>, now: Time) -> Self {
        let Work {
            request,
            context,
            fingerprint,
            duty,
        } = work;
        let timeout = &worker.shared.settings.timeout;
        let attempt = timeout.attempt.map(|span| now.after(span));
        let deadline = match (attempt, context.deadline) {
            (Some(attempt), Some(total)) => Some(attempt.min(total)),
            (one, other) => one.or(other),
        };
        Self {
            future: Some(Box::pin(
                async move { dependency.call(request, &context).await },
            )),
            duty: Some(duty),
            timer: Timer::new(deadline),
            began: now,
            polled: false,
            fingerprint,
            life: Rc::clone(&worker.life),
            wreck: Rc::clone(&worker.wreck),
        }
    }

    /// Ends the call with the dependency's own result.
    fn finish(&mut self, result: Result<D::Response, D::Error>) {
        self.drop_future();
        let Some(mut duty) = self.duty.take() else {
            return;
        };
        if self.life.is_fenced() {
            // Another incarnation has taken over since: this result comes from the past.
            duty.cause = Some(StopCause::Lost);
            return;
        }
        let now = duty.shared.clock.now();
        let verdict = D::classify(result.as_ref());
        let reply = result.map_err(|error| CallError::Failed {
            dependency: Arc::clone(&duty.shared.name),
            error,
        });
        duty.answer(verdict, now, reply);
    }

    fn time_out(&mut self) {
        self.drop_future();
        if let Some(mut duty) = self.duty.take() {
            let now = duty.shared.clock.now();
            let error = CallError::TimedOut {
                dependency: Arc::clone(&duty.shared.name),
                after: now.since(self.began),
                executed: Executed::Maybe,
            };
            duty.answer(timed_out(), now, Err(error));
        }
    }

    /// The call panicked: nobody hears of it before the driver has marked the worker down.
    fn crash(&mut self, panic: PanicReport) {
        self.drop_future();
        let Some(mut duty) = self.duty.take() else {
            return;
        };
        let shared = &duty.shared;
        if let (Some(fingerprint), Some(quarantine)) = (self.fingerprint, &shared.quarantine)
            && let Some(ttl) = quarantine.note(fingerprint, shared.clock.now())
        {
            let kind = EventKind::Quarantined { fingerprint, ttl };
            shared.events.emit(&shared.name, kind);
        }
        self.life.crash(panic.clone());
        duty.poison = Some(panic);
        *self.wreck.borrow_mut() = Some(duty);
    }

    /// Drops the user's future where a panic in it harms nobody else.
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
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(result)) => {
                this.finish(result);
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
        if this.timer.poll(&duty.shared.clock, cx).is_ready() {
            this.time_out();
            return Poll::Ready(());
        }
        let replier = duty.replier.as_ref();
        if replier.is_none_or(|replier| replier.poll_abandoned(cx)) {
            this.drop_future();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// How a worker is driven: it starts asynchronously, and finishes its calls before it stops.
#[derive(Debug)]
pub(crate) struct WorkerManner;

impl<D: Dependency> Manner<Worker<D>> for WorkerManner {
    const DRAINS: bool = true;

    fn poll(
        worker: &mut Worker<D>,
        ctx: &mut Context<Worker<D>>,
        cx: &mut TaskContext<'_>,
        queue_is_empty: bool,
    ) {
        worker.poll_start(cx);
        while let Poll::Ready(Some(())) = worker.in_flight.poll_next_unpin(cx) {
            if worker.life.has_crashed() {
                return;
            }
        }
        if worker.life.is_stopping()
            && queue_is_empty
            && worker.in_flight.is_empty()
            && worker.drained.as_mut().poll(cx).is_ready()
        {
            ctx.stop();
        }
    }
}
