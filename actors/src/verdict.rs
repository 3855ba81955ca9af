//! The verdict on an attempt: its class, and further information from the dependency.

use std::time::Duration;

use breakerbox_policy::{Class, Executed, Symptom};

/// A class, with further information from the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// `Retry-After`, as a span from now.
    pub retry_after: Option<Duration>,
    /// The kind of error, if it is a general one; `retry.on` selects by it.
    pub symptom: Option<Symptom>,
    /// True if the throttled call has used up a quota, which stays used up until its reset.
    pub quota_used_up: bool,
    /// Execution of a failed attempt's work; `Yes` by default.
    pub executed: Executed,
    /// True if the settings decide the class of the symptom.
    by_settings: bool,
}

impl From<Class> for Verdict {
    fn from(class: Class) -> Self {
        Self {
            class,
            retry_after: None,
            symptom: None,
            quota_used_up: false,
            executed: Executed::Yes,
            by_settings: false,
        }
    }
}

/// The settings decide the class of the symptom (`classify`).
impl From<Symptom> for Verdict {
    fn from(symptom: Symptom) -> Self {
        Self {
            symptom: Some(symptom),
            by_settings: true,
            ..Self::from(Class::Failure)
        }
    }
}

impl Verdict {
    /// The default verdict on a result: an error is a failure.
    pub(crate) fn by_result<T, E>(result: &Result<T, E>) -> Self {
        Self::from(if result.is_ok() {
            Class::Success
        } else {
            Class::Failure
        })
    }

    /// Returns the verdict with the class of its symptom decided by the settings, if that is left
    /// to them.
    pub(crate) fn judged(mut self, class_of: impl FnOnce(Symptom) -> Class) -> Self {
        if let (true, Some(symptom)) = (self.by_settings, self.symptom) {
            self.class = class_of(symptom);
        }
        self
    }

    /// Returns true if no failure is known without the settings.
    pub(crate) fn is_good(&self) -> bool {
        self.by_settings || self.class == Class::Success
    }

    /// A throttle that lasts: the quota is used up. No call goes out for the time of the hint, or
    /// without a hint until `throttle.quota_reset`.
    #[must_use]
    pub fn quota_used_up() -> Self {
        Self {
            quota_used_up: true,
            ..Self::from(Class::Throttled)
        }
    }

    /// Adds a symptom and keeps the class, even if the settings classify the symptom otherwise.
    #[must_use]
    pub fn symptom(self, symptom: Symptom) -> Self {
        Self {
            symptom: Some(symptom),
            ..self
        }
    }

    /// Sets whether the work was executed: `No` permits a repetition anywhere; `Maybe` is for an
    /// answer that was lost (rule CALL-2).
    #[must_use]
    pub fn executed(self, executed: Executed) -> Self {
        Self { executed, ..self }
    }

    /// Sets the `retry_after` hint.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }
}

/// Result of one attempt, before it is recorded.
#[derive(Debug)]
pub(crate) enum AttemptResult<T, E> {
    /// The dependency answered, with a value or an error of its own.
    Answered(Result<T, E>, Verdict),
    /// A fault was injected.
    Injected,
    /// A limit of time was over first. The work may have been executed.
    TimedOut(Executed),
}
