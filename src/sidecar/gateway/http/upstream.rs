//! Requests to one HTTP dependency, over connections that one thread keeps.
//!
//! It does no retries (rule LIM-4) and no classification.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING};
use http::{Extensions, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper_util::client::legacy::Client as Negotiated;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::address::UpstreamAddress;
use super::answer_fault::{AnswerFault, DeclinedMethod, FirstBytes, find};
use super::connect_failure::ConnectFailure;
use super::connector::UpstreamConnector;
use super::error::HttpError;
use super::grpc::GrpcRequest;
use super::pool::{self, ConnectionPool, MAX_HEADERS, MAX_READ_AHEAD, PooledBody};
use super::request_body::Upload;
use super::send_mark::{MarkedBody, SendMark};
use super::socket::{SocketHistory, SocketMark};
use super::upgrade;
use crate::lock::LockExt as _;
use crate::sidecar::gateway::headers::{DEADLINE, append_via};
use crate::sidecar::gateway::message::{HttpFailure, HttpRequest};

/// Most of a response by HTTP/2 that is read ahead of its caller.
const STREAM_WINDOW: u32 = 512 * 1024;
/// The same for all streams of a connection: as much as the protocol allows, because each is bounded.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Number of calls that end without an answer, one after the other, while nothing at all comes by their
/// connection, until it is given up. Pings would tell too, but servers of gRPC close a connection on
/// which they come more often than each five minutes.
const UNANSWERED: u32 = 2;

/// Connections to one dependency, kept by one thread.
pub(crate) struct UpstreamClient {
    address: Arc<UpstreamAddress>,
    transport: UpstreamTransport,
}

/// Transport of the requests.
enum UpstreamTransport {
    /// HTTP/1.1, by a pool of our own.
    Plain(ConnectionPool),
    /// HTTP/1.1 or HTTP/2, as negotiated or configured.
    Negotiated(Box<NegotiatedPool>),
}

/// A pool of connections that speak what was negotiated or configured. It is made anew when the time
/// for which idle connections are kept has changed.
struct NegotiatedPool {
    address: Arc<UpstreamAddress>,
    /// The pool, and the time that it keeps.
    present: Mutex<(Arc<NegotiatedClient>, Duration)>,
}

type NegotiatedClient = Negotiated<UpstreamConnector, MarkedBody>;

impl NegotiatedPool {
    fn new(address: Arc<UpstreamAddress>) -> Self {
        let keep = address.keep();
        let present = Mutex::new((Self::client(&address, keep), keep));
        Self { address, present }
    }

    fn client(address: &Arc<UpstreamAddress>, keep: Duration) -> Arc<NegotiatedClient> {
        // If a closing connection returns a request unsent, it is sent on another one: it was never
        // made.
        let client = Negotiated::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(keep)
            .http2_only(address.is_http2)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_max_headers(MAX_HEADERS)
            .http1_max_buf_size(MAX_READ_AHEAD)
            .http2_max_header_list_size(u32::try_from(MAX_READ_AHEAD).unwrap_or(u32::MAX))
            // EDGE-4: callers that do not read hold back their own streams, and no other.
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .build(UpstreamConnector::new(Arc::clone(address)));
        Arc::new(client)
    }

    /// Returns the pool with the present settings. Calls in flight keep their connections.
    fn present(&self) -> Arc<NegotiatedClient> {
        let keep = self.address.keep();
        let mut present = self.present.acquire();
        if present.1 != keep {
            *present = (Self::client(&self.address, keep), keep);
        }
        Arc::clone(&present.0)
    }
}

impl UpstreamClient {
    pub(crate) fn new(address: Arc<UpstreamAddress>) -> Self {
        let transport = if address.is_plain() {
            let connector = UpstreamConnector::new(Arc::clone(&address));
            UpstreamTransport::Plain(ConnectionPool::new(connector, Arc::clone(&address)))
        } else {
            UpstreamTransport::Negotiated(Box::new(NegotiatedPool::new(Arc::clone(&address))))
        };
        Self { address, transport }
    }

    /// Sends a request and waits for the head of its response. `began`: the moment at which the attempt
    /// began; `left`: remaining time of the call. Sets `mark` once a connection has taken the request.
    pub(crate) async fn send(
        &self,
        request: &HttpRequest,
        body: Upload,
        (began, left): (Instant, Option<Duration>),
        mark: &Arc<SendMark>,
    ) -> Result<Response<PooledBody>, HttpError> {
        let trace = body.trace();
        let marked = |body| MarkedBody::new(body, mark);
        let message = self.message(request, marked(body), left);
        let message = message.map_err(|failure| HttpError::of_sending(failure, mark))?;
        // Only what still is ours to send.
        let again = || {
            let message = self.message(request, marked(request.kept_upload()?), left);
            message.ok()
        };
        // CALL-2: the server may have read the request, so that its repetition promises nothing.
        let repeated = || {
            let message = request.may_be_resent().then(&again).flatten();
            message.inspect(|_| mark.repeat())
        };
        let sent = match &self.transport {
            _ if request.asks_upgrade() => {
                let connector = UpstreamConnector::new(Arc::clone(&self.address));
                // On the heap: it is rarely needed.
                let sending = upgrade::send(connector, &self.address, (request, message));
                Box::pin(sending).await
            }
            UpstreamTransport::Plain(pool) => {
                let sent = pool.request(message, began, repeated).await;
                sent.and_then(|response| self.refused_by_proxy(response))
            }
            UpstreamTransport::Negotiated(pool) => {
                let pool = pool.present();
                let send = |message| self.negotiated(&pool, message, began);
                let sent = send(message).await;
                let next = match sent.as_ref().err() {
                    Some(HttpFailure::ClosedOnReuse) => repeated(),
                    // CALL-2: the protocol promises that nothing was done, so the method does not matter.
                    // A stream that was refused began before the server had said how many it takes: by
                    // now it has.
                    Some(HttpFailure::Leaving | HttpFailure::Unprocessed) => again(),
                    _ => None,
                };
                match next {
                    None => sent,
                    Some(message) => match send(message).await {
                        // EDGE-1: a server that leaves the next connection too serves none, as one
                        // does that refuses the request once more.
                        Err(HttpFailure::Leaving) => Err(HttpFailure::Unprocessed),
                        sent => sent,
                    },
                }
            }
        };
        let sent = sent.and_then(framed_once).map(|mut response| {
            let version = response.version();
            append_via(response.headers_mut(), version);
            self.address.lead_back(response.headers_mut());
            if let Some(declined) = DeclinedMethod::of(request.method(), response.status()) {
                response.extensions_mut().insert(declined);
            }
            if let Some(grpc) = GrpcRequest::of(request.headers()) {
                response.extensions_mut().insert(grpc);
            }
            response
        });
        let sent = sent.and_then(|response| upgrade::check(request, response));
        sent.map_err(|failure| {
            let failure = trace.map_or(failure, |trace| trace.blamed(failure));
            HttpError::of_sending(failure, mark)
        })
    }

    /// Sends a request over a connection that speaks what was negotiated or configured.
    async fn negotiated(
        &self,
        pool: &NegotiatedClient,
        mut message: Request<MarkedBody>,
        began: Instant,
    ) -> Result<Response<PooledBody>, HttpFailure> {
        let has_body = !message.body().is_empty();
        let mut shared = SharedRequest {
            captured: capture_connection(&mut message),
            is_answered: false,
        };
        let sent = pool.request(message).await;
        shared.is_answered = true;
        sent.map(|response| response.map(PooledBody::alone))
            .map_err(|error| failure_of(&error, (has_body, self.address.is_http2), began))
    }

    fn message(
        &self,
        request: &HttpRequest,
        body: MarkedBody,
        left: Option<Duration>,
    ) -> Result<Request<MarkedBody>, HttpFailure> {
        let is_empty = body.is_empty();
        let is_unsized = !is_empty && body.size_hint().exact().is_none();
        let mut message = Request::new(body);
        *message.method_mut() = request.method().clone();
        let proxy = self.address.reading_proxy();
        let uri = match &self.transport {
            UpstreamTransport::Plain(_) if proxy.is_none() => self.address.path(request.target()),
            _ => self.address.whole(request.target()),
        };
        *message.uri_mut() = uri.map_err(|_| HttpFailure::Reset)?;
        let headers = message.headers_mut();
        headers.clone_from(request.headers());
        headers.remove(EXPECT);
        let outbound = self.address.outbound.load();
        outbound.apply(headers);
        if is_unsized {
            // EDGE-3: without it, hyper takes a GET for one without a body.
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if is_empty && means_a_body(request.method()) {
            // EDGE-3: HTTP/2 says with the end of its stream that there is none (RFC 9110, section 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        if let Some(left) = left.filter(|_| outbound.is_forwarded) {
            let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            headers.insert(DEADLINE, HeaderValue::from(millis));
        }
        drop(outbound);
        match &self.transport {
            UpstreamTransport::Plain(_) => {
                headers.insert(HOST, self.address.host.clone());
                // Only HTTP/2 allows it without naming it in `Connection`.
                headers.remove(TE);
            }
            UpstreamTransport::Negotiated(_) => {
                // EDGE-3: `te` goes out, since servers of HTTP/2 may insist on it. Named in `Connection`, as
                // a server that chooses HTTP/1.1 could expect it, HTTP/2 would lose it.
                headers.remove(HOST);
            }
        }
        if let Some(credentials) = proxy.and_then(|proxy| proxy.credentials.clone()) {
            headers.insert(PROXY_AUTHORIZATION, credentials);
        }
        Ok(message)
    }

    /// Takes the demand of a proxy for a password for what it is: no connection to the dependency.
    fn refused_by_proxy(
        &self,
        response: Response<PooledBody>,
    ) -> Result<Response<PooledBody>, HttpFailure> {
        let status = response.status();
        let is_refusal = status == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        if is_refusal && self.address.reading_proxy().is_some() {
            return Err(HttpFailure::Connect(ConnectFailure::of_refusal(status)));
        }
        Ok(response)
    }
}

/// Returns the response with one length at most.
///
/// # Errors  It is in a transfer coding that cannot be taken off.
///
/// # Source  RFC 9110, section 8.6; RFC 9112, section 6.1.
fn framed_once(mut response: Response<PooledBody>) -> Result<Response<PooledBody>, HttpFailure> {
    let headers = response.headers_mut();
    let is_known = |line: &HeaderValue| {
        let name = line.as_bytes().trim_ascii();
        name.eq_ignore_ascii_case(b"chunked") || name.eq_ignore_ascii_case(b"identity")
    };
    // EDGE-3: coded bytes would be passed on as the plain body.
    if !headers.get_all(TRANSFER_ENCODING).iter().all(is_known) {
        return Err(HttpFailure::Answer(AnswerFault::Coding));
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next().map(HeaderValue::as_bytes);
    // EDGE-3: equal lengths are one length; others were refused when the head was read.
    let has_list = first.is_some_and(|first| first.contains(&b','));
    if has_list || lengths.next().is_some() {
        let first = first.and_then(|first| first.split(|byte| *byte == b',').next());
        let first = first.map(|first| HeaderValue::from_bytes(first.trim_ascii()));
        if let Some(Ok(length)) = first {
            headers.insert(CONTENT_LENGTH, length);
        }
    }
    Ok(response)
}

/// A request by a connection that others share. At its end it takes an old connection out of the pool;
/// dropped without an answer, perhaps one that is silent.
struct SharedRequest {
    captured: CaptureConnection,
    is_answered: bool,
}

impl Drop for SharedRequest {
    fn drop(&mut self) {
        let connected = self.captured.connection_metadata();
        let Some(connected) = connected.as_ref() else {
            return;
        };
        let mut extras = Extensions::new();
        connected.get_extras(&mut extras);
        let Some(SocketMark(history)) = extras.get() else {
            return;
        };
        // EDGE-1: a connection that has fallen silent is not kept for the next calls.
        let is_silent = !self.is_answered && history.gave_up() >= UNANSWERED;
        if is_silent || history.is_old() {
            connected.poison();
        }
    }
}

/// Returns true for methods that have a body as a rule.
fn means_a_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

/// Returns the failure of a request that got no answer. `is_http2`: HTTP/2 alone is spoken, as
/// configured.
fn failure_of(
    error: &hyper_util::client::legacy::Error,
    (has_body, is_http2): (bool, bool),
    began: Instant,
) -> HttpFailure {
    if error.is_connect() {
        return HttpFailure::Connect(ConnectFailure::of(error));
    }
    if let Some(failure) = unprocessed(error) {
        return failure;
    }
    let Some(connected) = error.connect_info() else {
        // CALL-2: it ended before the request was given a connection.
        return HttpFailure::Connect(ConnectFailure::of(error));
    };
    let is_http2 = is_http2 || connected.is_negotiated_h2();
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    let history = extras.get::<SocketMark>().map(|mark| &mark.0);
    if let Some(refusal) = history.and_then(|history| history.refusal()) {
        return HttpFailure::Connect(refusal);
    }
    // EDGE-8: a server that does not know HTTP/2 says so in its own way, and closes the connection: it
    // was never one to keep.
    if let Some(first) = history.map(|history| history.first_bytes())
        && is_http2
        && let Some(fault) = AnswerFault::in_place_of_http2(first)
    {
        return HttpFailure::Answer(fault);
    }
    match history {
        // EDGE-1: the server closed an idle connection at this moment, which is no failure.
        Some(history) if history.closed_on_reuse(began) => HttpFailure::ClosedOnReuse,
        Some(_) if refused_head(error) => HttpFailure::Answer(AnswerFault::Http2Head),
        Some(history) if speaks_http2(history, error) => {
            if has_body && history.write_failed() {
                HttpFailure::UploadCut
            } else {
                HttpFailure::Reset
            }
        }
        Some(history) => pool::failed(history, has_body, error),
        None => HttpFailure::Reset,
    }
}

/// Returns true for a connection on which HTTP/2 was spoken.
fn speaks_http2(history: &SocketHistory, error: &(dyn Error + 'static)) -> bool {
    history.first_bytes() == FirstBytes::Http2 || find::<h2::Error>(error).is_some()
}

/// Returns true if the head of the response was no valid one, or too long. No interface tells them
/// apart.
fn refused_head(error: &(dyn Error + 'static)) -> bool {
    find::<h2::Error>(error).is_some_and(|error| {
        error.is_reset() && error.is_library() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR)
    })
}

/// Returns the failure if the server has declared that it did not process the request.
///
/// # Source  RFC 9113, sections 6.8 and 8.7.
fn unprocessed(error: &(dyn Error + 'static)) -> Option<HttpFailure> {
    let error = find::<h2::Error>(error).filter(|error| error.is_remote())?;
    match error.reason()? {
        h2::Reason::REFUSED_STREAM => Some(HttpFailure::Unprocessed),
        h2::Reason::NO_ERROR if error.is_go_away() => Some(HttpFailure::Leaving),
        _ => None,
    }
}

impl fmt::Debug for UpstreamClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Upstream").finish_non_exhaustive()
    }
}
