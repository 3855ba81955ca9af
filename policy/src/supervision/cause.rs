//! Why something ended: a child, or the supervisor itself. It never decides what follows.

use std::fmt;

/// What a panic left behind.
///
/// # Source  Rules SUP-5 and SUP-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PanicReport {
    /// The panic's message; empty when its payload was no text.
    pub message: String,
    /// File, line and column, where known.
    pub location: Option<String>,
    /// A second panic, while what the first had left was dropped.
    pub also: Option<Box<PanicReport>>,
}

impl PanicReport {
    /// A report of which only the message is known.
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

/// Why an incarnation of a child ended, or did not start.
///
/// # Source  Rule C4 in the research notes; SUP-5.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// It had done its work.
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
    /// It is a supervisor whose restarts were too many.
    ///
    /// OTP ends such a supervisor with `shutdown`, so that a transient one vanishes silently; here
    /// it is an abnormal end (see [`OtpRules`](super::OtpRules)).
    GaveUp {
        /// The child that could not be kept alive.
        child: String,
        /// Why that child ended last.
        last: Box<StopCause>,
    },
}

impl StopCause {
    /// Whether a transient child that ended so is finished.
    #[must_use]
    pub const fn is_normal(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown)
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

/// How a supervisor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SupervisorEnd {
    /// It was asked to, or a significant child had finished.
    Shutdown,
    /// A child did not start when the supervisor itself started; the others were rolled back.
    StartError {
        /// The child that did not start.
        child: String,
        /// Why not.
        cause: StopCause,
    },
    /// The restarts were too many; the other children were stopped.
    GaveUp {
        /// The child that could not be kept alive.
        child: String,
        /// Why it ended last.
        last: StopCause,
    },
}

impl SupervisorEnd {
    /// What the supervisor above is told about its child that ended so.
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
