//! Responses to a session as a whole: its begin, its own stream, and the refusal of an unknown one.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;

use super::caller_message::CallerMessage;
use super::caller_session::CallerSession;
use super::event_body::EventBody;
use super::exchange::event_response;
use super::kept_call::{KeptAnswer, KeptCall};
use super::request_check::{SESSION, VERSION, accepted};
use super::rpc_reply::{empty_response, error_response, message_response};
use super::sessions::SessionTable;
use crate::mcp::dialect::ServerDescription;
use crate::mcp::json_text::JsonText;
use crate::mcp::message::{MessageId, RpcError, answer, code, notification};
use crate::sidecar::gateway::caller_auth::CallerIdentity;
use crate::sidecar::gateway::http::body::ReplyBody;

const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// The first version with callers that take an event without data.
const PRIMED: &str = "2025-11-25";

/// Returns the session that a request names.
///
/// # Errors  There is none of this id, or none any more.
pub(super) fn session_of(
    sessions: &SessionTable,
    head: &Parts,
) -> Result<Option<Arc<CallerSession>>, Box<Response<ReplyBody>>> {
    let Some(id) = head.headers.get(SESSION) else {
        return Ok(None);
    };
    let caller = CallerIdentity::of_request(head);
    if let Some(session) = sessions.find(id.to_str().unwrap_or_default(), caller) {
        return Ok(Some(session));
    }
    let text = "there is no such session; initialize begins a new one";
    let error = RpcError::new(code::INVALID_REQUEST, text);
    let response = error_response(StatusCode::NOT_FOUND, None, &error);
    Err(Box::new(response))
}

/// Builds the response to `initialize`.
pub(super) fn begun(
    id: &MessageId,
    result: CallerMessage,
    session: Option<&CallerSession>,
) -> Response<ReplyBody> {
    let mut response = message_response(StatusCode::OK, answer(id.as_json(), Ok(result)));
    let session = session.and_then(|own| HeaderValue::from_str(&own.id).ok());
    if let Some(session) = session {
        response.headers_mut().insert(SESSION, session);
    }
    response
}

/// Opens the stream of a session, or takes up one of its calls again. `missed`: the notices
/// for a caller that has missed messages of the session.
pub(super) fn open_session(
    session: &CallerSession,
    headers: &HeaderMap,
    missed: impl Fn(u64) -> Vec<CallerMessage>,
) -> Response<ReplyBody> {
    if !accepted(headers).events {
        return empty_response(StatusCode::NOT_ACCEPTABLE);
    }
    let after = match headers.get(LAST_EVENT).map(EventId::read) {
        None => None,
        Some(Some(EventId { call: None, number })) => Some(number),
        Some(Some(EventId {
            call: Some(call),
            number,
        })) => return take_up(session, (call, number)),
        Some(None) => return unknown_event("last-event-id is no id of this session's events"),
    };
    let opened = match session.open_stream(after) {
        Ok(opened) => opened,
        Err(last) => {
            let text = format!(
                "last-event-id names no event of this session's own stream; 0 to {last} are allowed"
            );
            return unknown_event(&text);
        }
    };
    let first = match opened.missed {
        0 => Vec::new(),
        number => missed(number),
    };
    let way = (String::new(), is_primed(headers));
    event_response(EventBody::of_session(opened, way, first))
}

/// Takes up a call after its stream broke off.
fn take_up(session: &CallerSession, (number, after): (u64, u64)) -> Response<ReplyBody> {
    let kept = session.kept_call(number);
    let opened = kept.and_then(|call| call.stream.open(Some(after)).ok());
    match opened.filter(|opened| opened.missed == 0) {
        Some(opened) => {
            let way = (prefix_of(number), false);
            event_response(EventBody::of_session(opened, way, Vec::new()))
        }
        None => unknown_event("the events of this call after last-event-id are not kept"),
    }
}

/// Makes a call of a session in a task of its own, and returns its stream.
pub(super) fn kept_response(
    kept: &Arc<KeptCall>,
    headers: &HeaderMap,
    (first, messages, call): (
        Vec<CallerMessage>,
        mpsc::Receiver<CallerMessage>,
        KeptAnswer,
    ),
) -> Response<ReplyBody> {
    let opened = match kept.stream.open(None) {
        Ok(opened) => opened,
        Err(_) => return unknown_event("the call has no stream"),
    };
    for message in first {
        kept.stream.tell(message);
    }
    drop(tokio::spawn(Arc::clone(kept).run(messages, call)));
    let way = (prefix_of(kept.number), is_primed(headers));
    event_response(EventBody::of_session(opened, way, Vec::new()))
}

fn prefix_of(call: u64) -> String {
    format!("{call}-")
}

/// Returns true if the caller takes an event without data.
fn is_primed(headers: &HeaderMap) -> bool {
    let version = headers.get(VERSION).and_then(|line| line.to_str().ok());
    version.is_some_and(|version| version >= PRIMED)
}

/// MCP-5: no stream pretends to go on after an event that is not known.
fn unknown_event(text: &str) -> Response<ReplyBody> {
    let error = RpcError::new(code::INVALID_REQUEST, text);
    error_response(StatusCode::BAD_REQUEST, None, &error)
}

/// Id of an event.
struct EventId {
    /// The call that has this stream; none for the session's own stream.
    call: Option<u64>,
    number: u64,
}

impl EventId {
    fn read(line: &HeaderValue) -> Option<Self> {
        let text = line.to_str().ok()?.trim();
        let (call, number) = match text.split_once('-') {
            Some((call, number)) => (Some(call.parse().ok()?), number),
            None => (None, text),
        };
        let number = number.parse().ok()?;
        Some(Self { call, number })
    }
}

/// Returns the notices for a caller that has missed messages which are not kept: that it did, and to
/// look again at all that may have changed.
///
/// `servers`: the server, or the members of a group; `resources`: those that the caller watches.
pub(super) fn missed_notices(
    servers: &[Arc<ServerDescription>],
    resources: &BTreeSet<String>,
    number: u64,
) -> Vec<CallerMessage> {
    let tell = |method: &str, params: serde_json::Value| {
        notification(method, Some(vec![JsonText::of(&params).into_bytes()]))
    };
    let has = |capability, property| {
        servers
            .iter()
            .any(|server| server.has(capability, property))
    };
    let mut notices = Vec::new();
    if servers.iter().any(|server| server.can("logging")) {
        let text = format!("{number} messages were missed and are not kept any more");
        let params = json!({ "level": "warning", "logger": "breakerbox", "data": text });
        notices.push(tell("notifications/message", params));
    }
    for list in ["tools", "prompts", "resources"] {
        if has(list, "listChanged") {
            notices.push(tell(
                &format!("notifications/{list}/list_changed"),
                json!({}),
            ));
        }
    }
    for uri in resources {
        notices.push(tell(
            "notifications/resources/updated",
            json!({ "uri": uri }),
        ));
    }
    notices
}
