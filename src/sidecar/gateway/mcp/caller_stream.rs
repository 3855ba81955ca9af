//! The way of a server's words to the caller of one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::sessions::CallerSession;
use crate::mcp::audience::{AnswerFuture, CallListener, ServerNotice};
use crate::mcp::json_text::JsonText;
use crate::mcp::message::{RpcError, notification, request};

/// Maximum number of messages that wait for a slow caller.
const MAX_WAITING: usize = 256;

/// A message on its way to a caller, in pieces.
pub(super) type CallerMessage = Vec<Bytes>;

/// Number of the last caller.
static LAST_CALLER: AtomicU64 = AtomicU64::new(0);

/// Returns the number of a new caller.
pub(super) fn next_caller() -> u64 {
    LAST_CALLER.fetch_add(1, Ordering::Relaxed) + 1
}

/// Levels of log messages, from the lowest.
pub(super) const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// Returns the rank of a level.
pub(super) fn rank(level: &str) -> Option<usize> {
    LEVELS.iter().position(|one| *one == level)
}

/// Returns the rank of a log message.
pub(super) fn rank_of(notice: &ServerNotice) -> usize {
    let head = notice
        .params
        .as_ref()
        .and_then(crate::mcp::message::ParamsHead::read);
    let level = head.and_then(|head| head.level);
    level.and_then(|level| rank(&level)).unwrap_or(LEVELS.len())
}

/// Caller of one call.
pub(super) struct CallerStream {
    caller: u64,
    messages: mpsc::Sender<CallerMessage>,
    session: Option<Arc<CallerSession>>,
    /// Rank of the lowest log messages that pass; `None`: none passes.
    level: Option<usize>,
    /// True if the caller takes a stream.
    takes_events: bool,
}

impl CallerStream {
    /// Creates the stream of a call in a session, or of a caller without one, whose messages pass by
    /// `level`.
    pub(super) fn new(
        session: Option<Arc<CallerSession>>,
        level: Option<usize>,
        takes_events: bool,
    ) -> (Arc<Self>, mpsc::Receiver<CallerMessage>) {
        let (messages, waiting) = mpsc::channel(MAX_WAITING);
        let caller = session.as_ref().map_or_else(next_caller, |session| session.number);
        let stream = Self {
            caller,
            messages,
            session,
            level,
            takes_events,
        };
        (Arc::new(stream), waiting)
    }

    /// Returns true if the caller can be asked this.
    pub(super) fn can_be_asked(&self, method: &str) -> bool {
        let session = self.session.as_ref();
        self.takes_events && session.is_some_and(|session| session.can_be_asked(method))
    }
}

impl CallListener for CallerStream {
    fn caller(&self) -> u64 {
        self.caller
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
        // CALL-6: a caller that reads too slowly misses messages, and no memory grows for it.
        if self.messages.try_send(message).is_err() {
            tracing::debug!("a message of a server was not taken by its caller");
        }
    }

    fn ask(&self, method: &str, params: Option<JsonText>) -> AnswerFuture {
        let Some(session) = self.session.clone().filter(|_| self.can_be_asked(method)) else {
            // MCP-5: nothing is answered in the name of a user that was not asked.
            let error = RpcError::method_not_found(method);
            return Box::pin(std::future::ready(Err(error)));
        };
        let (id, answer) = session.begin_ask();
        let params = params.map(|params| vec![params.into_bytes()]);
        let message = request(id.as_json(), method, params);
        let is_sent = self.messages.try_send(message).is_ok();
        let method: Box<str> = method.into();
        Box::pin(async move {
            // Dropped, it withdraws the question.
            let asked = session.asked(id);
            if !is_sent {
                return Err(RpcError::method_not_found(&method));
            }
            let outcome = answer.await;
            drop(asked);
            outcome.unwrap_or_else(|_| {
                let text = "the caller left before it answered";
                Err(RpcError::new(crate::mcp::message::code::INTERNAL_ERROR, text))
            })
        })
    }
}
