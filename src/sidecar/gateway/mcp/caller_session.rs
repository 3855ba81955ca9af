//! Session of one caller that speaks the dialect with a handshake.
//!
//! It holds the capabilities and the wishes of its caller. It is the owner of a process, or
//! of a session at the server, where each session has one of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::caller_message::{CallerMessage, next_caller, rank_of};
use super::kept_call::KeptCall;
use super::message_history::{KeptMessage, MessageHistory};
use super::questions::{self, AskedQuestion, QuestionProgress, QuestionWay};
use super::session_facts::WatchedResources;
use super::session_stream::{OpenedStream, SessionStream};
use crate::lock::LockExt as _;
use crate::mcp::audience::{
    AnswerFuture, CallListener, CallSide, CredentialDigest, ServerNotice, ServerQuestion,
    SessionOwner, StandingWishes,
};
use crate::mcp::json_text::JsonText;
use crate::mcp::log_level::{LEVELS, rank};
use crate::mcp::message::{LARGE, MessageId, ParamsHead, RawOutcome, RpcError, notification};
use crate::sidecar::gateway::caller_auth::CallerIdentity;

/// Maximum number of calls of a session with streams that can be taken up again.
const MAX_KEPT_CALLS: usize = 8;

/// A session of one caller.
pub(super) struct CallerSession {
    pub(super) id: Box<str>,
    pub(super) number: u64,
    /// The caller that began it; `None` if callers present nothing.
    pub(super) owner: Option<CallerIdentity>,
    /// The capabilities of the caller, as it told them.
    pub(super) capabilities: JsonText,
    /// True if it has a process, or a session at the server, of its own.
    pub(super) is_own: bool,
    /// The session of a group of which this is the part at one member.
    group: Option<Arc<CallerSession>>,
    own: Weak<CallerSession>,
    asked: Mutex<HashMap<MessageId, AskedQuestion>>,
    last_asked: AtomicU64,
    calls: Mutex<HashMap<MessageId, Arc<CancelSignal>>>,
    used: Mutex<Instant>,
    has_called: AtomicBool,
    stream: SessionStream,
    history: Arc<MessageHistory>,
    /// The latest calls that can be taken up again.
    kept: Mutex<Vec<Arc<KeptCall>>>,
    last_kept: AtomicU64,
    /// The lowest level of log messages, if the caller has set one.
    level: Mutex<Option<String>>,
    pub(super) resources: Mutex<WatchedResources>,
    /// The wishes that the server of this session alone is told.
    wishes: watch::Sender<StandingWishes>,
    has_ended: watch::Sender<bool>,
}

/// The facts of which a session is made.
pub(super) struct NewSession {
    pub(super) id: Box<str>,
    pub(super) owner: Option<CallerIdentity>,
    pub(super) capabilities: JsonText,
    pub(super) is_own: bool,
    pub(super) group: Option<Arc<CallerSession>>,
}

impl CallerSession {
    pub(super) fn new(new: NewSession, history: &Arc<MessageHistory>) -> Arc<Self> {
        let NewSession {
            id,
            owner,
            capabilities,
            is_own,
            group,
        } = new;
        // A part of a group's session has the capabilities of the whole.
        let size = if group.is_some() {
            0
        } else {
            capabilities.bytes().len()
        };
        let resources = WatchedResources::new(size, &history.budget);
        Arc::new_cyclic(|own| Self {
            id,
            number: next_caller(),
            owner,
            capabilities,
            is_own,
            group,
            own: Weak::clone(own),
            asked: Mutex::default(),
            last_asked: AtomicU64::new(0),
            calls: Mutex::default(),
            used: Mutex::new(Instant::now()),
            has_called: AtomicBool::new(false),
            stream: SessionStream::new(history),
            history: Arc::clone(history),
            kept: Mutex::default(),
            last_kept: AtomicU64::new(0),
            level: Mutex::default(),
            resources: Mutex::new(resources),
            wishes: watch::Sender::default(),
            has_ended: watch::Sender::default(),
        })
    }

    /// Returns the session that the caller knows: that of the group, for a part at a member.
    fn known(&self) -> &Self {
        self.group.as_deref().unwrap_or(self)
    }

    /// Begins a question to the caller. Dropping the guard withdraws it.
    /// `progress`: the server that hears of its progress.
    pub(super) fn begin_ask(
        &self,
        progress: Option<QuestionProgress>,
    ) -> (QuestionGuard, oneshot::Receiver<RawOutcome>) {
        let known = self.known();
        let number = known.last_asked.fetch_add(1, Ordering::Relaxed) + 1;
        let id = MessageId::of_text(&format!("breakerbox-{number}"));
        let (reply, receiver) = oneshot::channel();
        let question = AskedQuestion { reply, progress };
        known.asked.acquire().insert(id.clone(), question);
        let session = Weak::clone(&known.own);
        (QuestionGuard { session, id }, receiver)
    }

    /// Takes the caller's answer to a question. Returns false if there is no such question.
    pub(super) fn answer(&self, id: &MessageId, outcome: RawOutcome) -> bool {
        let question = self.asked.acquire().remove(id);
        question.is_some_and(|question| question.reply.send(outcome).is_ok())
    }

    /// Passes the progress of a question on to the server that has asked it.
    pub(super) async fn progressed(&self, read: &ParamsHead, params: Option<JsonText>) {
        let (Some(token), Some(params)) = (&read.progress_token, params) else {
            return;
        };
        let progress = {
            let asked = self.known().asked.acquire();
            // MCP-5: a caller tells of the questions that it was asked, and of no others.
            let question = MessageId::new(token.as_str()).and_then(|id| asked.get(&id));
            question.and_then(|question| question.progress.clone())
        };
        if let Some(progress) = progress {
            progress.tell((&params, token)).await;
        }
    }

    /// Notes a call, until the guard is dropped, which learns of its cancellation.
    pub(super) fn begin_call(self: &Arc<Self>, id: &MessageId) -> CallGuard {
        self.has_called.store(true, Ordering::Relaxed);
        let end = Arc::new(CancelSignal::default());
        for session in [Some(self), self.group.as_ref()].into_iter().flatten() {
            let own = Arc::clone(&end);
            session.calls.acquire().insert(id.clone(), own);
        }
        CallGuard {
            session: Arc::clone(self),
            id: id.clone(),
            end,
        }
    }

    /// Cancels a call of the caller. `params`: of the notification.
    pub(super) fn cancel(&self, id: &MessageId, params: Option<&JsonText>) {
        if let Some(call) = self.calls.acquire().get(id) {
            // MCP-5: the server gets the caller's own words. Long ones are no reason.
            if let Some(params) = params.filter(|params| params.bytes().len() <= LARGE) {
                // The first cancellation counts. EDGE-4: a part keeps its message in memory.
                let _ = call.told.set(params.copied());
            }
            // A call that looks for it later finds it too.
            call.begun.notify_one();
        }
    }

    /// Notes that the session is in use.
    pub(super) fn touch(&self) {
        *self.used.acquire() = Instant::now();
    }

    /// Returns the time since its last call; `None` while one is in flight.
    pub(super) fn idle_time(&self) -> Option<Duration> {
        let is_calling = !self.calls.acquire().is_empty();
        (!is_calling).then(|| self.used.acquire().elapsed())
    }

    /// Returns its readiness to give way to another one, and the time since its last call; `None`
    /// while one is in flight. One without any call gives way first, one with an open stream last.
    pub(super) fn yielding(&self) -> Option<(u8, Duration)> {
        let rank = match (
            self.has_called.load(Ordering::Relaxed),
            self.known().stream.is_open(),
        ) {
            (_, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
        };
        Some((rank, self.idle_time()?))
    }

    /// Returns true if it was not used for so long.
    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        match &self.group {
            // It costs nothing, and the caller's session is that of the group.
            Some(_) if !self.is_own => false,
            _ if self.known().stream.is_open() => false,
            _ => self.idle_time().is_some_and(|idle| idle > limit),
        }
    }

    /// Opens the caller's own stream. A former one ends. `after`: the last event that it has got.
    ///
    /// # Errors  There was no such event: the number of the last one.
    pub(super) fn open_stream(&self, after: Option<u64>) -> Result<OpenedStream, u64> {
        self.stream.open(after)
    }

    /// Begins a call that can be taken up again; `None` if too many of them are in flight.
    pub(super) fn keep_call(&self) -> Option<Arc<KeptCall>> {
        let known = self.known();
        let mut kept = known.kept.acquire();
        if kept.len() >= MAX_KEPT_CALLS {
            // CALL-6: nothing is unbounded.
            let oldest = kept.iter().position(|call| call.stream.is_finished())?;
            kept.remove(oldest);
        }
        let number = known.last_kept.fetch_add(1, Ordering::Relaxed) + 1;
        let call = KeptCall::new(number, &known.history);
        kept.push(Arc::clone(&call));
        Some(call)
    }

    /// Returns a call that can be taken up again.
    pub(super) fn kept_call(&self, number: u64) -> Option<Arc<KeptCall>> {
        let kept = self.kept.acquire();
        kept.iter().find(|call| call.number == number).cloned()
    }

    /// Sends a message that belongs to no call.
    pub(super) fn tell(&self, message: CallerMessage) {
        self.known().stream.tell(message);
    }

    /// Sends a message that belongs to no call, of which there may be a kept copy.
    pub(super) fn tell_kept(&self, message: CallerMessage, kept: Option<Arc<KeptMessage>>) {
        self.known().stream.tell_kept(message, kept);
    }

    /// Sends a message that belongs to no call, if the caller reads its own stream.
    pub(super) fn tell_now(&self, message: CallerMessage) -> bool {
        self.known().stream.tell_now(message)
    }

    /// Ends the caller's own stream. The caller may come back.
    pub(super) fn end_stream(&self) {
        self.stream.end();
    }

    /// Ends the session, with its calls and its process.
    pub(super) fn end(&self) {
        self.end_stream();
        // A call that wakes learns of the end.
        self.has_ended.send_replace(true);
        // EDGE-1: its caller has left them; that says nothing of the server.
        for call in self.calls.acquire().values() {
            call.begun.notify_one();
        }
    }

    /// Waits for the end of the session, or of that of the group of which it is a part.
    pub(super) async fn until_end(&self) {
        let ends = [&self.has_ended, &self.known().has_ended];
        let [mut own, mut known] = ends.map(watch::Sender::subscribe);
        // Its senders live as long as the session.
        tokio::select! {
            _ = own.wait_for(|ended| *ended) => {}
            _ = known.wait_for(|ended| *ended) => {}
        }
    }

    /// Returns the rank of the lowest log messages that the caller takes.
    pub(super) fn lowest_rank(&self) -> usize {
        self.rank_of_level().unwrap_or(0)
    }

    /// Returns the rank of the level that the caller has set.
    pub(super) fn rank_of_level(&self) -> Option<usize> {
        let level = self.known().level.acquire();
        level.as_deref().and_then(rank)
    }

    /// Sets the lowest level of log messages.
    pub(super) fn set_level(&self, level: &str) {
        *self.level.acquire() = Some(level.to_owned());
    }

    /// Returns the side of a call or of a notification of the session.
    pub(super) fn side(self: &Arc<Self>) -> CallSide {
        let owner = self.is_own.then(|| Arc::clone(self));
        CallSide {
            capabilities: Some(self.capabilities.clone()),
            level: self
                .rank_of_level()
                .and_then(|rank| LEVELS.get(rank).copied()),
            owner: owner.map(|own| own as Arc<dyn SessionOwner>),
            ..CallSide::default()
        }
    }

    /// Tells the server of this session alone the wishes of its caller.
    pub(super) fn wish(&self) {
        let level = self.rank_of_level().and_then(|rank| LEVELS.get(rank));
        let wanted = StandingWishes {
            level: level.map(|level| (*level).to_owned()),
            resources: self.resources.acquire().uris().clone(),
        };
        self.wishes.send_if_modified(|wishes| {
            let is_changed = *wishes != wanted;
            *wishes = wanted;
            is_changed
        });
    }
}

impl CallListener for CallerSession {
    fn caller(&self) -> u64 {
        self.number
    }

    fn credentials(&self) -> Option<CredentialDigest> {
        self.owner.map(CallerIdentity::digest)
    }

    fn heard(&self, notice: ServerNotice) {
        let is_log = &*notice.method == "notifications/message";
        if !is_log || rank_of(&notice) >= self.lowest_rank() {
            let params = notice.params.map(|params| vec![params.into_bytes()]);
            self.tell(notification(&notice.method, params));
        }
    }

    fn ask(&self, question: ServerQuestion) -> AnswerFuture {
        let refusal = question.refused_by(&self.capabilities);
        let own = match (self.own.upgrade(), refusal) {
            (Some(own), None) => own,
            (_, refusal) => {
                let unknown = || RpcError::method_not_found(&question.method);
                let error = refusal.unwrap_or_else(unknown);
                return Box::pin(std::future::ready(Err(error)));
            }
        };
        let way = QuestionWay::Session(Arc::clone(&own));
        questions::ask(&own, question, way)
    }
}

impl SessionOwner for CallerSession {
    fn capabilities(&self) -> JsonText {
        self.capabilities.clone()
    }

    fn wishes(&self) -> watch::Receiver<StandingWishes> {
        self.wishes.subscribe()
    }

    fn ended(&self) -> watch::Receiver<bool> {
        self.has_ended.subscribe()
    }
}

/// Guard of a question to a caller.
pub(super) struct QuestionGuard {
    session: Weak<CallerSession>,
    id: MessageId,
}

impl QuestionGuard {
    pub(super) fn id(&self) -> &MessageId {
        &self.id
    }
}

impl Drop for QuestionGuard {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            session.asked.acquire().remove(&self.id);
        }
    }
}

/// Signal by which a caller ends a call.
#[derive(Default)]
struct CancelSignal {
    begun: Notify,
    told: Arc<OnceLock<JsonText>>,
}

/// Guard of a call of a session.
pub(super) struct CallGuard {
    session: Arc<CallerSession>,
    id: MessageId,
    end: Arc<CancelSignal>,
}

impl CallGuard {
    /// Waits until the caller cancels the call, or ends its session: then it returns true.
    pub(super) async fn cancelled(&self) -> bool {
        self.end.begun.notified().await;
        *self.session.has_ended.borrow() || *self.session.known().has_ended.borrow()
    }

    /// Returns the place for the parameters of the caller's cancellation.
    pub(super) fn told(&self) -> Arc<OnceLock<JsonText>> {
        Arc::clone(&self.end.told)
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let group = self.session.group.as_ref();
        for session in [Some(&self.session), group].into_iter().flatten() {
            let mut calls = session.calls.acquire();
            let is_own = |own: &Arc<CancelSignal>| Arc::ptr_eq(own, &self.end);
            if calls.get(&self.id).is_some_and(is_own) {
                calls.remove(&self.id);
            }
            drop(calls);
            session.touch();
        }
    }
}
