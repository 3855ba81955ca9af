//! A closure call: the same layers as [`ask`](super::ask), without workers and without the
//! dependency's fallbacks.

#![allow(
    clippy::manual_async_fn,
    reason = "an async function moves its arguments once more than a block does"
)]

use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::num::NonZeroU32;
use std::sync::Arc;

use breakerbox_policy::{Class, Time};

use super::admit::AttemptPermits;
use super::attempt::check_quarantine;
use super::drive::{
    EndedAttempt, FailedRound, count_attempt, drive, end_attempt, try_begin, wait_to_begin,
};
use super::hedge::hedged;
use super::plan::CallPlan;
use super::stream::bounded_silence;
use super::{FailedAttempt, end_outage, refuse_at_once};
use crate::attempt_progress::AttemptProgress;
use crate::breaker::hedge_member::HedgeMember;
use crate::call_options::CallOptions;
use crate::deadline;
use crate::deadline::bounded;
use crate::error::CallError;
use crate::limits::chaos::{InjectedFailure, apply_fault};
use crate::state::Shared;
use crate::state::call_record::{CallRecord, CallResult};
use crate::sync::{LockExt, Mutex};
use crate::verdict::{AttemptError, Verdict};

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
        if let Some(refused) = refuse_at_once(shared, || options.key.is_some()) {
            return Err(CallError::Open(refused));
        }
        let record = CallRecord::open(&**shared);
        let plan = CallPlan::of_closure(shared, options);
        let ended = run_closure(shared, &plan, &classify, &mut work).await;
        close(shared, &plan, record, ended)
    }
}

/// Runs a closure that can be called once, as [`run`] does: in one attempt, without hedges.
///
/// # Cancel safety   As [`run`]'s.
pub(crate) async fn run_once<T, E>(
    shared: &Arc<Shared>,
    options: &CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    work: impl AsyncFnOnce() -> Result<T, E>,
) -> Result<T, CallError<E>> {
    if let Some(refused) = refuse_at_once(shared, || options.key.is_some()) {
        return Err(CallError::Open(refused));
    }
    let record = CallRecord::open(&**shared);
    // CALL-7: there is nothing to begin another attempt with.
    let mut plan = CallPlan::of_closure(shared, options);
    plan.max_attempts = NonZeroU32::MIN;
    plan.is_hedged = false;
    let mut work = Some(work);
    let mut begin = || {
        let work = work.take();
        async move {
            match work {
                Some(work) => work().await,
                // Not reached: the plan has one attempt.
                None => std::future::pending().await,
            }
        }
    };
    let ended = run_closure(shared, &plan, &classify, &mut begin).await;
    close(shared, &plan, record, ended)
}

/// Closes a call that has no fallback.
#[inline(always)]
pub(super) fn close<T, E>(
    shared: &Arc<Shared>,
    plan: &CallPlan<'_>,
    mut record: CallRecord<&Shared>,
    ended: Result<T, Box<FailedAttempt<T, E>>>,
) -> Result<T, CallError<E>> {
    match ended {
        Ok(value) => {
            record.close_counted(CallResult::Primary);
            Ok(value)
        }
        Err(mut failed) => {
            failed.note_end(shared, plan, &mut record);
            record.close_failed(&failed.error);
            failed.into_result()
        }
    }
}

/// Runs a closure as [`run`] does, for a caller that has a fallback: the call is still open in the
/// totals when it fails.
///
/// # Cancel safety   As [`run`]'s.
pub(super) async fn run_or_fail<'a, T, E, F>(
    shared: &'a Arc<Shared>,
    options: &CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    mut work: impl FnMut() -> F,
) -> Result<T, OpenFailure<'a, T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let record = CallRecord::open(&**shared);
    let plan = CallPlan::of_closure(shared, options);
    let ended = run_closure(shared, &plan, &classify, &mut work).await;
    close_unless_failed(shared, &plan, record, ended)
}

/// A failed attempt, and its call, which is still open in the totals.
pub(super) type OpenFailure<'a, T, E> = (Box<FailedAttempt<T, E>>, CallRecord<&'a Shared>);

/// Closes a call that succeeded. One that failed stays open: a fallback may answer it.
pub(super) fn close_unless_failed<'a, T, E>(
    shared: &'a Arc<Shared>,
    plan: &CallPlan<'_>,
    mut record: CallRecord<&'a Shared>,
    ended: Result<T, Box<FailedAttempt<T, E>>>,
) -> Result<T, OpenFailure<'a, T, E>> {
    match ended {
        Ok(value) => {
            end_outage(shared);
            record.close_counted(CallResult::Primary);
            Ok(value)
        }
        Err(mut failed) => {
            failed.note_end(shared, plan, &mut record);
            Err((failed, record))
        }
    }
}

/// Runs the closure as often as the settings allow.
fn run_closure<'a, T, E, F, C, W>(
    shared: &'a Arc<Shared>,
    plan: &'a CallPlan<'_>,
    classify: &'a C,
    work: &'a mut W,
) -> impl Future<Output = Result<T, Box<FailedAttempt<T, E>>>>
where
    F: Future<Output = Result<T, E>>,
    C: Fn(&Result<T, E>) -> Verdict,
    W: FnMut() -> F,
{
    async move {
        let round = |work: &'a mut W, asked_at| async move {
            let ended = if plan.is_hedged {
                // Hedges begin the work while the first attempt runs.
                let locked = Mutex::new(&mut *work);
                let begin = || locked.acquire()();
                let attempt = |member, asked_at| {
                    Some(run_attempt(shared, plan, asked_at, member, classify, begin))
                };
                Box::pin(hedged(shared, plan, asked_at, attempt)).await
            } else {
                let member = HedgeMember::default();
                Some(run_attempt(shared, plan, asked_at, member, classify, &mut *work).await)
            };
            FailedRound::of(ended, work)
        };
        drive(shared, plan, work, round).await
    }
}

/// One attempt. The closure is not called before the call may go out: it may begin its work
/// before its future is polled.
pub(super) fn run_attempt<'a, T, E, F, C, B>(
    shared: &'a Arc<Shared>,
    plan: &'a CallPlan<'_>,
    asked_at: Time,
    mut member: HedgeMember,
    classify: &'a C,
    begin: B,
) -> impl Future<Output = Result<T, Box<FailedAttempt<T, E>>>>
where
    F: Future<Output = Result<T, E>>,
    C: Fn(&Result<T, E>) -> Verdict,
    B: FnOnce() -> F,
{
    async move {
        if let Err(refused) = check_quarantine::<E>(shared, plan.fingerprint) {
            return Err(FailedAttempt::refused(refused));
        }
        let mut permits = AttemptPermits::none(shared);
        match try_begin(shared, plan, &mut member, asked_at, &mut permits) {
            Some(begun) => begun?,
            None => permits = Box::pin(wait_to_begin(shared, plan, member, asked_at)).await?,
        }
        count_attempt(shared, &permits);
        let began = permits.admission.begin().unwrap_or(asked_at);
        let until = plan.attempt_ends(began);
        let injected = match shared.chaos.draw_for_closure(began) {
            None => Some(Ok(())),
            Some(fault) => {
                let applied = apply_fault(&shared.clock, fault);
                Box::pin(bounded(&shared.clock, until, applied)).await
            }
        };
        let result = match injected {
            Some(Ok(())) => {
                let scope = plan.scope(shared, permits.admission.probe());
                // The closure is called by the first poll, so one call of `within` serves both.
                let mut work = std::pin::pin!(async move { begin().await });
                let work = poll_fn(|cx| deadline::within(scope, || work.as_mut().poll(cx)));
                match plan.progress {
                    None => bounded(&shared.clock, until, work).await.map(Ok),
                    Some(progress) => {
                        let limits = (plan.attempt_limit, plan.deadline);
                        let work = Box::pin(async move {
                            let work = std::pin::pin!(work);
                            bounded_silence(shared, progress, limits, work).await
                        });
                        work.await.map(Ok)
                    }
                }
            }
            Some(Err(injected)) => Some(Err(injected)),
            None => None,
        };
        // Before the classification: its time is not the dependency's.
        let times = (began, shared.clock.now());
        let (result, verdict) = match result {
            Some(Ok(result)) => {
                let verdict = shared.judge(classify(&result));
                if result.is_ok() && !verdict.is_bad() && verdict.class != Class::Success {
                    // HLT-1: an answer to a caller's mistake is no answer of the service.
                    shared.totals.count_neutral();
                }
                (result.map_err(AttemptError::Failed), verdict)
            }
            Some(Err(InjectedFailure)) => (Err(AttemptError::Injected), InjectedFailure.verdict()),
            None => {
                let executed = AttemptProgress::executed(plan.progress);
                let limit = plan.exceeded(shared, times.1);
                let verdict = shared.timed_out_unless_held(limit, plan.progress);
                (Err(AttemptError::TimedOut(limit, executed)), verdict)
            }
        };
        shared.clear_suspicion(plan.fingerprint, &verdict);
        match end_attempt(shared, plan, &mut permits, result, &verdict, times) {
            EndedAttempt::Counted(answer) => answer,
            EndedAttempt::Reported(attempt) => attempt.counted(shared),
        }
    }
}
