//! The messages of HTTP dependencies: requests, buffered responses, and failures without a response.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::http::connect_failure::ConnectFailure;

/// A request to an HTTP dependency. Cheap to clone.
///
/// Two requests are equal if their method, path, query and chosen headers are equal.
#[derive(Clone)]
pub struct HttpRequest(Arc<RequestParts>);

struct RequestParts {
    method: Method,
    /// Path and query relative to the dependency's own address.
    target: String,
    headers: HeaderMap,
    /// `None` if the body is streamed.
    body: Option<Bytes>,
    idempotent: bool,
    chosen: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// A buffered response of an HTTP dependency.
#[derive(Debug, Clone)]
pub struct HttpReply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl HttpRequest {
    pub(super) fn new(
        (method, target): (Method, String),
        headers: HeaderMap,
        body: Option<Bytes>,
        idempotent: bool,
    ) -> Self {
        Self(Arc::new(RequestParts {
            method,
            target,
            headers,
            body,
            idempotent,
            chosen: Vec::new(),
        }))
    }

    pub(super) fn method(&self) -> &Method {
        &self.0.method
    }

    pub(super) fn target(&self) -> &str {
        &self.0.target
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// Returns true if the method may change something.
    pub(super) fn is_write(&self) -> bool {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
        !reads.contains(&self.0.method)
    }

    /// Returns the same request with other headers.
    #[cfg(feature = "otel")]
    pub(super) fn with_headers(&self, headers: HeaderMap) -> Self {
        Self(Arc::new(RequestParts {
            method: self.0.method.clone(),
            target: self.0.target.clone(),
            headers,
            body: self.0.body.clone(),
            idempotent: self.0.idempotent,
            chosen: self.0.chosen.clone(),
        }))
    }

    /// Returns the body, if it was buffered.
    pub(super) fn body(&self) -> Option<&Bytes> {
        self.0.body.as_ref()
    }

    /// Returns true if it may be sent again on another connection, after one was closed under it.
    pub(super) fn may_be_resent(&self) -> bool {
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS];
        self.0.idempotent || safe.contains(&self.0.method)
    }

    /// Returns true if it may be sent more than once.
    pub(super) fn is_idempotent(&self) -> bool {
        self.0.idempotent
    }

    /// Reduces the request to the parts of its cache key.
    pub(super) fn keyed(&self, headers: &[HeaderName]) -> Self {
        let value = |name: &HeaderName| {
            let mut values = self.0.headers.get_all(name).iter();
            let first = values.next()?.clone();
            if values.next().is_none() {
                return Some(first);
            }
            let all: Vec<&[u8]> = self
                .0
                .headers
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            // Joined valid values form a valid value.
            HeaderValue::from_bytes(&all.join(&b", "[..])).ok()
        };
        let chosen = headers.iter().map(|name| (name.clone(), value(name)));
        Self(Arc::new(RequestParts {
            method: self.0.method.clone(),
            target: self.0.target.clone(),
            headers: HeaderMap::new(),
            body: None,
            idempotent: self.0.idempotent,
            chosen: chosen.collect(),
        }))
    }

    fn key(&self) -> (&Method, &str, &[(HeaderName, Option<HeaderValue>)]) {
        (&self.0.method, &self.0.target, &self.0.chosen)
    }
}

impl PartialEq for HttpRequest {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for HttpRequest {}

impl Hash for HttpRequest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Omits everything that may be a secret.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HttpRequest")
            .field("method", &self.0.method)
            .finish_non_exhaustive()
    }
}

/// The reason for a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpFailure {
    /// It responded with this status.
    Status(u16),
    /// No connection could be made.
    Connect(ConnectFailure),
    /// The connection broke, or the response was not HTTP.
    Reset,
    /// The connection broke while the request's body was on its way.
    UploadCut,
    /// The server closed an idle connection as a request went out on it.
    ClosedOnReuse,
    /// The server has declared that it did not process the request.
    Unprocessed,
    /// The response did not begin, or did not continue, in time.
    Late,
    /// The response is too long to be buffered.
    TooLong,
    /// The caller's body is longer than allowed.
    BodyTooLarge,
    /// The caller sent its body too slowly.
    BodyTooSlow,
    /// The caller did not send all of its body.
    BodyCut,
    /// The body was streamed before, and cannot be sent again.
    BodyGone,
}

impl HttpFailure {
    /// The cause in a few words, for problem documents and events.
    pub(super) fn cause(self) -> &'static str {
        // EDGE-8: each failure says what it was.
        match self {
            Self::Status(_) => "error status",
            Self::Connect(cause) => cause.words(),
            Self::Reset => "connection reset",
            Self::UploadCut => "connection reset during the upload",
            Self::ClosedOnReuse => "idle connection closed",
            Self::Unprocessed => "request not processed",
            Self::Late => "no response in time",
            Self::TooLong => "response too long",
            Self::BodyTooLarge => "request body too large",
            Self::BodyTooSlow => "request body too slow",
            Self::BodyCut => "request body cut off",
            Self::BodyGone => "request body already sent",
        }
    }
}

/// Contains no address and no part of a message: they may hold secrets.
impl fmt::Display for HttpFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Status(status) => return write!(out, "it answered {status}"),
            Self::Connect(cause) => return write!(out, "no connection: {cause}"),
            Self::Reset => "the connection broke",
            Self::UploadCut => "the connection broke while the request's body was on its way",
            Self::ClosedOnReuse => "it closed an idle connection as the request went out on it",
            Self::Unprocessed => "it did not process the request",
            Self::Late => "no response in time",
            Self::TooLong => "its response is too long to be buffered",
            Self::BodyTooLarge => "the request's body is longer than allowed",
            Self::BodyTooSlow => "the request's body came too slowly",
            Self::BodyCut => "the request's body was cut off",
            Self::BodyGone => "the request's body was passed on and cannot be sent again",
        })
    }
}

impl std::error::Error for HttpFailure {}
