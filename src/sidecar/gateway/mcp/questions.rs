//! Questions of a server to the user of a session, and their withdrawal.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::caller_message::CallerMessage;
use super::caller_session::CallerSession;
use crate::mcp::audience::AnswerFuture;
use crate::mcp::json_text::JsonText;
use crate::mcp::message::{RpcError, code, notification, request};

/// The way of a question to its caller.
pub(super) enum QuestionWay {
    /// The stream of a call.
    Call(mpsc::Sender<CallerMessage>),
    /// The stream of the session itself.
    Session(Arc<CallerSession>),
}

impl QuestionWay {
    fn send(&self, message: CallerMessage) -> bool {
        match self {
            Self::Call(messages) => messages.try_send(message).is_ok(),
            Self::Session(session) => session.tell_now(message),
        }
    }
}

/// Asks the caller of a session, which can be asked. Dropping the answer withdraws the question.
pub(super) fn ask(
    session: &Arc<CallerSession>,
    (method, params): (&str, Option<JsonText>),
    way: QuestionWay,
) -> AnswerFuture {
    let (asked, answer) = session.begin_ask();
    let params = params.map(|params| vec![params.into_bytes()]);
    let message = request(asked.id().as_json(), method, params);
    if !way.send(message) {
        // MCP-5: nothing is answered in the name of a user that was not asked.
        let error = RpcError::method_not_found(method);
        return Box::pin(std::future::ready(Err(error)));
    }
    let withdrawal = QuestionWithdrawal {
        id: asked.id().as_json().into(),
        way: Some(way),
    };
    Box::pin(async move {
        let outcome = answer.await;
        withdrawal.settle();
        drop(asked);
        outcome.unwrap_or_else(|_| {
            let text = "the caller left before it answered";
            Err(RpcError::new(code::INTERNAL_ERROR, text))
        })
    })
}

/// Withdrawal of a question that the server does not ask any more: told when it is dropped.
struct QuestionWithdrawal {
    id: Box<str>,
    way: Option<QuestionWay>,
}

impl QuestionWithdrawal {
    /// Ends a question that was answered.
    fn settle(mut self) {
        self.way = None;
    }
}

impl Drop for QuestionWithdrawal {
    fn drop(&mut self) {
        if let Some(way) = &self.way {
            let params = format!("{{\"requestId\":{}}}", self.id);
            let params = Some(vec![bytes::Bytes::from(params)]);
            // A caller that is gone asks no user.
            way.send(notification("notifications/cancelled", params));
        }
    }
}
