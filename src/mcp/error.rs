//! Errors of calls without a result, and their classification.
//!
//! A tool's own error is not among them: it is an answer.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use breakerbox_policy::{Class, Executed, RoundedDuration, Symptom};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json_text::JsonText;
use super::message::{RpcError, code, present};
use crate::{CallError, Verdict};
use breakerbox_actors::redact;

/// Maximum length of a server's message in a text of ours, in bytes.
const MAX_QUOTED: usize = 300;

/// Errors of a tool call without a result. Their texts quote the beginning of a long message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The server's process or connection went away before it answered.
    #[error("transport closed: {reason}")]
    #[non_exhaustive]
    TransportClosed {
        /// The known cause.
        reason: String,
        /// True if its process has ended.
        is_process: bool,
    },
    /// The server cannot be reached: nothing was sent.
    #[error("the server cannot be reached: {reason}")]
    Connect {
        /// The known cause.
        reason: String,
    },
    /// The server's process had just ended: nothing was sent.
    #[error("the server is gone: {reason}")]
    #[non_exhaustive]
    Ended {
        /// The known cause.
        reason: String,
        /// True if its process has ended.
        is_process: bool,
    },
    /// The process of a session ends again and again, and is not started yet: nothing was sent.
    #[error("the process of this session is down: {reason}")]
    Paused {
        /// The reason of its last end, and the time of the next start.
        reason: String,
        /// Time until the next start.
        retry_after: Duration,
    },
    /// The caller has ended its session, and with it the process or the connection of the call.
    #[error("its session has ended")]
    SessionOver {
        /// True if the request may have been sent.
        was_sent: bool,
    },
    /// The server did not start, or not in time.
    #[error("the server did not start: {reason}")]
    StartFailed {
        /// The cause.
        reason: String,
    },
    /// The server violated the protocol, and its connection ended.
    #[error("the server broke the protocol: {reason}")]
    Protocol {
        /// The violation.
        reason: String,
    },
    /// The server answered this call with something that cannot be used. Other calls go on.
    #[error("the server's answer cannot be used: {reason}")]
    UnusableAnswer {
        /// The fault of the answer, and the limit that it exceeds, if any.
        reason: String,
    },
    /// The request cannot be sent: nothing was sent.
    #[error("the request cannot be sent: {reason}")]
    InvalidRequest {
        /// The fault of the request, and the value that is allowed.
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
    #[error(
        "the server rejects the {}credentials: HTTP status {status}",
        if *is_callers { "caller's " } else { "" }
    )]
    #[non_exhaustive]
    Auth {
        /// The HTTP status: 401 or 403.
        status: u16,
        /// The header `www-authenticate` of the response, if there is one.
        challenge: Option<String>,
        /// True if they are those of the caller, which pass: the fault is not that of the
        /// configuration.
        is_callers: bool,
    },
    /// The server responded with a page, or other content that is not a message.
    #[error("the server answered with content of type {}", .0.as_deref().unwrap_or("none"))]
    UnexpectedContentType(Option<String>),
    /// The server responded with an error of the protocol.
    #[error("the server answered with error {code}: {}", QuotedText(message))]
    #[non_exhaustive]
    Server {
        /// The JSON-RPC code, which may need more than 32 bits.
        code: i64,
        /// The server's message.
        message: String,
        /// The server's data, as it came.
        data: Option<JsonText>,
        /// The HTTP status of the answer, if it is not a success.
        status: Option<u16>,
        /// State of the work, if the server is another Breakerbox: its data says so.
        executed: Option<Executed>,
        /// True if the data has a member `breakerbox`.
        has_problem: bool,
    },
    /// The server did not respond in the longest time that any call may take.
    #[error("the server sent nothing for {}", RoundedDuration(*.0))]
    Silent(Duration),
}

/// Codes with which a server says that it did not do the work.
const NOT_DONE: [i64; 9] = [
    code::PARSE_ERROR,
    code::INVALID_PARAMS,
    code::METHOD_NOT_FOUND,
    code::INVALID_REQUEST,
    code::RESOURCE_NOT_FOUND,
    code::HEADER_MISMATCH,
    code::MISSING_CAPABILITY,
    code::UNSUPPORTED_VERSION,
    code::INPUT_REQUIRED,
];

impl McpError {
    /// Returns `No` if the tool was certainly not executed, else `Maybe`.
    #[must_use]
    pub fn executed(&self) -> Executed {
        match self {
            Self::Connect { .. }
            | Self::Ended { .. }
            | Self::StartFailed { .. }
            | Self::Paused { .. }
            | Self::SessionOver { was_sent: false }
            | Self::InvalidRequest { .. }
            | Self::Auth { .. } => Executed::No,
            Self::Http {
                status: 401 | 403 | 404 | 429,
                ..
            } => Executed::No,
            // CALL-2: the gateway that has seen the symptom has decided it.
            Self::Server {
                executed: Some(executed),
                ..
            } => *executed,
            Self::Server { code, .. } if NOT_DONE.contains(code) => Executed::No,
            _ => Executed::Maybe,
        }
    }

    /// Returns the time until the next start of the process that a call lacks.
    pub(crate) fn pause_of(error: &CallError<Self>) -> Option<Duration> {
        match error {
            CallError::Failed {
                error: Self::Paused { retry_after, .. },
                ..
            } => Some(*retry_after),
            _ => None,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.class().executed(self.executed())
    }

    fn class(&self) -> Verdict {
        match self {
            // EDGE-8: a process has no connection that could be lost.
            Self::TransportClosed {
                is_process: true, ..
            }
            | Self::Ended {
                is_process: true, ..
            } => Verdict::from(Symptom::Reset).cause("its process ended"),
            Self::TransportClosed { .. } | Self::Ended { .. } => Verdict::from(Symptom::Reset),
            Self::Connect { .. } => Verdict::from(Symptom::Connect),
            Self::StartFailed { .. } => Verdict::from(Symptom::Connect).cause("it did not start"),
            Self::Silent(_) => Verdict::from(Symptom::Timeout),
            // EDGE-1: the server is well, and so is the configuration.
            Self::Auth {
                is_callers: true, ..
            } => Verdict::from(Class::Rejected).for_caller(),
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
            Self::Server {
                status: Some(status @ 500..),
                ..
            } => Verdict::from(Symptom::Status(*status)),
            Self::Server {
                code: code::INTERNAL_ERROR,
                ..
            } => {
                Verdict::from(Class::Failure).cause("it answers with error -32603, internal error")
            }
            // MCP-3: an answer shows that the server is alive.
            Self::Server { .. } | Self::UnusableAnswer { .. } | Self::InvalidRequest { .. } => {
                Verdict::from(Class::Rejected)
            }
            // MCP-5: the process of one session opens the breaker of no other one.
            Self::Paused { .. } | Self::SessionOver { .. } => Verdict::from(Class::Rejected),
            Self::Protocol { .. } => Verdict::from(Class::Failure).cause("it broke the protocol"),
            Self::UnexpectedContentType(_) => {
                Verdict::from(Class::Failure).cause("it answers with content that is no message")
            }
        }
    }

    pub(super) fn closed(reason: impl Into<String>) -> Self {
        Self::TransportClosed {
            reason: reason.into(),
            is_process: false,
        }
    }

    pub(super) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol {
            reason: reason.into(),
        }
    }

    pub(super) fn unusable(reason: impl Into<String>) -> Self {
        Self::UnusableAnswer {
            reason: reason.into(),
        }
    }

    /// The error of an answer that is longer than the limit.
    pub(super) fn too_long(max_line: usize) -> Self {
        Self::unusable(format!(
            "it is longer than max_line = {max_line} bytes; a larger max_line lets it pass"
        ))
    }

    pub(super) fn server(code: i64, message: impl Into<String>) -> Self {
        RpcError::new(code, message).into()
    }

    /// Says of rejected credentials that they are those of the caller.
    pub(super) fn of_caller(mut self) -> Self {
        if let Self::Auth { is_callers, .. } = &mut self {
            *is_callers = true;
        }
        self
    }

    /// Returns true if a server may have answered so because credentials are missing: by 401, 403, or
    /// another 4xx.
    #[cfg(feature = "gateway")]
    pub(super) fn may_want_credentials(&self) -> bool {
        match self {
            Self::Auth { .. } => true,
            Self::Http { status, .. } => (400..500).contains(status),
            Self::Server { status, .. } => status.is_none_or(|status| (400..500).contains(&status)),
            _ => false,
        }
    }

    /// Adds the HTTP status of the answer.
    pub(super) fn with_status(mut self, answered: u16) -> Self {
        if let Self::Server { status, .. } = &mut self {
            *status = Some(answered);
        }
        self
    }

    /// Returns true if the connection cannot be used any more.
    pub(super) fn is_end(&self) -> bool {
        matches!(
            self,
            Self::TransportClosed { .. } | Self::Ended { .. } | Self::Protocol { .. }
        )
    }

    /// Returns true if the server may have ended because of the call.
    #[cfg(feature = "gateway")]
    pub(super) fn is_cut_off(&self) -> bool {
        matches!(self, Self::TransportClosed { .. } | Self::Protocol { .. })
    }

    /// Returns true if the server may speak the other dialect.
    pub(super) fn is_refused_method(&self) -> bool {
        match self {
            Self::Server { code, .. } => {
                *code != code::HEADER_MISMATCH && *code != code::MISSING_CAPABILITY
            }
            Self::Http { status, .. } => (400..500).contains(status) && *status != 429,
            Self::UnusableAnswer { .. } | Self::UnexpectedContentType(_) => true,
            _ => false,
        }
    }

    /// Says that the process has ended, and replaces the reason by the known cause of that.
    pub(super) fn because(mut self, why: Option<String>) -> Self {
        if let Self::TransportClosed { reason, is_process } | Self::Ended { reason, is_process } =
            &mut self
        {
            *is_process = true;
            if let Some(why) = why {
                *reason = why;
            }
        }
        self
    }

    /// Turns a closed transport into a failed start; other errors are more specific.
    pub(super) fn at_start(self) -> Self {
        match self {
            Self::TransportClosed { reason, .. } => Self::StartFailed { reason },
            other => other,
        }
    }
}

impl From<RpcError> for McpError {
    /// Reads the data too, which takes as long as reading the message.
    fn from(error: RpcError) -> Self {
        // MCP-2: a message without an address is not copied.
        let clean = match redact(&error.message) {
            Cow::Owned(clean) => Some(clean),
            Cow::Borrowed(_) => None,
        };
        let (executed, has_problem) = match &error.data {
            Some(data) if data.is_object() => told_by_gateway(data),
            _ => (None, false),
        };
        Self::Server {
            code: error.code,
            message: clean.unwrap_or(error.message),
            data: error.data,
            status: None,
            executed,
            has_problem,
        }
    }
}

/// The members of an error's data that another gateway writes.
#[derive(Deserialize)]
struct GatewayData<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    executed: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    breakerbox: Option<&'a RawValue>,
}

impl GatewayData<'_> {
    fn executed(&self) -> Option<Executed> {
        let kind = self.kind.map(RawValue::get).unwrap_or_default();
        let is_problem = kind.starts_with("\"urn:breakerbox:");
        match self.executed.filter(|_| is_problem)?.get() {
            "\"no\"" => Some(Executed::No),
            "\"maybe\"" => Some(Executed::Maybe),
            "\"yes\"" => Some(Executed::Yes),
            _ => None,
        }
    }
}

/// Returns whether the work was done, as another gateway says in the data of its error, and true if the
/// data has a member `breakerbox`.
fn told_by_gateway(data: &JsonText) -> (Option<Executed>, bool) {
    let Ok(own) = serde_json::from_slice::<GatewayData<'_>>(data.bytes()) else {
        // A member is there twice: it may be this one.
        return (None, true);
    };
    let nested = own.breakerbox.map(RawValue::get);
    let nested = nested.filter(|text| text.starts_with('{'));
    let nested: Option<GatewayData<'_>> = nested.and_then(|text| serde_json::from_str(text).ok());
    let executed = own.executed();
    let executed = executed.or_else(|| nested.as_ref().and_then(GatewayData::executed));
    (executed, own.breakerbox.is_some())
}

/// A text of a server, shown up to a bound.
struct QuotedText<'a>(&'a str);

impl fmt::Display for QuotedText<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        if text.len() <= MAX_QUOTED {
            return out.write_str(text);
        }
        // MCP-2: several texts of ours quote it, and it passes once.
        let end = (0..=MAX_QUOTED)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        let shown = &text[..end.unwrap_or(0)];
        write!(out, "{shown}... ({} bytes)", text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: i64, status: Option<u16>) -> Class {
        let error = McpError::server(code, "x");
        let error = match status {
            Some(status) => error.with_status(status),
            None => error,
        };
        error.verdict().class
    }

    #[test]
    fn edge_1_a_rejected_credential_of_the_caller_is_no_fault_of_the_configuration() {
        let rejected = McpError::Auth {
            status: 401,
            challenge: None,
            is_callers: false,
        };
        let verdict = rejected.verdict();
        assert_eq!(verdict.symptom, Some(Symptom::Status(401)));
        let verdict = rejected.of_caller().verdict();
        assert_eq!((verdict.class, verdict.symptom), (Class::Rejected, None));
        assert_eq!(verdict.executed, Executed::No);
        let other = McpError::server(-1, "x");
        assert_eq!(other.clone().of_caller(), other);
    }

    #[test]
    fn edge_8_a_failure_says_what_it_was() {
        let cause = |error: McpError| error.verdict().cause;
        assert_eq!(
            cause(McpError::server(code::INTERNAL_ERROR, "x")),
            Some("it answers with error -32603, internal error")
        );
        assert_eq!(cause(McpError::closed("x")), None, "a connection");
        let ended = McpError::closed("x").because(Some("exit status: 9".to_owned()));
        assert_eq!(ended.to_string(), "transport closed: exit status: 9");
        assert_eq!(cause(ended), Some("its process ended"));
        let broken = McpError::protocol("x");
        assert_eq!(cause(broken), Some("it broke the protocol"));
    }

    #[test]
    fn mcp_2_m14_a_text_of_ours_quotes_the_beginning_of_a_long_message() {
        let long = "ä".repeat(4 << 20);
        let error = McpError::server(-5, long.as_str());
        let text = error.to_string();
        assert!(text.len() < 2 * MAX_QUOTED, "{}", text.len());
        assert!(text.ends_with("ä... (8388608 bytes)"), "{text}");
        let McpError::Server { message, .. } = error else {
            panic!("{text}");
        };
        assert!(message == long, "the server's own message stays");
        let short = McpError::server(-5, "m").to_string();
        assert_eq!(short, "the server answered with error -5: m");
    }

    #[test]
    fn call_2_what_another_gateway_says_of_the_work_is_not_decided_again() {
        let told = |data: &str| {
            let data = JsonText::checked(data.to_owned().into());
            let error = RpcError {
                data: Some(data),
                ..RpcError::new(-31050, "x")
            };
            let error = McpError::from(error);
            let McpError::Server { has_problem, .. } = &error else {
                panic!("{error}");
            };
            (error.verdict().executed, *has_problem)
        };
        let open = r#""type":"urn:breakerbox:breaker-open","executed":"no""#;
        let yes = r#""type":"urn:breakerbox:upstream-failed","executed":"yes""#;
        for (data, expected) in [
            (format!("{{{open}}}"), (Executed::No, false)),
            (
                format!("{{\"k\":1,\"breakerbox\":{{{yes}}}}}"),
                (Executed::Yes, true),
            ),
            // Of another program.
            (r#"{"executed":"no"}"#.to_owned(), (Executed::Maybe, false)),
            ("[1]".to_owned(), (Executed::Maybe, false)),
            (r#"{"breakerbox":null}"#.to_owned(), (Executed::Maybe, true)),
            (
                r#"{"breakerbox":1,"breakerbox":2}"#.to_owned(),
                (Executed::Maybe, true),
            ),
        ] {
            assert_eq!(told(&data), expected, "{data}");
        }
    }

    #[test]
    fn mcp_3_m7_an_error_of_the_protocol_is_neutral_and_a_broken_server_is_not() {
        for code in [-32042, -32021, -32002, -32601, -32000, -32019, -1, 7] {
            assert_eq!(class(code, None), Class::Rejected, "{code}");
            assert_eq!(class(code, Some(400)), Class::Rejected, "{code}");
            assert_eq!(class(code, Some(500)), Class::Failure, "{code}");
        }
        assert_eq!(class(code::INTERNAL_ERROR, None), Class::Failure);
        assert_eq!(McpError::too_long(1).verdict().class, Class::Rejected);
        assert_eq!(McpError::too_long(1).executed(), Executed::Maybe);
    }
}
