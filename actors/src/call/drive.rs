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

use breakerbox_policy::{Executed, Time};

use super::admit::{AttemptPermits, absent, admit, admit_at_once, charge};
use super::hedge::{admit_hedge, join_group};
use super::plan::CallPlan;
use super::retry::RetryState;
use super::{FailedAttempt, closed_to_new};
use crate::breaker::admission::Settled;
use crate::breaker::hedge_member::HedgeMember;
use crate::breaker::judgement;
use crate::breaker::message::Report;
use crate::error::CallError;
use crate::state::Shared;
use crate::verdict::{AttemptError, Verdict};

/// An attempt with its hedges that brought no answer.
pub(super) struct FailedRound<I, A, E> {
    /// The input of the call, for a further round.
    pub(super) input: I,
    /// `None` if there was no input for another attempt.
    pub(super) failed: Option<Box<FailedAttempt<A, E>>>,
}

impl<I, A, E> FailedRound<I, A, E> {
    /// Returns the answer of a round, or what the next round needs.
    #[inline(always)]
    pub(super) fn of<T>(
        ended: Option<Result<T, Box<FailedAttempt<A, E>>>>,
        input: I,
    ) -> Result<T, Self> {
        let failed = match ended {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(failed)) => Some(failed),
            None => None,
        };
        Err(Self { input, failed })
    }
}

/// Makes attempts until one answers or no other one is allowed.
///
/// `round` makes one attempt, with its hedges if the plan has any: it gets the input, and the time
/// at which the attempt was asked for.
pub(super) fn drive<'a, I, T, A, E, F>(
    shared: &'a Shared,
    plan: &'a CallPlan<'_>,
    mut input: I,
    round: impl Fn(I, Time) -> F,
) -> impl Future<Output = Result<T, Box<FailedAttempt<A, E>>>>
where
    F: Future<Output = Result<T, FailedRound<I, A, E>>>,
{
    async move {
        if let Some(reason) = closed_to_new(shared) {
            return Err(FailedAttempt::refused(absent(shared, reason)));
        }
        let mut state = RetryState::new(plan.started);
        loop {
            let ended = match round(input, state.asked_at()).await {
                Ok(answer) => return Ok(answer),
                Err(ended) => ended,
            };
            input = ended.input;
            // Boxed: the future of every call would be larger for what few calls need.
            Box::pin(state.next(shared, plan, ended.failed)).await?;
        }
    }
}

/// Begins an attempt that nothing delays: acquires its permits and charges its session. Returns
/// `None` for every other attempt, which waits in [`wait_to_begin`].
///
/// The permits are filled in where they are: moving them would cost more than acquiring them.
#[inline(always)]
pub(super) fn try_begin<'a, T, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    member: &mut HedgeMember,
    asked_at: Time,
    permits: &mut AttemptPermits<'a>,
) -> Option<Result<(), Box<FailedAttempt<T, E>>>> {
    // Nothing delays such a call, so the order of its checks cannot be observed.
    if member.is_hedge() || !admit_at_once(shared, plan, asked_at, permits) {
        return None;
    }
    if member.has_group() {
        join_group(std::mem::take(member), &mut permits.admission);
    }
    Some(charge_attempt(shared, plan, permits))
}

/// Begins an attempt that has to wait, or to ask the breaker. Box its future: the future of every
/// call would be larger for what few calls need.
pub(super) async fn wait_to_begin<'a, T, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    member: HedgeMember,
    asked_at: Time,
) -> Result<AttemptPermits<'a>, Box<FailedAttempt<T, E>>> {
    let mut permits = if member.is_hedge() {
        admit_hedge(shared, plan, asked_at).await?
    } else {
        admit(shared, plan, asked_at).await?
    };
    if member.has_group() {
        join_group(member, &mut permits.admission);
    }
    charge_attempt(shared, plan, &mut permits)?;
    Ok(permits)
}

/// Charges the session for an admitted attempt, or gives its permit back.
pub(super) fn charge_attempt<T, E>(
    shared: &Shared,
    plan: &CallPlan<'_>,
    permits: &mut AttemptPermits<'_>,
) -> Result<(), Box<FailedAttempt<T, E>>> {
    charge(shared, plan).map_err(|error| {
        permits.admission.release();
        FailedAttempt::refused(error)
    })
}

/// Counts an attempt that goes out now.
#[inline]
pub(super) fn count_attempt(shared: &Shared, permits: &AttemptPermits<'_>) {
    let member = permits.admission.hedge_member();
    let is_hedge = member.is_some_and(HedgeMember::is_hedge);
    shared.totals.attempt(is_hedge);
}

/// An attempt after its end: its slot is given back.
pub(super) enum EndedAttempt<T, E> {
    /// Its outcome is recorded.
    Counted(Result<T, Box<FailedAttempt<T, E>>>),
    /// Its outcome is reported, and still to be counted.
    Reported(Box<ReportedAttempt<T, E>>),
}

/// An attempt that the breaker still has to count.
pub(super) struct ReportedAttempt<T, E> {
    answer: Result<T, Box<FailedAttempt<T, E>>>,
    report: Box<Report>,
}

/// Ends an attempt that ended at `ended`: gives its slot back, records its outcome, and makes its
/// error.
#[inline(always)]
pub(super) fn end_attempt<T, E>(
    shared: &Shared,
    plan: &CallPlan<'_>,
    permits: &mut AttemptPermits<'_>,
    result: Result<T, AttemptError<E>>,
    verdict: &Verdict,
    (began, ended): (Time, Time),
) -> EndedAttempt<T, E> {
    // The slot first: a caller that gets the answer may call again at once.
    permits.slot = None;
    let settled = permits.admission.settle(verdict, ended);
    let answer = match result {
        // CALL-8: an answer that is judged a failure is no answer of the attempt.
        Ok(value) if verdict.is_bad() => Err(FailedAttempt::answered(shared, value, verdict)),
        Ok(value) => Ok(value),
        Err(failed) => {
            let error = failed.into_error(shared, verdict, ended.since(began));
            Err(FailedAttempt::failed(error, verdict))
        }
    };
    if let Err(failed) = &answer {
        refund(plan, &failed.error);
    }
    match settled {
        Settled::Counted => EndedAttempt::Counted(answer),
        Settled::NeedsReport(report) => {
            EndedAttempt::Reported(Box::new(ReportedAttempt { answer, report }))
        }
    }
}

impl<T, E> ReportedAttempt<T, E> {
    /// Counts the outcome and returns the answer.
    pub(super) fn counted(self, shared: &Shared) -> Result<T, Box<FailedAttempt<T, E>>> {
        // CALL-3: the outcome is counted before its caller can see the answer.
        judgement::count(shared, *self.report);
        self.answer
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

impl<E> AttemptError<E> {
    /// Returns the error of the call.
    #[cold]
    fn into_error(self, shared: &Shared, verdict: &Verdict, after: Duration) -> CallError<E> {
        let dependency = Arc::clone(&shared.name);
        match self {
            Self::Failed(error) => CallError::Failed {
                dependency,
                error,
                executed: verdict.executed,
            },
            Self::Injected => CallError::Injected { dependency },
            Self::TimedOut(limit, executed) => {
                CallError::timed_out(dependency, (limit, after), executed)
            }
        }
    }
}
