//! Fallback actors: the source of answers when there is no primary answer.
//!
//! One actor per dependency asks the fallbacks in their order. It never sees an outcome: an answer
//! of a fallback is neither a success of the dependency nor a value to cache.

mod actor;

mod cache;
mod kinds;
mod named;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{Executed, Time};
use tokio::sync::{Semaphore, oneshot};

use crate::clock::earliest;
use crate::deadline::bounded;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::state::Shared;
use crate::supervisor::StableMailbox;
use crate::time_limit::TimeLimit;

pub(crate) use actor::{FallbackActor, FallbackPollHook, note_outage, patience};
use actor::{PendingReply, ServeFallback, UnservedState};
pub use cache::StaleCache;
pub use kinds::{ActorFallback, FallbackCall, Fixed};
pub use named::ByName;
pub(crate) use named::{ErasedFallback, FallbackDirectory, find_cycle};

/// Result of a fallback.
pub enum FallbackOutcome<T> {
    /// An answer, with its age if it was cached from an earlier call.
    Answer(T, Option<Duration>),
    /// No answer for this request; the next fallback is asked.
    Nothing,
    /// A failure; the next fallback is asked.
    Failed {
        /// The error text.
        message: String,
        /// Execution state of the work. `No` promises that the fallback has not begun it.
        executed: Executed,
    },
    /// An answer that counts as a failure. The next fallback is asked; the call ends with this
    /// answer if there is no better one.
    BadAnswer {
        /// The answer.
        value: T,
        /// Its age if it was cached from an earlier call.
        age: Option<Duration>,
        /// The reason why it counts as a failure.
        why: String,
    },
}

impl<T> FallbackOutcome<T> {
    /// A failure of a fallback that has run: it may have done the work.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            executed: Executed::Maybe,
        }
    }

    /// A failure of a fallback that has not begun the work.
    #[must_use]
    pub fn not_begun(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            executed: Executed::No,
        }
    }
}

/// A fallback's work on one request.
pub type FallbackFuture<T> = Pin<Box<dyn Future<Output = FallbackOutcome<T>> + Send>>;

/// Guard of one background refresh, dropped when the refresh is done.
pub type RefreshGuard = Box<dyn Send>;

/// A substitute for a dependency that gives no answer.
///
/// Implemented by functions and closures `Fn(Request, &CallError<Error>)` that return a future of
/// `Result<Response, _>` with an error that is `Display`. Such an error is [`FallbackOutcome::failed`]: the
/// work may have been done. A type of its own can return [`FallbackOutcome::not_begun`].
///
/// # Source  Rules FBK-1 to FBK-3 in docs/rules.md.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand in for the dependency `{D}`",
    label = "not a fallback of `{D}`",
    note = "a fallback is `StaleCache`, `Fixed`, `ActorFallback`, another client, or a closure \
            `|request, why: &CallError<_>| async move {{ … }}` that gives a `Result` with the \
            dependency's response",
    note = "it runs on a thread of its own: the closure is `Fn`, `Send`, `Sync` and `'static`, its \
            future `Send`"
)]
pub trait Fallback<D: Dependency>: Send + Sync + 'static {
    /// Returns its name, as shown in answers and events.
    fn name(&self) -> &str;

    /// Answers in place of the dependency, because of `why`.
    fn answer(
        &self,
        request: D::Request,
        why: &CallError<D::Error>,
        now: Time,
    ) -> FallbackFuture<D::Response>;

    /// Receives a good answer of the dependency itself. Does nothing by default.
    fn remember(&self, request: &D::Request, response: &D::Response, now: Time) {
        let _ = (request, response, now);
    }

    /// Called after it has answered: returns a guard if the dependency is to be asked in the
    /// background for a newer answer. Returns `None` while a guard for the same request exists. By
    /// default no answer is refreshed.
    fn refresh_guard(&self, request: &D::Request) -> Option<RefreshGuard> {
        let _ = request;
        None
    }

    /// Returns the dependency of the same runtime that it asks, if any. A start that would close a
    /// cycle of fallbacks is refused.
    fn depends_on(&self) -> Option<&str> {
        None
    }

    /// Returns the reason why it can never answer, if that is known when its dependency is started.
    fn problem(&self) -> Option<String> {
        None
    }

    /// Returns true if limits of its own bound its work. Else `timeout.attempt` of the dependency
    /// bounds it, as it does by default. The deadline of the caller holds in both cases.
    fn has_own_limits(&self) -> bool {
        false
    }
}

/// A fallback that its owner keeps, too.
impl<D: Dependency, F: Fallback<D>> Fallback<D> for Arc<F> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn answer(
        &self,
        request: D::Request,
        why: &CallError<D::Error>,
        now: Time,
    ) -> FallbackFuture<D::Response> {
        (**self).answer(request, why, now)
    }

    fn remember(&self, request: &D::Request, response: &D::Response, now: Time) {
        (**self).remember(request, response, now);
    }

    fn refresh_guard(&self, request: &D::Request) -> Option<RefreshGuard> {
        (**self).refresh_guard(request)
    }

    fn depends_on(&self) -> Option<&str> {
        (**self).depends_on()
    }

    fn problem(&self) -> Option<String> {
        (**self).problem()
    }

    fn has_own_limits(&self) -> bool {
        (**self).has_own_limits()
    }
}

/// The errors for which a fallback serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServeOn {
    /// Refusals and failures.
    #[default]
    Any,
    /// Only if the dependency was not asked.
    Refused,
    /// Only if the dependency was asked and failed.
    Failed,
}

/// A fallback, with the conditions under which it serves.
pub struct FallbackRule<D: Dependency> {
    fallback: Box<dyn Fallback<D>>,
    name: Arc<str>,
    depends_on: Option<String>,
    on: ServeOn,
    writes: bool,
    served: Arc<AtomicU64>,
}

impl<D: Dependency> FallbackRule<D> {
    /// Makes a rule that serves refusals and failures, but no writes.
    pub fn new(fallback: impl Fallback<D>) -> Self {
        Self {
            name: Arc::from(fallback.name()),
            depends_on: fallback.depends_on().map(str::to_owned),
            fallback: Box::new(fallback),
            on: ServeOn::Any,
            writes: false,
            served: Arc::default(),
        }
    }

    /// Sets another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Arc::from(name);
        self
    }

    /// Restricts the errors for which it serves.
    #[must_use]
    pub fn on(mut self, on: ServeOn) -> Self {
        self.on = on;
        self
    }

    /// Permits it to answer writes too.
    #[must_use]
    pub fn writes(mut self) -> Self {
        self.writes = true;
        self
    }

    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.fallback.problem()?;
        Some(format!(
            "its fallback {} could never answer: {problem}",
            self.name
        ))
    }

    /// Returns the dependency that it asks.
    pub(crate) fn asks(&self) -> Option<String> {
        self.depends_on.clone()
    }

    fn serves(&self, why: &CallError<D::Error>, write: bool) -> bool {
        let wanted = match self.on {
            ServeOn::Any => true,
            ServeOn::Refused => why.is_refusal(),
            ServeOn::Failed => !why.is_refusal(),
        };
        // FBK-2: a fallback serves the errors it is set up for, and a write only if it says so.
        wanted && (self.writes || !write)
    }
}

impl<D: Dependency> std::fmt::Debug for FallbackRule<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Rule")
            .field("name", &self.name)
            .field("on", &self.on)
            .field("writes", &self.writes)
            .finish_non_exhaustive()
    }
}

/// An answer of a fallback.
#[derive(Debug)]
pub(crate) struct FallbackAnswer<T> {
    pub(crate) value: T,
    pub(crate) name: Arc<str>,
    pub(crate) age: Option<Duration>,
}

/// The error of a call that no fallback has served, and an answer of one that counts as a failure.
pub(crate) type UnservedCall<D> = (
    CallError<<D as Dependency>::Error>,
    Option<FallbackAnswer<<D as Dependency>::Response>>,
);

/// A dependency's fallbacks, in order, and the mailbox of the actor that asks them.
pub(crate) struct Fallbacks<D: Dependency> {
    /// Replaced as a whole by a reload (rule CFG-2).
    set: ArcSwap<FallbackSet<D>>,
    /// False if there is any; read by every call.
    is_empty: AtomicBool,
    /// The version of the set; a call reads it if its answer may be kept.
    version: AtomicU64,
    /// True if others may take their place while the dependency runs.
    pub(crate) are_replaceable: bool,
    pub(crate) mail: StableMailbox<FallbackActor<D>>,
    /// Limits the requests that the actor may have at once (rule CALL-6).
    places: Arc<Semaphore>,
}

/// The fallbacks at one time, in order.
pub(crate) struct FallbackSet<D: Dependency> {
    pub(crate) rules: Vec<FallbackRule<D>>,
    version: u64,
}

impl<D: Dependency> FallbackSet<D> {
    fn new(mut rules: Vec<FallbackRule<D>>, version: u64, shared: &Shared) -> Self {
        for rule in &mut rules {
            rule.served = shared.fallback_counts.of(&rule.name);
        }
        Self { rules, version }
    }

    /// Returns the maximum time of all of them together; `None` if they have no limit.
    fn max_time(&self, shared: &Shared) -> Option<Duration> {
        let are_limited = self
            .rules
            .iter()
            .all(|rule| !rule.fallback.has_own_limits());
        let attempt = shared.settings().timeout.attempt.filter(|_| are_limited);
        let count = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        attempt.map(|attempt| attempt.saturating_mul(count))
    }
}

impl<D: Dependency> Fallbacks<D> {
    pub(crate) fn new(
        rules: Vec<FallbackRule<D>>,
        are_replaceable: bool,
        max_at_once: usize,
        shared: &Shared,
    ) -> Self {
        Self {
            is_empty: AtomicBool::new(rules.is_empty()),
            version: AtomicU64::new(0),
            set: ArcSwap::from_pointee(FallbackSet::new(rules, 0, shared)),
            are_replaceable,
            mail: StableMailbox::new(),
            places: Arc::new(Semaphore::new(max_at_once.min(Semaphore::MAX_PERMITS))),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Relaxed)
    }

    /// Returns true if there is an actor that asks them.
    pub(crate) fn need_actor(&self) -> bool {
        self.are_replaceable || !self.is_empty()
    }

    /// Returns the present version of the set, which changes when it is replaced.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Replaces them. Requests that are being answered keep the fallbacks they began with.
    ///
    /// Only one thread may replace them at a time.
    pub(crate) fn replace(&self, rules: Vec<FallbackRule<D>>, shared: &Shared) {
        let version = self.version() + 1;
        let is_empty = rules.is_empty();
        self.set
            .store(Arc::new(FallbackSet::new(rules, version, shared)));
        self.is_empty.store(is_empty, Ordering::Relaxed);
        self.version.store(version, Ordering::Release);
    }

    /// Returns the set that a call begins with, if others may take its place before the call ends.
    pub(crate) fn of_call(&self) -> Option<Arc<FallbackSet<D>>> {
        self.are_replaceable.then(|| self.set.load_full())
    }

    /// Returns the set that serves an error: the one that the call began with, else the present one.
    pub(crate) fn serving(
        &self,
        begun_with: Option<Arc<FallbackSet<D>>>,
        why: &CallError<D::Error>,
        write: bool,
    ) -> Option<Arc<FallbackSet<D>>> {
        let serves = |set: &FallbackSet<D>| set.rules.iter().any(|rule| rule.serves(why, write));
        if let Some(set) = begun_with.filter(|set| serves(set)) {
            // EDGE-6: a reload takes no answer away that either configuration gives.
            return Some(set);
        }
        let present = self.set.load();
        serves(&present).then(|| Arc::clone(&present))
    }

    pub(crate) fn served(&self, shared: &Shared) -> Vec<(String, u64)> {
        let set = self.set.load();
        let names = set.rules.iter().map(|rule| &*rule.name);
        shared.fallback_counts.read(names)
    }

    /// Returns the maximum time of all of them together; `None` if they have no limit.
    pub(crate) fn max_time(&self, shared: &Shared) -> Option<Duration> {
        self.set.load().max_time(shared)
    }

    /// Returns the dependencies that the fallbacks ask.
    pub(crate) fn depend_on(&self) -> Vec<String> {
        let set = self.set.load();
        let rules = set.rules.iter();
        rules.filter_map(|rule| rule.depends_on.clone()).collect()
    }

    /// Passes a success to the fallbacks that keep such answers; an answer is not always one: a tool
    /// may answer with its own error. `version`: of the set when the
    /// dependency was asked. After a replacement, the answer may be that of another server.
    pub(crate) fn remember(
        &self,
        version: u64,
        request: &D::Request,
        response: &D::Response,
        now: Time,
    ) {
        let set = self.set.load();
        if set.version != version {
            return;
        }
        for rule in &set.rules {
            // FBK-3: only answers of the dependency itself come here, never those of a fallback.
            rule.fallback.remember(request, response, now);
        }
    }

    /// Asks the actor; if no fallback of the set answers, the call ends with its error.
    ///
    /// After the caller's own deadline, only fallbacks that answer at once can serve.
    pub(crate) async fn answer(
        &self,
        shared: &Shared,
        set: Arc<FallbackSet<D>>,
        (request, write): (D::Request, bool),
        why: CallError<D::Error>,
        deadline: Option<Time>,
    ) -> Result<FallbackAnswer<D::Response>, UnservedCall<D>> {
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err((why, None));
        };
        let began = shared.clock.now();
        let until = self.waits_until(shared, &set, began, deadline);
        let why = Arc::new(Mutex::new(Some(UnservedState::of(why))));
        let (reply, answer) = oneshot::channel();
        self.mail.addr.do_send(ServeFallback {
            set,
            request,
            write,
            deadline,
            debt: PendingReply {
                name: Arc::clone(&shared.name),
                why: Arc::clone(&why),
                reply: Some(reply),
            },
        });
        let answered = bounded(&shared.clock, until, answer).await;
        if let Some(answered) = answered {
            return answered.unwrap_or_else(|_actor_gone| {
                let error = CallError::Interrupted {
                    dependency: Arc::clone(&shared.name),
                    cause: StopCause::Lost,
                };
                Err((error, None))
            });
        }
        // CALL-9: a fallback that blocks its thread does not hold its caller. The fallback may hold
        // the error too, while it begins.
        let kept = match why.try_lock() {
            Ok(mut why) => why.take(),
            // A fallback has panicked.
            Err(TryLockError::Poisoned(why)) => why.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(kept) = kept {
            return Err(kept.into_unserved(&shared.name, "it did not end in time"));
        }
        let now = shared.clock.now();
        // Each fallback has as long as an attempt.
        let limit = match deadline {
            Some(deadline) if deadline <= now => TimeLimit::Caller,
            _ => TimeLimit::Attempt,
        };
        let exceeded = (limit, now.since(began));
        let name = Arc::clone(&shared.name);
        // CALL-2: the fallback that holds the error has begun.
        let error = CallError::timed_out(name, exceeded, Executed::Maybe);
        Err((error, None))
    }

    /// The time after which no fallback can answer any more that keeps its limits. The actor ends
    /// those in time that do not block its thread, so it gets a moment more.
    fn waits_until(
        &self,
        shared: &Shared,
        set: &FallbackSet<D>,
        now: Time,
        deadline: Option<Time>,
    ) -> Option<Time> {
        const MOMENT: Duration = Duration::from_millis(5);
        let all = set.max_time(shared).map(|all| now.after(all));
        // After its deadline, a caller still gets an answer that is there at once.
        let deadline = deadline.map(|deadline| deadline.max(now));
        earliest(all, deadline).map(|until| until.after(MOMENT))
    }
}
