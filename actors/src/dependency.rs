//! What a user's dependency is, and what the actors around one share.
//!
//! It holds no policy of its own: the breaker judges, the bulkhead counts, the route says who
//! answers.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use breakerbox_policy::{Budget, Class, DependencySettings, Time};
use tokio::sync::Notify;

use crate::bulkhead::Bulkhead;
use crate::clock::Clock;
use crate::error::{Absence, Notice};
use crate::event::EventBus;
use crate::flight::InFlight;
use crate::gate::Gate;
use crate::message::BreakerPort;
use crate::quarantine::Quarantine;
use crate::record::Record;
use crate::totals::Totals;

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

    /// What requests that do the same have in common: those that crash workers again and again
    /// are refused (rule SUP-6). By default nothing, and nothing is refused.
    #[must_use]
    fn fingerprint(request: &Self::Request) -> Option<u64> {
        let _ = request;
        None
    }
}

/// A class, with the dependency's own wish for how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// `Retry-After`, as a span from now.
    pub retry_after: Option<Duration>,
}

impl From<Class> for Verdict {
    fn from(class: Class) -> Self {
        Self {
            class,
            retry_after: None,
        }
    }
}

impl Verdict {
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
    pub(crate) shared: Arc<Shared>,
    pub(crate) attempt: u32,
    pub(crate) deadline: Option<Time>,
}

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
    pub(crate) settings: DependencySettings,
    pub(crate) clock: Clock,
    pub(crate) gate: Gate,
    /// The kernel's breaker. The breaker actor alone changes it; it is here so that a restarted
    /// actor does not forget that the dependency is sick (rule BRK-12).
    pub(crate) machine: Mutex<breakerbox_policy::Breaker>,
    /// Why the breaker is in its state, in words; renewed at each transition.
    notice: ArcSwap<Notice>,
    /// What the callers together may retry.
    pub(crate) budget: Mutex<Option<RetryBudget>>,
    /// Fallback answers of the present outage.
    pub(crate) outage: AtomicU64,
    /// When a fallback last answered, in nanoseconds.
    pub(crate) last_fallback: AtomicU64,
    /// The breaker's generation then.
    pub(crate) last_fallback_tag: AtomicU64,
    /// How the breaker actor is reached.
    pub(crate) breaker: OnceLock<BreakerPort>,
    /// Width of a time bucket of the window, in nanoseconds; 0 when it has none.
    pub(crate) bucket_nanos: u64,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) totals: Totals,
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
}

impl Shared {
    pub(crate) fn new(
        name: Arc<str>,
        settings: DependencySettings,
        clock: Clock,
        events: EventBus,
        recorder: Option<Arc<dyn Record>>,
    ) -> Self {
        let machine = breakerbox_policy::Breaker::new(settings.breaker.clone(), clock.now());
        let bucket = machine.success_bucket().unwrap_or_default();
        let budget = settings.retry.budget.as_ref();
        let budget = budget.map(|budget| RetryBudget {
            kernel: Budget::new(budget, clock.now()),
            deposited: 0,
        });
        let slow_call = settings.breaker.slow_rate.and(settings.breaker.slow_call);
        Self {
            name: Arc::clone(&name),
            gate: Gate::new(crate::breaker::word_of(&machine, clock.now())),
            notice: ArcSwap::from_pointee(Notice::new(name, "started".to_owned())),
            budget: Mutex::new(budget),
            outage: AtomicU64::new(0),
            last_fallback: AtomicU64::new(0),
            last_fallback_tag: AtomicU64::new(0),
            machine: Mutex::new(machine),
            breaker: OnceLock::new(),
            bucket_nanos: u64::try_from(bucket.as_nanos()).unwrap_or(u64::MAX),
            in_flight: slow_call.map(InFlight::new),
            bulkhead: Bulkhead::new(&settings.bulkhead),
            quarantine: settings.workers.quarantine.map(Quarantine::new),
            totals: Totals::new(),
            events,
            recorder,
            route: AtomicU8::new(Route::Workers as u8),
            drained: Notify::new(),
            settings,
            clock,
        }
    }

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

    pub(crate) fn notice(&self) -> Arc<Notice> {
        Arc::clone(&self.notice.load())
    }

    pub(crate) fn set_notice(&self, reason: String) {
        let notice = Notice::new(Arc::clone(&self.name), reason);
        self.notice.store(Arc::new(notice));
    }

    /// Tells whoever drains that one call less is pending.
    pub(crate) fn call_ended(&self) {
        if self.route.load(Ordering::Relaxed) == Route::Draining as u8 {
            self.drained.notify_waiters();
        }
    }
}
