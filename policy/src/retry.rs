//! The decision whether, and when, a failed call is retried.
//!
//! It never retries by itself; one loop in the process asks it (LIM-4).

use std::num::NonZeroU32;
use std::time::Duration;

use crate::{Budget, Class, Executed, RandomSource, RetrySettings, Symptom, Time, backoff};

/// End of an attempt, as the retry rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptEnd {
    /// It ended in this class.
    Ended(Class),
    /// The breaker refused it.
    RefusedByBreaker,
    /// Another local layer refused it: bulkhead, rate limit, quarantine.
    RefusedLocally,
}

/// One attempt that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Number of attempts of the call that were made, with this one unless it was refused.
    pub number: u32,
    /// Number of refusals of the call by the breaker, with this one if it was refused.
    pub refusals: u32,
    /// Its end.
    pub end: AttemptEnd,
    /// Execution status at the dependency.
    pub executed: Executed,
    /// True if executing it twice does no harm.
    pub idempotent: bool,
    /// Wait requested by the dependency, or by a refusal.
    pub retry_after: Option<Duration>,
    /// Symptom of the failure, if known.
    pub symptom: Option<Symptom>,
    /// Wait before it; `None` for the first.
    pub waited: Option<Duration>,
    /// Remaining time of the dependency's pause, if there is one: an earlier attempt would only be
    /// refused.
    pub paused: Option<Duration>,
}

/// Decision after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Retry.
    Again {
        /// Wait before the next attempt.
        after: Duration,
    },
    /// Return the current result to the caller.
    Stop(StopReason),
}

/// Reason why a call is not retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// It succeeded.
    Succeeded,
    /// All attempts are used up.
    AttemptsUsedUp,
    /// Another attempt cannot end differently: rejected, misconfigured, or the caller is gone.
    Pointless,
    /// The settings list the symptoms to retry, and this one is not among them.
    NotNamed,
    /// It may have been executed, and it is not idempotent.
    NotIdempotent,
    /// The breaker is open.
    BreakerOpen,
    /// The breaker has refused it as often as it may be asked.
    RefusedTooOften,
    /// A local layer is full: a retry would add to its load.
    Overloaded,
    /// The wait would exceed the deadline.
    DeadlineTooClose,
    /// The dependency asks for a longer wait than a call without a deadline has patience for.
    WaitTooLong,
    /// The callers of the dependency have used up their retry budget.
    BudgetUsedUp,
}

/// The retry rules of one call.
///
/// # Source  Rules CALL-7, LIM-1, LIM-2 and LIM-4 in docs/rules.md.
#[derive(Debug, Clone, Copy)]
pub struct Retry<'a> {
    settings: &'a RetrySettings,
    max_attempts: NonZeroU32,
    deadline: Option<Time>,
    patience: Duration,
}

/// Longest pause or hint that a call without a deadline waits for, unless the settings allow more.
const PATIENCE: Duration = Duration::from_secs(10);

impl<'a> Retry<'a> {
    /// Returns the rules for a call that must end by `deadline`.
    #[must_use]
    pub const fn new(settings: &'a RetrySettings, deadline: Option<Time>) -> Self {
        Self {
            settings,
            max_attempts: settings.max_attempts,
            deadline,
            patience: PATIENCE,
        }
    }

    /// Sets the maximum number of attempts of this call, in place of the settings'. Refusals by the
    /// breaker are no attempts: the settings' number bounds them, by themselves.
    #[must_use]
    pub const fn at_most(mut self, max_attempts: NonZeroU32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Lets a call without a deadline wait for longer pauses and hints than 10 s.
    #[must_use]
    pub fn patient(mut self, wait: Duration) -> Self {
        self.patience = self.patience.max(wait);
        self
    }

    /// Decides whether to retry after an attempt. Only a retry that is made costs a token of the
    /// budget.
    ///
    /// # Units   The wait is never shorter than a pause, nor than a hint that is respected.
    pub fn decide(
        &self,
        now: Time,
        attempt: &Attempt,
        budget: Option<&mut Budget>,
        random: &mut dyn RandomSource,
    ) -> RetryDecision {
        if let Some(reason) = self.forbidden(attempt) {
            return RetryDecision::Stop(reason);
        }
        let asked = self.asked_wait(attempt);
        let longest = self.patience.max(self.settings.backoff.max);
        if self.deadline.is_none() && asked > Some(longest) {
            // LIM-2: without a deadline, a hint of a day would hold the call for a day.
            return RetryDecision::Stop(StopReason::WaitTooLong);
        }
        let after = self.wait(attempt, asked, random);
        if self
            .deadline
            .is_some_and(|deadline| now.after(after) >= deadline)
        {
            // LIM-2: a retry that could not begin before the deadline is not waited for.
            return RetryDecision::Stop(StopReason::DeadlineTooClose);
        }
        // LIM-4: every retry is paid from the one budget of its dependency.
        if budget.is_some_and(|budget| !budget.try_withdraw(now)) {
            return RetryDecision::Stop(StopReason::BudgetUsedUp);
        }
        RetryDecision::Again { after }
    }

    fn forbidden(&self, attempt: &Attempt) -> Option<StopReason> {
        let used_up =
            (attempt.number >= self.max_attempts.get()).then_some(StopReason::AttemptsUsedUp);
        match attempt.end {
            AttemptEnd::Ended(Class::Success) => Some(StopReason::Succeeded),
            AttemptEnd::Ended(Class::Rejected | Class::Misconfigured | Class::Cancelled) => {
                Some(StopReason::Pointless)
            }
            AttemptEnd::RefusedByBreaker if !self.settings.on_open => Some(StopReason::BreakerOpen),
            AttemptEnd::RefusedLocally => Some(StopReason::Overloaded),
            // LIM-4: a refusal uses up no attempt; a bound of its own ends the waits.
            AttemptEnd::RefusedByBreaker => used_up.or_else(|| {
                let is_last = attempt.refusals >= self.settings.max_attempts.get();
                is_last.then_some(StopReason::RefusedTooOften)
            }),
            AttemptEnd::Ended(Class::Failure | Class::Throttled) => {
                // CALL-7: an attempt that may have been executed is repeated only if it is
                // idempotent. CALL-2: one that was not executed is repeated in any case.
                let unsafe_to_repeat = attempt.executed != Executed::No && !attempt.idempotent;
                unsafe_to_repeat
                    .then_some(StopReason::NotIdempotent)
                    .or_else(|| (!self.is_named(attempt)).then_some(StopReason::NotNamed))
                    .or(used_up)
            }
        }
    }

    fn is_named(&self, attempt: &Attempt) -> bool {
        let on = self.settings.on.as_ref();
        on.is_none_or(|on| attempt.symptom.is_some_and(|symptom| on.contains(symptom)))
    }

    /// Returns the wait that the dependency or its pause asks for.
    fn asked_wait(&self, attempt: &Attempt) -> Option<Duration> {
        // A breaker's hint says when asking is useful again; `on_open` chooses to poll more often.
        let respected =
            self.settings.respect_retry_after && attempt.end != AttemptEnd::RefusedByBreaker;
        let hint = attempt.retry_after.filter(|_| respected);
        hint.max(attempt.paused)
    }

    fn wait(
        &self,
        attempt: &Attempt,
        asked: Option<Duration>,
        random: &mut dyn RandomSource,
    ) -> Duration {
        let refusals = match attempt.end {
            AttemptEnd::RefusedByBreaker => attempt.refusals,
            _ => 0,
        };
        let n = attempt.number.saturating_add(refusals).saturating_sub(1);
        let backoff = &self.settings.backoff;
        // Callers that wait for the same pause must not all return at its end.
        match asked {
            Some(asked) => backoff::delay_with_hint(backoff, n, asked, random),
            None => backoff::delay_after(backoff, n, attempt.waited, random),
        }
    }
}

#[cfg(test)]
mod tests;
