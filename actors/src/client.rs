//! The client: a cheap handle through which callers reach a dependency.
//!
//! It refuses a call by itself when the gate does not admit it, and otherwise sends the work
//! straight to a worker. It keeps no state of its own.

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Addr;
use breakerbox_policy::{BreakerCommand, Class, DependencySettings, IllegalTransition, Time};
use futures_util::TryStream;

use crate::breaker::Breaker;
use crate::call::{self, CallOptions, Streamed};
use crate::dependency::{Dependency, PerWorker, Route, Shared, Verdict};
use crate::error::CallError;
use crate::fallback::{FallbackAnswer, Fallbacks};
use crate::gate::Mode;
use crate::message::Operate;
use crate::queue::WorkQueue;
use crate::reload::{self, Configured, DependencyReload};
use crate::status::DependencyStatus;
use crate::supervisor::{Condition, DriverQueue, StableMailbox};
use crate::worker::Worker;
use crate::worker::hands::{InlineExecutor, InlineHandle};

/// The source of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerSource {
    /// The dependency itself.
    Primary,
    /// A fallback, by its name.
    Fallback(Arc<str>),
}

impl fmt::Display for AnswerSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => out.write_str("primary"),
            Self::Fallback(name) => write!(out, "fallback:{name}"),
        }
    }
}

/// An answer, with its source (rule FBK-3).
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// The response.
    pub value: T,
    /// The source of the answer.
    pub source: AnswerSource,
    /// Age of the answer, if it was kept from an earlier call.
    pub age: Option<Duration>,
    /// Number of attempts at the dependency, refusals included.
    pub attempts: u32,
    /// Duration of the call.
    pub elapsed: Duration,
}

impl<T> Answer<T> {
    /// Returns true if the dependency itself answered.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.source == AnswerSource::Primary
    }
}

/// The state around one dependency that a call needs.
pub(crate) struct Core<D: Dependency> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) breaker: StableMailbox<Breaker<D>>,
    pub(crate) workers: Box<[WorkerSlot<D>]>,
    pub(crate) next: AtomicUsize,
    pub(crate) fallbacks: Fallbacks<D>,
    pub(crate) configured: Mutex<Configured>,
}

/// A worker's queue, and its inline executor for callers on its own thread.
pub(crate) struct WorkerSlot<D: Dependency> {
    pub(crate) shared: Arc<PerWorker>,
    pub(crate) queue: Arc<WorkQueue<D>>,
    pub(crate) mail: StableMailbox<Worker<D>>,
    pub(crate) lent: Arc<InlineHandle>,
}

impl<D: Dependency> WorkerSlot<D> {
    /// Answers all waiters and takes no more work: the worker is gone for good.
    pub(crate) fn leave(&self) {
        let health = &self.mail.health;
        health.set(Condition::Gone, health.incarnation());
        self.queue.close();
    }

    /// Returns the worker's inline executor, if the caller can run the first poll of its call
    /// itself.
    #[inline]
    pub(crate) fn hands(&self) -> Option<Rc<InlineExecutor<D>>> {
        let is_running = self.mail.health.condition() == Condition::Running;
        is_running.then(|| self.lent.hands()).flatten()
    }

    /// Returns true if the worker is on the caller's thread.
    pub(crate) fn is_here(&self) -> bool {
        self.lent.is_here()
    }
}

impl<D: Dependency> Core<D> {
    /// Returns the worker for the next call: a running one, on the caller's own thread if there is
    /// one.
    ///
    /// Without a running worker the call waits for the next incarnation, if the settings allow it.
    pub(crate) fn pick(&self) -> Option<&WorkerSlot<D>> {
        let alive = |slot: &WorkerSlot<D>| slot.mail.health.condition() != Condition::Gone;
        // During a drain, only calls that were accepted before it arrive here.
        let drains = self.shared.route() == Route::Draining;
        let may_hold = |slot: &WorkerSlot<D>| alive(slot) && (drains || call::holds(&self.shared));
        let running = |slot: &WorkerSlot<D>| slot.mail.health.condition() == Condition::Running;
        if let [only] = &*self.workers {
            return (running(only) || may_hold(only)).then_some(only);
        }
        // With one worker for each thread, the shared round-robin counter is not needed.
        let mut here = self
            .workers
            .iter()
            .filter(|slot| running(slot) && slot.is_here());
        if let (Some(only), None) = (here.next(), here.next()) {
            return Some(only);
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.workers.len();
        let in_turn = || (0..count).map(|step| &self.workers[first.wrapping_add(step) % count]);
        in_turn()
            .find(|slot| running(slot) && slot.is_here())
            .or_else(|| in_turn().find(|slot| running(slot)))
            .or_else(|| in_turn().find(|slot| may_hold(slot)))
    }

    /// Returns the wait until the first worker is back, if it is known.
    pub(crate) fn back_in(&self, now: Time) -> Option<Duration> {
        let workers = self.workers.iter();
        workers
            .filter_map(|slot| slot.mail.health.back_in(now))
            .min()
    }

    /// Ends everything for good: calls are refused, and callers that wait for one of the actors
    /// learn that it is gone (rule CALL-1). The workers end first, because the breaker's queue
    /// answers their reports.
    pub(crate) fn stop(&self) {
        self.shared.set_route(Route::Stopped);
        for slot in &self.workers {
            slot.leave();
            slot.mail.close();
        }
        self.fallbacks.mail.close();
        self.breaker.close();
    }

    pub(crate) async fn fall_back(
        &self,
        (request, write): (D::Request, bool),
        why: CallError<D::Error>,
        deadline: Option<Time>,
    ) -> Result<FallbackAnswer<D::Response>, CallError<D::Error>> {
        let Self {
            shared, fallbacks, ..
        } = self;
        let asked = (request, write);
        fallbacks.answer(shared, asked, why, deadline).await
    }
}

/// A dependency's handle: cheap to clone, usable on any thread, the same after every restart.
pub struct Client<D: Dependency> {
    pub(crate) core: Arc<Core<D>>,
}

impl<D: Dependency> Client<D> {
    /// Calls the dependency, or its fallbacks.
    ///
    /// # Errors  [`CallError`]: each way to end without an answer, and whether the work may have
    /// been done.
    /// # Cancel safety   Dropped before a worker began, the call costs the dependency nothing.
    /// Dropped later, the work is dropped too. The call is counted as cancelled.
    pub fn ask(
        &self,
        request: D::Request,
    ) -> impl Future<Output = Result<Answer<D::Response>, CallError<D::Error>>> {
        call::ask(&self.core, request, CallOptions::usual())
    }

    /// Calls the dependency with settings for this call only.
    ///
    /// # Errors  As [`Client::ask`].
    /// # Cancel safety   As [`Client::ask`].
    pub fn ask_with(
        &self,
        request: D::Request,
        options: CallOptions,
    ) -> impl Future<Output = Result<Answer<D::Response>, CallError<D::Error>>> {
        call::ask(&self.core, request, options)
    }

    /// Runs a closure under the same breaker and limits, in the caller's own task: no worker and no
    /// fallback. Every error counts as the dependency's.
    ///
    /// # Errors  As [`Client::ask`], with the closure's own error.
    /// # Panics  If the closure panics; this is counted as a failure.
    /// # Cancel safety   Dropped, the closure's future is dropped; counted as cancelled.
    pub fn run<T, E, F>(
        &self,
        work: impl FnMut() -> F,
    ) -> impl Future<Output = Result<T, CallError<E>>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let options = CallOptions::usual();
        call::run(&self.core.shared, options, Verdict::by_result, work)
    }

    /// Runs a closure as [`Client::run`] does, with options, and a function that classifies each
    /// result.
    ///
    /// # Errors  As [`Client::run`].
    /// # Panics  As [`Client::run`].
    /// # Cancel safety   As [`Client::run`].
    pub fn run_with<T, E, F>(
        &self,
        options: CallOptions,
        classify: impl Fn(&Result<T, E>) -> Verdict,
        work: impl FnMut() -> F,
    ) -> impl Future<Output = Result<T, CallError<E>>>
    where
        F: Future<Output = Result<T, E>>,
    {
        call::run(&self.core.shared, options, classify, work)
    }

    /// Opens a stream under the same breaker and limits, in the caller's own task, as
    /// [`Client::run`] runs a closure. The attempt is to open the stream and to wait for its first
    /// item. The breaker is notified when the stream has ended; a normal end is a success.
    ///
    /// `timeout.first_byte` bounds the wait for the first item, `timeout.idle` each later wait.
    /// `timeout.attempt` and `timeout.total` bound the whole stream (see [`Streamed::long_lived`]).
    ///
    /// # Errors  As [`Client::run`], for failures before the first item; these may be retried. A
    /// later failure is the stream's last item, and is not retried.
    /// # Panics  If the closure or its stream panics; this is counted as a failure.
    /// # Cancel safety   Dropped, the closure's future or stream is dropped; counted as cancelled.
    pub async fn run_stream<S, F>(
        &self,
        open: impl FnMut() -> F,
    ) -> Result<Streamed<S>, CallError<S::Error>>
    where
        F: Future<Output = Result<S, S::Error>>,
        S: TryStream,
    {
        let by_result = |result: Result<&S, &S::Error>| {
            let class = result.map_or(Class::Failure, |_| Class::Success);
            Verdict::from(class)
        };
        let options = CallOptions::default();
        self.run_stream_with(options, by_result, open).await
    }

    /// Opens a stream as [`Client::run_stream`] does, with options, and a function that classifies
    /// each error and each stream that ended normally.
    ///
    /// # Errors  As [`Client::run_stream`].
    /// # Panics  As [`Client::run_stream`].
    /// # Cancel safety   As [`Client::run_stream`].
    pub async fn run_stream_with<S, F>(
        &self,
        options: CallOptions,
        classify: impl Fn(Result<&S, &S::Error>) -> Verdict + Send + Sync + 'static,
        open: impl FnMut() -> F,
    ) -> Result<Streamed<S>, CallError<S::Error>>
    where
        F: Future<Output = Result<S, S::Error>>,
        S: TryStream,
    {
        call::run_stream(&self.core.shared, options, classify, open).await
    }

    /// The breaker actor's address: any actor may send it a [`Call`](crate::Call).
    #[must_use]
    pub fn breaker(&self) -> Addr<Breaker<D>> {
        self.core.breaker.addr.clone()
    }

    /// The dependency's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.shared.name
    }

    /// The dependency's current settings.
    #[must_use]
    pub fn settings(&self) -> Arc<DependencySettings> {
        Arc::clone(&self.core.shared.settings())
    }

    /// Replaces the settings of the running dependency; state and counters are kept. The settings
    /// apply at once, except those of its workers that [`DependencyReload::waits`] lists. Returns
    /// `None` if nothing changes.
    ///
    /// Sections that differ from the configuration from then on belong to the program, and a reload
    /// of the configuration does not change them.
    ///
    /// # Source  Rule CFG-2 in docs/rules.md.
    pub async fn reconfigure(
        &self,
        settings: DependencySettings,
        by: &str,
    ) -> Option<DependencyReload> {
        reload::set(&self.core, settings, by).await
    }

    /// Returns the breaker's current state as callers see it: `closed`, `open`, `half_open`,
    /// `forced_open` or `disabled`. This costs no more than a refusal; [`Client::status`] gives
    /// more detail.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.core.shared.circuit.gate.read().mode() {
            Mode::Closed | Mode::ClosedReportAll => "closed",
            Mode::Open => "open",
            Mode::HalfOpen => "half_open",
            Mode::ForcedOpen => "forced_open",
            Mode::Disabled => "disabled",
        }
    }

    /// Returns the dependency's current status.
    #[must_use]
    pub fn status(&self) -> DependencyStatus {
        DependencyStatus::of(&self.core)
    }

    /// Carries out an operator's command.
    ///
    /// # Errors  The breaker's state does not allow it.
    pub async fn operate(&self, command: BreakerCommand) -> Result<(), IllegalTransition> {
        self.core
            .breaker
            .addr
            .send(Operate::all(command))
            .await
            // A breaker that is gone refuses every call; no command applies to it.
            .unwrap_or(Ok(()))
    }

    /// Carries out an operator's command on the breaker of one key. Returns `None` if the key is
    /// unknown.
    ///
    /// # Errors  The breaker's state does not allow it.
    pub async fn operate_key(
        &self,
        key: &str,
        command: BreakerCommand,
    ) -> Option<Result<(), IllegalTransition>> {
        let circuit = Some(self.core.shared.keys.find(key)?);
        let operate = Operate { circuit, command };
        Some(self.core.breaker.addr.send(operate).await.unwrap_or(Ok(())))
    }
}

impl<D: Dependency> Clone for Client<D> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

impl<D: Dependency> fmt::Debug for Client<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
