//! The driver of a call: the retry loop, and the frame of one attempt.
//!
//! `ask`, `run` and streams define one attempt; the loop, the permits, the recording of the end and
//! the errors are shared here.

#![allow(
    clippy::manual_async_fn,
    reason = "an async function moves its arguments once more than a block does"
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Executed, Time};

use super::admit::{AttemptPermits, absent, admit, admit_at_once, charge};
use super::hedge::{admit_hedge, hedged, join_group};
use super::plan::CallPlan;
use super::retry::RetryState;
use super::{CompletedCall, FailedAttempt, closed_to_new};
use crate::breaker::admission::{Settled, report_and_wait};
use crate::breaker::hedge_member::HedgeMember;
use crate::error::CallError;
use crate::state::Shared;
use crate::verdict::{AttemptResult, Verdict};

/// Makes attempts until one answers or no other one is allowed. Returns the result, and the number
/// of attempts, hedges and refusals included.
///
/// `attempt` makes one attempt, which was asked for at the given time; `None` if there is none to
/// make.
pub(super) fn drive<'a, T, E, F>(
    shared: &'a Shared,
    plan: &'a CallPlan<'_>,
    mut attempt: impl FnMut(HedgeMember, u32, Time) -> Option<F>,
) -> impl Future<Output = (Result<T, Box<FailedAttempt<E>>>, u32)>
where
    F: Future<Output = Result<T, Box<FailedAttempt<E>>>>,
{
    async move {
        if let Some(reason) = closed_to_new(shared) {
            return (Err(FailedAttempt::refused(absent(shared, reason))), 0);
        }
        let mut attempts_sent = 0;
        let mut state = RetryState::new(plan.started);
        loop {
            let asked_at = state.asked_at();
            let mut next = |member: HedgeMember| {
                let asked_at = if member.is_hedge() {
                    shared.clock.now()
                } else {
                    asked_at
                };
                let next = attempt(member, attempts_sent + 1, asked_at);
                attempts_sent += u32::from(next.is_some());
                next
            };
            let ended = if plan.is_hedged {
                Box::pin(hedged(shared, plan, next)).await
            } else if let Some(only) = next(HedgeMember::default()) {
                Some(only.await)
            } else {
                None
            };
            let failed = match ended {
                Some(Ok(done)) => return (Ok(done), attempts_sent),
                Some(Err(failed)) => Some(failed),
                None => None,
            };
            // Boxed: the future of every call would be larger for what few calls need.
            if let Err(failed) = Box::pin(state.next(shared, plan, failed)).await {
                return (Err(failed), attempts_sent);
            }
        }
    }
}

/// Begins an attempt: acquires its permits, in the order of rule CALL-5, and charges its session.
///
/// The permits are filled in where they are: moving them would cost more than acquiring them.
#[inline(always)]
pub(super) fn begin_attempt<'a, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    member: HedgeMember,
    asked_at: Time,
    permits: &mut AttemptPermits<'a>,
) -> impl Future<Output = Result<(), Box<FailedAttempt<E>>>> {
    async move {
        // Nothing delays such a call, so the order of its checks cannot be observed.
        let at_once = !member.is_hedge() && admit_at_once(shared, plan, asked_at, permits);
        if !at_once {
            // Boxed: the future of every call would be larger for what few calls need.
            *permits = if member.is_hedge() {
                Box::pin(admit_hedge(shared, plan, asked_at)).await?
            } else {
                Box::pin(admit(shared, plan, asked_at)).await?
            };
        }
        if member.has_group() {
            join_group(member, &mut permits.admission);
        }
        charge_attempt(shared, plan, permits)
    }
}

/// Charges the session for an admitted attempt, or gives its permit back.
pub(super) fn charge_attempt<E>(
    shared: &Shared,
    plan: &CallPlan<'_>,
    permits: &mut AttemptPermits<'_>,
) -> Result<(), Box<FailedAttempt<E>>> {
    charge(shared, plan).map_err(|error| {
        permits.admission.release();
        FailedAttempt::refused(error)
    })
}

/// Counts an attempt that goes out now.
pub(super) fn count_attempt(shared: &Shared, permits: &AttemptPermits<'_>) {
    let member = permits.admission.hedge_member();
    let is_hedge = member.is_some_and(HedgeMember::is_hedge);
    shared.totals.attempt(is_hedge);
}

/// Ends an attempt that ended at `ended`: gives its slot back, records its outcome, and makes its
/// error.
pub(super) fn end_attempt<'a, T, E>(
    shared: &'a Shared,
    plan: &'a CallPlan<'_>,
    permits: &'a mut AttemptPermits<'_>,
    result: AttemptResult<T, E>,
    (began, ended): (Time, Time),
) -> impl Future<Output = Result<CompletedCall<T>, Box<FailedAttempt<E>>>> {
    async move {
        let verdict = result.verdict(shared);
        let answer = result.answer(shared, &verdict, ended.since(began));
        if let Err(error) = &answer {
            refund(plan, error);
        }
        // The slot first: a caller that gets the answer may call again at once.
        permits.slot = None;
        let mut at = ended;
        // CALL-3: the outcome is counted before its caller can see the answer.
        if let Settled::NeedsReport(report) = permits.admission.settle(&verdict, ended) {
            Box::pin(report_and_wait(shared, report)).await;
            at = shared.clock.now();
        }
        match answer {
            Ok(value) => Ok(CompletedCall { value, at }),
            Err(error) => Err(FailedAttempt::failed(error, &verdict)),
        }
    }
}

/// Gives the session back what an attempt cost that was not executed.
pub(super) fn refund<E>(plan: &CallPlan<'_>, error: &CallError<E>) {
    if let Some(session) = plan.session
        && error.executed() == Executed::No
    {
        session.give_back(u64::from(plan.weight.get()));
    }
}

impl<T, E> AttemptResult<T, E> {
    /// Returns the verdict on the attempt.
    fn verdict(&self, shared: &Shared) -> Verdict {
        match self {
            Self::Answered(_, verdict) => *verdict,
            Self::Injected => Verdict::from(Class::Failure),
            Self::TimedOut(_) => shared.timed_out(),
        }
    }

    /// Returns the answer, or the error of the attempt.
    fn answer(
        self,
        shared: &Shared,
        verdict: &Verdict,
        after: Duration,
    ) -> Result<T, CallError<E>> {
        let dependency = || Arc::clone(&shared.name);
        match self {
            Self::Answered(Ok(value), _) => Ok(value),
            Self::Answered(Err(error), _) => Err(CallError::Failed {
                dependency: dependency(),
                error,
                executed: verdict.executed,
            }),
            Self::Injected => Err(CallError::Injected {
                dependency: dependency(),
            }),
            Self::TimedOut(executed) => Err(CallError::timed_out(dependency(), after, executed)),
        }
    }
}
