//! An HTTP dependency as the runtime sees it: the worker that sends its requests.
//!
//! Workers serve the fallbacks of other dependencies, refresh cached responses, and make
//! last-resort attempts. A request of a gateway caller takes the same path in the caller's own
//! task, as a stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;

use breakerbox_policy::{Class, Symptom};

use super::cache::{self, HttpCache};
use super::error::{ErrorResponse, HttpError};
use super::error_body::{ErrorBody, failure_of};
use super::request_body::Upload;
use super::upstream::UpstreamClient;
use crate::sidecar::gateway::headers::strip_one_hop;
use crate::sidecar::gateway::message::{HttpFailure, HttpReply, HttpRequest};
use crate::sidecar::gateway::trace::{AttemptSpan, AttemptTracer};
use crate::{CallContext, Dependency, OpenAnswer, Verdict};

/// Maximum size of a response that is buffered instead of streamed, in bytes.
const MAX_REPLY: usize = 8_000_000;

/// The type of an HTTP dependency; its clients are `Client<HttpDependency>`.
#[derive(Debug)]
pub struct HttpDependency {
    upstream: UpstreamClient,
    attempts: AttemptTracer,
    caches: Arc<[Arc<HttpCache>]>,
}

impl HttpDependency {
    pub(in crate::sidecar::gateway) fn new(
        upstream: UpstreamClient,
        attempts: AttemptTracer,
        caches: Arc<[Arc<HttpCache>]>,
    ) -> Self {
        Self {
            upstream,
            attempts,
            caches,
        }
    }
}

impl Dependency for HttpDependency {
    type Request = HttpRequest;
    type Response = HttpReply;
    type Error = HttpError;

    async fn call(&self, request: HttpRequest, call: &CallContext) -> Result<HttpReply, HttpError> {
        let body = Upload::of(&request).ok_or(HttpFailure::BodyGone)?;
        let limit = || call.remaining();
        let mut span = self.attempts.begin(&request, call.attempt(), limit);
        let request = span.as_ref().map_or(request, AttemptSpan::request);
        let sending = self.upstream.send(&request, body, call.remaining());
        let answered = call.first_byte(sending).await;
        let answered = answered.unwrap_or_else(|_| Err(HttpFailure::Late.into()));
        if let Some(span) = &mut span {
            span.came_to(
                answered
                    .as_ref()
                    .map(Response::status)
                    .map_err(HttpError::failure),
            );
        }
        let (mut head, mut rest) = answered?.into_parts();
        strip_one_hop(&mut head.headers);
        let seen = (head.status, &head.headers);
        // The settings, which may call these a failure, are not known here.
        let is_failure = matches!(head.status.as_u16(), 404 | 410);
        cache::note(&self.caches, &request, seen, is_failure);
        let mut body = BytesMut::new();
        let mut trailers = None;
        while let Some(frame) = call
            .idle(rest.frame())
            .await
            .map_err(|_| HttpFailure::Late)?
        {
            match frame.map_err(|_| HttpFailure::Reset)?.into_data() {
                Ok(piece) => body.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
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
        let body = ErrorBody::whole(body, trailers);
        Err(HttpError {
            failure: failure_of(&head),
            retry_after: body.hint(&head),
            said: Some(Box::new(ErrorResponse { head, body })),
        })
    }

    fn classify(result: Result<&HttpReply, &HttpError>) -> Verdict {
        match result {
            Ok(reply) => of_status(reply.status, None),
            Err(error) => error.verdict(),
        }
    }

    fn open_answer(error: &mut HttpError) -> Option<&mut dyn OpenAnswer> {
        error.open_answer()
    }

    fn is_idempotent(request: &HttpRequest) -> bool {
        request.is_idempotent()
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
