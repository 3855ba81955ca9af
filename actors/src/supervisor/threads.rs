//! The threads that actors run on.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use actix::{Arbiter, ArbiterHandle, System};

use crate::sync::LockExt;

/// A thread that can run actors.
#[derive(Debug, Clone)]
pub(crate) enum ThreadHandle {
    /// The thread that calls `spawn`.
    Here,
    /// One of the runtime's other threads.
    Arbiter(ArbiterHandle),
    /// A thread for one future, which ends with it.
    Own(ArbiterHandle),
}

/// Guard that stops a dedicated thread when its only future has ended or is dropped.
struct LastOne(ArbiterHandle);

impl Drop for LastOne {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl ThreadHandle {
    /// Makes a future on that thread and runs it there.
    pub(crate) fn spawn<F>(&self, make: impl FnOnce() -> F + Send + 'static) -> Result<(), String>
    where
        F: Future<Output = ()> + 'static,
    {
        match self {
            Self::Here => {
                tokio::task::spawn_local(make());
                Ok(())
            }
            Self::Arbiter(arbiter) => run_on(arbiter, make),
            Self::Own(arbiter) => {
                let last_one = LastOne(arbiter.clone());
                run_on(arbiter, move || {
                    let only = make();
                    async move {
                        let _last_one = last_one;
                        only.await;
                    }
                })
            }
        }
    }
}

fn run_on<F>(
    arbiter: &ArbiterHandle,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<(), String>
where
    F: Future<Output = ()> + 'static,
{
    let run = move || {
        tokio::task::spawn_local(make());
    };
    if arbiter.spawn_fn(run) {
        Ok(())
    } else {
        Err("its thread is gone".to_owned())
    }
}

/// The runtime's threads.
#[derive(Debug, Clone)]
pub(crate) struct Threads {
    shared: Arc<[ThreadHandle]>,
    made: Arc<Mutex<ThreadTable>>,
}

/// The threads made by the runtime, by number from 1.
#[derive(Debug, Default)]
struct ThreadTable {
    last: u64,
    arbiters: BTreeMap<u64, Arbiter>,
    abandoned: usize,
}

impl Threads {
    /// Collects the current thread, `more` new ones, and the `given` ones, which their owner stops.
    ///
    /// # Errors  A new thread is needed, and no actix system runs.
    pub(crate) fn new(more: usize, given: Vec<ArbiterHandle>) -> Result<Self, String> {
        let threads = Self {
            shared: Arc::from([ThreadHandle::Here]),
            made: Arc::default(),
        };
        let mut shared = vec![ThreadHandle::Here];
        for _ in 0..more {
            shared.push(ThreadHandle::Arbiter(threads.thread()?.1));
        }
        shared.extend(given.into_iter().map(ThreadHandle::Arbiter));
        Ok(Self {
            shared: shared.into(),
            ..threads
        })
    }

    /// Returns the thread of the n-th actor among those that share the runtime's threads.
    pub(crate) fn shared(&self, index: usize) -> ThreadHandle {
        self.shared[index % self.shared.len()].clone()
    }

    /// Makes a new thread for one future, and returns it with its number.
    pub(crate) fn dedicated(&self) -> Result<(u64, ThreadHandle), String> {
        let (number, arbiter) = self.thread()?;
        Ok((number, ThreadHandle::Own(arbiter)))
    }

    fn thread(&self) -> Result<(u64, ArbiterHandle), String> {
        if !System::is_registered() {
            return Err(
                "a thread of its own needs a running actix system; start the program with \
                 #[actix::main] or let the runtime make its own system"
                    .to_owned(),
            );
        }
        let arbiter = Arbiter::try_new().map_err(|error| error.to_string())?;
        let handle = arbiter.handle();
        let mut made = self.lock();
        made.last += 1;
        let number = made.last;
        made.arbiters.insert(number, arbiter);
        Ok((number, handle))
    }

    /// Gives up a blocked thread: it ends once it is no longer blocked, and is not joined.
    pub(crate) fn abandon(&self, number: u64) {
        let mut made = self.lock();
        if let Some(arbiter) = made.arbiters.remove(&number) {
            arbiter.stop();
            made.abandoned += 1;
        }
    }

    /// Returns the number of threads that were given up.
    pub(crate) fn abandoned(&self) -> usize {
        self.lock().abandoned
    }

    /// Stops the threads made by the runtime, and returns them to be joined.
    pub(crate) fn stop(&self) -> Vec<Arbiter> {
        let made = std::mem::take(&mut self.lock().arbiters);
        for arbiter in made.values() {
            arbiter.stop();
        }
        made.into_values().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ThreadTable> {
        self.made.acquire()
    }
}
