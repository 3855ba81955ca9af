//! What an attempt came to. It never decides what follows from it.

use std::fmt;
use std::time::Duration;

/// The class in which an attempt ended.
///
/// Only [`Class::Success`] and [`Class::Failure`] feed the breaker: counting a caller's bad
/// request, a throttle or a wrong key would open it for everybody although the dependency works.
///
/// # Source  Rule BRK-7 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The dependency did its work.
    Success,
    /// The dependency's fault: a 5xx answer, no connection, a timeout, a panic.
    Failure,
    /// The dependency asked for less traffic (429, exhausted quota).
    Throttled,
    /// The caller's own mistake: 400, 404, a tool's own error.
    Rejected,
    /// Our set-up is wrong: 401, 403, a retired model.
    Misconfigured,
    /// The caller went away before the end.
    Cancelled,
}

/// Whether the dependency did the work of a call that ended without a good answer.
///
/// # Source  Rule CALL-2 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Executed {
    /// It did not: the call is safe to repeat anywhere.
    No,
    /// Nobody knows.
    Maybe,
    /// It did.
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

/// The end of one attempt, as it is reported to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub class: Class,
    /// How long it took.
    pub elapsed: Duration,
    /// The dependency's own wish for how long to wait (`Retry-After`).
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// An outcome of this class without a hint.
    #[must_use]
    pub const fn new(class: Class, elapsed: Duration) -> Self {
        Self {
            class,
            elapsed,
            retry_after: None,
        }
    }
}
