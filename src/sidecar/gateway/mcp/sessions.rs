//! Sessions of callers that speak the dialect with a handshake.
//!
//! A session holds what its caller can be asked and what it wants to hear. The server behind it is
//! shared by all sessions.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::caller_message::{CallerMessage, is_capable, next_caller, rank};
use crate::lock::LockExt as _;
use crate::mcp::json_text::JsonText;
use crate::mcp::message::{MessageId, RawOutcome};

/// Maximum number of sessions of a server.
const MAX_SESSIONS: usize = 1024;
/// Time after which an unused session ends.
const IDLE: Duration = Duration::from_secs(3600);
/// Maximum number of messages that wait for a caller without a stream.
const MAX_QUEUED: usize = 64;
/// Maximum number of resources that a session may watch.
pub(super) const MAX_RESOURCES: usize = 256;

/// A session of one caller.
pub(super) struct CallerSession {
    pub(super) id: Box<str>,
    pub(super) number: u64,
    /// The capabilities of the caller, as it told them.
    pub(super) capabilities: JsonText,
    asked: Mutex<HashMap<MessageId, oneshot::Sender<RawOutcome>>>,
    last_asked: AtomicU64,
    calls: Mutex<HashMap<MessageId, Arc<Notify>>>,
    used: Mutex<Instant>,
    stream: Mutex<OpenStream>,
    /// The lowest level of log messages, if the caller has set one.
    pub(super) level: Mutex<Option<String>>,
    pub(super) resources: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct OpenStream {
    sender: Option<mpsc::Sender<CallerMessage>>,
    queued: VecDeque<CallerMessage>,
}

impl CallerSession {
    fn new(id: Box<str>, capabilities: JsonText) -> Self {
        Self {
            id,
            number: next_caller(),
            capabilities,
            asked: Mutex::default(),
            last_asked: AtomicU64::new(0),
            calls: Mutex::default(),
            used: Mutex::new(Instant::now()),
            stream: Mutex::default(),
            level: Mutex::default(),
            resources: Mutex::default(),
        }
    }

    /// Returns true if the caller has said that it can be asked this.
    pub(super) fn can_be_asked(&self, method: &str) -> bool {
        is_capable(&self.capabilities, method).unwrap_or(true)
    }

    /// Begins a question to the caller.
    pub(super) fn begin_ask(&self) -> (MessageId, oneshot::Receiver<RawOutcome>) {
        let number = self.last_asked.fetch_add(1, Ordering::Relaxed) + 1;
        let id = MessageId::of_text(&format!("breakerbox-{number}"));
        let (sender, receiver) = oneshot::channel();
        self.asked.acquire().insert(id.clone(), sender);
        (id, receiver)
    }

    /// Returns a guard that withdraws a question when it is dropped.
    pub(super) fn asked(self: &Arc<Self>, id: MessageId) -> QuestionGuard {
        QuestionGuard {
            session: Arc::clone(self),
            id,
        }
    }

    /// Takes the caller's answer to a question. Returns false if there is no such question.
    pub(super) fn answer(&self, id: &MessageId, outcome: RawOutcome) -> bool {
        let sender = self.asked.acquire().remove(id);
        sender.is_some_and(|sender| sender.send(outcome).is_ok())
    }

    /// Notes a call, until the guard is dropped. The notification wakes when the caller cancels it.
    pub(super) fn begin_call(self: &Arc<Self>, id: &MessageId) -> CallGuard {
        let cancelled = Arc::new(Notify::new());
        let own = Arc::clone(&cancelled);
        self.calls.acquire().insert(id.clone(), own);
        CallGuard {
            session: Arc::clone(self),
            id: id.clone(),
            cancelled,
        }
    }

    /// Cancels a call of the caller.
    pub(super) fn cancel(&self, id: &MessageId) {
        if let Some(call) = self.calls.acquire().get(id) {
            // A call that looks for it later finds it too.
            call.notify_one();
        }
    }

    /// Notes that the session is in use.
    pub(super) fn touch(&self) {
        *self.used.acquire() = Instant::now();
    }

    fn is_idle(&self) -> bool {
        let is_streaming = self.stream.acquire().sender.is_some();
        let is_calling = !self.calls.acquire().is_empty();
        !is_streaming && !is_calling && self.used.acquire().elapsed() > IDLE
    }

    /// Opens the caller's own stream. A former one ends.
    pub(super) fn open_stream(&self) -> mpsc::Receiver<CallerMessage> {
        let (sender, receiver) = mpsc::channel(4 * MAX_QUEUED);
        let mut stream = self.stream.acquire();
        for message in std::mem::take(&mut stream.queued) {
            // There is room for all of them.
            let _ = sender.try_send(message);
        }
        stream.sender = Some(sender);
        receiver
    }

    /// Sends a message that belongs to no call.
    pub(super) fn tell(&self, message: CallerMessage) {
        let mut stream = self.stream.acquire();
        let message = match &stream.sender {
            Some(sender) => match sender.try_send(message) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::debug!("a message of a server was not taken by its caller");
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(message)) => message,
            },
            None => message,
        };
        stream.sender = None;
        if stream.queued.len() == MAX_QUEUED {
            stream.queued.pop_front();
        }
        stream.queued.push_back(message);
    }

    /// Ends the caller's own stream.
    fn end_stream(&self) {
        self.stream.acquire().sender = None;
    }

    /// Returns the rank of the lowest log messages that the caller takes.
    pub(super) fn lowest_rank(&self) -> usize {
        let level = self.level.acquire();
        level.as_deref().and_then(rank).unwrap_or(0)
    }
}

/// Guard of a question to a caller.
pub(super) struct QuestionGuard {
    session: Arc<CallerSession>,
    id: MessageId,
}

impl Drop for QuestionGuard {
    fn drop(&mut self) {
        self.session.asked.acquire().remove(&self.id);
    }
}

/// Guard of a call of a session.
pub(super) struct CallGuard {
    session: Arc<CallerSession>,
    id: MessageId,
    cancelled: Arc<Notify>,
}

impl CallGuard {
    /// Waits until the caller cancels the call.
    pub(super) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut calls = self.session.calls.acquire();
        let is_own = |own: &Arc<Notify>| Arc::ptr_eq(own, &self.cancelled);
        if calls.get(&self.id).is_some_and(is_own) {
            calls.remove(&self.id);
        }
        drop(calls);
        self.session.touch();
    }
}

/// All sessions of a server.
pub(super) struct CallerSessions {
    sessions: Mutex<HashMap<Box<str>, Arc<CallerSession>>>,
    secrets: [RandomState; 2],
    last: AtomicU64,
}

impl CallerSessions {
    pub(super) fn new() -> Self {
        Self {
            sessions: Mutex::default(),
            secrets: [RandomState::new(), RandomState::new()],
            last: AtomicU64::new(0),
        }
    }

    /// Begins a session. Returns `None` if there are too many.
    /// Returns true too if others have ended for it.
    pub(super) fn begin(&self, capabilities: JsonText) -> (Option<Arc<CallerSession>>, bool) {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        // A keyed hash of a number: without the key no id follows from another.
        let [one, two] = &self.secrets;
        let id = format!("{:016x}{:016x}", one.hash_one(number), two.hash_one(number));
        let session = Arc::new(CallerSession::new(id.into(), capabilities));
        let mut sessions = self.sessions.acquire();
        let before = sessions.len();
        sessions.retain(|_, session| !session.is_idle());
        let have_ended = sessions.len() < before;
        // CALL-6: nothing is unbounded.
        if sessions.len() >= MAX_SESSIONS {
            return (None, have_ended);
        }
        sessions.insert(session.id.clone(), Arc::clone(&session));
        (Some(session), have_ended)
    }

    /// Returns a session that is in use.
    pub(super) fn find(&self, id: &str) -> Option<Arc<CallerSession>> {
        let mut sessions = self.sessions.acquire();
        let session = sessions.get(id)?;
        if session.is_idle() {
            sessions.remove(id);
            return None;
        }
        session.touch();
        Some(Arc::clone(session))
    }

    /// Ends a session. Returns false if there is none of this id.
    pub(super) fn end(&self, id: &str) -> bool {
        let session = self.sessions.acquire().remove(id);
        if let Some(session) = &session {
            session.end_stream();
        }
        session.is_some()
    }

    pub(super) fn all(&self) -> Vec<Arc<CallerSession>> {
        self.sessions.acquire().values().cloned().collect()
    }

    /// Ends the streams of all sessions.
    pub(super) fn end_streams(&self) {
        for session in self.all() {
            session.end_stream();
        }
    }
}
