//! Notes of the attempts of one call: their number, and whether a request has gone out.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox_policy::Executed;

use crate::CallError;

/// Notes of the attempts that the task of the caller makes.
#[derive(Debug, Default)]
pub(super) struct AttemptNotes {
    number: Cell<u32>,
    has_sent: AtomicBool,
}

impl AttemptNotes {
    /// Returns the number of attempts.
    pub(super) fn get(&self) -> u32 {
        self.number.get()
    }

    /// Sets the number of attempts.
    pub(super) fn set(&self, number: u32) {
        self.number.set(number);
    }

    /// True once a request was given to a connection.
    pub(super) fn has_sent(&self) -> &AtomicBool {
        &self.has_sent
    }

    /// Returns the error of the call, with what the runtime cannot know: a limit of time may have
    /// passed before any connection stood.
    pub(super) fn judged<E>(&self, mut error: CallError<E>) -> CallError<E> {
        // Without an attempt here, a worker may have made one as the last resort.
        let is_unsent = self.number.get() > 0 && !self.has_sent.load(Ordering::Relaxed);
        if let CallError::TimedOut { executed, .. } = &mut error
            && is_unsent
        {
            // CALL-2: the dependency has not got the request.
            *executed = Executed::No;
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::TimeLimit;

    #[test]
    fn call_2_e3_only_a_call_whose_attempts_have_sent_nothing_was_not_executed() {
        let late = || CallError::<()>::TimedOut {
            dependency: "d".into(),
            limit: TimeLimit::Attempt,
            after: Duration::ZERO,
            executed: Executed::Maybe,
        };
        let notes = AttemptNotes::default();
        assert_eq!(notes.judged(late()).executed(), Executed::Maybe);
        notes.set(1);
        assert_eq!(notes.judged(late()).executed(), Executed::No);
        // A later attempt that finds no connection takes nothing back.
        notes.has_sent().store(true, Ordering::Relaxed);
        notes.set(2);
        assert_eq!(notes.judged(late()).executed(), Executed::Maybe);
    }
}
