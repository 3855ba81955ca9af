//! An answer, and its source.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The source of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerSource {
    /// The dependency itself.
    Primary,
    /// A fallback, by its name.
    Fallback(Arc<str>),
}

impl fmt::Display for AnswerSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => out.write_str("primary"),
            Self::Fallback(name) => write!(out, "fallback:{name}"),
        }
    }
}

/// An answer, with its source (rule FBK-3).
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// The response.
    pub value: T,
    /// The source of the answer.
    pub source: AnswerSource,
    /// Age of the answer, if it was kept from an earlier call.
    pub age: Option<Duration>,
    /// Number of attempts at the dependency, refusals included.
    pub attempts: u32,
    /// Duration of the call.
    pub elapsed: Duration,
}

impl<T> Answer<T> {
    /// Returns true if the dependency itself answered.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.source == AnswerSource::Primary
    }
}
