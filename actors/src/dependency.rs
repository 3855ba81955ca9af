//! The user's dependency, and the state shared by the actors around one.
//!
//! It makes no policy decision of its own: the breaker judges, the bulkhead counts, and the route
//! selects the source of answers.

mod late;

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use breakerbox_policy::{
    Budget, Class, DependencySettings, Executed, RetrySettings, Symptom, Time,
};
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use crate::bulkhead::Bulkhead;
use crate::chaos::ChaosSwitch;
use crate::circuit::{KeyedBreakers, SharedBreaker};
use crate::clock::Clock;
use crate::counts::Counts;
use crate::error::NotExecutedReason;
use crate::event::EventBus;
use crate::message::BreakerPort;
use crate::published::ThreadCached;
use crate::quarantine::Quarantine;
use crate::rate::RateLimit;
use crate::record::OutcomeRecorder;
use crate::setup::Misconfiguration;
use crate::terms::CallSettings;
use crate::throttle::PauseState;
use crate::totals::Totals;

pub use late::{TimeLimit, TimeLimitExceeded};

/// An external service that is called and can fail: an API, a database, a model.
///
/// A worker actor owns one value of it. After a panic the value is dropped and the factory makes a
/// new one, so keep connections in it, not results.
///
/// # Cancel safety   `call` is dropped when its caller is gone or its time is over; run work that
/// must not be interrupted in a task of its own.
pub trait Dependency: 'static {
    /// The request. It is cloned if a retry or a fallback may need it again: put large parts behind
    /// an `Arc`.
    type Request: Clone + Send + 'static;
    /// The response.
    type Response: Send + 'static;
    /// The error of a failed attempt.
    type Error: Debug + Display + Send + 'static;

    /// Makes one attempt.
    fn call(
        &self,
        request: Self::Request,
        call: &CallContext,
    ) -> impl Future<Output = Result<Self::Response, Self::Error>>;

    /// Resolves, with the reason, when this value can serve no more: its process or its connection
    /// is gone, or hangs. Its worker then ends as failed, and the supervisor applies its restart
    /// rules. Calls in flight end with the result that `call` gives in the same poll of the worker,
    /// else as interrupted. Queued calls are served by the next incarnation. By default it never
    /// resolves.
    ///
    /// It is polled beside the calls, in each poll of the worker, as long as the worker lives: a
    /// caller on the worker's thread may be served once more before the next of these polls.
    fn ended(&self) -> impl Future<Output = String> {
        std::future::pending()
    }

    /// Shuts the value down, after an orderly stop of the worker and the end of its last call. It
    /// must finish before the worker's deadline (`workers.drain`). After that deadline, and after a
    /// crash, the value is dropped without it. By default it does nothing.
    fn close(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Classifies the result of an attempt (rule BRK-7). By default every error counts against the
    /// dependency.
    #[must_use]
    fn classify(result: Result<&Self::Response, &Self::Error>) -> Verdict {
        match result {
            Ok(_) => Verdict::from(Class::Success),
            Err(_) => Verdict::from(Class::Failure),
        }
    }

    /// Returns true if this request may be executed twice without harm (rule CALL-7). False by
    /// default.
    #[must_use]
    fn is_idempotent(request: &Self::Request) -> bool {
        let _ = request;
        false
    }

    /// Returns true if this request changes something. A fallback answers a write only if it
    /// declares so (rule FBK-2). False by default.
    #[must_use]
    fn is_write(request: &Self::Request) -> bool {
        let _ = request;
        false
    }

    /// Returns the key of the breaker for this request, if the dependency has one breaker for each
    /// tenant, model or credential. The key appears in events and in the status: return a name,
    /// never a secret. By default there is one breaker for all requests.
    #[must_use]
    fn key(request: &Self::Request) -> Option<Cow<'_, str>> {
        let _ = request;
        None
    }

    /// Returns the units of the rate limit that this request takes, such as its tokens (rule
    /// LIM-3). One by default.
    #[must_use]
    fn weight(request: &Self::Request) -> NonZeroU32 {
        let _ = request;
        NonZeroU32::MIN
    }

    /// Returns a fingerprint shared by all requests that do the same. Requests that crash workers
    /// again and again are refused by it (rule SUP-6). By default there is none, and no request is
    /// refused.
    #[must_use]
    fn fingerprint(request: &Self::Request) -> Option<u64> {
        let _ = request;
        None
    }
}

/// A class, with further information from the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// `Retry-After`, as a span from now.
    pub retry_after: Option<Duration>,
    /// The kind of error, if it is a general one; `retry.on` selects by it.
    pub symptom: Option<Symptom>,
    /// True if the throttled call has used up a quota, which stays used up until its reset.
    pub quota_used_up: bool,
    /// Execution of a failed attempt's work; `Yes` by default.
    pub executed: Executed,
    /// True if the settings decide the class of the symptom.
    by_settings: bool,
}

impl From<Class> for Verdict {
    fn from(class: Class) -> Self {
        Self {
            class,
            retry_after: None,
            symptom: None,
            quota_used_up: false,
            executed: Executed::Yes,
            by_settings: false,
        }
    }
}

/// The settings decide the class of the symptom (`classify`).
impl From<Symptom> for Verdict {
    fn from(symptom: Symptom) -> Self {
        Self {
            symptom: Some(symptom),
            by_settings: true,
            ..Self::from(Class::Failure)
        }
    }
}

impl Verdict {
    /// The default verdict on a result: an error is a failure.
    pub(crate) fn by_result<T, E>(result: &Result<T, E>) -> Self {
        Self::from(if result.is_ok() {
            Class::Success
        } else {
            Class::Failure
        })
    }

    /// Returns the verdict with the class of its symptom decided by the settings, if that is left
    /// to them.
    pub(crate) fn judged(mut self, shared: &Shared) -> Self {
        if let (true, Some(symptom)) = (self.by_settings, self.symptom) {
            self.class = shared.settings().classify.class_of(symptom);
        }
        self
    }

    /// Returns true if no failure is known without the settings.
    pub(crate) fn is_good(&self) -> bool {
        self.by_settings || self.class == Class::Success
    }

    /// A throttle that lasts: the quota is used up. No call goes out for the time of the hint, or
    /// without a hint until `throttle.quota_reset`.
    #[must_use]
    pub fn quota_used_up() -> Self {
        Self {
            quota_used_up: true,
            ..Self::from(Class::Throttled)
        }
    }

    /// Adds a symptom and keeps the class, even if the settings classify the symptom otherwise.
    #[must_use]
    pub fn symptom(self, symptom: Symptom) -> Self {
        Self {
            symptom: Some(symptom),
            ..self
        }
    }

    /// Sets whether the work was executed: `No` permits a repetition anywhere; `Maybe` is for an
    /// answer that was lost (rule CALL-2).
    #[must_use]
    pub fn executed(self, executed: Executed) -> Self {
        Self { executed, ..self }
    }

    /// Sets the `retry_after` hint.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }
}

/// The information about a call that its dependency may use.
#[derive(Debug, Clone)]
pub struct CallContext {
    pub(crate) shared: Arc<PerWorker>,
    pub(crate) attempt: u32,
    pub(crate) deadline: Option<Time>,
}

/// The shared state, with a separate reference count for each worker's calls: a single count would
/// be contended by all threads.
pub(crate) type PerWorker = CachePadded<Arc<Shared>>;

impl CallContext {
    /// Returns the dependency's name.
    #[must_use]
    pub fn dependency(&self) -> &str {
        &self.shared.name
    }

    /// Returns the number of this attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the remaining time of the call; `None` if it has no deadline.
    ///
    /// Pass it on to further calls.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.since(self.shared.clock.now()))
    }

    /// Reports a problem of a dependency that still answers: its status is degraded with this text,
    /// until `None` clears it. The breaker ignores it.
    pub fn complain(&self, what: Option<String>) {
        let complaint = &self.shared.complaint;
        if what.is_some() || complaint.load().is_some() {
            complaint.store(what.map(Arc::new));
        }
    }
}

/// The source of answers at present. Written by the supervisor, read by all callers.
///
/// # Source  docs/architecture.md, "One crash": the supervisor owns each dependency's route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The workers.
    Workers = 0,
    /// None: too many crashes.
    Parked = 1,
    /// The workers, for calls that were accepted before.
    Draining = 2,
    /// None: stopped for good.
    Stopped = 3,
    /// The fallbacks, always; there are no workers.
    FallbackOnly = 4,
}

/// The state shared by all actors around one dependency, independent of its type.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    /// Replaced as a whole by a reload (rule CFG-2).
    settings: ArcSwap<DependencySettings>,
    /// The settings that each call needs: a packed [`CallSettings`].
    terms: AtomicU64,
    pub(crate) clock: Clock,
    /// The breaker of the dependency as a whole.
    pub(crate) circuit: SharedBreaker,
    /// The breakers of its keys.
    pub(crate) keys: KeyedBreakers,
    /// The retry budget of all callers together.
    pub(crate) budget: Mutex<Option<RetryBudget>>,
    /// Number of fallback answers in the present outage.
    pub(crate) outage: AtomicU64,
    /// Time of the latest fallback answer, in nanoseconds.
    pub(crate) last_fallback: AtomicU64,
    /// The breaker's generation at that time.
    pub(crate) last_fallback_tag: AtomicU64,
    /// The problem that the dependency reports, though it answers.
    pub(crate) complaint: ArcSwapOption<String>,
    /// The address of the breaker actor.
    pub(crate) breaker: OnceLock<BreakerPort>,
    /// The rate limit, if there is one.
    pub(crate) rate: ThreadCached<RateLimit>,
    /// True if there is a rate limit; read first, to save the lookup.
    is_rated: AtomicBool,
    /// The pauses that the dependency asked for.
    pub(crate) pauses: PauseState,
    /// The state of our configuration at the dependency: refused or not.
    pub(crate) setup: Misconfiguration,
    /// Fault injection.
    pub(crate) drill: ChaosSwitch,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) totals: Totals,
    pub(crate) counts: Counts,
    pub(crate) events: EventBus,
    /// Receives the outcomes of attempts.
    pub(crate) recorder: Option<Arc<dyn OutcomeRecorder>>,
    route: AtomicU8,
    /// Notified when a call ends while draining.
    pub(crate) drained: Notify,
}

/// The kernel's budget, and the number of calls paid into it.
///
/// Calls are paid in only when a retry wants to withdraw: a call that succeeds at once never
/// touches the budget.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    pub(crate) kernel: Budget,
    pub(crate) deposited: u64,
    /// Attempts granted by the budgets before this one.
    granted_before: u64,
}

impl RetryBudget {
    /// Returns the number of granted attempts beyond the first, hedges included.
    pub(crate) fn granted(&self) -> u64 {
        self.granted_before + self.kernel.granted()
    }
}

impl Shared {
    pub(crate) fn new(
        name: Arc<str>,
        settings: DependencySettings,
        clock: Clock,
        events: EventBus,
        recorder: Option<Arc<dyn OutcomeRecorder>>,
    ) -> Self {
        let now = clock.now();
        let retry = settings.retry.clone();
        let circuit = SharedBreaker::new(Arc::clone(&name), None, &settings.breaker, now);
        let rate = |rate| RateLimit::new(rate, clock.clone());
        let shared = Self {
            circuit,
            keys: KeyedBreakers::default(),
            name,
            budget: Mutex::new(None),
            outage: AtomicU64::new(0),
            last_fallback: AtomicU64::new(0),
            last_fallback_tag: AtomicU64::new(0),
            complaint: ArcSwapOption::empty(),
            breaker: OnceLock::new(),
            rate: ThreadCached::new(settings.rate_limit.as_ref().map(rate)),
            is_rated: AtomicBool::new(settings.rate_limit.is_some()),
            pauses: PauseState::default(),
            setup: Misconfiguration::default(),
            drill: ChaosSwitch::default(),
            bulkhead: Bulkhead::new(&settings.bulkhead),
            quarantine: settings.workers.quarantine.map(Quarantine::new),
            totals: Totals::new(),
            counts: Counts::default(),
            events,
            recorder,
            route: AtomicU8::new(Route::Workers as u8),
            drained: Notify::new(),
            terms: AtomicU64::new(CallSettings::of(&settings).word()),
            settings: ArcSwap::from_pointee(settings),
            clock,
        };
        let budget = shared.new_budget(&retry);
        *shared.budget.lock().unwrap_or_else(PoisonError::into_inner) = budget;
        shared.drill.set(shared.settings().chaos, now);
        shared
    }

    /// Returns the present settings; hold the guard only for the time of one decision.
    #[inline]
    pub(crate) fn settings(&self) -> Guard<Arc<DependencySettings>> {
        self.settings.load()
    }

    /// Returns the settings of a call that is made at this moment.
    #[inline]
    pub(crate) fn terms(&self) -> CallSettings {
        let terms = CallSettings::from_word(self.terms.load(Ordering::Acquire));
        terms.unwrap_or_else(|| CallSettings::of(&self.settings()))
    }

    /// Replaces the settings, except those of the breakers. Counters and learned values are kept.
    ///
    /// # Source  Rule CFG-2.
    pub(crate) fn reconfigure(&self, settings: DependencySettings) {
        let old = self.settings.swap(Arc::new(settings));
        let new = self.settings();
        self.terms
            .store(CallSettings::of(&new).word(), Ordering::Release);
        if old.retry.budget != new.retry.budget {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            let granted = budget.as_ref().map_or(0, RetryBudget::granted);
            *budget = self.new_budget(&new.retry).map(|new| RetryBudget {
                granted_before: granted,
                ..new
            });
        }
        if old.rate_limit != new.rate_limit {
            let rate = new.rate_limit.as_ref();
            let rate = rate.map(|rate| RateLimit::new(rate, self.clock.clone()));
            self.is_rated.store(rate.is_some(), Ordering::Release);
            self.rate.replace(rate);
        }
        if old.bulkhead != new.bulkhead {
            self.bulkhead.resize(&new.bulkhead);
        }
        if old.chaos != new.chaos {
            self.drill.set(new.chaos, self.clock.now());
        }
    }

    #[inline]
    pub(crate) fn is_rated(&self) -> bool {
        self.is_rated.load(Ordering::Acquire)
    }

    fn new_budget(&self, settings: &RetrySettings) -> Option<RetryBudget> {
        let now = self.clock.now();
        let budget = settings.budget.as_ref();
        Some(RetryBudget {
            kernel: budget
                .map_or_else(|| Budget::unlimited(now), |budget| Budget::new(budget, now)),
            deposited: self.totals.submitted(),
            granted_before: 0,
        })
    }

    /// Returns the breaker for a call with this key: the key's own if there is room for it, else
    /// `None` for the dependency's.
    pub(crate) fn circuit_of(&self, key: &str, now: Time) -> Option<Arc<SharedBreaker>> {
        let room = self.settings().keys;
        self.keys.get(key, &room, now, |key| {
            // Loaded here, because older settings, from before a reload, would stay with the key.
            let breaker = &self.settings().breaker;
            SharedBreaker::new(Arc::clone(&self.name), Some(key), breaker, now)
        })
    }

    #[inline]
    pub(crate) fn route(&self) -> Route {
        match self.route.load(Ordering::Acquire) {
            0 => Route::Workers,
            1 => Route::Parked,
            2 => Route::Draining,
            4 => Route::FallbackOnly,
            _ => Route::Stopped,
        }
    }

    /// Changes the route; `Stopped` is final.
    pub(crate) fn set_route(&self, route: Route) {
        let _ = self
            .route
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now != Route::Stopped as u8).then_some(route as u8)
            });
        self.drained.notify_waiters();
    }

    /// Returns the reason why a call that was not begun will not be executed.
    pub(crate) fn absence(&self) -> NotExecutedReason {
        match self.route() {
            Route::Workers => NotExecutedReason::Restarting,
            Route::FallbackOnly => NotExecutedReason::FallbackOnly,
            Route::Parked => NotExecutedReason::Parked,
            Route::Draining | Route::Stopped => NotExecutedReason::ShuttingDown,
        }
    }

    /// Tells the drain that one call less is pending.
    pub(crate) fn call_ended(&self) {
        if self.route.load(Ordering::Relaxed) == Route::Draining as u8 {
            self.drained.notify_waiters();
        }
    }
}
