//! One attempt by a worker: it is begun in its caller's own turn where that can be, else it waits
//! in the worker's queue.
//!
//! Everything that it went out with comes back from here, or goes on with who owes its answer.

#![allow(
    clippy::manual_async_fn,
    reason = "an async function moves its arguments once more than a block does"
)]

use std::future::Future;
use std::sync::Arc;

use breakerbox_policy::{Class, Executed, Symptom, Time};

use super::admit::{AttemptPermits, absent, charge};
use super::hedge::HedgeMember;
use super::plan::Plan;
use super::{Attempted, Completed, FailedAttempt};
use crate::admission::Settled;
use crate::client::{Core, WorkerSlot};
use crate::dependency::{CallContext, Dependency, Shared, Verdict};
use crate::error::{CallError, NotExecutedReason};
use crate::reply::{TooLate, Waiting, reply, timed_out};
use crate::worker::hands::FirstPoll;
use crate::worker::{Job, QueuedJob, Reply, Responder};

/// One attempt by a worker.
pub(super) fn attempt<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    plan: &Plan<'_>,
    (number, sent): (u32, Time),
    mut race: HedgeMember,
) -> impl Future<Output = Attempted<D>> {
    async move {
        let shared = &core.shared;
        // A call that is begun in this very turn may end in it: without this a caller that asks in a
        // loop would let nobody else on its thread have a turn.
        tokio::task::coop::consume_budget().await;
        quarantine(shared, plan.fingerprint).map_err(FailedAttempt::refused)?;
        let mut leave = AttemptPermits::none(shared);
        if !race.at_once(shared, plan, sent, &mut leave) {
            // On the heap: what few calls come to must not make every call's future larger.
            leave = Box::pin(race.admit(shared, plan, sent)).await?;
        }
        send(core, request, plan, (number, sent), &mut leave).await
    }
}

/// Hands an attempt that may go out to a worker, and waits for what comes of it.
pub(super) fn send<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    plan: &Plan<'_>,
    (number, sent): (u32, Time),
    leave: &mut AttemptPermits<'_>,
) -> impl Future<Output = Attempted<D>> {
    async move {
        let shared = &core.shared;
        let worker = match leave.admission.race_of() {
            Some(race) => race.pick(core),
            None => core.pick(),
        };
        let Some(worker) = worker else {
            leave.admission.release();
            let reason = shared.absence();
            let wait = core.back_in(shared.clock.now());
            return Err(FailedAttempt::refused(CallError::NotExecuted {
                dependency: Arc::clone(&shared.name),
                reason,
                retry_after: wait.filter(|_| reason == NotExecutedReason::Restarting),
            }));
        };
        if let Err(error) = charge(shared, plan) {
            leave.admission.release();
            return Err(FailedAttempt::refused(error));
        }
        count_attempt(shared, leave.admission.race_of());
        let context = CallContext {
            shared: Arc::clone(&worker.shared),
            attempt: number,
            deadline: plan.deadline,
        };
        let order = Job {
            request,
            context,
            attempt: plan.attempt,
            fingerprint: plan.fingerprint,
        };
        let lost = match begin(shared, worker, order, leave) {
            Begun::Ended(result, verdict) => {
                // The place first: who hears the answer may call again at once.
                leave.place = None;
                let mut now = shared.clock.now();
                if let Settled::NeedsReport(report) = leave.admission.settle(&verdict, now) {
                    Box::pin(shared.report_and_wait(report)).await;
                    now = shared.clock.now();
                }
                match result {
                    Ok(value) => return Ok(Completed { value, at: now }),
                    Err(error) => FailedAttempt::failed(failed(shared, error, &verdict), &verdict),
                }
            }
            Begun::Waits(waiting) => match waiting.await {
                Ok(Ok(value)) => {
                    let at = shared.clock.now();
                    return Ok(Completed { value, at });
                }
                Ok(Err(error)) => lost_by::<D>(shared, error),
                Err(too_late) => Box::pin(give_up(shared, too_late, sent)).await,
            },
            Begun::Absent => FailedAttempt::refused(absent(shared, shared.absence())),
        };
        if let Some(session) = plan.session
            && lost.error.executed() == Executed::No
        {
            session.give_back(u64::from(plan.weight.get()));
        }
        Err(lost)
    }
}

/// What a dependency's own error makes of a call; without one it was made to fail.
fn failed<E>(shared: &Shared, error: Option<E>, verdict: &Verdict) -> CallError<E> {
    let dependency = Arc::clone(&shared.name);
    match error {
        Some(error) => CallError::Failed {
            dependency,
            error,
            executed: verdict.executed,
        },
        None => CallError::Injected { dependency },
    }
}

/// How far an attempt has come at once.
enum Begun<D: Dependency> {
    /// It is over, and still to be counted; see [`failed`].
    Ended(Result<D::Response, Option<D::Error>>, Verdict),
    /// A worker has it, and what it went out with.
    Waits(Waiting<Reply<D>>),
    /// It cannot be begun.
    Absent,
}

/// Begins an attempt in this very turn where its worker is on this thread, else puts it into the
/// worker's queue.
fn begin<D: Dependency>(
    shared: &Arc<Shared>,
    worker: &WorkerSlot<D>,
    order: Job<D>,
    leave: &mut AttemptPermits<'_>,
) -> Begun<D> {
    let deadline = order.context.deadline;
    let Some(hands) = worker.hands() else {
        let own_timer = !worker.is_here();
        let Some((duty, waiting)) = hand_over(shared, leave, deadline, (own_timer, false)) else {
            return Begun::Absent;
        };
        worker.queue.push(QueuedJob { order, duty });
        return Begun::Waits(waiting);
    };
    let Some(began) = leave.admission.started_at() else {
        return Begun::Absent;
    };
    match hands.begin(order, began) {
        FirstPoll::Ended(result, verdict) => Begun::Ended(result.map_err(Some), verdict),
        FirstPoll::Injected => Begun::Ended(Err(None), Verdict::from(Class::Failure)),
        FirstPoll::Unfinished(unfinished) => {
            let Some((duty, waiting)) = hand_over(shared, leave, deadline, (false, true)) else {
                return Begun::Absent;
            };
            hands.go_on(unfinished, duty);
            Begun::Waits(waiting)
        }
    }
}

/// Has somebody else owe the answer, with all that the attempt went out with.
fn hand_over<D: Dependency>(
    shared: &Arc<Shared>,
    leave: &mut AttemptPermits<'_>,
    deadline: Option<Time>,
    (own_timer, has_begun): (bool, bool),
) -> Option<(Responder<D>, Waiting<Reply<D>>)> {
    let place = leave.place.take()?;
    let held = leave.admission.take_held()?;
    let (replier, waiting) = reply(Arc::clone(shared), held, deadline, (own_timer, has_begun));
    Some((Responder::new(replier, place.hand_over()), waiting))
}

/// Counts an attempt that goes out now.
pub(super) fn count_attempt(shared: &Shared, race: Option<&HedgeMember>) {
    shared
        .totals
        .attempt(race.is_some_and(HedgeMember::is_hedge));
}

pub(super) fn quarantine<E>(shared: &Shared, fingerprint: Option<u64>) -> Result<(), CallError<E>> {
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

/// The caller's clock ran out: counted, like every outcome, before anyone hears of it.
async fn give_up<E>(shared: &Arc<Shared>, too_late: TooLate, sent: Time) -> Box<FailedAttempt<E>> {
    let now = shared.clock.now();
    if let Some(mut admission) = too_late.admission
        && let Settled::NeedsReport(report) = admission.settle(&timed_out(shared), now)
    {
        shared.report_and_wait(report).await;
    }
    let error = CallError::TimedOut {
        dependency: Arc::clone(&shared.name),
        after: now.since(sent),
        executed: too_late.executed,
    };
    FailedAttempt::failed(error, &timed_out(shared))
}

pub(super) fn lost_by<D: Dependency>(
    shared: &Shared,
    error: CallError<D::Error>,
) -> Box<FailedAttempt<D::Error>> {
    let verdict = match &error {
        CallError::Open(refused) => return FailedAttempt::by_breaker(refused.clone()),
        CallError::RateLimited { .. }
        | CallError::NotExecuted {
            reason:
                NotExecutedReason::Parked
                | NotExecutedReason::ShuttingDown
                | NotExecutedReason::FallbackOnly,
            ..
        } => return FailedAttempt::refused(error),
        CallError::Failed { error: own, .. } => D::classify(Err(own)).judged(shared),
        CallError::TimedOut { .. } => timed_out(shared),
        CallError::WorkerCrashed { .. } | CallError::Interrupted { .. } => {
            Verdict::from(Class::Failure).symptom(Symptom::Crash)
        }
        _ => Verdict::from(Class::Failure),
    };
    FailedAttempt::failed(error, &verdict)
}
