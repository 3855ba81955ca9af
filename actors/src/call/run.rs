//! The way of a closure: the same layers as a call, without a worker and without the dependency's
//! fallbacks.

#![allow(
    clippy::manual_async_fn,
    reason = "an async function moves its arguments once more than a block does"
)]

use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};

use breakerbox_policy::{Class, Executed, Time};

use super::admit::{AttemptPermits, absent, charge};
use super::attempt::count_attempt;
use super::hedge::{HedgeMember, hedged};
use super::plan::Plan;
use super::retry::RetryState;
use super::{CallOptions, FailedAttempt, closed_to_new, end_outage, refuse_at_once};
use crate::admission::Settled;
use crate::chaos::{Injected, struck};
use crate::deadline;
use crate::dependency::{Shared, Verdict};
use crate::error::CallError;
use crate::reply::{bounded, timed_out};
use crate::totals::{CallRecord, CallResult};

/// Runs a closure under the same breaker and limits, in the caller's own task.
///
/// # Cancel safety   Dropped, the closure's future is dropped; counted as cancelled.
pub(crate) fn run<'a, T, E, F, O, C, W>(
    shared: &'a Arc<Shared>,
    options: O,
    classify: C,
    mut work: W,
) -> impl Future<Output = Result<T, CallError<E>>> + use<'a, T, E, F, O, C, W>
where
    F: Future<Output = Result<T, E>>,
    O: Borrow<CallOptions>,
    C: Fn(&Result<T, E>) -> Verdict,
    W: FnMut() -> F,
{
    async move {
        let options = options.borrow();
        if let Some(refused) = refuse_at_once(shared, options.key.is_some()) {
            return Err(CallError::Open(refused));
        }
        let entry = CallRecord::open(&**shared);
        let plan = Plan::of_closure(shared, options);
        match primary(shared, &plan, &classify, &mut work).await {
            Ok(value) => {
                entry.close(CallResult::Primary);
                Ok(value)
            }
            Err(lost) => Err(give_up(shared, entry, lost.error)),
        }
    }
}

/// Runs a closure as [`run`] does, for a caller that has somebody to stand in.
///
/// # Cancel safety   As [`run`]'s.
pub(super) async fn run_or_lose<'a, T, E, F>(
    shared: &'a Arc<Shared>,
    options: &CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    mut work: impl FnMut() -> F,
) -> Result<T, (Box<FailedAttempt<E>>, CallRecord<&'a Shared>)>
where
    F: Future<Output = Result<T, E>>,
{
    let entry = CallRecord::open(&**shared);
    let plan = Plan::of_closure(shared, options);
    match primary(shared, &plan, &classify, &mut work).await {
        Ok(value) => {
            end_outage(shared);
            entry.close(CallResult::Primary);
            Ok(value)
        }
        Err(lost) => {
            shared.counts.refuse(&lost.error);
            Err((lost, entry))
        }
    }
}

/// Ends a call in the books that nobody has answered.
pub(super) fn end<E>(entry: CallRecord<&Shared>, error: &CallError<E>) {
    entry.close(if error.is_refusal() {
        CallResult::Refused
    } else {
        CallResult::Failed
    });
}

fn give_up<E>(shared: &Shared, entry: CallRecord<&Shared>, error: CallError<E>) -> CallError<E> {
    shared.counts.refuse(&error);
    end(entry, &error);
    error
}

/// Tries the work as often as the settings allow.
fn primary<'a, T, E, F, C, W>(
    shared: &'a Arc<Shared>,
    plan: &'a Plan<'_>,
    classify: &'a C,
    work: &'a mut W,
) -> impl Future<Output = Result<T, Box<FailedAttempt<E>>>>
where
    F: Future<Output = Result<T, E>>,
    C: Fn(&Result<T, E>) -> Verdict,
    W: FnMut() -> F,
{
    async move {
        let mut tries = RetryState::new(plan.started);
        loop {
            let now = tries.began();
            if let Some(reason) = closed_to_new(shared).filter(|_| tries.is_first()) {
                return Err(FailedAttempt::refused(absent(shared, reason)));
            }
            let ended = if plan.is_hedged {
                let work = Mutex::new(&mut *work);
                let begin = || work.lock().unwrap_or_else(PoisonError::into_inner)();
                let one_more = |race: HedgeMember| {
                    let now = if race.is_hedge() {
                        shared.clock.now()
                    } else {
                        now
                    };
                    Some(once(shared, plan, now, race, classify, begin))
                };
                Box::pin(hedged(shared, plan, one_more)).await
            } else {
                Some(
                    once(
                        shared,
                        plan,
                        now,
                        HedgeMember::default(),
                        classify,
                        &mut *work,
                    )
                    .await,
                )
            };
            let lost = match ended {
                Some(Ok(value)) => return Ok(value),
                Some(Err(lost)) => Some(lost),
                None => None,
            };
            Box::pin(tries.next(shared, plan, lost)).await?;
        }
    }
}

/// One attempt. The closure is not called before the call may go out: it may begin its work
/// before its future is polled.
fn once<'a, T, E, F, C, B>(
    shared: &'a Arc<Shared>,
    plan: &'a Plan<'_>,
    now: Time,
    mut race: HedgeMember,
    classify: &'a C,
    begin: B,
) -> impl Future<Output = Result<T, Box<FailedAttempt<E>>>>
where
    F: Future<Output = Result<T, E>>,
    C: Fn(&Result<T, E>) -> Verdict,
    B: FnOnce() -> F,
{
    async move {
        let mut leave = AttemptPermits::none(shared);
        if !race.at_once(shared, plan, now, &mut leave) {
            // On the heap: what few calls come to must not make every call's future larger.
            leave = Box::pin(race.admit(shared, plan, now)).await?;
        }
        if let Err(error) = charge(shared, plan) {
            leave.admission.release();
            return Err(FailedAttempt::refused(error));
        }
        count_attempt(shared, leave.admission.race_of());
        let began = leave.admission.begin().unwrap_or(now);
        let until = plan.attempt_ends(began);
        let struck = match shared.strike_closure(began) {
            None => Some(Ok(())),
            Some(strike) => Box::pin(bounded(&shared.clock, until, struck(shared, strike))).await,
        };
        let result = match struck {
            Some(Ok(())) => {
                let scope = plan.deadline.map(|end| shared.clock.moment(end));
                let mut work = std::pin::pin!(deadline::within(scope, begin));
                let work = poll_fn(|cx| deadline::within(scope, || work.as_mut().poll(cx)));
                bounded(&shared.clock, until, work).await.map(Ok)
            }
            Some(Err(injected)) => Some(Err(injected)),
            None => None,
        };
        let now = shared.clock.now();
        let verdict = match &result {
            None => timed_out(shared),
            Some(Err(Injected)) => Verdict::from(Class::Failure),
            Some(Ok(result)) => classify(result).judged(shared),
        };
        leave.place = None;
        if let Settled::NeedsReport(report) = leave.admission.settle(&verdict, now) {
            Box::pin(shared.report_and_wait(report)).await;
        }
        let dependency = || Arc::clone(&shared.name);
        let error = match result {
            Some(Ok(Ok(value))) => return Ok(value),
            Some(Ok(Err(error))) => CallError::Failed {
                dependency: dependency(),
                error,
                executed: verdict.executed,
            },
            Some(Err(Injected)) => CallError::Injected {
                dependency: dependency(),
            },
            None => CallError::TimedOut {
                dependency: dependency(),
                after: now.since(began),
                executed: Executed::Maybe,
            },
        };
        Err(FailedAttempt::failed(error, &verdict))
    }
}
