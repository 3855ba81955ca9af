//! The threads that actors run on.
//!
//! Supervisors have the control thread to themselves, with the keepers of breakers; code of users
//! runs on the others, where it may block (rule CALL-9). On a virtual clock all of them are one
//! thread: time stands still while it works, so nothing can be late.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, Weak};

use actix::{Arbiter, ArbiterHandle, System};
use tokio::sync::oneshot;

use crate::sync::LockExt;

thread_local! {
    /// True on a thread that a runtime has made for actors.
    static IS_OF_RUNTIME: Cell<bool> = const { Cell::new(false) };
}

/// Returns true if a runtime has made the current thread.
pub(crate) fn on_runtime_thread() -> bool {
    IS_OF_RUNTIME.get()
}

/// A thread that can run actors.
#[derive(Debug, Clone)]
pub(crate) enum ThreadHandle {
    /// The thread that calls `spawn`.
    Here,
    /// One of the runtime's other threads.
    Arbiter(ArbiterHandle),
    /// A thread for one future, which ends with it.
    Own(OwnArbiter),
}

/// A thread for one future, and its place among the runtime's.
#[derive(Debug, Clone)]
pub(crate) struct OwnArbiter {
    arbiter: ArbiterHandle,
    number: u64,
    /// Weak: a thread keeps none of the others.
    made: Weak<Mutex<ThreadTable>>,
}

/// Guard that stops a dedicated thread when its only future has ended or is dropped.
struct LastOne(OwnArbiter);

impl Drop for LastOne {
    fn drop(&mut self) {
        let OwnArbiter {
            arbiter,
            number,
            made,
        } = &self.0;
        arbiter.stop();
        let Some(made) = made.upgrade() else {
            return;
        };
        let mut made = made.acquire();
        // SUP-7: at the end of the runtime it is joined with the others. Before, one would be kept for
        // each driver that has come and gone.
        if !made.is_ending {
            made.arbiters.remove(number);
        }
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
            Self::Own(own) => {
                let last_one = LastOne(own.clone());
                run_on(&own.arbiter, move || {
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
    control: ThreadHandle,
    shared: Arc<[ThreadHandle]>,
    made: Arc<Mutex<ThreadTable>>,
}

/// The first thread for code of users.
#[derive(Debug)]
pub(crate) enum HomeThread {
    /// The control thread itself, on a virtual clock.
    Control,
    /// A new one.
    New,
    /// One of the program's.
    Program(ArbiterHandle),
}

/// The threads made by the runtime, by number from 1.
#[derive(Debug, Default)]
struct ThreadTable {
    last: u64,
    arbiters: BTreeMap<u64, Arbiter>,
    abandoned: usize,
    /// True once the runtime ends.
    is_ending: bool,
}

impl Threads {
    /// Collects the current thread as the control thread, the home of users' code, `more` new ones,
    /// and the `given` ones, which their owner stops.
    ///
    /// # Errors  A new thread is needed, and no actix system runs.
    pub(crate) fn new(
        home: HomeThread,
        more: usize,
        given: Vec<ArbiterHandle>,
    ) -> Result<Self, String> {
        let mut threads = Self {
            control: ThreadHandle::Here,
            shared: Arc::from([ThreadHandle::Here]),
            made: Arc::default(),
        };
        let home = match home {
            HomeThread::Control => ThreadHandle::Here,
            HomeThread::New => ThreadHandle::Arbiter(threads.thread()?.1),
            HomeThread::Program(home) => ThreadHandle::Arbiter(home),
        };
        if !matches!(home, ThreadHandle::Here) {
            threads.control = ThreadHandle::Arbiter(Arbiter::current());
        }
        let mut shared = vec![home];
        for _ in 0..more {
            shared.push(ThreadHandle::Arbiter(threads.thread()?.1));
        }
        shared.extend(given.into_iter().map(ThreadHandle::Arbiter));
        threads.shared = shared.into();
        Ok(threads)
    }

    /// The thread of the supervisors.
    pub(crate) fn control(&self) -> &ThreadHandle {
        &self.control
    }

    /// Returns true if code of users has threads of its own.
    pub(crate) fn are_apart(&self) -> bool {
        !matches!(self.control, ThreadHandle::Here)
    }

    /// Takes over a thread that is to be stopped with the others.
    pub(crate) fn adopt(&self, arbiter: Arbiter) {
        let mut made = self.lock();
        made.last += 1;
        let number = made.last;
        made.arbiters.insert(number, arbiter);
    }

    /// Returns the thread of the n-th actor among those that share the runtime's threads.
    pub(crate) fn shared(&self, index: usize) -> ThreadHandle {
        self.shared[index % self.shared.len()].clone()
    }

    /// Makes a new thread for one future, and returns it with its number.
    pub(crate) fn dedicated(&self) -> Result<(u64, ThreadHandle), String> {
        let (number, arbiter) = self.thread()?;
        let made = Arc::downgrade(&self.made);
        let own = OwnArbiter {
            arbiter,
            number,
            made,
        };
        Ok((number, ThreadHandle::Own(own)))
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
        handle.spawn_fn(|| IS_OF_RUNTIME.set(true));
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

    /// Stops a thread that has nothing to do any more, and does not wait for its end.
    pub(crate) fn release(&self, number: u64) {
        if let Some(arbiter) = self.lock().arbiters.remove(&number) {
            arbiter.stop();
        }
    }

    /// Returns the number of threads that were given up.
    pub(crate) fn abandoned(&self) -> usize {
        self.lock().abandoned
    }

    /// Keeps the threads that end from now on, to be joined.
    pub(crate) fn begin_end(&self) {
        self.lock().is_ending = true;
    }

    /// Returns the threads made by the runtime, to be stopped and joined.
    pub(crate) fn take(&self) -> Vec<Arbiter> {
        let made = std::mem::take(&mut self.lock().arbiters);
        made.into_values().collect()
    }

    /// Resolves when each thread has had a turn; never, while one is blocked.
    pub(crate) fn answers(&self) -> impl Future<Output = ()> + use<> {
        let mut arbiters: Vec<ArbiterHandle> = {
            let made = self.lock();
            made.arbiters.values().map(Arbiter::handle).collect()
        };
        arbiters.extend(self.shared.iter().filter_map(|thread| match thread {
            ThreadHandle::Arbiter(arbiter) => Some(arbiter.clone()),
            ThreadHandle::Own(own) => Some(own.arbiter.clone()),
            ThreadHandle::Here => None,
        }));
        let asked = arbiters.into_iter().filter_map(|arbiter| {
            let (tell, told) = oneshot::channel::<()>();
            arbiter.spawn_fn(move || drop(tell)).then_some(told)
        });
        let asked: Vec<_> = asked.collect();
        async move {
            for told in asked {
                // Fails when it is dropped: by the thread's turn, or by its end.
                let _ = told.await;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ThreadTable> {
        self.made.acquire()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the future of a dedicated thread has had its turn, and with it its end.
    async fn turn(own: &OwnArbiter) {
        let (tell, told) = oneshot::channel::<()>();
        own.arbiter.spawn_fn(move || {
            tokio::task::spawn_local(async move { drop(tell) });
        });
        let _ = told.await;
    }

    #[test]
    fn sup_7_a_dedicated_thread_is_forgotten_when_its_future_ends() {
        System::new().block_on(async {
            let threads = Threads::new(HomeThread::New, 0, Vec::new()).unwrap();
            let before = threads.lock().arbiters.len();
            let run = || {
                let (_, thread) = threads.dedicated().unwrap();
                thread.spawn(|| async {}).unwrap();
                match thread {
                    ThreadHandle::Own(own) => own,
                    other => panic!("{other:?}"),
                }
            };
            for _ in 0..3 {
                turn(&run()).await;
            }
            assert_eq!(threads.lock().arbiters.len(), before);
            // At the end of the runtime all of them are joined.
            threads.begin_end();
            turn(&run()).await;
            let left = threads.take();
            assert_eq!(left.len(), before + 1);
            for arbiter in left {
                arbiter.stop();
                arbiter.join().unwrap();
            }
        });
    }
}
