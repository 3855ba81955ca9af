//! Inline execution: a caller on the worker's thread runs the first poll of its call itself.
//!
//! Most calls to a dependency that answers at once then need no queue, no reply cell and no second
//! poll. A call that is pending after its first poll is handed to the worker, which continues it
//! like a call from its queue. The worker still owns the value, the incarnation and the crashed
//! call: a panic here is a crash of the worker, and the driver learns of it before the caller does.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread::ThreadId;

use breakerbox_policy::Time;
use breakerbox_policy::supervision::PanicReport;
use slab::Slab;

use super::execution::ProlongedAttempt;
use super::{Attempt, CallBounds, Execution, Reply, Responder, Worker, WorkerJob};
use crate::deadline;
use crate::dependency::{CallContext, Dependency};
use crate::limits::chaos::{InjectedFailure, apply_fault};
use crate::state::Shared;
use crate::supervisor::{Incarnation, caught};
use crate::verdict::{AttemptError, Verdict};
use crate::worker::queue::WorkQueue;
use crate::worker::reply::ReplyReceiver;

/// Maximum nesting of inline calls. Without it, a dependency that calls itself is limited by
/// `max_concurrent` alone, which may allow more than a stack holds.
const MAX_NESTED: u32 = 8;

thread_local! {
    /// The id of this thread; `std::thread::current` costs four times as much for each read.
    static HERE: ThreadId = std::thread::current().id();
    /// The inline executors of this thread's workers.
    static EXECUTORS: RefCell<Slab<Rc<dyn Any>>> = const { RefCell::new(Slab::new()) };
    static NESTED: Cell<u32> = const { Cell::new(0) };
}

/// The state needed to begin a call of one incarnation.
pub(crate) struct InlineExecutor<D: Dependency> {
    pub(super) shared: Arc<Shared>,
    pub(super) dependency: Rc<D>,
    pub(super) incarnation: Rc<Incarnation>,
    pub(super) crashed_call: Rc<RefCell<Option<Responder<D>>>>,
    queue: Arc<WorkQueue<D>>,
    /// Begun by callers; the worker takes them over in its next poll.
    begun: RefCell<Vec<Execution<D>>>,
    /// Number of jobs that the worker has taken out of its queue and not begun.
    backlog: Cell<usize>,
}

/// Result of the begin of a call.
pub(crate) enum FirstPoll<D: Dependency> {
    /// The attempt has ended in its first poll, and is still to be recorded.
    Ended(Result<D::Response, AttemptError<D::Error>>, Verdict),
    /// A worker answers, and holds the attempt's permits.
    Waits(ReplyReceiver<Reply<D>>),
    /// There is no worker any more.
    Absent,
}

impl<D: Dependency> InlineExecutor<D> {
    pub(super) fn new(worker: &Worker<D>, dependency: D) -> Self {
        Self {
            shared: Arc::clone(&worker.shared),
            dependency: Rc::new(dependency),
            incarnation: Rc::clone(&worker.incarnation),
            crashed_call: Rc::clone(&worker.crashed_call),
            queue: Arc::clone(&worker.queue),
            begun: RefCell::default(),
            backlog: Cell::new(0),
        }
    }

    /// Returns true if a call may begin before the worker's next poll: the worker takes calls, and
    /// no other call waits for that poll.
    fn is_available(&self) -> bool {
        let incarnation = &self.incarnation;
        let is_up = incarnation.is_ready() && !incarnation.has_crashed();
        is_up
            && !(incarnation.is_stopping() || incarnation.is_fenced())
            && self.backlog.get() == 0
            && self.queue.is_idle()
            && NESTED.get() < MAX_NESTED
    }

    /// Makes the user's future for a call that begins at `now`.
    pub(super) fn attempt(
        &self,
        request: D::Request,
        context: CallContext,
        now: Time,
    ) -> Attempt<D> {
        let dependency = Rc::clone(&self.dependency);
        match self.shared.chaos.draw(now) {
            None => Box::pin(async move { Ok(dependency.call(request, &context).await) }),
            Some(fault) => Box::pin(async move {
                apply_fault(&context.shared.clock, fault).await?;
                Ok(dependency.call(request, &context).await)
            }),
        }
    }

    /// Runs the first poll of a call on the caller's stack. A call that is pending, or that has
    /// crashed the worker, is answered by the worker: `make_responder` passes the permits on.
    pub(crate) fn begin(
        &self,
        job: WorkerJob<D>,
        now: Time,
        make_responder: impl FnOnce() -> Option<(Responder<D>, ReplyReceiver<Reply<D>>)>,
    ) -> FirstPoll<D> {
        let bounds = CallBounds::of(&job, now);
        let prolonged = ProlongedAttempt::of(&job);
        let mut attempt = self.attempt(job.request, job.context, now);
        let polled = {
            let _nested = NestingGuard::enter();
            // A wake-up during this poll is not lost: the worker polls the call again.
            let mut cx = TaskContext::from_waker(Waker::noop());
            caught(|| deadline::within(bounds.scope, || attempt.as_mut().poll(&mut cx)))
        };
        let panic = match polled {
            Ok(Poll::Pending) => {
                let mut execution = Execution::begun(self, Some(attempt), bounds);
                execution.prolonged = prolonged;
                return self.hand_to_worker(execution, None, make_responder);
            }
            Ok(Poll::Ready(ended)) => {
                self.drop_caught(attempt);
                match ended {
                    Err(InjectedFailure) => {
                        let verdict = InjectedFailure.verdict();
                        return FirstPoll::Ended(Err(AttemptError::Injected), verdict);
                    }
                    Ok(result) => match caught(|| D::classify(result.as_ref())) {
                        Ok(verdict) => {
                            let verdict = self.shared.judge(verdict);
                            self.shared.clear_suspicion(bounds.fingerprint(), &verdict);
                            let result = result.map_err(AttemptError::Failed);
                            return FirstPoll::Ended(result, verdict);
                        }
                        Err(panic) => panic,
                    },
                }
            }
            Err(panic) => {
                self.drop_caught(attempt);
                panic
            }
        };
        let execution = Execution::begun(self, None, bounds);
        self.hand_to_worker(execution, Some(panic), make_responder)
    }

    /// Passes a call on to the worker, which answers it from then on.
    #[inline(never)]
    fn hand_to_worker(
        &self,
        mut execution: Execution<D>,
        panic: Option<PanicReport>,
        make_responder: impl FnOnce() -> Option<(Responder<D>, ReplyReceiver<Reply<D>>)>,
    ) -> FirstPoll<D> {
        let Some((responder, waiting)) = make_responder() else {
            if let Some(panic) = panic {
                self.incarnation.crash(panic);
                self.queue.wake_worker();
            }
            return FirstPoll::Absent;
        };
        execution.responder = Some(responder);
        match panic {
            None => self.begun.borrow_mut().push(execution),
            Some(panic) => execution.crash(panic),
        }
        self.queue.wake_worker();
        FirstPoll::Waits(waiting)
    }

    pub(super) fn take_begun(&self) -> Vec<Execution<D>> {
        std::mem::take(&mut self.begun.borrow_mut())
    }

    pub(super) fn set_backlog(&self, waiting: usize) {
        self.backlog.set(waiting);
    }

    /// Drops the user's future; a panic of its destructor is a crash of the worker, not of this
    /// call.
    fn drop_caught(&self, attempt: Attempt<D>) {
        if let Err(panic) = caught(|| drop(attempt)) {
            self.incarnation.crash(panic);
            self.queue.wake_worker();
        }
    }
}

/// Guard that counts the nesting of calls on this thread's stack.
struct NestingGuard;

impl NestingGuard {
    fn enter() -> Self {
        NESTED.set(NESTED.get() + 1);
        Self
    }
}

impl Drop for NestingGuard {
    fn drop(&mut self) {
        NESTED.set(NESTED.get() - 1);
    }
}

/// Handle by which callers on the worker's thread find its inline executor. Only a worker that
/// stays on one thread through all its incarnations registers one.
#[derive(Debug)]
pub(crate) struct InlineHandle {
    thread: OnceLock<ThreadId>,
    key: AtomicUsize,
}

const NOWHERE: usize = usize::MAX;

impl Default for InlineHandle {
    fn default() -> Self {
        Self {
            thread: OnceLock::new(),
            key: AtomicUsize::new(NOWHERE),
        }
    }
}

impl InlineHandle {
    /// Records that the worker runs on this thread in all its incarnations.
    pub(crate) fn settle_here(&self) {
        let _ = self.thread.set(HERE.with(|here| *here));
    }

    /// Returns true if the worker runs on the current thread.
    pub(crate) fn is_here(&self) -> bool {
        self.thread.get() == Some(&HERE.with(|here| *here))
    }

    pub(super) fn register<D: Dependency>(&self, executor: &Rc<InlineExecutor<D>>) {
        if self.is_here() {
            let executor: Rc<dyn Any> = Rc::<InlineExecutor<D>>::clone(executor);
            let key = EXECUTORS.with(|all| all.borrow_mut().insert(executor));
            self.key.store(key, Ordering::Relaxed);
        }
    }

    pub(super) fn unregister(&self) {
        if !self.is_here() {
            return;
        }
        let key = self.key.swap(NOWHERE, Ordering::Relaxed);
        // Dropped outside of the borrow. The thread-local of a thread that exits has dropped it
        // already.
        let executor = EXECUTORS.try_with(|all| all.borrow_mut().try_remove(key));
        drop(executor);
    }

    /// Returns the inline executor if it is on this thread and available.
    #[inline]
    pub(crate) fn executor<D: Dependency>(&self) -> Option<Rc<InlineExecutor<D>>> {
        if !self.is_here() {
            return None;
        }
        let key = self.key.load(Ordering::Relaxed);
        let executor = EXECUTORS.with(|all| all.borrow().get(key).cloned())?;
        let executor = executor.downcast::<InlineExecutor<D>>().ok()?;
        executor.is_available().then_some(executor)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
