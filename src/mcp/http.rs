//! Connection to a remote server over streamable HTTP, in both dialects.
//!
//! It sends one message a request, and reads the response with a size limit. It never retries
//! (rule LIM-4).

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::call_table::RequestOutcome;
use super::connection::Connection;
use super::dialect::{Dialect, SELF_CONTAINED_VERSION, routed_name};
use super::error::McpError;
use super::event_stream::{EventReader, StreamEvent};
use super::http_headers::{encoded, param_headers, redirected};
use super::incoming::{IncomingMessage, IncomingText};
use super::liveness::ConnectionEnd;
use super::message::{LARGE, ParamsHead, code};
use super::pieces_body::PiecesBody;
use super::tool_list;
use crate::retry_after;
use crate::unpooled_http::{UnpooledClient, innermost, unpooled_client};
use breakerbox_actors::redact;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// Limits of the wait before a stream is asked for again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Wait before a stream is asked for again, unless the server names one.
const USUAL_AGAIN: Duration = Duration::from_secs(1);
/// Number of times that a broken stream is asked for again without a message in between.
const MAX_AGAIN: u32 = 5;
/// Maximum time for ending a session. A server that does not answer has forgotten it soon.
const GOODBYE: Duration = Duration::from_secs(1);

/// Number of events after which other tasks have a turn.
const TURN_EVENTS: usize = 64;

/// HTTP client for one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct HttpSender {
    client: UnpooledClient<PiecesBody>,
    uri: Uri,
    /// Headers of every request.
    headers: Arc<HeaderMap>,
    /// Maximum size of a message, in bytes.
    max: usize,
    /// Maximum time for connecting, and for taking a message that wants no answer.
    patience: Duration,
}

/// The way of messages to a server over HTTP, for one connection.
pub(super) struct HttpLink {
    sender: HttpSender,
    /// The session that the server has begun.
    session: OnceLock<HeaderValue>,
    /// True once the server was told that the session has ended.
    has_said_goodbye: AtomicBool,
}

impl HttpSender {
    /// Creates a client.
    ///
    /// # Errors  The address is invalid, or TLS cannot be set up.
    pub(super) fn new(
        (url, headers): (&str, HeaderMap),
        connect: Duration,
        max: usize,
    ) -> Result<Self, String> {
        let uri = url.parse().map_err(|_| "its url is not valid".to_owned())?;
        Ok(Self {
            client: unpooled_client(connect)?,
            uri,
            headers: Arc::new(headers),
            max,
            patience: connect,
        })
    }

    /// Returns a client that sends these headers too. Its own take precedence.
    pub(super) fn with(&self, more: &HeaderMap) -> Self {
        let mut headers = more.clone();
        for (name, value) in &*self.headers {
            headers.insert(name, value.clone());
        }
        Self {
            headers: Arc::new(headers),
            ..self.clone()
        }
    }

    async fn send(
        &self,
        method: Method,
        pieces: Vec<Bytes>,
        more: HeaderMap,
    ) -> Result<Response<Incoming>, McpError> {
        let (first, headers) = ((method.clone(), pieces.clone()), more.clone());
        let response = self.send_to(self.uri.clone(), first, headers).await?;
        // CALL-7: nothing was done at the first address.
        match redirected(&self.uri, response.status(), response.headers()) {
            Some(uri) => self.send_to(uri, (method, pieces), more).await,
            None => Ok(response),
        }
    }

    async fn send_to(
        &self,
        uri: Uri,
        (method, pieces): (Method, Vec<Bytes>),
        more: HeaderMap,
    ) -> Result<Response<Incoming>, McpError> {
        let mut request = Request::new(PiecesBody::new(pieces));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        for (name, value) in &*self.headers {
            headers.insert(name, value.clone());
        }
        let accepted = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(ACCEPT, accepted);
        headers.extend(more);
        let answered = self.client.request(request).await;
        answered.map_err(|error| {
            let reason = redact(&innermost(&error)).into_owned();
            if error.is_connect() {
                McpError::Connect { reason }
            } else {
                McpError::closed(reason)
            }
        })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, McpError> {
        match Limited::new(body, self.max).collect().await {
            Ok(read) => Ok(read.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(McpError::too_long(self.max)),
            Err(_) => Err(broke_off()),
        }
    }
}

/// End of a stream of events.
enum StreamEnd {
    Answered(RequestOutcome),
    /// The stream has ended without the answer.
    Broken(EventReader),
}

impl HttpLink {
    pub(super) fn new(sender: HttpSender) -> Self {
        Self {
            sender,
            session: OnceLock::new(),
            has_said_goodbye: AtomicBool::new(false),
        }
    }

    fn has_session(&self) -> bool {
        self.session.get().is_some()
    }

    /// Returns the headers that each request of the connection has.
    fn own_headers(&self, dialect: Option<&Dialect>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(session) = self.session.get() {
            headers.insert(SESSION, session.clone());
        }
        let version = dialect.and_then(|dialect| HeaderValue::from_str(dialect.version()).ok());
        if let Some(version) = version {
            headers.insert(VERSION, version);
        }
        headers
    }

    /// Sends a message that wants no answer.
    pub(super) async fn tell(
        &self,
        dialect: Option<&Dialect>,
        line: Vec<Bytes>,
    ) -> Result<(), McpError> {
        let mut headers = self.own_headers(dialect);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let sending = self.sender.send(Method::POST, line, headers);
        // CALL-6: a server that takes no message, such as a cancellation, keeps no connection open.
        let Ok(sent) = timeout(self.sender.patience, sending).await else {
            return Err(McpError::closed("a message was not taken in time"));
        };
        tracing::trace!(status = sent?.status().as_u16(), "a message was taken");
        Ok(())
    }

    /// Sends a request, and waits for its answer.
    ///
    /// # Cancel safety   Dropping the future closes the stream of the response.
    pub(super) async fn exchange(
        &self,
        connection: &Arc<Connection>,
        (id, method, params): (u64, &str, &ParamsHead),
        line: Vec<Bytes>,
        forwarded: Option<&HeaderMap>,
    ) -> RequestOutcome {
        let dialect = connection.dialect();
        let mut headers = self.own_headers(dialect);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let is_newer =
            dialect.is_some_and(Dialect::is_self_contained) || method == "server/discover";
        if is_newer {
            headers.insert(VERSION, HeaderValue::from_static(SELF_CONTAINED_VERSION));
            let name = routed_name(method, params);
            let own = [(METHOD, Some(method.to_owned())), (NAME, name)];
            for (header, text) in own {
                let value = text.and_then(|text| HeaderValue::try_from(encoded(&text)).ok());
                if let Some(value) = value {
                    headers.insert(header, value);
                }
            }
            headers.extend(param_headers(&connection.state, params));
        }
        for (name, value) in forwarded.into_iter().flatten() {
            headers.append(name, value.clone());
        }
        let response = self.sender.send(Method::POST, line, headers).await?;
        let status = response.status();
        if !status.is_success() {
            return self.refused(connection, id, response).await;
        }
        let (head, body) = response.into_parts();
        if let (true, Some(session)) = (method == "initialize", head.headers.get(SESSION)) {
            // It is set once for each connection.
            let _ = self.session.set(session.clone());
        }
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            if is_newer {
                // MCP-3: this dialect has no other stream, so no answer will come.
                let reason = format!("status {} has none", status.as_u16());
                return Err(McpError::unusable(reason));
            }
            // The server may answer later, on another stream; else the limits of time apply.
            return self.elsewhere(connection, id).await;
        }
        if is_media(&head.headers, EVENTS) {
            return self.by_events(connection, id, body).await;
        }
        if !is_media(&head.headers, JSON) {
            let media = head.headers.get(CONTENT_TYPE);
            let media = media.map(|media| String::from_utf8_lossy(media.as_bytes()).into_owned());
            return Err(McpError::UnexpectedContentType(media));
        }
        let body = self.sender.read(body).await?;
        let mut found = Err(McpError::unusable("its response is not a message"));
        for message in read(body).await.into_messages() {
            match message {
                IncomingMessage::Answer(Some(of), outcome) if of.number() == Some(id) => {
                    connection.liveness.answered();
                    return outcome;
                }
                // MCP-3: it answers this request, as the only one of the exchange.
                IncomingMessage::Answer(None, Err(error)) => found = Err(error),
                IncomingMessage::Answer(..) => {
                    connection.liveness.answered();
                    found = Err(McpError::unusable("it has the id of another call"));
                }
                // MCP-5: in a list, what the server says stands before its answer.
                message => connection.take(message, Some(id)),
            }
        }
        found
    }

    /// Waits for an answer that does not come by the response.
    async fn elsewhere(&self, connection: &Arc<Connection>, id: u64) -> RequestOutcome {
        let (reply, answer) = tokio::sync::oneshot::channel();
        connection.calls.await_elsewhere(id, reply);
        let ended = |_| Err(McpError::closed("it ended before its response"));
        answer.await.unwrap_or_else(ended)
    }

    async fn by_events(
        &self,
        connection: &Arc<Connection>,
        id: u64,
        body: Incoming,
    ) -> RequestOutcome {
        let mut events = EventReader::new(self.sender.max);
        let mut body = Some(body);
        let mut failures = 0;
        loop {
            let before = events.last_id.clone();
            if let Some(body) = body.take() {
                match self.follow(connection, Some(id), body, events).await {
                    StreamEnd::Answered(outcome) => return outcome,
                    StreamEnd::Broken(ended) => events = ended,
                }
            }
            failures = if events.last_id == before {
                failures + 1
            } else {
                0
            };
            let Some(last) = events.last_id.clone().filter(|_| failures < MAX_AGAIN) else {
                return Err(broke_off());
            };
            sleep(pause(&events, failures)).await;
            body = self.again(connection, &last).await?;
        }
    }

    /// Asks for the rest of a stream that ended early; `None` if the server cannot be asked now.
    ///
    /// # Errors  There is no rest.
    async fn again(
        &self,
        connection: &Arc<Connection>,
        last: &str,
    ) -> Result<Option<Incoming>, McpError> {
        let mut headers = self.own_headers(connection.dialect());
        if let Ok(last) = HeaderValue::from_str(last) {
            headers.insert(LAST_EVENT, last);
        }
        match self.sender.send(Method::GET, Vec::new(), headers).await {
            Ok(response) if response.status().is_server_error() => Ok(None),
            Ok(response)
                if response.status().is_success() && is_media(response.headers(), EVENTS) =>
            {
                Ok(Some(response.into_body()))
            }
            Ok(_) => Err(broke_off()),
            // CALL-2: a server that is not reached here may have done the work all the same.
            Err(_) => Ok(None),
        }
    }

    /// Reads a stream of events until the answer to `id`, or to its end.
    async fn follow(
        &self,
        connection: &Arc<Connection>,
        id: Option<u64>,
        mut body: Incoming,
        mut events: EventReader,
    ) -> StreamEnd {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(part) = frame.into_data() else {
                continue;
            };
            if events.overflows(&part) {
                // MCP-2: the thread is shared with breakers and supervisors.
                let feeding = spawn_blocking(move || {
                    events.feed(&part);
                    events
                });
                let Ok(fed) = feeding.await else {
                    return StreamEnd::Broken(EventReader::new(self.sender.max));
                };
                events = fed;
            } else {
                events.feed(&part);
            }
            let mut number: usize = 0;
            while let Some(event) = events.next() {
                number += 1;
                if number.is_multiple_of(TURN_EVENTS) {
                    // CALL-9: one server's events delay no call of another one.
                    tokio::task::yield_now().await;
                }
                let outcome = self.taken(connection, id, event).await;
                if let Some(outcome) = outcome {
                    return StreamEnd::Answered(outcome);
                }
            }
        }
        StreamEnd::Broken(events)
    }

    /// Takes an event. Returns the outcome if it answers `id`.
    async fn taken(
        &self,
        connection: &Arc<Connection>,
        id: Option<u64>,
        event: StreamEvent,
    ) -> Option<RequestOutcome> {
        let messages = match event {
            StreamEvent::TooLong(found) => IncomingMessage::too_long(found, self.sender.max),
            // An event without data keeps the stream open, and so does one of another type.
            StreamEvent::Data(data) if data.trim_ascii().is_empty() => return None,
            StreamEvent::Other(data) => read(data).await.into_messages(),
            StreamEvent::Data(data) => {
                let is_json = data.trim_ascii().starts_with(b"{");
                match read(data).await {
                    IncomingText::Stray if !is_json => {
                        let error = McpError::unusable("an event is not a message");
                        return id.map(|_| Err(error));
                    }
                    read => read.into_messages(),
                }
            }
        };
        if connection.is_asked() {
            // The tasks that answer come before further questions.
            tokio::task::yield_now().await;
        }
        let mut answer = None;
        for message in messages {
            match (message, id) {
                (IncomingMessage::Answer(Some(of), outcome), Some(id))
                    if of.number() == Some(id) =>
                {
                    connection.liveness.answered();
                    answer = answer.or(Some(outcome));
                }
                // MCP-3: the stream is that of one request. A message that is too long may be no answer.
                (IncomingMessage::Answer(None, Err(error @ McpError::Server { .. })), Some(_)) => {
                    connection.liveness.answered();
                    answer = answer.or(Some(Err(error)));
                }
                (message, _) => connection.take(message, id),
            }
        }
        answer
    }

    /// Handles a response that is not a success.
    async fn refused(
        &self,
        connection: &Arc<Connection>,
        asked: u64,
        response: Response<Incoming>,
    ) -> RequestOutcome {
        let status = response.status();
        let number = status.as_u16();
        let headers = response.headers().clone();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let challenges = headers.get_all(WWW_AUTHENTICATE).iter();
            let challenges: Vec<&str> = challenges.filter_map(|one| one.to_str().ok()).collect();
            return Err(McpError::Auth {
                status: number,
                challenge: (!challenges.is_empty()).then(|| challenges.join(", ")),
                is_callers: false,
            });
        }
        let by_status = McpError::Http {
            status: number,
            retry_after: retry_after::read(number, &headers, None),
        };
        let is_message = is_media(&headers, JSON) && status != StatusCode::TOO_MANY_REQUESTS;
        let mut answer = None;
        if is_message {
            let body = self.sender.read(response.into_body()).await?;
            if let IncomingText::One(IncomingMessage::Answer(id, Err(error))) = read(body).await
                && let McpError::Server { code, .. } = &error
            {
                // MCP-3: a 400 to this call, and a 404 of a method or a resource, say nothing of the session.
                let is_ours = id.and_then(|id| id.number()) == Some(asked);
                let is_of_call = status != StatusCode::NOT_FOUND
                    || [code::METHOD_NOT_FOUND, code::RESOURCE_NOT_FOUND].contains(code);
                answer = Some((error.with_status(number), is_ours && is_of_call));
            }
        }
        let is_of_call = answer.as_ref().is_some_and(|(_, is_of_call)| *is_of_call);
        let may_be_forgotten = matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST);
        if may_be_forgotten && self.has_session() && !is_of_call {
            // MCP-1: servers that were started anew answer so, some of them without a message.
            connection.expire(Some(asked));
            if status == StatusCode::NOT_FOUND {
                return Err(by_status);
            }
        }
        // EDGE-8: the words tell what was wrong.
        Err(answer.map_or(by_status, |(error, _)| error))
    }

    /// Hears the messages of a session that belong to no request, as long as it lives. A server that
    /// has no such stream says so by 405; every other end may pass.
    pub(super) async fn listen(&self, connection: &Arc<Connection>) {
        let mut events = EventReader::new(self.sender.max);
        // Failures to reach the server, and streams that ended at once, each in a row.
        let (mut failures, mut short) = (0_u32, 0_u32);
        let mut has_listened = false;
        while connection.liveness.end() == ConnectionEnd::None {
            let mut headers = self.own_headers(connection.dialect());
            let last = events.last_id.as_deref();
            if let Some(Ok(last)) = last.map(HeaderValue::from_str) {
                headers.insert(LAST_EVENT, last);
            }
            match self.sender.send(Method::GET, Vec::new(), headers).await {
                Ok(response)
                    if response.status().is_success() && is_media(response.headers(), EVENTS) =>
                {
                    if has_listened && events.last_id.is_none() {
                        // MCP-5: what was said in between is not said again.
                        tool_list::catch_up(connection, failures > 0).await;
                    }
                    (failures, has_listened) = (0, true);
                    let (began, before) = (Instant::now(), events.last_id.clone());
                    let body = response.into_body();
                    match self.follow(connection, None, body, events).await {
                        StreamEnd::Broken(ended) => events = ended,
                        StreamEnd::Answered(_) => return,
                    }
                    // CALL-6: a host that cuts each stream is not asked without end. One that names
                    // an event means its caller to come back.
                    let is_short = began.elapsed() < AGAIN.1 && events.last_id == before;
                    short = if is_short { short + 1 } else { 0 };
                }
                Ok(response) if response.status() == StatusCode::METHOD_NOT_ALLOWED => return,
                Ok(response)
                    if response.status() == StatusCode::NOT_FOUND && self.has_session() =>
                {
                    // It has forgotten the session: the next call begins another one.
                    return connection.expire(None);
                }
                _ => failures += 1,
            }
            sleep(pause(&events, failures.max(short))).await;
        }
    }

    /// Returns the work that ends the session at the server; `None` if there is none, or if that was
    /// done.
    pub(super) fn goodbye(
        &self,
        dialect: Option<&Dialect>,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        if !self.has_session() || self.has_said_goodbye.swap(true, Ordering::Relaxed) {
            return None;
        }
        let (sender, headers) = (self.sender.clone(), self.own_headers(dialect));
        Some(async move {
            let ending = sender.send(Method::DELETE, Vec::new(), headers);
            if !matches!(timeout(GOODBYE, ending).await, Ok(Ok(_))) {
                tracing::debug!("a session did not end in an orderly way");
            }
        })
    }
}

/// Returns the error of a response that ended early: its request may have been executed.
fn broke_off() -> McpError {
    McpError::closed("its response broke off")
}

/// Returns the wait before a stream is asked for again, after so many failures in a row.
fn pause(events: &EventReader, failures: u32) -> Duration {
    let (least, most) = AGAIN;
    let usual = events.retry.unwrap_or(USUAL_AGAIN).max(least);
    usual.saturating_mul(1 << failures.min(5)).min(most)
}

/// Reads a message, apart from this thread if it is large.
async fn read(body: Bytes) -> IncomingText {
    if body.len() <= LARGE {
        return IncomingText::read(&body);
    }
    // MCP-2: the thread is shared with breakers and supervisors.
    let read = spawn_blocking(move || IncomingText::read(&body)).await;
    read.unwrap_or(IncomingText::Stray)
}

fn is_media(headers: &HeaderMap, media: &str) -> bool {
    let line = headers
        .get(CONTENT_TYPE)
        .and_then(|line| line.to_str().ok());
    let own = line.and_then(|line| line.split(';').next());
    own.is_some_and(|own| own.trim().eq_ignore_ascii_case(media))
}
