//! An attempt that brought no good answer, and the time of one that did.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{AttemptEnd, Class, Symptom, Time};

use super::plan::CallPlan;
use crate::error::{CallError, Fault, Limit, NotExecutedReason, Refused};
use crate::state::Shared;
use crate::state::call_hold::{self, FindOpenAnswer};
use crate::state::call_record::CallRecord;
use crate::time_limit::TimeLimit;
use crate::verdict::Verdict;

/// An attempt without a good answer.
pub(crate) struct FailedAttempt<T, E> {
    pub(crate) error: CallError<E>,
    pub(super) end: AttemptEnd,
    pub(super) retry_after: Option<Duration>,
    pub(super) symptom: Option<Symptom>,
    /// True if the answer speaks of this caller ([`Verdict::for_caller`]).
    is_for_caller: bool,
    /// Finds the answer in the error that still arrives; `None` if there cannot be one.
    pub(super) open_answer: Option<FindOpenAnswer<E>>,
    /// An answer that counts as a failure, of this attempt or of one before it. The call ends with
    /// it where there is no better one.
    pub(super) answer: Option<T>,
}

/// Boxed from the start: few attempts fail, and every one passes its result on.
impl<T, E> FailedAttempt<T, E> {
    pub(crate) fn refused(error: CallError<E>) -> Box<Self> {
        Box::new(Self {
            end: AttemptEnd::RefusedLocally,
            retry_after: None,
            symptom: None,
            is_for_caller: false,
            open_answer: None,
            answer: None,
            error,
        })
    }

    pub(super) fn by_breaker(refused: Refused) -> Box<Self> {
        let retry_after = refused.retry_after;
        let mut failed = Self::refused(CallError::Open(refused));
        failed.retry_after = retry_after;
        failed.end = AttemptEnd::RefusedByBreaker;
        failed
    }

    #[cold]
    pub(crate) fn failed(error: CallError<E>, verdict: &Verdict) -> Box<Self> {
        Box::new(Self {
            end: AttemptEnd::Ended(verdict.class),
            retry_after: verdict.retry_after,
            symptom: verdict.symptom,
            is_for_caller: verdict.is_for_caller,
            open_answer: None,
            answer: None,
            error,
        })
    }

    /// An attempt with an answer that counts as a failure.
    #[cold]
    pub(crate) fn answered(shared: &Shared, answer: T, verdict: &Verdict) -> Box<Self> {
        let error = CallError::BadAnswer {
            dependency: Arc::clone(&shared.name),
            executed: verdict.executed,
        };
        let mut failed = Self::failed(error, verdict);
        failed.answer = Some(answer);
        failed
    }

    /// The end of an attempt by its worker, other than with the dependency's own result.
    pub(crate) fn by_worker(shared: &Shared, error: CallError<E>) -> Box<Self> {
        let verdict = match error {
            CallError::Open(refused) => return Self::by_breaker(refused),
            CallError::RateLimited { .. }
            | CallError::NotExecuted {
                reason:
                    NotExecutedReason::Parked
                    | NotExecutedReason::ShuttingDown
                    | NotExecutedReason::FallbackOnly,
                ..
            } => return Self::refused(error),
            CallError::TimedOut { limit, .. } => shared.timed_out(limit),
            CallError::WorkerCrashed { .. } | CallError::Interrupted { .. } => {
                Verdict::from(Class::Failure).symptom(Symptom::Crash)
            }
            _ => Verdict::from(Class::Failure),
        };
        Self::failed(error, &verdict)
    }

    /// Returns true if the dependency was asked, by this attempt or by one before it.
    pub(super) fn was_made(&self) -> bool {
        matches!(self.end, AttemptEnd::Ended(_)) || !self.error.is_refusal()
    }

    /// Returns true if a fallback may answer.
    pub(super) fn may_fall_back(&self) -> bool {
        // LLM-20: the limit is this dependency's own, and another one may have room.
        let is_too_much_here = matches!(
            self.error,
            CallError::RateLimited {
                limit: Limit::TooManyTokens { .. },
                ..
            }
        );
        // FBK-2: a fallback never covers the caller's own mistakes.
        (self.error.fault() != Fault::Caller || is_too_much_here) && !self.is_word_to_caller()
    }

    /// Returns true if the dependency has answered this caller with an error that nothing replaces.
    fn is_word_to_caller(&self) -> bool {
        self.is_for_caller || self.end == AttemptEnd::Ended(Class::Rejected)
    }

    /// Notes that a call ends with it, unless a fallback answers: as a refusal in the counts, and in
    /// its record.
    pub(super) fn note_end<S: Deref<Target = Shared>>(
        &mut self,
        shared: &Shared,
        plan: &CallPlan<'_>,
        record: &mut CallRecord<S>,
    ) {
        shared.counts.count_refusal(&self.error);
        if self.is_neutral(shared, plan) {
            record.set_neutral();
        }
        if let CallError::TimedOut {
            limit: TimeLimit::Total | TimeLimit::Caller,
            after,
            ..
        } = &mut self.error
        {
            // EDGE-8: a limit of the whole call is told with its time, not that of the last attempt.
            *after = plan.waited + shared.clock.now().since(plan.started);
        }
    }

    /// Returns true if the end says nothing of the service that callers get: a mistake of the caller,
    /// its own short deadline, or our own lack of something.
    fn is_neutral(&self, shared: &Shared, plan: &CallPlan<'_>) -> bool {
        if self.end == AttemptEnd::Ended(Class::Misconfigured) {
            // HLT-1: the callers are refused for a mistake of ours, and get errors.
            return false;
        }
        let deadline = plan.call_deadline();
        let is_cut_by_caller = deadline.is_callers
            && matches!(self.error, CallError::TimedOut { .. })
            && deadline.has_passed(shared.clock.now());
        // EDGE-1: outcomes that are not held against the dependency.
        self.is_word_to_caller()
            || self.end == AttemptEnd::Ended(Class::Cancelled)
            || is_cut_by_caller
    }

    /// Takes the answer of another attempt of the same call, if this one has none.
    pub(super) fn inherit_answer(&mut self, other: &mut Self) {
        if self.answer.is_none() && !self.is_word_to_caller() {
            self.answer = other.answer.take();
        }
    }

    /// The same end, without its answer.
    pub(super) fn without_answer<U>(self) -> Box<FailedAttempt<U, E>> {
        Box::new(FailedAttempt {
            error: self.error,
            end: self.end,
            retry_after: self.retry_after,
            symptom: self.symptom,
            is_for_caller: self.is_for_caller,
            open_answer: self.open_answer,
            answer: None,
        })
    }

    /// The end of a call that has no better answer.
    pub(super) fn into_result(self) -> Result<T, CallError<E>> {
        // CALL-8: the last answer is given all the same, where there is no better one.
        self.answer.ok_or(self.error)
    }

    /// Gives up the rest of an open answer, and with it the attempt's slot.
    pub(super) fn close_answer(&mut self) {
        let find = self.open_answer.take();
        if let Some(answer) = find.and_then(|find| call_hold::open_answer(&mut self.error, find)) {
            answer.close();
        }
    }
}

/// Time at which an answer was counted, and whether it is a success by its verdict. In one word: a
/// second one would make the future of every call larger.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountedAt(u64);

impl CountedAt {
    /// The top bit of a time: reached after 292 years.
    const NO_SUCCESS: u64 = 1 << 63;

    pub(super) fn new(at: Time, is_success: bool) -> Self {
        let mark = if is_success { 0 } else { Self::NO_SUCCESS };
        Self(at.as_nanos() & !Self::NO_SUCCESS | mark)
    }

    pub(super) fn time(self) -> Time {
        Time::from_nanos(self.0 & !Self::NO_SUCCESS)
    }

    /// Returns true if the answer may be kept for later calls.
    pub(super) fn is_success(self) -> bool {
        self.0 & Self::NO_SUCCESS == 0
    }
}
