//! The queue of a worker. It outlives the worker's incarnations. Jobs in it still end at their
//! deadline, or when their caller goes, while no incarnation runs.
//!
//! The contents of actix's mailbox are not accessible: a call in it could be neither expired nor
//! abandoned while its worker is in backoff. So jobs have a queue of their own, bounded by the
//! bulkhead.

mod job_queue;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use breakerbox_policy::Time;

use crate::deadline::Timer;
use crate::dependency::Dependency;
use crate::state::Shared;
use crate::supervisor::{DriverQueue, caught};
use crate::sync::LockExt;
use crate::worker::QueuedJob;
use job_queue::JobQueue;

/// The jobs that wait for a worker.
pub(crate) struct WorkQueue<D: Dependency> {
    shared: Arc<Shared>,
    /// True if the worker is watched for blocking its thread.
    one_at_a_time: bool,
    jobs: JobQueue<QueuedJob<D>>,
    /// The earliest deadline of the waiting jobs, with its timer; only the driver takes this lock.
    timer: Mutex<Option<(Time, Timer)>>,
}

impl<D: Dependency> WorkQueue<D> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            one_at_a_time: shared.settings().workers.stuck_after.is_some(),
            shared,
            jobs: JobQueue::new(),
            timer: Mutex::default(),
        }
    }

    /// Appends a job. A closed queue drops it instead, which answers its caller.
    pub(crate) fn push(&self, work: QueuedJob<D>) {
        if let Err(work) = self.jobs.push(work) {
            discard([work]);
        }
    }

    /// Returns true if the queue is open and empty; a concurrent push may not be visible yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_idle()
    }

    /// Wakes the worker to poll its work.
    pub(crate) fn wake_worker(&self) {
        self.jobs.wake_driver();
    }

    /// Takes all jobs out into an empty batch, or registers the waker for the next push. A worker
    /// that may block gets only the first job: the others must stay where the next incarnation
    /// finds them.
    pub(crate) fn poll_take(
        &self,
        cx: &Context<'_>,
        batch: &mut VecDeque<QueuedJob<D>>,
    ) -> Poll<()> {
        self.jobs.poll_take(cx, batch, self.one_at_a_time)
    }

    /// Puts jobs that were taken out but not begun in front of the newer ones.
    pub(crate) fn put_back(&self, batch: VecDeque<QueuedJob<D>>) {
        if batch.is_empty() {
            return;
        }
        if let Err(batch) = self.jobs.put_back(batch) {
            discard(batch);
        }
    }

    /// Takes no more jobs, and passes those that wait on to another worker.
    pub(crate) fn close_into(&self, other: &Self) {
        for work in self.jobs.close() {
            other.push(work);
        }
    }

    /// Takes out the jobs that are past their deadline or abandoned.
    fn take_overdue(&self, cx: &Context<'_>, now: Time) -> Vec<QueuedJob<D>> {
        self.jobs.take_if(cx, |work| {
            let late = work.job.context.deadline.is_some_and(|at| at <= now);
            late || work.responder.poll_abandoned(cx)
        })
    }
}

/// Drops jobs that will not be begun; each answers its caller.
fn discard<D: Dependency>(works: impl IntoIterator<Item = QueuedJob<D>>) {
    for work in works {
        let QueuedJob { job, responder } = work;
        drop(responder);
        drop_request_caught(job.request);
    }
}

/// Drops a request and catches its panic: two panics in one unwind abort the process.
fn drop_request_caught<T>(request: T) {
    if let Err(panic) = caught(|| drop(request)) {
        tracing::error!(%panic, "a request panicked while it was dropped");
    }
}

impl<D: Dependency> DriverQueue for WorkQueue<D> {
    fn open(&self) {
        self.jobs.open();
    }

    fn clear(&self) {
        // Each job answers its caller, outside of the lock.
        discard(self.jobs.clear());
    }

    fn close(&self) {
        discard(self.jobs.close());
    }

    fn poll_idle(&self, cx: &mut Context<'_>) {
        loop {
            let now = self.shared.clock.now();
            for work in self.take_overdue(cx, now) {
                let QueuedJob { job, responder } = work;
                responder.expire(now, job.deadline_limit);
                drop_request_caught(job.request);
            }
            let first = self.jobs.min_of(|work| work.job.context.deadline);
            let mut timer = self.timer.acquire();
            let Some(first) = first else {
                *timer = None;
                return;
            };
            if timer.as_ref().is_none_or(|(at, _)| *at != first) {
                *timer = Some((first, Timer::new(Some(first))));
            }
            let due = timer
                .as_mut()
                .is_some_and(|(_, timer)| timer.poll(&self.shared.clock, cx).is_ready());
            if !due {
                return;
            }
            *timer = None;
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
