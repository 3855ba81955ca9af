//! The limits within an attempt, for those who implement a dependency: the runtime cannot see a
//! connection stand, or a byte come.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use breakerbox_policy::{Symptom, TimeoutSettings};

use super::CallContext;
use crate::reply::bounded;

/// What took too long within an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeLimit {
    /// Until a connection stands (`timeout.connect`).
    Connect,
    /// Until the answer begins (`timeout.first_byte`).
    FirstByte,
    /// Until the answer goes on (`timeout.idle`).
    Idle,
}

/// Something did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// What it was.
    pub limit: TimeLimit,
    /// How long it was waited for.
    pub after: Duration,
}

impl Late {
    /// What it is to [`Dependency::classify`](crate::Dependency::classify).
    #[must_use]
    pub fn symptom(&self) -> Symptom {
        match self.limit {
            TimeLimit::Connect => Symptom::Connect,
            TimeLimit::FirstByte | TimeLimit::Idle => Symptom::Timeout,
        }
    }
}

impl fmt::Display for Late {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.limit {
            TimeLimit::Connect => "no connection",
            TimeLimit::FirstByte => "no answer",
            TimeLimit::Idle => "nothing more of the answer",
        };
        write!(out, "{what} within {:?}", self.after)
    }
}

impl std::error::Error for Late {}

impl CallContext {
    /// How long things may take, by the settings of this moment.
    #[must_use]
    pub fn timeouts(&self) -> TimeoutSettings {
        self.shared.settings().timeout
    }

    /// Waits for a connection, for as long as `timeout.connect` allows.
    ///
    /// # Errors  It took longer; the future is dropped.
    pub async fn connect<F: Future>(&self, connecting: F) -> Result<F::Output, Late> {
        let limit = self.timeouts().connect;
        self.within(TimeLimit::Connect, limit, connecting).await
    }

    /// Waits for the begin of the answer, for as long as `timeout.first_byte` allows.
    ///
    /// # Errors  As [`CallContext::connect`].
    pub async fn first_byte<F: Future>(&self, answering: F) -> Result<F::Output, Late> {
        let limit = self.timeouts().first_byte;
        self.within(TimeLimit::FirstByte, limit, answering).await
    }

    /// Waits for the next part of the answer, for as long as `timeout.idle` allows.
    ///
    /// # Errors  As [`CallContext::connect`].
    pub async fn idle<F: Future>(&self, reading: F) -> Result<F::Output, Late> {
        let limit = self.timeouts().idle;
        self.within(TimeLimit::Idle, limit, reading).await
    }

    async fn within<F: Future>(
        &self,
        limit: TimeLimit,
        span: Option<Duration>,
        work: F,
    ) -> Result<F::Output, Late> {
        let clock = &self.shared.clock;
        let began = clock.now();
        let until = span.map(|span| began.after(span));
        bounded(clock, until, work).await.ok_or_else(|| Late {
            limit,
            after: clock.now().since(began),
        })
    }
}
