//! An HTTP dependency as the runtime sees it: its requests, its buffered responses, and the worker
//! that sends them.
//!
//! Workers serve the fallbacks of other dependencies, refresh cached responses, and make
//! last-resort attempts. A request of a gateway caller takes the same path in the caller's own
//! task, as a stream.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;

use breakerbox_policy::{Class, Symptom};

use super::error::{ErrorBody, ErrorResponse, HttpError, HttpFailure};
use super::request_body::Upload;
use super::upstream::Upstream;
use crate::retry_after;
use crate::sidecar::gateway::headers::strip_one_hop;
use crate::sidecar::gateway::trace::{AttemptSpan, Attempts};
use crate::{CallContext, Dependency, Verdict};

/// Maximum size of a response that is buffered instead of streamed, in bytes.
const MAX_REPLY: usize = 8_000_000;

/// The type of an HTTP dependency; its clients are `Client<HttpDependency>`.
#[derive(Debug)]
pub struct HttpDependency {
    upstream: Upstream,
    attempts: Attempts,
}

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
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpRequest {
    pub(crate) fn new(
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

    pub(crate) fn method(&self) -> &Method {
        &self.0.method
    }

    pub(crate) fn target(&self) -> &str {
        &self.0.target
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// Returns true if the method may change something.
    pub(crate) fn is_write(&self) -> bool {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
        !reads.contains(&self.0.method)
    }

    /// Returns the same request with other headers.
    #[cfg(feature = "otel")]
    pub(crate) fn with_headers(&self, headers: HeaderMap) -> Self {
        Self(Arc::new(RequestParts {
            method: self.0.method.clone(),
            target: self.0.target.clone(),
            headers,
            body: self.0.body.clone(),
            idempotent: self.0.idempotent,
            chosen: self.0.chosen.clone(),
        }))
    }

    /// Returns the body to send, as often as needed if it was buffered.
    pub(crate) fn upload(&self) -> Option<Upload> {
        let body = self.0.body.clone();
        body.map(|body| Upload::Whole(Some(body)))
    }

    /// Reduces the request to the parts of its cache key.
    pub(crate) fn keyed(&self, headers: &[HeaderName]) -> Self {
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

impl HttpDependency {
    pub(in crate::sidecar::gateway) fn new(upstream: Upstream, attempts: Attempts) -> Self {
        Self { upstream, attempts }
    }
}

impl Dependency for HttpDependency {
    type Request = HttpRequest;
    type Response = HttpReply;
    type Error = HttpError;

    async fn call(&self, request: HttpRequest, call: &CallContext) -> Result<HttpReply, HttpError> {
        let body = request.upload().ok_or(HttpFailure::BodyGone)?;
        let limit = || call.remaining();
        let mut span = self.attempts.begin(&request, call.attempt(), limit);
        let request = span.as_ref().map_or(request, AttemptSpan::request);
        let sending = self.upstream.send(&request, body, call.remaining());
        let answered = call.first_byte(sending).await;
        let answered = answered.unwrap_or_else(|_| Err(HttpFailure::Late.into()));
        if let Some(span) = &mut span {
            span.came_to(&answered);
        }
        let (mut head, mut rest) = answered?.into_parts();
        strip_one_hop(&mut head.headers);
        let mut body = BytesMut::new();
        while let Some(frame) = call
            .idle(rest.frame())
            .await
            .map_err(|_| HttpFailure::Late)?
        {
            if let Ok(piece) = frame.map_err(|_| HttpFailure::Reset)?.into_data() {
                body.extend_from_slice(&piece);
            }
            if body.len() > MAX_REPLY {
                return Err(HttpFailure::TooLong.into());
            }
        }
        let body = body.freeze();
        if head.status.as_u16() < 400 {
            return Ok(HttpReply {
                status: head.status,
                headers: head.headers,
                body,
            });
        }
        Err(HttpError {
            failure: HttpFailure::Status(head.status.as_u16()),
            retry_after: retry_after::read(&head.headers, Some(&body)),
            said: Some(Box::new(ErrorResponse {
                head,
                body: ErrorBody::Whole(body),
            })),
        })
    }

    fn classify(result: Result<&HttpReply, &HttpError>) -> Verdict {
        match result {
            Ok(reply) => of_status(reply.status, None),
            Err(error) => error.verdict(),
        }
    }

    fn is_idempotent(request: &HttpRequest) -> bool {
        request.0.idempotent
    }

    fn is_write(request: &HttpRequest) -> bool {
        request.is_write()
    }
}

/// Returns the verdict for a response by its status; the settings may reclassify it.
pub(crate) fn of_status(status: StatusCode, retry_after: Option<Duration>) -> Verdict {
    if status.as_u16() < 400 {
        return Verdict::from(Class::Success);
    }
    let verdict = Verdict::from(Symptom::Status(status.as_u16()));
    match retry_after {
        Some(wait) => verdict.retry_after(wait),
        None => verdict,
    }
}
