//! Requests and messages of a group's callers that concern their sessions.

use std::sync::Arc;

use futures_util::future::join_all;
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::{GroupRequest, McpGroup, description};
use crate::lock::LockExt as _;
use crate::mcp::log_level::{LEVELS, rank};
use crate::mcp::message::{ParamsHead, RawMessage, RpcError, code};
use crate::sidecar::gateway::caller_auth::CallerIdentity;
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::mcp::caller_session::CallerSession;
use crate::sidecar::gateway::mcp::exchange::{not_allowed, options, passes};
use crate::sidecar::gateway::mcp::request_check::{SESSION, check_version};
use crate::sidecar::gateway::mcp::rpc_reply::{empty_response, error_response};
use crate::sidecar::gateway::mcp::session_facts::kept_capabilities;
use crate::sidecar::gateway::mcp::session_response::{
    begun, missed_notices, open_session, session_of,
};

impl McpGroup {
    /// Responds to a request without a message.
    pub(super) fn answer_empty(&self, head: &Parts) -> Response<ReplyBody> {
        match head.method {
            Method::GET => self.open_stream(head),
            Method::DELETE => self.delete(head),
            Method::OPTIONS => options(),
            _ => not_allowed(),
        }
    }

    /// Opens the stream of a session.
    fn open_stream(&self, head: &Parts) -> Response<ReplyBody> {
        if let Err((status, error)) = check_version(&head.headers) {
            return error_response(status, None, &error);
        }
        let session = match session_of(&self.sessions.table, head) {
            Ok(Some(session)) => session,
            Ok(None) => return not_allowed(),
            Err(response) => return *response,
        };
        self.attach(&session);
        open_session(&session, &head.headers, |missed| {
            let members = self.all().into_iter();
            let servers = members.filter_map(|one| one.endpoint.client.description());
            let parts = self.sessions.parts_of(&session);
            let watched = parts
                .iter()
                .flat_map(|(_, part)| part.resources.acquire().uris().clone());
            missed_notices(&servers.collect::<Vec<_>>(), &watched.collect(), missed)
        })
    }

    /// Ends a session.
    fn delete(&self, head: &Parts) -> Response<ReplyBody> {
        let Some(id) = head.headers.get(SESSION) else {
            return not_allowed();
        };
        let (id, caller) = (id.to_str(), CallerIdentity::of_request(head));
        empty_response(match self.sessions.end(id.unwrap_or_default(), caller) {
            true => StatusCode::NO_CONTENT,
            false => StatusCode::NOT_FOUND,
        })
    }

    /// Answers the handshake of the older dialect, and begins a session.
    pub(super) async fn initialize(&self, request: &GroupRequest<'_>) -> Response<ReplyBody> {
        let members = self.descriptions().await;
        let asked = request.read.protocol_version.as_deref();
        let result = description::initialized(&members, asked, &self.name);
        let told = kept_capabilities(request.read.capabilities.as_ref());
        let session = self
            .sessions
            .begin(told, CallerIdentity::of_request(request.head));
        if let Some(session) = &session {
            self.attach(session);
        }
        begun(&request.id, vec![result.into()], session.as_deref())
    }

    /// Lets a session hear the members, also those that have come since.
    pub(super) fn attach(&self, session: &Arc<CallerSession>) {
        for one in self.all() {
            self.sessions.attach(session, &one.endpoint);
        }
    }

    /// Sets the lowest level of log messages of a session, for all members.
    pub(super) fn set_level(&self, request: &GroupRequest<'_>) -> Result<String, RpcError> {
        let level = request.read.level.as_deref();
        let Some(level) = level.filter(|level| rank(level).is_some()) else {
            let text = format!("level is not one of {}", LEVELS.join(", "));
            return Err(RpcError::new(code::INVALID_PARAMS, text));
        };
        if let Some(session) = &request.session {
            session.set_level(level);
            for (endpoint, _) in self.sessions.parts_of(session) {
                endpoint.audience.wish();
            }
        }
        Ok("{}".to_owned())
    }

    /// Takes a notification or an answer of a caller.
    pub(super) async fn take_other(
        &self,
        head: &Parts,
        message: RawMessage,
        read: &ParamsHead,
    ) -> Response<ReplyBody> {
        if let Err((status, error)) = check_version(&head.headers) {
            return error_response(status, None, &error);
        }
        let session = match session_of(&self.sessions.table, head) {
            Ok(session) => session,
            Err(response) => return *response,
        };
        let Some(session) = session else {
            return empty_response(StatusCode::ACCEPTED);
        };
        match message {
            RawMessage::Answer {
                id: Some(id),
                outcome,
            } => {
                let is_asked = session.answer(&id, outcome);
                tracing::debug!(is_asked, "an answer of a caller");
            }
            RawMessage::Notification { method, params } => match (&*method, &read.request_id) {
                ("notifications/cancelled", Some(id)) => session.cancel(id, params.as_ref()),
                ("notifications/progress", _) => session.progressed(read, params).await,
                (method, _) if passes(method) => {
                    let parts = self.sessions.parts_of(&session);
                    let telling = parts.iter().map(|(endpoint, part)| {
                        let own = (method, params.clone());
                        let headers = endpoint.hooks.forwarded(head);
                        endpoint.audience.pass_notice(part, own, headers)
                    });
                    join_all(telling).await;
                }
                _ => {}
            },
            _ => {}
        }
        empty_response(StatusCode::ACCEPTED)
    }
}
