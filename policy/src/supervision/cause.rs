//! Reasons for the end of a child, or of the supervisor. Nothing here decides what follows.

use std::fmt;

/// Record of a panic.
///
/// # Source  Rules SUP-5 and SUP-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PanicReport {
    /// The panic's message; empty if its payload was not text.
    pub message: String,
    /// File, line and column, if known.
    pub location: Option<String>,
    /// A second panic, raised while the state left by the first was dropped.
    pub also: Option<Box<PanicReport>>,
}

impl PanicReport {
    /// Returns a report with only a message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            location: None,
            also: None,
        }
    }
}

impl fmt::Display for PanicReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.message)?;
        if let Some(location) = &self.location {
            write!(out, " at {location}")?;
        }
        if let Some(also) = &self.also {
            write!(out, "; then, while it was dropped: {also}")?;
        }
        Ok(())
    }
}

/// Reason why an incarnation of a child ended, or did not start.
///
/// # Source  Rule SUP-5 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopCause {
    /// It finished its work.
    Normal,
    /// It was asked to stop, or stopped itself in an orderly way.
    Shutdown,
    /// It panicked.
    Crashed(PanicReport),
    /// It declared itself failed.
    Failed(String),
    /// It was dropped without being asked, usually because its stop deadline was over.
    Killed,
    /// Its thread is gone.
    Lost,
    /// It is a supervisor that exceeded its restart intensity.
    ///
    /// OTP ends such a supervisor with `shutdown`, so that a transient one vanishes silently. Here
    /// it is an abnormal end (see [`OtpRules`](super::OtpRules)).
    GaveUp {
        /// The child that could not be kept alive.
        child: String,
        /// Reason for that child's last end.
        last: Box<StopCause>,
    },
}

impl StopCause {
    /// Returns true if a transient child that ended this way is finished.
    #[must_use]
    pub const fn is_normal(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown)
    }

    /// Visits each text that came from user code, for example to remove secrets from it.
    pub fn visit_texts(&mut self, visit: &mut dyn FnMut(&mut String)) {
        match self {
            Self::Failed(error) => visit(error),
            Self::Crashed(report) => {
                let mut next = Some(report);
                while let Some(report) = next {
                    visit(&mut report.message);
                    next = report.also.as_deref_mut();
                }
            }
            Self::GaveUp { last, .. } => last.visit_texts(visit),
            Self::Normal | Self::Shutdown | Self::Killed | Self::Lost => {}
        }
    }
}

impl fmt::Display for StopCause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => write!(out, "normal end"),
            Self::Shutdown => write!(out, "shutdown"),
            Self::Crashed(report) => write!(out, "panicked: {report}"),
            Self::Failed(error) => write!(out, "failed: {error}"),
            Self::Killed => write!(out, "killed"),
            Self::Lost => write!(out, "its thread is gone"),
            Self::GaveUp { child, last } => write!(out, "gave up on {child}: {last}"),
        }
    }
}

/// End of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SupervisorEnd {
    /// It was asked to stop, or a significant child had finished.
    Shutdown,
    /// A child did not start when the supervisor itself started; the others were rolled back.
    StartError {
        /// The child that did not start.
        child: String,
        /// Reason why it did not start.
        cause: StopCause,
    },
    /// The restart intensity was exceeded; the other children were stopped.
    GaveUp {
        /// The child that could not be kept alive.
        child: String,
        /// Reason for its last end.
        last: StopCause,
    },
}

impl SupervisorEnd {
    /// Returns the cause that the supervisor above receives for this end of its child.
    #[must_use]
    pub fn cause(&self) -> StopCause {
        match self {
            Self::Shutdown => StopCause::Shutdown,
            Self::StartError { child, cause } => {
                StopCause::Failed(format!("child {child} did not start: {cause}"))
            }
            Self::GaveUp { child, last } => StopCause::GaveUp {
                child: child.clone(),
                last: Box::new(last.clone()),
            },
        }
    }
}

impl fmt::Display for SupervisorEnd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.cause())
    }
}
