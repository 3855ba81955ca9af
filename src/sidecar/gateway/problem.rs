//! The gateway's own errors in the format of RFC 9457: the reason, whether the work was done, and
//! when to retry.

mod error_kind;

mod in_dialect;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use breakerbox_policy::Executed;

use error_kind::{cause_of, kind_of, kind_of_failure};
pub(super) use in_dialect::{ProblemFacts, code_and_status, told_in};

use super::http::body::ReplyBody;
use super::http::error::HttpError;
use super::message::HttpFailure;
use crate::mcp::McpError;
use crate::{CallError, TimeLimit};

/// A kind of problem: its code, its status and its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProblemKind(&'static str, StatusCode, &'static str);

impl ProblemKind {
    const OPEN: Self = Self(
        "breaker-open",
        StatusCode::SERVICE_UNAVAILABLE,
        "the breaker refuses calls",
    );
    const OVERLOADED: Self = Self(
        "overloaded",
        StatusCode::SERVICE_UNAVAILABLE,
        "too many calls are in flight",
    );
    const RATE_LIMITED: Self = Self(
        "rate-limited",
        StatusCode::TOO_MANY_REQUESTS,
        "the rate limit is exceeded",
    );
    const TIMED_OUT: Self = Self(
        "timed-out",
        StatusCode::GATEWAY_TIMEOUT,
        "no answer in time",
    );
    const FAILED: Self = Self(
        "upstream-failed",
        StatusCode::BAD_GATEWAY,
        "the dependency failed",
    );
    const CRASHED: Self = Self(
        "worker-crashed",
        StatusCode::BAD_GATEWAY,
        "the worker crashed during the call",
    );
    pub(super) const UNAVAILABLE: Self = Self(
        "unavailable",
        StatusCode::SERVICE_UNAVAILABLE,
        "no worker is available",
    );
    const STOPPING: Self = Self(
        "shutting-down",
        StatusCode::SERVICE_UNAVAILABLE,
        "the process is shutting down",
    );
    const QUARANTINED: Self = Self(
        "quarantined",
        StatusCode::SERVICE_UNAVAILABLE,
        "calls with this content have crashed workers",
    );
    /// No call could begin.
    pub(super) const NOT_READY: Self = Self(
        "not-ready",
        StatusCode::SERVICE_UNAVAILABLE,
        "no call could begin",
    );
    /// Refusals that a retry of the caller's own does not help: the gateway itself retries where that
    /// helps, or the request can never be passed on.
    const REFUSALS: [Self; 8] = [
        Self::OPEN,
        Self::OVERLOADED,
        Self::RATE_LIMITED,
        Self::UNAVAILABLE,
        Self::QUARANTINED,
        // By their statuses alone, client libraries would send these again.
        Self::LOOP,
        Self::NO_TUNNEL,
        Self::UNKNOWN_CODING,
    ];
    /// A server asks its user for input, and cannot get it.
    pub(super) const INPUT_REQUIRED: Self = Self(
        "input-required",
        StatusCode::BAD_GATEWAY,
        "the server asks for input that it cannot get",
    );
    /// The caller has ended its call, or its session.
    pub(super) const CANCELLED: Self = Self(
        "cancelled",
        StatusCode::CONFLICT,
        "the caller has ended the call",
    );
    /// No dependency of that name.
    pub(super) const UNKNOWN: Self = Self(
        "unknown-dependency",
        StatusCode::NOT_FOUND,
        "there is no such dependency",
    );
    /// No such path below the dependency's name.
    pub(super) const NO_PATH: Self = Self(
        "unknown-path",
        StatusCode::NOT_FOUND,
        "there is nothing at this path",
    );
    /// The request itself is invalid.
    pub(super) const BAD_REQUEST: Self = Self(
        "bad-request",
        StatusCode::BAD_REQUEST,
        "the request cannot be passed on",
    );
    /// The request names a host that is not served.
    pub(super) const FOREIGN_HOST: Self = Self(
        "foreign-host",
        StatusCode::MISDIRECTED_REQUEST,
        "the request is for another host",
    );
    /// A page of another site made the request.
    pub(super) const FOREIGN_ORIGIN: Self = Self(
        "foreign-origin",
        StatusCode::FORBIDDEN,
        "the request comes from another site",
    );
    /// The caller presents no valid credentials.
    pub(super) const UNAUTHORIZED: Self = Self(
        "unauthorized",
        StatusCode::UNAUTHORIZED,
        "the caller presents no valid credentials",
    );
    /// The caller's token lacks a scope.
    pub(super) const NO_SCOPE: Self = Self(
        "insufficient-scope",
        StatusCode::FORBIDDEN,
        "the caller's token is not enough",
    );
    /// No key of the token's issuer is known.
    pub(super) const NO_KEYS: Self = Self(
        "keys-unavailable",
        StatusCode::SERVICE_UNAVAILABLE,
        "the caller's token cannot be checked",
    );
    /// The request has come through this process before.
    pub(super) const LOOP: Self = Self(
        "loop-detected",
        StatusCode::LOOP_DETECTED,
        "the request goes round in a loop",
    );
    /// The request asks for a tunnel.
    pub(super) const NO_TUNNEL: Self = Self(
        "no-tunnel",
        StatusCode::NOT_IMPLEMENTED,
        "there are no tunnels",
    );
    /// The body has a transfer coding that is not known.
    pub(super) const UNKNOWN_CODING: Self = Self(
        "unknown-coding",
        StatusCode::NOT_IMPLEMENTED,
        "the transfer coding is not known",
    );
    /// The method is not allowed here.
    pub(super) const METHOD: Self = Self(
        "method-not-allowed",
        StatusCode::METHOD_NOT_ALLOWED,
        "the method is not allowed here",
    );
    /// The request expects what the gateway cannot do.
    pub(super) const EXPECTATION: Self = Self(
        "expectation-failed",
        StatusCode::EXPECTATION_FAILED,
        "the expectation cannot be met",
    );
    /// The request has too many header lines.
    pub(super) const HEAD_TOO_LARGE: Self = Self(
        "head-too-large",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the request's head is too long",
    );
    const BODY_TOO_LARGE: Self = Self(
        "body-too-large",
        StatusCode::PAYLOAD_TOO_LARGE,
        "the request's body is too long",
    );
    const BODY_TOO_SLOW: Self = Self(
        "request-timeout",
        StatusCode::REQUEST_TIMEOUT,
        "the request's body came too slowly",
    );
}

impl ProblemKind {
    /// Returns the status of gRPC that says the same.
    fn grpc_code(self) -> u8 {
        match self {
            Self::TIMED_OUT | Self::BODY_TOO_SLOW => 4,
            Self::RATE_LIMITED | Self::BODY_TOO_LARGE | Self::HEAD_TOO_LARGE => 8,
            Self::BAD_REQUEST => 3,
            Self::FOREIGN_HOST | Self::FOREIGN_ORIGIN => 7,
            Self::LOOP => 13,
            Self::UNKNOWN
            | Self::NO_PATH
            | Self::NO_TUNNEL
            | Self::UNKNOWN_CODING
            | Self::METHOD
            | Self::EXPECTATION => 12,
            _ => 14,
        }
    }
}

/// A problem to be serialized.
#[derive(Debug, Serialize)]
pub(super) struct GatewayProblem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    dependency: Option<&'a str>,
    /// The breaker's state, if there is a breaker.
    state: Option<String>,
    executed: &'static str,
    retry_after_ms: Option<u64>,
    /// The cause in a few words.
    cause: String,
    error: ErrorMember,
    #[serde(skip)]
    code: StatusCode,
    /// True if the gateway refuses the call, and a retry of the caller's own does not help.
    #[serde(skip)]
    is_refusal: bool,
    #[serde(skip)]
    wait: Option<Duration>,
    #[serde(skip)]
    grpc_code: u8,
}

/// The same in the form that the clients of model providers read.
#[derive(Debug, Serialize)]
struct ErrorMember {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'static str,
}

impl<'a> GatewayProblem<'a> {
    /// A problem found before any call was made.
    pub(super) fn of(
        kind: ProblemKind,
        dependency: Option<&'a str>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(kind, dependency, detail.into(), Executed::No, None)
    }

    /// A call that had no answer when the time of a shutdown was over.
    pub(super) fn cut_off(dependency: Option<&'a str>) -> Self {
        let detail = "gateway.shutdown is over, and no answer has come".to_owned();
        let kind = ProblemKind::STOPPING;
        Self::new(kind, dependency, detail, Executed::Maybe, None).cause("gateway.shutdown")
    }

    /// A call that its dependency did not end: the way of its protocol ended it, or its caller.
    pub(super) fn ended(
        (kind, executed): (ProblemKind, Executed),
        dependency: &'a str,
        detail: String,
    ) -> Self {
        Self::new(kind, Some(dependency), detail, executed, None)
    }

    /// A request body that could not be read, before the dependency was called.
    pub(super) fn of_body(failure: HttpFailure, dependency: &'a str) -> Self {
        Self::of(
            kind_of_failure(failure),
            Some(dependency),
            failure.to_string(),
        )
        .cause(failure.cause())
    }

    /// The error of a call.
    pub(super) fn of_call(error: &CallError<HttpError>, dependency: &'a str) -> Self {
        let kind = kind_of(error, &|error| kind_of_failure(error.failure));
        let wait = error.retry_after().or_else(|| wait_for_memory(error));
        Self::new(
            kind,
            Some(dependency),
            error.to_string(),
            error.executed(),
            wait,
        )
        .cause(cause_of(error, &|error| error.failure.cause().to_owned()))
    }

    /// The error of a call of an MCP server.
    pub(super) fn of_mcp(error: &CallError<McpError>, dependency: &'a str) -> Self {
        let late = |error: &McpError| match error {
            McpError::Silent(_) => ProblemKind::TIMED_OUT,
            _ => ProblemKind::FAILED,
        };
        let kind = kind_of(error, &late);
        let wait = error.retry_after().or_else(|| McpError::pause_of(error));
        let detail = error.to_string();
        Self::new(kind, Some(dependency), detail, error.executed(), wait)
            .cause(cause_of(error, &McpError::to_string))
    }

    /// Returns the problem as data for an error of another protocol.
    pub(super) fn into_data(self) -> Value {
        // A struct of strings and numbers always serializes.
        serde_json::to_value(&self).unwrap_or_default()
    }

    fn new(
        ProblemKind(code, status, title): ProblemKind,
        dependency: Option<&'a str>,
        detail: String,
        executed: Executed,
        wait: Option<Duration>,
    ) -> Self {
        let message = match dependency {
            Some(dependency) => format!("{dependency}: {title}: {detail}"),
            None => format!("{title}: {detail}"),
        };
        let problem = ProblemKind(code, status, title);
        Self {
            kind: format!("urn:breakerbox:{code}"),
            title,
            status: status.as_u16(),
            detail,
            cause: title.to_owned(),
            error: ErrorMember {
                message,
                kind: "breakerbox",
                code,
            },
            is_refusal: ProblemKind::REFUSALS.contains(&problem),
            dependency,
            state: None,
            executed: match executed {
                Executed::No => "no",
                Executed::Maybe => "maybe",
                Executed::Yes => "yes",
            },
            retry_after_ms: wait.map(|wait| round_up(wait, 1_000_000)),
            code: status,
            wait,
            grpc_code: problem.grpc_code(),
        }
    }

    /// A call of a caller that is above its share. `key`: the setting that says so.
    pub(super) fn of_caller(key: &'static str, dependency: Option<&'a str>) -> Self {
        let detail = format!("{key} is exceeded by this address; wait for its other calls");
        let (kind, no) = (ProblemKind::RATE_LIMITED, Executed::No);
        Self::new(kind, dependency, detail, no, Some(WAIT)).cause(key)
    }

    /// The answer to a program that asks whether a call could begin, while none could.
    pub(super) fn not_ready(dependency: &'a str, wait: Option<Duration>, why: &str) -> Self {
        let detail = format!("{why}: fetch nothing yet, and ask again after the wait");
        let wait = Some(wait.unwrap_or(WAIT));
        let (kind, no) = (ProblemKind::NOT_READY, Executed::No);
        Self::new(kind, Some(dependency), detail, no, wait)
    }

    /// A call of a dependency that the start of the process has not come to yet.
    pub(super) fn starting(dependency: &'a str) -> Self {
        let detail = "the process is starting; ask again after the wait".to_owned();
        let (kind, no) = (ProblemKind::UNAVAILABLE, Executed::No);
        Self::new(kind, Some(dependency), detail, no, Some(WAIT))
    }

    /// A request that was refused because there is no room for it. `key`: the setting that says so.
    pub(super) fn of_room(key: &'static str, dependency: &'a str, detail: String) -> Self {
        let (kind, no) = (ProblemKind::OVERLOADED, Executed::No);
        Self::new(kind, Some(dependency), detail, no, Some(WAIT)).cause(key)
    }

    /// A message that there is no memory to keep.
    pub(super) fn of_memory(dependency: &'a str) -> Self {
        let lack = HttpFailure::NoMemory;
        Self::of_room(lack.cause(), dependency, lack.to_string())
    }

    pub(super) fn status(&self) -> StatusCode {
        self.code
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the value of `retry-after`.
    pub(super) fn wait_seconds(&self) -> Option<HeaderValue> {
        let wait = self.wait?;
        Some(HeaderValue::from(round_up(wait, 1_000_000_000)))
    }

    /// Sets the cause.
    fn cause(mut self, cause: impl Into<String>) -> Self {
        // EDGE-8: the document says what has failed.
        self.cause = cause.into();
        self
    }

    /// Names a limit by this key in place of its own words.
    pub(super) fn naming(mut self, limit: TimeLimit, key: &str) -> Self {
        for text in [&mut self.detail, &mut self.cause, &mut self.error.message] {
            *text = text.replace(limit.name(), key);
        }
        self
    }

    /// Sets the breaker's state.
    pub(super) fn state(mut self, state: impl ToString) -> Self {
        self.state = Some(state.to_string());
        self
    }

    pub(super) fn into_response(self) -> Response<ReplyBody> {
        // A struct of strings and numbers always serializes.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let wait = self.wait_seconds();
        let mut response = Response::new(ReplyBody::whole(Bytes::from(body)));
        *response.status_mut() = self.code;
        let is_refusal = self.is_refusal;
        response.extensions_mut().insert(ProblemFacts::of(self));
        let headers = response.headers_mut();
        let media = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, media);
        if is_refusal {
            // LIM-4: a client library that retries too would multiply the load.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(wait) = wait {
            headers.insert(RETRY_AFTER, wait);
        }
        response
    }
}

/// Wait that is asked of a caller where nothing says how long a lack lasts.
const WAIT: Duration = Duration::from_secs(1);

/// Returns the wait after a lack of memory.
fn wait_for_memory(error: &CallError<HttpError>) -> Option<Duration> {
    match error {
        CallError::Failed { error, .. } => match error.failure {
            HttpFailure::NoMemory => Some(WAIT),
            _ => None,
        },
        CallError::FallbackFailed { cause, .. } => wait_for_memory(cause),
        _ => None,
    }
}

/// Converts to whole units of `unit` nanoseconds, rounded up: no caller is told to retry too early.
fn round_up(wait: Duration, unit: u128) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(unit)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
