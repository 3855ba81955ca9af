//! The callers that are connected to a server, and what they want to hear of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::caller_message::{CallerMessage, rank_of};
use super::caller_session::CallerSession;
use super::questions::NOTICE_WAIT;
use super::session_facts::{MAX_RESOURCES, MAX_URI};
use super::sessions::{SessionLimits, SessionTable};
use crate::buffer_budget::{BufferBudget, BufferShare};
use crate::lock::LockExt as _;
use crate::mcp::McpClient;
use crate::mcp::audience::{CallListener, CallSide, ServerAudience, ServerNotice};
use crate::mcp::dialect::ServerDescription;
use crate::mcp::json_text::{JsonText, MemberEdit, edited};
use crate::mcp::log_level::LEVELS;
use crate::mcp::message::{MessageId, notification};
use crate::mcp::request_meta::{self, SUBSCRIPTION};

/// Maximum number of subscriptions of callers to a server.
const MAX_SUBSCRIPTIONS: usize = 1024;
/// Maximum number of messages that wait for a slow caller.
const MAX_WAITING: usize = 256;

/// Changes that a caller of the newer dialect wants to hear of.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WantedChanges {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: Option<BTreeSet<String>>,
}

impl WantedChanges {
    /// Returns the part that the server tells of. One that is not known yet may tell of all.
    fn told_by(self, description: Option<&ServerDescription>) -> Self {
        let has = |capability, property| {
            description.is_none_or(|description| description.has(capability, property))
        };
        let resources = self.resource_subscriptions;
        Self {
            tools_list_changed: self.tools_list_changed && has("tools", "listChanged"),
            prompts_list_changed: self.prompts_list_changed && has("prompts", "listChanged"),
            resources_list_changed: self.resources_list_changed && has("resources", "listChanged"),
            resource_subscriptions: resources.filter(|_| has("resources", "subscribe")),
        }
    }

    fn to_value(&self) -> Value {
        let mut value = json!({});
        for (name, is_wanted) in [
            ("toolsListChanged", self.tools_list_changed),
            ("promptsListChanged", self.prompts_list_changed),
            ("resourcesListChanged", self.resources_list_changed),
        ] {
            if is_wanted {
                value[name] = Value::Bool(true);
            }
        }
        if let Some(resources) = &self.resource_subscriptions {
            value["resourceSubscriptions"] = json!(resources);
        }
        value
    }

    fn includes(&self, notice: &ServerNotice) -> bool {
        match &*notice.method {
            "notifications/tools/list_changed" => self.tools_list_changed,
            "notifications/prompts/list_changed" => self.prompts_list_changed,
            "notifications/resources/list_changed" => self.resources_list_changed,
            "notifications/resources/updated" => {
                let resources = self.resource_subscriptions.as_ref();
                let uri = notice.uri();
                uri.is_some_and(|uri| resources.is_some_and(|all| all.contains(uri)))
            }
            _ => false,
        }
    }
}

struct ChangeSubscription {
    number: u64,
    id: MessageId,
    wanted: WantedChanges,
    sender: mpsc::Sender<CallerMessage>,
    _room: BufferShare,
}

/// The callers of a server.
pub(super) struct McpAudience {
    pub(super) sessions: SessionTable,
    subscriptions: Mutex<Vec<ChangeSubscription>>,
    last: AtomicU64,
    client: Mutex<Option<McpClient>>,
    budget: BufferBudget,
    /// Number of the calls without a session that want log messages, by the rank of their level.
    asked_levels: Mutex<[usize; LEVELS.len()]>,
}

impl McpAudience {
    pub(super) fn new(limits: SessionLimits, budget: &BufferBudget) -> Arc<Self> {
        Arc::new(Self {
            sessions: SessionTable::new(limits, budget),
            subscriptions: Mutex::default(),
            last: AtomicU64::new(0),
            client: Mutex::default(),
            budget: budget.clone(),
            asked_levels: Mutex::default(),
        })
    }

    /// Sets the client of the server, once it is started. One that takes its place is told what the
    /// callers want.
    pub(super) fn attach(&self, client: McpClient) {
        *self.client.acquire() = Some(client);
        self.wish();
    }

    fn client(&self) -> Option<McpClient> {
        self.client.acquire().clone()
    }

    /// Tells the server what the callers want together.
    pub(super) fn wish(&self) {
        let Some(client) = self.client() else {
            return;
        };
        let sessions = self.sessions.all();
        let mut resources = BTreeSet::new();
        // MCP-5: the most verbose level that any caller asks for; each one gets its own.
        let asked = *self.asked_levels.acquire();
        let mut lowest = asked.iter().position(|number| *number > 0);
        for session in &sessions {
            if session.is_own {
                session.wish();
                continue;
            }
            resources.extend(session.resources.acquire().uris().iter().cloned());
            let level = session.rank_of_level();
            lowest = lowest.into_iter().chain(level).min();
        }
        for subscription in &*self.subscriptions.acquire() {
            let own = subscription.wanted.resource_subscriptions.iter().flatten();
            resources.extend(own.cloned());
        }
        let level = lowest
            .and_then(|rank| LEVELS.get(rank))
            .map(|level| (*level).to_owned());
        client.wish(|wishes| {
            let is_changed = wishes.level != level || wishes.resources != resources;
            wishes.level = level;
            wishes.resources = resources;
            is_changed
        });
    }

    /// Begins a subscription. Returns its first message and the later ones, or `None` if there are
    /// too many.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        id: &MessageId,
        wanted: Option<&JsonText>,
    ) -> Option<(CallerMessage, SubscriptionStream)> {
        let wanted: WantedChanges = wanted.and_then(JsonText::read).unwrap_or_default();
        let description = self.client().and_then(|client| client.description());
        let mut accepted = wanted.told_by(description.as_deref());
        if let Some(resources) = &mut accepted.resource_subscriptions {
            // CALL-6: nothing is unbounded.
            let all = std::mem::take(resources).into_iter();
            let short = all.filter(|uri| uri.len() <= MAX_URI);
            *resources = short.take(MAX_RESOURCES).collect();
        }
        let resources = accepted.resource_subscriptions.iter().flatten();
        let size = id.as_json().len() + resources.map(String::len).sum::<usize>();
        // EDGE-4: an id may be as long as a message.
        let room = self.budget.try_take(size)?;
        let subscription: Value = serde_json::from_str(id.as_json()).unwrap_or_default();
        let params = json!({ "_meta": { SUBSCRIPTION: subscription },
            "notifications": accepted.to_value() });
        let first = notification(
            "notifications/subscriptions/acknowledged",
            Some(vec![JsonText::of(&params).into_bytes()]),
        );
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        {
            let mut subscriptions = self.subscriptions.acquire();
            if subscriptions.len() >= MAX_SUBSCRIPTIONS {
                return None;
            }
            subscriptions.push(ChangeSubscription {
                number,
                id: id.clone(),
                wanted: accepted,
                sender,
                _room: room,
            });
        }
        self.wish();
        let stream = SubscriptionStream {
            audience: Arc::downgrade(self),
            number,
            messages,
        };
        Some((first, stream))
    }

    /// Ends sessions that are not used, for as long as there is an audience.
    pub(super) async fn sweep(audience: Weak<Self>) {
        while let Some(pause) = audience.upgrade().map(|own| own.sessions.pause()) {
            tokio::time::sleep(pause).await;
            if let Some(audience) = audience.upgrade()
                && audience.sessions.sweep()
            {
                audience.wish();
            }
        }
    }

    /// Passes a notification of a caller on to the server that serves it alone, such as that its roots
    /// have changed. `headers`: those of the caller that pass.
    pub(super) async fn pass_notice(
        &self,
        session: &Arc<CallerSession>,
        (method, params): (&str, Option<JsonText>),
        headers: Option<Arc<HeaderMap>>,
    ) {
        let only = self.only_session();
        let is_alone = only.is_some_and(|only| only.caller() == session.number);
        let Some(client) = self.client().filter(|_| session.is_own || is_alone) else {
            // MCP-5: a server must not take what one caller says, such as its roots, for that of all.
            return;
        };
        // MCP-6: callers with other headers have other connections to the server.
        let side = CallSide {
            headers,
            ..session.side()
        };
        let telling = client.tell(method, params, side);
        // CALL-6: a server that reads nothing keeps no message of its callers.
        if timeout(NOTICE_WAIT, telling).await.is_err() {
            tracing::debug!(method, "a notification of a caller was not taken");
        }
    }

    /// Lets the server tell log messages from this level on, for as long as the guard lives.
    pub(super) fn ask_level(self: &Arc<Self>, rank: usize) -> Option<LevelGuard> {
        let is_first = {
            let mut asked = self.asked_levels.acquire();
            let number = asked.get_mut(rank)?;
            *number += 1;
            *number == 1
        };
        if is_first {
            self.wish();
        }
        let audience = Arc::clone(self);
        Some(LevelGuard { audience, rank })
    }

    /// Ends all streams that would not end by themselves.
    pub(super) fn end_streams(&self) {
        self.sessions.end_streams();
        let subscriptions = std::mem::take(&mut *self.subscriptions.acquire());
        drop(subscriptions);
    }
}

/// Guard of a call that wants log messages of a level.
pub(super) struct LevelGuard {
    audience: Arc<McpAudience>,
    rank: usize,
}

impl Drop for LevelGuard {
    fn drop(&mut self) {
        let is_last = {
            let mut asked = self.audience.asked_levels.acquire();
            asked.get_mut(self.rank).is_some_and(|number| {
                *number = number.saturating_sub(1);
                *number == 0
            })
        };
        if is_last {
            self.audience.wish();
        }
    }
}

/// Later messages of a subscription. Dropping it ends the subscription.
pub(super) struct SubscriptionStream {
    /// Not kept by it: it ends with the server.
    audience: Weak<McpAudience>,
    number: u64,
    pub(super) messages: mpsc::Receiver<CallerMessage>,
}

impl Drop for SubscriptionStream {
    fn drop(&mut self) {
        let Some(audience) = self.audience.upgrade() else {
            return;
        };
        let number = self.number;
        let mut subscriptions = audience.subscriptions.acquire();
        subscriptions.retain(|one| one.number != number);
        drop(subscriptions);
        audience.wish();
    }
}

impl ServerAudience for McpAudience {
    fn heard(&self, notice: ServerNotice) {
        let params = notice.params.clone();
        let message = notification(&notice.method, params.map(|own| vec![own.into_bytes()]));
        // MCP-2: they are read once, however many callers there are.
        let (uri, rank) = (notice.uri(), rank_of(&notice));
        let is_log = &*notice.method == "notifications/message";
        let is_update = &*notice.method == "notifications/resources/updated";
        let mut kept = None;
        for session in self.sessions.all() {
            let is_wanted = if session.is_own {
                // Its own process says the rest.
                notice.method.ends_with("/list_changed")
            } else if is_log {
                rank >= session.lowest_rank()
            } else if is_update {
                let resources = session.resources.acquire();
                uri.is_some_and(|uri| resources.uris().contains(uri))
            } else {
                true
            };
            let may_hear = notice.only_for.is_none() || session.credentials() == notice.only_for;
            if is_wanted && may_hear {
                // EDGE-4: one copy for all sessions.
                let kept = kept.get_or_insert_with(|| self.sessions.history.keep(&message));
                session.tell_kept(message.clone(), kept.clone());
            }
        }
        for subscription in &*self.subscriptions.acquire() {
            if !subscription.wanted.includes(&notice) {
                continue;
            }
            let id = subscription.id.as_json();
            let params = with_subscription(&notice, id);
            let message = notification(&notice.method, Some(params));
            if subscription.sender.try_send(message).is_err() {
                tracing::debug!("a change was not taken by a caller");
            }
        }
    }

    fn only_session(&self) -> Option<Arc<dyn CallListener>> {
        let mut sessions = self.sessions.all().into_iter();
        let only = sessions.next().filter(|only| !only.is_own)?;
        sessions
            .next()
            .is_none()
            .then_some(only as Arc<dyn CallListener>)
    }
}

/// Returns parameters with the id of a subscription of the caller.
fn with_subscription(notice: &ServerNotice, id: &str) -> CallerMessage {
    let empty = JsonText::of(&json!({}));
    let params = notice.params.as_ref().unwrap_or(&empty);
    let meta = notice.head.as_ref().and_then(|head| head.meta.as_ref());
    let mut members = meta.and_then(request_meta::members).unwrap_or_default();
    let id = JsonText::checked(bytes::Bytes::copy_from_slice(id.as_bytes()));
    members.insert(SUBSCRIPTION.to_owned(), id);
    let edit = MemberEdit {
        name: "_meta",
        present: meta,
        value: request_meta::written(&members),
    };
    edited(params, vec![edit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::gateway::caller_auth::CallerIdentity;

    fn told(size: usize, only_for: Option<[u8; 32]>) -> ServerNotice {
        let params = json!({ "level": "info", "data": "x".repeat(size) });
        ServerNotice {
            only_for,
            ..ServerNotice::new("notifications/message", Some(JsonText::of(&params)))
        }
    }

    fn begin(audience: &McpAudience, owner: Option<CallerIdentity>) -> Arc<CallerSession> {
        let capabilities = JsonText::checked(bytes::Bytes::from_static(b"{}"));
        let begun = audience.sessions.begin((capabilities, owner), None);
        begun.unwrap().0
    }

    #[tokio::test]
    async fn edge_4_a_message_for_all_sessions_is_kept_once() {
        let budget = BufferBudget::new(1 << 20);
        let audience = McpAudience::new(SessionLimits::SHARED, &budget);
        let sessions: Vec<_> = (0..100).map(|_| begin(&audience, None)).collect();
        let before = budget.present().used;
        audience.heard(told(1000, None));
        let kept = budget.present().used - before;
        assert!((1000..2000).contains(&kept), "{kept}");
        for session in sessions {
            let mut opened = session.open_stream(None).unwrap();
            assert!(opened.messages.try_recv().is_ok());
        }
    }

    #[tokio::test]
    async fn mcp_6_what_is_for_some_credentials_reaches_no_other_session() {
        let audience = McpAudience::new(SessionLimits::SHARED, &BufferBudget::new(1 << 20));
        let [one, other] = [1, 2].map(|own| {
            let identity = CallerIdentity::of_digest([own; 32]);
            (begin(&audience, Some(identity)), identity.digest())
        });
        audience.heard(told(1, Some(one.1)));
        let hears = |session: &CallerSession| {
            let mut opened = session.open_stream(None).unwrap();
            opened.messages.try_recv().is_ok()
        };
        assert!(hears(&one.0) && !hears(&other.0));
    }
}
