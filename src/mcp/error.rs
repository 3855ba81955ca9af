//! Errors of tool calls, and their classification.
//!
//! The protocol library returns nested errors that contain texts of the server; here they become a
//! few kinds that a caller can match. A tool's own error is not among them: it is an answer.

use std::error::Error;
use std::time::Duration;

use breakerbox_policy::{Class, Executed, RoundedDuration, Symptom};
use rmcp::model::{ErrorCode, ErrorData};
use rmcp::service::{ClientInitializeError, ServiceError};
use rmcp::transport::streamable_http_client::StreamableHttpError;

use crate::Verdict;
use breakerbox_actors::redact;

/// Errors of a tool call without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The server's process or connection went away before it answered.
    #[error("transport closed: {reason}")]
    TransportClosed {
        /// The known cause.
        reason: String,
    },
    /// The server cannot be reached: nothing was sent.
    #[error("the server cannot be reached: {reason}")]
    Connect {
        /// The known cause.
        reason: String,
    },
    /// The server's process had just ended: nothing was sent.
    #[error("the server is gone: {reason}")]
    Ended {
        /// The known cause.
        reason: String,
    },
    /// The server did not start, or not in time.
    #[error("the server did not start: {reason}")]
    StartFailed {
        /// The cause.
        reason: String,
    },
    /// The server violated the protocol.
    #[error("the server broke the protocol: {reason}")]
    Protocol {
        /// The violation.
        reason: String,
    },
    /// The server responded with an HTTP status instead of a result.
    #[error("the server answered with HTTP status {status}")]
    Http {
        /// The status.
        status: u16,
        /// The wait that the server asks for.
        retry_after: Option<Duration>,
    },
    /// The server rejected the credentials: a key is missing, or wrong.
    #[error("the server rejects the credentials: {reason}")]
    Auth {
        /// The response of the server.
        reason: String,
    },
    /// The server responded with a page, or other content that is not a message.
    #[error("the server answered with content of type {}", .0.as_deref().unwrap_or("none"))]
    UnexpectedContentType(Option<String>),
    /// The server responded with an error of the protocol.
    #[error("the server answered with error {code}: {message}")]
    Server {
        /// The JSON-RPC code.
        code: i32,
        /// The server's message.
        message: String,
    },
    /// The server did not respond in the longest time that any call may take.
    #[error("the server sent nothing for {}", RoundedDuration(*.0))]
    Silent(Duration),
}

/// Error codes of a server for calls that are wrong themselves.
const CALLERS: [ErrorCode; 4] = [
    ErrorCode::INVALID_PARAMS,
    ErrorCode::METHOD_NOT_FOUND,
    ErrorCode::INVALID_REQUEST,
    ErrorCode::RESOURCE_NOT_FOUND,
];

impl McpError {
    /// Returns `No` if the tool was certainly not executed, else `Maybe`.
    #[must_use]
    pub fn executed(&self) -> Executed {
        match self {
            Self::Connect { .. }
            | Self::Ended { .. }
            | Self::StartFailed { .. }
            | Self::Auth { .. } => Executed::No,
            Self::Http {
                status: 401 | 403 | 404 | 429,
                ..
            } => Executed::No,
            Self::Server { code, .. } if is_callers(*code) => Executed::No,
            _ => Executed::Maybe,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.class().executed(self.executed())
    }

    fn class(&self) -> Verdict {
        match self {
            Self::TransportClosed { .. } | Self::Ended { .. } => Verdict::from(Symptom::Reset),
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

    /// Returns true if the error means that the connection has ended.
    pub(super) fn is_end(&self) -> bool {
        matches!(
            self,
            Self::TransportClosed { .. } | Self::Ended { .. } | Self::Protocol { .. }
        )
    }

    /// Replaces the reason by the known cause of the end.
    pub(super) fn because(mut self, why: Option<String>) -> Self {
        if let (Self::TransportClosed { reason } | Self::Ended { reason }, Some(why)) =
            (&mut self, why)
        {
            *reason = why;
        }
        self
    }

    /// Turns a closed transport into a failed start; other errors are more specific.
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
            ServiceError::TransportClosed => Self::closed("it ended before its response"),
            ServiceError::Timeout { timeout } => Self::Silent(timeout),
            ServiceError::Cancelled { .. } => Self::closed("the server cancelled the call"),
            ServiceError::UnexpectedResponse => {
                Self::protocol("its response does not belong to a tool call")
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

/// Finds the transport error in the chain of causes.
fn of_transport(error: &(dyn Error + 'static)) -> McpError {
    let mut next = Some(error);
    while let Some(one) = next {
        if let Some(own) = one.downcast_ref::<McpError>() {
            return own.clone();
        }
        match one.downcast_ref::<StreamableHttpError<McpError>>() {
            Some(StreamableHttpError::Client(own)) => return own.clone(),
            Some(StreamableHttpError::SessionExpired) => {
                return McpError::Http {
                    status: 404,
                    retry_after: None,
                };
            }
            Some(StreamableHttpError::ReinitializationFailed(error)) => {
                return error.clone().into();
            }
            Some(
                StreamableHttpError::UnexpectedServerResponse(_)
                | StreamableHttpError::Deserialize(_)
                | StreamableHttpError::MissingSessionIdInResponse,
            ) => return McpError::protocol(redact(&one.to_string()).into_owned()),
            _ => {}
        }
        next = one.source();
    }
    McpError::closed(redact(&error.to_string()).into_owned())
}
