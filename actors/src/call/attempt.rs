//! One attempt by a worker: its first poll runs in the caller's task if that is possible, else it
//! waits in the worker's queue.
//!
//! All permits of the attempt are returned here, or passed on to the worker that answers.

#![allow(
    clippy::manual_async_fn,
    reason = "an async function moves its arguments once more than a block does"
)]

use std::future::Future;
use std::sync::Arc;

use breakerbox_policy::{Class, Executed, Time};

use super::admit::{AttemptPermits, absent};
use super::core::{DependencyCore, WorkerSlot};
use super::drive::{EndedAttempt, count_attempt, end_attempt, refund, try_begin, wait_to_begin};
use super::failed_attempt::{CountedAt, FailedAttempt};
use super::hedge::pick_worker;
use super::plan::CallPlan;
use super::{Attempted, CompletedCall};
use crate::attempt_progress::AttemptProgress;
use crate::breaker::admission::Admission;
use crate::breaker::hedge_member::HedgeMember;
use crate::dependency::{CallContext, Dependency};
use crate::error::{CallError, NotExecutedReason};
use crate::state::Shared;
use crate::verdict::AttemptError;
use crate::worker::inline::FirstPoll;
use crate::worker::reply::{ReplyReceiver, reply};
use crate::worker::{QueuedJob, Reply, Responder, WorkerJob};

/// Makes one attempt by a worker. `number` counts from 1.
pub(super) fn attempt<D: Dependency>(
    core: &Arc<DependencyCore<D>>,
    request: D::Request,
    plan: &CallPlan<'_>,
    (number, asked_at): (u32, Time),
    mut member: HedgeMember,
) -> impl Future<Output = Attempted<D>> {
    async move {
        let shared = &core.shared;
        // An inline call may end in this very poll: without a budget, a caller that asks in a loop
        // would starve the other tasks of its thread.
        tokio::task::coop::consume_budget().await;
        check_quarantine(shared, plan.fingerprint).map_err(FailedAttempt::refused)?;
        let mut permits = AttemptPermits::none(shared);
        match try_begin(shared, plan, &mut member, asked_at, &mut permits) {
            Some(begun) => begun?,
            None => permits = Box::pin(wait_to_begin(shared, plan, member, asked_at)).await?,
        }
        send(core, request, plan, (number, asked_at), &mut permits).await
    }
}

/// Sends an admitted attempt to a worker, and waits for its end.
pub(super) fn send<'a, D: Dependency>(
    core: &'a Arc<DependencyCore<D>>,
    request: D::Request,
    plan: &CallPlan<'_>,
    (number, asked_at): (u32, Time),
    permits: &mut AttemptPermits<'a>,
) -> impl Future<Output = Attempted<D>> {
    async move {
        let shared = &core.shared;
        let Some(worker) = pick_worker(permits.admission.hedge_member(), core) else {
            permits.admission.release();
            let error = no_worker(core);
            refund(plan, &error);
            return Err(FailedAttempt::refused(error));
        };
        count_attempt(shared, permits);
        let job = WorkerJob {
            request,
            context: CallContext {
                shared: Arc::clone(&worker.shared),
                attempt: number,
                attempt_limit: plan.attempt_limit,
                deadline: plan.deadline,
                fingerprint: plan.fingerprint,
            },
            deadline_limit: plan.deadline_limit,
            scope: plan.scope(shared, permits.admission.probe()),
            progress: plan.progress.cloned(),
        };
        let (result, verdict) = match begin(shared, worker, job, permits) {
            FirstPoll::Ended(result, verdict) => (result, verdict),
            FirstPoll::Waits(waiting) => match waiting.await {
                Ok(Ok((value, is_success))) => {
                    let at = CountedAt::new(shared.clock.now(), is_success);
                    return Ok(CompletedCall { value, at });
                }
                Ok(Err(failed)) => {
                    refund(plan, &failed.error);
                    return Err(failed);
                }
                Err(too_late)
                    if too_late.executed == Executed::No && shared.lacks_worker_for_a_cause() =>
                {
                    // Neutral: the call says no more of the dependency than its worker's failure.
                    if let Some(permit) = too_late.permit {
                        Admission::new(&**shared, permit).release();
                    }
                    let error = shared.not_executed(NotExecutedReason::Restarting, None);
                    refund(plan, &error);
                    return Err(FailedAttempt::by_worker(shared, error));
                }
                Err(too_late) => {
                    if let Some(permit) = too_late.permit {
                        permits.admission = Admission::new(shared, permit);
                    }
                    let executed = AttemptProgress::executed_at(plan.progress, too_late.executed);
                    // Its caller gives up at the deadline; the worker sees to the attempt's limit.
                    let limit = plan.deadline_limit;
                    let verdict = shared.timed_out_unless_held(limit, plan.progress);
                    (Err(AttemptError::TimedOut(limit, executed)), verdict)
                }
            },
            FirstPoll::Absent => {
                let error = absent(shared, shared.absence());
                refund(plan, &error);
                return Err(FailedAttempt::by_worker(shared, error));
            }
        };
        let times = (asked_at, shared.clock.now());
        let (answer, at) = match end_attempt(shared, plan, permits, result, &verdict, times) {
            EndedAttempt::Counted(answer) => (answer, times.1),
            EndedAttempt::Reported(attempt) => {
                let answer = attempt.counted(shared);
                (answer, shared.clock.now())
            }
        };
        let at = CountedAt::new(at, verdict.class == Class::Success);
        answer.map(|value| CompletedCall { value, at })
    }
}

/// Begins an attempt: polls it on the caller's stack if its worker is on this thread, else puts it
/// into the worker's queue.
fn begin<D: Dependency>(
    shared: &Arc<Shared>,
    worker: &WorkerSlot<D>,
    job: WorkerJob<D>,
    permits: &mut AttemptPermits<'_>,
) -> FirstPoll<D> {
    let deadline = job.context.deadline;
    let Some(inline) = worker.inline_executor() else {
        let own_timer = !worker.is_here();
        let handed = make_responder(shared, permits, deadline, (own_timer, false));
        let Some((responder, mut waiting)) = handed else {
            return FirstPoll::Absent;
        };
        waiting.set_progress(job.progress.clone());
        worker.queue.push(QueuedJob { job, responder });
        return FirstPoll::Waits(waiting);
    };
    let Some(began) = permits.admission.started_at() else {
        return FirstPoll::Absent;
    };
    inline.begin(job, began, || {
        make_responder(shared, permits, deadline, (false, true))
    })
}

/// Passes the attempt's permits to the responder that will answer.
fn make_responder<D: Dependency>(
    shared: &Arc<Shared>,
    permits: &mut AttemptPermits<'_>,
    deadline: Option<Time>,
    (own_timer, has_begun): (bool, bool),
) -> Option<(Responder<D>, ReplyReceiver<Reply<D>>)> {
    let slot = permits.slot.take()?;
    let permit = permits.admission.take_permit()?;
    let (replier, waiting) = reply(Arc::clone(shared), permit, deadline, (own_timer, has_begun));
    Some((Responder::new(replier, slot.into_ticket()), waiting))
}

/// The error of an attempt for which there is no worker.
fn no_worker<D: Dependency>(core: &DependencyCore<D>) -> CallError<D::Error> {
    let reason = core.shared.absence();
    let lacks_worker = matches!(
        reason,
        NotExecutedReason::Restarting | NotExecutedReason::Parked
    );
    let wait = core.back_in(core.shared.clock.now());
    core.shared
        .not_executed(reason, wait.filter(|_| lacks_worker))
}

/// Refuses a call if its fingerprint has crashed workers too often.
pub(super) fn check_quarantine<E>(
    shared: &Shared,
    fingerprint: Option<u64>,
) -> Result<(), CallError<E>> {
    // SUP-6: a poison call is refused, never replayed.
    let refused = fingerprint
        .zip(shared.quarantine.as_ref())
        .and_then(|(fingerprint, table)| table.refuses(fingerprint, shared.clock.now()));
    match refused {
        None => Ok(()),
        Some(retry_after) => Err(CallError::Quarantined {
            dependency: Arc::clone(&shared.name),
            retry_after,
        }),
    }
}
