//! The outcome of an attempt. Nothing here decides what follows from it.

use std::fmt;
use std::time::Duration;

use crate::FailureNote;

/// Class of an attempt's result.
///
/// Only [`Class::Success`] and [`Class::Failure`] feed the breaker. Counting a caller's bad
/// request, a throttle or a wrong key would open it for all callers although the dependency works.
///
/// Exhaustive on purpose: code that counts attempts must count each class somewhere.
///
/// # Source  Rule BRK-7 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The dependency did its work.
    Success,
    /// The dependency's fault: a 5xx response, no connection, a timeout, a panic.
    Failure,
    /// The dependency asked for less traffic (429, exhausted quota).
    Throttled,
    /// The caller's own mistake: 400, 404, a tool's own error.
    Rejected,
    /// The configuration is wrong: 401, 403, a retired model.
    Misconfigured,
    /// The caller went away before the end.
    Cancelled,
}

/// Execution status of a call that ended without a good response: did the dependency do the work?
///
/// Exhaustive: there is no fourth answer. Two attempts together have come to the greater of their
/// values.
///
/// # Source  Rule CALL-2 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Executed {
    /// It was not executed: the call is safe to repeat anywhere.
    No,
    /// It is unknown.
    Maybe,
    /// It was executed.
    Yes,
}

impl fmt::Display for Executed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::No => "no",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        })
    }
}

/// The end of one attempt, as reported to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Class of the result.
    pub class: Class,
    /// Duration of the attempt.
    pub elapsed: Duration,
    /// Wait requested by the dependency (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// The symptom of a failure, such as a refused connection, if it is known.
    pub cause: Option<FailureNote>,
}

impl Outcome {
    /// Returns an outcome of this class without a hint.
    #[must_use]
    pub const fn new(class: Class, elapsed: Duration) -> Self {
        Self {
            class,
            elapsed,
            retry_after: None,
            cause: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executed_is_told_in_a_word() {
        let words = [Executed::No, Executed::Maybe, Executed::Yes].map(|one| one.to_string());
        assert_eq!(words, ["no", "maybe", "yes"]);
    }
}
