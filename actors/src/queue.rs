//! A worker's queue. It outlives the worker's incarnations; what waits in it still ends at its
//! deadline, and with its caller, while no incarnation runs.
//!
//! actix's mailbox cannot be looked into: a call that waits there for a worker in backoff could
//! be neither expired nor given up. So work has a queue of its own, bounded by the bulkhead.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use breakerbox_policy::Time;

use crate::dependency::{Dependency, Shared};
use crate::reply::Timer;
use crate::supervisor::{DriverQueue, caught};
use crate::worker::Work;

/// Work that waits for a worker.
pub(crate) struct WorkQueue<D: Dependency> {
    shared: Arc<Shared>,
    /// Whether the worker is watched for blocking its thread.
    one_at_a_time: bool,
    /// Whether it is open and nothing waits, for those who would lock it in vain.
    is_idle: AtomicBool,
    inner: Mutex<Inner<D>>,
}

struct Inner<D: Dependency> {
    works: VecDeque<Work<D>>,
    /// Who takes work out; woken once for all that comes until it looks again.
    driver: Option<Waker>,
    /// When the first of those that wait has to be told that its time is over.
    timer: Option<(Time, Timer)>,
    closed: bool,
}

impl<D: Dependency> WorkQueue<D> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            one_at_a_time: shared.settings().workers.stuck_after.is_some(),
            shared,
            is_idle: AtomicBool::new(true),
            inner: Mutex::new(Inner {
                works: VecDeque::new(),
                driver: None,
                timer: None,
                closed: false,
            }),
        }
    }

    /// Puts work at the end; into a closed queue it is not taken, and dropping it answers.
    pub(crate) fn push(&self, work: Work<D>) {
        let driver = {
            let mut inner = self.lock();
            if inner.closed {
                drop(inner);
                discard([work]);
                return;
            }
            inner.works.push_back(work);
            self.note(&inner);
            inner.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Whether it takes work and nothing waits in it; what others put in at this very moment may
    /// not be seen yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle.load(Ordering::Relaxed)
    }

    /// Has the worker look at what it has to do.
    pub(crate) fn wake_worker(&self) {
        let driver = self.lock().driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    fn note(&self, inner: &Inner<D>) {
        let is_idle = !inner.closed && inner.works.is_empty();
        self.is_idle.store(is_idle, Ordering::Relaxed);
    }

    /// Takes everything out, into an empty batch, or notes who is to be woken when there is
    /// something. Only the first one goes to a worker that may block: the others must stay where
    /// the next incarnation finds them.
    pub(crate) fn poll_take(&self, cx: &Context<'_>, batch: &mut VecDeque<Work<D>>) -> Poll<()> {
        let mut inner = self.lock();
        inner.wake_later(cx);
        if inner.works.is_empty() {
            return Poll::Pending;
        }
        if self.one_at_a_time {
            batch.extend(inner.works.pop_front());
        } else {
            std::mem::swap(&mut inner.works, batch);
        }
        self.note(&inner);
        Poll::Ready(())
    }

    /// Puts what was taken out and not begun in front of what has come since.
    pub(crate) fn put_back(&self, mut batch: VecDeque<Work<D>>) {
        if batch.is_empty() {
            return;
        }
        let driver = {
            let mut inner = self.lock();
            if inner.closed {
                drop(inner);
                discard(batch);
                return;
            }
            batch.append(&mut inner.works);
            inner.works = batch;
            self.note(&inner);
            // It may be another driver by now, which knows nothing of this work.
            inner.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<D>> {
        // Nothing that panics runs under the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what need not wait any longer.
    fn take_overdue(&self, cx: &Context<'_>, now: Time) -> Vec<Work<D>> {
        let mut inner = self.lock();
        inner.wake_later(cx);
        let mut overdue = Vec::new();
        let mut index = 0;
        while let Some(work) = inner.works.get(index) {
            let late = work.order.context.deadline.is_some_and(|at| at <= now);
            if late || work.duty.poll_abandoned(cx) {
                overdue.extend(inner.works.remove(index));
            } else {
                index += 1;
            }
        }
        self.note(&inner);
        overdue
    }
}

/// Drops work that will not be begun; each answers its caller.
fn discard<D: Dependency>(works: impl IntoIterator<Item = Work<D>>) {
    for work in works {
        let Work { order, duty } = work;
        drop(duty);
        disarm(order.request);
    }
}

/// Drops a request where a panic in it harms nobody else: two in one unwind abort the process.
fn disarm<T>(request: T) {
    if let Err(panic) = caught(|| drop(request)) {
        tracing::error!(%panic, "a request panicked while it was dropped");
    }
}

impl<D: Dependency> Inner<D> {
    fn wake_later(&mut self, cx: &Context<'_>) {
        match &mut self.driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    fn first_deadline(&self) -> Option<Time> {
        self.works
            .iter()
            .filter_map(|work| work.order.context.deadline)
            .min()
    }
}

impl<D: Dependency> DriverQueue for WorkQueue<D> {
    fn open(&self) {
        let mut inner = self.lock();
        inner.closed = false;
        self.note(&inner);
    }

    fn clear(&self) {
        let works = {
            let mut inner = self.lock();
            let works = std::mem::take(&mut inner.works);
            self.note(&inner);
            works
        };
        // Each answers its caller, outside of the lock.
        discard(works);
    }

    fn close(&self) {
        self.lock().closed = true;
        self.clear();
    }

    fn poll_idle(&self, cx: &mut Context<'_>) {
        loop {
            let now = self.shared.clock.now();
            for work in self.take_overdue(cx, now) {
                let Work { order, duty } = work;
                duty.expire(now);
                disarm(order.request);
            }
            let mut inner = self.lock();
            let Some(first) = inner.first_deadline() else {
                inner.timer = None;
                return;
            };
            if inner.timer.as_ref().is_none_or(|(at, _)| *at != first) {
                inner.timer = Some((first, Timer::new(Some(first))));
            }
            let due = inner
                .timer
                .as_mut()
                .is_some_and(|(_, timer)| timer.poll(&self.shared.clock, cx).is_ready());
            if !due {
                return;
            }
            inner.timer = None;
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
