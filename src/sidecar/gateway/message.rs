//! The messages of HTTP dependencies: requests, buffered responses, and failures without a response.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::{mpsc, oneshot};

use breakerbox_policy::Executed;

use super::http::answer_fault::AnswerFault;
use super::http::cache_key::ChangeNumber;
use super::http::connect_failure::ConnectFailure;
use super::http::deferred_body::DeferredBody;
use super::http::dependency::of_status;
use super::http::grpc::{self, GrpcAnswer};
use super::http::request_body::Upload;
pub(super) use super::http::slow_body::SlowBody;
use super::http::target::UpstreamTarget;
use crate::model::{ApiShape, ModelRequest};
use crate::{AttemptProgress, TimeLimit, Verdict};

/// A request to an HTTP dependency. Cheap to clone.
///
/// Two requests are equal if they have the same key of a cache; without one, a request equals only
/// its clones.
#[derive(Clone)]
pub struct HttpRequest(Arc<RequestParts>);

#[derive(Clone)]
struct RequestParts {
    method: Method,
    /// Path and query relative to the dependency's own address.
    target: String,
    headers: HeaderMap,
    body: RequestBody,
    idempotent: bool,
    /// The headers as the caller sent them, for the keys of caches.
    sent: Option<Box<HeaderMap>>,
    key: Option<RequestKey>,
    /// The call of a model that it is.
    model: Option<Arc<ModelCall>>,
    /// The way to the task of the caller, which calls other dependencies in place of this one.
    substitutes: Option<mpsc::UnboundedSender<SubstituteCall>>,
    /// The latest change that caches were told of when it began.
    begun: ChangeNumber,
    /// The progress of its attempts; `None` if none is made.
    progress: Option<AttemptProgress>,
}

/// A request to a model, as far as it is known.
#[derive(Debug)]
pub(super) struct ModelCall {
    /// The shape of its answers.
    pub(super) shape: ApiShape,
    /// The model that the caller asks for, if the request names one.
    pub(super) asked: Option<String>,
    /// True if the answer is to be streamed.
    pub(super) is_stream: bool,
    /// The request, as far as it was read.
    pub(super) read: ModelRequest,
    /// True if repeating it changes nothing but the bill.
    pub(super) is_repeatable: bool,
}

/// A call of another dependency in place of the one that the caller has named. The task of the
/// caller makes it, so that the answer can be passed on as it arrives.
pub(super) struct SubstituteCall {
    pub(super) name: String,
    pub(super) request: HttpRequest,
    pub(super) reply: oneshot::Sender<SubstituteResult>,
}

/// Result of such a call.
pub(super) enum SubstituteResult {
    /// The task has the answer, which is of this age if it was kept.
    Answered(Option<Duration>),
    /// Its error text, and the execution state of the work.
    Failed(String, Executed),
    /// The gateway has no such dependency.
    Unknown,
}

/// The body of a request.
#[derive(Clone)]
pub(super) enum RequestBody {
    Whole(Bytes),
    /// A body that is read after the admission of the call.
    Deferred(Arc<DeferredBody>),
}

/// The digest of everything that tells requests apart in a cache.
pub(super) type RequestKey = [u8; 32];

/// A buffered response of an HTTP dependency.
#[derive(Debug, Clone)]
pub struct HttpReply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// True if the task of the caller has the answer of another dependency, and this only says so.
    pub(super) is_elsewhere: bool,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) grpc: Option<GrpcAnswer>,
    /// True if `Connection` named fields of it: what they said is lost.
    pub(super) is_cut: bool,
}

impl HttpReply {
    pub(super) fn new(status: StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        Self {
            status,
            headers,
            body,
            is_elsewhere: false,
            trailers: None,
            grpc: None,
            is_cut: false,
        }
    }

    /// Returns the verdict on the reply.
    pub(super) fn verdict(&self) -> Verdict {
        match &self.grpc {
            Some(grpc) => grpc.verdict(),
            None => of_status(self.status, None),
        }
    }

    /// Stands for an answer that the task of the caller has.
    pub(super) fn elsewhere() -> Self {
        Self {
            is_elsewhere: true,
            ..Self::new(StatusCode::OK, HeaderMap::new(), Bytes::new())
        }
    }
}

impl HttpRequest {
    pub(super) fn new(
        (method, target): (Method, String),
        headers: HeaderMap,
        body: RequestBody,
        idempotent: bool,
    ) -> Self {
        let progress = match &body {
            RequestBody::Whole(_) => AttemptProgress::default(),
            RequestBody::Deferred(body) => body.status().progress(),
        };
        Self(Arc::new(RequestParts {
            method,
            target,
            headers,
            body,
            idempotent,
            sent: None,
            key: None,
            model: None,
            substitutes: None,
            begun: ChangeNumber::latest(),
            progress: Some(progress),
        }))
    }

    /// Adds the call of a model that it is. `idempotent`: it may be sent more than once.
    pub(super) fn with_model_call(mut self, call: ModelCall, idempotent: bool) -> Self {
        let parts = Arc::make_mut(&mut self.0);
        parts.model = Some(Arc::new(call));
        parts.idempotent = idempotent;
        self
    }

    /// Returns the call of a model that it is, if it is one.
    pub(super) fn model_call(&self) -> Option<&Arc<ModelCall>> {
        self.0.model.as_ref()
    }

    /// Returns the request as a provider gets it.
    pub(super) fn sent_to_model(
        &self,
        target: String,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Self {
        Self(Arc::new(RequestParts {
            target,
            headers,
            body: body.map_or_else(|| self.0.body.clone(), RequestBody::Whole),
            ..RequestParts::clone(&self.0)
        }))
    }

    /// Sets the way on which other dependencies are asked in place of this one.
    pub(super) fn with_substitutes(
        mut self,
        substitutes: Option<mpsc::UnboundedSender<SubstituteCall>>,
    ) -> Self {
        if substitutes.is_some() || self.0.substitutes.is_some() {
            Arc::make_mut(&mut self.0).substitutes = substitutes;
        }
        self
    }

    /// Returns the way on which other dependencies are asked in place of this one, if there is one.
    pub(super) fn substitutes(&self) -> Option<&mpsc::UnboundedSender<SubstituteCall>> {
        self.0.substitutes.as_ref()
    }

    /// Adds the headers as the caller sent them. Does nothing once the request was cloned.
    pub(super) fn sent_as(mut self, sent: Option<HeaderMap>) -> Self {
        if let Some(parts) = Arc::get_mut(&mut self.0) {
            parts.sent = sent.map(Box::new);
        }
        self
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

    /// Returns the headers as the caller sent them, before any were stripped; else those that are
    /// passed on.
    pub(super) fn as_sent(&self) -> &HeaderMap {
        self.0.sent.as_deref().unwrap_or(&self.0.headers)
    }

    /// Returns true if the headers are known as the caller sent them.
    pub(super) fn is_as_sent(&self) -> bool {
        self.0.sent.is_some()
    }

    /// Returns the latest change that caches were told of when it began.
    pub(super) fn begun(&self) -> ChangeNumber {
        self.0.begun
    }

    /// Returns true if it certainly has no body.
    pub(super) fn has_no_body(&self) -> bool {
        self.body().is_some_and(Bytes::is_empty)
    }

    /// Returns true if the method may change something.
    pub(super) fn is_write(&self) -> bool {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
        // LLM-11: generating changes nothing but the bill.
        let is_generating = self.0.model.as_ref().is_some_and(|call| call.is_repeatable);
        !reads.contains(&self.0.method) && !is_generating
    }

    /// Returns the same request with other headers.
    #[cfg(feature = "otel")]
    pub(super) fn with_headers(&self, headers: HeaderMap) -> Self {
        Self(Arc::new(RequestParts {
            headers,
            ..RequestParts::clone(&self.0)
        }))
    }

    /// Returns the same request for another target, with both sets of headers changed.
    pub(super) fn changed(&self, target: String, change: impl Fn(&mut HeaderMap)) -> Self {
        let mut headers = self.0.headers.clone();
        change(&mut headers);
        let mut sent = self.0.sent.clone();
        if let Some(sent) = &mut sent {
            change(sent);
        }
        Self(Arc::new(RequestParts {
            method: self.0.method.clone(),
            target,
            headers,
            body: self.0.body.clone(),
            idempotent: self.0.idempotent,
            sent,
            key: None,
            model: self.0.model.clone(),
            substitutes: self.0.substitutes.clone(),
            begun: self.0.begun,
            progress: self.0.progress.clone(),
        }))
    }

    /// Returns the body, if it is kept.
    pub(super) fn body(&self) -> Option<&Bytes> {
        match &self.0.body {
            RequestBody::Whole(body) => Some(body),
            RequestBody::Deferred(body) => body.whole(),
        }
    }

    /// Returns the body to send, once it was read. `left`: a time limit beside those of the call.
    /// `target`: where it goes.
    ///
    /// # Errors  The caller's body cannot be read, or was passed on before.
    pub(super) async fn upload(
        &self,
        left: Option<Duration>,
        target: &UpstreamTarget,
    ) -> Result<Upload, HttpFailure> {
        match &self.0.body {
            RequestBody::Whole(body) => Ok(Upload::Whole(Some(body.clone()))),
            // On the heap: it must not enlarge the future of every call.
            RequestBody::Deferred(body) => {
                let bodies = (&target.pending, self.is_write());
                Box::pin(body.upload(left, bodies)).await
            }
        }
    }

    /// Returns the progress of its attempts.
    pub(super) fn progress(&self) -> AttemptProgress {
        self.0.progress.clone().unwrap_or_default()
    }

    /// Returns the body to send once more, if it is kept.
    pub(super) fn kept_upload(&self) -> Option<Upload> {
        match &self.0.body {
            RequestBody::Whole(body) => Some(Upload::Whole(Some(body.clone()))),
            RequestBody::Deferred(body) => body.kept_upload(),
        }
    }

    /// Returns true if it may be sent again on another connection, after one was closed under it.
    pub(super) fn may_be_resent(&self) -> bool {
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS];
        self.0.idempotent || safe.contains(&self.0.method)
    }

    /// Returns true if it asks for another protocol on its connection.
    pub(super) fn asks_upgrade(&self) -> bool {
        self.0.headers.contains_key(UPGRADE)
    }

    /// Returns true if it may be sent more than once.
    pub(super) fn is_idempotent(&self) -> bool {
        self.0.idempotent
    }

    /// Reduces the request to its key, so that a cache keeps nothing else of it.
    pub(super) fn keyed(&self, key: RequestKey) -> Self {
        Self(Arc::new(RequestParts {
            method: self.0.method.clone(),
            target: String::new(),
            headers: HeaderMap::new(),
            body: RequestBody::Whole(Bytes::new()),
            idempotent: self.0.idempotent,
            sent: None,
            key: Some(key),
            model: None,
            substitutes: None,
            begun: self.0.begun,
            progress: None,
        }))
    }
}

impl PartialEq for HttpRequest {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0.key, &other.0.key) {
            (Some(own), Some(others)) => own == others,
            (None, None) => Arc::ptr_eq(&self.0, &other.0),
            _ => false,
        }
    }
}

impl Eq for HttpRequest {}

impl Hash for HttpRequest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
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
    /// It responded that it does not know the method.
    Declined,
    /// It responded with this status of gRPC.
    Grpc(u8),
    /// No connection could be made.
    Connect(ConnectFailure),
    /// The connection broke.
    Reset,
    /// The answer is none.
    Answer(AnswerFault),
    /// The connection broke while the request's body was on its way.
    UploadCut,
    /// The server closed an idle connection as a request went out on it.
    ClosedOnReuse,
    /// The server has declared that it did not process the request.
    Unprocessed,
    /// The same, as it ended its connection in an orderly way.
    Leaving,
    /// The response did not begin, or did not continue, within this limit.
    Late(TimeLimit),
    /// The response is too long to be buffered.
    TooLong,
    /// The caller's body is longer than this key of the configuration allows.
    BodyTooLarge(&'static str),
    /// The caller sent its body too slowly for this limit.
    BodyTooSlow(SlowBody),
    /// The caller did not send all of its body.
    BodyCut,
    /// The body was streamed before, and cannot be sent again.
    BodyGone,
    /// The caller's body could not be read, and nothing was sent.
    Unsent(UnsentBody),
    /// The memory for buffered bodies and answers is used up.
    NoMemory,
    /// The answer of a model is none.
    Content(ContentFailure),
}

/// The reason why the answer of a model is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentFailure {
    /// No content came within `timeout.first_token`.
    NoContent,
    /// No further content came within `timeout.gap`.
    Gap,
    /// The stream ended without the mark of its end.
    Truncated,
    /// The stream ended before any content.
    Empty,
    /// The answer is JSON in which there is none.
    NoAnswer,
}

impl ContentFailure {
    /// Returns true if the provider was silent for too long.
    pub(super) fn is_silence(self) -> bool {
        self.limit().is_some()
    }

    /// Returns the limit that was exceeded, if the provider was silent for too long.
    pub(super) fn limit(self) -> Option<TimeLimit> {
        match self {
            Self::NoContent => Some(TimeLimit::FirstToken),
            Self::Gap => Some(TimeLimit::Gap),
            Self::Truncated | Self::Empty | Self::NoAnswer => None,
        }
    }

    fn cause(self) -> &'static str {
        match self {
            Self::NoContent => TimeLimit::FirstToken.name(),
            Self::Gap => TimeLimit::Gap.name(),
            Self::Truncated => "stream truncated",
            Self::Empty => "stream without content",
            Self::NoAnswer => "no answer in it",
        }
    }
}

/// The reason why a caller's body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnsentBody {
    /// It is longer than this key of the configuration allows.
    TooLarge(&'static str),
    /// It came too slowly for this limit.
    TooSlow(SlowBody),
    /// It did not come whole.
    Cut,
}

impl UnsentBody {
    /// Returns the failure that it would be if a part had been sent.
    pub(super) fn failure(self) -> HttpFailure {
        match self {
            Self::TooLarge(key) => HttpFailure::BodyTooLarge(key),
            Self::TooSlow(limit) => HttpFailure::BodyTooSlow(limit),
            Self::Cut => HttpFailure::BodyCut,
        }
    }
}

impl HttpFailure {
    /// Returns the failure of a response with a body that broke off.
    pub(super) fn of_body(error: &(dyn std::error::Error + 'static)) -> Self {
        AnswerFault::of_body(error).map_or(Self::Reset, Self::Answer)
    }

    /// Returns the failure of a body of which nothing was sent.
    pub(super) fn before_sending(self) -> Self {
        match self {
            Self::BodyTooLarge(key) => Self::Unsent(UnsentBody::TooLarge(key)),
            Self::BodyTooSlow(limit) => Self::Unsent(UnsentBody::TooSlow(limit)),
            Self::BodyCut => Self::Unsent(UnsentBody::Cut),
            other => other,
        }
    }

    /// The cause in a few words, for problem documents and events.
    pub(super) fn cause(self) -> &'static str {
        // EDGE-8: each failure says what it was.
        match self {
            Self::Status(_) | Self::Declined => "error status",
            Self::Grpc(code) => grpc::words(code),
            Self::Connect(cause) => cause.words(),
            Self::Reset => "connection reset",
            Self::Answer(fault) => fault.words(),
            Self::UploadCut => "connection reset during the upload",
            Self::ClosedOnReuse => "idle connection closed",
            Self::Unprocessed => "request not processed",
            Self::Leaving => "connection ended before the request",
            Self::Late(limit) => limit.name(),
            Self::TooLong => "response too long",
            Self::BodyTooLarge(key) => key,
            Self::BodyTooSlow(slow) => slow.limit(),
            Self::BodyCut => "request body cut off",
            Self::BodyGone => "request body already sent",
            Self::Unsent(body) => body.failure().cause(),
            Self::NoMemory => "gateway.max_buffered",
            Self::Content(failure) => failure.cause(),
        }
    }
}

/// Contains no address and no part of a message: they may hold secrets.
impl fmt::Display for HttpFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Status(status) => return write!(out, "it answered {status}"),
            Self::Declined => "it answered that it does not know the method",
            Self::Grpc(code) => return write!(out, "it answered with {}", grpc::words(*code)),
            Self::Connect(cause) => return write!(out, "no connection: {cause}"),
            Self::Reset => "the connection broke",
            Self::Answer(fault) => fault.words(),
            Self::UploadCut => "the connection broke while the request's body was on its way",
            Self::ClosedOnReuse => "it closed an idle connection as the request went out on it",
            Self::Unprocessed => "it did not process the request",
            Self::Leaving => "it ended its connection before it processed the request",
            Self::Late(limit) => return write!(out, "no response in time ({limit})"),
            Self::TooLong => "its response is too long to be buffered",
            Self::BodyTooLarge(key) => {
                return write!(out, "the request's body is longer than allowed ({key})");
            }
            Self::BodyTooSlow(slow) => {
                let limit = slow.limit();
                return write!(out, "the request's body came too slowly ({limit})");
            }
            Self::BodyCut => "the request's body was cut off",
            Self::BodyGone => "the request's body was passed on and cannot be sent again",
            Self::Unsent(body) => return body.failure().fmt(out),
            Self::Content(ContentFailure::NoContent) => {
                "no content came in time (timeout.first_token)"
            }
            Self::Content(ContentFailure::Gap) => "no further content came in time (timeout.gap)",
            Self::Content(ContentFailure::Truncated) => "its stream ended without its end",
            Self::Content(ContentFailure::Empty) => "its stream ended before any content",
            Self::Content(ContentFailure::NoAnswer) => "there is no answer in what it sent",
            Self::NoMemory => {
                "gateway.max_buffered is used up: there is no memory to keep the body"
            }
        })
    }
}

impl std::error::Error for HttpFailure {}
