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
use crate::breaker::message::Report;
use crate::error::CallError;
use crate::state::Shared;
use crate::verdict::{AttemptResult, Verdict};

/// Makes attempts until one answers or no other one is allowed. Returns the result, and the number
/// of attempts, hedges and refusals included.
///
/// `next_input` returns the input of one more attempt, or `None` if there is no other one to make.
/// `attempt` makes it: the number of the attempt, and the time at which it was asked for. Two
/// functions, because a future is awaited where it is made: moving it would cost more than most
/// attempts.
pub(super) fn drive<'a, T, E, F, I>(
    shared: &'a Shared,
    plan: &'a CallPlan<'_>,
    mut next_input: impl FnMut() -> Option<I>,
    attempt: impl Fn(I, HedgeMember, u32, Time) -> F,
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
            let ended = if plan.is_hedged {
                let next = |member: HedgeMember| {
                    let input = next_input()?;
                    attempts_sent += 1;
                    let asked_at = if member.is_hedge() {
                        shared.clock.now()
                    } else {
                        asked_at
                    };
                    Some(attempt(input, member, attempts_sent, asked_at))
                };
                Box::pin(hedged(shared, plan, next)).await
            } else if let Some(input) = next_input() {
                attempts_sent += 1;
                Some(attempt(input, HedgeMember::default(), attempts_sent, asked_at).await)
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

/// Begins an attempt that nothing delays: acquires its permits and charges its session. Returns
/// `None` for every other attempt, which waits in [`wait_to_begin`].
///
/// The permits are filled in where they are: moving them would cost more than acquiring them.
#[inline(always)]
pub(super) fn try_begin<'a, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    member: &mut HedgeMember,
    asked_at: Time,
    permits: &mut AttemptPermits<'a>,
) -> Option<Result<(), Box<FailedAttempt<E>>>> {
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
pub(super) async fn wait_to_begin<'a, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    member: HedgeMember,
    asked_at: Time,
) -> Result<AttemptPermits<'a>, Box<FailedAttempt<E>>> {
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

/// An attempt after its end: its slot is given back, and its outcome is recorded, or reported and
/// still to be counted.
pub(super) struct EndedAttempt<T, E> {
    answer: Result<CompletedCall<T>, Box<FailedAttempt<E>>>,
    report: Option<Box<Report>>,
}

/// Ends an attempt that ended at `ended`: gives its slot back, records its outcome, and makes its
/// error.
#[inline(always)]
pub(super) fn end_attempt<T, E>(
    shared: &Shared,
    plan: &CallPlan<'_>,
    permits: &mut AttemptPermits<'_>,
    result: AttemptResult<T, E>,
    (began, ended): (Time, Time),
) -> EndedAttempt<T, E> {
    let verdict = result.verdict(shared);
    // The slot first: a caller that gets the answer may call again at once.
    permits.slot = None;
    let report = match permits.admission.settle(&verdict, ended) {
        Settled::Counted => None,
        Settled::NeedsReport(report) => Some(report),
    };
    let answer = match result {
        AttemptResult::Answered(Ok(value), _) => Ok(CompletedCall { value, at: ended }),
        failed => {
            let error = failed.into_error(shared, &verdict, ended.since(began));
            refund(plan, &error);
            Err(FailedAttempt::failed(error, &verdict))
        }
    };
    EndedAttempt { answer, report }
}

impl<T, E> EndedAttempt<T, E> {
    /// Returns the answer once the outcome is counted.
    ///
    /// # Cancel safety   Dropped while it waits, the outcome is still counted.
    #[inline(always)]
    pub(super) async fn counted(
        self,
        shared: &Shared,
    ) -> Result<CompletedCall<T>, Box<FailedAttempt<E>>> {
        let Self { mut answer, report } = self;
        // CALL-3: the outcome is counted before its caller can see the answer.
        if let Some(report) = report {
            Box::pin(report_and_wait(shared, report)).await;
            if let Ok(done) = &mut answer {
                done.at = shared.clock.now();
            }
        }
        answer
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

    /// Returns the error of an attempt without an answer.
    #[cold]
    fn into_error(self, shared: &Shared, verdict: &Verdict, after: Duration) -> CallError<E> {
        let dependency = Arc::clone(&shared.name);
        match self {
            Self::Answered(Err(error), _) => CallError::Failed {
                dependency,
                error,
                executed: verdict.executed,
            },
            // An answer is no error; its caller has taken it out.
            Self::Answered(Ok(_), _) | Self::Injected => CallError::Injected { dependency },
            Self::TimedOut(executed) => CallError::timed_out(dependency, after, executed),
        }
    }
}
