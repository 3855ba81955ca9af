//! The first cause of an outage, and its symptom in plain words.

use std::time::Duration;

use crate::outage::HangFigures;
use crate::{BreakerCause, FailureNote, Symptom, TimeoutSettings, TripReason};

/// Kind of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CauseKind {
    /// The dependency answered with an error status.
    Status,
    /// It did not answer in time.
    Timeout,
    /// No connection could be established.
    Connect,
    /// A connection was lost.
    Reset,
    /// A worker crashed.
    Crash,
    /// It answers too slowly.
    Slow,
    /// It answers no call, and callers give up.
    Hang,
    /// No worker is left.
    Parked,
    /// It refuses our configuration.
    Misconfigured,
    /// There is no room for further calls: those in flight take too long, or are too many.
    Overload,
    /// An order of an operator refuses its calls.
    Ordered,
    /// Another failure.
    Other,
}

impl CauseKind {
    /// Its name, as in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Crash => "crash",
            Self::Slow => "slow",
            Self::Hang => "hang",
            Self::Parked => "parked",
            Self::Misconfigured => "misconfigured",
            Self::Overload => "overload",
            Self::Ordered => "ordered",
            Self::Other => "other",
        }
    }
}

/// The first cause of an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutageCause {
    /// Its kind.
    pub kind: CauseKind,
    /// The symptom in plain words, such as "500 from the dependency".
    pub text: String,
    /// The status, if one was answered.
    pub status: Option<u16>,
    /// The configuration key of the limit that cut the attempt, if one did.
    pub limit: Option<&'static str>,
    /// The rule that was broken, with its figures.
    pub rule: String,
}

impl FailureNote {
    fn kind(&self) -> CauseKind {
        match self.symptom {
            Some(Symptom::Status(_) | Symptom::StatusClass(_)) => CauseKind::Status,
            Some(Symptom::Connect) => CauseKind::Connect,
            Some(Symptom::Timeout) => CauseKind::Timeout,
            Some(Symptom::Reset) => CauseKind::Reset,
            Some(Symptom::Crash) => CauseKind::Crash,
            None if self.is_overload => CauseKind::Overload,
            None => CauseKind::Other,
        }
    }

    fn status(&self) -> Option<u16> {
        match self.symptom {
            Some(Symptom::Status(status)) if !self.is_likened => Some(status),
            _ => None,
        }
    }
}

impl OutageCause {
    /// The cause of an outage in which calls fail. `rule`: what was broken by it.
    #[must_use]
    pub fn of_failure(failure: &FailureNote, rule: String) -> Self {
        Self {
            kind: failure.kind(),
            text: failure.to_string(),
            status: failure.status(),
            limit: failure.limit,
            rule,
        }
    }

    /// The cause of a breaker's trip. `last`: the latest failure of an attempt.
    #[must_use]
    pub fn of_trip(cause: &BreakerCause, last: Option<&FailureNote>) -> Self {
        let reason = match cause {
            BreakerCause::Tripped { reason, .. } => Some(reason),
            _ => None,
        };
        // The text says what failed last.
        let rule = reason.map_or_else(|| cause.to_string(), ToString::to_string);
        match (reason, last) {
            (Some(TripReason::SlowRate { .. }), _) => {
                Self::of_kind(CauseKind::Slow, "its answers are slow".to_owned(), rule)
            }
            (Some(TripReason::Commanded(said)), _) => {
                Self::of_kind(CauseKind::Other, said.clone(), rule)
            }
            (_, Some(last)) => Self::of_failure(last, rule),
            (_, None) => Self::of_failure(&FailureNote::default(), rule),
        }
    }

    /// The cause of an outage in which callers give up, and no call is answered.
    #[must_use]
    pub fn of_hang(figures: HangFigures) -> Self {
        let rule = "callers give up, and no call is answered".to_owned();
        Self::of_kind(CauseKind::Hang, format!("it hangs: {figures}"), rule)
    }

    /// A cause without a failed attempt.
    #[must_use]
    pub fn of_kind(kind: CauseKind, text: String, rule: String) -> Self {
        Self {
            kind,
            text,
            status: None,
            limit: None,
            rule,
        }
    }

    /// The cause of an outage in which the dependency refuses our configuration.
    #[must_use]
    pub fn of_refused_configuration(failure: &FailureNote) -> Self {
        let said = match failure.symptom {
            Some(Symptom::Status(_)) => format!("{failure}: "),
            _ => String::new(),
        };
        Self {
            kind: CauseKind::Misconfigured,
            text: format!("{said}it refuses our configuration"),
            status: failure.status(),
            limit: None,
            rule: "every call fails until the configuration is corrected".to_owned(),
        }
    }
}

/// Returns the configuration key of the limit that ended an attempt of this duration: the longest
/// of the attempt's limits that it has reached. `None` if it is none of them, as with the rest of a
/// call's time.
#[must_use]
pub fn limit_reached(limits: &TimeoutSettings, after: Duration) -> Option<&'static str> {
    let all = [
        (limits.first_byte, "timeout.first_byte"),
        (limits.attempt, "timeout.attempt"),
        (limits.total, "timeout.total"),
    ];
    let reached = all
        .into_iter()
        .filter_map(|(limit, key)| Some((limit?, key)));
    let reached = reached.filter(|(limit, _)| *limit <= after);
    // Of two equal ones the wider is told.
    reached.max_by_key(|(limit, _)| *limit).map(|(_, key)| key)
}
