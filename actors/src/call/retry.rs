//! Whether a call is tried again, and what it ends with when it is not.
//!
//! The kernel decides (rules CALL-7 and LIM-4); here it is asked, in one place for all calls.

use std::sync::PoisonError;
use std::time::Duration;

use breakerbox_policy::{
    Attempt, Budget, Executed, Pause, PauseReason, Retry, RetryDecision, Time,
};

use super::plan::Plan;
use super::{FailedAttempt, nothing_left};
use crate::clock::{is_too_late, random};
use crate::dependency::Shared;
use crate::error::{CallError, Refused};

/// What a call came to that was tried more than once: what was refused in the end may have been
/// executed before, and its error must not promise anything else (rule CALL-2).
fn merge_executed<E>(
    before: Option<Box<FailedAttempt<E>>>,
    mut last: Box<FailedAttempt<E>>,
) -> Box<FailedAttempt<E>> {
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
    last.retry_after = last.retry_after.or(before.retry_after);
    last.error = before.error;
    last
}

/// Where a call stands between its attempts.
pub(super) struct RetryState<E> {
    number: u32,
    began: Time,
    waited: Option<Duration>,
    before: Option<Box<FailedAttempt<E>>>,
}

impl<E> RetryState<E> {
    pub(super) fn new(now: Time) -> Self {
        Self {
            number: 1,
            began: now,
            waited: None,
            before: None,
        }
    }

    pub(super) fn is_first(&self) -> bool {
        self.number == 1
    }

    /// How many attempts there were, refusals included.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// When the present attempt was asked for.
    pub(super) fn began(&self) -> Time {
        self.began
    }

    /// Waits for the next attempt after one that was lost.
    ///
    /// # Errors  There is none; this is what the call ends with.
    pub(super) async fn next(
        &mut self,
        shared: &Shared,
        plan: &Plan<'_>,
        lost: Option<Box<FailedAttempt<E>>>,
    ) -> Result<(), Box<FailedAttempt<E>>> {
        let before = self.before.take();
        let lost = match lost {
            Some(lost) => merge_executed(before, lost),
            None => nothing_left(shared, before),
        };
        match wait_before_next(shared, plan, (self.number, self.waited), &lost) {
            Next::After(wait) => {
                rest(shared, plan, wait).await;
                self.waited = Some(wait);
            }
            Next::Stop => return Err(lost),
            Next::Opened(refused) => {
                return Err(merge_executed(
                    Some(lost),
                    FailedAttempt::by_breaker(refused),
                ));
            }
        }
        self.before = Some(lost);
        self.number += 1;
        self.began = shared.clock.now();
        Ok(())
    }
}

/// What follows an attempt that gave no answer.
enum Next {
    /// Another one, after this wait.
    After(Duration),
    /// Nothing.
    Stop,
    /// Nothing, for the breaker has opened: waiting would be for nothing.
    Opened(Refused),
}

/// Decides whether there is another attempt (rule LIM-4), and how long to wait for it.
fn wait_before_next<E>(
    shared: &Shared,
    plan: &Plan<'_>,
    (number, waited): (u32, Option<Duration>),
    lost: &FailedAttempt<E>,
) -> Next {
    if plan.max_attempts == 1 {
        return Next::Stop;
    }
    let settings = shared.settings();
    let settings = &settings.retry;
    let now = shared.clock.now();
    let pause = shared.pauses.now(now);
    if pause.is_some_and(|pause| pause.reason == PauseReason::QuotaUsedUp) {
        return Next::Stop;
    }
    let attempt = Attempt {
        number,
        end: lost.end,
        executed: lost.error.executed(),
        idempotent: plan.idempotent,
        retry_after: lost.retry_after,
        symptom: lost.symptom,
        waited,
        paused: pause.map(|pause| pause.until.since(now)),
    };
    let retry = Retry::new(settings, plan.deadline);
    let decision = with_budget(shared, now, |budget| {
        retry.decide(now, &attempt, budget, &mut random())
    });
    match (decision, shared.refuses(plan.circuit.as_ref())) {
        (RetryDecision::Stop(_), _) => Next::Stop,
        (RetryDecision::Again { .. }, Some(shut)) if !settings.on_open => {
            Next::Opened(shut.refusal())
        }
        (RetryDecision::Again { after }, _) => Next::After(after),
    }
}

/// Takes a token for an attempt beside another one out of the budget; false when there is none.
pub(super) fn withdraw(shared: &Shared) -> bool {
    let now = shared.clock.now();
    with_budget(shared, now, |budget| {
        budget.is_none_or(|budget| budget.try_withdraw(now))
    })
}

/// The dependency's one budget, with all calls so far paid in.
fn with_budget<T>(shared: &Shared, now: Time, ask: impl FnOnce(Option<&mut Budget>) -> T) -> T {
    let mut budget = shared.budget.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(budget) = budget.as_mut() {
        let submitted = shared.totals.submitted();
        let calls = submitted.saturating_sub(budget.deposited);
        budget.kernel.deposit(now, calls);
        budget.deposited = submitted;
    }
    ask(budget.as_mut().map(|budget| &mut budget.kernel))
}

/// Waits before another attempt, and on while the dependency has prolonged its pause meanwhile.
/// What cannot wait that long is left to be refused.
async fn rest(shared: &Shared, plan: &Plan<'_>, wait: Duration) {
    sleep(shared, wait).await;
    let may = |pause: &Pause| {
        pause.reason != PauseReason::QuotaUsedUp && !is_too_late(pause.until, plan.deadline)
    };
    let _ = shared.pauses.wait_out(&shared.clock, may).await;
}

pub(super) async fn sleep(shared: &Shared, wait: Duration) {
    if !wait.is_zero() {
        let until = shared.clock.now().after(wait);
        shared.clock.sleep_until(until).await;
    }
}
