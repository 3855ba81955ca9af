//! A running worker's hands, lent to callers on its own thread.
//!
//! A call that comes from the worker's own thread is begun in its caller's turn: most calls to
//! what answers at once need no queue, no cell and no second turn then. Whatever does not end at
//! once is handed to the worker, which goes on with it as with everything that came through its
//! queue. The worker owns the value, the life and the wreck all the same: a panic here is its crash,
//! and the driver hears of it before the caller does.

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

use super::{Attempt, Bounds, Duty, Execution, Order, Own, Worker};
use crate::chaos::{Injected, struck};
use crate::deadline;
use crate::dependency::{CallContext, Dependency, Shared, Verdict};
use crate::queue::WorkQueue;
use crate::supervisor::{Life, caught};

/// How many begins may stand in one another on a thread's stack: a dependency that calls itself is
/// bounded by its places, which are more than a stack has room for.
const MAX_NESTED: u32 = 8;

thread_local! {
    /// This thread; asking the standard library each time costs four times as much.
    static HERE: ThreadId = std::thread::current().id();
    /// What the workers of this thread lend.
    static HANDS: RefCell<Slab<Rc<dyn Any>>> = const { RefCell::new(Slab::new()) };
    static NESTED: Cell<u32> = const { Cell::new(0) };
}

/// What it takes to begin a call of one incarnation.
pub(crate) struct Hands<D: Dependency> {
    pub(super) shared: Arc<Shared>,
    pub(super) dependency: Rc<D>,
    pub(super) life: Rc<Life>,
    pub(super) wreck: Rc<RefCell<Option<Duty<D>>>>,
    queue: Arc<WorkQueue<D>>,
    /// Begun by callers; the worker takes them over in its next turn.
    begun: RefCell<Vec<Execution<D>>>,
    /// What the worker has taken out of its queue and not begun.
    backlog: Cell<usize>,
}

/// What the first turn of a call came to.
pub(crate) enum First<D: Dependency> {
    /// It is over, with the dependency's own result and what that counts for.
    Ended(Own<D>, Verdict),
    /// It was made to fail.
    Injected,
    /// It goes on, and somebody has to owe its answer: [`Hands::go_on`].
    Unfinished(Box<Unfinished<D>>),
}

/// A call that the worker has to end.
pub(crate) enum Unfinished<D: Dependency> {
    Pending(Execution<D>),
    Crashed(Execution<D>, PanicReport),
}

impl<D: Dependency> Hands<D> {
    pub(super) fn new(worker: &Worker<D>, dependency: D) -> Self {
        Self {
            shared: Arc::clone(&worker.shared),
            dependency: Rc::new(dependency),
            life: Rc::clone(&worker.life),
            wreck: Rc::clone(&worker.wreck),
            queue: Arc::clone(&worker.queue),
            begun: RefCell::default(),
            backlog: Cell::new(0),
        }
    }

    /// Whether a call may be begun before the worker's next turn: nobody waits for that one, and
    /// the worker will have it.
    fn are_free(&self) -> bool {
        let life = &self.life;
        let is_up = life.is_ready() && !life.has_crashed();
        is_up
            && !(life.is_stopping() || life.is_fenced())
            && self.backlog.get() == 0
            && self.queue.is_idle()
            && NESTED.get() < MAX_NESTED
    }

    /// The user's own future for a call that begins now.
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

    /// Begins a call in its caller's turn. Whoever begins it has its place and its permit.
    pub(crate) fn begin(&self, order: Order<D>, now: Time) -> First<D> {
        let bounds = Bounds::of(self, &order, now);
        let mut attempt = self.attempt(order.request, order.context, now);
        let polled = {
            let _deeper = Deeper::go();
            // Whoever wakes it has the worker look; see `go_on`.
            let mut cx = TaskContext::from_waker(Waker::noop());
            caught(|| deadline::within(bounds.scope, || attempt.as_mut().poll(&mut cx)))
        };
        let panic = match polled {
            Ok(Poll::Pending) => {
                let execution = Execution::begun(self, Some(attempt), bounds);
                return First::Unfinished(Box::new(Unfinished::Pending(execution)));
            }
            Ok(Poll::Ready(ended)) => {
                self.drop_caught(attempt);
                match ended {
                    Err(Injected) => return First::Injected,
                    Ok(result) => match caught(|| D::classify(result.as_ref())) {
                        Ok(verdict) => return First::Ended(result, verdict.judged(&self.shared)),
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
        First::Unfinished(Box::new(Unfinished::Crashed(execution, panic)))
    }

    /// Leaves a call to the worker, which answers for it from now on.
    pub(crate) fn go_on(&self, unfinished: Box<Unfinished<D>>, duty: Duty<D>) {
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

    /// Drops the user's future; a panic in that is the worker's crash, and not this call's.
    fn drop_caught(&self, attempt: Attempt<D>) {
        if let Err(panic) = caught(|| drop(attempt)) {
            self.life.crash(panic);
            self.queue.wake_worker();
        }
    }
}

/// Counts how deep the thread's stack is in calls.
struct Deeper;

impl Deeper {
    fn go() -> Self {
        NESTED.set(NESTED.get() + 1);
        Self
    }
}

impl Drop for Deeper {
    fn drop(&mut self) {
        NESTED.set(NESTED.get() - 1);
    }
}

/// Where a worker's hands are, for callers that come from its thread: only a worker that lives on
/// one thread for all its lives lends them.
#[derive(Debug)]
pub(crate) struct Lent {
    thread: OnceLock<ThreadId>,
    key: AtomicUsize,
}

const NOWHERE: usize = usize::MAX;

impl Default for Lent {
    fn default() -> Self {
        Self {
            thread: OnceLock::new(),
            key: AtomicUsize::new(NOWHERE),
        }
    }
}

impl Lent {
    /// Notes that the worker lives here, in each of its lives.
    pub(crate) fn settle_here(&self) {
        let _ = self.thread.set(HERE.with(|here| *here));
    }

    /// Whether the worker is on the thread that asks.
    pub(crate) fn is_here(&self) -> bool {
        self.thread.get() == Some(&HERE.with(|here| *here))
    }

    pub(super) fn lend<D: Dependency>(&self, hands: &Rc<Hands<D>>) {
        if self.is_here() {
            let hands: Rc<dyn Any> = Rc::<Hands<D>>::clone(hands);
            let key = HANDS.with(|all| all.borrow_mut().insert(hands));
            self.key.store(key, Ordering::Relaxed);
        }
    }

    pub(super) fn take_back(&self) {
        if !self.is_here() {
            return;
        }
        let key = self.key.swap(NOWHERE, Ordering::Relaxed);
        // Dropped only outside of the borrow; a thread that ends has dropped them already.
        let hands = HANDS.try_with(|all| all.borrow_mut().try_remove(key));
        drop(hands);
    }

    /// The hands, where they are on this thread and free.
    #[inline]
    pub(crate) fn hands<D: Dependency>(&self) -> Option<Rc<Hands<D>>> {
        if !self.is_here() {
            return None;
        }
        let key = self.key.load(Ordering::Relaxed);
        let hands = HANDS.with(|all| all.borrow().get(key).cloned())?;
        let hands = hands.downcast::<Hands<D>>().ok()?;
        hands.are_free().then_some(hands)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
