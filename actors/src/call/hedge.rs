//! A second attempt beside a slow one: the first good answer wins, the other attempt is dropped
//! and counts for nothing.
//!
//! Only idempotent calls are hedged (rule CALL-7), only while the breaker is closed, and only as
//! far as the budget that retries share with them allows (rule LIM-4). An attempt that still waits
//! for a place of ours is not slow, and another one beside it takes a free place or none.

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

use super::Lost;
use super::admit::{Leave, admit, at_once, no_place};
use super::plan::Plan;
use super::retry::withdraw;
use crate::admission::Admission;
use crate::bulkhead::NoPlace;
use crate::client::{Core, Slot};
use crate::dependency::{Dependency, Shared};
use crate::gate::Mode;
use crate::supervisor::Condition;

/// An attempt's part in a race, where there is one. A permit carries it: it is small.
#[derive(Debug, Default)]
pub(crate) struct Race(Option<Part>);

#[derive(Debug)]
struct Part {
    track: Arc<Track>,
    /// Whether it was sent beside another one.
    beside: bool,
}

/// What the attempts of one race share.
#[derive(Debug, Default)]
struct Track {
    /// Whether one has won it: then the loss of the others says nothing.
    won: AtomicBool,
    /// Attempts that have their places.
    away: AtomicUsize,
    told: Notify,
    /// Workers that have one of the attempts.
    taken: Mutex<Vec<usize>>,
}

impl Race {
    /// Whether another attempt has won it.
    pub(crate) fn is_lost(&self) -> bool {
        let part = self.0.as_ref();
        part.is_some_and(|part| part.track.won.load(Ordering::Acquire))
    }

    /// Whether the attempt was sent beside another one.
    pub(crate) fn is_beside(&self) -> bool {
        self.0.as_ref().is_some_and(|part| part.beside)
    }

    /// Leave for an attempt that nothing holds up; false for every other one.
    #[inline(always)]
    pub(super) fn at_once<'a>(
        &mut self,
        shared: &'a Shared,
        plan: &Plan<'_>,
        now: Time,
        leave: &mut Leave<'a>,
    ) -> bool {
        if self.is_beside() || !at_once(shared, plan, now, leave) {
            return false;
        }
        if self.0.is_some() {
            std::mem::take(self).join(&mut leave.admission);
        }
        true
    }

    /// Leave for the attempt, as [`admit`] gives it. Beside another attempt it is there at once or
    /// not at all: it must not wait in front of calls that have no attempt yet, nor be the probe of
    /// a breaker that moves meanwhile.
    pub(super) async fn admit<'a, E>(
        self,
        shared: &'a Shared,
        plan: &Plan<'_>,
        now: Time,
    ) -> Result<Leave<'a>, Box<Lost<E>>> {
        let admitting = admit(shared, plan, now);
        let mut leave = if self.is_beside() {
            let no_place = || no_place(shared, now, NoPlace::Overloaded);
            let admitted = admitting.now_or_never();
            admitted.unwrap_or_else(|| Err(Lost::refused(no_place())))?
        } else {
            admitting.await?
        };
        self.join(&mut leave.admission);
        Ok(leave)
    }

    /// Notes that the attempt has its place, and whose loss it would be.
    fn join(self, admission: &mut Admission<&Shared>) {
        if let Some(part) = &self.0 {
            part.track.away.fetch_add(1, Ordering::Release);
            part.track.told.notify_one();
            admission.race(self);
        }
    }

    /// The worker for the attempt: another one than those that have one of the race already, if
    /// there is one that runs.
    pub(super) fn pick<'a, D: Dependency>(&self, core: &'a Core<D>) -> Option<&'a Slot<D>> {
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

/// Makes one attempt, and others beside it where the plan says so.
///
/// # Cancel safety   As the attempts': dropped, all of them are dropped.
pub(super) async fn hedged<T, E, F>(
    shared: &Shared,
    plan: &Plan<'_>,
    mut attempt: impl FnMut(Race) -> Option<F>,
) -> Option<Result<T, Box<Lost<E>>>>
where
    F: Future<Output = Result<T, Box<Lost<E>>>>,
{
    let hedge = plan.is_hedged.then(|| shared.settings().hedge);
    let Some(hedge) = hedge.flatten() else {
        return match attempt(Race::default()) {
            Some(attempt) => Some(attempt.await),
            None => None,
        };
    };
    let track = Arc::new(Track::default());
    let race = |beside| {
        let track = Arc::clone(&track);
        Race(Some(Part { track, beside }))
    };
    let mut first = pin!(attempt(race(false))?);
    // Most are over by then, and need nothing of what follows.
    if let Some(ended) = first.as_mut().now_or_never() {
        track.won.store(ended.is_ok(), Ordering::Release);
        return Some(ended);
    }
    let more = || attempt(race(true));
    Box::pin(against(shared, plan, &hedge, &track, first, more)).await
}

/// Sends others beside the first attempt as long as none has answered.
async fn against<T, E, F>(
    shared: &Shared,
    plan: &Plan<'_>,
    hedge: &HedgeSettings,
    track: &Track,
    first: Pin<&mut F>,
    mut one_more: impl FnMut() -> Option<F>,
) -> Option<Result<T, Box<Lost<E>>>>
where
    F: Future<Output = Result<T, Box<Lost<E>>>>,
{
    let mut attempts = FuturesUnordered::new();
    attempts.push(Either::Left(first));
    let mut sent = 1;
    let mut left = hedge.max_hedges.get();
    let mut lost: Option<Box<Lost<E>>> = None;
    loop {
        // Begun anew only after another attempt was sent, or when there will be none.
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
                    lost = Some(weightier(lost, one));
                    // What failed is for the retries; only a slow attempt is hedged.
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

/// What a race without a winner came to: an attempt that reached the dependency says more than one
/// that was refused here, and the one that is likelier to have been executed more than the other
/// (rule CALL-2).
fn weightier<E>(one: Option<Box<Lost<E>>>, other: Box<Lost<E>>) -> Box<Lost<E>> {
    let weight = |lost: &Lost<E>| {
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
    let is_closed = matches!(word.mode(), Mode::Closed | Mode::Watchful | Mode::Disabled);
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
