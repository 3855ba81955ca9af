//! The way of a server's words to the caller of one call.

use std::sync::{Arc, Mutex, OnceLock};

use http::{HeaderValue, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::caller_message::{CallerMessage, next_caller, rank_of};
use super::caller_session::CallerSession;
use super::questions::{self, QuestionWay};
use crate::lock::LockExt as _;
use crate::mcp::McpError;
use crate::mcp::audience::{
    AnswerFuture, CallListener, CredentialDigest, ServerNotice, ServerQuestion,
};
use crate::mcp::json_text::JsonText;
use crate::mcp::message::{RawOutcome, RpcError, notification};
use crate::sidecar::gateway::caller_auth::CallerIdentity;
use crate::{AttemptProgress, CallError};

/// Maximum number of messages that wait for a slow caller.
const MAX_WAITING: usize = 256;
/// Places among them for questions to its user, which no burst of other messages may take.
const FOR_QUESTIONS: usize = 16;

/// A question of a server to the user of a call.
pub(super) struct HeldQuestion {
    pub(super) method: Box<str>,
    pub(super) params: Option<JsonText>,
    pub(super) reply: oneshot::Sender<RawOutcome>,
}

/// The refusal of a caller's own credentials by the server.
#[derive(Debug, Clone)]
pub(super) struct CredentialRefusal {
    pub(super) status: StatusCode,
    /// The header `www-authenticate`, which leads a client to valid ones.
    pub(super) challenge: Option<HeaderValue>,
}

impl CredentialRefusal {
    /// Returns the refusal that a call has ended by, if it is one.
    fn of(error: &CallError<McpError>) -> Option<Self> {
        let CallError::Failed {
            error:
                McpError::Auth {
                    status,
                    challenge,
                    is_callers: true,
                    ..
                },
            ..
        } = error
        else {
            return None;
        };
        let challenge = challenge.as_deref();
        Some(Self {
            status: StatusCode::from_u16(*status).ok()?,
            challenge: challenge.and_then(|text| HeaderValue::from_str(text).ok()),
        })
    }
}

/// Calls under the breaker that one call of a caller has made: another one for each answer of its user.
#[derive(Default)]
struct MadeCalls {
    /// Progress of the latest; `None` before the first one.
    latest: Option<AttemptProgress>,
    /// True once an earlier one has sent something.
    has_sent: bool,
}

impl MadeCalls {
    fn is_unsent(&self) -> bool {
        !self.has_sent && self.latest.as_ref().is_none_or(AttemptProgress::is_unsent)
    }
}

/// Caller of one call.
pub(super) struct CallerStream {
    caller: u64,
    /// The caller as it has proved itself; `None` if callers present nothing.
    identity: Option<CallerIdentity>,
    made: Mutex<MadeCalls>,
    messages: Mutex<mpsc::Sender<CallerMessage>>,
    session: Option<Arc<CallerSession>>,
    /// The way of questions to a caller without a session, and its capabilities.
    questions: Option<(mpsc::Sender<HeldQuestion>, JsonText)>,
    /// Rank of the lowest log messages that pass; `None`: none passes.
    level: Option<usize>,
    /// True if the caller takes a stream.
    takes_events: bool,
    refusal: OnceLock<CredentialRefusal>,
}

impl CallerStream {
    /// Creates the stream of a call in a session, or of a caller without one. Log messages pass from
    /// `level` on.
    pub(super) fn new(
        (session, identity): (Option<Arc<CallerSession>>, Option<CallerIdentity>),
        level: Option<usize>,
        takes_events: bool,
    ) -> (Arc<Self>, mpsc::Receiver<CallerMessage>) {
        let (messages, waiting) = mpsc::channel(MAX_WAITING);
        let caller = session
            .as_ref()
            .map_or_else(next_caller, |session| session.number);
        let stream = Self {
            caller,
            identity,
            made: Mutex::default(),
            messages: Mutex::new(messages),
            session,
            questions: None,
            level,
            takes_events,
            refusal: OnceLock::new(),
        };
        (Arc::new(stream), waiting)
    }

    /// Creates the stream of a caller that is asked between two of its requests.
    pub(super) fn of_newer(
        (level, capabilities): (Option<usize>, JsonText),
        identity: Option<CallerIdentity>,
        takes_events: bool,
    ) -> (
        Arc<Self>,
        mpsc::Receiver<CallerMessage>,
        mpsc::Receiver<HeldQuestion>,
    ) {
        let (messages, waiting) = mpsc::channel(MAX_WAITING);
        let (sender, questions) = mpsc::channel(MAX_WAITING);
        let stream = Self {
            caller: next_caller(),
            identity,
            made: Mutex::default(),
            messages: Mutex::new(messages),
            session: None,
            questions: Some((sender, capabilities)),
            level,
            takes_events,
            refusal: OnceLock::new(),
        };
        (Arc::new(stream), waiting, questions)
    }

    /// Notes that a call under the breaker begins.
    pub(super) fn begin_call(&self, progress: &AttemptProgress) {
        let mut made = self.made.acquire();
        made.has_sent = !made.is_unsent();
        made.latest = Some(progress.clone());
    }

    /// Notes the error of the call, which ends it.
    pub(super) fn note_failure(&self, error: &CallError<McpError>) {
        if let Some(refusal) = CredentialRefusal::of(error) {
            // A call ends once.
            let _ = self.refusal.set(refusal);
        }
    }

    /// Returns the refusal of the caller's credentials that has ended the call, if any.
    pub(super) fn refusal(&self) -> Option<&CredentialRefusal> {
        self.refusal.get()
    }

    /// Returns true if nothing of the call has been sent so far: it waits to be admitted, or for its
    /// server to start.
    pub(super) fn is_unsent(&self) -> bool {
        self.made.acquire().is_unsent()
    }

    /// Returns true if the caller takes a stream.
    pub(super) fn takes_events(&self) -> bool {
        self.takes_events
    }

    /// Returns the messages for the next request of the same call.
    pub(super) fn reopened(&self) -> mpsc::Receiver<CallerMessage> {
        let (messages, waiting) = mpsc::channel(MAX_WAITING);
        *self.messages.acquire() = messages;
        waiting
    }

    /// Returns the error of a question that the caller cannot be asked; `None` if it can be asked by
    /// its session.
    pub(super) fn question_refusal(&self, question: &ServerQuestion) -> Option<RpcError> {
        match self.session.as_ref().filter(|_| self.takes_events) {
            Some(session) => question.refused_by(&session.capabilities),
            None => Some(RpcError::method_not_found(&question.method)),
        }
    }
}

/// Asks a caller without a session: its answer comes by another request.
///
/// # Errors  It cannot be asked.
fn ask_between(
    (sender, capabilities): &(mpsc::Sender<HeldQuestion>, JsonText),
    question: ServerQuestion,
) -> Result<AnswerFuture, RpcError> {
    let unknown = RpcError::method_not_found(&question.method);
    if let Some(refusal) = question.refused_by(capabilities) {
        return Err(refusal);
    }
    let (reply, answer) = oneshot::channel();
    let is_question = question.needs.is_some();
    let question = HeldQuestion {
        method: question.method,
        params: question.params,
        reply,
    };
    if !is_question || sender.try_send(question).is_err() {
        return Err(unknown);
    }
    Ok(Box::pin(async move {
        answer.await.unwrap_or_else(|_| {
            let text = "the caller left before it answered";
            Err(RpcError::new(
                crate::mcp::message::code::INTERNAL_ERROR,
                text,
            ))
        })
    }))
}

impl CallListener for CallerStream {
    fn caller(&self) -> u64 {
        self.caller
    }

    fn credentials(&self) -> Option<CredentialDigest> {
        self.identity.map(CallerIdentity::digest)
    }

    fn heard(&self, notice: ServerNotice) {
        let is_wanted = match &*notice.method {
            "notifications/message" => self.level.is_some_and(|level| rank_of(&notice) >= level),
            _ => true,
        };
        if !is_wanted || !self.takes_events {
            return;
        }
        let params = notice.params.map(|params| vec![params.into_bytes()]);
        let message = notification(&notice.method, params);
        let messages = self.messages.acquire();
        // CALL-6: a caller that reads too slowly misses messages, and no memory grows for it.
        if messages.capacity() <= FOR_QUESTIONS || messages.try_send(message).is_err() {
            tracing::debug!("a message of a server was not taken by its caller");
        }
    }

    fn ask(&self, question: ServerQuestion) -> AnswerFuture {
        // MCP-5: nothing is answered in the name of a user that was not asked.
        let unasked = |error| -> AnswerFuture { Box::pin(std::future::ready(Err(error))) };
        if let Some(way) = &self.questions {
            return ask_between(way, question).unwrap_or_else(unasked);
        }
        match (self.session.as_ref(), self.question_refusal(&question)) {
            (Some(session), None) => {
                let way = QuestionWay::Call(self.messages.acquire().clone());
                questions::ask(session, question, way)
            }
            (_, refusal) => {
                let unknown = || RpcError::method_not_found(&question.method);
                unasked(refusal.unwrap_or_else(unknown))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::caller_session::NewSession;
    use super::super::message_history::MessageHistory;
    use super::*;
    use crate::buffer_budget::BufferBudget;

    #[tokio::test]
    async fn mcp_5_a_question_after_a_burst_of_messages_reaches_its_user() {
        let new = NewSession {
            id: "one".into(),
            owner: None,
            capabilities: JsonText::checked(bytes::Bytes::from_static(b"{\"elicitation\":{}}")),
            is_own: false,
            group: None,
        };
        let history = MessageHistory::new(&BufferBudget::new(1 << 20));
        let session = CallerSession::new(new, &history);
        let of = (Some(session), None);
        let (stream, mut messages) = CallerStream::new(of, Some(0), true);
        for _ in 0..1000 {
            stream.heard(ServerNotice::new("notifications/message", None));
        }
        let _asking = stream.ask(ServerQuestion::new("elicitation/create", None));
        let mut last = None;
        while let Ok(message) = messages.try_recv() {
            last = Some(message.concat());
        }
        let last = String::from_utf8(last.unwrap()).unwrap();
        assert!(last.contains("elicitation/create"), "{last}");
    }

    #[test]
    fn call_2_a_call_is_unsent_until_one_of_its_attempts_was_sent() {
        let (stream, _) = CallerStream::new((None, None), None, true);
        assert!(stream.is_unsent(), "before its first attempt");
        let first = AttemptProgress::default();
        first.set_unsent(true);
        stream.begin_call(&first);
        assert!(stream.is_unsent(), "its server starts");
        first.set_unsent(false);
        assert!(!stream.is_unsent());
        first.set_unsent(true);
        assert!(!stream.is_unsent(), "it is tried again");
        let second = AttemptProgress::default();
        second.set_unsent(true);
        stream.begin_call(&second);
        assert!(!stream.is_unsent(), "the first one may have been executed");
    }
}
