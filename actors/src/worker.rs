//! The worker actor: executes calls under a permit, one incarnation of the user's dependency at a
//! time.
//!
//! It never decides whether a call may go out, and it never outlives a panic: the driver drops it
//! and the factory makes a new one.

pub(crate) mod inline;

mod value_end;

pub(crate) mod queue;

pub(crate) mod reply;

mod execution;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use actix::{Actor, ActorContext, Context};
use breakerbox_policy::supervision::{PanicReport, StopCause};
use breakerbox_policy::{Class, Executed, Ticket, Time};
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::attempt_progress::AttemptProgress;
use crate::call::failed_attempt::FailedAttempt;
use crate::deadline::CallScope;
use crate::dependency::{CallContext, Dependency};
use crate::error::CallError;
use crate::state::{Route, Shared};
use crate::supervisor::{DriverQueue, Incarnation, PollHook, Readiness, caught};
use crate::time_limit::TimeLimit;
use crate::verdict::Verdict;
use crate::worker::inline::{InlineExecutor, InlineHandle};
use crate::worker::queue::WorkQueue;
use crate::worker::reply::{BeginDecision, ReplySender};
use execution::{Attempt, CallBounds, Execution};
use value_end::ValueEnd;

/// The result of an attempt: its answer, and whether that is a success.
pub(crate) type Reply<D> = Result<
    (<D as Dependency>::Response, bool),
    Box<FailedAttempt<<D as Dependency>::Response, <D as Dependency>::Error>>,
>;

/// One attempt on its way to a worker, with its permit and its bulkhead slot.
///
/// However it is dropped, its caller is answered (rule CALL-1).
pub(crate) struct QueuedJob<D: Dependency> {
    pub(crate) job: WorkerJob<D>,
    pub(crate) responder: Responder<D>,
}

/// The request to execute, with its limits.
pub(crate) struct WorkerJob<D: Dependency> {
    pub(crate) request: D::Request,
    pub(crate) context: CallContext,
    /// The limit that the deadline of its context is of.
    pub(crate) deadline_limit: TimeLimit,
    /// Progress from which the limit of the attempt counts.
    pub(crate) progress: Option<AttemptProgress>,
    /// Conditions of the calls that it makes.
    pub(crate) scope: CallScope,
}

/// The obligation to answer a caller, and to give its bulkhead slot back.
pub(crate) struct Responder<D: Dependency> {
    replier: Option<ReplySender<Reply<D>>>,
    /// The bulkhead slot, held until the work has ended, even if the caller is gone.
    slot: Option<Ticket>,
    /// Cause of the end of the incarnation that began the work.
    cause: Option<StopCause>,
    /// The panic, if this call is the one that panicked.
    poison: Option<PanicReport>,
}

impl<D: Dependency> Responder<D> {
    /// Makes a responder that takes over a slot, given up by `into_ticket`.
    pub(crate) fn new(replier: ReplySender<Reply<D>>, slot: Ticket) -> Self {
        Self {
            replier: Some(replier),
            slot: Some(slot),
            cause: None,
            poison: None,
        }
    }

    /// Starts the work; returns false if it must not begin.
    fn begin(&mut self, now: Time) -> bool {
        let begin = match &self.replier {
            Some(replier) => replier.begin(now),
            None => BeginDecision::CallerGone,
        };
        match begin {
            BeginDecision::Go => return true,
            BeginDecision::CallerGone => self.forget(),
            BeginDecision::BreakerChanged(refused) => self.refuse(|_| CallError::Open(refused)),
            BeginDecision::Paused(pause) => self.refuse(|shared| shared.paused(pause, now)),
        }
        false
    }

    /// Gives slot and permit back: the work is not begun.
    fn refuse(&mut self, why: impl FnOnce(&Shared) -> CallError<D::Error>) {
        self.release_slot();
        if let Some(replier) = self.replier.take() {
            let shared = replier.shared();
            let failed = FailedAttempt::by_worker(shared, why(shared));
            replier.refuse(Err(failed));
        }
    }

    /// Gives the slot back without an answer: the caller is gone.
    fn forget(&mut self) {
        self.release_slot();
        self.replier = None;
    }

    /// Returns true if the caller is gone; else the worker is woken when it goes.
    pub(crate) fn poll_abandoned(&self, cx: &TaskContext<'_>) -> bool {
        let replier = self.replier.as_ref();
        replier.is_none_or(|replier| replier.poll_abandoned(cx))
    }

    fn release_slot(&mut self) {
        if let Some(replier) = &self.replier
            && let Some(slot) = self.slot.take()
        {
            replier.shared().bulkhead.release(slot);
        }
    }

    fn answer(mut self, verdict: Verdict, now: Time, reply: Reply<D>) {
        // The slot first: a caller that gets the answer may call again at once.
        self.release_slot();
        if let Some(replier) = self.replier.take() {
            replier.settle(verdict, now, reply);
        }
    }

    /// Ends work that was not begun before its deadline. `limit`: what that is of.
    pub(crate) fn expire(self, now: Time, limit: TimeLimit) {
        let Some(replier) = &self.replier else {
            return;
        };
        if replier.shared().lacks_worker_for_a_cause() {
            let mut own = self;
            return own.refuse(|shared| shared.not_executed(shared.absence(), None));
        }
        let after = replier.waited(now);
        let verdict = replier.shared().timed_out(limit);
        self.time_out(now, (limit, after), (Executed::No, verdict));
    }

    /// Ends a call that has run out of time.
    pub(crate) fn time_out(
        self,
        now: Time,
        exceeded: (TimeLimit, Duration),
        (executed, verdict): (Executed, Verdict),
    ) {
        let Some(replier) = &self.replier else {
            return;
        };
        let shared = replier.shared();
        let error = CallError::timed_out(Arc::clone(&shared.name), exceeded, executed);
        self.answer(verdict, now, Err(FailedAttempt::failed(error, &verdict)));
    }

    /// The error of a begun call after its worker was lost.
    fn error_after_end(&mut self, dependency: Arc<str>) -> CallError<D::Error> {
        if let Some(panic) = self.poison.take() {
            return CallError::WorkerCrashed { dependency, panic };
        }
        CallError::Interrupted {
            dependency,
            cause: self.cause.take().unwrap_or(StopCause::Killed),
        }
    }
}

impl<D: Dependency> Drop for Responder<D> {
    fn drop(&mut self) {
        self.release_slot();
        let Some(replier) = self.replier.take() else {
            return;
        };
        let shared = Arc::clone(replier.shared());
        if replier.has_begun() {
            // A crash counts as one failure for each call that it ended.
            let error = self.error_after_end(Arc::clone(&shared.name));
            replier.settle(
                Verdict::from(Class::Failure),
                shared.clock.now(),
                Err(FailedAttempt::by_worker(&shared, error)),
            );
        } else {
            let error = shared.not_executed(shared.absence(), None);
            replier.refuse(Err(FailedAttempt::by_worker(&shared, error)));
        }
    }
}

/// Makes the dependency of one incarnation; asynchronous, and may fail.
pub(crate) type Factory<D> = Arc<dyn Fn() -> StartFuture<D> + Send + Sync>;
pub(crate) type StartFuture<D> = Pin<Box<dyn Future<Output = Result<D, String>>>>;

/// One incarnation of a worker.
pub(crate) struct Worker<D: Dependency> {
    shared: Arc<Shared>,
    queue: Arc<WorkQueue<D>>,
    incarnation: Rc<Incarnation>,
    stage: WorkerStage<D>,
    in_flight: FuturesUnordered<Execution<D>>,
    /// The ends of the value other than a crash.
    ending: ValueEnd,
    /// The time at which the value was made.
    begun: Time,
    /// Taken out of the queue, but not begun.
    batch: VecDeque<QueuedJob<D>>,
    /// The call that panicked, kept until the driver has marked this worker down.
    crashed_call: Rc<RefCell<Option<Responder<D>>>>,
    /// Where callers on the worker's thread find its inline executor.
    inline: Arc<InlineHandle>,
    drained: Pin<Box<dyn Future<Output = ()>>>,
}

enum WorkerStage<D: Dependency> {
    Starting(StartFuture<D>),
    Running(Rc<InlineExecutor<D>>),
    Gone,
}

impl<D: Dependency> Worker<D> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Arc<WorkQueue<D>>,
        inline: Arc<InlineHandle>,
        factory: &Factory<D>,
        incarnation: &Rc<Incarnation>,
    ) -> Self {
        incarnation.set_readiness(Readiness::Starting);
        let drained = drained(Arc::clone(&shared));
        Self {
            shared,
            queue,
            incarnation: Rc::clone(incarnation),
            stage: WorkerStage::Starting(factory()),
            in_flight: FuturesUnordered::new(),
            ending: ValueEnd::default(),
            begun: Time::ZERO,
            batch: VecDeque::new(),
            crashed_call: Rc::default(),
            inline,
            drained: Box::pin(drained),
        }
    }

    fn poll_start(&mut self, cx: &mut TaskContext<'_>) {
        let WorkerStage::Starting(start) = &mut self.stage else {
            return;
        };
        match start.as_mut().poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(dependency)) => {
                let inline = Rc::new(InlineExecutor::new(self, dependency));
                self.ending = ValueEnd::of(&inline.dependency);
                self.begun = self.shared.clock.now();
                self.inline.register(&inline);
                self.stage = WorkerStage::Running(inline);
                self.incarnation.set_readiness(Readiness::Ready);
            }
            Poll::Ready(Err(why)) => {
                self.stage = WorkerStage::Gone;
                self.incarnation
                    .set_readiness(Readiness::Failed(StopCause::Failed(why)));
            }
        }
    }
}

impl<D: Dependency> Worker<D> {
    /// Returns true if the value has declared its end: this incarnation is then over.
    fn poll_ended(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let Some(why) = self.ending.poll_ended(cx) else {
            return false;
        };
        self.take_begun();
        self.suspect_calls();
        // Polls the calls in flight once more: their own results say more than `Interrupted`.
        while let Poll::Ready(Some(())) = self.in_flight.poll_next_unpin(cx) {}
        let failed = Readiness::Failed(StopCause::Failed(why));
        self.incarnation.set_readiness(failed);
        true
    }

    /// Notes the calls in flight, of which one may have ended the value.
    fn suspect_calls(&self) {
        let Some(quarantine) = &self.shared.quarantine else {
            return;
        };
        // SUP-6: a call that was alone is the one; of several any may be, until it is answered.
        let is_alone = !quarantine.take_other(self.begun) && self.in_flight.len() == 1;
        // One crash is one, however many calls of this fingerprint were in flight.
        let in_flight = self.in_flight.iter().filter_map(Execution::fingerprint);
        for fingerprint in BTreeSet::from_iter(in_flight) {
            let refused = quarantine.suspect(fingerprint, is_alone, self.shared.clock.now());
            self.shared.tell_quarantined(fingerprint, refused);
        }
    }

    /// Shuts the value down. Calls that arrive meanwhile wait for the next incarnation.
    fn poll_close(&mut self, ctx: &mut Context<Self>, cx: &mut TaskContext<'_>) {
        if let WorkerStage::Running(inline) = &self.stage
            && self.ending.poll_close(&inline.dependency, cx).is_ready()
            // Before its turn, its end would be one that nothing asked for.
            && self.incarnation.is_stopping()
        {
            ctx.stop();
        }
    }

    /// Returns true if the value is to be shut down now.
    fn is_to_close(&mut self, queue_is_empty: bool, cx: &mut TaskContext<'_>) -> bool {
        // SUP-7: in a shutdown all values are closed at the same time. The actors stop one by one
        // afterwards, which would take as long as all that are slow to close together.
        if !self.incarnation.is_stopping() && !self.shared.drains_with_others() {
            return false;
        }
        // SUP-7: after the drain, it ends with what is still at work.
        let is_over = self.incarnation.is_stopping() && self.shared.route() == Route::Stopped;
        is_over
            || queue_is_empty
                && self.in_flight.is_empty()
                && self.drained.as_mut().poll(cx).is_ready()
    }
}

/// Resolves when the dependency as a whole is not draining, or no work is left that could call it:
/// its own calls, and during a shutdown those of all others.
pub(crate) async fn drained(shared: Arc<Shared>) {
    loop {
        let told = shared.drained.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if shared.route() != Route::Draining {
            return;
        }
        // CALL-10: a dependency ends when no accepted work is left, or the drain is over.
        let Some(busy) = shared.first_pending() else {
            return;
        };
        let ended = busy.drained.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if busy.is_pending() {
            tokio::select! {
                () = told => {}
                () = ended => {}
            }
        }
    }
}

impl<D: Dependency> Drop for Worker<D> {
    fn drop(&mut self) {
        self.inline.unregister();
        self.queue.put_back(std::mem::take(&mut self.batch));
        self.ending.drop_futures(&self.incarnation);
        // Moves them to the calls in flight, where the panic of each destructor is caught.
        self.take_begun();
        let stage = std::mem::replace(&mut self.stage, WorkerStage::Gone);
        // The user's destructors run one at a time: two panics in one unwind abort the process.
        if let Err(panic) = caught(|| drop(stage)) {
            self.incarnation.note_second_panic(panic);
        }
    }
}

impl<D: Dependency> Actor for Worker<D> {
    type Context = Context<Self>;
}

impl<D: Dependency> Unpin for Worker<D> {}

/// Maximum number of calls begun in one poll, so that other tasks of the thread get a turn.
const BURST: u32 = 32;

impl<D: Dependency> Worker<D> {
    /// Begins the queued calls; returns true when the queue is empty.
    fn poll_queue(&mut self, cx: &mut TaskContext<'_>) -> bool {
        for _ in 0..BURST {
            if self.incarnation.has_crashed() || self.incarnation.is_fenced() {
                return false;
            }
            match self.batch.pop_front() {
                Some(work) => self.begin(work),
                None if self.queue.poll_take(cx, &mut self.batch).is_ready() => {}
                None => return true,
            }
        }
        cx.waker().wake_by_ref();
        false
    }

    fn is_running(&self) -> bool {
        matches!(self.stage, WorkerStage::Running(_))
    }

    /// Takes over the calls that were begun inline, and tells inline callers the size of the
    /// backlog.
    fn take_begun(&mut self) {
        if let WorkerStage::Running(inline) = &self.stage {
            inline.set_backlog(self.batch.len());
            self.in_flight.extend(inline.take_begun());
        }
    }

    /// Polls the calls in flight. Returns true if one of them has crashed the worker.
    fn poll_in_flight(&mut self, cx: &mut TaskContext<'_>) -> bool {
        self.take_begun();
        while let Poll::Ready(Some(())) = self.in_flight.poll_next_unpin(cx) {
            if self.incarnation.has_crashed() {
                return true;
            }
        }
        false
    }

    fn begin(&mut self, mut work: QueuedJob<D>) {
        let WorkerStage::Running(inline) = &self.stage else {
            return;
        };
        let now = self.shared.clock.now();
        if work
            .job
            .context
            .deadline
            .is_some_and(|deadline| deadline <= now)
        {
            work.responder.expire(now, work.job.deadline_limit);
            return;
        }
        if !work.responder.begin(now) {
            return;
        }
        let mut execution = Execution::new(inline, work, now);
        // Many calls end at their first poll; only the others are worth an entry in the set.
        let mut cx = TaskContext::from_waker(Waker::noop());
        if Pin::new(&mut execution).poll(&mut cx).is_pending() {
            self.in_flight.push(execution);
        }
    }
}

/// The poll hook of a worker: it starts asynchronously, and finishes its calls before it stops.
#[derive(Debug)]
pub(crate) struct WorkerPollHook;

impl<D: Dependency> PollHook<Worker<D>> for WorkerPollHook {
    const DRAINS: bool = true;

    fn poll(worker: &mut Worker<D>, ctx: &mut Context<Worker<D>>, cx: &mut TaskContext<'_>) {
        if !worker.is_running() {
            // Calls begin only in the next poll, after the driver has reported the start: otherwise
            // a panic in the first call would count as a failed start.
            worker.poll_start(cx);
            worker.queue.poll_idle(cx);
            return;
        }
        if worker.ending.is_closing() {
            return worker.poll_close(ctx, cx);
        }
        // The calls in flight first: one that was given up may have been the last that the value
        // stands, and its caller may have sent the next one already.
        if worker.poll_in_flight(cx) || worker.poll_ended(cx) {
            return;
        }
        let queue_is_empty = worker.poll_queue(cx);
        if worker.poll_in_flight(cx) {
            return;
        }
        if worker.is_to_close(queue_is_empty, cx) {
            worker.inline.unregister();
            worker.poll_close(ctx, cx);
        }
    }
}
