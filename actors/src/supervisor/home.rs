//! On which thread an actor lives.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Arbiter, ArbiterHandle, System};

/// A thread that actors can be put on.
#[derive(Debug, Clone)]
pub(crate) enum Home {
    /// The thread of whoever puts something there.
    Here,
    /// One of the runtime's other threads.
    Arbiter(ArbiterHandle),
    /// A thread for one future, which ends with it.
    Own(ArbiterHandle),
}

/// Stops a thread when the one future that it was made for has ended, whatever way.
struct LastOne(ArbiterHandle);

impl Drop for LastOne {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Home {
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
pub(crate) struct Homes {
    shared: Arc<[Home]>,
    made: Arc<Mutex<Vec<Arbiter>>>,
}

impl Homes {
    /// The present thread, and so many more.
    ///
    /// # Errors  When a thread is asked for where no actix system runs.
    pub(crate) fn new(more: usize) -> Result<Self, String> {
        let homes = Self {
            shared: Arc::from([Home::Here]),
            made: Arc::default(),
        };
        let mut shared = vec![Home::Here];
        for _ in 0..more {
            shared.push(Home::Arbiter(homes.thread()?));
        }
        Ok(Self {
            shared: shared.into(),
            ..homes
        })
    }

    /// The home of the n-th of several that share the runtime's threads.
    pub(crate) fn shared(&self, index: usize) -> Home {
        self.shared[index % self.shared.len()].clone()
    }

    /// A new thread for one future.
    pub(crate) fn dedicated(&self) -> Result<Home, String> {
        self.thread().map(Home::Own)
    }

    fn thread(&self) -> Result<ArbiterHandle, String> {
        if !System::is_registered() {
            return Err(
                "a thread of its own needs a running actix system; start the program with \
                 #[actix::main] or let the runtime make its own system"
                    .to_owned(),
            );
        }
        let arbiter = Arbiter::try_new().map_err(|error| error.to_string())?;
        let handle = arbiter.handle();
        self.lock().push(arbiter);
        Ok(handle)
    }

    /// Stops the threads that were made, and gives them back to be joined.
    pub(crate) fn stop(&self) -> Vec<Arbiter> {
        let made = std::mem::take(&mut *self.lock());
        for arbiter in &made {
            arbiter.stop();
        }
        made
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arbiter>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
