//! What a user's dependency is, and what the actors around one share.
//!
//! It holds no policy of its own: the breaker judges, the bulkhead counts, the route says who
//! answers.

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
use crate::chaos::Drill;
use crate::circuit::{Circuit, Keyring};
use crate::clock::Clock;
use crate::counts::Counts;
use crate::error::Absence;
use crate::event::EventBus;
use crate::message::BreakerPort;
use crate::published::Published;
use crate::quarantine::Quarantine;
use crate::rate::RateLimit;
use crate::record::Record;
use crate::setup::Setup;
use crate::terms::Terms;
use crate::throttle::Pauses;
use crate::totals::Totals;

pub use late::{Late, TimeLimit};

/// Something outside that is called and can fail: an API, a database, a model.
///
/// A worker actor owns one value of it. After a panic the value is thrown away and the factory
/// makes a new one, so keep connections in it, not results.
///
/// # Cancel safety   `call` is dropped when its caller goes away or its time is over; work that
/// must not be cut in the middle belongs into a task of its own.
pub trait Dependency: 'static {
    /// What is asked. It is cloned when a retry or a fallback may need it again: put large parts
    /// behind an `Arc`.
    type Request: Clone + Send + 'static;
    /// What is answered.
    type Response: Send + 'static;
    /// How it fails.
    type Error: Debug + Display + Send + 'static;

    /// Makes one attempt.
    fn call(
        &self,
        request: Self::Request,
        call: &CallContext,
    ) -> impl Future<Output = Result<Self::Response, Self::Error>>;

    /// Resolves when this value can serve no more, and says why: its process or its connection has
    /// gone, or hangs. Its worker ends as failed then, and its supervisor goes by its rules. Calls
    /// in flight end with what `call` says of it in the same turn, else as interrupted; those that
    /// wait are served by the next life. By default that never happens.
    ///
    /// It is polled beside the calls for as long as the worker lives, in the worker's own turns: a
    /// caller on its thread may be served once more before the next of them.
    fn ended(&self) -> impl Future<Output = String> {
        std::future::pending()
    }

    /// Says goodbye, when the worker is stopped in an orderly way and its last call has ended. It
    /// has until the worker's deadline (`workers.drain`); then, as after a crash, the value is
    /// dropped without it. By default there is nothing to do.
    fn close(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Says what an attempt came to (rule BRK-7). By default every error is the dependency's.
    #[must_use]
    fn classify(result: Result<&Self::Response, &Self::Error>) -> Verdict {
        match result {
            Ok(_) => Verdict::from(Class::Success),
            Err(_) => Verdict::from(Class::Failure),
        }
    }

    /// Whether this request may be executed twice without harm (rule CALL-7). By default not.
    #[must_use]
    fn is_idempotent(request: &Self::Request) -> bool {
        let _ = request;
        false
    }

    /// Whether this request changes something. A fallback never answers it, unless it says so
    /// (rule FBK-2). By default not.
    #[must_use]
    fn is_write(request: &Self::Request) -> bool {
        let _ = request;
        false
    }

    /// Whose breaker this request goes by, where a dependency has one for each tenant, model or
    /// credential. It stands in events and in the status: give a name, never a secret. By default
    /// there is one breaker for all.
    #[must_use]
    fn key(request: &Self::Request) -> Option<Cow<'_, str>> {
        let _ = request;
        None
    }

    /// How much of the rate limit this request takes, such as its tokens (rule LIM-3). By default
    /// one unit.
    #[must_use]
    fn weight(request: &Self::Request) -> NonZeroU32 {
        let _ = request;
        NonZeroU32::MIN
    }

    /// What requests that do the same have in common: those that crash workers again and again
    /// are refused (rule SUP-6). By default nothing, and nothing is refused.
    #[must_use]
    fn fingerprint(request: &Self::Request) -> Option<u64> {
        let _ = request;
        None
    }
}

/// A class, with what else the dependency let know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// `Retry-After`, as a span from now.
    pub retry_after: Option<Duration>,
    /// What went wrong, where it can be said in general; `retry.on` asks for it.
    pub symptom: Option<Symptom>,
    /// Whether what is throttled is a quota that is used up, and stays so until it is full again.
    pub quota_used_up: bool,
    /// Whether an attempt that failed did its work all the same; by default it did what it could.
    pub executed: Executed,
    /// Whether the settings have the last word on what the symptom counts for.
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

/// The settings say what the symptom counts for (`classify`).
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
    /// What every result counts for that nobody else judges: an error is a failure.
    pub(crate) fn by_result<T, E>(result: &Result<T, E>) -> Self {
        Self::from(if result.is_ok() {
            Class::Success
        } else {
            Class::Failure
        })
    }

    /// The same, with the settings' word on its symptom.
    pub(crate) fn judged(mut self, shared: &Shared) -> Self {
        if let (true, Some(symptom)) = (self.by_settings, self.symptom) {
            self.class = shared.settings().classify.class_of(symptom);
        }
        self
    }

    /// Whether nothing is wrong, as far as it can be said without the settings.
    pub(crate) fn is_good(&self) -> bool {
        self.by_settings || self.class == Class::Success
    }

    /// A throttle that lasts: the quota is used up. With a hint it is left alone for that long,
    /// else until `throttle.quota_reset`.
    #[must_use]
    pub fn quota_used_up() -> Self {
        Self {
            quota_used_up: true,
            ..Self::from(Class::Throttled)
        }
    }

    /// A class of its own for a symptom that the settings might see otherwise.
    #[must_use]
    pub fn symptom(self, symptom: Symptom) -> Self {
        Self {
            symptom: Some(symptom),
            ..self
        }
    }

    /// The same, with a word on whether the work was done: `No` lets it be repeated anywhere, and
    /// `Maybe` is for an answer that was lost (rule CALL-2).
    #[must_use]
    pub fn executed(self, executed: Executed) -> Self {
        Self { executed, ..self }
    }

    /// The same, with a hint.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }
}

/// What a dependency may know of the call that it executes.
#[derive(Debug, Clone)]
pub struct CallContext {
    pub(crate) shared: Arc<PerWorker>,
    pub(crate) attempt: u32,
    pub(crate) deadline: Option<Time>,
}

/// What is shared, with a count of its own for the calls of each worker: one count of all of them
/// would be what their threads wait for.
pub(crate) type PerWorker = CachePadded<Arc<Shared>>;

impl CallContext {
    /// The dependency's name.
    #[must_use]
    pub fn dependency(&self) -> &str {
        &self.shared.name
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How much of the call's time is left; `None` when it has no deadline.
    ///
    /// Pass it on to whatever is called further in.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.since(self.shared.clock.now()))
    }

    /// Says what is wrong with a dependency that answers all the same: it is degraded with these
    /// words, until `None` takes them back. The breaker hears nothing of it.
    pub fn complain(&self, what: Option<String>) {
        let complaint = &self.shared.complaint;
        if what.is_some() || complaint.load().is_some() {
            complaint.store(what.map(Arc::new));
        }
    }
}

/// Who answers calls now. Owned by the supervisor, read by everyone.
///
/// # Source  DESIGN §1: the supervisor owns the route of each dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The workers.
    Workers = 0,
    /// Nobody: too many crashes.
    Parked = 1,
    /// The workers, for calls that were accepted before.
    Draining = 2,
    /// Nobody any more.
    Stopped = 3,
    /// The fallbacks, always; there are no workers.
    FallbackOnly = 4,
}

/// What everyone around one dependency shares, whatever it is a dependency on.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    /// Replaced as a whole by a reload (rule CFG-2).
    settings: ArcSwap<DependencySettings>,
    /// What each call needs of them: a [`Terms`] word.
    terms: AtomicU64,
    pub(crate) clock: Clock,
    /// The breaker of the dependency as a whole.
    pub(crate) circuit: Circuit,
    /// The breakers of its keys.
    pub(crate) keys: Keyring,
    /// What the callers together may retry.
    pub(crate) budget: Mutex<Option<RetryBudget>>,
    /// Fallback answers of the present outage.
    pub(crate) outage: AtomicU64,
    /// When a fallback last answered, in nanoseconds.
    pub(crate) last_fallback: AtomicU64,
    /// The breaker's generation then.
    pub(crate) last_fallback_tag: AtomicU64,
    /// What the dependency says is wrong with it, though it answers.
    pub(crate) complaint: ArcSwapOption<String>,
    /// How the breaker actor is reached.
    pub(crate) breaker: OnceLock<BreakerPort>,
    /// How many calls may go out in each interval, where that is limited.
    pub(crate) rate: Published<RateLimit>,
    /// Whether there is one, for those who would look in vain.
    is_rated: AtomicBool,
    /// The pauses that it asked for.
    pub(crate) pauses: Pauses,
    /// Whether it takes our set-up.
    pub(crate) setup: Setup,
    /// Faults on purpose.
    pub(crate) drill: Drill,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) totals: Totals,
    pub(crate) counts: Counts,
    pub(crate) events: EventBus,
    /// Who keeps what attempts came to.
    pub(crate) recorder: Option<Arc<dyn Record>>,
    route: AtomicU8,
    /// Told when a call ends while draining.
    pub(crate) drained: Notify,
}

/// The kernel's budget, and how many of the calls have been paid into it.
///
/// Calls pay in when somebody wants to take out: no call that succeeds at once touches it.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    pub(crate) kernel: Budget,
    pub(crate) deposited: u64,
    /// What the budgets before it had granted.
    granted_before: u64,
}

impl RetryBudget {
    /// Attempts beyond the first that were granted, those beside another one among them.
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
        recorder: Option<Arc<dyn Record>>,
    ) -> Self {
        let now = clock.now();
        let retry = settings.retry.clone();
        let circuit = Circuit::new(Arc::clone(&name), None, &settings.breaker, now);
        let rate = |rate| RateLimit::new(rate, clock.clone());
        let shared = Self {
            circuit,
            keys: Keyring::default(),
            name,
            budget: Mutex::new(None),
            outage: AtomicU64::new(0),
            last_fallback: AtomicU64::new(0),
            last_fallback_tag: AtomicU64::new(0),
            complaint: ArcSwapOption::empty(),
            breaker: OnceLock::new(),
            rate: Published::new(settings.rate_limit.as_ref().map(rate)),
            is_rated: AtomicBool::new(settings.rate_limit.is_some()),
            pauses: Pauses::default(),
            setup: Setup::default(),
            drill: Drill::default(),
            bulkhead: Bulkhead::new(&settings.bulkhead),
            quarantine: settings.workers.quarantine.map(Quarantine::new),
            totals: Totals::new(),
            counts: Counts::default(),
            events,
            recorder,
            route: AtomicU8::new(Route::Workers as u8),
            drained: Notify::new(),
            terms: AtomicU64::new(Terms::of(&settings).word()),
            settings: ArcSwap::from_pointee(settings),
            clock,
        };
        let budget = shared.new_budget(&retry);
        *shared.budget.lock().unwrap_or_else(PoisonError::into_inner) = budget;
        shared.drill.set(shared.settings().chaos, now);
        shared
    }

    /// The settings of this moment; hold them for as short as a decision takes.
    #[inline]
    pub(crate) fn settings(&self) -> Guard<Arc<DependencySettings>> {
        self.settings.load()
    }

    /// What a call that is made at this moment goes by.
    #[inline]
    pub(crate) fn terms(&self) -> Terms {
        let terms = Terms::from_word(self.terms.load(Ordering::Acquire));
        terms.unwrap_or_else(|| Terms::of(&self.settings()))
    }

    /// Takes new settings over, the breakers' left out. What is counted and learnt is kept.
    ///
    /// # Source  Rule CFG-2.
    pub(crate) fn reconfigure(&self, settings: DependencySettings) {
        let old = self.settings.swap(Arc::new(settings));
        let new = self.settings();
        self.terms.store(Terms::of(&new).word(), Ordering::Release);
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

    /// The breaker that a call of this key goes by: the key's own where there is room for it,
    /// else `None` for the dependency's.
    pub(crate) fn circuit_of(&self, key: &str, now: Time) -> Option<Arc<Circuit>> {
        let room = self.settings().keys;
        self.keys.get(key, &room, now, |key| {
            // Looked up now: older ones, from before a reload, would stay with the key.
            let breaker = &self.settings().breaker;
            Circuit::new(Arc::clone(&self.name), Some(key), breaker, now)
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

    /// Changes the route; once stopped it stays so.
    pub(crate) fn set_route(&self, route: Route) {
        let _ = self
            .route
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now != Route::Stopped as u8).then_some(route as u8)
            });
        self.drained.notify_waiters();
    }

    /// Why a call that was not begun will not be.
    pub(crate) fn absence(&self) -> Absence {
        match self.route() {
            Route::Workers => Absence::Restarting,
            Route::FallbackOnly => Absence::FallbackOnly,
            Route::Parked => Absence::Parked,
            Route::Draining | Route::Stopped => Absence::ShuttingDown,
        }
    }

    /// Tells whoever drains that one call less is pending.
    pub(crate) fn call_ended(&self) {
        if self.route.load(Ordering::Relaxed) == Route::Draining as u8 {
            self.drained.notify_waiters();
        }
    }
}
