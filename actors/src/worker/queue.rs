//! The queue of a worker. It outlives the worker's incarnations. Jobs in it still end at their
//! deadline, or when their caller goes, while no incarnation runs.
//!
//! The contents of actix's mailbox are not accessible: a call in it could be neither expired nor
//! abandoned while its worker is in backoff. So jobs have a queue of their own, bounded by the
//! bulkhead.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use breakerbox_policy::Time;

use crate::deadline::Timer;
use crate::dependency::Dependency;
use crate::state::Shared;
use crate::supervisor::{DriverQueue, caught};
use crate::sync::LockExt;
use crate::worker::QueuedJob;

/// The jobs that wait for a worker.
pub(crate) struct WorkQueue<D: Dependency> {
    shared: Arc<Shared>,
    /// True if the worker is watched for blocking its thread.
    one_at_a_time: bool,
    /// True if the queue is open and empty; readable without the lock.
    is_idle: AtomicBool,
    inner: Mutex<QueueState<D>>,
}

struct QueueState<D: Dependency> {
    works: VecDeque<QueuedJob<D>>,
    /// Wakes the driver that takes jobs out, once for all jobs pushed until it polls again.
    driver: Option<Waker>,
    /// The earliest deadline of the waiting jobs, with its timer.
    timer: Option<(Time, Timer)>,
    closed: bool,
}

impl<D: Dependency> WorkQueue<D> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            one_at_a_time: shared.settings().workers.stuck_after.is_some(),
            shared,
            is_idle: AtomicBool::new(true),
            inner: Mutex::new(QueueState {
                works: VecDeque::new(),
                driver: None,
                timer: None,
                closed: false,
            }),
        }
    }

    /// Appends a job. A closed queue drops it instead, which answers its caller.
    pub(crate) fn push(&self, work: QueuedJob<D>) {
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

    /// Returns true if the queue is open and empty; a concurrent push may not be visible yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle.load(Ordering::Relaxed)
    }

    /// Wakes the worker to poll its work.
    pub(crate) fn wake_worker(&self) {
        let driver = self.lock().driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    fn note(&self, inner: &QueueState<D>) {
        let is_idle = !inner.closed && inner.works.is_empty();
        self.is_idle.store(is_idle, Ordering::Relaxed);
    }

    /// Takes all jobs out into an empty batch, or registers the waker for the next push. A worker
    /// that may block gets only the first job: the others must stay where the next incarnation
    /// finds them.
    pub(crate) fn poll_take(
        &self,
        cx: &Context<'_>,
        batch: &mut VecDeque<QueuedJob<D>>,
    ) -> Poll<()> {
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

    /// Puts jobs that were taken out but not begun in front of the newer ones.
    pub(crate) fn put_back(&self, mut batch: VecDeque<QueuedJob<D>>) {
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
            // The registered driver may be a new one, which does not know of these jobs.
            inner.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<D>> {
        // No code that panics runs under the lock.
        self.inner.acquire()
    }

    /// Takes out the jobs that are past their deadline or abandoned.
    fn take_overdue(&self, cx: &Context<'_>, now: Time) -> Vec<QueuedJob<D>> {
        let mut inner = self.lock();
        inner.wake_later(cx);
        let mut overdue = Vec::new();
        let mut index = 0;
        while let Some(work) = inner.works.get(index) {
            let late = work.job.context.deadline.is_some_and(|at| at <= now);
            if late || work.responder.poll_abandoned(cx) {
                overdue.extend(inner.works.remove(index));
            } else {
                index += 1;
            }
        }
        self.note(&inner);
        overdue
    }
}

/// Drops jobs that will not be begun; each answers its caller.
fn discard<D: Dependency>(works: impl IntoIterator<Item = QueuedJob<D>>) {
    for work in works {
        let QueuedJob { job, responder } = work;
        drop(responder);
        disarm(job.request);
    }
}

/// Drops a request and catches its panic: two panics in one unwind abort the process.
fn disarm<T>(request: T) {
    if let Err(panic) = caught(|| drop(request)) {
        tracing::error!(%panic, "a request panicked while it was dropped");
    }
}

impl<D: Dependency> QueueState<D> {
    fn wake_later(&mut self, cx: &Context<'_>) {
        match &mut self.driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    fn first_deadline(&self) -> Option<Time> {
        self.works
            .iter()
            .filter_map(|work| work.job.context.deadline)
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
        // Each job answers its caller, outside of the lock.
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
                let QueuedJob { job, responder } = work;
                responder.expire(now);
                disarm(job.request);
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
