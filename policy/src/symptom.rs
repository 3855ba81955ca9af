//! Symptoms of failed attempts, and the note of one failure in words.
//!
//! It knows no protocol, and decides nothing: the class of a symptom is a setting.

use std::fmt;
use std::time::Duration;

use crate::RoundedDuration;

/// A protocol-independent symptom of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Symptom {
    /// This HTTP status, such as 429.
    Status(u16),
    /// A class of HTTP statuses, such as 5 for `5xx`; used as a pattern.
    StatusClass(u16),
    /// No connection could be established.
    Connect,
    /// The attempt took too long.
    Timeout,
    /// The connection was lost before the response was complete.
    Reset,
    /// The worker crashed.
    Crash,
}

impl fmt::Display for Symptom {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(out, "{status}"),
            Self::StatusClass(hundred) => write!(out, "{hundred}xx"),
            Self::Connect => out.write_str("connect"),
            Self::Timeout => out.write_str("timeout"),
            Self::Reset => out.write_str("reset"),
            Self::Crash => out.write_str("crash"),
        }
    }
}

/// The latest failure of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FailureNote {
    /// The symptom, if it is a general one.
    pub symptom: Option<Symptom>,
    /// The cause in a few words, such as "connection refused".
    pub words: Option<&'static str>,
    /// Duration of the attempt, or the span of the limit that ended it.
    pub after: Duration,
    /// The configuration key of the limit that ended it, if it is known.
    pub limit: Option<&'static str>,
    /// True if there was no room for the call, so that the dependency was not asked.
    pub is_overload: bool,
    /// True if the status of the symptom was not answered, and only classes the error.
    pub is_likened: bool,
    /// True if a part of the answer had come when a limit ended the attempt.
    pub has_begun: bool,
}

impl fmt::Display for FailureNote {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text| self.words.unwrap_or(text);
        match self.symptom {
            // EDGE-8: the words of its own protocol.
            Some(Symptom::Status(_)) if self.is_likened => out.write_str(or("an error")),
            Some(symptom @ (Symptom::Status(_) | Symptom::StatusClass(_))) => {
                write!(out, "{symptom} from the dependency")
            }
            Some(Symptom::Timeout) => {
                let what = match self.limit {
                    Some("timeout.idle") => "an answer that stopped for",
                    Some("timeout.first_token") => "no content within",
                    Some("timeout.gap") => "content that stopped for",
                    // Several attempts may have shared it, and one of them may have been answered in part.
                    Some("timeout.total") => "no whole answer within",
                    _ if self.has_begun => "no whole answer within",
                    _ => "no answer within",
                };
                write!(out, "{what} {}", RoundedDuration(self.after))?;
                match self.limit {
                    // EDGE-8: the limit that cut is named.
                    Some(limit) => write!(out, " ({limit})"),
                    None => Ok(()),
                }
            }
            Some(Symptom::Connect) => out.write_str(or("no connection")),
            Some(Symptom::Reset) => out.write_str(or("connection lost")),
            Some(Symptom::Crash) => out.write_str(or("a worker crashed")),
            None if self.is_overload => match self.limit {
                Some(limit) => write!(out, "no room for further calls ({limit})"),
                None => out.write_str("no room for further calls"),
            },
            None => out.write_str(or("its calls fail")),
        }
    }
}
