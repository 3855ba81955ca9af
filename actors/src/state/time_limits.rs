//! Verdicts on attempts that a limit of time has ended.

use std::time::Duration;

use breakerbox_policy::{Class, Symptom};

use super::Shared;
use crate::attempt_progress::AttemptProgress;
use crate::time_limit::TimeLimit;
use crate::verdict::Verdict;

impl Shared {
    /// The verdict on an attempt that this limit has ended.
    pub(crate) fn timed_out(&self, limit: TimeLimit) -> Verdict {
        // EDGE-8: the limit that cut is named.
        self.judge(Verdict::from(Symptom::Timeout).limited_by(limit))
    }

    /// Returns the limit that an attempt had: that of the settings, or that of its call.
    #[cold]
    pub(crate) fn limit_of_attempt(&self, span: Option<Duration>) -> TimeLimit {
        match span == self.settings().timeout.attempt {
            true => TimeLimit::Attempt,
            false => TimeLimit::CallAttempt,
        }
    }

    /// Returns the verdict on an attempt that a limit of time has ended: neutral while a person was
    /// asked.
    pub(crate) fn timed_out_unless_held(
        &self,
        limit: TimeLimit,
        progress: Option<&AttemptProgress>,
    ) -> Verdict {
        // EDGE-1: the time of a user is not the dependency's.
        match AttemptProgress::is_held(progress) {
            true => Verdict::from(Class::Cancelled),
            false => self.timed_out(limit),
        }
    }
}
