//! Time limits within an attempt, for implementors of a dependency: the runtime cannot see a
//! connection being established, or a byte arriving.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use breakerbox_policy::{RoundedDuration, Symptom, TimeoutSettings};

use super::CallContext;
use crate::deadline::bounded;
use crate::time_limit::TimeLimit;

/// The error of an exceeded time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimitExceeded {
    /// The limit.
    pub limit: TimeLimit,
    /// Time waited.
    pub after: Duration,
}

impl TimeLimitExceeded {
    /// Returns the symptom for [`Dependency::classify`](crate::Dependency::classify).
    #[must_use]
    pub fn symptom(&self) -> Symptom {
        match self.limit {
            TimeLimit::Connect => Symptom::Connect,
            _ => Symptom::Timeout,
        }
    }
}

impl fmt::Display for TimeLimitExceeded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.limit {
            TimeLimit::Connect => "no connection",
            TimeLimit::Idle => "nothing more of the answer",
            _ => "no answer",
        };
        // EDGE-8: the limit is named, so that it can be found and changed.
        write!(
            out,
            "{what} within {} ({})",
            RoundedDuration(self.after),
            self.limit
        )
    }
}

impl std::error::Error for TimeLimitExceeded {}

impl CallContext {
    /// Returns the time limits of the present settings.
    #[must_use]
    pub fn timeouts(&self) -> TimeoutSettings {
        self.shared.settings().timeout
    }

    /// Waits for a connection, at most for `timeout.connect`.
    ///
    /// # Errors  It took longer; the future is dropped.
    pub async fn connect<F: Future>(&self, connecting: F) -> Result<F::Output, TimeLimitExceeded> {
        let limit = self.timeouts().connect;
        self.within(TimeLimit::Connect, limit, connecting).await
    }

    /// Waits for the begin of the answer, at most for `timeout.first_byte`.
    ///
    /// # Errors  As [`CallContext::connect`].
    pub async fn first_byte<F: Future>(
        &self,
        answering: F,
    ) -> Result<F::Output, TimeLimitExceeded> {
        let limit = self.timeouts().first_byte;
        self.within(TimeLimit::FirstByte, limit, answering).await
    }

    /// Waits for the next part of the answer, at most for `timeout.idle`.
    ///
    /// # Errors  As [`CallContext::connect`].
    pub async fn idle<F: Future>(&self, reading: F) -> Result<F::Output, TimeLimitExceeded> {
        let limit = self.timeouts().idle;
        self.within(TimeLimit::Idle, limit, reading).await
    }

    async fn within<F: Future>(
        &self,
        limit: TimeLimit,
        span: Option<Duration>,
        work: F,
    ) -> Result<F::Output, TimeLimitExceeded> {
        let clock = &self.shared.clock;
        let began = clock.now();
        let until = span.map(|span| began.after(span));
        bounded(clock, until, work)
            .await
            .ok_or_else(|| TimeLimitExceeded {
                limit,
                after: clock.now().since(began),
            })
    }
}
