//! One call in the totals, from its begin to its end.

use std::ops::Deref;

use super::Shared;
use super::totals::TotalsCounter;
use crate::error::CallError;

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
}

impl<S: Deref<Target = Shared>> CallRecord<S> {
    pub(crate) fn open(shared: S) -> Self {
        shared.totals.shard().add_one(TotalsCounter::Submitted);
        Self {
            shared,
            ended: false,
        }
    }

    pub(crate) fn shared(&self) -> &S {
        &self.shared
    }

    #[inline]
    pub(crate) fn close(mut self, result: CallResult) {
        self.ended = true;
        self.shared.totals.shard().add_one(match result {
            CallResult::Primary => TotalsCounter::Primary,
            CallResult::Fallback => TotalsCounter::Fallback,
            CallResult::Refused => TotalsCounter::Refused,
            CallResult::Failed => TotalsCounter::Failed,
        });
    }

    /// Closes a call without an answer: as refused if the dependency was not called, else as
    /// failed.
    pub(crate) fn close_failed<E>(self, error: &CallError<E>) {
        self.close(if error.is_refusal() {
            CallResult::Refused
        } else {
            CallResult::Failed
        });
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
