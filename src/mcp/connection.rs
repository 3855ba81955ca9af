//! One connection to a server: requests with ids of ours, their answers, and the server's own
//! messages on their way to the callers.
//!
//! It starts and replaces nothing: it only tells that it has ended.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use breakerbox_actors::ProgressHold;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::audience::{
    AnswerFuture, CallListener, CallSide, QuestionAsker, ServerNotice, ServerQuestion,
    SessionOwner, TellFuture, several_callers, unanswered,
};
use super::call_table::{self, CallTable, RelatedCaller, RequestOutcome};
use super::dialect::Dialect;
use super::error::McpError;
use super::http::HttpLink;
use super::incoming::IncomingMessage;
use super::json_text::JsonText;
use super::liveness::{ConnectionEnd, Liveness, WantedSign};
use super::message::{self, LARGE, MessageId, RawOutcome, RpcError};
use super::request_meta::{self, OutgoingParams};
use super::server_state::ServerState;
use super::standing::ToldWishes;
use super::tool_list::{self, PendingList};
use crate::lock::LockExt as _;

/// Maximum duration of any call, even if the settings have no limit.
const LONGEST: Duration = Duration::from_secs(600);
/// Time for an answer that is there already.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Maximum number of requests of the server that wait for answers at once.
const MAX_ASKED: usize = 64;
/// Maximum number of answers to requests of the server that wait until it reads them.
const MAX_UNSENT: usize = 4 * MAX_ASKED;

/// The lines that are waiting to be written.
pub(super) type LineSender = mpsc::Sender<Vec<Bytes>>;

/// The way of messages to the server.
pub(super) enum Link {
    /// The standard input of a process. Dropping the sender closes it.
    Pipe(Mutex<Option<LineSender>>),
    /// One HTTP request for each message.
    Http(Box<HttpLink>),
}

/// A connection.
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) calls: CallTable,
    pub(super) liveness: Arc<Liveness>,
    pub(super) state: Arc<ServerState>,
    dialect: OnceLock<Dialect>,
    /// The server's own requests, until they are answered.
    asked: Mutex<HashMap<MessageId, AbortHandle>>,
    /// Number of answers that the server has not taken yet.
    unsent: AtomicUsize,
    /// The session that it serves alone.
    owner: Option<Weak<dyn SessionOwner>>,
    /// The wishes of its callers, as its server was told them.
    pub(super) told: ToldWishes,
    pub(super) listing: PendingList,
}

impl Connection {
    /// Creates a connection. `owner`: the session that it serves alone; else it serves all callers.
    pub(super) fn new(
        link: Link,
        liveness: Arc<Liveness>,
        state: &Arc<ServerState>,
        owner: Option<&Arc<dyn SessionOwner>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            link,
            calls: CallTable::default(),
            liveness,
            state: Arc::clone(state),
            dialect: OnceLock::new(),
            asked: Mutex::default(),
            unsent: AtomicUsize::new(0),
            owner: owner.map(Arc::downgrade),
            told: ToldWishes::default(),
            listing: PendingList::default(),
        })
    }

    /// Returns true if it serves one session alone.
    pub(super) fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    /// Returns the session that it serves alone, while there is one.
    pub(super) fn owner(&self) -> Option<Arc<dyn SessionOwner>> {
        self.owner.as_ref()?.upgrade()
    }

    /// Passes a notification on that belongs to no call.
    pub(super) fn tell_callers(&self, notice: ServerNotice) {
        if &*notice.method == "notifications/subscriptions/acknowledged" {
            // It answers our own subscription.
            return self.told.acknowledge();
        }
        // MCP-5: the subscription is ours, and so is its id.
        let notice = notice.without_subscription();
        if !self.is_owned() {
            self.state.tell_audience(notice);
        } else if let Some(owner) = self.owner() {
            // MCP-5: messages of a session's process reach its caller and no other.
            owner.heard(notice);
        }
    }

    /// Passes a notification on that may belong to a call of any of several callers.
    fn tell_some(&self, notice: ServerNotice) {
        // MCP-6: what may be of one caller's call reaches no caller with other credentials.
        match self.calls.credentials() {
            Some(only_for) => self.tell_callers(ServerNotice { only_for, ..notice }),
            None => tracing::debug!(
                method = &*notice.method,
                "a notification for an unknown caller"
            ),
        }
    }

    /// Sets the dialect of later requests. The first one stays.
    pub(super) fn agree(&self, dialect: Dialect) {
        // It is set once for each connection.
        let _ = self.dialect.set(dialect);
    }

    pub(super) fn dialect(&self) -> Option<&Dialect> {
        self.dialect.get()
    }

    /// Ends the connection, since the server has forgotten its session. `of`: the request that the
    /// server refused for it.
    pub(super) fn expire(&self, of: Option<u64>) {
        if let Some(of) = of {
            self.calls.note_forgotten(of);
        }
        self.liveness.close(None);
    }

    /// Sends a request, and waits for its result for as long as any call may take.
    ///
    /// # Errors  [`McpError`].
    /// # Cancel safety   Dropping the future notifies the server of the cancellation.
    pub(super) async fn ask(
        self: &Arc<Self>,
        method: &str,
        params: Option<JsonText>,
        side: CallSide,
    ) -> RequestOutcome {
        let asked = self.ask_long(method, params, side);
        let answered = timeout(LONGEST, asked).await;
        answered.unwrap_or(Err(McpError::Silent(LONGEST)))
    }

    /// Sends a request of the handshake, of which no cancellation is told.
    pub(super) async fn ask_plain(
        self: &Arc<Self>,
        method: &str,
        params: Option<JsonText>,
        side: CallSide,
    ) -> RequestOutcome {
        self.exchange(method, params, side, false).await
    }

    /// Sends a request, and waits for its result without a limit.
    ///
    /// # Errors  As [`Connection::ask`].
    /// # Cancel safety   As [`Connection::ask`].
    pub(super) async fn ask_long(
        self: &Arc<Self>,
        method: &str,
        params: Option<JsonText>,
        side: CallSide,
    ) -> RequestOutcome {
        self.exchange(method, params, side, true).await
    }

    async fn exchange(
        self: &Arc<Self>,
        method: &str,
        params: Option<JsonText>,
        side: CallSide,
        is_cancellable: bool,
    ) -> RequestOutcome {
        if self.liveness.end() != ConnectionEnd::None {
            return Err(McpError::Ended {
                reason: "it has just ended".to_owned(),
                is_process: matches!(self.link, Link::Pipe(_)),
            });
        }
        let id = self.calls.next_id();
        let outgoing = self.outgoing(params, id, &side).await?;
        let line = message::request(&id.to_string(), method, outgoing.pieces);
        self.check_length(&line)?;
        let mut guard = RequestGuard {
            connection: Arc::downgrade(self),
            id,
            is_cancellable,
            is_sent: false,
        };
        match &self.link {
            Link::Pipe(sender) => {
                let (reply, answer) = oneshot::channel();
                self.calls.insert(id, Some(reply), (side, outgoing.token));
                let sender = sender.acquire().clone();
                let sent = match sender {
                    Some(sender) => sender.send(line).await.is_ok(),
                    None => false,
                };
                if !sent {
                    return Err(self.refined(McpError::closed("it ended before the request")));
                }
                guard.is_sent = true;
                let ended = || McpError::closed("it ended before its response");
                let outcome = answer.await.unwrap_or_else(|_| Err(ended()));
                outcome.map_err(|error| self.refined(error))
            }
            Link::Http(http) => {
                let headers = side.headers.clone();
                self.calls.insert(id, None, (side, outgoing.token));
                guard.is_sent = true;
                let asked = (id, method, &outgoing.head);
                let outcome = http.exchange(self, asked, line, headers.as_deref()).await;
                self.calls.end(id);
                outcome.map_err(|error| self.refined(error))
            }
        }
    }

    /// Prepares parameters, apart from this thread if they are large.
    async fn outgoing(
        &self,
        params: Option<JsonText>,
        id: u64,
        side: &CallSide,
    ) -> Result<OutgoingParams, McpError> {
        let size = params.as_ref().map_or(0, |params| params.bytes().len());
        if size <= LARGE {
            return request_meta::outgoing(self.dialect(), params.as_ref(), id, side);
        }
        // MCP-2: the thread is shared with breakers and supervisors.
        let (dialect, side) = (self.dialect().cloned(), side.clone());
        let prepared = spawn_blocking(move || {
            request_meta::outgoing(dialect.as_ref(), params.as_ref(), id, &side)
        });
        let ended = |_| Err(McpError::closed("the process ends"));
        prepared.await.unwrap_or_else(ended)
    }

    /// MCP-3: `max_line` bounds messages both ways.
    fn check_length(&self, line: &[Bytes]) -> Result<(), McpError> {
        let max_line = self.state.settings.max_line;
        let length: usize = line.iter().map(Bytes::len).sum();
        if length <= max_line {
            return Ok(());
        }
        Err(McpError::InvalidRequest {
            reason: format!("it has {length} bytes; at most max_line = {max_line} are allowed"),
        })
    }

    /// Sends a notification.
    ///
    /// # Errors  The connection has ended.
    pub(super) async fn notify(
        &self,
        method: &str,
        params: Option<JsonText>,
    ) -> Result<(), McpError> {
        let params = params.map(|params| vec![params.into_bytes()]);
        self.send(message::notification(method, params)).await
    }

    /// Sends a message that wants no answer.
    async fn send(&self, line: Vec<Bytes>) -> Result<(), McpError> {
        self.calls.note_unnamed();
        match &self.link {
            Link::Pipe(sender) => {
                let sender = sender.acquire().clone();
                let closed = || McpError::closed("its input is closed");
                let sender = sender.ok_or_else(closed)?;
                sender.send(line).await.map_err(|_| closed())
            }
            Link::Http(http) => http.tell(self.dialect(), line).await,
        }
    }

    /// Tells the server that a request is not waited for any more.
    /// `told`: the parameters of its caller's own notification.
    fn cancel(self: &Arc<Self>, id: u64, told: Option<&JsonText>) {
        // MCP-5: a cancellation passes to the server.
        let params = Some(call_table::cancellation(told, id));
        let line = message::notification("notifications/cancelled", params);
        self.calls.note_unnamed();
        match &self.link {
            Link::Pipe(sender) => {
                let sender = sender.acquire().clone();
                // A full queue means that the server reads nothing.
                if sender.is_some_and(|sender| sender.try_send(line).is_err()) {
                    tracing::debug!("a cancellation was not sent");
                }
            }
            // The end of the stream says it in the newer dialect.
            Link::Http(_) if self.dialect().is_none_or(Dialect::is_self_contained) => {}
            Link::Http(_) => {
                let connection = Arc::clone(self);
                drop(tokio::spawn(async move {
                    if let Err(error) = connection.send(line).await {
                        tracing::debug!(%error, "a cancellation was not sent");
                    }
                }));
            }
        }
    }

    /// Takes a message of the server. `of`: our request to which it belongs, if that is known.
    pub(super) fn take(self: &Arc<Self>, message: IncomingMessage, of: Option<u64>) {
        match &message {
            // An unreadable message may be an answer.
            IncomingMessage::Answer(..) => self.liveness.answered(),
            _ => self.liveness.heard(),
        }
        match message {
            IncomingMessage::Answer(Some(id), outcome) => {
                if !id.number().is_some_and(|id| self.calls.answer(id, outcome)) {
                    tracing::debug!("an answer to no call in flight");
                }
            }
            // A message that is too long may be no answer.
            IncomingMessage::Answer(None, Err(error @ McpError::Server { .. })) => {
                self.calls.answer_only(error);
            }
            IncomingMessage::Answer(None, _) => {}
            IncomingMessage::Notification(notice) => self.notified(notice, of),
            IncomingMessage::Request { id, question } => {
                self.asked_by_server(id, question, of);
            }
            IncomingMessage::Malformed { id, error } => {
                // MCP-3: the server does not wait for the answer to what cannot be read.
                self.respond(id, at_once(Err(error)), (Vec::new(), ANSWER_WAIT));
            }
        }
    }

    fn notified(self: &Arc<Self>, notice: ServerNotice, of: Option<u64>) {
        if let Some(of) = of {
            self.calls.note_progress(of);
        }
        match &*notice.method {
            "notifications/progress" => {
                self.liveness.answered();
                self.calls.progress(&notice);
            }
            "notifications/cancelled" => {
                let id = notice.head.and_then(|head| head.request_id.clone());
                let withdrawn = id.and_then(|id| self.asked.acquire().remove(&id));
                if let Some(task) = withdrawn {
                    task.abort();
                }
            }
            "notifications/tools/list_changed" => tool_list::list_again(self, notice),
            method if is_of_server(method) => self.tell_callers(notice),
            _ => {
                // MCP-5: what belongs to one caller's call reaches that caller only.
                if let Some(listener) = of.and_then(|id| self.calls.listener(id)) {
                    return listener.heard(notice);
                }
                match self.calls.related() {
                    RelatedCaller::One(listener) => listener.heard(notice),
                    RelatedCaller::Left(caller) if !self.is_owned() => {
                        if let Some(session) = self.session_that_left(caller) {
                            session.heard(notice);
                        }
                    }
                    RelatedCaller::None | RelatedCaller::Left(_) => self.tell_callers(notice),
                    RelatedCaller::Unknown => self.tell_some(notice),
                }
            }
        }
    }

    /// Passes a request of the server on to the caller that it concerns.
    fn asked_by_server(
        self: &Arc<Self>,
        id: MessageId,
        mut question: ServerQuestion,
        of: Option<u64>,
    ) {
        let limit = self.state.settings.question_timeout;
        // EDGE-1: the time of a user is not the server's.
        let held = self.calls.hold(of);
        // MCP-5: a call takes a place that others wait for, however often its user is asked.
        let before = held.iter().map(ProgressHold::before).max();
        let patience = limit.saturating_sub(before.unwrap_or_default());
        let answer = if &*question.method == "ping" {
            at_once(Ok(JsonText::checked(Bytes::from_static(b"{}"))))
        } else if self.asked.acquire().len() >= MAX_ASKED {
            let text = format!("{MAX_ASKED} requests wait for answers, which is the limit");
            at_once(Err(RpcError::new(message::code::INTERNAL_ERROR, text)))
        } else if patience.is_zero() {
            at_once(Err(unanswered(limit)))
        } else if let Some(listener) = self.asked_caller(of) {
            let own: Weak<Self> = Arc::downgrade(self);
            question.asker = Some(own);
            listener.ask(question)
        } else {
            // MCP-5: no answer is given in the name of a caller that was not asked.
            at_once(Err(match self.calls.related() {
                RelatedCaller::Left(_) | RelatedCaller::Unknown if !self.is_owned() => {
                    several_callers()
                }
                _ => RpcError::method_not_found(&question.method),
            }))
        };
        self.respond(id, answer, (held, patience));
    }

    /// Sends the answer to a request of the server, once it is there. `held`: the calls that stand
    /// still until then, and the time for it.
    fn respond(
        self: &Arc<Self>,
        id: MessageId,
        answer: AnswerFuture,
        (held, patience): (Vec<ProgressHold>, Duration),
    ) {
        let limit = self.state.settings.question_timeout;
        let connection = Arc::downgrade(self);
        let own_id = id.clone();
        let mut asked = self.asked.acquire();
        if asked.len() + self.unsent.load(Ordering::Relaxed) >= MAX_UNSENT {
            // CALL-6: it reads none of the answers, of which each would wait.
            tracing::debug!("a server asks more than it reads answers");
            return;
        }
        let task = tokio::spawn(async move {
            let outcome = timeout(patience, answer).await;
            let outcome = outcome.unwrap_or_else(|_| Err(unanswered(limit)));
            drop(held);
            let Some(connection) = connection.upgrade() else {
                return;
            };
            connection.asked.acquire().remove(&own_id);
            let result = outcome.as_ref().map(|text| vec![text.bytes().clone()]);
            let line = message::answer(own_id.as_json(), result);
            connection.unsent.fetch_add(1, Ordering::Relaxed);
            let sent = connection.send(line).await;
            connection.unsent.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = sent {
                tracing::debug!(%error, "a server's request was not answered");
            }
        });
        asked.insert(id, task.abort_handle());
    }

    /// Returns true while a request of the server waits for an answer.
    pub(super) fn is_asked(&self) -> bool {
        !self.asked.acquire().is_empty()
    }

    fn asked_caller(&self, of: Option<u64>) -> Option<Arc<dyn CallListener>> {
        if let Some(listener) = of.and_then(|id| self.calls.listener(id)) {
            return Some(listener);
        }
        match self.calls.related() {
            RelatedCaller::One(listener) => Some(listener),
            // MCP-5: a question outside of calls has one addressee, or none.
            RelatedCaller::None if !self.is_owned() => self.state.only_session(),
            RelatedCaller::Left(caller) if !self.is_owned() => self.session_that_left(caller),
            _ => self.owner().map(|own| own as Arc<dyn CallListener>),
        }
    }

    /// Returns the only session of the server, if it is the caller that has left a call.
    fn session_that_left(&self, caller: Option<u64>) -> Option<Arc<dyn CallListener>> {
        let session = self.state.only_session()?;
        (caller == Some(session.caller())).then_some(session)
    }

    /// Asks for a sign of life. Returns false if this one did not come in time.
    pub(super) async fn has_answered(self: &Arc<Self>, method: &str, sign: WantedSign) -> bool {
        let since = Instant::now();
        let asked = self.exchange(method, None, CallSide::default(), false);
        let answered = timeout(self.liveness.patience(), asked).await;
        match answered {
            Ok(Ok(_) | Err(McpError::Server { .. } | McpError::UnusableAnswer { .. })) => true,
            _ => self.liveness.has_given(sign, since),
        }
    }

    /// Ends the connection: the input of a process is closed.
    pub(super) fn close_link(&self) {
        if let Link::Pipe(sender) = &self.link {
            drop(sender.acquire().take());
        }
        let asked = std::mem::take(&mut *self.asked.acquire());
        for task in asked.into_values() {
            task.abort();
        }
    }

    /// Returns the work that ends its session at a server over HTTP, if that has to be done.
    pub(super) fn goodbye(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        match &self.link {
            Link::Http(http) => http.goodbye(self.dialect()),
            Link::Pipe(_) => None,
        }
    }

    /// Ends what waits for answers, after the last message has come.
    pub(super) fn ended(&self) {
        self.close_link();
        self.calls.clear();
    }

    /// Adds the known cause of the connection's end.
    fn refined(&self, error: McpError) -> McpError {
        let McpError::TransportClosed { .. } = &error else {
            return error;
        };
        match (self.liveness.violation(), self.liveness.end()) {
            (Some(reason), _) => McpError::Protocol { reason },
            (None, ConnectionEnd::Hung) => McpError::closed("it hung, and is replaced"),
            (None, _) => error,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // MCP-5: a server keeps a session until it is ended, also one that was begun in vain.
        if let (Some(goodbye), Ok(runtime)) = (self.goodbye(), Handle::try_current()) {
            drop(runtime.spawn(goodbye));
        }
    }
}

impl QuestionAsker for Connection {
    fn progressed(self: Arc<Self>, params: JsonText) -> TellFuture<'static> {
        Box::pin(async move {
            let told = self.notify("notifications/progress", Some(params)).await;
            if let Err(error) = told {
                tracing::debug!(%error, "the progress of a question was not taken");
            }
        })
    }
}

/// Guard of a request that waits for its answer.
struct RequestGuard {
    connection: Weak<Connection>,
    id: u64,
    is_cancellable: bool,
    is_sent: bool,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let Some(connection) = self.connection.upgrade() else {
            return;
        };
        if !self.is_sent {
            return connection.calls.end(self.id);
        }
        let told = connection.calls.cancelled(self.id);
        let is_unanswered = connection.calls.leave(self.id);
        let is_open = connection.liveness.end() == ConnectionEnd::None;
        if is_unanswered && is_open && self.is_cancellable {
            connection.cancel(self.id, told.as_ref());
        }
    }
}

/// Returns true if a notification is about the server, and not about a call.
fn is_of_server(method: &str) -> bool {
    method.ends_with("/list_changed")
        || method == "notifications/resources/updated"
        || method.starts_with("notifications/subscriptions/")
}

/// Returns an answer that is there already.
fn at_once(outcome: RawOutcome) -> AnswerFuture {
    Box::pin(std::future::ready(outcome))
}

#[cfg(test)]
mod tests;
