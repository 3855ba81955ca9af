//! A second attempt beside a slow one: the first good answer wins, the other attempt is dropped
//! and counts for nothing.
//!
//! Only idempotent calls are hedged (rule CALL-7), only while the breaker is closed, and only as
//! far as the budget that retries share with them allows (rule LIM-4).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breakerbox_policy::{HedgeDelay, HedgeSettings};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::plan::Plan;
use super::retry::withdraw;
use super::{Lost, most_telling};
use crate::dependency::Shared;
use crate::gate::Mode;

/// Whether the race that an attempt takes part in is over: then its loss says nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Race(Option<Arc<AtomicBool>>);

impl Race {
    /// Whether another attempt has won it.
    pub(crate) fn is_lost(&self) -> bool {
        let won = self.0.as_ref();
        won.is_some_and(|won| won.load(Ordering::Acquire))
    }
}

/// Makes one attempt, and others beside it where the plan says so.
///
/// # Cancel safety   As the attempts': dropped, all of them are dropped.
pub(super) async fn hedged<T, E, F>(
    shared: &Shared,
    plan: &Plan,
    mut attempt: impl FnMut(Race) -> Option<F>,
) -> Option<Result<T, Lost<E>>>
where
    F: Future<Output = Result<T, Lost<E>>>,
{
    let hedge = plan.hedge.filter(|_| plan.idempotent);
    let Some(hedge) = hedge else {
        return match attempt(Race::default()) {
            Some(attempt) => Some(attempt.await),
            None => None,
        };
    };
    let won = Arc::new(AtomicBool::new(false));
    let race = Race(Some(Arc::clone(&won)));
    let mut attempts = FuturesUnordered::new();
    attempts.push(attempt(race.clone())?);
    let mut left = hedge.max_hedges.get();
    let mut lost: Option<Lost<E>> = None;
    loop {
        let silence = async {
            match left {
                0 => std::future::pending().await,
                _ => {
                    let until = shared.clock.now().after(delay(shared, &hedge));
                    shared.clock.sleep_until(until).await;
                }
            }
        };
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some(Ok(value)) => {
                    won.store(true, Ordering::Release);
                    return Some(Ok(value));
                }
                Some(Err(one)) => {
                    lost = Some(most_telling(lost, one));
                    // What failed is for the retries; only a slow attempt is hedged.
                    left = 0;
                }
                None => return lost.map(Err),
            },
            () = silence => {
                left -= 1;
                let next = may_hedge(shared, plan).then(|| attempt(race.clone())).flatten();
                match next {
                    Some(next) => {
                        shared.totals.hedges.fetch_add(1, Ordering::Relaxed);
                        attempts.push(next);
                    }
                    None => left = 0,
                }
            }
        }
    }
}

fn may_hedge(shared: &Shared, plan: &Plan) -> bool {
    let circuit = plan.circuit.as_deref().unwrap_or(&shared.circuit);
    let mode = circuit.gate.read().mode();
    matches!(mode, Mode::Closed | Mode::Watchful | Mode::Disabled) && withdraw(shared)
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
