//! How a call gets leave to go out: from the breaker first, then from the limits, then from the
//! bulkhead.

use std::sync::Arc;

use breakerbox_policy::{Executed, Pause, Time};

use super::Lost;
use super::plan::Plan;
use crate::admission::{Admission, Held, Passage};
use crate::bulkhead::{NoPlace, Place};
use crate::clock::is_too_late;
use crate::dependency::{Route, Shared};
use crate::error::{Absence, CallError, Limit};
use crate::rate::{RateLimit, TooFast};
use crate::reply::bounded;
use crate::session::Session;

/// What an attempt goes out with; empty before it is given.
#[derive(Debug)]
pub(super) struct Leave<'a> {
    /// Given back first: who hears of the other may call again at once.
    pub(super) place: Option<Place<'a>>,
    pub(super) admission: Admission<&'a Shared>,
}

impl<'a> Leave<'a> {
    #[inline(always)]
    pub(super) fn none(shared: &'a Shared) -> Self {
        Self {
            place: None,
            admission: Admission::none(shared),
        }
    }
}

/// The usual way in, for a call that nothing holds up: without a message and without a wait.
/// False for every other one, which [`admit`] sees to.
///
/// The leave is filled in where it is: to hand it on would cost more than to give it.
#[inline(always)]
pub(super) fn at_once<'a>(
    shared: &'a Shared,
    plan: &Plan<'_>,
    now: Time,
    leave: &mut Leave<'a>,
) -> bool {
    let is_held_up = shared.route() == Route::Stopped
        || !is_solvent(plan)
        || plan.deadline.is_some_and(|deadline| deadline <= now)
        || shared.pauses.now(now).is_some();
    if is_held_up {
        return false;
    }
    let Some(permit) = shared.normal_permit(plan.circuit.as_ref(), now) else {
        return false;
    };
    // The place first: a turn that was taken could not be given back.
    let Some(place) = shared.bulkhead.try_enter(plan.ticket, now) else {
        return false;
    };
    if shared.is_rated() && !has_turn(shared, plan, now) {
        return false;
    }
    let held = Held::new(plan.circuit.clone(), permit, now, plan.deadline);
    leave.admission.set_off(held);
    leave.place = Some(place);
    true
}

/// Takes a turn by the rate limit if it is this call's turn.
fn has_turn(shared: &Shared, plan: &Plan<'_>, now: Time) -> bool {
    let may_go = |rate: &RateLimit| rate.try_enter(plan.weight, now);
    shared.rate.read(|rate| rate.is_none_or(may_go))
}

/// Breaker, pause, rate limit, bulkhead. Whatever is refused further in gives the permit back.
pub(super) async fn admit<'a, E>(
    shared: &'a Shared,
    plan: &Plan<'_>,
    asked: Time,
) -> Result<Leave<'a>, Box<Lost<E>>> {
    if shared.route() == Route::Stopped {
        return Err(Lost::refused(absent(shared, Absence::ShuttingDown)));
    }
    if plan.deadline.is_some_and(|deadline| deadline <= asked) {
        // Before any work, and no outcome of the dependency (rule LIM-2).
        return Err(Lost::refused(no_place(shared, asked, NoPlace::Deadline)));
    }
    let mut way = Way::new(asked);
    loop {
        let mut admission = permit(shared, plan, way.now).await?;
        let place = match way.enter(shared, plan).await {
            Ok(Some(place)) => place,
            Ok(None) => {
                // Nobody holds one of the few probes while it waits out a pause.
                admission.release();
                way.wait_out(shared, plan).await.map_err(Lost::refused)?;
                continue;
            }
            Err(error) => {
                admission.release();
                return Err(Lost::refused(error));
            }
        };
        if !way.waited {
            admission.depart(None);
            let place = Some(place);
            return Ok(Leave { place, admission });
        }
        while admission.is_overtaken() {
            admission.release();
            admission = permit(shared, plan, shared.clock.now()).await?;
        }
        admission.depart(Some(shared.clock.now()));
        let place = Some(place);
        return Ok(Leave { place, admission });
    }
}

/// Leave by the breaker, from the gate alone where that is possible.
async fn permit<'a, E>(
    shared: &'a Shared,
    plan: &Plan<'_>,
    now: Time,
) -> Result<Admission<&'a Shared>, Box<Lost<E>>> {
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

/// How far an attempt has come on its way in.
pub(super) struct Way {
    asked: Time,
    now: Time,
    /// Whether it has had its turn by the rate limit.
    paced: bool,
    waited: bool,
}

impl Way {
    pub(super) fn new(asked: Time) -> Self {
        Self {
            asked,
            now: asked,
            paced: false,
            waited: false,
        }
    }

    /// When it was last looked at the clock.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Waits for a turn by the rate limit, and for a place. `None` while the dependency is paused,
    /// also when that begins only now: no call goes out in a pause (rule LIM-1).
    pub(super) async fn enter<'a, E>(
        &mut self,
        shared: &'a Shared,
        plan: &Plan<'_>,
    ) -> Result<Option<Place<'a>>, CallError<E>> {
        solvent(shared, plan)?;
        if shared.pauses.now(self.now).is_some() {
            return Ok(None);
        }
        if !self.paced {
            self.waited |= take_turn(shared, plan).await?;
            self.paced = true;
        }
        let bulkhead = &shared.bulkhead;
        if !self.waited
            && let Some(place) = bulkhead.try_enter(plan.ticket, self.now)
        {
            return Ok(Some(place));
        }
        let entered = bulkhead.enter(&shared.clock, plan.deadline, plan.ticket);
        let place = match entered.await {
            Ok(place) => place,
            Err(reason) => return Err(no_place(shared, self.asked, reason)),
        };
        self.waited = true;
        self.now = shared.clock.now();
        Ok(shared.pauses.now(self.now).is_none().then_some(place))
    }

    /// Waits out a pause, where that is allowed and soon enough (rule LIM-2).
    pub(super) async fn wait_out<E>(
        &mut self,
        shared: &Shared,
        plan: &Plan<'_>,
    ) -> Result<(), CallError<E>> {
        let patience = self.asked.after(shared.settings().throttle.max_wait);
        let may =
            |pause: &Pause| pause.until <= patience && !is_too_late(pause.until, plan.deadline);
        let waited = shared.pauses.wait_out(&shared.clock, may).await;
        self.waited = true;
        self.now = shared.clock.now();
        waited.map_err(|pause| shared.paused(pause, self.now))
    }
}

/// Waits for the turn by the rate limit, where that is soon enough (rule LIM-2). True when it
/// waited.
async fn take_turn<E>(shared: &Shared, plan: &Plan<'_>) -> Result<bool, CallError<E>> {
    if has_turn(shared, plan, shared.clock.now()) {
        return Ok(false);
    }
    let Some(rate) = shared.rate.get() else {
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

/// Refuses before anything is taken what its session could not pay for.
fn solvent<E>(shared: &Shared, plan: &Plan<'_>) -> Result<(), CallError<E>> {
    match plan.session {
        Some(session) if !is_solvent(plan) => Err(spent(shared, session)),
        _ => Ok(()),
    }
}

fn is_solvent(plan: &Plan<'_>) -> bool {
    let weight = u64::from(plan.weight.get());
    plan.session.is_none_or(|session| session.left() >= weight)
}

/// Takes what an attempt weighs out of the session's purse, now that it may go out.
pub(super) fn pay<E>(shared: &Shared, plan: &Plan<'_>) -> Result<(), CallError<E>> {
    match plan.session {
        Some(session) if !session.try_spend(u64::from(plan.weight.get())) => {
            Err(spent(shared, session))
        }
        _ => Ok(()),
    }
}

fn spent<E>(shared: &Shared, session: &Session) -> CallError<E> {
    CallError::SessionSpent {
        dependency: Arc::clone(&shared.name),
        limit: session.limit(),
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
