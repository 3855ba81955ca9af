//! Decides whether a call that failed is tried once more, and when.
//!
//! It never retries by itself; one loop in the process asks it (LIM-4).

use std::time::Duration;

use crate::{Budget, Class, Executed, Random, RetrySettings, Symptom, Time, backoff};

/// How an attempt ended, as far as a retry is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptEnd {
    /// It came back in this class.
    Ended(Class),
    /// The breaker refused it.
    RefusedByBreaker,
    /// Another layer of ours refused it: bulkhead, rate limit, quarantine.
    RefusedLocally,
}

/// One attempt that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, 1 for the first.
    pub number: u32,
    /// How it ended.
    pub end: AttemptEnd,
    /// Whether the dependency did the work.
    pub executed: Executed,
    /// Whether doing the work twice does no harm.
    pub idempotent: bool,
    /// The dependency's own wish for how long to wait, or a refusal's.
    pub retry_after: Option<Duration>,
    /// What went wrong, where that is known.
    pub symptom: Option<Symptom>,
    /// The wait before it; `None` for the first.
    pub waited: Option<Duration>,
    /// How long the dependency's pause still lasts, while there is one: earlier another attempt
    /// would only be refused.
    pub paused: Option<Duration>,
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again.
    Again {
        /// After this wait.
        after: Duration,
    },
    /// Give the caller what there is.
    Stop(StopReason),
}

/// Why a call is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// It succeeded.
    Succeeded,
    /// All attempts are used up.
    AttemptsUsedUp,
    /// Another attempt cannot end otherwise: rejected, misconfigured, or the caller is gone.
    Pointless,
    /// The settings name the symptoms to retry, and this is none of them.
    NotNamed,
    /// It may have been executed, and is not idempotent.
    NotIdempotent,
    /// The breaker is open.
    BreakerOpen,
    /// A layer of ours is full: a retry would only add to it.
    Overloaded,
    /// The wait would pass the deadline.
    DeadlineTooClose,
    /// The dependency's callers retry too much together.
    BudgetUsedUp,
}

/// The retry rules of one call.
///
/// # Source  Rules CALL-7, LIM-1, LIM-2 and LIM-4 in docs/rules.md.
#[derive(Debug, Clone, Copy)]
pub struct Retry<'a> {
    settings: &'a RetrySettings,
    deadline: Option<Time>,
}

impl<'a> Retry<'a> {
    /// The rules for a call that must be over by `deadline`.
    #[must_use]
    pub const fn new(settings: &'a RetrySettings, deadline: Option<Time>) -> Self {
        Self { settings, deadline }
    }

    /// Decides what follows an attempt; a token leaves the budget only for a retry that is made.
    ///
    /// # Units   The wait is never shorter than a pause, nor than a hint that is respected.
    pub fn decide(
        &self,
        now: Time,
        attempt: &Attempt,
        budget: Option<&mut Budget>,
        random: &mut dyn Random,
    ) -> RetryDecision {
        if let Some(reason) = self.forbidden(attempt) {
            return RetryDecision::Stop(reason);
        }
        let after = self.wait(attempt, random);
        if self
            .deadline
            .is_some_and(|deadline| now.after(after) >= deadline)
        {
            return RetryDecision::Stop(StopReason::DeadlineTooClose);
        }
        if budget.is_some_and(|budget| !budget.try_withdraw(now)) {
            return RetryDecision::Stop(StopReason::BudgetUsedUp);
        }
        RetryDecision::Again { after }
    }

    fn forbidden(&self, attempt: &Attempt) -> Option<StopReason> {
        let used_up = (attempt.number >= self.settings.max_attempts.get())
            .then_some(StopReason::AttemptsUsedUp);
        match attempt.end {
            AttemptEnd::Ended(Class::Success) => Some(StopReason::Succeeded),
            AttemptEnd::Ended(Class::Rejected | Class::Misconfigured | Class::Cancelled) => {
                Some(StopReason::Pointless)
            }
            AttemptEnd::RefusedByBreaker if !self.settings.on_open => Some(StopReason::BreakerOpen),
            AttemptEnd::RefusedLocally => Some(StopReason::Overloaded),
            AttemptEnd::RefusedByBreaker => used_up,
            AttemptEnd::Ended(Class::Failure | Class::Throttled) => {
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

    fn wait(&self, attempt: &Attempt, random: &mut dyn Random) -> Duration {
        let n = attempt.number.saturating_sub(1);
        let backoff = &self.settings.backoff;
        // A refusal's hint says when it is of use to ask; polling more often is a choice.
        let respected =
            self.settings.respect_retry_after && attempt.end != AttemptEnd::RefusedByBreaker;
        let hint = attempt.retry_after.filter(|_| respected);
        // All who wait for the same pause must not come back at its very end together.
        match hint.max(attempt.paused) {
            Some(hint) => backoff::delay_with_hint(backoff, n, hint, random),
            None => backoff::delay_after(backoff, n, attempt.waited, random),
        }
    }
}

#[cfg(test)]
mod tests;
