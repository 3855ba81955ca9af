//! The client: a cheap handle through which anybody calls a dependency.
//!
//! It refuses by itself when the gate says so, and sends work straight to a worker otherwise. It
//! keeps no state of its own.

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Addr;
use breakerbox_policy::{Class, Command, DependencySettings, IllegalTransition, Time};
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
use crate::supervisor::{Condition, DriverQueue, Mailslot};
use crate::worker::Worker;
use crate::worker::hands::{Hands, Lent};

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The dependency itself.
    Primary,
    /// A fallback, by its name.
    Fallback(Arc<str>),
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => out.write_str("primary"),
            Self::Fallback(name) => write!(out, "fallback:{name}"),
        }
    }
}

/// An answer, with where it came from (rule FBK-3).
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// What was answered.
    pub value: T,
    /// Who answered.
    pub source: Source,
    /// How old it is, when it was kept from an earlier call.
    pub age: Option<Duration>,
    /// How often the dependency was tried, refusals included.
    pub attempts: u32,
    /// How long the call took.
    pub elapsed: Duration,
}

impl<T> Answer<T> {
    /// Whether the dependency itself answered.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.source == Source::Primary
    }
}

/// Everything around one dependency that a call needs.
pub(crate) struct Core<D: Dependency> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) breaker: Mailslot<Breaker<D>>,
    pub(crate) workers: Box<[Slot<D>]>,
    pub(crate) next: AtomicUsize,
    pub(crate) fallbacks: Fallbacks<D>,
    pub(crate) configured: Mutex<Configured>,
}

/// A worker's queue, and its hands for those on its own thread.
pub(crate) struct Slot<D: Dependency> {
    pub(crate) shared: Arc<PerWorker>,
    pub(crate) queue: Arc<WorkQueue<D>>,
    pub(crate) mail: Mailslot<Worker<D>>,
    pub(crate) lent: Arc<Lent>,
}

impl<D: Dependency> Slot<D> {
    /// Answers everyone who waits, and takes no more work: the worker has gone for good.
    pub(crate) fn leave(&self) {
        let health = &self.mail.health;
        health.set(Condition::Gone, health.incarnation());
        self.queue.close();
    }

    /// The worker's hands, where the call can be begun in the caller's own turn.
    #[inline]
    pub(crate) fn hands(&self) -> Option<Rc<Hands<D>>> {
        let is_running = self.mail.health.condition() == Condition::Running;
        is_running.then(|| self.lent.hands()).flatten()
    }

    /// Whether the worker is on the thread that asks.
    pub(crate) fn is_here(&self) -> bool {
        self.lent.is_here()
    }
}

impl<D: Dependency> Core<D> {
    /// The worker for the next call: a running one, on the caller's own thread if there is one.
    ///
    /// Without a running one the call waits for the next incarnation, where the settings say so.
    pub(crate) fn pick(&self) -> Option<&Slot<D>> {
        let alive = |slot: &Slot<D>| slot.mail.health.condition() != Condition::Gone;
        // While it drains, only calls come here that were accepted before.
        let drains = self.shared.route() == Route::Draining;
        let may_hold = |slot: &Slot<D>| alive(slot) && (drains || call::holds(&self.shared));
        let running = |slot: &Slot<D>| slot.mail.health.condition() == Condition::Running;
        if let [only] = &*self.workers {
            return (running(only) || may_hold(only)).then_some(only);
        }
        // With one worker for each thread nobody has to be asked whose turn it is.
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

    /// When the first of the workers is back, if that is known.
    pub(crate) fn back_in(&self, now: Time) -> Option<Duration> {
        let workers = self.workers.iter();
        workers
            .filter_map(|slot| slot.mail.health.back_in(now))
            .min()
    }

    /// Ends everything for good: calls are refused, and whoever waits for one of the actors hears
    /// that it is gone (rule CALL-1). The workers first, whose reports the breaker's queue answers.
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

/// A dependency's handle: cheap to clone, good on any thread, the same after every restart.
pub struct Client<D: Dependency> {
    pub(crate) core: Arc<Core<D>>,
}

impl<D: Dependency> Client<D> {
    /// Calls the dependency, or its fallbacks.
    ///
    /// # Errors  [`CallError`]: each way to end without an answer, with whether the work may have
    /// been done.
    /// # Cancel safety   Dropped before a worker began, it costs the dependency nothing; dropped
    /// later, the work is dropped too. The call is counted as cancelled.
    pub fn ask(
        &self,
        request: D::Request,
    ) -> impl Future<Output = Result<Answer<D::Response>, CallError<D::Error>>> {
        call::ask(&self.core, request, CallOptions::usual())
    }

    /// Calls the dependency with settings of this call's own.
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

    /// Runs a closure under the same breaker and limits, in the caller's own task: no worker and
    /// no fallback. Every error counts as the dependency's.
    ///
    /// # Errors  As [`Client::ask`], with the closure's own error.
    /// # Panics  When the closure does; it is counted as a failure.
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

    /// Runs a closure as [`Client::run`] does, with options and with a word on what each result
    /// counts for.
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
    /// [`Client::run`] runs a closure: the attempt is to open it and to wait for its first item.
    /// The breaker hears of it when it has ended, and a good end is a success.
    ///
    /// `timeout.first_byte` bounds the first item, `timeout.idle` each wait for another one;
    /// `timeout.attempt` and `timeout.total` the whole (see [`Streamed::long_lived`]).
    ///
    /// # Errors  As [`Client::run`], for what happens before the first item; that may be tried
    /// again. What happens later is the stream's last item, and is not.
    /// # Panics  When the closure or its stream does; it is counted as a failure.
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

    /// Opens a stream as [`Client::run_stream`] does, with options and with a word on what each
    /// error counts for, and each stream that ended well.
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

    /// The dependency's settings at this moment.
    #[must_use]
    pub fn settings(&self) -> Arc<DependencySettings> {
        Arc::clone(&self.core.shared.settings())
    }

    /// Replaces its settings while it runs: with state and counters kept, and at once for every
    /// call but those of its workers, which [`DependencyReload::waits`] names. `None` when they
    /// are the same.
    ///
    /// What differs from the configuration from now on is the program's own, and no reload of the
    /// configuration changes it.
    ///
    /// # Source  Rule CFG-2 in docs/rules.md.
    pub async fn reconfigure(
        &self,
        settings: DependencySettings,
        by: &str,
    ) -> Option<DependencyReload> {
        reload::set(&self.core, settings, by).await
    }

    /// What the breaker shows to callers now: `closed`, `open`, `half_open`, `forced_open` or
    /// `disabled`. It costs no more than a refusal; [`Client::status`] tells more.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.core.shared.circuit.gate.read().mode() {
            Mode::Closed | Mode::Watchful => "closed",
            Mode::Open => "open",
            Mode::HalfOpen => "half_open",
            Mode::ForcedOpen => "forced_open",
            Mode::Disabled => "disabled",
        }
    }

    /// How the dependency is now.
    #[must_use]
    pub fn status(&self) -> DependencyStatus {
        DependencyStatus::of(&self.core)
    }

    /// Carries an operator's command out.
    ///
    /// # Errors  The breaker's state does not allow it.
    pub async fn operate(&self, command: Command) -> Result<(), IllegalTransition> {
        self.core
            .breaker
            .addr
            .send(Operate::all(command))
            .await
            // A breaker that is gone refuses every call; there is nothing to command.
            .unwrap_or(Ok(()))
    }

    /// Carries an operator's command out on the breaker of one key; `None` when no such key is
    /// known.
    ///
    /// # Errors  The breaker's state does not allow it.
    pub async fn operate_key(
        &self,
        key: &str,
        command: Command,
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
