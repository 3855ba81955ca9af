//! Whether a call is tried again, and what it ends with when it is not.
//!
//! The kernel decides (rules CALL-7 and LIM-4); here it is asked, in one place for all calls.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox_policy::{Attempt, Executed, Retry, RetryDecision, Time};

use super::Lost;
use crate::clock::random;
use crate::dependency::Shared;
use crate::error::{CallError, Refused};

/// What a call came to that was tried more than once: what was refused in the end may have been
/// executed before, and its error must not promise anything else (rule CALL-2).
pub(super) fn most_telling<E>(before: Option<Lost<E>>, mut last: Lost<E>) -> Lost<E> {
    let Some(before) = before else {
        return last;
    };
    let executed = before.error.executed();
    if last.error.executed() != Executed::No || executed == Executed::No {
        return last;
    }
    if let CallError::Open(refused) = &mut last.error {
        refused.executed = executed;
        return last;
    }
    Lost {
        end: last.end,
        retry_after: last.retry_after.or(before.retry_after),
        error: before.error,
    }
}

/// What follows an attempt that gave no answer.
pub(super) enum Next {
    /// Another one, after this wait.
    After(Duration),
    /// Nothing.
    Stop,
    /// Nothing, for the breaker has opened: waiting would be for nothing.
    Opened(Refused),
}

/// Decides whether there is another attempt (rule LIM-4), and how long to wait for it.
pub(super) fn wait_before_next<E>(
    shared: &Shared,
    deadline: Option<Time>,
    idempotent: bool,
    number: u32,
    lost: &Lost<E>,
) -> Next {
    let settings = &shared.settings.retry;
    if settings.max_attempts.get() == 1 {
        return Next::Stop;
    }
    let attempt = Attempt {
        number,
        end: lost.end,
        executed: lost.error.executed(),
        idempotent,
        retry_after: lost.retry_after,
        symptom: None,
        waited: None,
    };
    let retry = Retry::new(settings, deadline);
    let now = shared.clock.now();
    let decision = {
        let mut budget = shared.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = budget.as_mut() {
            let submitted = shared.totals.submitted.load(Ordering::Relaxed);
            let calls = submitted.saturating_sub(budget.deposited);
            budget.kernel.deposit(now, calls);
            budget.deposited = submitted;
        }
        let budget = budget.as_mut().map(|budget| &mut budget.kernel);
        retry.decide(now, &attempt, budget, &mut random())
    };
    match (decision, shared.refuses()) {
        (RetryDecision::Stop(_), _) => Next::Stop,
        (RetryDecision::Again { .. }, Some(refused)) if !settings.on_open => Next::Opened(refused),
        (RetryDecision::Again { after }, _) => Next::After(after),
    }
}

pub(super) async fn pause(shared: &Shared, wait: Duration) {
    if !wait.is_zero() {
        let until = shared.clock.now().after(wait);
        shared.clock.sleep_until(until).await;
    }
}
