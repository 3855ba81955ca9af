//! The state shared by the actors around one dependency, and its books.
//!
//! It makes no policy decision of its own: the breaker judges, the bulkhead counts, and the route
//! selects the source of answers.

pub(crate) mod call_hold;

pub(crate) mod call_record;

pub(crate) mod call_settings;

pub(crate) mod configured;

pub(crate) mod counts;

pub(crate) mod fallback_counts;

mod key_breakers;

pub(crate) mod misconfiguration;
mod time_limits;

pub(crate) mod outages;

pub(crate) mod recorder;

pub(crate) mod shared_drain;

pub(crate) mod thread_cached;

pub(crate) mod totals;

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use breakerbox_policy::{
    Budget, ChaosSettings, Class, DependencySettings, Pause, RetrySettings, Ticket, Time,
};
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use crate::attempt_progress::SlotDemand;
use crate::breaker::BreakerDesk;
use crate::breaker::active_probe::ActiveProbeStatus;
use crate::breaker::keyed::KeyedBreakers;
use crate::breaker::shared::SharedBreaker;
use crate::clock::Clock;
use crate::error::{CallError, Limit, NotExecutedReason};
use crate::event::{EventBus, EventKind};
use crate::limits::bulkhead::Bulkhead;
use crate::limits::chaos::ChaosSwitch;
use crate::limits::pause::{CallPauses, PauseState};
use crate::limits::quarantine::Quarantine;
use crate::limits::rate::RateLimit;
use crate::limits::rate::share::RateShare;
use crate::sync::{LockExt, Mutex};
use crate::verdict::Verdict;
use call_settings::CallSettings;
use counts::MetricCounts;
use fallback_counts::FallbackCounts;
use misconfiguration::MisconfigurationState;
use outages::OutageState;
use recorder::OutcomeRecorder;
use shared_drain::SharedDrain;
use thread_cached::ThreadCached;
use totals::Totals;

/// The shared state, with a separate reference count for each worker's calls: a single count would
/// be contended by all threads.
pub(crate) type PerWorker = CachePadded<Arc<Shared>>;

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
    /// The fallbacks, always; the workers are not called.
    FallbackOnly = 4,
}

/// Mark beside the route: the settings say that only the fallbacks answer. It covers
/// [`Route::Workers`] and [`Route::Parked`], and reveals them when it is removed.
const FALLBACK_ONLY: u8 = 8;

/// Number of dependencies so far, for [`Shared::life`].
static LIVES: AtomicU64 = AtomicU64::new(0);

/// The state shared by all actors around one dependency, independent of its type.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    /// Tells the dependency apart from an earlier one of its name. A replacement keeps it.
    pub(crate) life: u64,
    /// Replaced as a whole by a reload (rule CFG-2).
    settings: ArcSwap<DependencySettings>,
    /// Held while they are replaced.
    replacing: Mutex<()>,
    /// The part of the settings that every call reads.
    call_settings: ThreadCached<CallSettings>,
    pub(crate) clock: Clock,
    /// The breaker of the dependency as a whole.
    pub(crate) breaker: SharedBreaker,
    /// The breakers of its keys.
    pub(crate) keys: KeyedBreakers,
    /// The retry budget of all callers together.
    pub(crate) budget: Mutex<Option<RetryBudget>>,
    /// Number of live replicas of the fleet, this one among them, as it was last known.
    replicas: AtomicU32,
    /// Number of fallback answers in the present outage.
    pub(crate) outage: AtomicU64,
    /// Time of the latest fallback answer, in nanoseconds.
    pub(crate) last_fallback: AtomicU64,
    /// The breaker's generation at that time.
    pub(crate) last_fallback_tag: AtomicU64,
    /// The problem that the dependency reports, though it answers.
    pub(crate) complaint: ArcSwapOption<String>,
    /// Probes that the program makes by itself; `None` if it makes none.
    pub(crate) active_probes: ArcSwapOption<ActiveProbeStatus>,
    /// Why a worker does not run; `None` while one runs, or before a failure.
    pub(crate) worker_failure: ArcSwapOption<String>,
    /// The latest reason for which the supervisor forced the breaker open.
    pub(crate) park_reason: ArcSwapOption<String>,
    /// The timers and events of the breakers.
    pub(crate) desk: BreakerDesk,
    /// Answers of each fallback, by its name.
    pub(crate) fallback_counts: FallbackCounts,
    /// The rate limit, if there is one.
    pub(crate) rate: ThreadCached<Option<RateLimit>>,
    /// The pauses of all callers. A key's own are with its breaker.
    pub(crate) pauses: PauseState,
    /// The state of our configuration at the dependency: refused or not.
    pub(crate) misconfiguration: MisconfigurationState,
    pub(crate) outages: OutageState,
    /// Fault injection.
    pub(crate) chaos: ChaosSwitch,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) totals: Totals,
    pub(crate) counts: MetricCounts,
    pub(crate) events: EventBus,
    /// Receives the outcomes of attempts.
    pub(crate) recorder: Option<Arc<dyn OutcomeRecorder>>,
    route: AtomicU8,
    /// Notified when a call ends while draining.
    pub(crate) drained: Notify,
    drains_with: OnceLock<Arc<SharedDrain>>,
}

/// The kernel's budget, and the number of calls paid into it.
///
/// Calls are paid in only when a retry wants to withdraw: a call that succeeds at once never
/// touches the budget.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    pub(crate) kernel: Budget,
    pub(crate) deposited: u64,
}

impl SlotDemand for Shared {
    fn is_full(&self, kind: Ticket) -> bool {
        self.bulkhead.is_full(kind)
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
        let breaker = SharedBreaker::new(Arc::clone(&name), None, &settings.breaker, now);
        let sharing = settings.rate_sharing;
        let rate = |rate| RateLimit::renewed((rate, sharing), clock.clone(), None, 1);
        let shared = Self {
            breaker,
            keys: KeyedBreakers::default(),
            name,
            life: LIVES.fetch_add(1, Ordering::Relaxed),
            budget: Mutex::new(None),
            replicas: AtomicU32::new(1),
            outage: AtomicU64::new(0),
            last_fallback: AtomicU64::new(0),
            last_fallback_tag: AtomicU64::new(0),
            complaint: ArcSwapOption::empty(),
            active_probes: ArcSwapOption::empty(),
            worker_failure: ArcSwapOption::empty(),
            park_reason: ArcSwapOption::empty(),
            desk: BreakerDesk::default(),
            fallback_counts: FallbackCounts::default(),
            rate: ThreadCached::new(settings.rate_limit.as_ref().map(rate)),
            pauses: PauseState::default(),
            misconfiguration: MisconfigurationState::default(),
            outages: OutageState::default(),
            chaos: ChaosSwitch::default(),
            bulkhead: Bulkhead::new(&settings.bulkhead),
            quarantine: settings.workers.quarantine.map(Quarantine::new),
            totals: Totals::new(),
            counts: MetricCounts::default(),
            events,
            recorder,
            route: AtomicU8::new(Route::Workers as u8),
            drained: Notify::new(),
            drains_with: OnceLock::new(),
            call_settings: ThreadCached::new(CallSettings::of(&settings)),
            settings: ArcSwap::from_pointee(settings),
            replacing: Mutex::new(()),
            clock,
        };
        let budget = shared.new_budget(&retry);
        *shared.budget.acquire() = budget;
        shared.chaos.set(shared.settings().chaos, now, || ());
        shared
    }

    /// Returns the present settings; hold the guard only for the time of one decision.
    #[inline]
    pub(crate) fn settings(&self) -> Guard<Arc<DependencySettings>> {
        self.settings.load()
    }

    /// Returns the settings of a call that is made at this moment.
    #[inline]
    pub(crate) fn call_settings(&self) -> CallSettings {
        self.call_settings.read(|settings| **settings)
    }

    /// Replaces the settings, except those of the breakers. Counters and learned values are kept.
    ///
    /// # Source  Rule CFG-2.
    pub(crate) fn reconfigure(&self, settings: DependencySettings) {
        let (old, new) = self.replace_settings(settings);
        if old.retry.budget != new.retry.budget {
            *self.budget.acquire() = self.new_budget(&new.retry);
        }
        if (old.rate_limit, old.rate_sharing) != (new.rate_limit, new.rate_sharing) {
            let (old, clock) = (self.rate.load(), self.clock.clone());
            let replicas = self.replicas.load(Ordering::Relaxed);
            let sharing = new.rate_sharing;
            let renew =
                |rate| RateLimit::renewed((rate, sharing), clock, (**old).as_ref(), replicas);
            let rate = new.rate_limit.as_ref().map(renew);
            self.rate.replace(rate);
        }
        if old.bulkhead != new.bulkhead {
            self.bulkhead.resize(&new.bulkhead);
        }
        if old.chaos != new.chaos {
            self.chaos.set(new.chaos, self.clock.now(), || ());
        }
    }

    /// Returns the settings before and after.
    fn replace_settings(
        &self,
        settings: DependencySettings,
    ) -> (Arc<DependencySettings>, Arc<DependencySettings>) {
        let _one_at_a_time = self.replacing.acquire();
        let new = Arc::new(DependencySettings {
            // It is changed with the route alone, and may be newer than the settings of the caller.
            fallback_only: self.is_fallback_only(),
            ..settings
        });
        // CFG-2: the settings are replaced as a whole, and counters and learned values are kept.
        let old = self.settings.swap(Arc::clone(&new));
        self.call_settings.replace(CallSettings::of(&new));
        (old, new)
    }

    fn is_fallback_only(&self) -> bool {
        self.route.load(Ordering::Acquire) & FALLBACK_ONLY != 0
    }

    fn new_budget(&self, settings: &RetrySettings) -> Option<RetryBudget> {
        let now = self.clock.now();
        let budget = settings.budget.as_ref();
        let replicas = self.replicas.load(Ordering::Relaxed);
        let limited = |budget| Budget::of_replica(budget, replicas, now);
        Some(RetryBudget {
            kernel: budget.map_or_else(|| Budget::unlimited(now), limited),
            deposited: self.totals.submitted(),
        })
    }

    /// Takes in the number of live replicas of the fleet, this one among them.
    pub(crate) fn set_replicas(&self, replicas: u32) {
        let replicas = replicas.max(1);
        if self.replicas.swap(replicas, Ordering::Relaxed) == replicas {
            return;
        }
        // FLT-2: the floor is that of the whole fleet.
        if let Some(budget) = self.budget.acquire().as_mut() {
            budget.kernel.set_replicas(self.clock.now(), replicas);
        }
        if let Some(share) = self.rate_share() {
            share.set_replicas(replicas);
        }
    }

    /// Returns the part in a shared rate; `None` without one.
    pub(crate) fn rate_share(&self) -> Option<Arc<RateShare>> {
        let rate = self.rate.load();
        (**rate).as_ref().and_then(|rate| rate.share().cloned())
    }

    #[inline]
    pub(crate) fn route(&self) -> Route {
        let word = self.route.load(Ordering::Acquire);
        match route_of(word) {
            Route::Workers | Route::Parked if word & FALLBACK_ONLY != 0 => Route::FallbackOnly,
            route => route,
        }
    }

    /// The route without regard to `fallback_only`: the state of the workers.
    pub(crate) fn worker_route(&self) -> Route {
        route_of(self.route.load(Ordering::Acquire))
    }

    /// Changes the route; `Stopped` is final.
    pub(crate) fn set_route(&self, route: Route) {
        let change = |now: u8| {
            let is_final = route_of(now) == Route::Stopped;
            (!is_final).then_some(now & FALLBACK_ONLY | route as u8)
        };
        let _ = self
            .route
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        self.drained.notify_waiters();
        // It ends with the dependency.
        self.desk.tell_keeper();
    }

    /// Sets whether only the fallbacks answer.
    pub(crate) fn set_fallback_only(&self, only: bool) {
        // CFG-2: a reload at the same time is not undone, nor this by the reload.
        let _one_at_a_time = self.replacing.acquire();
        let before = match only {
            true => self.route.fetch_or(FALLBACK_ONLY, Ordering::AcqRel),
            false => self.route.fetch_and(!FALLBACK_ONLY, Ordering::AcqRel),
        };
        if (before & FALLBACK_ONLY != 0) != only {
            // Other answers are the good ones from here on.
            self.mark_good_answers();
        }
        let settings = self.settings();
        if settings.fallback_only != only {
            self.settings.store(Arc::new(DependencySettings {
                fallback_only: only,
                ..DependencySettings::clone(&settings)
            }));
        }
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

    /// Returns true if no worker runs because of a failure that is known.
    pub(crate) fn lacks_worker_for_a_cause(&self) -> bool {
        self.worker_failure.load().is_some()
    }

    /// The error of a call that was not begun and will not be, for this reason: with the known cause
    /// if it lacks a worker.
    pub(crate) fn not_executed<E>(
        &self,
        reason: NotExecutedReason,
        retry_after: Option<Duration>,
    ) -> CallError<E> {
        let lacks_worker = matches!(
            reason,
            NotExecutedReason::Restarting | NotExecutedReason::Parked
        );
        let cause = lacks_worker.then(|| self.worker_failure.load_full());
        CallError::NotExecuted {
            dependency: Arc::clone(&self.name),
            reason,
            cause: cause.flatten(),
            retry_after,
        }
    }

    /// Drains together with other dependencies: their accepted work may call it.
    pub(crate) fn drain_with(&self, others: Arc<SharedDrain>) {
        // Only the first shutdown counts.
        let _ = self.drains_with.set(others);
    }

    /// Returns true once it drains together with all others, at the end of the runtime.
    #[inline]
    pub(crate) fn drains_with_others(&self) -> bool {
        let together = self.drains_with.get();
        together.is_some_and(|together| together.has_begun())
    }

    /// Returns true if a call is pending, which a drain waits for.
    pub(crate) fn is_pending(&self) -> bool {
        self.worker_route() == Route::Draining && self.totals.read().in_flight() != 0
    }

    /// Returns a dependency with calls that a drain waits for: this one, or another that may call it.
    pub(crate) fn first_pending(self: &Arc<Self>) -> Option<Arc<Self>> {
        if self.is_pending() {
            return Some(Arc::clone(self));
        }
        let together = self.drains_with.get()?;
        together.first_pending(self.clock.now())
    }

    /// Tells the drain that one call less is pending.
    pub(crate) fn call_ended(&self) {
        if route_of(self.route.load(Ordering::Relaxed)) == Route::Draining {
            self.drained.notify_waiters();
        }
    }

    /// Returns the verdict with its class decided by the settings, if that is left to them.
    pub(crate) fn judge(&self, verdict: Verdict) -> Verdict {
        verdict.judged(|symptom| self.settings().classify.class_of(symptom))
    }

    /// Notes that a value ends after a call of this fingerprint, which its worker does not have any more.
    pub(crate) fn suspect(&self, fingerprint: u64) {
        if let Some(quarantine) = &self.quarantine {
            let refused = quarantine.suspect_other(fingerprint, self.clock.now());
            self.tell_quarantined(fingerprint, refused);
        }
    }

    /// Tells of a call that is refused from now on. `ttl`: for how long, if it is.
    pub(crate) fn tell_quarantined(&self, fingerprint: u64, ttl: Option<Duration>) {
        if let Some(ttl) = ttl {
            let kind = EventKind::Quarantined { fingerprint, ttl };
            self.events.emit(&self.name, kind);
        }
    }

    /// Forgets the suspicion against a call of this fingerprint that was answered (rule SUP-6).
    #[inline]
    pub(crate) fn clear_suspicion(&self, fingerprint: Option<u64>, verdict: &Verdict) {
        if let (Some(fingerprint), Some(quarantine)) = (fingerprint, &self.quarantine)
            && matches!(verdict.class, Class::Success | Class::Rejected)
        {
            quarantine.clear(fingerprint);
        }
    }

    /// Sets or removes the problem of a dependency that still answers.
    pub(crate) fn complain(&self, what: Option<String>) {
        if what.is_some() || self.complaint.load().is_some() {
            self.complaint.store(what.map(Arc::new));
        }
    }

    /// Notes what an attempt has shown of the dependency's load: a throttle begins a pause. `key`:
    /// the breaker of the call's key; `elapsed`: its duration for the breaker.
    #[inline]
    pub(crate) fn note_traffic(
        &self,
        key: Option<&SharedBreaker>,
        verdict: &Verdict,
        (began, elapsed): (Time, Duration),
        now: Time,
    ) {
        self.counts.attempt(verdict.class);
        if Self::is_failure(verdict.class) {
            self.note_failure(verdict, elapsed);
        }
        match verdict.class {
            Class::Throttled => self.begin_pause(key, verdict, now),
            Class::Success => {
                if self.pauses.note_success(began) {
                    self.events.emit(&self.name, EventKind::QuotaBack);
                }
                if let Some(key) = key
                    && key.pauses.note_success(began)
                {
                    let subject = key.subject(&self.name);
                    self.events.emit(&subject, EventKind::QuotaBack);
                }
            }
            _ => {}
        }
    }

    fn begin_pause(&self, key: Option<&SharedBreaker>, verdict: &Verdict, now: Time) {
        // LIM-1: the limit of one caller keeps no other one waiting.
        if verdict.is_without_pause || verdict.is_for_own_key && key.is_none() {
            return;
        }
        let settings = self.settings();
        // LIM-1: a throttle of a call with a key concerns that key: its credential, or its model.
        let key = key.filter(|_| !verdict.is_for_all_keys);
        let pauses = key.map_or(&self.pauses, |key| &key.pauses);
        let begun = pauses.begin(verdict, &settings.throttle, now, || self.clock.wall());
        if let Some(pause) = begun {
            let kind = EventKind::Paused {
                reason: pause.reason,
                for_: pause.until.since(now),
                hint: verdict.retry_after,
                by: None,
            };
            let of = key.unwrap_or(&self.breaker);
            self.events.emit(&of.subject(&self.name), kind);
        }
    }

    /// Returns the pauses that a call has to observe. `key`: the breaker of its key.
    #[inline]
    pub(crate) fn pauses_of<'a>(&'a self, key: Option<&'a SharedBreaker>) -> CallPauses<'a> {
        CallPauses {
            dependency: &self.pauses,
            key: key.map(|key| &key.pauses),
        }
    }

    /// Returns the hint of an attempt as far as it is believed (rule LIM-1).
    pub(crate) fn believed(&self, hint: Option<Duration>) -> Option<Duration> {
        // BRK-8, LIM-1: a hint lengthens an open time or a pause, up to `throttle.max`.
        hint.map(|hint| self.settings().throttle.believed(hint))
    }

    /// The error of a call that does not go out because of the pause.
    pub(crate) fn paused<E>(&self, pause: Pause, now: Time) -> CallError<E> {
        CallError::RateLimited {
            dependency: Arc::clone(&self.name),
            limit: Limit::Pause(pause.reason),
            retry_after: Some(pause.until.since(now)),
        }
    }

    /// Injects faults from now on; `None` ends them.
    pub(crate) fn set_chaos(&self, settings: Option<ChaosSettings>, by: &str) {
        let by = by.to_owned();
        let kind = EventKind::Chaos { by, settings };
        let note = || self.events.record(&self.name, kind);
        self.chaos.set(settings, self.clock.now(), note);
        self.events.tell();
    }
}

/// The route in a word, without the mark beside it.
#[inline]
const fn route_of(word: u8) -> Route {
    match word & !FALLBACK_ONLY {
        0 => Route::Workers,
        1 => Route::Parked,
        2 => Route::Draining,
        _ => Route::Stopped,
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
