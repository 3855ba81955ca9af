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

use super::{Attempt, Bounds, Execution, Job, Responder, UserResult, Worker};
use crate::chaos::{Injected, struck};
use crate::deadline;
use crate::dependency::{CallContext, Dependency, Shared, Verdict};
use crate::queue::WorkQueue;
use crate::supervisor::{Incarnation, caught};

/// Maximum nesting of inline calls. Without it, a dependency that calls itself is limited by
/// `max_concurrent` alone, which may allow more than a stack holds.
const MAX_NESTED: u32 = 8;

thread_local! {
    /// The id of this thread; `std::thread::current` costs four times as much for each read.
    static HERE: ThreadId = std::thread::current().id();
    /// The inline executors of this thread's workers.
    static HANDS: RefCell<Slab<Rc<dyn Any>>> = const { RefCell::new(Slab::new()) };
    static NESTED: Cell<u32> = const { Cell::new(0) };
}

/// The state needed to begin a call of one incarnation.
pub(crate) struct InlineExecutor<D: Dependency> {
    pub(super) shared: Arc<Shared>,
    pub(super) dependency: Rc<D>,
    pub(super) life: Rc<Incarnation>,
    pub(super) crashed_call: Rc<RefCell<Option<Responder<D>>>>,
    queue: Arc<WorkQueue<D>>,
    /// Begun by callers; the worker takes them over in its next poll.
    begun: RefCell<Vec<Execution<D>>>,
    /// Number of jobs that the worker has taken out of its queue and not begun.
    backlog: Cell<usize>,
}

/// Result of the first poll of a call.
pub(crate) enum FirstPoll<D: Dependency> {
    /// The call has ended, with the dependency's own result and its verdict.
    Ended(UserResult<D>, Verdict),
    /// A failure was injected.
    Injected,
    /// The call needs a responder to go on: [`InlineExecutor::go_on`].
    Unfinished(Box<Unfinished<D>>),
}

/// A call that the worker has to end.
pub(crate) enum Unfinished<D: Dependency> {
    Pending(Execution<D>),
    Crashed(Execution<D>, PanicReport),
}

impl<D: Dependency> InlineExecutor<D> {
    pub(super) fn new(worker: &Worker<D>, dependency: D) -> Self {
        Self {
            shared: Arc::clone(&worker.shared),
            dependency: Rc::new(dependency),
            life: Rc::clone(&worker.life),
            crashed_call: Rc::clone(&worker.crashed_call),
            queue: Arc::clone(&worker.queue),
            begun: RefCell::default(),
            backlog: Cell::new(0),
        }
    }

    /// Returns true if a call may begin before the worker's next poll: the worker takes calls, and
    /// no other call waits for that poll.
    fn is_available(&self) -> bool {
        let life = &self.life;
        let is_up = life.is_ready() && !life.has_crashed();
        is_up
            && !(life.is_stopping() || life.is_fenced())
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
        match self.shared.strike(now) {
            None => Box::pin(async move { Ok(dependency.call(request, &context).await) }),
            Some(strike) => Box::pin(async move {
                struck(&context.shared, strike).await?;
                Ok(dependency.call(request, &context).await)
            }),
        }
    }

    /// Runs the first poll of a call on the caller's stack. The caller holds its slot and its
    /// permit.
    pub(crate) fn begin(&self, order: Job<D>, now: Time) -> FirstPoll<D> {
        let bounds = Bounds::of(self, &order, now);
        let mut attempt = self.attempt(order.request, order.context, now);
        let polled = {
            let _deeper = NestingGuard::go();
            // A wake-up during this poll is not lost: `go_on` makes the worker poll the call again.
            let mut cx = TaskContext::from_waker(Waker::noop());
            caught(|| deadline::within(bounds.scope, || attempt.as_mut().poll(&mut cx)))
        };
        let panic = match polled {
            Ok(Poll::Pending) => {
                let execution = Execution::begun(self, Some(attempt), bounds);
                return FirstPoll::Unfinished(Box::new(Unfinished::Pending(execution)));
            }
            Ok(Poll::Ready(ended)) => {
                self.drop_caught(attempt);
                match ended {
                    Err(Injected) => return FirstPoll::Injected,
                    Ok(result) => match caught(|| D::classify(result.as_ref())) {
                        Ok(verdict) => {
                            return FirstPoll::Ended(result, verdict.judged(&self.shared));
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
        FirstPoll::Unfinished(Box::new(Unfinished::Crashed(execution, panic)))
    }

    /// Hands a call to the worker, which answers it from then on.
    pub(crate) fn go_on(&self, unfinished: Box<Unfinished<D>>, duty: Responder<D>) {
        match *unfinished {
            Unfinished::Pending(mut execution) => {
                execution.duty = Some(duty);
                self.begun.borrow_mut().push(execution);
            }
            Unfinished::Crashed(mut execution, panic) => {
                execution.duty = Some(duty);
                execution.crash(panic);
            }
        }
        self.queue.wake_worker();
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
            self.life.crash(panic);
            self.queue.wake_worker();
        }
    }
}

/// Guard that counts the nesting of calls on this thread's stack.
struct NestingGuard;

impl NestingGuard {
    fn go() -> Self {
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

    pub(super) fn register<D: Dependency>(&self, hands: &Rc<InlineExecutor<D>>) {
        if self.is_here() {
            let hands: Rc<dyn Any> = Rc::<InlineExecutor<D>>::clone(hands);
            let key = HANDS.with(|all| all.borrow_mut().insert(hands));
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
        let hands = HANDS.try_with(|all| all.borrow_mut().try_remove(key));
        drop(hands);
    }

    /// Returns the inline executor if it is on this thread and available.
    #[inline]
    pub(crate) fn hands<D: Dependency>(&self) -> Option<Rc<InlineExecutor<D>>> {
        if !self.is_here() {
            return None;
        }
        let key = self.key.load(Ordering::Relaxed);
        let hands = HANDS.with(|all| all.borrow().get(key).cloned())?;
        let hands = hands.downcast::<InlineExecutor<D>>().ok()?;
        hands.is_available().then_some(hands)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
