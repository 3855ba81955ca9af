//! A testkit: a runtime on virtual time, and dependencies that follow a script.
//!
//! ```
//! use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
//!
//! run_paused(async || {
//!     let runtime = TestRuntime::start().await;
//!     let script = Script::new(|request: u32, _| Reaction::Answer(request + 1));
//!     let worker = script.clone();
//!     let client = runtime
//!         .dependency("adder")
//!         .workers(move || worker.dependency())
//!         .start()
//!         .await
//!         .unwrap();
//!     assert_eq!(client.ask(1).await.unwrap().value, 2);
//!     assert_eq!(script.calls(), 1);
//!     runtime.finish().await;
//! });
//! ```

mod queue;

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::System;
use breakerbox_policy::{Class, State, Symptom};

use crate::clock::Clock;
use crate::dependency::{CallContext, Dependency};
use crate::event::{Event, EventKind};
use crate::runtime::{Runtime, RuntimeSettings};
use crate::verdict::Verdict;

pub use queue::ScriptedQueue;

/// Runs a test on one thread with an actix system and with tokio's time paused.
///
/// Time advances only when every task waits: a sleep of an hour takes no time.
///
/// # Panics  If the test panics, or if no runtime can be built.
pub fn run_paused<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    let paused = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a current-thread runtime needs nothing that can be missing")
    };
    System::with_tokio_rt(paused).block_on(test())
}

/// A runtime for a test; [`TestRuntime::finish`] checks it for leaks.
#[derive(Debug)]
pub struct TestRuntime {
    runtime: Runtime,
    finished: bool,
}

impl TestRuntime {
    /// Starts a runtime on tokio's clock.
    ///
    /// # Panics  If it cannot be started.
    pub async fn start() -> Self {
        Self::with(RuntimeSettings::default()).await
    }

    /// Starts a runtime with these settings: on their clock, else on a tokio clock that starts now.
    ///
    /// # Panics  If it cannot be started.
    pub async fn with(settings: RuntimeSettings) -> Self {
        let settings = RuntimeSettings {
            clock: settings.clock.or_else(|| Some(Clock::tokio())),
            ..settings
        };
        Self {
            runtime: Runtime::start(settings)
                .await
                .expect("a runtime on this thread starts"),
            finished: false,
        }
    }

    /// Shuts the runtime down and checks for leaks: every call has ended, and the totals add up
    /// (rule CALL-1).
    ///
    /// # Panics  If anything is left.
    pub async fn finish(mut self) {
        self.finished = true;
        self.runtime.shutdown().await;
        for status in self.runtime.statuses() {
            let totals = status.totals;
            assert_eq!(
                totals.submitted,
                totals.ended(),
                "calls of {} are pending after the shutdown: {totals:?}",
                status.name
            );
            assert_eq!(status.in_flight, 0, "places of {} are leaked", status.name);
            assert_eq!(status.queued, 0, "seats of {} are leaked", status.name);
        }
    }

    /// Returns the breakers' transitions so far: dependency, from, to.
    #[must_use]
    pub fn transitions(&self) -> Vec<(String, State, State)> {
        let moves = |event: Event| match event.kind {
            EventKind::Breaker(breakerbox_policy::BreakerEvent::Transition {
                from, to, ..
            }) => Some((event.subject.to_string(), from, to)),
            _ => None,
        };
        let events = self.runtime.events_since(0);
        events.into_iter().filter_map(moves).collect()
    }

    /// Waits for an event that matches; it may already have happened.
    ///
    /// # Panics  If a virtual hour passes without one.
    pub async fn event(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        let mut stream = self.runtime.events();
        if let Some(found) = self.runtime.events_since(0).into_iter().find(&wanted) {
            return found;
        }
        let search = async {
            loop {
                match stream.recv().await {
                    Ok(event) if wanted(&event) => return event,
                    Ok(_) => {}
                    Err(error) => panic!("the event stream broke: {error}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), search)
            .await
            .expect("the event happens within a virtual hour")
    }
}

impl Deref for TestRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.runtime
    }
}

impl Drop for TestRuntime {
    fn drop(&mut self) {
        assert!(
            self.finished || std::thread::panicking(),
            "a TestRuntime was dropped without finish(): its actors would leak"
        );
    }
}

/// The reaction of a scripted dependency to a call.
pub enum Reaction<T> {
    /// Answers.
    Answer(T),
    /// Fails.
    Fail(ScriptedError),
    /// Waits, then reacts.
    After(Duration, Box<Reaction<T>>),
    /// Never answers.
    Hang,
    /// Panics.
    Panic(&'static str),
}

impl<T> Reaction<T> {
    /// Returns the same reaction after a wait.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self::After(wait, Box::new(self))
    }
}

impl<T> fmt::Debug for Reaction<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(_) => out.write_str("Answer"),
            Self::Fail(error) => write!(out, "Fail({error})"),
            Self::After(wait, next) => write!(out, "After({wait:?}, {next:?})"),
            Self::Hang => out.write_str("Hang"),
            Self::Panic(message) => write!(out, "Panic({message})"),
        }
    }
}

/// An error of a scripted dependency, with its classification.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{message}")]
pub struct ScriptedError {
    /// The error text.
    pub message: String,
    /// The error's class.
    pub class: Class,
    /// The hint on the wait before a retry.
    pub retry_after: Option<Duration>,
    /// The symptom; if set, the settings decide its class.
    pub symptom: Option<Symptom>,
    /// True if a quota is used up.
    pub quota_used_up: bool,
}

impl ScriptedError {
    /// Creates an error of this class.
    #[must_use]
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            class,
            retry_after: None,
            symptom: None,
            quota_used_up: false,
        }
    }

    /// Creates an error with this symptom.
    #[must_use]
    pub fn symptom(symptom: Symptom) -> Self {
        Self {
            symptom: Some(symptom),
            ..Self::failure(symptom.to_string())
        }
    }

    /// Creates a throttling error.
    #[must_use]
    pub fn throttled() -> Self {
        Self::new(Class::Throttled, "too many requests")
    }

    /// Creates an error for a used-up quota.
    #[must_use]
    pub fn quota_used_up() -> Self {
        Self {
            quota_used_up: true,
            ..Self::throttled()
        }
    }

    /// Returns the same error, with a hint on the wait before a retry.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }

    /// Creates a failure of the dependency.
    #[must_use]
    pub fn failure(message: impl Into<String>) -> Self {
        Self::new(Class::Failure, message)
    }
}

type React<Q, T> = dyn Fn(Q, u64) -> Reaction<T> + Send + Sync;

/// The reactions of a dependency to its calls, and a counter of the calls that reach it.
pub struct Script<Q, T> {
    react: Arc<React<Q, T>>,
    calls: Arc<AtomicU64>,
}

impl<Q, T> Script<Q, T> {
    /// Creates a script from a function of the request and the number of the call, from 1.
    pub fn new(react: impl Fn(Q, u64) -> Reaction<T> + Send + Sync + 'static) -> Self {
        Self {
            react: Arc::new(react),
            calls: Arc::default(),
        }
    }

    /// Returns a dependency that follows the script. All its dependencies share one counter.
    #[must_use]
    pub fn dependency(&self) -> Scripted<Q, T> {
        Scripted {
            script: self.clone(),
        }
    }

    /// Returns the number of calls that have reached it.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }
}

impl<Q, T> Clone for Script<Q, T> {
    fn clone(&self) -> Self {
        Self {
            react: Arc::clone(&self.react),
            calls: Arc::clone(&self.calls),
        }
    }
}

impl<Q, T> fmt::Debug for Script<Q, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Script")
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

/// A dependency that follows a [`Script`].
#[derive(Debug)]
pub struct Scripted<Q, T> {
    script: Script<Q, T>,
}

impl<Q, T> Dependency for Scripted<Q, T>
where
    Q: Clone + Send + 'static,
    T: Send + 'static,
{
    type Request = Q;
    type Response = T;
    type Error = ScriptedError;

    async fn call(&self, request: Q, _: &CallContext) -> Result<T, ScriptedError> {
        let number = self.script.calls.fetch_add(1, Ordering::AcqRel) + 1;
        let mut reaction = (self.script.react)(request, number);
        loop {
            reaction = match reaction {
                Reaction::Answer(answer) => return Ok(answer),
                Reaction::Fail(error) => return Err(error),
                Reaction::After(wait, next) => {
                    tokio::time::sleep(wait).await;
                    *next
                }
                Reaction::Hang => std::future::pending().await,
                Reaction::Panic(message) => panic!("{message}"),
            };
        }
    }

    fn classify(result: Result<&T, &ScriptedError>) -> Verdict {
        let Err(error) = result else {
            return Verdict::from(Class::Success);
        };
        let verdict = match error.symptom {
            Some(symptom) => Verdict::from(symptom),
            None if error.quota_used_up => Verdict::quota_used_up(),
            None => Verdict::from(error.class),
        };
        match error.retry_after {
            Some(wait) => verdict.retry_after(wait),
            None => verdict,
        }
    }
}
