//! Hedging: a second attempt in parallel with a slow one. The first good answer wins; the other
//! attempt is dropped and does not count.
//!
//! Only idempotent calls are hedged (rule CALL-7), only while the breaker is closed, and only
//! within the budget shared with retries (rule LIM-4). An attempt that still waits for a bulkhead
//! slot is not slow, and a hedge takes a free slot or none.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{AttemptEnd, HedgeDelay, HedgeSettings, Time};
use futures_util::FutureExt;
use futures_util::future::Either;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::FailedAttempt;
use super::admit::{AttemptPermits, admit, no_slot};
use super::core::{DependencyCore, WorkerSlot};
use super::plan::CallPlan;
use super::retry::withdraw;
use crate::attempt_progress::AttemptProgress;
use crate::breaker::admission::Admission;
use crate::breaker::gate::GateMode;
use crate::breaker::gate_decision::deciding_gate;
use crate::breaker::hedge_member::{HedgeGroup, HedgeMember};
use crate::dependency::Dependency;
use crate::limits::bulkhead::{NoSlot, QueueRefusal};
use crate::state::Shared;
use crate::supervisor::Condition;

/// Acquires the permits of a hedge, at once or not at all: it must not wait ahead of calls without
/// any attempt, nor become the probe of a breaker that changes state meanwhile.
pub(super) async fn admit_hedge<'a, T, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    now: Time,
) -> Result<AttemptPermits<'a>, Box<FailedAttempt<T, E>>> {
    let full = NoSlot::Overloaded(QueueRefusal::Full);
    let no_slot = || no_slot(shared, plan, now, full);
    let admitted = admit(shared, plan, now).now_or_never();
    admitted.unwrap_or_else(|| Err(FailedAttempt::refused(no_slot())))
}

/// Notes that an attempt of a group has its slot, and stores the membership with its permit.
pub(super) fn join_group(member: HedgeMember, admission: &mut Admission<&Shared>) {
    member.note_start();
    admission.join_group(member);
}

/// Returns the worker for the attempt: if possible a running one that has no attempt of its group.
pub(super) fn pick_worker<'a, D: Dependency>(
    member: Option<&HedgeMember>,
    core: &'a DependencyCore<D>,
) -> Option<&'a WorkerSlot<D>> {
    let chosen = core.pick()?;
    let Some(member) = member.filter(|member| member.has_group()) else {
        return Some(chosen);
    };
    member.choose_worker(|taken| {
        let mut workers = core.workers.iter().enumerate();
        let first = workers
            .clone()
            .find(|(_, slot)| std::ptr::eq(*slot, chosen));
        let is_taken = first.is_some_and(|(index, _)| taken.contains(&index));
        let other = workers.find(|(index, slot)| {
            is_taken && !taken.contains(index) && slot.mail.health.condition() == Condition::Running
        });
        other.or(first)
    })
}

/// Makes one attempt, and hedges in parallel if the plan allows. `attempt` makes each of them: it
/// gets the membership, and the time at which the attempt was asked for.
///
/// # Cancel safety   As for the attempts: dropped, all of them are dropped.
pub(super) async fn hedged<T, A, E, F>(
    shared: &Shared,
    plan: &CallPlan<'_>,
    asked_at: Time,
    mut attempt: impl FnMut(HedgeMember, Time) -> Option<F>,
) -> Option<Result<T, Box<FailedAttempt<A, E>>>>
where
    F: Future<Output = Result<T, Box<FailedAttempt<A, E>>>>,
{
    let hedge = plan.is_hedged.then(|| shared.settings().hedge);
    let hedge = hedge.flatten().map(|hedge| (hedge, Arc::default()));
    let member = |(_, group): &(_, Arc<HedgeGroup>)| group.member(false);
    let member = hedge.as_ref().map(member).unwrap_or_default();
    // Pinned once for both ways: the future of every call would have room for two attempts.
    let mut first = pin!(attempt(member, asked_at)?);
    let Some((hedge, group)) = hedge else {
        return Some(first.await);
    };
    // Most attempts have ended by then, and need none of the following.
    if let Some(ended) = first.as_mut().now_or_never() {
        if ended.is_ok() {
            group.record_win();
        }
        return Some(ended);
    }
    let more = || attempt(group.member(true), shared.clock.now());
    Box::pin(send_hedges(shared, plan, &hedge, &group, first, more)).await
}

/// Sends hedges in parallel with the first attempt as long as no attempt has answered.
async fn send_hedges<T, A, E, F>(
    shared: &Shared,
    plan: &CallPlan<'_>,
    hedge: &HedgeSettings,
    group: &HedgeGroup,
    first: Pin<&mut F>,
    mut one_more: impl FnMut() -> Option<F>,
) -> Option<Result<T, Box<FailedAttempt<A, E>>>>
where
    F: Future<Output = Result<T, Box<FailedAttempt<A, E>>>>,
{
    let mut attempts = FuturesUnordered::new();
    attempts.push(Either::Left(first));
    let mut sent = 1;
    let mut left = hedge.max_hedges.get();
    let mut failed: Option<Box<FailedAttempt<A, E>>> = None;
    loop {
        // Restarted only after another attempt was sent, or when there will be none.
        let silence = async {
            if left == 0 {
                return std::future::pending().await;
            }
            group.until_started(sent).await;
            slow(shared, plan, delay(shared, hedge)).await;
        };
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some(Ok(value)) => {
                    group.record_win();
                    return Some(Ok(value));
                }
                Some(Err(one)) => {
                    failed = Some(stronger_evidence(failed, one));
                    // A failed attempt is for the retries; only a slow one is hedged.
                    left = 0;
                }
                None => return failed.map(Err),
            },
            () = silence => {
                left -= 1;
                let next = may_hedge(shared, plan).then(&mut one_more).flatten();
                match next {
                    Some(next) => {
                        sent += 1;
                        attempts.push(Either::Right(next));
                    }
                    None => left = 0,
                }
            }
        }
    }
}

/// Waits until the attempts are slow: until `delay` has passed without progress.
async fn slow(shared: &Shared, plan: &CallPlan<'_>, delay: Duration) {
    let began = shared.clock.now();
    let mut left = delay;
    while !left.is_zero() {
        shared
            .clock
            .sleep_until(shared.clock.now().after(left))
            .await;
        let whole = shared.clock.now().since(began);
        // EDGE-4: while the caller's body is on its way, no attempt is slow.
        let silent = plan.progress.and_then(AttemptProgress::silent_for);
        left = delay.saturating_sub(silent.map_or(whole, |silent| silent.min(whole)));
    }
}

/// Returns the error that carries more evidence, for a group without a winner: the attempt that is
/// likelier to have been executed, then the one that reached the dependency rather than one refused
/// locally (rule CALL-2).
fn stronger_evidence<T, E>(
    one: Option<Box<FailedAttempt<T, E>>>,
    mut other: Box<FailedAttempt<T, E>>,
) -> Box<FailedAttempt<T, E>> {
    let weight = |failed: &FailedAttempt<T, E>| {
        let executed = failed.error.executed();
        (executed, matches!(failed.end, AttemptEnd::Ended(_)))
    };
    match one {
        Some(mut one) if weight(&one) > weight(&other) => {
            one.inherit_answer(&mut other);
            one
        }
        Some(mut one) => {
            other.inherit_answer(&mut one);
            other
        }
        None => other,
    }
}

fn may_hedge(shared: &Shared, plan: &CallPlan<'_>) -> bool {
    let (_, word) = deciding_gate(shared, plan.key.as_ref());
    // CALL-7 and LIM-4: hedges go out only while the breaker is closed, and from the retry budget.
    let is_closed = matches!(
        word.mode(),
        GateMode::Closed | GateMode::ClosedReportAll | GateMode::Disabled
    );
    is_closed && plan.may_repeat() && withdraw(shared)
}

fn delay(shared: &Shared, hedge: &HedgeSettings) -> Duration {
    match hedge.delay {
        HedgeDelay::Fixed(delay) => delay,
        HedgeDelay::Quantile { quantile, at_least } => {
            let recent = shared.totals.recent(quantile, shared.clock.now());
            recent.map_or(at_least, |recent| recent.max(at_least))
        }
    }
}
