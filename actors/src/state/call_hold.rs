//! The slot and the record that a failed call holds while the rest of its answer arrives.
//!
//! The outcome is recorded when the answer begins. The slot and the call's entry in the totals stay
//! until the answer has ended, because the dependency is busy until then.

use std::fmt;
use std::sync::Arc;

use breakerbox_policy::Ticket;

use super::Shared;
use super::call_record::{CallRecord, CallResult};
use crate::error::CallError;

/// An unsuccessful answer that still arrives, as a part of the error of its attempt.
///
/// # Source  Rule EDGE-4 in docs/rules.md.
pub trait OpenAnswer {
    /// Takes over a part of what the call holds. It is to be dropped once the answer has ended.
    fn hold(&mut self, hold: CallHold);

    /// Gives the rest of the answer up, and drops everything that it holds: another attempt
    /// follows, which needs a slot itself.
    fn close(&mut self);
}

/// The slot of a failed attempt, or the call's entry in the totals. Dropped, it is given back.
#[must_use = "dropped, it is given back at once"]
pub struct CallHold {
    shared: Arc<Shared>,
    slot: Option<Ticket>,
    record: Option<CallRecord<Arc<Shared>>>,
}

/// Finds the open answer in an error, if it has one.
pub(crate) type FindOpenAnswer<E> = fn(&mut E) -> Option<&mut dyn OpenAnswer>;

impl CallHold {
    pub(crate) fn slot(shared: &Arc<Shared>, slot: Ticket) -> Self {
        Self {
            shared: Arc::clone(shared),
            slot: Some(slot),
            record: None,
        }
    }
}

impl Drop for CallHold {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.bulkhead.release(slot);
        }
        if let Some(record) = self.record.take() {
            record.close(CallResult::Failed);
        }
    }
}

impl fmt::Debug for CallHold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("CallHold")
            .field("has_slot", &self.slot.is_some())
            .finish_non_exhaustive()
    }
}

/// Finds the open answer in the error of a call, if it has one.
pub(crate) fn open_answer<E>(
    error: &mut CallError<E>,
    find: FindOpenAnswer<E>,
) -> Option<&mut dyn OpenAnswer> {
    match error {
        CallError::Failed { error, .. } => find(error),
        CallError::FallbackFailed { cause, .. } => open_answer(cause, find),
        _ => None,
    }
}

/// Closes a failed call in the totals: at once, or when its open answer has ended.
pub(crate) fn close_failed<E>(
    error: &mut CallError<E>,
    find: FindOpenAnswer<E>,
    record: CallRecord<Arc<Shared>>,
) {
    match open_answer(error, find) {
        Some(answer) => {
            let shared = Arc::clone(record.shared());
            answer.hold(CallHold {
                shared,
                slot: None,
                record: Some(record),
            });
        }
        None => record.close_failed(error),
    }
}
