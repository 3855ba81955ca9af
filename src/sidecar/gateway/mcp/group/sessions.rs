//! Sessions of a group's callers, each with a part at every member that it reaches.
//!
//! MCP-5: messages and questions of a member reach the caller of the group. A part at a member with one
//! process for each session is begun by its first call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use crate::buffer_budget::BufferBudget;
use crate::lock::LockExt as _;
use crate::mcp::JsonText;
use crate::mcp::message::notification;
use crate::sidecar::gateway::caller_auth::CallerIdentity;
use crate::sidecar::gateway::mcp::caller_session::CallerSession;
use crate::sidecar::gateway::mcp::endpoint::McpEndpoint;
use crate::sidecar::gateway::mcp::sessions::{SessionLimits, SessionTable, SessionsFull};

/// All sessions of a group.
pub(crate) struct GroupSessions {
    pub(super) table: SessionTable,
    /// The parts of each session, by its number.
    parts: Mutex<HashMap<u64, Vec<SessionPart>>>,
}

/// The part of a session at one member.
#[derive(Clone)]
struct SessionPart {
    endpoint: Weak<McpEndpoint>,
    name: Arc<str>,
    session: Arc<CallerSession>,
}

impl GroupSessions {
    pub(crate) fn new(budget: &BufferBudget) -> Arc<Self> {
        let sessions = Arc::new(Self {
            table: SessionTable::new(SessionLimits::SHARED, budget),
            parts: Mutex::default(),
        });
        drop(tokio::spawn(Self::sweep(Arc::downgrade(&sessions))));
        sessions
    }

    /// Ends sessions that are not used, for as long as there is a group.
    async fn sweep(sessions: Weak<Self>) {
        while let Some(pause) = sessions.upgrade().map(|own| own.table.pause()) {
            tokio::time::sleep(pause).await;
            if let Some(sessions) = sessions.upgrade() {
                sessions.table.sweep();
                sessions.end_parts();
            }
        }
    }

    /// Begins a session. `None` if there are too many: its caller is served without one.
    pub(super) fn begin(
        &self,
        capabilities: JsonText,
        caller: Option<CallerIdentity>,
    ) -> Option<Arc<CallerSession>> {
        let begun = self.table.begin((capabilities, caller), None).ok();
        self.end_parts();
        begun.map(|(session, _)| session)
    }

    /// Ends a session of this caller. Returns false if it has none of this id.
    pub(super) fn end(&self, id: &str, caller: Option<CallerIdentity>) -> bool {
        let is_ended = self.table.end(id, caller);
        self.end_parts();
        is_ended
    }

    /// Returns the part of a session at a member; `None` if the member serves it without one.
    ///
    /// # Errors  The sessions of the member are all in use.
    pub(super) fn part(
        &self,
        session: &Arc<CallerSession>,
        endpoint: &Arc<McpEndpoint>,
    ) -> Result<Option<Arc<CallerSession>>, SessionsFull> {
        let mut all = self.parts.acquire();
        let parts = all.entry(session.number).or_default();
        let place = parts.iter().position(|part| part.name == endpoint.name);
        let former = place.map(|place| parts[place].clone());
        if let Some(part) = &former
            && endpoint
                .audience
                .sessions
                .find(&part.session.id, session.owner)
                .is_some()
        {
            if let Some(place) = place {
                // EDGE-6: a member that was replaced has kept its sessions.
                parts[place].endpoint = Arc::downgrade(endpoint);
            }
            return Ok(Some(Arc::clone(&part.session)));
        }
        let told = (session.capabilities.clone(), session.owner);
        let begun = endpoint.begin_session(told, Some(Arc::clone(session)))?;
        let Some(begun) = begun else {
            return Ok(None);
        };
        if let Some(former) = former {
            // EDGE-6: the member was replaced. The resources that the caller watches stay.
            let watched = former.session.resources.acquire().uris().clone();
            begun.resources.acquire().inherit(watched);
        }
        let part = SessionPart {
            endpoint: Arc::downgrade(endpoint),
            name: Arc::clone(&endpoint.name),
            session: Arc::clone(&begun),
        };
        match place {
            Some(place) => parts[place] = part,
            None => parts.push(part),
        }
        drop(all);
        endpoint.audience.wish();
        Ok(Some(begun))
    }

    /// Lets a session hear a member from now on, unless each session has a process there.
    pub(super) fn attach(&self, session: &Arc<CallerSession>, endpoint: &Arc<McpEndpoint>) {
        if !endpoint.audience.sessions.limits().are_own {
            // There are too many: then the caller hears nothing of this member.
            let _ = self.part(session, endpoint);
        }
    }

    /// Tells the sessions that the group has other members, and ends their parts at the former ones.
    pub(super) fn members_changed(&self, is_member: impl Fn(&str) -> bool) {
        let gone: Vec<SessionPart> = {
            let mut all = self.parts.acquire();
            let parts = all.values_mut();
            let is_member = &is_member;
            let gone = parts.flat_map(|parts| parts.extract_if(.., |part| !is_member(&part.name)));
            gone.collect()
        };
        end_all(gone);
        for session in self.table.all() {
            for list in ["tools", "prompts", "resources"] {
                let method = format!("notifications/{list}/list_changed");
                session.tell(notification(&method, None));
            }
        }
    }

    /// Returns the parts of a session.
    pub(super) fn parts_of(
        &self,
        session: &CallerSession,
    ) -> Vec<(Arc<McpEndpoint>, Arc<CallerSession>)> {
        let all = self.parts.acquire();
        let parts = all.get(&session.number).into_iter().flatten();
        let present = parts.filter_map(|part| {
            let endpoint = part.endpoint.upgrade()?;
            Some((endpoint, Arc::clone(&part.session)))
        });
        present.collect()
    }

    /// Ends the parts of sessions that have ended.
    fn end_parts(&self) {
        let ended: Vec<SessionPart> = {
            let mut all = self.parts.acquire();
            // Under the lock: a session that begins meanwhile cannot have got a part before it is seen.
            let present: Vec<u64> = self.table.all().iter().map(|one| one.number).collect();
            let ended = all.extract_if(|number, _| !present.contains(number));
            ended.flat_map(|(_, parts)| parts).collect()
        };
        end_all(ended);
    }
}

impl Drop for GroupSessions {
    fn drop(&mut self) {
        let parts = std::mem::take(&mut *self.parts.acquire());
        end_all(parts.into_values().flatten().collect());
    }
}

fn end_all(parts: Vec<SessionPart>) {
    for part in parts {
        if let Some(endpoint) = part.endpoint.upgrade() {
            let own = &part.session;
            endpoint.audience.sessions.end(&own.id, own.owner);
            endpoint.audience.wish();
        }
    }
}
