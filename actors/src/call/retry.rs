//! The state of a call between its attempts, and the decision on another one.
//!
//! The kernel decides (rules CALL-7 and LIM-4); this is the one place that asks it.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    Attempt, AttemptEnd, Budget, Executed, Pause, PauseReason, Retry, RetryDecision, Time,
};

use super::FailedAttempt;
use super::admit::absent;
use super::plan::CallPlan;
use crate::breaker::gate_decision::refusing_gate;
use crate::clock::{is_too_late, random};
use crate::error::{CallError, Refused};
use crate::state::Shared;
use crate::sync::LockExt;

/// Returns the result of a call with several attempts. A call that is refused in the end may have
/// been executed before, and its error must not promise anything else (rule CALL-2).
fn merge_executed<T, E>(
    before: Option<Box<FailedAttempt<T, E>>>,
    mut last: Box<FailedAttempt<T, E>>,
) -> Box<FailedAttempt<T, E>> {
    let Some(mut before) = before else {
        return last;
    };
    last.inherit_answer(&mut before);
    let executed = before.error.executed();
    let is_hidden = match last.end {
        AttemptEnd::Ended(_) => last.error.executed() == Executed::No && executed != Executed::No,
        _ => before.was_made(),
    };
    if !is_hidden {
        return last;
    }
    if let CallError::Open(refused) = &mut last.error {
        refused.executed = executed;
        refused.after_attempt = true;
        return last;
    }
    last.retry_after = last.retry_after.or(before.retry_after);
    last.error = before.error;
    last
}

/// The state of a call between its attempts.
pub(super) struct RetryState<T, E> {
    /// Number of attempts that were made.
    made: u32,
    /// Number of refusals by the breaker.
    refusals: u32,
    asked_at: Time,
    waited: Option<Duration>,
    before: Option<Box<FailedAttempt<T, E>>>,
}

impl<T, E> RetryState<T, E> {
    pub(super) fn new(now: Time) -> Self {
        Self {
            made: 0,
            refusals: 0,
            asked_at: now,
            waited: None,
            before: None,
        }
    }

    /// Time at which the present attempt was asked for.
    pub(super) fn asked_at(&self) -> Time {
        self.asked_at
    }

    /// Waits for the next attempt after a failed one.
    ///
    /// # Errors  No other attempt is made, and the call ends with this one.
    pub(super) async fn next(
        &mut self,
        shared: &Shared,
        plan: &CallPlan<'_>,
        failed: Option<Box<FailedAttempt<T, E>>>,
    ) -> Result<(), Box<FailedAttempt<T, E>>> {
        let before = self.before.take();
        // LIM-4: a call that the breaker has kept back is no attempt, and uses up none.
        match failed.as_ref().map(|failed| failed.end) {
            Some(AttemptEnd::Ended(_)) => self.made = self.made.saturating_add(1),
            Some(AttemptEnd::RefusedByBreaker) => self.refusals = self.refusals.saturating_add(1),
            Some(AttemptEnd::RefusedLocally) | None => {}
        }
        let mut failed = match failed {
            Some(failed) => merge_executed(before, failed),
            None => {
                before.unwrap_or_else(|| FailedAttempt::refused(absent(shared, shared.absence())))
            }
        };
        match self.wait_before_next(shared, plan, &failed) {
            RetryStep::After(wait) => {
                // EDGE-4: an exchange that goes on would keep its slot while the next one asks for
                // another.
                failed.close_answer();
                wait_before_retry(shared, plan, wait).await;
                self.waited = Some(wait);
            }
            RetryStep::Stop => return Err(failed),
            RetryStep::Opened(refused) => {
                return Err(merge_executed(
                    Some(failed),
                    FailedAttempt::by_breaker(refused),
                ));
            }
        }
        self.before = Some(failed);
        shared.counts.count_retry();
        self.asked_at = shared.clock.now();
        Ok(())
    }

    /// Decides whether there is another attempt (rule LIM-4), and how long to wait for it.
    fn wait_before_next(
        &self,
        shared: &Shared,
        plan: &CallPlan<'_>,
        failed: &FailedAttempt<T, E>,
    ) -> RetryStep {
        if !plan.may_repeat() {
            return RetryStep::Stop;
        }
        // The breaker has kept the call back: its work has not begun, and `retry.on_open` lets it ask again,
        // also if it may be begun once only.
        let is_kept_back = failed.end == AttemptEnd::RefusedByBreaker && !failed.was_made();
        let is_asked_again = is_kept_back && plan.waits_on_open;
        if plan.max_attempts == NonZeroU32::MIN && !is_asked_again {
            return RetryStep::Stop;
        }
        let all = shared.settings();
        let settings = &all.retry;
        let now = shared.clock.now();
        let pause = shared.pauses_of(plan.key.as_deref()).current(now);
        if pause.is_some_and(|pause| pause.reason == PauseReason::QuotaUsedUp) {
            return RetryStep::Stop;
        }
        let attempt = Attempt {
            number: self.made,
            refusals: self.refusals,
            end: failed.end,
            executed: failed.error.executed(),
            idempotent: plan.idempotent,
            retry_after: shared.believed(failed.retry_after),
            symptom: failed.symptom,
            waited: self.waited,
            paused: pause.map(|pause| pause.until.since(now)),
        };
        let retry = Retry::new(settings, plan.deadline).patient(all.throttle.max_wait);
        let retry = retry.at_most(plan.max_attempts);
        let refusing = refusing_gate(shared, plan.key.as_ref()).filter(|_| !settings.on_open);
        let Some(refusing) = refusing else {
            // LIM-4: the one place that asks for another attempt, from the one budget of the dependency.
            let decision = with_budget(shared, now, |budget| {
                retry.decide(now, &attempt, budget, &mut random())
            });
            return match decision {
                RetryDecision::Stop(_) => RetryStep::Stop,
                RetryDecision::Again { after } => RetryStep::After(after),
            };
        };
        // It would be refused, so it is not made and costs no token.
        match retry.decide(now, &attempt, None, &mut random()) {
            RetryDecision::Stop(_) => RetryStep::Stop,
            RetryDecision::Again { .. } => RetryStep::Opened(refusing.refusal()),
        }
    }
}

/// The step after a failed attempt.
enum RetryStep {
    /// Another attempt, after this wait.
    After(Duration),
    /// The call ends.
    Stop,
    /// The call ends: the breaker has opened, and another attempt would be refused.
    Opened(Refused),
}

/// Withdraws a token for a hedge from the budget; returns false if there is none.
pub(super) fn withdraw(shared: &Shared) -> bool {
    let now = shared.clock.now();
    with_budget(shared, now, |budget| {
        budget.is_none_or(|budget| budget.try_withdraw(now))
    })
}

/// Passes the dependency's retry budget to `ask`, after all calls so far are paid in.
fn with_budget<T>(shared: &Shared, now: Time, ask: impl FnOnce(Option<&mut Budget>) -> T) -> T {
    let mut budget = shared.budget.acquire();
    if let Some(budget) = budget.as_mut() {
        let submitted = shared.totals.submitted();
        let calls = submitted.saturating_sub(budget.deposited);
        budget.kernel.deposit(now, calls);
        budget.deposited = submitted;
    }
    ask(budget.as_mut().map(|budget| &mut budget.kernel))
}

/// Waits before another attempt, and longer if the dependency has prolonged its pause meanwhile. A
/// call that cannot wait that long is refused by its next attempt.
async fn wait_before_retry(shared: &Shared, plan: &CallPlan<'_>, wait: Duration) {
    sleep(shared, wait).await;
    let may = |pause: &Pause| {
        pause.reason != PauseReason::QuotaUsedUp && !is_too_late(pause.until, plan.deadline)
    };
    let pauses = shared.pauses_of(plan.key.as_deref());
    let _ = pauses.wait_out(&shared.clock, may).await;
}

pub(super) async fn sleep(shared: &Shared, wait: Duration) {
    if !wait.is_zero() {
        let until = shared.clock.now().after(wait);
        shared.clock.sleep_until(until).await;
    }
}
