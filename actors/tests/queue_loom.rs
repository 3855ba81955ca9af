//! Loom runs the interleavings of a worker's queue: jobs pushed by other threads, the worker that
//! takes them, and the flag by which a caller on the worker's thread begins a call inline.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use loom::sync::Notify;
use loom::sync::atomic::AtomicU32;
use loom::thread;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    pub(crate) trait LockExt<T> {
        fn acquire(&self) -> MutexGuard<'_, T>;
    }

    impl<T> LockExt<T> for Mutex<T> {
        fn acquire(&self) -> MutexGuard<'_, T> {
            self.lock().unwrap()
        }
    }
}

#[path = "../src/worker/queue/job_queue.rs"]
#[allow(
    dead_code,
    reason = "the rest of the module is used by the package itself"
)]
mod job_queue;

use job_queue::JobQueue;
use sync::Ordering;

struct Unblock(Notify);

impl Wake for Unblock {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// The worker: takes jobs, and lets callers on its thread begin inline.
struct Driver {
    queue: Arc<JobQueue<u32>>,
    one_at_a_time: bool,
    begun: Vec<u32>,
}

impl Driver {
    fn new(queue: &Arc<JobQueue<u32>>, one_at_a_time: bool) -> Self {
        Self {
            queue: Arc::clone(queue),
            one_at_a_time,
            begun: Vec::new(),
        }
    }

    /// Begins the jobs that are there; returns false if there are none.
    fn poll(&mut self, waker: &Waker) -> bool {
        let mut batch = VecDeque::new();
        let cx = Context::from_waker(waker);
        let polled = self.queue.poll_take(&cx, &mut batch, self.one_at_a_time);
        self.begun.extend(batch);
        polled.is_ready()
    }

    /// Works until so many jobs have begun. Loom reports a deadlock if one of them is lost.
    fn run(&mut self, count: usize) {
        let unblock = Arc::new(Unblock(Notify::new()));
        let waker = Waker::from(Arc::clone(&unblock));
        while self.begun.len() < count {
            if !self.poll(&waker) {
                unblock.0.wait();
            }
        }
    }
}

#[test]
fn call_6_an_inline_call_overtakes_no_job_pushed_before_it() {
    for one_at_a_time in [false, true] {
        loom::model(move || {
            let queue = Arc::new(JobQueue::new());
            let pushed = Arc::new(AtomicU32::new(0));
            let caller = {
                let (queue, pushed) = (Arc::clone(&queue), Arc::clone(&pushed));
                thread::spawn(move || {
                    for job in 1..=2 {
                        queue.push(job).unwrap();
                        pushed.store(job, Ordering::Release);
                    }
                })
            };
            let mut driver = Driver::new(&queue, one_at_a_time);
            for _ in 0..2 {
                driver.poll(Waker::noop());
                let before = pushed.load(Ordering::Acquire);
                if queue.is_idle() {
                    let begun = driver.begun.last().copied().unwrap_or(0);
                    assert!(begun >= before, "job {before} waits");
                }
            }
            caller.join().unwrap();
            while driver.poll(Waker::noop()) {
                assert!(one_at_a_time || queue.is_idle());
            }
            assert!(queue.is_idle(), "the next call begins inline");
            assert_eq!(driver.begun, [1, 2]);
        });
    }
}

#[test]
fn call_1_a_job_pushed_while_the_worker_goes_idle_wakes_it() {
    for one_at_a_time in [false, true] {
        loom::model(move || {
            let queue = Arc::new(JobQueue::new());
            let worker = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    let mut driver = Driver::new(&queue, one_at_a_time);
                    driver.run(2);
                    assert!(queue.is_idle());
                    driver.begun
                })
            };
            queue.push(1).unwrap();
            queue.push(2).unwrap();
            assert_eq!(worker.join().unwrap(), [1, 2]);
        });
    }
}

#[test]
fn call_1_a_job_put_back_by_the_last_incarnation_is_begun_first() {
    loom::model(|| {
        let queue = Arc::new(JobQueue::new());
        queue.push(1).unwrap();
        let mut last = Driver::new(&queue, false);
        assert!(last.poll(Waker::noop()));
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut driver = Driver::new(&queue, false);
                driver.run(2);
                driver.begun
            })
        };
        queue.put_back(VecDeque::from(last.begun)).unwrap();
        assert!(queue.push(2).is_ok());
        assert_eq!(worker.join().unwrap(), [1, 2]);
        assert!(queue.is_idle());
    });
}

#[test]
fn call_1_a_job_pushed_while_the_queue_closes_is_returned_once() {
    loom::model(|| {
        let queue = Arc::new(JobQueue::new());
        let caller = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.push(1).err())
        };
        let closed = queue.close();
        assert!(!queue.is_idle(), "no call begins inline");
        let refused = caller.join().unwrap();
        assert_eq!(closed.into_iter().chain(refused).collect::<Vec<_>>(), [1]);
        assert!(!queue.is_idle());
        queue.open();
        assert!(queue.is_idle());
        assert_eq!(queue.push(2), Ok(()));
        assert!(!queue.is_idle());
    });
}
