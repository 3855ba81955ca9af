//! Conversion of a call's error into that of an outer layer.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Executed;

use super::{CallError, Limit};

const fn bad_answer<E>(dependency: Arc<str>, executed: Executed) -> CallError<E> {
    CallError::BadAnswer {
        dependency,
        executed,
    }
}

const fn quarantined<E>(dependency: Arc<str>, retry_after: Duration) -> CallError<E> {
    CallError::Quarantined {
        dependency,
        retry_after,
    }
}

const fn rate_limited<E>(
    dependency: Arc<str>,
    limit: Limit,
    retry_after: Option<Duration>,
) -> CallError<E> {
    CallError::RateLimited {
        dependency,
        limit,
        retry_after,
    }
}

const fn session_spent<E>(dependency: Arc<str>, limit: u64) -> CallError<E> {
    CallError::SessionSpent { dependency, limit }
}

impl<E> CallError<E> {
    /// Converts the dependency's own error. Everything else that the error tells stays: refusals,
    /// execution state, time to wait.
    #[must_use]
    pub fn map_failed<F>(self, convert: impl FnOnce(E) -> F) -> CallError<F> {
        match self {
            Self::Failed {
                dependency,
                error,
                executed,
            } => CallError::Failed {
                dependency,
                error: convert(error),
                executed,
            },
            Self::BadAnswer {
                dependency,
                executed,
            } => bad_answer(dependency, executed),
            Self::Open(refused) => CallError::Open(refused),
            Self::Overloaded {
                dependency,
                limit,
                max_concurrent,
                max_queue,
            } => CallError::Overloaded {
                dependency,
                limit,
                max_concurrent,
                max_queue,
            },
            Self::TimedOut {
                dependency,
                limit,
                after,
                executed,
            } => CallError::timed_out(dependency, (limit, after), executed),
            Self::Stalled { dependency, after } => CallError::Stalled { dependency, after },
            Self::WorkerCrashed { dependency, panic } => {
                CallError::WorkerCrashed { dependency, panic }
            }
            Self::Interrupted { dependency, cause } => CallError::Interrupted { dependency, cause },
            Self::NotExecuted {
                dependency,
                reason,
                cause,
                retry_after,
            } => CallError::NotExecuted {
                dependency,
                reason,
                cause,
                retry_after,
            },
            Self::Quarantined {
                dependency,
                retry_after,
            } => quarantined(dependency, retry_after),
            Self::RateLimited {
                dependency,
                limit,
                retry_after,
            } => rate_limited(dependency, limit, retry_after),
            Self::SessionSpent { dependency, limit } => session_spent(dependency, limit),
            Self::Injected { dependency } => CallError::Injected { dependency },
            Self::FallbackFailed {
                dependency,
                fallback,
                message,
                executed,
                executed_by_fallbacks,
                cause,
            } => CallError::FallbackFailed {
                dependency,
                fallback,
                message,
                executed,
                executed_by_fallbacks,
                cause: Box::new(cause.map_failed(convert)),
            },
        }
    }
}
