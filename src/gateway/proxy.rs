//! One request of a caller: what it asks, how the runtime has it answered, what the caller gets.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::header::{AGE, CONNECTION, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, sleep};

use breakerbox_policy::Priority;

use super::body::ReplyBody;
use super::cache::Keeping;
use super::dependency::{HttpReply, HttpRequest, of_status};
use super::door::Door;
use super::exchange::{self, Exchange, Piece};
use super::failure::{Failure, HttpError, Said, SaidBody};
use super::headers::{
    ATTEMPTS, DEADLINE, IDEMPOTENCY, KEY, PRIORITY, SOURCE, append_forwarded, strip_one_hop,
};
use super::pool::Arriving;
use super::problem::{Kind, Problem};
use super::route::{Lane, Route, Way};
use super::trace::{AttemptSpan, RequestSpan};
use super::upload::{self, Limits, Passing, Read, Trace, Upload};
use crate::{Answer, CallError, CallOptions, Served, Source, Streamed};

/// How much shorter a slow upload's own limit is than the attempt's: it has to be the first, so
/// that the caller is blamed and not the dependency.
const AHEAD: Duration = Duration::from_millis(10);
/// How long a caller's key may be.
const MAX_KEY: usize = 256;

/// Answers a request, one way or another.
pub(super) async fn answer(
    lane: &Lane,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let is_http2 = request.version() == Version::HTTP_2;
    let span = lane.tracing.begin(&request, peer);
    let (mut response, is_read) = answer_and_read(lane, peer, request, span.as_ref()).await;
    if !is_read && !is_http2 {
        // Nobody may take the rest of this request for another one, nor wait for an answer to it.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    match span {
        Some(span) => span.answered(response),
        None => response,
    }
}

/// Says beside the answer whether all of the request was read.
async fn answer_and_read(
    lane: &Lane,
    peer: SocketAddr,
    request: Request<Incoming>,
    span: Option<&RequestSpan>,
) -> (Response<ReplyBody>, bool) {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let is_empty = body.is_end_stream();
    let path = head.uri.path();
    if path == "/" {
        return (own(list(lane), 0), is_empty);
    }
    let routes = lane.routes.load();
    let found = path.strip_prefix('/').and_then(|path| {
        let name = path.split('/').next()?;
        routes.get(name).map(|way| (way.clone(), name.len()))
    });
    drop(routes);
    let route = match found {
        Some((Way::Http(route), length)) => Some((route, length)),
        Some((Way::Mcp(door), length)) => {
            return Box::pin(through(&door, length, head, body)).await;
        }
        None => None,
    };
    let Some((route, length)) = route else {
        let detail = "the first part of the path is the name of a dependency; / lists them";
        let asked = path.split('/').nth(1);
        let problem = Problem::of(Kind::UNKNOWN, asked, detail);
        return (own(problem.into_response(), 0), is_empty);
    };
    if let Some(span) = span {
        span.concerns(&route.name);
    }
    let call = Call {
        lane,
        route: &route,
        started,
        span,
    };
    match call.terms(&head, length) {
        Ok(terms) => call.make(terms, head, body, peer).await,
        Err(detail) => {
            let problem = Problem::of(Kind::BAD_REQUEST, Some(&route.name), detail);
            let problem = problem.state(route.client.state());
            (own(problem.into_response(), 0), is_empty)
        }
    }
}

/// Answers a request to a server that speaks MCP: it has one path. `length`: of its name.
async fn through(
    door: &Door,
    length: usize,
    head: Parts,
    body: Incoming,
) -> (Response<ReplyBody>, bool) {
    let is_empty = body.is_end_stream();
    if head.uri.path()[1 + length..] == *"/mcp" {
        // The whole of a request is read before it is answered, or it is refused by its head.
        let response = door.answer(head, body).await;
        let is_read = is_empty || response.status().is_success();
        return (response, is_read);
    }
    let name = &door.name;
    let detail = format!("a server that speaks MCP is reached by MCP, at /{name}/mcp");
    let problem = Problem::of(Kind::NO_PATH, Some(name), detail);
    let problem = problem.state(door.client.client().state());
    (own(problem.into_response(), 0), is_empty)
}

/// What the caller wants of the runtime.
struct Terms {
    target: String,
    options: CallOptions,
    is_idempotent: bool,
}

struct Call<'a> {
    lane: &'a Lane,
    route: &'a Arc<Route>,
    started: Instant,
    span: Option<&'a RequestSpan>,
}

impl Call<'_> {
    /// Reads the caller's own words. `length`: of the dependency's name.
    fn terms(&self, head: &Parts, length: usize) -> Result<Terms, &'static str> {
        let path = &head.uri.path()[1 + length..];
        if path.split('/').any(is_dots) {
            return Err("the path has a part . or .., and would lead elsewhere");
        }
        let mut target = if path.is_empty() { "/" } else { path }.to_owned();
        if let Some(query) = head.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        let text = |name: HeaderName| {
            let value = head.headers.get(name);
            value.map(|value| value.to_str().unwrap_or_default().trim())
        };
        let timeout = text(DEADLINE).map(|text| text.parse().map(Duration::from_millis));
        let timeout = timeout.transpose();
        let timeout = timeout.map_err(|_| "breakerbox-deadline-ms is no number of milliseconds")?;
        let priority = match text(PRIORITY) {
            None | Some("normal") => Priority::Normal,
            Some("low") => Priority::Low,
            Some("high") => Priority::High,
            Some(_) => return Err("breakerbox-priority is none of low, normal and high"),
        };
        let key = text(KEY);
        if key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
            return Err("breakerbox-key is not between 1 and 256 letters long");
        }
        let is_idempotent =
            self.route.idempotent.contains(&head.method) || head.headers.contains_key(IDEMPOTENCY);
        Ok(Terms {
            target,
            is_idempotent,
            options: CallOptions {
                timeout,
                priority,
                key: key.map(Arc::from),
                ..CallOptions::default()
            },
        })
    }

    async fn make(
        &self,
        terms: Terms,
        mut head: Parts,
        body: Incoming,
        peer: SocketAddr,
    ) -> (Response<ReplyBody>, bool) {
        let Terms {
            target,
            mut options,
            is_idempotent,
        } = terms;
        let config = self.lane.config.load();
        let limits = Limits {
            max_body: config.max_body,
            max_replay: config.max_replay_body,
            pause: config.body_timeout,
        };
        drop(config);
        let refuse = |failure| {
            let problem = Problem::of_body(failure, &self.route.name);
            let problem = problem.state(self.route.client.state());
            (own(problem.into_response(), 0), false)
        };
        // On the heap, as all that few calls come to: it must not make every call's future larger.
        let (kept, passing) = if body.is_end_stream() {
            (Some(Bytes::new()), None)
        } else {
            match Box::pin(upload::read(body, is_idempotent, limits)).await {
                Ok(Read::Whole(body)) => (Some(body), None),
                Ok(Read::Passing(body)) => (None, Some(body)),
                Err(failure) => return refuse(failure),
            }
        };
        rewrite(&mut head, peer);
        if let Some(span) = self.span {
            span.pass_on(&mut head.headers);
        }
        let may_repeat = is_idempotent && kept.is_some();
        let request = HttpRequest::new((head.method, target), head.headers, kept, may_repeat);
        let own_time = options.timeout.map(|timeout| self.started + timeout);
        let until = self.ends(own_time);
        options.timeout = own_time.map(|end| end.saturating_duration_since(Instant::now()));
        let trace = passing.as_ref().map(Passing::trace);
        let passing = RefCell::new(passing.map(Box::new));
        let attempts = Cell::new(0);
        let open = || {
            attempts.set(attempts.get() + 1);
            let body = request.upload();
            let body = body.or_else(|| passing.borrow_mut().take().map(Upload::Passing));
            self.attempt(&request, body, (attempts.get(), until))
        };
        let by_verdict = |result: Result<&Exchange, &HttpError>| match result {
            Ok(exchange) => of_status(exchange.status, exchange.retry_after),
            Err(error) => error.verdict(),
        };
        let client = &self.route.client;
        let calling = client.stream_or_answer(request.clone(), options, by_verdict, open);
        let served = calling.await;
        let attempts = attempts.get();
        if let Some(span) = self.span {
            span.left(self.route.client.state());
        }
        let response = match served {
            Ok(Served::Stream(stream)) => self.relay(stream, &request, attempts).await,
            Ok(Served::Answer(answer)) => in_one_piece(answer, attempts),
            Err(error) => self.fail(error, attempts),
        };
        (response, trace.is_none_or(|trace| trace.has_ended()))
    }

    /// When the call is over, as the dependency is told.
    fn ends(&self, own: Option<Instant>) -> Option<Instant> {
        let total = self.route.client.settings().timeout.total;
        let total = total.map(|total| self.started + total);
        own.into_iter().chain(total).min()
    }

    /// Sends the request once, and waits for the head of the answer. `number`: of the attempt.
    async fn attempt(
        &self,
        request: &HttpRequest,
        body: Option<Upload>,
        (number, until): (u32, Option<Instant>),
    ) -> Result<Exchange, HttpError> {
        let body = body.ok_or(Failure::BodyGone)?;
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let trace = match &body {
            Upload::Passing(passing) => Some(passing.trace()),
            Upload::Whole(_) => None,
        };
        let settings = self.route.client.settings();
        let limit = || {
            let timeout = settings.timeout;
            let limits = [timeout.first_byte, timeout.attempt, left];
            limits.into_iter().flatten().min()
        };
        let mut span = self.route.attempts.begin(request, number, limit);
        let traced = span.as_ref().map(AttemptSpan::request);
        let request = traced.as_ref().unwrap_or(request);
        let upstream = self.route.upstream(self.lane.number);
        let sending = upstream.send(request, body, left);
        let answered = match trace {
            None => sending.await,
            Some(trace) => Box::pin(or_blame(sending, &trace, limit())).await,
        };
        if let Some(span) = &mut span {
            span.came_to(&answered);
        }
        Exchange::begin(answered?, exchange::by(&settings.classify), span).await
    }

    /// Passes the dependency's own answer on.
    async fn relay(
        &self,
        mut stream: Streamed<Exchange>,
        request: &HttpRequest,
        attempts: u32,
    ) -> Response<ReplyBody> {
        let mut head = match next(&mut stream).await {
            Some(Ok(Piece::Head(head))) => head,
            Some(Err(error)) => return self.fail(error, attempts),
            // An exchange begins with its head.
            Some(Ok(Piece::Frame(_))) | None => Response::new(()).into_parts().0,
        };
        head.version = Version::HTTP_11;
        let is_over = stream.get_ref().is_none_or(Exchange::is_over);
        let length = stream.get_ref().map(Exchange::size_hint);
        let caches = &self.route.caches;
        let mut keeping = if caches.is_empty() {
            None
        } else {
            let client = &self.route.client;
            let seen = (head.status, &head.headers);
            let length = length.map_or(0, |length| length.lower());
            Keeping::begin(client, caches, request, seen, length)
        };
        let body = if is_over {
            // Nobody reads a body that is empty, so nobody would hear how it ended.
            if let Some(Err(error)) = next(&mut stream).await {
                return self.fail(error, attempts);
            }
            if let Some(keeping) = keeping.take() {
                keeping.keep();
            }
            ReplyBody::whole(Bytes::new())
        } else {
            if is_event_stream(&head.headers) {
                stream = stream.long_lived();
            }
            ReplyBody::relayed(stream, keeping)
        };
        signed(Response::from_parts(head, body), &Source::Primary, attempts)
    }

    /// What the caller gets when there was no answer: the dependency's own words if it said any.
    fn fail(&self, error: CallError<HttpError>, attempts: u32) -> Response<ReplyBody> {
        let problem = {
            let problem = Problem::of_call(&error, &self.route.name);
            match &error {
                CallError::Open(refused) => problem.state(refused.state),
                _ => problem.state(self.route.client.state()),
            }
        };
        let Some(said) = said(error) else {
            return own(problem.into_response(), attempts);
        };
        let Said { mut head, body } = *said;
        head.version = Version::HTTP_11;
        let body = match body {
            SaidBody::Whole(body) => ReplyBody::whole(body),
            SaidBody::Rest(body) => {
                let idle = self.route.client.settings().timeout.idle;
                ReplyBody::rest(body, idle)
            }
        };
        signed(Response::from_parts(head, body), &Source::Primary, attempts)
    }
}

/// Waits for an answer while the body of its request is passed on; whoever is waited for at the
/// end of the time, it is the caller's fault or the dependency's.
async fn or_blame(
    sending: impl Future<Output = Result<Response<Arriving>, HttpError>>,
    trace: &Trace,
    limit: Option<Duration>,
) -> Result<Response<Arriving>, HttpError> {
    let mut sending = std::pin::pin!(sending);
    let Some(limit) = limit else {
        return sending.await;
    };
    tokio::select! {
        biased;
        answered = &mut sending => answered,
        () = sleep(limit.saturating_sub(AHEAD)) => {
            if trace.waits() {
                return Err(Failure::BodyTooSlow.into());
            }
            sending.await
        }
    }
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    stream.next().await
}

/// What the dependency said, where its call failed by that.
fn said(error: CallError<HttpError>) -> Option<Box<Said>> {
    match error {
        CallError::Failed { error, .. } => error.said,
        CallError::FallbackFailed { cause, .. } => said(*cause),
        _ => None,
    }
}

/// Makes a caller's head one of ours.
fn rewrite(head: &mut Parts, peer: SocketAddr) {
    let host = match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => head.headers.get(HOST).cloned(),
    };
    let headers = &mut head.headers;
    strip_one_hop(headers);
    for name in [PRIORITY, KEY, DEADLINE] {
        headers.remove(name);
    }
    let host = host.as_ref().and_then(|host| host.to_str().ok());
    append_forwarded(headers, peer, host);
}

/// Whether a part of a path is `.` or `..`, whatever way it is written.
fn is_dots(part: &str) -> bool {
    if part.len() > 6 {
        return false;
    }
    let plain = part.replace("%2e", ".").replace("%2E", ".");
    plain == "." || plain == ".."
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|line| line.to_str().ok());
    media.is_some_and(|media| media.starts_with("text/event-stream"))
}

/// The names of the dependencies, a line each.
fn list(lane: &Lane) -> Response<ReplyBody> {
    let routes = lane.routes.load();
    let mut names: Vec<&str> = routes.keys().map(|name| &**name).collect();
    names.sort_unstable();
    let text: String = names.iter().map(|name| format!("/{name}/\n")).collect();
    let mut response = Response::new(ReplyBody::whole(Bytes::from(text)));
    let media = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

fn in_one_piece(answer: Answer<HttpReply>, attempts: u32) -> Response<ReplyBody> {
    let Answer {
        value, source, age, ..
    } = answer;
    let mut response = Response::new(ReplyBody::whole(value.body));
    *response.status_mut() = value.status;
    *response.headers_mut() = value.headers;
    if let Some(age) = age {
        let age = HeaderValue::from(age.as_secs());
        response.headers_mut().insert(AGE, age);
    }
    signed(response, &source, attempts)
}

/// An answer that is nobody's but ours.
fn own(response: Response<ReplyBody>, attempts: u32) -> Response<ReplyBody> {
    let source = HeaderValue::from_static("gateway");
    with_signs(response, source, attempts)
}

fn signed(response: Response<ReplyBody>, source: &Source, attempts: u32) -> Response<ReplyBody> {
    let source = match source {
        Source::Primary => HeaderValue::from_static("primary"),
        // The names of fallbacks are plain.
        source => HeaderValue::try_from(source.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("fallback")),
    };
    with_signs(response, source, attempts)
}

/// Says who answered, and how often the dependency was asked for it.
fn with_signs(
    mut response: Response<ReplyBody>,
    source: HeaderValue,
    attempts: u32,
) -> Response<ReplyBody> {
    let headers = response.headers_mut();
    headers.insert(SOURCE, source);
    headers.insert(ATTEMPTS, HeaderValue::from(attempts));
    response
}
