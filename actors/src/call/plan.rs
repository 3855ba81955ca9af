//! The settings of one call, looked up once when it is made.
//!
//! A reload during a call does not change them. Classification, pauses and retries use the present
//! settings.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Ticket, Time};

use crate::attempt_progress::AttemptProgress;
use crate::breaker::shared::SharedBreaker;
use crate::call_options::CallOptions;
use crate::clock::earliest;
use crate::deadline::{BreakerNumber, CallDeadline, CallScope, ProbeScope};
use crate::dependency::Dependency;
use crate::limits::metered::MeteredCall;
use crate::limits::session::Session;
use crate::state::Shared;
use crate::time_limit::TimeLimit;

/// The settings of one call.
pub(crate) struct CallPlan<'a> {
    pub(super) started: Time,
    /// Time for which the caller had waited before.
    pub(super) waited: Duration,
    /// Deadline of the call, without its fallbacks.
    pub(super) deadline: Option<Time>,
    /// True if that is the caller's own, and less than the settings allow.
    is_callers_deadline: bool,
    /// The limit that the deadline is of.
    pub(super) deadline_limit: TimeLimit,
    /// The caller's own deadline, which also bounds a fallback.
    pub(super) caller_deadline: Option<Time>,
    pub(super) max_attempts: NonZeroU32,
    /// True if a call that the breaker refuses asks again.
    pub(super) waits_on_open: bool,
    /// Maximum duration of one attempt.
    pub(super) attempt_limit: Option<Duration>,
    /// True if the call is hedged; only idempotent calls are (rule CALL-7).
    pub(super) is_hedged: bool,
    /// True if there is a rate limit.
    pub(super) has_rate_limit: bool,
    /// True if the call may bypass the breaker when no fallback could answer it.
    pub(super) last_resort: bool,
    pub(super) idempotent: bool,
    pub(super) fingerprint: Option<u64>,
    /// The breaker of the call's key; `None` for the dependency's.
    pub(super) key: Option<Arc<SharedBreaker>>,
    pub(super) ticket: Ticket,
    pub(super) weight: NonZeroU32,
    pub(super) session: Option<&'a Session>,
    /// Progress from which the limits of an attempt count.
    pub(super) progress: Option<&'a AttemptProgress>,
    /// The amounts that each attempt reserves.
    pub(super) metered: Option<&'a MeteredCall>,
    /// The caller, if it is known.
    caller: Option<NonZeroU64>,
    /// The breakers of which the surrounding work is a probe.
    pub(super) probes: ProbeScope,
}

impl<'a> CallPlan<'a> {
    /// Returns the plan of a request to a worker; options left open are taken from the dependency.
    pub(super) fn of_request<D: Dependency>(
        shared: &Shared,
        options: &'a CallOptions,
        request: &D::Request,
    ) -> Self {
        let idempotent = options.idempotent;
        let fingerprint = options.fingerprint.or_else(|| D::fingerprint(request));
        let weight = options.weight.unwrap_or_else(|| D::weight(request));
        let write = options.write.unwrap_or_else(|| D::is_write(request));
        let has_key = options.key.is_some();
        let mut plan = Self::from_settings(shared, options);
        if !has_key && let Some(key) = D::key(request) {
            plan.key = shared.breaker_of_key(&key, plan.started);
        }
        plan.idempotent = idempotent.unwrap_or_else(|| {
            (plan.max_attempts.get() > 1 || plan.is_hedged) && D::is_idempotent(request)
        });
        plan.is_hedged &= plan.idempotent;
        plan.ticket.write = write;
        Self {
            fingerprint,
            weight,
            ..plan
        }
    }

    /// Returns the plan of a closure, from the options alone.
    #[inline(always)]
    pub(super) fn of_closure(shared: &Shared, options: &'a CallOptions) -> Self {
        let mut plan = Self::from_settings(shared, options);
        plan.is_hedged &= plan.idempotent;
        plan
    }

    #[inline(always)]
    fn from_settings(shared: &Shared, options: &'a CallOptions) -> Self {
        let CallOptions {
            timeout,
            waited,
            attempt,
            max_attempts,
            idempotent,
            fingerprint,
            priority,
            write,
            key,
            weight,
            session,
            progress,
            metered,
            caller,
        } = options;
        let started = shared.clock.now();
        let key = key.as_ref();
        let key = key.and_then(|key| shared.breaker_of_key(key, started));
        let settings = shared.call_settings();
        // CALL-5: the limits are those of the whole call, with the wait before it.
        let ends = |span: Duration| started.after(span.saturating_sub(*waited));
        let total = settings.total.map(ends);
        let own = timeout.map(ends);
        let around = CallScope::present();
        let caller_deadline = earliest(own, around.deadline(&shared.clock));
        // Without any limit of the settings, the caller's tells a hang, and nothing else does.
        let is_callers_deadline = match (caller_deadline, total) {
            (Some(own), Some(total)) => own < total,
            (own, None) => own.is_some() && settings.has_limit,
            (None, Some(_)) => false,
        };
        let is_callers = caller_deadline.is_some_and(|own| total.is_none_or(|total| own < total));
        let deadline_limit = match is_callers {
            true => TimeLimit::Caller,
            false => TimeLimit::Total,
        };
        if let Some(progress) = progress {
            progress.bound_holds(deadline_limit, caller_deadline);
        }
        Self {
            started,
            waited: *waited,
            deadline: earliest(total, caller_deadline),
            is_callers_deadline,
            deadline_limit,
            caller_deadline,
            max_attempts: max_attempts.unwrap_or(settings.max_attempts),
            waits_on_open: settings.waits_on_open,
            attempt_limit: attempt.or(settings.attempt_limit),
            is_hedged: settings.is_hedged,
            has_rate_limit: settings.has_rate_limit,
            last_resort: settings.last_resort,
            idempotent: idempotent.unwrap_or(false),
            fingerprint: *fingerprint,
            key,
            ticket: Ticket {
                priority: *priority,
                write: write.unwrap_or(false),
            },
            weight: weight.unwrap_or(NonZeroU32::MIN),
            session: session.as_ref(),
            progress: progress.as_ref(),
            metered: metered.as_ref(),
            caller: *caller,
            probes: around.probes(),
        }
    }

    /// Returns the deadline, whether it is the caller's own, and the caller.
    #[inline]
    pub(super) fn call_deadline(&self) -> CallDeadline {
        CallDeadline::new(self.deadline, self.is_callers_deadline, self.caller)
    }

    /// Returns the conditions of the calls that an attempt makes. `probe`: the breaker of which it is
    /// a probe.
    #[inline]
    pub(super) fn scope(&self, shared: &Shared, probe: Option<BreakerNumber>) -> CallScope {
        let deadline = self.deadline.map(|end| shared.clock.moment(end));
        // CALL-10: the calls of accepted work are accepted too.
        CallScope::new(deadline, self.probes.with(probe)).accepted_by(shared.events.runtime())
    }

    /// Returns true if the call may need its request more than once.
    #[inline]
    pub(super) fn may_ask_again(&self) -> bool {
        self.max_attempts.get() > 1 || self.is_hedged || self.last_resort || self.waits_on_open
    }

    /// Returns false once an attempt has sent what cannot be sent again.
    #[inline]
    pub(super) fn may_repeat(&self) -> bool {
        self.progress.is_none_or(AttemptProgress::may_repeat)
    }

    /// Returns the limit by which an attempt has run out of time at `now`: that of the whole call,
    /// if its deadline has passed.
    #[cold]
    pub(super) fn exceeded(&self, shared: &Shared, now: Time) -> TimeLimit {
        match self.deadline {
            Some(deadline) if deadline <= now => self.deadline_limit,
            _ => shared.limit_of_attempt(self.attempt_limit),
        }
    }

    /// Returns the deadline of an attempt that begins now.
    pub(super) fn attempt_ends(&self, began: Time) -> Option<Time> {
        earliest(
            self.attempt_limit.map(|span| began.after(span)),
            self.deadline,
        )
    }
}
