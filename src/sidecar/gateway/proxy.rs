//! One request of a caller: reading its options, making the call, and building the response.

mod models;
mod pools;
mod prepared;
mod replies;
mod request_head;
mod substitutes;

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Body as _;
use tokio::time::{Instant, sleep};

use breakerbox_policy::{Class, Symptom};

use self::models::told_to;
use self::prepared::{CallerRequest, PreparedCall};
pub(super) use self::replies::refuse_unencrypted;
use self::replies::{
    cut_off, list, not_there, own, signed, trailers_only, whole_body, without_content,
};
use self::substitutes::SubstituteCalls;
use super::caller_limits::{CallerIsFull, CallerNumber, ConnectedCaller};
use super::cors::PageOrigin;
use super::front;
use super::head_rules::{refuse_trace, screen};
use super::headers::{IDEMPOTENCY, KEY, NamedFields};
use super::http::body::{ReplyBody, RestLimits};
use super::http::cache::CacheWriter;
use super::http::caller_body::CallerBody;
use super::http::error::{ErrorResponse, HttpError, said_by, speaks_of_caller};
use super::http::grpc;
use super::http::model_verdict::{KeyOwner, is_event_stream};
use super::http::pool::PooledBody;
use super::http::request_body::UploadStatus;
use super::http::response_stream::{self, ModelReading, ResponsePiece, ResponseStream};
use super::http::send_mark::SendMark;
use super::http::tunnel::{CallerTunnel, TunnelOrStream};
use super::mcp::call_headers::call_options;
use super::mcp::endpoint::refused_by_protocol;
use super::message::{HttpFailure, HttpRequest, SlowBody};
use super::path::has_dot_segment;
use super::problem::{GatewayProblem, ProblemKind};
use super::ready;
use super::route::{HttpRoute, RouteKind, ThreadContext};
use super::token_limits::HeldTokens;
use super::trace::{AttemptSpan, RequestSpan};
use crate::config::TrustedHeader;
use crate::model::ApiShape;
use crate::{AnswerSource, CallError, CallOptions, Served, Streamed};

/// Difference between the limit of a slow upload and the limit of the attempt. The upload's limit
/// must expire first, so that the caller is blamed and not the dependency.
const AHEAD: Duration = Duration::from_millis(10);

/// Responds to a request in every case.
pub(super) async fn answer(
    lane: &ThreadContext,
    caller: &ConnectedCaller,
    mut request: Request<CallerBody>,
) -> Response<ReplyBody> {
    let is_http2 = request.version() == Version::HTTP_2;
    let grpc = grpc::media_of(request.headers()).cloned();
    let method = request.method().clone();
    let span = lane.tracing.begin(&request, caller.address);
    let access = lane.access.as_ref();
    let mut access =
        access.map(|log| log.begin(&request, |name| lane.routes.load().contains_key(name)));
    let config = lane.config.load();
    let page = PageOrigin::of(request.headers(), &config.origins);
    let places = config.per_caller.places;
    drop(config);
    let (place, (mut response, is_read)) = match caller.enter(places) {
        Ok(place) => {
            if let Some(own) = place.clone() {
                request.extensions_mut().insert(own);
            }
            let answering = answer_and_read(lane, caller, request, span.as_ref());
            (place, answering.await)
        }
        Err(CallerIsFull) => {
            let problem = GatewayProblem::of_caller("gateway.per_caller.places", None);
            let is_empty = request.body().is_end_stream();
            let full = own(problem.into_response(), 0);
            (None, (told_to(lane, request.uri().path(), full), is_empty))
        }
    };
    if !is_read && !is_http2 {
        // The rest of this request must not be read as another request, and the caller must not
        // wait for a response to it.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    if let Some(page) = page {
        page.admit_own(&mut response);
    }
    if is_http2 {
        response = without_content(response, &method);
    }
    let span = span.map(|mut span| {
        span.answered(&response);
        span
    });
    if let Some(media) = grpc {
        response = trailers_only(response, &media);
    }
    if let Some(access) = &mut access {
        access.answered(&response, span.as_ref().and_then(RequestSpan::trace_id));
    }
    if span.is_none() && place.is_none() && access.is_none() {
        return response;
    }
    response.map(|body| body.placed(place).traced(span).logged(access))
}

/// Returns the response, and true if the whole request was read. Callers of a model get problems in
/// the words of its API.
async fn answer_and_read(
    lane: &ThreadContext,
    caller: &ConnectedCaller,
    request: Request<CallerBody>,
    span: Option<&RequestSpan>,
) -> (Response<ReplyBody>, bool) {
    let uri = request.uri().clone();
    // Pinned here: moved into another future, it would be copied.
    let answering = pin!(answer_plainly(lane, caller, request, span));
    let answered = lane.cut.unless_cut(answering).await;
    let (response, is_read) = answered.unwrap_or_else(|| (cut_off(lane, &uri), false));
    (told_to(lane, uri.path(), response), is_read)
}

/// Returns the response, and true if the whole request was read.
async fn answer_plainly(
    lane: &ThreadContext,
    caller: &ConnectedCaller,
    request: Request<CallerBody>,
    span: Option<&RequestSpan>,
) -> (Response<ReplyBody>, bool) {
    let started = Instant::now();
    let (mut head, body) = request.into_parts();
    let is_empty = body.is_end_stream();
    if let Some((response, is_read)) = screen(&mut head, &lane.config.load(), !is_empty) {
        let first = head.uri.path().split('/').nth(1).unwrap_or_default();
        let response = match lane.routes.load().get(first) {
            Some(route) if route.is_mcp() => refused_by_protocol(response),
            _ => response,
        };
        return (own(response, 0), is_read);
    }
    let path = head.uri.path();
    if let Some(name) = ready::dependency_of(path).map(str::to_owned) {
        let response = Box::pin(ready::answer(lane, &mut head, &name)).await;
        return (own(response, 0), is_empty);
    }
    let routes = lane.routes.load();
    let found = path.strip_prefix('/').and_then(|path| {
        let name = path.split('/').next()?;
        routes.get(name).map(|way| (way.clone(), name.len()))
    });
    drop(routes);
    let page = match front::admit(lane, &mut head, found.as_ref()).await {
        Ok(page) => page,
        Err(answer) => return (own(answer, 0), is_empty),
    };
    let path = head.uri.path();
    if path == "/" {
        return (own(list(lane), 0), is_empty);
    }
    if let Some(problem) = refuse_key(lane, caller, &head, found.as_ref()) {
        return (own(problem.into_response(), 0), is_empty);
    }
    let Some((kind, length)) = found else {
        let asked = path.split('/').nth(1);
        let problem = not_there(lane, asked);
        return (own(problem.into_response(), 0), is_empty);
    };
    let peer = caller.address;
    match kind {
        RouteKind::Http(route) => {
            let request = CallerRequest { head, body, peer };
            to_service((lane, span), &route, started, (length, request)).await
        }
        RouteKind::Pool(pool) => {
            let request = CallerRequest { head, body, peer };
            let asked = (length, request);
            Box::pin(pools::answer((lane, span), &pool, started, asked)).await
        }
        way => {
            head.extensions.insert(CallerNumber::of(peer.ip()));
            let mut answered = Box::pin(through(lane, &way, length, (head, body))).await;
            if let Some(page) = page {
                page.admit(&mut answered.0);
            }
            answered
        }
    }
}

/// Responds to a request to an HTTP service or a model. `length`: of its name.
async fn to_service(
    (lane, span): (&ThreadContext, Option<&RequestSpan>),
    route: &Arc<HttpRoute>,
    started: Instant,
    (length, request): (usize, CallerRequest),
) -> (Response<ReplyBody>, bool) {
    let is_empty = request.body.is_end_stream();
    if let Some(span) = span {
        span.concerns(&route.name);
    }
    if request.head.method == Method::TRACE && route.holds_credentials() {
        return (own(refuse_trace(), 0), is_empty);
    }
    let call = ProxiedCall {
        lane,
        route,
        started,
        span,
    };
    match call.terms(&request.head, length) {
        Ok(terms) => call.make(terms, request).await,
        Err(detail) => {
            let problem = GatewayProblem::of(ProblemKind::BAD_REQUEST, Some(&route.name), detail);
            let problem = problem.state(route.client.state());
            (own(problem.into_response(), 0), is_empty)
        }
    }
}

/// Refuses a call with a new key, if its caller has used too many of them.
fn refuse_key<'h>(
    lane: &ThreadContext,
    caller: &ConnectedCaller,
    head: &'h Parts,
    found: Option<&(RouteKind, usize)>,
) -> Option<GatewayProblem<'h>> {
    let (kind, length) = found?;
    let key = head.headers.get(KEY)?.to_str().ok()?;
    let limit = lane.config.load().per_caller.keys?;
    // EDGE-4: one caller cannot take the breakers of all keys.
    if kind.has_key(key.trim()) || caller.may_add_key(limit) {
        return None;
    }
    let name = &head.uri.path()[1..=*length];
    Some(GatewayProblem::of_caller(
        "gateway.per_caller.keys",
        Some(name),
    ))
}

/// Responds to a request to an MCP server or a group, which has one path. `length`: of its name.
async fn through(
    lane: &ThreadContext,
    route: &RouteKind,
    length: usize,
    (head, body): (Parts, CallerBody),
) -> (Response<ReplyBody>, bool) {
    let is_empty = body.is_end_stream();
    let (name, rest) = head.uri.path()[1..].split_at(length);
    if matches!(rest, "/mcp" | "/mcp/") {
        let config = lane.config.load_full();
        let limits = (&*config, &lane.budget);
        match route {
            RouteKind::Mcp(endpoint) => return endpoint.answer(head, body, limits).await,
            RouteKind::Group(group) => return group.answer(head, body, limits).await,
            RouteKind::Http(_) | RouteKind::Pool(_) => {}
        }
    }
    let detail = format!("an MCP server is reached at /{name}/mcp");
    let problem = GatewayProblem::of(ProblemKind::NO_PATH, Some(name), detail);
    let problem = match route {
        RouteKind::Mcp(endpoint) => problem.state(endpoint.client.client().state()),
        _ => problem,
    };
    (own(problem.into_response(), 0), is_empty)
}

/// Options of a request.
struct RequestOptions {
    target: String,
    options: CallOptions,
    is_idempotent: bool,
}

struct ProxiedCall<'a> {
    lane: &'a ThreadContext,
    route: &'a Arc<HttpRoute>,
    started: Instant,
    span: Option<&'a RequestSpan>,
}

impl ProxiedCall<'_> {
    /// Reads the caller's options. `length`: of the dependency's name.
    fn terms(&self, head: &Parts, length: usize) -> Result<RequestOptions, &'static str> {
        let path = &head.uri.path()[1 + length..];
        // EDGE-5: a path goes no further if any server could read it as leading elsewhere.
        if has_dot_segment(path) {
            return Err("the path contains a segment . or .., perhaps encoded");
        }
        let mut target = if path.is_empty() { "/" } else { path }.to_owned();
        if let Some(query) = head.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        let mut options = call_options(&head.headers)?;
        let timeouts = options.timeout.into_iter().chain(self.grpc_timeout(head));
        options.timeout = timeouts.min();
        let is_idempotent =
            self.route.idempotent.contains(&head.method) || head.headers.contains_key(IDEMPOTENCY);
        Ok(RequestOptions {
            target,
            is_idempotent,
            options,
        })
    }

    /// Returns the deadline of a gRPC request, if deadlines are obeyed.
    fn grpc_timeout(&self, head: &Parts) -> Option<Duration> {
        let timeout = grpc::timeout(&head.headers)?;
        let is_obeyed = self
            .lane
            .config
            .load()
            .trust
            .contains(&TrustedHeader::Deadline);
        is_obeyed.then_some(timeout)
    }

    async fn make(
        &self,
        terms: RequestOptions,
        request: CallerRequest,
    ) -> (Response<ReplyBody>, bool) {
        let tail = request.tail();
        let prepared = match self.prepare(terms, request, &[]).await {
            Ok(prepared) => prepared,
            Err(response) => return (response, false),
        };
        let PreparedCall {
            request,
            deferred,
            options,
            own_time,
            until,
            ..
        } = prepared;
        let (request, mut substitutes) = SubstituteCalls::begin(self, request, own_time);
        let attempts = Cell::default();
        let tokens = self.tokens(&request);
        let metered = tokens.as_ref().map(|tokens| tokens.metered.clone());
        let options = CallOptions { metered, ..options };
        // On the heap: the layers above keep several copies of an attempt's future in their own.
        let open = || Box::pin(self.attempt(&request, &attempts, until, tokens.as_ref()));
        let client = &self.route.client;
        // A block of its own: the call's future has its place no longer than this.
        let served = {
            let mut calling = pin!(client.stream_or_answer(
                request.clone(),
                options,
                response_stream::verdict,
                open
            ));
            match &mut substitutes {
                None => calling.await,
                Some(calls) => Box::pin(calls.during(calling.as_mut())).await,
            }
        };
        let attempts = attempts.get();
        if let Some(span) = self.span {
            span.left(self.route.client.state());
        }
        let response = match served {
            Ok(Served::Stream(stream)) => self.relay(stream, &request, attempts).await,
            Ok(Served::Answer(answer)) => {
                Ok(substitutes::answered(&mut substitutes, answer, attempts))
            }
            Err(error) => Err(error),
        };
        let response = response.unwrap_or_else(|error| self.fail(error, (attempts, until)));
        tail.ended(response, deferred).await
    }

    /// Returns the end of the call, as it is told to the dependency.
    fn ends(&self, own: Option<Instant>) -> Option<Instant> {
        let total = self.route.client.settings().timeout.total;
        let total = total.map(|total| self.started + total);
        own.into_iter().chain(total).min()
    }

    /// Sends the request once, and waits for the head of the response. `attempts`: those so far.
    async fn attempt_once(
        &self,
        request: &HttpRequest,
        attempts: &Cell<u32>,
        until: Option<Instant>,
        held: &HeldTokens,
    ) -> Result<ResponseStream, HttpError> {
        let mark = SendMark::begin(request.progress());
        let body = request.upload(None, self.route.target()).await?;
        let number = attempts.get() + 1;
        attempts.set(number);
        let began = Instant::now();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let trace = body.trace();
        let settings = self.route.client.settings();
        let limit = || {
            let timeout = settings.timeout;
            let limits = [timeout.first_byte, timeout.attempt, left];
            limits.into_iter().flatten().min()
        };
        let mut span = self.route.attempts.begin(request, number, limit);
        if let (Some(span), Some((model, operation))) = (&mut span, self.asked_model(request)) {
            span.asks_model(model, operation);
        }
        let traced = span.as_ref().map(AttemptSpan::request);
        let request = traced.as_ref().unwrap_or(request);
        let upstream = self.route.upstream(self.lane.number);
        let sending = upstream.send(request, body, (began, left), &mark);
        let answered = match &trace {
            None => sending.await,
            Some(trace) => Box::pin(or_blame(sending, trace, left)).await,
        };
        if let Some(span) = &mut span {
            span.came_to(
                answered
                    .as_ref()
                    .map(Response::status)
                    .map_err(HttpError::failure),
            );
        }
        if let (Ok(_), Some(trace)) = (&answered, &trace) {
            trace.answered();
        }
        if let Ok(response) = &answered {
            self.note_head(request, response.status(), response.headers());
        }
        // What is read of an error beforehand must not exceed the limits of the attempt.
        // Those of an upload begin at its end.
        if let Some(model) = &self.route.model {
            let reading = ModelReading {
                shape: match request.model_call() {
                    Some(call) => call.shape,
                    None => ApiShape::Other(model.api),
                },
                is_stream: request.model_call().is_some_and(|call| call.is_stream),
                gap: settings.timeout.gap,
                classify: &settings.classify,
                owner: KeyOwner::of(self.route.holds_credentials(), model.keys_by),
                budget: &self.lane.budget,
                for_others: &model.for_others,
                figures: &self.lane.figures,
                dependency: &self.route.name,
                began,
                held,
            };
            return Box::pin(ResponseStream::begin_model(answered?, &reading, span)).await;
        }
        let spent = trace.map_or_else(|| began.elapsed(), |_| Duration::ZERO) + AHEAD;
        let left = limit().map(|limit| limit.saturating_sub(spent));
        let classify = response_stream::by(&settings.classify);
        let ahead = (left, &self.lane.budget);
        ResponseStream::begin(answered?, classify, (span, ahead)).await
    }

    /// Tells the caches of an answer's head.
    fn note_head(&self, request: &HttpRequest, status: StatusCode, headers: &HeaderMap) {
        let settings = self.route.client.settings();
        let class = settings.classify.class_of(Symptom::Status(status.as_u16()));
        let is_failure = matches!(class, Class::Failure | Class::Throttled)
            && !speaks_of_caller(status.as_u16());
        self.route.note(request, (status, headers), is_failure);
    }

    /// Streams the dependency's own response.
    async fn relay(
        &self,
        mut stream: Streamed<ResponseStream>,
        request: &HttpRequest,
        attempts: u32,
    ) -> Result<Response<ReplyBody>, CallError<HttpError>> {
        let mut head = match stream.next().await {
            Some(Ok(ResponsePiece::Head(head))) => head,
            Some(Err(error)) => return Err(error),
            // A response stream begins with its head.
            Some(Ok(ResponsePiece::Frame(_))) | None => Response::new(()).into_parts().0,
        };
        head.version = Version::HTTP_11;
        self.forbid_retries(head.status, &mut head.headers);
        let idle = self.route.client.settings().timeout.idle;
        let mut stream = match CallerTunnel::of(stream, idle) {
            TunnelOrStream::Tunnel(tunnel) => {
                let response = Response::from_parts(head, ReplyBody::tunnel(tunnel));
                return Ok(signed(response, &AnswerSource::Primary, attempts));
            }
            TunnelOrStream::Stream(stream) => stream,
        };
        let is_over = response_stream::has_no_content(request.method(), head.status)
            || stream.get_ref().is_none_or(ResponseStream::is_over);
        let length = stream.get_ref().map(ResponseStream::size_hint);
        let caches = &self.route.caches;
        let is_cut = head.extensions.get::<NamedFields>().is_some();
        let mut keeping = if caches.is_empty() || is_cut {
            None
        } else {
            let memory = &self.route.memory;
            let seen = (head.status, &head.headers);
            let length = length.map_or(0, |length| length.lower());
            CacheWriter::begin(memory, caches, request, seen, length)
        };
        let body = if is_over {
            // An empty body is never polled, so its outcome would not be recorded.
            let trailers = response_stream::end_of(&mut stream).await?;
            if let Some(keeping) = keeping.take() {
                keeping.keep();
            }
            whole_body(Bytes::new(), trailers)
        } else {
            let content = self.content_ending(request, &stream);
            if content.is_some() {
                stream = stream.without_attempt_limit();
            } else if is_event_stream(&head.headers) {
                stream = stream.long_lived();
            } else if stream
                .get_ref()
                .is_some_and(ResponseStream::may_wait_for_caller)
            {
                // EDGE-1: a caller that reads slowly says nothing of the dependency.
                stream = stream.good_from_first();
            }
            ReplyBody::relayed(stream, keeping, content)
        };
        let response = Response::from_parts(head, body);
        Ok(signed(response, &AnswerSource::Primary, attempts))
    }

    /// Builds the response of a failed call: the dependency's own if it sent one. `until`: the end of
    /// the call.
    fn fail(
        &self,
        error: CallError<HttpError>,
        (attempts, until): (u32, Option<Instant>),
    ) -> Response<ReplyBody> {
        let problem = {
            let problem = GatewayProblem::of_call(&error, &self.route.name);
            match &error {
                CallError::Open(refused) => problem.state(refused.state),
                _ => problem.state(self.route.client.state()),
            }
        };
        let Some(said) = said_by(error) else {
            return own(problem.into_response(), attempts);
        };
        let ErrorResponse { mut head, body } = *said;
        head.version = Version::HTTP_11;
        self.forbid_retries(head.status, &mut head.headers);
        // EDGE-4: `idle` and `total` hold for errors too, to their last byte.
        let idle = self.route.client.settings().timeout.idle;
        let body = ReplyBody::failed(body, RestLimits { idle, until });
        signed(
            Response::from_parts(head, body),
            &AnswerSource::Primary,
            attempts,
        )
    }
}

/// Waits for the response while the request body is still streaming. At the end of the call, blames
/// the caller if the upload waits for it, else the dependency.
async fn or_blame(
    sending: impl Future<Output = Result<Response<PooledBody>, HttpError>>,
    trace: &UploadStatus,
    limit: Option<Duration>,
) -> Result<Response<PooledBody>, HttpError> {
    let mut sending = std::pin::pin!(sending);
    let Some(limit) = limit else {
        return sending.await;
    };
    tokio::select! {
        biased;
        answered = &mut sending => answered,
        () = sleep(limit.saturating_sub(AHEAD)) => {
            if trace.waits() {
                return Err(HttpFailure::BodyTooSlow(SlowBody::CallEnd).into());
            }
            sending.await
        }
    }
}
