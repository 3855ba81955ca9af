//! The limits of time by name, so that each timeout says which of them cut it. Nothing here waits.

use std::fmt;

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
    /// One attempt (`timeout.attempt`, or [`CallOptions::attempt`](crate::CallOptions::attempt)).
    Attempt,
    /// The whole call (`timeout.total`).
    Total,
    /// The caller's own deadline, where it is shorter than `timeout.total`.
    Caller,
    /// One active probe (`probe.timeout`).
    Probe,
}

impl TimeLimit {
    /// Returns the key of the configuration, or words for the caller's own deadline.
    #[must_use]
    pub const fn name(self) -> &'static str {
        // EDGE-8: the limit that cut is named, so that it can be found and changed.
        match self {
            Self::Connect => "timeout.connect",
            Self::FirstByte => "timeout.first_byte",
            Self::Idle => "timeout.idle",
            Self::Attempt => "timeout.attempt",
            Self::Total => "timeout.total",
            Self::Caller => "the caller's own deadline",
            Self::Probe => "probe.timeout",
        }
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
