//! A queue of jobs with one driver, and a flag that tells without the lock that no job waits.
//!
//! Every store of the flag is made under the lock, so the flag changes in the order in which the
//! queue does. Relaxed suffices for it: it is one location, and a thread that knows of a push can
//! read no older value than the one that the push stored.
//!
//! `tests/queue_loom.rs` runs the interleavings of this file.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicBool, LockExt, Mutex, MutexGuard, Ordering};

/// Jobs in the order in which they are begun, open or closed.
#[derive(Debug)]
pub(crate) struct JobQueue<J> {
    /// True if the queue is open and empty; readable without the lock.
    is_idle: AtomicBool,
    state: Mutex<QueueState<J>>,
}

#[derive(Debug)]
struct QueueState<J> {
    jobs: VecDeque<J>,
    /// Wakes the driver that takes jobs out, once for all jobs pushed until it polls again.
    driver: Option<Waker>,
    closed: bool,
}

impl<J> JobQueue<J> {
    pub(crate) fn new() -> Self {
        Self {
            is_idle: AtomicBool::new(true),
            state: Mutex::new(QueueState {
                jobs: VecDeque::new(),
                driver: None,
                closed: false,
            }),
        }
    }

    /// Appends a job. A closed queue returns it.
    pub(crate) fn push(&self, job: J) -> Result<(), J> {
        self.add(job, |jobs, job| jobs.push_back(job))
    }

    /// Puts jobs that were taken out but not begun in front of the newer ones. A closed queue
    /// returns them.
    pub(crate) fn put_back(&self, batch: VecDeque<J>) -> Result<(), VecDeque<J>> {
        // The registered driver may be a new one, which does not know of these jobs.
        self.add(batch, |jobs, mut batch| {
            batch.append(jobs);
            *jobs = batch;
        })
    }

    /// Adds jobs and wakes the driver, unless the queue is closed.
    fn add<T>(&self, new: T, add: impl FnOnce(&mut VecDeque<J>, T)) -> Result<(), T> {
        let driver = {
            let mut state = self.lock();
            if state.closed {
                return Err(new);
            }
            add(&mut state.jobs, new);
            self.note(&state);
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(())
    }

    /// Returns true if the queue is open and empty; a concurrent push may not be visible yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle.load(Ordering::Relaxed)
    }

    /// Wakes the driver to poll its work.
    pub(crate) fn wake_driver(&self) {
        let driver = self.lock().driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Takes jobs out into an empty batch, the first or all of them, or registers the waker for the
    /// next push.
    pub(crate) fn poll_take(
        &self,
        cx: &Context<'_>,
        batch: &mut VecDeque<J>,
        one_at_a_time: bool,
    ) -> Poll<()> {
        let mut state = self.lock();
        state.wake_later(cx);
        if state.jobs.is_empty() {
            return Poll::Pending;
        }
        if one_at_a_time {
            batch.extend(state.jobs.pop_front());
        } else {
            std::mem::swap(&mut state.jobs, batch);
        }
        self.note(&state);
        Poll::Ready(())
    }

    /// Takes out the jobs for which `is_over` returns true, and registers the waker. It is called
    /// under the lock.
    pub(crate) fn take_if(&self, cx: &Context<'_>, is_over: impl Fn(&J) -> bool) -> Vec<J> {
        let mut state = self.lock();
        state.wake_later(cx);
        let mut over = Vec::new();
        let mut index = 0;
        while let Some(job) = state.jobs.get(index) {
            if is_over(job) {
                over.extend(state.jobs.remove(index));
            } else {
                index += 1;
            }
        }
        self.note(&state);
        over
    }

    /// Returns the smallest value of the waiting jobs, called under the lock.
    pub(crate) fn min_of<T: Ord>(&self, value: impl Fn(&J) -> Option<T>) -> Option<T> {
        self.lock().jobs.iter().filter_map(value).min()
    }

    pub(crate) fn open(&self) {
        let mut state = self.lock();
        state.closed = false;
        self.note(&state);
    }

    /// Takes all jobs out.
    pub(crate) fn clear(&self) -> VecDeque<J> {
        self.empty(&mut self.lock())
    }

    /// Takes all jobs out, and accepts no more.
    pub(crate) fn close(&self) -> VecDeque<J> {
        let mut state = self.lock();
        state.closed = true;
        self.empty(&mut state)
    }

    fn empty(&self, state: &mut QueueState<J>) -> VecDeque<J> {
        let jobs = std::mem::take(&mut state.jobs);
        self.note(state);
        jobs
    }

    /// Stores the flag. Called under the lock, after each change.
    fn note(&self, state: &QueueState<J>) {
        let is_idle = !state.closed && state.jobs.is_empty();
        self.is_idle.store(is_idle, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<J>> {
        // No code that panics runs under the lock.
        self.state.acquire()
    }
}

impl<J> QueueState<J> {
    fn wake_later(&mut self, cx: &Context<'_>) {
        match &mut self.driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }
}
