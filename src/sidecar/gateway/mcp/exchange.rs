//! HTTP exchanges at `/{dependency}/mcp`: one message of a caller, or the stream of its session.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Executed;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio::task::spawn_blocking;

use super::body_reader::{self, BodyFault, MessageLimits, MessageRoom, ReadMessage};
use super::call_headers::call_options;
use super::caller_session::{CallGuard, CallerSession};
use super::caller_stream::CallerStream;
use super::conversation::converse;
use super::dispatch::CallerRequest;
use super::endpoint::McpEndpoint;
use super::event_body::EventBody;
use super::held_calls::{AskingCall, CallTarget};
use super::request_check::{
    CallerDialect, SESSION, accepted, check_params, check_request, check_version,
};
use super::rpc_reply::{
    RequestAnswer, empty_response, error_response, of_end, own_error, refused, status_of,
};
use super::session_response::{begun, missed_notices, open_session, session_of};
use crate::buffer_budget::BufferBudget;
use crate::config::GatewayConfig;
use crate::lock::LockExt as _;
use crate::mcp::JsonText;
use crate::mcp::message::{LARGE, MessageFault, MessageId, ParamsHead, RawMessage, RpcError, code};
use crate::sidecar::gateway::call_note::{CallEnd, CallNote};
use crate::sidecar::gateway::caller_auth::CallerIdentity;
use crate::sidecar::gateway::caller_limits::{CallerNumber, CallerPlace};
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::http::caller_body::CallerBody;
use crate::sidecar::gateway::problem::{GatewayProblem, ProblemKind};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
type FrontResponse = Response<ReplyBody>;

impl McpEndpoint {
    /// Responds to a request to the endpoint. Returns true too if the whole request was read.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        head: Parts,
        body: CallerBody,
        (config, budget): (&GatewayConfig, &BufferBudget),
    ) -> (FrontResponse, bool) {
        let is_empty = hyper::body::Body::is_end_stream(&body);
        match head.method {
            Method::POST => self.post(head, body, (config, budget)).await,
            Method::GET => (self.get(&head), is_empty),
            Method::DELETE => (self.delete(&head), is_empty),
            Method::OPTIONS => (options(), is_empty),
            _ => (not_allowed(), is_empty),
        }
    }

    async fn post(
        self: &Arc<Self>,
        head: Parts,
        body: CallerBody,
        (config, budget): (&GatewayConfig, &BufferBudget),
    ) -> (FrontResponse, bool) {
        if let Err((status, error)) = check_head(&head.headers) {
            return (error_response(status, None, &error), false);
        }
        let max_line = self.client.server_settings().max_line;
        let max_body = usize::try_from(config.max_body).unwrap_or(usize::MAX);
        let limits = MessageLimits {
            size: max_line.min(max_body),
            pause: config.body_timeout,
        };
        let ReadMessage { text, room } = match body_reader::read(body, limits, budget).await {
            Ok(read) => read,
            Err(fault) => return (unread(fault, limits, (&self.name, max_line)), false),
        };
        let read = if text.len() > LARGE {
            // A thread of the gateway serves other callers too.
            let read = spawn_blocking(move || read_message(&text)).await;
            read.unwrap_or_else(|_| Err((None, RpcError::new(code::INTERNAL_ERROR, "not read"))))
        } else {
            read_message(&text)
        };
        let (message, params) = match read {
            Ok(read) => read,
            Err((id, error)) => {
                let id = id.as_ref().map(MessageId::as_json);
                return (error_response(StatusCode::BAD_REQUEST, id, &error), true);
            }
        };
        let response = match message {
            RawMessage::Request {
                id,
                method,
                params: text,
            } => {
                let own = (id, method, text);
                self.take_request(&head, own, (params, room, None)).await
            }
            RawMessage::Notification {
                method,
                params: text,
            } => {
                let own = (&*method, text);
                self.take_notification(&head, own, &params).await
            }
            RawMessage::Answer { id, outcome } => match self.session(&head) {
                Err(response) => *response,
                Ok(session) => {
                    let taken = session.zip(id);
                    if !taken.is_some_and(|(session, id)| session.answer(&id, outcome)) {
                        tracing::debug!("an answer of a caller to no question");
                    }
                    empty_response(StatusCode::ACCEPTED)
                }
            },
        };
        (response, true)
    }

    /// Returns the session that a request names.
    ///
    /// # Errors  There is none of this id, or none any more.
    fn session(&self, head: &Parts) -> Result<Option<Arc<CallerSession>>, Box<FrontResponse>> {
        session_of(&self.audience.sessions, head)
    }

    async fn take_notification(
        &self,
        head: &Parts,
        (method, params): (&str, Option<JsonText>),
        read: &ParamsHead,
    ) -> FrontResponse {
        if let Err((status, error)) = check_version(&head.headers) {
            return error_response(status, None, &error);
        }
        let session = match self.session(head) {
            Ok(session) => session,
            Err(response) => return *response,
        };
        match (method, session, &read.request_id) {
            ("notifications/cancelled", Some(session), Some(id)) => {
                session.cancel(id, params.as_ref());
            }
            ("notifications/progress", Some(session), _) => session.progressed(read, params).await,
            // MCP-5: what is not known here passes too.
            (method, Some(session), _) if passes(method) => {
                let headers = self.hooks.forwarded(head);
                let passing = self
                    .audience
                    .pass_notice(&session, (method, params), headers);
                passing.await;
            }
            _ => {}
        }
        empty_response(StatusCode::ACCEPTED)
    }

    /// Takes a request of a caller, and answers it. `part`: of the session of a group.
    pub(super) async fn take_request(
        self: &Arc<Self>,
        head: &Parts,
        (id, method, text): (MessageId, Box<str>, Option<JsonText>),
        (params, room, part): (ParamsHead, MessageRoom, Option<Arc<CallerSession>>),
    ) -> FrontResponse {
        let note = CallNote::new(&self.name, &method, params.name.as_deref());
        let end = Arc::clone(&note.end);
        let taking = self.take_checked(head, (id, method, text), (params, room, part), end);
        let mut response = taking.await;
        response.extensions_mut().insert(note);
        response
    }

    async fn take_checked(
        self: &Arc<Self>,
        head: &Parts,
        (id, method, text): (MessageId, Box<str>, Option<JsonText>),
        (params, room, part): (ParamsHead, MessageRoom, Option<Arc<CallerSession>>),
        end: Arc<CallEnd>,
    ) -> FrontResponse {
        let refuse = |status, error: &RpcError| error_response(status, Some(id.as_json()), error);
        let dialect = match check_request(&head.headers, &method, &params) {
            Ok(dialect) => dialect,
            Err((status, error)) => return refuse(status, &error),
        };
        let is_newer = matches!(dialect, CallerDialect::Newer { .. });
        let admitted = match self.hooks.admit(&method, params.name.as_deref()) {
            Ok(admitted) => admitted,
            Err(error) => return refuse(status_of(Some(&error), is_newer), &error),
        };
        if &*method == "tools/call" && is_newer {
            let own = admitted.renamed.as_deref().or(params.name.as_deref());
            let marked = own.map(|name| self.client.header_params(name));
            let marked = marked.unwrap_or_default();
            let arguments = params.arguments.as_ref();
            if let Err((status, error)) = check_params(&head.headers, &marked, arguments) {
                return refuse(status, &error);
            }
        }
        let mut options = match call_options(&head.headers) {
            Ok(options) => options,
            Err(text) => {
                let error = RpcError::new(code::INVALID_REQUEST, text);
                return refuse(StatusCode::BAD_REQUEST, &error);
            }
        };
        admitted.apply(&mut options);
        if &*method == "initialize" && !is_newer {
            return match self
                .initialize(&params, (CallerIdentity::of_request(head), options.timeout))
                .await
            {
                Ok((result, session)) => begun(&id, result, session.as_deref()),
                Err(full) => refused(Some(id.as_json()), full.problem(&self.name)),
            };
        }
        let session = match self.session(head) {
            _ if is_newer => None,
            _ if part.is_some() => part,
            Ok(session) => session,
            Err(response) => return *response,
        };
        if &*method == "subscriptions/listen" && is_newer {
            // MCP-1: the changes that a server tells of are known once it has started.
            let _ = self.first_description(options.timeout).await;
            return self.listen(&id, &params);
        }
        let request = CallerRequest {
            id: id.clone(),
            method,
            params: text,
            head: params,
            dialect,
            session,
            options,
            renamed: admitted.renamed,
            forwarded: self.hooks.forwarded(head),
            end,
            cancelled: None,
            _room: room,
        };
        self.begin_call(request, head).await
    }

    /// Begins the call of a request.
    async fn begin_call(
        self: &Arc<Self>,
        mut request: CallerRequest,
        head: &Parts,
    ) -> FrontResponse {
        let (headers, caller) = (&head.headers, CallerIdentity::of_request(head));
        let media = accepted(headers);
        let (id, level) = (request.id.clone(), request.lowest_rank());
        let endpoint = Arc::clone(self);
        if let CallerDialect::Newer { capabilities, .. } = &request.dialect {
            let asked = (&*request.method, &request.head);
            let asking = match self.held.take_up(asked, caller) {
                Some(Err(error)) => {
                    return error_response(StatusCode::OK, Some(id.as_json()), &error);
                }
                Some(Ok(asking)) => {
                    let messages = asking.stream.reopened();
                    (asking, messages)
                }
                None => {
                    let asked = (level, capabilities.clone());
                    let (stream, messages, questions) =
                        CallerStream::of_newer(asked, caller, media.events);
                    let own = Arc::clone(&stream);
                    let target = CallTarget::new(&request.method, &request.head);
                    let call = Box::pin(Arc::clone(self).respond(request, own));
                    let asking = AskingCall {
                        caller,
                        number: CallerNumber::of_request(head),
                        target,
                        call,
                        questions,
                        stream,
                        held: Duration::ZERO,
                    };
                    (asking, messages)
                }
            };
            let (asking, messages) = asking;
            let limit = self.client.server_settings().question_timeout;
            let stream = Arc::clone(&asking.stream);
            let call = Box::pin(async move { Some(endpoint.held.next_of(asking, limit).await) });
            let answering = converse((id, true), media, messages, call).await;
            return answering
                .refused_as(stream.refusal())
                .into_response(headers, None);
        }
        let session = request.session.clone();
        let call_guard = session.as_ref().map(|session| session.begin_call(&id));
        request.cancelled = call_guard.as_ref().map(CallGuard::told);
        let of = (session.clone(), caller);
        let (stream, messages) = CallerStream::new(of, level, media.events);
        let place = CallerPlace::of_request(head);
        let own = Arc::clone(&stream);
        let call = Box::pin(async move {
            let _place = place;
            let answering = Arc::clone(&endpoint).respond(request, Arc::clone(&own));
            match &call_guard {
                None => Some(answering.await),
                Some(guard) => tokio::select! {
                    biased;
                    // MCP-5: the caller does not want the answer any more, even if it is there.
                    is_over = guard.cancelled() => endpoint.ended_by_caller(&own, is_over),
                    answered = answering => Some(answered),
                },
            }
        });
        let answering = converse((id, false), media, messages, call).await;
        answering
            .refused_as(stream.refusal())
            .into_response(headers, session.as_deref())
    }

    /// Returns the answer of a call that its caller has ended, with its session if `is_over`; `None` if it
    /// gets none.
    fn ended_by_caller(&self, stream: &CallerStream, is_over: bool) -> Option<RequestAnswer> {
        let what = match is_over {
            // CALL-1: a caller that has ended its session has cancelled nothing.
            true => "its session has ended",
            false if stream.takes_events() => return None,
            // A response without a body would be none.
            false => "the request was cancelled by its caller",
        };
        // CALL-2: nothing was sent while its process was being started.
        let (executed, work) = match stream.is_unsent() {
            true => (Executed::No, "was not executed"),
            false => (Executed::Maybe, "may have been executed"),
        };
        let text = format!("{what}; the call {work}");
        let end = (ProblemKind::CANCELLED, executed);
        Some(Err(of_end(&self.client, end, text)))
    }

    /// Opens the stream of a subscription in the newer dialect.
    fn listen(self: &Arc<Self>, id: &MessageId, params: &ParamsHead) -> FrontResponse {
        let wanted = params.notifications.as_ref();
        let Some((first, mut stream)) = self.audience.subscribe(id, wanted) else {
            let detail = "there are too many subscriptions".to_owned();
            let full = GatewayProblem::of_room("subscriptions", &self.name, detail);
            return error_response(StatusCode::OK, Some(id.as_json()), &own_error(full));
        };
        let (_, none) = tokio::sync::mpsc::channel(1);
        let messages = std::mem::replace(&mut stream.messages, none);
        let guard = Box::new(stream) as Box<dyn std::any::Any>;
        event_response(EventBody::of_messages(first, messages, guard))
    }

    /// Opens the stream of a session in the older dialect.
    fn get(&self, head: &Parts) -> FrontResponse {
        if let Err((status, error)) = check_version(&head.headers) {
            return error_response(status, None, &error);
        }
        let session = match self.session(head) {
            Ok(session) => session,
            Err(response) => return *response,
        };
        let Some(session) = session else {
            return not_allowed();
        };
        let servers: Vec<_> = self.client.description().into_iter().collect();
        let watched = session.resources.acquire().uris().clone();
        open_session(&session, &head.headers, |missed| {
            missed_notices(&servers, &watched, missed)
        })
    }

    /// Ends a session.
    fn delete(&self, head: &Parts) -> FrontResponse {
        let Some(id) = head.headers.get(SESSION) else {
            return not_allowed();
        };
        let (id, caller) = (id.to_str(), CallerIdentity::of_request(head));
        let is_ended = self.audience.sessions.end(id.unwrap_or_default(), caller);
        self.audience.wish();
        empty_response(if is_ended {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::NOT_FOUND
        })
    }
}

/// Returns true if a notification of a caller is for its server.
///
/// MCP-6: a call without an id is no notification; it would pass the table of tools.
pub(super) fn passes(method: &str) -> bool {
    let is_of_hop = ["notifications/cancelled", "notifications/initialized"].contains(&method);
    method.starts_with("notifications/") && !is_of_hop
}

/// Checks the head of a message before its body is read.
pub(super) fn check_head(headers: &HeaderMap) -> Result<(), (StatusCode, RpcError)> {
    let invalid = |status, text: &str| Err((status, RpcError::new(code::INVALID_REQUEST, text)));
    let media = headers.get(CONTENT_TYPE);
    let media = media.and_then(|line| line.to_str().ok());
    let media = media.and_then(|line| line.split(';').next()).map(str::trim);
    if !media.is_some_and(|media| media.eq_ignore_ascii_case("application/json")) {
        let text = "the content type is not application/json";
        return invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    let accepted = accepted(headers);
    if !accepted.json && !accepted.events {
        let text = "accept names neither application/json nor text/event-stream";
        return invalid(StatusCode::NOT_ACCEPTABLE, text);
    }
    // MCP-5: our headers are read in one way for every kind of dependency.
    match call_options(headers) {
        Ok(_) => Ok(()),
        Err(text) => invalid(StatusCode::BAD_REQUEST, text),
    }
}

/// A message with the head of its parameters, or an error with the id, if it is known.
pub(super) type ReadOutcome = Result<(RawMessage, ParamsHead), (Option<MessageId>, RpcError)>;

pub(super) fn read_message(text: &bytes::Bytes) -> ReadOutcome {
    let trimmed = text.slice_ref(text.trim_ascii());
    let invalid = |id, text: &str| Err((id, RpcError::new(code::INVALID_REQUEST, text)));
    let message = match RawMessage::read(&trimmed) {
        Ok(message) => message,
        Err(MessageFault::Syntax) => {
            let text = "the body is no JSON; one message is allowed";
            return Err((None, RpcError::new(code::PARSE_ERROR, text)));
        }
        Err(MessageFault::Shape(_)) if trimmed.first() == Some(&b'[') => {
            return invalid(None, "a batch is not allowed; one message is");
        }
        Err(MessageFault::Shape(id) | MessageFault::Request(id)) => {
            let text =
                "the body is no message of JSON-RPC 2.0 with an id that is a text or a number";
            return invalid(id, text);
        }
    };
    let (id, params) = match &message {
        RawMessage::Request { id, params, .. } => (Some(id), params.as_ref()),
        RawMessage::Notification { params, .. } => (None, params.as_ref()),
        RawMessage::Answer { .. } => (None, None),
    };
    let head = match params {
        None => ParamsHead::default(),
        Some(params) => match ParamsHead::read(params) {
            Some(head) => head,
            None => {
                let text = "params name a member twice; once is allowed";
                let error = RpcError::new(code::INVALID_PARAMS, text);
                return Err((id.cloned(), error));
            }
        },
    };
    Ok((message, head))
}

/// Builds the response to a body that was not read. `name`: of the endpoint.
pub(super) fn unread(
    fault: BodyFault,
    limits: MessageLimits,
    (name, max_line): (&str, usize),
) -> FrontResponse {
    let (status, text) = match fault {
        BodyFault::TooLong => {
            let size = limits.size;
            let key = if size == max_line {
                "max_line"
            } else {
                "gateway.max_body"
            };
            let text = format!("the body is longer than {key} = {size} bytes");
            (StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        BodyFault::TooSlow => {
            let text = "the body did not come within gateway.body_timeout".to_owned();
            (StatusCode::REQUEST_TIMEOUT, text)
        }
        BodyFault::BrokenOff => {
            let text = "the body broke off".to_owned();
            (StatusCode::BAD_REQUEST, text)
        }
        BodyFault::TooLargeToKeep(most) => {
            let text = format!("the body is longer than gateway.max_buffered = {most} bytes");
            (StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        // MCP-3: the message may be in order, so the error is not one of its caller.
        BodyFault::NoRoom => return refused(None, GatewayProblem::of_memory(name)),
    };
    error_response(status, None, &RpcError::new(code::INVALID_REQUEST, text))
}

pub(super) fn event_response(body: EventBody) -> FrontResponse {
    let mut response = Response::new(ReplyBody::ours(body));
    let headers = response.headers_mut();
    let media = HeaderValue::from_static("text/event-stream");
    headers.insert(CONTENT_TYPE, media);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    response
}

pub(super) fn not_allowed() -> FrontResponse {
    let mut response = empty_response(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

/// Names the methods. Questions of browsers are answered before.
pub(super) fn options() -> FrontResponse {
    let mut response = empty_response(StatusCode::NO_CONTENT);
    response.headers_mut().insert(ALLOW, METHODS);
    response
}
