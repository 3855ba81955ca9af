//! How a call of a tool can fail, and what each failure counts for.
//!
//! The library that speaks the protocol says it in nested errors with texts of the server in them;
//! here they become few kinds that a caller can go by. A tool's own error is none of them: it is
//! an answer.

use std::error::Error;
use std::time::Duration;

use breakerbox_policy::{Class, Executed, Symptom};
use rmcp::model::{ErrorCode, ErrorData};
use rmcp::service::{ClientInitializeError, ServiceError};

use crate::{Verdict, redact};

/// Why there is no result of a tool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The server's process or connection went away before it answered.
    #[error("transport closed: {reason}")]
    TransportClosed {
        /// What is known of it.
        reason: String,
    },
    /// It cannot be reached: nothing was sent.
    #[error("the server cannot be reached: {reason}")]
    Connect {
        /// What is known of it.
        reason: String,
    },
    /// It did not come up, or not in time.
    #[error("the server did not start: {reason}")]
    StartFailed {
        /// Why not.
        reason: String,
    },
    /// It said something that is not of the protocol.
    #[error("the server broke the protocol: {reason}")]
    Protocol {
        /// What it did.
        reason: String,
    },
    /// It answered with a status instead of a result.
    #[error("the server answered with HTTP status {status}")]
    Http {
        /// The status.
        status: u16,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It does not let us in: a key is missing, or wrong.
    #[error("the server asks for other credentials: {reason}")]
    Auth {
        /// What it said.
        reason: String,
    },
    /// It answered with a page, or something else that is no message.
    #[error("the server answered with content of type {}", .0.as_deref().unwrap_or("none"))]
    UnexpectedContentType(Option<String>),
    /// It answered with an error of the protocol.
    #[error("the server answered with error {code}: {message}")]
    Server {
        /// JSON-RPC's code.
        code: i32,
        /// Its words.
        message: String,
    },
    /// It said nothing in the longest time that any call may take.
    #[error("the server said nothing for {0:?}")]
    Silent(Duration),
}

/// Errors by which a server says that the call itself is wrong.
const CALLERS: [ErrorCode; 4] = [
    ErrorCode::INVALID_PARAMS,
    ErrorCode::METHOD_NOT_FOUND,
    ErrorCode::INVALID_REQUEST,
    ErrorCode::RESOURCE_NOT_FOUND,
];

impl McpError {
    /// Whether the tool may have done its work.
    #[must_use]
    pub fn executed(&self) -> Executed {
        match self {
            Self::Connect { .. } | Self::StartFailed { .. } | Self::Auth { .. } => Executed::No,
            Self::Http {
                status: 401 | 403 | 404 | 429,
                ..
            } => Executed::No,
            Self::Server { code, .. } if is_callers(*code) => Executed::No,
            _ => Executed::Maybe,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::TransportClosed { .. } => Verdict::from(Symptom::Reset),
            Self::Connect { .. } | Self::StartFailed { .. } => Verdict::from(Symptom::Connect),
            Self::Silent(_) => Verdict::from(Symptom::Timeout),
            Self::Auth { .. } => Verdict::from(Symptom::Status(401)),
            Self::Http {
                status,
                retry_after,
            } => {
                let verdict = Verdict::from(Symptom::Status(*status));
                match retry_after {
                    Some(wait) => verdict.retry_after(*wait),
                    None => verdict,
                }
            }
            Self::Server { code, .. } if is_callers(*code) => Verdict::from(Class::Rejected),
            Self::Server { .. } | Self::Protocol { .. } | Self::UnexpectedContentType(_) => {
                Verdict::from(Class::Failure)
            }
        }
    }

    pub(super) fn closed(reason: impl Into<String>) -> Self {
        Self::TransportClosed {
            reason: reason.into(),
        }
    }

    pub(super) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol {
            reason: reason.into(),
        }
    }

    /// The same as the reason why it did not start, where it says nothing more telling.
    pub(super) fn at_start(self) -> Self {
        match self {
            Self::TransportClosed { reason } => Self::StartFailed { reason },
            other => other,
        }
    }
}

fn is_callers(code: i32) -> bool {
    CALLERS.iter().any(|one| one.0 == code)
}

impl From<ErrorData> for McpError {
    fn from(error: ErrorData) -> Self {
        Self::Server {
            code: error.code.0,
            message: redact(&error.message).into_owned(),
        }
    }
}

impl From<ServiceError> for McpError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::McpError(error) => error.into(),
            ServiceError::TransportSend(error) => of_transport(&*error.error),
            ServiceError::TransportClosed => Self::closed("it ended before the answer"),
            ServiceError::Timeout { timeout } => Self::Silent(timeout),
            ServiceError::Cancelled { .. } => Self::closed("the server cancelled the call"),
            ServiceError::UnexpectedResponse => {
                Self::protocol("its answer is none to a call of a tool")
            }
            other => Self::protocol(redact(&other.to_string()).into_owned()),
        }
    }
}

impl From<ClientInitializeError> for McpError {
    fn from(error: ClientInitializeError) -> Self {
        match error {
            ClientInitializeError::TransportError { error, .. } => of_transport(&*error.error),
            ClientInitializeError::JsonRpcError(error) => error.into(),
            ClientInitializeError::ConnectionClosed(_) => {
                Self::closed("it ended before the handshake")
            }
            ClientInitializeError::LegacyFallbackFailed { fallback, .. } => (*fallback).into(),
            other => Self::protocol(redact(&other.to_string()).into_owned()),
        }
    }
}

/// Finds out what went wrong on the way.
fn of_transport(error: &(dyn Error + 'static)) -> McpError {
    McpError::closed(redact(&error.to_string()).into_owned())
}
