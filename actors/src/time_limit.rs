//! The limits of time by name, so that each timeout says which of them cut it. Nothing here waits.

use std::fmt;
use std::time::Duration;

use breakerbox_policy::TimeoutSettings;

/// The limit of time that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeLimit {
    /// Until a connection is established (`timeout.connect`).
    Connect,
    /// Until the answer begins (`timeout.first_byte`).
    FirstByte,
    /// Until the answer continues (`timeout.idle`).
    Idle,
    /// Until the first content of a model's stream (`timeout.first_token`).
    FirstToken,
    /// Until the content of a model's stream continues (`timeout.gap`).
    Gap,
    /// One attempt (`timeout.attempt`).
    Attempt,
    /// One attempt, by [`CallOptions::attempt`](crate::CallOptions::attempt).
    CallAttempt,
    /// The whole call (`timeout.total`).
    Total,
    /// The caller's own deadline, where it is shorter than `timeout.total`.
    Caller,
    /// One active probe (`probe.timeout`).
    Probe,
}

impl TimeLimit {
    /// Returns the key of the configuration, or words for a limit that a call brings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        // EDGE-8: the limit that cut is named, so that it can be found and changed.
        match self {
            Self::Connect => "timeout.connect",
            Self::FirstByte => "timeout.first_byte",
            Self::Idle => "timeout.idle",
            Self::FirstToken => "timeout.first_token",
            Self::Gap => "timeout.gap",
            Self::Attempt => "timeout.attempt",
            Self::CallAttempt => "the call's own limit of an attempt",
            Self::Total => "timeout.total",
            Self::Caller => "the caller's own deadline",
            Self::Probe => "probe.timeout",
        }
    }

    /// Returns the span that is set for it, if it is one of these limits.
    pub(crate) fn span(self, limits: &TimeoutSettings) -> Option<Duration> {
        match self {
            Self::Connect => limits.connect,
            Self::FirstByte => limits.first_byte,
            Self::Idle => limits.idle,
            Self::FirstToken => limits.first_token,
            Self::Gap => limits.gap,
            Self::Attempt => limits.attempt,
            Self::Total => limits.total,
            Self::CallAttempt | Self::Caller | Self::Probe => None,
        }
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
