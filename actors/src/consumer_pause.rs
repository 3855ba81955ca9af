//! The reason why a consumer of messages fetches nothing.

use std::fmt;

/// The reason why a consumer fetches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerPause {
    /// The breaker is open or parked, or its probes are under way.
    Breaker,
    /// The dependency asked for less traffic, or a quota is used up.
    Pause,
    /// All places are taken, or calls wait at the rate limit.
    Bulkhead,
    /// The actor that makes the calls has ended, or its supervisor has given it up.
    Actor,
    /// The consumer is being stopped.
    Draining,
}

impl ConsumerPause {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::Breaker,
        Self::Pause,
        Self::Bulkhead,
        Self::Actor,
        Self::Draining,
    ];

    /// Returns true for a pause that lasts until something outside of the consumer has changed.
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Breaker | Self::Pause | Self::Actor)
    }

    /// Returns the reason as a word of metrics and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Pause => "pause",
            Self::Bulkhead => "bulkhead",
            Self::Actor => "actor",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for ConsumerPause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Breaker => "the breaker lets no call begin",
            Self::Pause => "the dependency asked for a pause",
            Self::Bulkhead => "no place is free",
            Self::Actor => {
                "the actor that makes its calls has ended; if its supervisor has given it up, restart it"
            }
            Self::Draining => "it is being stopped",
        })
    }
}
