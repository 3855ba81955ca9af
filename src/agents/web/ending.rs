//! Providers of services with an announced end: a warning before it, and none of them after it.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{WebProvider, WebStartError};

/// The announced end of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceEnd {
    first_day_without: Date,
}

impl ServiceEnd {
    /// Creates an end by the first day on which the service no longer answers; `None` if there is
    /// no such day.
    #[must_use]
    pub fn on(year: i16, month: i8, day: i8) -> Option<Self> {
        let first_day_without = Date::new(year, month, day).ok()?;
        Some(Self { first_day_without })
    }

    fn is_over(self, now: Timestamp) -> bool {
        now.to_zoned_datetime(TimeZone::UTC).date() >= self.first_day_without
    }
}

impl fmt::Display for ServiceEnd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first_day_without.fmt(out)
    }
}

/// Returns the providers that have not ended, with a warning for each that will.
pub(super) fn without_ended(
    providers: Vec<Arc<dyn WebProvider>>,
    now: Timestamp,
) -> Result<Vec<Arc<dyn WebProvider>>, WebStartError> {
    let (mut left, mut ended) = (Vec::new(), Vec::new());
    for provider in providers {
        let name = provider.name();
        match provider.ends() {
            Some(end) if end.is_over(now) => {
                tracing::error!(
                    dependency = name,
                    "its service ended on {end}; it is left out"
                );
                ended.push(format!("{name} on {end}"));
            }
            Some(end) => {
                tracing::warn!(
                    dependency = name,
                    "its service ends on {end}; add another provider"
                );
                left.push(provider);
            }
            None => left.push(provider),
        }
    }
    if left.is_empty() && !ended.is_empty() {
        return Err(WebStartError::Ended(ended.join(", ")));
    }
    Ok(left)
}
