//! Admission of one attempt: by the breaker first, then by the limits, then by the bulkhead.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use breakerbox_policy::{Executed, MeterRefusal, Pause, Permit, Time};
use futures_util::FutureExt;

use super::FailedAttempt;
use super::plan::CallPlan;
use crate::breaker::admission::{Admission, PermitGuard};
use crate::breaker::gate::GateMode;
use crate::breaker::gate_decision::{
    GateDecision, ask_for_permit, deciding_gate, normal_permit, try_admit,
};
use crate::bulkhead_limit::BulkheadLimit;
use crate::clock::is_too_late;
use crate::error::{CallError, Limit, NotExecutedReason};
use crate::limits::bulkhead::{BulkheadSlot, NoSlot, QueueRefusal};
use crate::limits::metered::{MeteredCall, UnusedShares};
use crate::limits::rate::{RateLimit, TooFast};
use crate::limits::session::Session;
use crate::state::{Route, Shared};

/// The permits of an attempt; empty until they are granted.
#[derive(Debug)]
pub(super) struct AttemptPermits<'a> {
    /// Dropped before the admission: a caller that is notified by the report may call again at
    /// once.
    pub(super) slot: Option<BulkheadSlot<'a>>,
    pub(super) admission: Admission<&'a Shared>,
}

impl<'a> AttemptPermits<'a> {
    #[inline(always)]
    pub(super) fn none(shared: &'a Shared) -> Self {
        Self {
            slot: None,
            admission: Admission::none(shared),
        }
    }
}

/// Admits a call that nothing delays: the fast path, without a message or a wait. Returns false for
/// every other call, which [`admit`] handles.
///
/// The permits are filled in place: moving them would cost more than granting them.
#[inline(always)]
pub(super) fn admit_at_once<'a>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    now: Time,
    permits: &mut AttemptPermits<'a>,
) -> bool {
    let is_delayed = shared.route() == Route::Stopped
        || plan.metered.is_some()
        || !has_budget(plan)
        || plan.deadline.is_some_and(|deadline| deadline <= now)
        || shared.pauses_of(plan.key.as_deref()).current(now).is_some();
    if is_delayed {
        return false;
    }
    let Some(permit) = normal_permit(shared, plan.key.as_ref(), now) else {
        return false;
    };
    // The bulkhead slot comes first: a turn at the rate limit could not be given back.
    let Some(slot) = shared.bulkhead.try_enter(plan.ticket, now) else {
        return false;
    };
    if plan.has_rate_limit && !has_turn(shared, plan, now) {
        return false;
    }
    let permit = PermitGuard::new(plan.key.clone(), permit, now, plan.call_deadline());
    permits.admission.start_with(permit);
    permits.slot = Some(slot);
    true
}

/// Takes a turn at the rate limit if it is this call's turn.
fn has_turn(shared: &Shared, plan: &CallPlan<'_>, now: Time) -> bool {
    let may_go = |rate: &RateLimit| rate.try_enter(plan.weight, now);
    shared
        .rate
        .read(|rate| (**rate).as_ref().is_none_or(may_go))
}

/// Passes the breaker, the pause, the rate limit, the token limits and the bulkhead, in this order. A
/// refusal by a later one gives the permit back, and so does a wait if the permit is a probe: the
/// breaker is asked again after it.
pub(super) async fn admit<'a, T, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    asked_at: Time,
) -> Result<AttemptPermits<'a>, Box<FailedAttempt<T, E>>> {
    // CALL-5: breaker, session, pause, rate limit, token limits and bulkhead, in this order.
    if shared.route() == Route::Stopped {
        return Err(FailedAttempt::refused(absent(
            shared,
            NotExecutedReason::ShuttingDown,
        )));
    }
    if plan.deadline.is_some_and(|deadline| deadline <= asked_at) {
        // Refused before any work, so this is no outcome of the dependency (rule LIM-2).
        return Err(FailedAttempt::refused(no_slot(
            shared,
            plan,
            asked_at,
            NoSlot::Deadline,
        )));
    }
    let mut progress = AdmissionProgress::new(asked_at);
    loop {
        let mut admission = permit(shared, plan, progress.now)?;
        let entered = without_probe(&mut admission, progress.enter(shared, plan));
        let slot = match entered.await {
            Ok(Some(slot)) => slot,
            Ok(None) => {
                // A call that waits out a pause must not hold one of the few probes.
                admission.release();
                progress
                    .wait_out(shared, plan)
                    .await
                    .map_err(FailedAttempt::refused)?;
                continue;
            }
            Err(error) => {
                admission.release();
                return Err(FailedAttempt::refused(error));
            }
        };
        if progress.waited && plan.deadline.is_some_and(|end| end <= shared.clock.now()) {
            // LIM-2: the attempt would end at its begin, as a failure of the dependency.
            admission.release();
            let late = no_slot(shared, plan, asked_at, NoSlot::Deadline);
            return Err(FailedAttempt::refused(late));
        }
        if !progress.waited {
            progress.pass_shares(plan);
            admission.mark_started(None);
            let slot = Some(slot);
            return Ok(AttemptPermits { slot, admission });
        }
        while !admission.has_permit() || admission.is_stale() {
            admission.release();
            admission = permit(shared, plan, shared.clock.now())?;
        }
        progress.pass_shares(plan);
        admission.mark_started(Some(shared.clock.now()));
        let slot = Some(slot);
        return Ok(AttemptPermits { slot, admission });
    }
}

/// Waits for our own limits, and gives a probe back as soon as one of them makes the call wait.
async fn without_probe<T>(admission: &mut Admission<&Shared>, wait: impl Future<Output = T>) -> T {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        let polled = wait.as_mut().poll(cx);
        // BRK-6: a wait for our own limits says nothing of the dependency. The probe would be lost at
        // the end of its lease, and other calls would be refused for it.
        if polled.is_pending() && admission.is_probe() {
            admission.release();
        }
        polled
    })
    .await
}

/// Acquires the breaker's permit, from the gate alone if possible.
fn permit<'a, T, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    now: Time,
) -> Result<Admission<&'a Shared>, Box<FailedAttempt<T, E>>> {
    let key = plan.key.as_ref();
    let (of, word) = deciding_gate(shared, key);
    // BRK-6: a call within a probe goes under that probe's permit, and reports nothing of its own.
    if plan.probes.contains(of.number) && word.mode() == GateMode::HalfOpen {
        let permit = Permit::unrecorded(word.tag(), now);
        let permit = PermitGuard::new(key.cloned(), permit, now, plan.call_deadline());
        return Ok(Admission::new(shared, permit));
    }
    let refused = match try_admit(shared, key, now, plan.call_deadline()) {
        GateDecision::Granted(permit) => return Ok(Admission::new(shared, permit)),
        GateDecision::Refused(refused) => refused,
        GateDecision::AskBreaker => match ask_for_permit(shared, key, plan.call_deadline()) {
            Ok(permit) => return Ok(Admission::new(shared, permit)),
            Err(refused) => refused,
        },
    };
    Err(FailedAttempt::by_breaker(refused))
}

/// The progress of an attempt through the admission.
pub(super) struct AdmissionProgress {
    asked_at: Time,
    now: Time,
    /// True once the rate limit has granted its turn.
    has_rate_turn: bool,
    /// The amounts that are reserved for the attempt.
    shares: Option<UnusedShares>,
    waited: bool,
}

impl AdmissionProgress {
    pub(super) fn new(asked_at: Time) -> Self {
        Self {
            asked_at,
            now: asked_at,
            has_rate_turn: false,
            shares: None,
            waited: false,
        }
    }

    /// Returns the time of the last clock reading.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Waits for a turn at the rate limit, for tokens, and for a bulkhead slot. Returns `None` while the
    /// dependency is paused, also if the pause begins during the wait: no call goes out in a pause
    /// (rule LIM-1).
    pub(super) async fn enter<'a, E>(
        &mut self,
        shared: &'a Shared,
        plan: &CallPlan<'_>,
    ) -> Result<Option<BulkheadSlot<'a>>, CallError<E>> {
        check_budget(shared, plan)?;
        let pauses = shared.pauses_of(plan.key.as_deref());
        if pauses.current(self.now).is_some() {
            return Ok(None);
        }
        if !self.has_rate_turn {
            self.waited |= take_turn(shared, plan).await?;
            self.has_rate_turn = true;
        }
        if let Some(metered) = plan.metered
            && self.shares.is_none()
        {
            // LLM-19: what waits for tokens holds no slot.
            self.shares = Some(self.reserve(shared, plan, metered).await?);
        }
        let bulkhead = &shared.bulkhead;
        if !self.waited
            && let Some(slot) = bulkhead.try_enter(plan.ticket, self.now)
        {
            return Ok(Some(slot));
        }
        let entered = bulkhead.enter(&shared.clock, plan.deadline, plan.ticket);
        let slot = match entered.await {
            Ok(slot) => slot,
            Err(reason) => return Err(no_slot(shared, plan, self.asked_at, reason)),
        };
        self.waited = true;
        self.now = shared.clock.now();
        Ok(pauses.current(self.now).is_none().then_some(slot))
    }

    /// Reserves the amounts of an attempt.
    async fn reserve<E>(
        &mut self,
        shared: &Shared,
        plan: &CallPlan<'_>,
        metered: &MeteredCall,
    ) -> Result<UnusedShares, CallError<E>> {
        let mut reserving = pin!(metered.reserve(plan.deadline));
        let reserved = match reserving.as_mut().now_or_never() {
            Some(reserved) => reserved,
            None => {
                self.waited = true;
                reserving.await
            }
        };
        reserved.map_err(|refusal| {
            let (limit, retry_after) = match refusal {
                MeterRefusal::NotBefore(wait) => (Limit::Tokens, Some(wait)),
                // LLM-20: no wait would help.
                MeterRefusal::TooMuch { asked, burst } => {
                    (Limit::TooManyTokens { asked, burst }, None)
                }
            };
            CallError::RateLimited {
                dependency: Arc::clone(&shared.name),
                limit,
                retry_after,
            }
        })
    }

    /// Returns the reserved amounts.
    pub(super) fn into_shares(self) -> Option<UnusedShares> {
        self.shares
    }

    /// Passes the reserved amounts on to the attempt.
    fn pass_shares(&mut self, plan: &CallPlan<'_>) {
        if let (Some(metered), Some(shares)) = (plan.metered, self.shares.take()) {
            metered.admitted(shares);
        }
    }

    /// Waits out a pause, if that is allowed and soon enough (rule LIM-2).
    pub(super) async fn wait_out<E>(
        &mut self,
        shared: &Shared,
        plan: &CallPlan<'_>,
    ) -> Result<(), CallError<E>> {
        let patience = self.asked_at.after(shared.settings().throttle.max_wait);
        let may =
            |pause: &Pause| pause.until <= patience && !is_too_late(pause.until, plan.deadline);
        let pauses = shared.pauses_of(plan.key.as_deref());
        let waited = pauses.wait_out(&shared.clock, may).await;
        self.waited = true;
        self.now = shared.clock.now();
        waited.map_err(|pause| shared.paused(pause, self.now))
    }
}

/// Waits for the turn at the rate limit, if that is soon enough (rule LIM-2). Returns true if it
/// waited.
async fn take_turn<E>(shared: &Shared, plan: &CallPlan<'_>) -> Result<bool, CallError<E>> {
    if has_turn(shared, plan, shared.clock.now()) {
        return Ok(false);
    }
    let rate = shared.rate.read(Arc::clone);
    let Some(rate) = &*rate else {
        return Ok(false);
    };
    let entered = rate.enter(plan.weight, plan.deadline).await;
    entered.map(|()| true).map_err(|too_fast| {
        let (limit, retry_after) = match too_fast {
            TooFast::NotBefore(wait) => (Limit::Rate, Some(wait)),
            TooFast::TooHeavy => {
                let (weight, burst) = (plan.weight, rate.burst());
                (Limit::TooHeavy { weight, burst }, None)
            }
        };
        CallError::RateLimited {
            dependency: Arc::clone(&shared.name),
            limit,
            retry_after,
        }
    })
}

/// Refuses a call that its session cannot pay for, before anything is taken.
fn check_budget<E>(shared: &Shared, plan: &CallPlan<'_>) -> Result<(), CallError<E>> {
    match plan.session {
        Some(session) if !has_budget(plan) => Err(budget_exhausted(shared, session)),
        _ => Ok(()),
    }
}

fn has_budget(plan: &CallPlan<'_>) -> bool {
    let weight = u64::from(plan.weight.get());
    plan.session.is_none_or(|session| session.left() >= weight)
}

/// Charges the attempt's weight to the session's budget, once the attempt may go out.
pub(super) fn charge<E>(shared: &Shared, plan: &CallPlan<'_>) -> Result<(), CallError<E>> {
    match plan.session {
        Some(session) if !session.try_spend(u64::from(plan.weight.get())) => {
            Err(budget_exhausted(shared, session))
        }
        _ => Ok(()),
    }
}

fn budget_exhausted<E>(shared: &Shared, session: &Session) -> CallError<E> {
    CallError::SessionSpent {
        dependency: Arc::clone(&shared.name),
        limit: session.limit(),
    }
}

pub(super) fn no_slot<E>(
    shared: &Shared,
    plan: &CallPlan<'_>,
    asked_at: Time,
    reason: NoSlot,
) -> CallError<E> {
    let dependency = Arc::clone(&shared.name);
    match reason {
        NoSlot::Overloaded(queue) => CallError::Overloaded {
            dependency,
            limit: BulkheadLimit {
                max_writes: shared.bulkhead.exceeded_writes(plan.ticket),
                waited: match queue {
                    QueueRefusal::Full => None,
                    QueueRefusal::Waited(span) => Some(span),
                },
                mailbox: None,
            },
            max_concurrent: shared.bulkhead.max_concurrent(),
            max_queue: shared.bulkhead.max_queue(),
        },
        NoSlot::Deadline => {
            let after = shared.clock.now().since(asked_at);
            CallError::timed_out(dependency, (plan.deadline_limit, after), Executed::No)
        }
    }
}

pub(super) fn absent<E>(shared: &Shared, reason: NotExecutedReason) -> CallError<E> {
    shared.not_executed(reason, None)
}
