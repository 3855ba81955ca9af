//! Questions of a server to the user of a session: their progress, their answers and their
//! withdrawal.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::caller_message::CallerMessage;
use super::caller_session::CallerSession;
use crate::mcp::audience::{AnswerFuture, QuestionAsker, ServerQuestion};
use crate::mcp::json_text::{JsonText, MemberEdit, edited, joined};
use crate::mcp::message::{MessageId, RawOutcome, RpcError, code, notification, request};
use crate::mcp::request_meta::{self, PROGRESS_TOKEN};

/// Maximum time for which a notification of a caller waits until its server takes it.
pub(super) const NOTICE_WAIT: Duration = Duration::from_secs(5);

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

    /// Waits until the caller cannot answer any more, since its call is over, or its session.
    async fn left(&self) {
        match self {
            Self::Call(messages) => messages.closed().await,
            Self::Session(session) => session.until_end().await,
        }
    }
}

/// A question that waits for its answer.
pub(super) struct AskedQuestion {
    pub(super) reply: oneshot::Sender<RawOutcome>,
    /// The server that hears of its progress, if it wants to.
    pub(super) progress: Option<QuestionProgress>,
}

/// The way of the progress of a question to the server that has asked it.
#[derive(Clone)]
pub(super) struct QuestionProgress {
    asker: Weak<dyn QuestionAsker>,
    /// The server's own token.
    token: JsonText,
}

impl QuestionProgress {
    /// Returns the way for a question of a server that wants to hear of the progress.
    fn of(question: &ServerQuestion) -> Option<Self> {
        let asker = question.asker.clone()?;
        let mut meta = request_meta::members(question.meta.as_ref()?)?;
        let token = meta.remove(PROGRESS_TOKEN)?;
        // EDGE-4: a part of a message keeps the whole message in memory.
        let token = token.copied();
        Some(Self { asker, token })
    }

    /// Tells the server. `params`: of the caller's notification, with its token.
    pub(super) async fn tell(self, (params, token): (&JsonText, &JsonText)) {
        let Some(asker) = self.asker.upgrade() else {
            return;
        };
        let edit = MemberEdit {
            name: "progressToken",
            present: Some(token),
            value: self.token.into_bytes(),
        };
        let params = JsonText::checked(joined(&edited(params, vec![edit])));
        // The caller's next message, which may be its answer, comes after it. CALL-6: a server that
        // reads nothing keeps no message of its callers.
        if timeout(NOTICE_WAIT, asker.progressed(params))
            .await
            .is_err()
        {
            tracing::debug!("the progress of a question was not taken");
        }
    }
}

/// Asks the caller of a session, which can be asked. Dropping the answer withdraws the question.
pub(super) fn ask(
    session: &Arc<CallerSession>,
    question: ServerQuestion,
    way: QuestionWay,
) -> AnswerFuture {
    let progress = QuestionProgress::of(&question);
    let has_progress = progress.is_some();
    let (asked, answer) = session.begin_ask(progress);
    let params = match has_progress {
        // MCP-5: tokens are ours towards the caller: those of several servers cannot collide.
        true => with_token(&question, asked.id()),
        false => question
            .params
            .clone()
            .map(|params| vec![params.into_bytes()]),
    };
    let method = &question.method;
    let message = request(asked.id().as_json(), method, params);
    if !way.send(message) {
        // MCP-5: nothing is answered in the name of a user that was not asked.
        let error = match way {
            QuestionWay::Call(_) => {
                let text = "its user was not asked: the caller has left, or reads too slowly";
                RpcError::new(code::INTERNAL_ERROR, text)
            }
            QuestionWay::Session(_) => RpcError::method_not_found(method),
        };
        return Box::pin(std::future::ready(Err(error)));
    }
    let withdrawal = QuestionWithdrawal {
        id: asked.id().as_json().into(),
        way: Some(way),
    };
    Box::pin(async move {
        let outcome = tokio::select! {
            biased;
            outcome = answer => outcome.ok(),
            // MCP-5: its server does not wait for a caller that is gone.
            () = withdrawal.caller_left() => None,
        };
        withdrawal.settle();
        drop(asked);
        outcome.unwrap_or_else(|| {
            let text = "the caller left before it answered";
            Err(RpcError::new(code::INTERNAL_ERROR, text))
        })
    })
}

/// Returns the parameters of a question with a token of ours, which is its id.
fn with_token(question: &ServerQuestion, id: &MessageId) -> Option<Vec<Bytes>> {
    let params = question.params.as_ref()?;
    let meta = question.meta.as_ref();
    let mut members = meta.and_then(request_meta::members)?;
    let token = Bytes::copy_from_slice(id.as_json().as_bytes());
    members.insert(PROGRESS_TOKEN.to_owned(), JsonText::checked(token));
    let edit = MemberEdit {
        name: "_meta",
        present: meta,
        value: request_meta::written(&members),
    };
    Some(edited(params, vec![edit]))
}

/// Withdrawal of a question that the server does not ask any more: told when it is dropped.
struct QuestionWithdrawal {
    id: Box<str>,
    way: Option<QuestionWay>,
}

impl QuestionWithdrawal {
    async fn caller_left(&self) {
        match &self.way {
            Some(way) => way.left().await,
            None => std::future::pending().await,
        }
    }

    /// Ends a question that was answered.
    fn settle(mut self) {
        self.way = None;
    }
}

impl Drop for QuestionWithdrawal {
    fn drop(&mut self) {
        if let Some(way) = &self.way {
            let params = format!("{{\"requestId\":{}}}", self.id);
            let params = Some(vec![Bytes::from(params)]);
            // A caller that is gone asks no user.
            way.send(notification("notifications/cancelled", params));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::caller_session::NewSession;
    use super::super::message_history::MessageHistory;
    use super::*;
    use crate::buffer_budget::BufferBudget;

    fn session() -> Arc<CallerSession> {
        let new = NewSession {
            id: "one".into(),
            owner: None,
            capabilities: JsonText::checked(Bytes::from_static(b"{\"elicitation\":{}}")),
            is_own: false,
            group: None,
        };
        CallerSession::new(new, &MessageHistory::new(&BufferBudget::new(1 << 20)))
    }

    fn asked(session: &Arc<CallerSession>, way: QuestionWay) -> AnswerFuture {
        ask(
            session,
            ServerQuestion::new("elicitation/create", None),
            way,
        )
    }

    #[tokio::test]
    async fn mcp_5_a_question_to_a_caller_that_has_left_is_answered_by_an_error() {
        let session = session();
        let (messages, mut stream) = mpsc::channel(4);
        let answer = asked(&session, QuestionWay::Call(messages));
        assert!(stream.recv().await.is_some());
        drop(stream);
        let error = answer.await.unwrap_err();
        assert!(error.message.contains("the caller left"), "{error:?}");
        // The session goes on, and ends while its user is asked by its own stream.
        let _stream = session.open_stream(None);
        let answer = asked(&session, QuestionWay::Session(Arc::clone(&session)));
        session.end();
        let error = answer.await.unwrap_err();
        assert!(error.message.contains("the caller left"), "{error:?}");
    }
}
