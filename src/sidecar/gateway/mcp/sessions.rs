//! Sessions of the callers of a server, or of a group: their number, and their end.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::caller_session::{CallerSession, NewSession};
use super::message_history::MessageHistory;
use crate::buffer_budget::BufferBudget;
use crate::config::{CallerSessions, DependencyConfig};
use crate::lock::LockExt as _;
use crate::mcp::json_text::JsonText;
use crate::sidecar::gateway::caller_auth::CallerIdentity;
use crate::sidecar::gateway::problem::GatewayProblem;

/// Maximum number of sessions that share a server.
const MAX_SESSIONS: usize = 1024;
/// Time after which an unused session that shares a server ends.
const IDLE: Duration = Duration::from_secs(3600);
/// Limits of the pause between two looks for unused sessions.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(30));

/// Limits of the sessions of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionLimits {
    max: usize,
    /// Time without use after which one ends.
    idle: Duration,
    /// True if each one has a process, or a session at the server, of its own.
    pub(super) are_own: bool,
}

impl SessionLimits {
    /// The limits of sessions that share a server.
    pub(super) const SHARED: Self = Self {
        max: MAX_SESSIONS,
        idle: IDLE,
        are_own: false,
    };

    /// Returns the limits of a configuration.
    pub(super) fn of(config: &DependencyConfig) -> Self {
        match config.mcp.as_ref().map(|own| own.sessions) {
            Some(CallerSessions::PerCaller { max, idle }) => Self {
                max: usize::try_from(max.get()).unwrap_or(usize::MAX),
                idle,
                are_own: true,
            },
            _ => Self::SHARED,
        }
    }
}

/// The refusal of a session, with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionsFull(pub(super) usize);

impl SessionsFull {
    /// Returns the refusal as its caller gets it. `name`: of the server.
    pub(super) fn problem(self, name: &str) -> GatewayProblem<'_> {
        let Self(limit) = self;
        let text = format!(
            "{limit} sessions are in use, which is max_sessions; one ends by DELETE, or without use"
        );
        GatewayProblem::of_room("max_sessions", name, text)
    }
}

/// All sessions of a server.
pub(super) struct SessionTable {
    sessions: Mutex<HashMap<Box<str>, Arc<CallerSession>>>,
    limits: Mutex<SessionLimits>,
    pub(super) history: Arc<MessageHistory>,
    secrets: [RandomState; 2],
    last: AtomicU64,
}

impl SessionTable {
    pub(super) fn new(limits: SessionLimits, budget: &BufferBudget) -> Self {
        Self {
            sessions: Mutex::default(),
            limits: Mutex::new(limits),
            history: MessageHistory::new(budget),
            secrets: [RandomState::new(), RandomState::new()],
            last: AtomicU64::new(0),
        }
    }

    /// Applies other limits. Returns true if sessions have ended for it.
    pub(super) fn set_limits(&self, limits: SessionLimits) -> bool {
        *self.limits.acquire() = limits;
        let mut sessions = self.sessions.acquire();
        shrink(&mut sessions, limits)
    }

    pub(super) fn limits(&self) -> SessionLimits {
        *self.limits.acquire()
    }

    /// Returns the pause until unused sessions are looked for again.
    pub(super) fn pause(&self) -> Duration {
        let (least, most) = PAUSES;
        (self.limits().idle / 4).clamp(least, most)
    }

    /// Begins a session. Returns true too if others have ended for it. `group`: the session of a
    /// group of which this one is the part at a member.
    ///
    /// # Errors  There are too many, and all of them are in use.
    pub(super) fn begin(
        &self,
        (capabilities, owner): (JsonText, Option<CallerIdentity>),
        group: Option<Arc<CallerSession>>,
    ) -> Result<(Arc<CallerSession>, bool), SessionsFull> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        // A keyed hash of a number: without the key no id follows from another.
        let [one, two] = &self.secrets;
        let id = format!("{:016x}{:016x}", one.hash_one(number), two.hash_one(number));
        let limits = self.limits();
        let new = NewSession {
            id: id.into(),
            owner,
            capabilities,
            is_own: limits.are_own,
            group,
        };
        let session = CallerSession::new(new, &self.history);
        let mut have_ended = self.sweep();
        let mut sessions = self.sessions.acquire();
        // CALL-6: nothing is unbounded.
        if sessions.len() >= limits.max {
            let leaving = first_to_leave(&sessions);
            let leaving = leaving.and_then(|id| sessions.remove(&id));
            let Some(leaving) = leaving else {
                return Err(SessionsFull(limits.max));
            };
            // MCP-5: the one that was unused for longest gives way, and its process ends. One
            // without a call so far goes first, and one with an open stream last.
            tracing::info!(session = leaving.number, "a session gives way to a new one");
            leaving.end();
            have_ended = true;
        }
        sessions.insert(session.id.clone(), Arc::clone(&session));
        Ok((session, have_ended))
    }

    /// Returns a session of this caller, and notes that it is in use.
    pub(super) fn find(
        &self,
        id: &str,
        caller: Option<CallerIdentity>,
    ) -> Option<Arc<CallerSession>> {
        let idle = self.limits().idle;
        let sessions = self.sessions.acquire();
        // MCP-6: for every other caller there is no such session.
        let session = sessions.get(id).filter(|own| own.owner == caller)?;
        if session.is_idle(idle) {
            // MCP-5: the next sweep ends it, so that the server is told that its wishes are over.
            return None;
        }
        session.touch();
        Some(Arc::clone(session))
    }

    /// Ends a session of this caller. Returns false if it has none of this id.
    pub(super) fn end(&self, id: &str, caller: Option<CallerIdentity>) -> bool {
        let session = {
            let mut sessions = self.sessions.acquire();
            let is_own = sessions.get(id).is_some_and(|own| own.owner == caller);
            is_own.then(|| sessions.remove(id)).flatten()
        };
        if let Some(session) = &session {
            session.end();
        }
        session.is_some()
    }

    /// Ends the sessions that are not used. Returns true if there were any.
    pub(super) fn sweep(&self) -> bool {
        let idle = self.limits().idle;
        let mut sessions = self.sessions.acquire();
        let before = sessions.len();
        sessions.retain(|_, session| {
            let is_idle = session.is_idle(idle);
            if is_idle {
                session.end();
            }
            !is_idle
        });
        // Those that were in use when the limit was lowered may have become free.
        shrink(&mut sessions, self.limits());
        sessions.len() < before
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

impl Drop for SessionTable {
    fn drop(&mut self) {
        // The processes of sessions end with the server's endpoint.
        for session in self.all() {
            session.end();
        }
    }
}

/// Ends the sessions beyond the limit that are not in use, if each has a process of its own. Returns
/// true if there were any.
fn shrink(sessions: &mut HashMap<Box<str>, Arc<CallerSession>>, limits: SessionLimits) -> bool {
    let before = sessions.len();
    // CALL-6: a lower limit holds at once, except for calls in flight.
    while limits.are_own && sessions.len() > limits.max {
        let leaving = first_to_leave(sessions).and_then(|id| sessions.remove(&id));
        let Some(leaving) = leaving else {
            break;
        };
        tracing::info!(
            session = leaving.number,
            "a session ends: max_sessions is lower now"
        );
        leaving.end();
    }
    sessions.len() < before
}

/// Returns the session that gives way first; `None` if all have calls in flight.
fn first_to_leave(sessions: &HashMap<Box<str>, Arc<CallerSession>>) -> Option<Box<str>> {
    let idle = sessions.values().filter_map(|session| {
        let yielding = session.yielding()?;
        Some((yielding, session))
    });
    let first = idle.max_by_key(|(yielding, _)| *yielding);
    first.map(|(_, session)| session.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::audience::SessionOwner as _;

    #[tokio::test(start_paused = true)]
    async fn mcp_5_the_end_of_a_session_that_comes_back_too_late_is_told_too() {
        let table = SessionTable::new(SessionLimits::SHARED, &BufferBudget::new(1 << 20));
        let told = (JsonText::checked(bytes::Bytes::from_static(b"{}")), None);
        let (session, _) = table.begin(told, None).unwrap();
        tokio::time::advance(IDLE + Duration::from_secs(1)).await;
        assert!(table.find(&session.id, None).is_none());
        assert!(table.sweep(), "its wishes are over");
        assert!(table.all().is_empty() && *session.ended().borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_5_a13_the_session_that_was_unused_for_longest_gives_way() {
        let limits = SessionLimits {
            max: 2,
            ..SessionLimits::SHARED
        };
        let table = SessionTable::new(limits, &BufferBudget::new(1 << 20));
        let told = || (JsonText::checked(bytes::Bytes::from_static(b"{}")), None);
        let mut begun = Vec::new();
        for _ in 0..3 {
            let (session, _) = table.begin(told(), None).unwrap();
            begun.push(session);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let is_there = |session: &Arc<CallerSession>| table.find(&session.id, None).is_some();
        let present: Vec<bool> = begun.iter().map(is_there).collect();
        assert_eq!(present, [false, true, true]);
    }
}
