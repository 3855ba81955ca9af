//! An HTTP dependency as the runtime sees it: what it is asked, what it answers in one piece, and
//! the worker that speaks to it.
//!
//! Workers answer for the fallbacks of others, renew what is kept, and make last attempts. What a
//! caller of the gateway asks goes the same way in the caller's own task, as a stream.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;

use breakerbox_policy::{Class, Symptom};

use super::failure::{Failure, HttpError, Said, SaidBody};
use super::headers::strip_one_hop;
use super::trace::{AttemptSpan, Attempts};
use super::upload::Upload;
use super::upstream::Upstream;
use crate::hint;
use crate::{CallContext, Dependency, Verdict};

/// The longest answer that is kept in one piece, where it is not streamed.
const MAX_REPLY: usize = 8_000_000;

/// The type of an HTTP dependency; its clients are `Client<Http>`.
#[derive(Debug)]
pub struct Http {
    upstream: Upstream,
    attempts: Attempts,
}

/// What an HTTP dependency is asked. Cheap to clone.
///
/// Two are the same when method, path, query and the chosen headers are.
#[derive(Clone)]
pub struct HttpRequest(Arc<Asked>);

struct Asked {
    method: Method,
    /// Path and query behind the dependency's own address.
    target: String,
    headers: HeaderMap,
    /// `None` when it is passed on as it comes.
    body: Option<Bytes>,
    idempotent: bool,
    chosen: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// What an HTTP dependency answered, in one piece.
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
        Self(Arc::new(Asked {
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

    /// Whether it changes something, as far as its method tells.
    pub(super) fn is_write(&self) -> bool {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
        !reads.contains(&self.0.method)
    }

    /// The same with other headers.
    #[cfg(feature = "otel")]
    pub(super) fn with_headers(&self, headers: HeaderMap) -> Self {
        Self(Arc::new(Asked {
            method: self.0.method.clone(),
            target: self.0.target.clone(),
            headers,
            body: self.0.body.clone(),
            idempotent: self.0.idempotent,
            chosen: self.0.chosen.clone(),
        }))
    }

    /// The body to send, as often as it is there.
    pub(super) fn upload(&self) -> Option<Upload> {
        let body = self.0.body.clone();
        body.map(|body| Upload::Whole(Some(body)))
    }

    /// What is left of it for telling it apart from others.
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
            // Valid parts make a valid line.
            HeaderValue::from_bytes(&all.join(&b", "[..])).ok()
        };
        let chosen = headers.iter().map(|name| (name.clone(), value(name)));
        Self(Arc::new(Asked {
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

/// Without what may be a secret in it.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HttpRequest")
            .field("method", &self.0.method)
            .finish_non_exhaustive()
    }
}

impl Http {
    pub(super) fn new(upstream: Upstream, attempts: Attempts) -> Self {
        Self { upstream, attempts }
    }
}

impl Dependency for Http {
    type Request = HttpRequest;
    type Response = HttpReply;
    type Error = HttpError;

    async fn call(&self, request: HttpRequest, call: &CallContext) -> Result<HttpReply, HttpError> {
        let body = request.upload().ok_or(Failure::BodyGone)?;
        let limit = || call.remaining();
        let mut span = self.attempts.begin(&request, call.attempt(), limit);
        let request = span.as_ref().map_or(request, AttemptSpan::request);
        let sending = self.upstream.send(&request, body, call.remaining());
        let answered = call.first_byte(sending).await;
        let answered = answered.unwrap_or_else(|_| Err(Failure::Late.into()));
        if let Some(span) = &mut span {
            span.came_to(&answered);
        }
        let (mut head, mut rest) = answered?.into_parts();
        strip_one_hop(&mut head.headers);
        let mut body = BytesMut::new();
        while let Some(frame) = call.idle(rest.frame()).await.map_err(|_| Failure::Late)? {
            if let Ok(piece) = frame.map_err(|_| Failure::Reset)?.into_data() {
                body.extend_from_slice(&piece);
            }
            if body.len() > MAX_REPLY {
                return Err(Failure::TooLong.into());
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
            failure: Failure::Status(head.status.as_u16()),
            retry_after: hint::read(&head.headers, Some(&body)),
            said: Some(Box::new(Said {
                head,
                body: SaidBody::Whole(body),
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

/// What an answer counts for by its status; the settings have the last word.
pub(super) fn of_status(status: StatusCode, retry_after: Option<Duration>) -> Verdict {
    if status.as_u16() < 400 {
        return Verdict::from(Class::Success);
    }
    let verdict = Verdict::from(Symptom::Status(status.as_u16()));
    match retry_after {
        Some(wait) => verdict.retry_after(wait),
        None => verdict,
    }
}
