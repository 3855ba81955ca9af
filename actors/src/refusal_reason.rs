//! The reason why a breaker refuses calls.

use std::sync::Arc;

/// The breaker that refuses, and the reason of its last transition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusalReason {
    /// The dependency's name.
    pub dependency: Arc<str>,
    /// The key, if the breaker is that of one key.
    pub key: Option<Arc<str>>,
    /// The reason for the breaker's state, in words.
    pub reason: String,
}

impl RefusalReason {
    /// Makes the reason of a refusal, for tests of code that handles one.
    #[must_use]
    pub fn new(dependency: Arc<str>, key: Option<Arc<str>>, reason: impl Into<String>) -> Self {
        Self {
            dependency,
            key,
            reason: reason.into(),
        }
    }
}
