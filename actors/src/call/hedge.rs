//! Hedging: a second attempt in parallel with a slow one. The first good answer wins; the other
//! attempt is dropped and does not count.
//!
//! Only idempotent calls are hedged (rule CALL-7), only while the breaker is closed, and only
//! within the budget shared with retries (rule LIM-4). An attempt that still waits for a bulkhead
//! slot is not slow, and a hedge takes a free slot or none.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use breakerbox_policy::{AttemptEnd, Executed, HedgeDelay, HedgeSettings, Time};
use futures_util::FutureExt;
use futures_util::future::Either;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;

use super::FailedAttempt;
use super::admit::{AttemptPermits, admit, at_once, no_place};
use super::plan::Plan;
use super::retry::withdraw;
use crate::admission::Admission;
use crate::bulkhead::NoSlot;
use crate::client::{Core, WorkerSlot};
use crate::dependency::{Dependency, Shared};
use crate::gate::Mode;
use crate::supervisor::Condition;

/// An attempt's membership in a hedge group, if it has one. Each permit carries it, so it is small.
#[derive(Debug, Default)]
pub(crate) struct HedgeMember(Option<Membership>);

#[derive(Debug)]
struct Membership {
    track: Arc<HedgeGroup>,
    /// True if the attempt was sent in parallel with another one.
    is_hedge: bool,
}

/// The state shared by the attempts of one group.
#[derive(Debug, Default)]
struct HedgeGroup {
    /// True once an attempt has won; the losses of the others then mean nothing.
    won: AtomicBool,
    /// Number of attempts that have their slots.
    away: AtomicUsize,
    told: Notify,
    /// Workers that have one of the attempts.
    taken: Mutex<Vec<usize>>,
}

impl HedgeMember {
    /// Returns true if another attempt has won.
    pub(crate) fn is_lost(&self) -> bool {
        let part = self.0.as_ref();
        part.is_some_and(|part| part.track.won.load(Ordering::Acquire))
    }

    /// Returns true if the attempt was sent in parallel with another one.
    pub(crate) fn is_hedge(&self) -> bool {
        self.0.as_ref().is_some_and(|part| part.is_hedge)
    }

    /// Admits an attempt that nothing delays; returns false for every other one.
    #[inline(always)]
    pub(super) fn at_once<'a>(
        &mut self,
        shared: &'a Shared,
        plan: &Plan<'_>,
        now: Time,
        leave: &mut AttemptPermits<'a>,
    ) -> bool {
        if self.is_hedge() || !at_once(shared, plan, now, leave) {
            return false;
        }
        if self.0.is_some() {
            std::mem::take(self).join(&mut leave.admission);
        }
        true
    }

    /// Acquires the attempt's permits, as [`admit`] does. A hedge gets them at once or not at all:
    /// it must not wait ahead of calls without any attempt, nor become the probe of a breaker that
    /// changes state meanwhile.
    pub(super) async fn admit<'a, E>(
        self,
        shared: &'a Shared,
        plan: &Plan<'_>,
        now: Time,
    ) -> Result<AttemptPermits<'a>, Box<FailedAttempt<E>>> {
        let admitting = admit(shared, plan, now);
        let mut leave = if self.is_hedge() {
            let no_place = || no_place(shared, now, NoSlot::Overloaded);
            let admitted = admitting.now_or_never();
            admitted.unwrap_or_else(|| Err(FailedAttempt::refused(no_place())))?
        } else {
            admitting.await?
        };
        self.join(&mut leave.admission);
        Ok(leave)
    }

    /// Notes that the attempt has its slot, and stores the membership with its permit.
    fn join(self, admission: &mut Admission<&Shared>) {
        if let Some(part) = &self.0 {
            part.track.away.fetch_add(1, Ordering::Release);
            part.track.told.notify_one();
            admission.race(self);
        }
    }

    /// Returns the worker for the attempt: if possible a running one that has no attempt of the
    /// group.
    pub(super) fn pick<'a, D: Dependency>(&self, core: &'a Core<D>) -> Option<&'a WorkerSlot<D>> {
        let chosen = core.pick()?;
        let Some(part) = &self.0 else {
            return Some(chosen);
        };
        let mut taken = part
            .track
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut workers = core.workers.iter().enumerate();
        let first = workers
            .clone()
            .find(|(_, slot)| std::ptr::eq(*slot, chosen));
        let is_taken = first.is_some_and(|(place, _)| taken.contains(&place));
        let other = workers.find(|(place, slot)| {
            is_taken && !taken.contains(place) && slot.mail.health.condition() == Condition::Running
        });
        let (place, slot) = other.or(first)?;
        taken.push(place);
        Some(slot)
    }
}

/// Makes one attempt, and hedges in parallel if the plan allows.
///
/// # Cancel safety   As for the attempts: dropped, all of them are dropped.
pub(super) async fn hedged<T, E, F>(
    shared: &Shared,
    plan: &Plan<'_>,
    mut attempt: impl FnMut(HedgeMember) -> Option<F>,
) -> Option<Result<T, Box<FailedAttempt<E>>>>
where
    F: Future<Output = Result<T, Box<FailedAttempt<E>>>>,
{
    let hedge = plan.is_hedged.then(|| shared.settings().hedge);
    let Some(hedge) = hedge.flatten() else {
        return match attempt(HedgeMember::default()) {
            Some(attempt) => Some(attempt.await),
            None => None,
        };
    };
    let track = Arc::new(HedgeGroup::default());
    let race = |is_hedge| {
        let track = Arc::clone(&track);
        HedgeMember(Some(Membership { track, is_hedge }))
    };
    let mut first = pin!(attempt(race(false))?);
    // Most attempts have ended by then, and need none of the following.
    if let Some(ended) = first.as_mut().now_or_never() {
        track.won.store(ended.is_ok(), Ordering::Release);
        return Some(ended);
    }
    let more = || attempt(race(true));
    Box::pin(against(shared, plan, &hedge, &track, first, more)).await
}

/// Sends hedges in parallel with the first attempt as long as no attempt has answered.
async fn against<T, E, F>(
    shared: &Shared,
    plan: &Plan<'_>,
    hedge: &HedgeSettings,
    track: &HedgeGroup,
    first: Pin<&mut F>,
    mut one_more: impl FnMut() -> Option<F>,
) -> Option<Result<T, Box<FailedAttempt<E>>>>
where
    F: Future<Output = Result<T, Box<FailedAttempt<E>>>>,
{
    let mut attempts = FuturesUnordered::new();
    attempts.push(Either::Left(first));
    let mut sent = 1;
    let mut left = hedge.max_hedges.get();
    let mut lost: Option<Box<FailedAttempt<E>>> = None;
    loop {
        // Restarted only after another attempt was sent, or when there will be none.
        let silence = async {
            if left == 0 {
                return std::future::pending().await;
            }
            while track.away.load(Ordering::Acquire) < sent {
                track.told.notified().await;
            }
            let until = shared.clock.now().after(delay(shared, hedge));
            shared.clock.sleep_until(until).await;
        };
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some(Ok(value)) => {
                    track.won.store(true, Ordering::Release);
                    return Some(Ok(value));
                }
                Some(Err(one)) => {
                    lost = Some(stronger_evidence(lost, one));
                    // A failed attempt is for the retries; only a slow one is hedged.
                    left = 0;
                }
                None => return lost.map(Err),
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

/// Returns the error that carries more evidence, for a group without a winner: the attempt that is
/// likelier to have been executed, then the one that reached the dependency rather than one refused
/// locally (rule CALL-2).
fn stronger_evidence<E>(
    one: Option<Box<FailedAttempt<E>>>,
    other: Box<FailedAttempt<E>>,
) -> Box<FailedAttempt<E>> {
    let weight = |lost: &FailedAttempt<E>| {
        let executed = match lost.error.executed() {
            Executed::No => 0,
            Executed::Maybe => 1,
            Executed::Yes => 2,
        };
        (executed, matches!(lost.end, AttemptEnd::Ended(_)))
    };
    match one {
        Some(one) if weight(&one) > weight(&other) => one,
        _ => other,
    }
}

fn may_hedge(shared: &Shared, plan: &Plan<'_>) -> bool {
    let (_, word) = shared.word(plan.circuit.as_ref());
    let is_closed = matches!(
        word.mode(),
        Mode::Closed | Mode::ClosedReportAll | Mode::Disabled
    );
    is_closed && withdraw(shared)
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
