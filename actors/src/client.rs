//! The client: a cheap handle through which callers reach a dependency.
//!
//! It refuses a call by itself when the gate does not admit it, and otherwise sends the work
//! straight to a worker. It keeps no state of its own.

mod active_probes;

mod as_fallback;
mod readiness;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use actix::Addr;
use breakerbox_policy::{
    BreakerCommand, ChaosSettings, Class, DependencySettings, IllegalTransition,
};
use futures_util::TryStream;

use crate::answer::Answer;
use crate::breaker::Breaker;
use crate::breaker::gate::GateMode;
use crate::breaker::judgement::operate;
use crate::breaker::message::OperateBreaker;
use crate::call::core::DependencyCore;
use crate::call::{self, Served, Streamed};
use crate::call_options::CallOptions;
use crate::dependency::Dependency;
use crate::error::{CallError, StartError};
use crate::runtime::closures::AnyClient;
use crate::runtime::reload::{self, DependencyReload};
use crate::runtime::status::DependencyStatus;
use crate::state::configured::judge;
use crate::verdict::Verdict;

pub(crate) use as_fallback::erased;
pub use readiness::{Readiness, ReadinessObstacle};

/// A dependency's handle: cheap to clone, usable on any thread, the same after every restart.
pub struct Client<D: Dependency> {
    pub(crate) core: Arc<DependencyCore<D>>,
}

impl<D: Dependency> Client<D> {
    /// Calls the dependency, or its fallbacks.
    ///
    /// On the worker's own thread, the first poll of the work runs within the first poll of this
    /// future; else a worker runs it. Use [`Client::breaker`] and a [`Call`](crate::Call) only where
    /// an actor's address is needed.
    ///
    /// # Errors  [`CallError`]: each way to end without an answer, and whether the work may have
    /// been done ([`CallError::executed`]).
    /// # Panics  If `Clone` of the request panics, or one of the dependency's functions `key`,
    /// `weight`, `is_write`, `is_idempotent` and `fingerprint`, which run in the caller's task; the
    /// call is counted as cancelled. A panic of the work is [`CallError::WorkerCrashed`].
    /// # Cancel safety   Dropped before a worker began, the call costs the dependency nothing.
    /// Dropped later, the work is dropped too. The call is counted as cancelled, or as failed after
    /// its deadline.
    pub fn ask(
        &self,
        request: D::Request,
    ) -> impl Future<Output = Result<Answer<D::Response>, CallError<D::Error>>> {
        call::ask(&self.core, request, CallOptions::usual())
    }

    /// Calls the dependency with settings for this call only.
    ///
    /// # Errors  As [`Client::ask`].
    /// # Panics  As [`Client::ask`].
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

    /// Notes that the dependency ended while a closure call of this fingerprint was in flight. After
    /// two ends without an answer between them the call is refused for a while, as one of a worker is.
    pub fn suspect(&self, fingerprint: u64) {
        // SUP-6: whether it was the only one in flight is not known here.
        self.core.shared.suspect(fingerprint);
    }

    /// Runs an async closure that lends its state to each attempt: it may change what it has
    /// captured, by `&mut`, and its futures may borrow that. It is otherwise as [`Client::run`], but
    /// attempts are made one after the other: hedges of the settings do not apply.
    ///
    /// An attempt that is dropped, because its time is over, may leave what it was changing as it
    /// was at its last `await`.
    ///
    /// The compiler does not accept its future as `Send`: a task that
    /// may change its thread, such as one of `tokio::spawn`, cannot await it. [`Client::run_once`]
    /// lends too, in one attempt, and its future is `Send`.
    ///
    /// ```
    /// # use breakerbox_actors::{CallError, Client, Closures};
    /// struct Session { token: String, calls: u32 }
    ///
    /// impl Session {
    ///     async fn search(&mut self, query: &str) -> Result<usize, std::io::Error> {
    ///         self.calls += 1;
    ///         Ok(self.token.len() + query.len())
    ///     }
    /// }
    ///
    /// async fn search(
    ///     client: &Client<Closures>,
    ///     session: &mut Session,
    /// ) -> Result<usize, CallError<std::io::Error>> {
    ///     client.run_mut(async || session.search("rust").await).await
    /// }
    /// ```
    ///
    /// # Errors  As [`Client::run`].
    /// # Panics  As [`Client::run`].
    /// # Cancel safety   As [`Client::run`].
    pub async fn run_mut<T, E>(
        &self,
        work: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        let options = CallOptions::usual();
        call::run_mut(&self.core.shared, options, Verdict::by_result, work).await
    }

    /// Runs a closure as [`Client::run_mut`] does, with options, and a function that classifies
    /// each result.
    ///
    /// # Errors  As [`Client::run`].
    /// # Panics  As [`Client::run`].
    /// # Cancel safety   As [`Client::run`].
    pub async fn run_mut_with<T, E>(
        &self,
        options: CallOptions,
        classify: impl Fn(&Result<T, E>) -> Verdict,
        work: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        call::run_mut(&self.core.shared, &options, classify, work).await
    }

    /// Runs a closure that can be called once, such as one that moves a body out: under the same
    /// breaker and limits as [`Client::run`], in one attempt. Of the retries and hedges of the settings
    /// only `retry.on_open` applies: a refusal by the breaker comes before the closure is called.
    ///
    /// # Errors  As [`Client::run`].
    /// # Panics  As [`Client::run`].
    /// # Cancel safety   As [`Client::run`].
    pub async fn run_once<T, E>(
        &self,
        work: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        let options = CallOptions::usual();
        call::run_once(&self.core.shared, options, Verdict::by_result, work).await
    }

    /// Runs a closure as [`Client::run_once`] does, with options, and a function that classifies its
    /// result.
    ///
    /// # Errors  As [`Client::run`].
    /// # Panics  As [`Client::run`].
    /// # Cancel safety   As [`Client::run`].
    pub async fn run_once_with<T, E>(
        &self,
        options: CallOptions,
        classify: impl Fn(&Result<T, E>) -> Verdict,
        work: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        call::run_once(&self.core.shared, &options, classify, work).await
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

    /// The breaker actor's address: any actor may send it a [`Call`](crate::Call), with the errors
    /// of [`Client::ask`]. Its mailbox is bounded ([`Breaker`]), and the deadlines of its calls hold
    /// even while its thread is blocked.
    ///
    /// `MailboxError::Closed` means that the dependency was stopped before it took the call, or that
    /// the breaker actor crashed over it.
    #[must_use]
    pub fn breaker(&self) -> Addr<Breaker<D>> {
        self.core.mailbox.addr.clone()
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
    /// # Errors  [`StartError::BadSetting`]: a setting cannot work; nothing is then changed.
    /// # Source  Rule CFG-2 in docs/rules.md.
    pub async fn reconfigure(
        &self,
        settings: DependencySettings,
        by: &str,
    ) -> Result<Option<DependencyReload>, StartError> {
        // CFG-1: settings from code are judged as those of files are.
        judge(&settings).map_err(|problem| StartError::BadSetting {
            name: self.name().to_owned(),
            problem,
        })?;
        Ok(reload::set(&self.core, settings, by).await)
    }

    /// Returns the breaker's current state as callers see it: `closed`, `open`, `half_open`,
    /// `forced_open` or `disabled`. This costs no more than a refusal; [`Client::status`] gives
    /// more detail.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.core.shared.breaker.gate.read().mode() {
            GateMode::Closed | GateMode::ClosedReportAll => "closed",
            GateMode::Open => "open",
            GateMode::HalfOpen => "half_open",
            GateMode::ForcedOpen => "forced_open",
            GateMode::Disabled => "disabled",
        }
    }

    /// Returns the number of calls in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.core.shared.bulkhead.in_flight()
    }

    /// Returns the dependency's current status.
    #[must_use]
    pub fn status(&self) -> DependencyStatus {
        // HLT-1, HLT-2: the health, the outage and its alert are told from one look.
        self.core.shared.look_at_answers();
        DependencyStatus::of(&self.core)
    }

    /// Reports a problem that no call shows: its status is degraded with this text, until `None` clears it.
    /// The breaker ignores it. [`CallContext::complain`](crate::CallContext::complain) sets and clears the
    /// same.
    pub fn complain(&self, what: Option<String>) {
        self.core.shared.complain(what);
    }

    /// Carries out an operator's command.
    ///
    /// # Errors  The breaker's state does not allow it.
    pub async fn operate(&self, command: BreakerCommand) -> Result<(), IllegalTransition> {
        operate(&self.core.shared, OperateBreaker::all(command))
    }

    /// Returns true if a key has a breaker of its own at present.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.core.shared.keys.find(key).is_some()
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
        let key = Some(self.core.shared.keys.find(key)?);
        let asked = OperateBreaker {
            key,
            command,
            note: None,
        };
        Some(operate(&self.core.shared, asked))
    }
}

impl<D: Dependency> Client<D> {
    /// Opens a stream as [`Client::run_stream_with`] does, in the caller's own task. If that ends
    /// without a first item, the fallbacks answer `request`, by the rules of [`Client::ask_with`].
    /// All of it is counted as one call.
    ///
    /// Options left open are derived from `request` by the dependency. The last attempt of
    /// `when_all_down = "try"` runs on a worker.
    ///
    /// # Errors  As [`Client::ask_with`].
    /// # Panics  As [`Client::run_stream`].
    /// # Cancel safety   As [`Client::run_stream`]; a running fallback is dropped too.
    /// # Source  Rules FBK-1 to FBK-3 in docs/rules.md.
    pub async fn stream_or_answer<S, F>(
        &self,
        request: D::Request,
        options: CallOptions,
        classify: impl Fn(Result<&S, &D::Error>) -> Verdict + Send + Sync + 'static,
        open: impl FnMut() -> F,
    ) -> Result<Served<S, D::Response>, CallError<D::Error>>
    where
        F: Future<Output = Result<S, D::Error>>,
        S: TryStream<Error = D::Error>,
    {
        call::stream_or_answer(&self.core, request, options, classify, open).await
    }

    /// Passes a good answer of the dependency that came as a stream to the fallbacks, for those
    /// that cache such answers. They get answers of workers anyway. Never pass the answer of a
    /// fallback (rule FBK-3).
    pub fn remember(&self, request: &D::Request, response: &D::Response) {
        self.memory().remember(request, response);
    }

    /// Returns a handle by which an answer reaches the fallbacks later, as by [`Client::remember`],
    /// but only while no other fallbacks have taken their place.
    #[must_use]
    pub fn memory(&self) -> AnswerMemory<D> {
        AnswerMemory {
            version: self.core.fallbacks.version(),
            core: Arc::clone(&self.core),
        }
    }

    /// Injects faults from now on, regardless of the settings; `None` ends them. `by` is the author
    /// of the change, for the event.
    ///
    /// Running attempts are not affected. A reload changes this only if it brings different chaos.
    pub fn set_chaos(&self, settings: Option<ChaosSettings>, by: &str) {
        self.core.shared.set_chaos(settings, by);
    }

    /// Returns a handle of the same dependency for closures only, without its request type.
    #[must_use]
    pub fn any(&self) -> AnyClient {
        AnyClient {
            shared: Arc::clone(&self.core.shared),
        }
    }
}

/// Handle by which answers of a dependency reach the fallbacks of one moment, by
/// [`Client::memory`].
pub struct AnswerMemory<D: Dependency> {
    core: Arc<DependencyCore<D>>,
    version: u64,
}

impl<D: Dependency> AnswerMemory<D> {
    /// Passes a good answer of the dependency to the fallbacks, as [`Client::remember`] does.
    pub fn remember(&self, request: &D::Request, response: &D::Response) {
        if !D::classify(Ok(response)).is_good() {
            return;
        }
        let now = self.core.shared.clock.now();
        let fallbacks = &self.core.fallbacks;
        fallbacks.remember(self.version, request, response, now);
    }
}

impl<D: Dependency> Clone for AnswerMemory<D> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            version: self.version,
        }
    }
}

impl<D: Dependency> fmt::Debug for AnswerMemory<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AnswerMemory")
            .field("version", &self.version)
            .finish_non_exhaustive()
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
