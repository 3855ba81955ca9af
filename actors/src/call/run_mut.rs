//! A closure call with attempts that borrow from their closure: one after the other, never beside
//! one another.

#![allow(
    clippy::manual_async_fn,
    reason = "with the lifetimes of a signature the futures are `Send` where the closure's are"
)]

use std::sync::Arc;

use super::drive::{FailedRound, drive};
use super::plan::CallPlan;
use super::run::{OpenFailure, close, close_unless_failed, run_attempt};
use super::{FailedAttempt, refuse_at_once};
use crate::breaker::hedge_member::HedgeMember;
use crate::call_options::CallOptions;
use crate::error::CallError;
use crate::state::Shared;
use crate::state::call_record::CallRecord;
use crate::verdict::Verdict;

/// Runs a closure as [`run`](super::run) does, without hedges.
///
/// # Cancel safety   As [`run`](super::run)'s.
pub(crate) async fn run_mut<T, E>(
    shared: &Arc<Shared>,
    options: &CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    mut work: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, CallError<E>> {
    if let Some(refused) = refuse_at_once(shared, || options.key.is_some()) {
        return Err(CallError::Open(refused));
    }
    let record = CallRecord::open(&**shared);
    let plan = plan(shared, options);
    let ended = run_in_turn(shared, &plan, &classify, &mut work).await;
    close(shared, &plan, record, ended)
}

/// Runs a closure as [`run_mut`] does, for a caller that has a fallback: the call is still open in
/// the totals when it fails.
///
/// # Cancel safety   As [`run_mut`]'s.
pub(super) async fn run_mut_or_fail<'a, T, E>(
    shared: &'a Arc<Shared>,
    options: &CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    mut work: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, OpenFailure<'a, T, E>> {
    let record = CallRecord::open(&**shared);
    let plan = plan(shared, options);
    let ended = run_in_turn(shared, &plan, &classify, &mut work).await;
    close_unless_failed(shared, &plan, record, ended)
}

/// Returns the plan of a closure that lends its state to each attempt.
fn plan<'a>(shared: &Shared, options: &'a CallOptions) -> CallPlan<'a> {
    let mut plan = CallPlan::of_closure(shared, options);
    // The second of two attempts at once would have to borrow what the first one has.
    plan.is_hedged = false;
    plan
}

/// Runs the closure as often as the settings allow.
fn run_in_turn<'a, T, E, C, W>(
    shared: &'a Arc<Shared>,
    plan: &'a CallPlan<'_>,
    classify: &'a C,
    work: &'a mut W,
) -> impl Future<Output = Result<T, Box<FailedAttempt<T, E>>>>
where
    C: Fn(&Result<T, E>) -> Verdict,
    W: AsyncFnMut() -> Result<T, E>,
{
    async move {
        let round = |work: &'a mut W, asked_at| async move {
            let lent = &mut *work;
            let begin = move || async move { lent().await };
            let member = HedgeMember::default();
            let ended = run_attempt(shared, plan, asked_at, member, classify, begin).await;
            FailedRound::of(Some(ended), work)
        };
        drive(shared, plan, work, round).await
    }
}
