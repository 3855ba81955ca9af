//! An HTTP dependency as the runtime sees it: the worker that sends its requests.
//!
//! Workers serve the fallbacks of other dependencies, refresh cached responses, and make
//! last-resort attempts. A request of a gateway caller takes the same path in the caller's own
//! task, as a stream.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use breakerbox_policy::{Class, Symptom};

use super::cache;
use super::connect_failure::ConnectFailure;
use super::error::{ErrorResponse, HttpError};
use super::error_body::{ErrorBody, failure_of};
use super::grpc::GrpcAnswer;
use super::model_reply;
use super::send_mark::SendMark;
use super::target::{UpstreamTarget, WorkerRoute};
use super::upgrade;
use super::upstream::UpstreamClient;
use crate::sidecar::gateway::headers::{NamedFields, strip_answer};
use crate::sidecar::gateway::message::{HttpFailure, HttpReply, HttpRequest};
use crate::sidecar::gateway::trace::AttemptSpan;
use crate::{CallContext, Dependency, OpenAnswer, Verdict};

/// Maximum size of a response that is buffered instead of streamed, in bytes.
const MAX_REPLY: usize = 8_000_000;

/// The number of the attempt that an unsuccessful response answers.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(feature = "fleet"),
    expect(dead_code, reason = "only consumers read it")
)]
pub(crate) struct AttemptNumber(pub(crate) u32);

/// The type of an HTTP dependency; its clients are `Client<HttpDependency>`.
pub struct HttpDependency {
    route: Arc<ArcSwap<WorkerRoute>>,
    /// The connections of this worker, and the server they lead to.
    connections: RefCell<(Arc<UpstreamTarget>, Rc<UpstreamClient>)>,
}

impl HttpDependency {
    /// Creates the value of a worker. `route`: its server and caches, which a reload may replace.
    pub(in crate::sidecar::gateway) fn new(route: Arc<ArcSwap<WorkerRoute>>) -> Self {
        let present = Arc::clone(&route.load().target);
        let connections = Rc::new(present.connect());
        Self {
            route,
            connections: RefCell::new((present, connections)),
        }
    }

    /// Returns the present server, and this worker's connections to it. Requests in flight keep the
    /// connections that they have.
    fn present(&self) -> (Arc<UpstreamTarget>, Rc<UpstreamClient>) {
        let present = self.route.load();
        let mut connections = self.connections.borrow_mut();
        if !Arc::ptr_eq(&connections.0, &present.target) {
            let target = Arc::clone(&present.target);
            let upstream = Rc::new(target.connect());
            *connections = (target, upstream);
        }
        connections.clone()
    }
}

impl fmt::Debug for HttpDependency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HttpDependency").finish_non_exhaustive()
    }
}

impl Dependency for HttpDependency {
    type Request = HttpRequest;
    type Response = HttpReply;
    type Error = HttpError;

    async fn call(&self, request: HttpRequest, call: &CallContext) -> Result<HttpReply, HttpError> {
        // A buffered answer is none to such a request.
        let request = upgrade::without(request);
        let (target, upstream) = self.present();
        let route = self.route.load_full();
        // EDGE-4: a stand-in reads the caller's body only now that it may make the call.
        let request = model_reply::provided(&route, request);
        let mark = SendMark::begin(request.progress());
        let body = request.upload(call.remaining(), &target).await?;
        let limit = || call.remaining();
        let mut span = target.attempts.begin(&request, call.attempt(), limit);
        let request = span.as_ref().map_or(request, AttemptSpan::request);
        let limits = (Instant::now(), call.remaining());
        let sending = upstream.send(&request, body, limits, &mark);
        let answered = call.first_byte(sending).await;
        let answered = answered.unwrap_or_else(|late| {
            // CALL-2: no connection may have taken the request.
            let failure = match mark.has_sent() {
                false => HttpFailure::Connect(ConnectFailure::Late(late.limit)),
                true => HttpFailure::Late(late.limit),
            };
            Err(failure.into())
        });
        if let Some(span) = &mut span {
            span.came_to(
                answered
                    .as_ref()
                    .map(Response::status)
                    .map_err(HttpError::failure),
            );
        }
        let (mut head, mut rest) = answered?.into_parts();
        let seen = (head.status, &head.headers);
        // The settings, which may call these a failure, are not known here.
        let is_failure = matches!(head.status.as_u16(), 404 | 410);
        cache::note(&self.route.load().caches, &request, seen, is_failure);
        strip_answer(&mut head);
        let mut body = BytesMut::new();
        let mut share = target.budget.share();
        let mut trailers = None;
        while let Some(frame) = call
            .idle(rest.frame())
            .await
            .map_err(|late| HttpFailure::Late(late.limit))?
        {
            match frame
                .map_err(|error| HttpFailure::of_body(&error))?
                .into_data()
            {
                Ok(piece) => body.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if body.len() > MAX_REPLY {
                return Err(HttpFailure::TooLong.into());
            }
            if !share.grow_to(body.capacity()) {
                return Err(HttpFailure::NoMemory.into());
            }
        }
        let body = share.hold(body);
        head.extensions.insert(AttemptNumber(call.attempt()));
        match model_reply::error_of(&route, &request, &head, &body) {
            Some(error) => Err(error),
            None => reply_of(head, body, trailers),
        }
    }

    fn classify(result: Result<&HttpReply, &HttpError>) -> Verdict {
        match result {
            Ok(reply) => reply.verdict(),
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

/// Returns a whole response as a reply, or as the error that its status says.
fn reply_of(head: Parts, body: Bytes, trailers: Option<HeaderMap>) -> Result<HttpReply, HttpError> {
    if head.status.as_u16() < 400 {
        let grpc = GrpcAnswer::of(&head).map(|mut grpc| {
            if let Some(trailers) = &trailers {
                grpc.read(trailers);
            }
            grpc
        });
        return Ok(HttpReply {
            trailers,
            grpc,
            is_cut: head.extensions.get::<NamedFields>().is_some(),
            ..HttpReply::new(head.status, head.headers, body)
        });
    }
    let body = ErrorBody::whole(body, trailers);
    Err(HttpError {
        failure: failure_of(&head),
        executed: None,
        retry_after: body.hint(&head),
        model: None,
        said: Some(Box::new(ErrorResponse { head, body })),
    })
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
