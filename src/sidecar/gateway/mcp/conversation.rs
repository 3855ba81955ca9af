//! The answer of a call: one message, or events once the server says something meanwhile.

use std::future::Future;
use std::pin::Pin;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Response};
use tokio::sync::mpsc;

use super::caller_message::CallerMessage;
use super::caller_session::CallerSession;
use super::caller_stream::CredentialRefusal;
use super::event_body::EventBody;
use super::exchange::event_response;
use super::kept_call::KeptAnswer;
use super::request_check::AcceptedMedia;
use super::rpc_reply::{RequestAnswer, message_response, status_of};
use super::session_response::kept_response;
use crate::mcp::message::{MessageId, answer};
use crate::sidecar::gateway::http::body::ReplyBody;

/// The answer of a call; `None` if the caller has cancelled it, and takes events.
pub(super) type CallAnswer = Pin<Box<dyn Future<Output = Option<RequestAnswer>> + Send>>;

/// The form of an answer.
pub(super) enum CallResponse {
    Whole(Response<ReplyBody>),
    /// The server has said something, or the caller takes nothing but events.
    Events {
        first: Vec<CallerMessage>,
        messages: mpsc::Receiver<CallerMessage>,
        call: KeptAnswer,
    },
}

impl CallResponse {
    /// Gives the response the head of a server's that refuses its caller's own credentials: clients
    /// look for valid ones by it.
    pub(super) fn refused_as(mut self, refusal: Option<&CredentialRefusal>) -> Self {
        if let (Self::Whole(response), Some(refusal)) = (&mut self, refusal) {
            // EDGE-1: the caller gets the server's answer.
            *response.status_mut() = refusal.status;
            if let Some(challenge) = &refusal.challenge {
                let headers = response.headers_mut();
                headers.insert(WWW_AUTHENTICATE, challenge.clone());
            }
        }
        self
    }

    /// Returns the response. `session`: the one in which the call can be taken up again.
    pub(super) fn into_response(
        self,
        headers: &HeaderMap,
        session: Option<&CallerSession>,
    ) -> Response<ReplyBody> {
        let (first, messages, call) = match self {
            Self::Whole(response) => return response,
            Self::Events {
                first,
                messages,
                call,
            } => (first, messages, call),
        };
        match session.and_then(CallerSession::keep_call) {
            Some(kept) => kept_response(&kept, headers, (first, messages, call)),
            None => event_response(EventBody::of_call(first, messages, call)),
        }
    }
}

/// Waits for the answer of a call, or for the first that the server says meanwhile.
pub(super) async fn converse(
    (id, is_newer): (MessageId, bool),
    media: AcceptedMedia,
    mut messages: mpsc::Receiver<CallerMessage>,
    mut call: CallAnswer,
) -> CallResponse {
    let mut first = Vec::new();
    let answered = if media.json {
        tokio::select! {
            biased;
            answered = &mut call => Some(answered),
            Some(message) = messages.recv() => {
                first.push(message);
                None
            }
        }
    } else {
        None
    };
    let Some(answered) = answered else {
        let call = Box::pin(async move {
            let answered = call.await?;
            Some(answer(id.as_json(), answered.as_ref().cloned()))
        });
        return CallResponse::Events {
            first,
            messages,
            call,
        };
    };
    let message = match &answered {
        Some(answered) => {
            let result = answered.as_ref().cloned();
            answer(id.as_json(), result)
        }
        None => {
            // MCP-5: a request that was cancelled has no answer, and its stream ends.
            let none = Box::pin(std::future::ready(None));
            let body = EventBody::of_call(first, messages, none);
            return CallResponse::Whole(event_response(body));
        }
    };
    while let Ok(message) = messages.try_recv() {
        first.push(message);
    }
    if !first.is_empty() {
        // Earlier messages of the server come before its answer.
        let call = Box::pin(std::future::ready(Some(message)));
        return CallResponse::Events {
            first,
            messages,
            call,
        };
    }
    let error = answered
        .as_ref()
        .and_then(|answered| answered.as_ref().err());
    CallResponse::Whole(message_response(status_of(error, is_newer), message))
}
