//! The kernel's only notion of time: nanoseconds since the runtime started.
//!
//! It never reads a clock. Callers pass values that never decrease.

use std::fmt;
use std::time::Duration;

/// A point in time, in nanoseconds since the runtime's start.
///
/// # Units   Nanoseconds; 64 bits last for 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The runtime's start.
    pub const ZERO: Self = Self(0);

    /// The last representable time, later than any event.
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the time `nanos` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the time `millis` milliseconds after the start, saturating.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Returns the nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the whole milliseconds since the start, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Returns the time `span` later, saturating at [`Time::MAX`].
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", Duration::from_nanos(self.0))
    }
}

/// Returns a span in nanoseconds, saturating at 584 years.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Time::MAX.after(Duration::from_secs(1)), Time::MAX);
        assert_eq!(Time::ZERO.since(Time::from_millis(5)), Duration::ZERO);
        assert_eq!(Time::ZERO.after(Duration::MAX), Time::MAX);
    }

    #[test]
    fn a_time_is_told_in_whole_milliseconds_and_shown_as_a_span() {
        assert_eq!(Time::from_nanos(2_999_999).as_millis(), 2);
        assert_eq!(Time::from_millis(1_500).to_string(), "1.5s");
    }
}
