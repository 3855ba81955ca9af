//! The verdict on an attempt: its class, and further information from the dependency.

use std::time::Duration;

use breakerbox_policy::{Class, Executed, Symptom};

use crate::time_limit::TimeLimit;

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
    /// Execution of a failed attempt's work. By default it follows from the symptom: see
    /// [`Verdict::executed`].
    pub executed: Executed,
    /// The cause of a failure in a few words that hold no secret, such as "connection refused".
    pub cause: Option<&'static str>,
    /// The limit of time that ended the attempt, if it is known.
    pub limit: Option<TimeLimit>,
    /// True if the status of the symptom was not answered: see [`Verdict::likened`].
    pub(crate) is_likened: bool,
    /// True if `executed` was set, so that a symptom does not change it.
    executed_is_set: bool,
    /// True if the settings decide the class of the symptom.
    by_settings: bool,
    /// True if no fallback may replace the answer.
    pub(crate) is_for_caller: bool,
    /// True if it holds for the calls of every key.
    pub(crate) is_for_all_keys: bool,
    /// True if a throttle pauses the calls of its key at most.
    pub(crate) is_for_own_key: bool,
    /// True if a throttle pauses no calls.
    pub(crate) is_without_pause: bool,
}

impl From<Class> for Verdict {
    fn from(class: Class) -> Self {
        // CALL-2: every class but failure and cancelled presupposes an answer of the dependency.
        let executed = match class {
            Class::Failure | Class::Cancelled => Executed::Maybe,
            _ => Executed::Yes,
        };
        Self {
            class,
            retry_after: None,
            symptom: None,
            quota_used_up: false,
            executed,
            executed_is_set: false,
            cause: None,
            limit: None,
            is_likened: false,
            by_settings: false,
            is_for_caller: false,
            is_for_all_keys: false,
            is_for_own_key: false,
            is_without_pause: false,
        }
    }
}

/// The settings decide the class of the symptom (`classify`).
impl From<Symptom> for Verdict {
    fn from(symptom: Symptom) -> Self {
        Self {
            by_settings: true,
            ..Self::from(Class::Failure).symptom(symptom)
        }
    }
}

/// Returns whether the work was executed, as far as the symptom shows.
fn executed_by(symptom: Symptom) -> Executed {
    // CALL-2: what never reached the dependency is safe to repeat, an answer tells that it was
    // executed, and everything else is unknown.
    match symptom {
        Symptom::Connect => Executed::No,
        Symptom::Status(_) | Symptom::StatusClass(_) => Executed::Yes,
        _ => Executed::Maybe,
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

    /// Returns true if an answer with this verdict is none: the dependency failed, or asked for less
    /// traffic. The answers of other classes are the dependency's word to its caller.
    #[inline]
    pub(crate) fn is_bad(&self) -> bool {
        matches!(self.class, Class::Failure | Class::Throttled)
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

    /// Adds the cause in a few words: it is told with the trip, in events and in refusals.
    #[must_use]
    pub fn cause(mut self, cause: &'static str) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Declares that the status of the symptom only classes the error, as that of another protocol or of a
    /// late error in a stream: it was not answered, and the cause is told in its place.
    #[must_use]
    pub fn likened(mut self) -> Self {
        self.is_likened = true;
        self
    }

    /// Adds the limit of time that ended the attempt: an outage that begins with it names it.
    #[must_use]
    pub fn limited_by(mut self, limit: TimeLimit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Adds a symptom and keeps the class, even if the settings classify the symptom otherwise.
    /// Unless [`Verdict::executed`] was called, the execution follows from the symptom.
    #[must_use]
    pub fn symptom(self, symptom: Symptom) -> Self {
        let is_set = self.executed_is_set || self.executed != Self::from(self.class).executed;
        let executed = if is_set {
            self.executed
        } else {
            executed_by(symptom)
        };
        Self {
            symptom: Some(symptom),
            executed,
            ..self
        }
    }

    /// Sets whether the work was executed: `No` permits a repetition anywhere, also of a
    /// write; `Maybe` is for an answer that was lost (rule CALL-2). By default a verdict without a
    /// connection says `No`, one with a status `Yes`, and a failure without either `Maybe`.
    #[must_use]
    pub fn executed(self, executed: Executed) -> Self {
        Self {
            executed,
            executed_is_set: true,
            ..self
        }
    }

    /// Declares that the answer speaks of this caller, such as a refused credential: no fallback
    /// replaces it, of any class (rule FBK-2).
    #[must_use]
    pub fn for_caller(self) -> Self {
        Self {
            is_for_caller: true,
            ..self
        }
    }

    /// Declares that the end of a call with a key speaks of the dependency as a whole, such as a
    /// used-up quota of the account or a failed connection: its pause then holds for the calls of every
    /// key, and its failure counts for the dependency too.
    #[must_use]
    pub fn for_all_keys(self) -> Self {
        Self {
            is_for_all_keys: true,
            ..self
        }
    }

    /// Declares that a throttle speaks of this call's key alone, such as the credential of one caller:
    /// it pauses the calls of the key, and without a key none (rule LIM-1).
    #[must_use]
    pub fn for_own_key(self) -> Self {
        Self {
            is_for_own_key: true,
            ..self
        }
    }

    /// Declares that a throttle speaks of this call's caller, and that no key tells its calls from
    /// those of others: it pauses none (rule LIM-1). The call itself waits for the hint as ever.
    #[must_use]
    pub fn without_pause(self) -> Self {
        Self {
            is_without_pause: true,
            ..self
        }
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

/// The end of an attempt without an answer, before it is recorded.
#[derive(Debug)]
pub(crate) enum AttemptError<E> {
    /// The dependency answered with an error of its own.
    Failed(E),
    /// A fault was injected.
    Injected,
    /// This limit of time was over first, with the work executed as said.
    TimedOut(TimeLimit, Executed),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_2_the_execution_follows_from_the_symptom() {
        let executed = |symptom| Verdict::from(symptom).executed;
        assert_eq!(executed(Symptom::Connect), Executed::No);
        assert_eq!(executed(Symptom::Status(503)), Executed::Yes);
        for unknown in [Symptom::Timeout, Symptom::Reset, Symptom::Crash] {
            assert_eq!(executed(unknown), Executed::Maybe);
        }
        assert_eq!(Verdict::from(Class::Failure).executed, Executed::Maybe);
        assert_eq!(Verdict::from(Class::Rejected).executed, Executed::Yes);
    }

    #[test]
    fn call_2_an_execution_that_was_said_outlasts_a_symptom() {
        let said = Verdict::from(Class::Failure).executed(Executed::Yes);
        assert_eq!(said.symptom(Symptom::Connect).executed, Executed::Yes);
        let unsaid = Verdict::from(Class::Failure).symptom(Symptom::Connect);
        assert_eq!(unsaid.executed, Executed::No);
    }
}
