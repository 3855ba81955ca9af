//! How a call gets leave to go out: from the breaker first, then from the limits, then from the
//! bulkhead.

use std::sync::Arc;

use breakerbox_policy::{Executed, Time};

use super::Lost;
use super::plan::Plan;
use crate::admission::{Admission, Passage};
use crate::bulkhead::{NoPlace, Place};
use crate::dependency::{Route, Shared};
use crate::error::{Absence, CallError, Limit};
use crate::rate::TooFast;
use crate::reply::bounded;

/// Breaker, rate limit, bulkhead. Whatever is refused further in gives the permit back.
pub(super) async fn admit<'a, E>(
    shared: &'a Shared,
    plan: &Plan,
    now: Time,
) -> Result<(Admission<&'a Shared>, Place<'a>), Lost<E>> {
    if shared.route() == Route::Stopped {
        return Err(Lost::refused(absent(shared, Absence::ShuttingDown)));
    }
    if plan.deadline.is_some_and(|deadline| deadline <= now) {
        // Before any work, and no outcome of the dependency (rule LIM-2).
        return Err(Lost::refused(no_place(shared, now, NoPlace::Deadline)));
    }
    let mut admission = permit(shared, plan, now).await?;
    let waited = match keep_to_limits(shared, plan, now).await {
        Ok(waited) => waited,
        Err(error) => {
            admission.release();
            return Err(Lost::refused(error));
        }
    };
    if !waited && let Some(place) = shared.bulkhead.try_enter(plan.ticket, now) {
        admission.depart(None);
        return Ok((admission, place));
    }
    let bulkhead = &shared.bulkhead;
    let entered = bulkhead.enter(&shared.clock, plan.deadline, plan.ticket);
    let place = match entered.await {
        Ok(place) => place,
        Err(reason) => {
            admission.release();
            return Err(Lost::refused(no_place(shared, now, reason)));
        }
    };
    while admission.is_overtaken() {
        admission.release();
        admission = permit(shared, plan, shared.clock.now()).await?;
    }
    admission.depart(Some(shared.clock.now()));
    Ok((admission, place))
}

/// Leave by the breaker, from the gate alone where that is possible.
async fn permit<'a, E>(
    shared: &'a Shared,
    plan: &Plan,
    now: Time,
) -> Result<Admission<&'a Shared>, Lost<E>> {
    let (circuit, deadline) = (plan.circuit.as_ref(), plan.deadline);
    let refused = match shared.pass(circuit, now, deadline) {
        Passage::Granted(held) => return Ok(Admission::new(shared, held)),
        Passage::Refused(refused) => refused,
        Passage::AskBreaker => {
            // The breaker's thread may be blocked: the deadline holds all the same.
            let asking = shared.ask_for_permit(circuit, deadline);
            match bounded(&shared.clock, deadline, asking).await {
                None => return Err(Lost::refused(no_place(shared, now, NoPlace::Deadline))),
                Some(Err(refused)) => refused,
                Some(Ok(admission)) => match admission.into_held() {
                    Some(held) => return Ok(Admission::new(shared, held)),
                    // An admission that was just given holds its permit.
                    None => shared.overtaken(circuit, now),
                },
            }
        }
    };
    Err(Lost::by_breaker(refused))
}

/// Waits out a pause that the dependency asked for, and the turn by the rate limit, where that is
/// soon enough (rule LIM-2). True when it waited.
pub(super) async fn keep_to_limits<E>(
    shared: &Shared,
    plan: &Plan,
    now: Time,
) -> Result<bool, CallError<E>> {
    let mut waited = false;
    if let Some(pause) = shared.pauses.now(now) {
        let wait = pause.until.since(now);
        let too_late = plan.deadline.is_some_and(|end| pause.until >= end);
        if too_late || wait > shared.settings().throttle.max_wait {
            return Err(CallError::RateLimited {
                dependency: Arc::clone(&shared.name),
                limit: Limit::Pause(pause.reason),
                retry_after: Some(wait),
            });
        }
        shared.clock.sleep_until(pause.until).await;
        waited = true;
    }
    let rate = shared.rate.load();
    let Some(rate) = rate.as_ref() else {
        return Ok(waited);
    };
    if !waited && rate.try_enter(plan.weight) {
        return Ok(false);
    }
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

/// Takes what an attempt weighs out of the session's purse, now that it may go out.
pub(super) fn pay<E>(shared: &Shared, plan: &Plan) -> Result<(), CallError<E>> {
    match &plan.session {
        Some(session) if !session.try_spend(u64::from(plan.weight.get())) => {
            Err(CallError::SessionSpent {
                dependency: Arc::clone(&shared.name),
                limit: session.limit(),
            })
        }
        _ => Ok(()),
    }
}

pub(super) fn no_place<E>(shared: &Shared, asked: Time, reason: NoPlace) -> CallError<E> {
    let dependency = Arc::clone(&shared.name);
    match reason {
        NoPlace::Overloaded => CallError::Overloaded {
            dependency,
            max_concurrent: shared.bulkhead.max_concurrent(),
            max_queue: shared.bulkhead.max_queue(),
        },
        NoPlace::Deadline => CallError::TimedOut {
            dependency,
            after: shared.clock.now().since(asked),
            executed: Executed::No,
        },
    }
}

pub(super) fn absent<E>(shared: &Shared, reason: Absence) -> CallError<E> {
    CallError::NotExecuted {
        dependency: Arc::clone(&shared.name),
        reason,
        retry_after: None,
    }
}
