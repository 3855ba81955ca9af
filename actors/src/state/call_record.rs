//! One call in the totals, from its begin to its end.

use std::ops::Deref;

use breakerbox_policy::Time;

use super::Shared;
use super::totals::TotalsCounter;
use crate::error::{CallError, Fault, Limit, NotExecutedReason};

/// Result of a call, for the totals.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CallResult {
    Primary,
    Fallback,
    Refused,
    Failed,
}

/// One call in the totals: counted when it is made, and once more when it ends.
///
/// Dropped without a result, it counts as cancelled by its caller (rule CALL-1).
#[derive(Debug)]
pub(crate) struct CallRecord<S: Deref<Target = Shared>> {
    shared: S,
    ended: bool,
    /// True if its end says nothing of the service that callers get.
    is_neutral: bool,
}

impl<S: Deref<Target = Shared>> CallRecord<S> {
    pub(crate) fn open(shared: S) -> Self {
        shared.totals.shard().add_one(TotalsCounter::Submitted);
        Self {
            shared,
            ended: false,
            is_neutral: false,
        }
    }

    pub(crate) fn shared(&self) -> &S {
        &self.shared
    }

    /// Leaves the end of the call out of the health: it is the caller's own mistake, or says nothing
    /// of the service.
    pub(crate) fn set_neutral(&mut self) {
        self.is_neutral = true;
    }

    /// Closes a call that ends now.
    pub(crate) fn close(self, result: CallResult) {
        let now = self.shared.clock.now();
        self.close_at(result, now);
    }

    /// Closes a call that ended at `now`.
    #[inline]
    pub(crate) fn close_at(self, result: CallResult, now: Time) {
        self.shared.totals.shard().turn(now);
        self.close_counted(result);
    }

    /// Closes a call after its last attempt, which this thread has just counted with its time.
    #[inline(always)]
    pub(crate) fn close_counted(mut self, result: CallResult) {
        self.ended = true;
        let shard = self.shared.totals.shard();
        shard.add_one(match result {
            CallResult::Primary => TotalsCounter::Primary,
            CallResult::Fallback => TotalsCounter::Fallback,
            CallResult::Refused => TotalsCounter::Refused,
            CallResult::Failed => TotalsCounter::Failed,
        });
        match result {
            CallResult::Primary if self.is_neutral => shard.add_one(TotalsCounter::Neutral),
            CallResult::Refused | CallResult::Failed if !self.is_neutral => {
                shard.add_one(TotalsCounter::Errors);
                self.shared.note_error();
            }
            _ => {}
        }
    }

    /// Closes a call without an answer: as refused if the dependency was not called, else as
    /// failed.
    pub(crate) fn close_failed<E>(mut self, error: &CallError<E>) {
        self.is_neutral |= is_neutral(error);
        if let CallError::Overloaded { limit, .. } = error {
            self.shared.note_overload(limit);
        }
        self.close(if error.is_refusal() {
            CallResult::Refused
        } else {
            CallResult::Failed
        });
    }
}

/// Returns true if an error says nothing of the service: the caller's own fault, a limit that the
/// operator has set for callers, or the end of the dependency.
fn is_neutral<E>(error: &CallError<E>) -> bool {
    // HLT-1, EDGE-1: callers' own mistakes count for nothing.
    match error {
        CallError::RateLimited {
            limit: Limit::Rate | Limit::Tokens,
            ..
        } => true,
        // A call that fallbacks alone may answer gets an error if none does: callers see it.
        CallError::NotExecuted { reason, .. } => !matches!(
            reason,
            NotExecutedReason::Restarting
                | NotExecutedReason::Parked
                | NotExecutedReason::FallbackOnly
        ),
        CallError::FallbackFailed { cause, .. } => is_neutral(cause),
        _ => error.fault() == Fault::Caller,
    }
}

impl<S: Deref<Target = Shared>> Drop for CallRecord<S> {
    fn drop(&mut self) {
        if !self.ended {
            // CALL-1: a call that was dropped has ended too.
            self.shared.totals.shard().add_one(TotalsCounter::Cancelled);
        }
        self.shared.call_ended();
    }
}
