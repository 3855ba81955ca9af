//! State shared by all incarnations of one server: its settings, and the facts learned from it.
//!
//! Callers read it; only the current incarnation writes it.

#[cfg(feature = "gateway")]
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::audience::{CallListener, RequestSender, ServerAudience, ServerNotice, StandingWishes};
use super::call::{ToolCall, ToolTraits};
use super::dialect::{HandshakeKind, ServerDescription};
use super::error::McpError;
use super::settings::{McpServer, McpSettings};
use super::start_state::StartState;
use super::stderr_tail::StderrTail;
use super::tools::{RawTool, ToolTable};

use crate::lock::LockExt as _;

/// The way of requests to the present incarnation.
pub(super) struct PublishedSender {
    pub(super) sender: Arc<dyn RequestSender>,
    /// The calls that were in flight at the end of the incarnation.
    #[cfg(feature = "gateway")]
    suspects: Mutex<BTreeSet<u64>>,
}

impl PublishedSender {
    pub(super) fn new(sender: Arc<dyn RequestSender>) -> Self {
        Self {
            sender,
            #[cfg(feature = "gateway")]
            suspects: Mutex::default(),
        }
    }

    /// Notes a call that was in flight at the end. Returns true for the first of its fingerprint.
    #[cfg(feature = "gateway")]
    pub(super) fn is_first_suspect(&self, fingerprint: u64) -> bool {
        self.suspects.acquire().insert(fingerprint)
    }
}

/// Number of consecutive tool errors that are more than mistakes of callers.
const SICK: u32 = 3;

/// The change that a result makes in the complaint of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ComplaintChange {
    None,
    Withdrawn,
    /// All tools return errors.
    AllErrors,
}

/// Shared state of one server.
pub(super) struct ServerState {
    pub(super) settings: McpSettings,
    pub(super) stderr_tail: Arc<StderrTail>,
    /// The tools of the current incarnation, or of the last one.
    pub(super) toolbox: ArcSwap<ToolTable>,
    /// True once the tools have been listed.
    pub(super) is_listed: AtomicBool,
    /// The server's latest description of itself.
    pub(super) description: ArcSwapOption<ServerDescription>,
    /// The connector, for requests other than tool calls.
    pub(super) connector: ArcSwapOption<PublishedSender>,
    /// The wishes that each incarnation is told.
    pub(super) wishes: watch::Sender<StandingWishes>,
    /// Marked as changed with each description.
    pub(super) learned: watch::Sender<()>,
    /// The handshakes that work, of connections for all callers and of those for one session, so that
    /// the next one need not find it.
    handshakes: Mutex<[Option<HandshakeKind>; 2]>,
    /// The callers that are connected, if there is a gateway.
    audience: Mutex<Option<Weak<dyn ServerAudience>>>,
    /// Limit of an attempt, as a worker saw it last.
    attempt: Mutex<Option<Duration>>,
    /// Tools that may be repeated, by the present configuration. Held while the tools are learned,
    /// so that they are never read by an older list.
    idempotent: Mutex<Vec<String>>,
    /// Number of consecutive tool errors.
    tool_errors: AtomicU32,
    /// The state of its start.
    pub(super) start: StartState,
    /// The reason why the last connection to a remote server could not be made.
    pub(super) open_failure: Mutex<Option<McpError>>,
    /// True while the status says that callers wait in vain for its first answer.
    #[cfg(feature = "gateway")]
    pub(super) is_missed: AtomicBool,
}

impl ServerState {
    pub(super) fn new(settings: McpSettings) -> Self {
        let stderr_tail = new_tail(&settings);
        Self {
            stderr_tail: Arc::new(stderr_tail),
            idempotent: Mutex::new(settings.idempotent.clone()),
            settings,
            toolbox: ArcSwap::default(),
            is_listed: AtomicBool::new(false),
            description: ArcSwapOption::empty(),
            connector: ArcSwapOption::empty(),
            wishes: watch::Sender::default(),
            learned: watch::Sender::default(),
            // MCP-5: sessions have callers of the older dialect, and are asked in it.
            handshakes: Mutex::new([None, Some(HandshakeKind::Initialize)]),
            audience: Mutex::new(None),
            attempt: Mutex::default(),
            tool_errors: AtomicU32::new(0),
            start: StartState::default(),
            open_failure: Mutex::default(),
            #[cfg(feature = "gateway")]
            is_missed: AtomicBool::new(false),
        }
    }

    /// Returns an empty tail for the standard error of one more process.
    pub(super) fn new_tail(&self) -> StderrTail {
        new_tail(&self.settings)
    }

    /// Returns the traits of the tool that is called.
    pub(super) fn nature(&self, call: &ToolCall) -> ToolTraits {
        if let Some(nature) = self.toolbox.load().nature(&call.name) {
            return nature;
        }
        ToolTraits {
            idempotent: self.idempotent.acquire().contains(&call.name),
            ..ToolTraits::UNKNOWN
        }
    }

    /// Stores the facts that an incarnation has learned.
    pub(super) fn learn(
        &self,
        description: Option<Arc<ServerDescription>>,
        listed: Option<Vec<RawTool>>,
    ) {
        let mut are_others = false;
        if let Some(listed) = listed {
            let idempotent = self.idempotent.acquire();
            let tools = ToolTable::new(listed.into(), &idempotent);
            let before = self.toolbox.load();
            are_others = before.listed != tools.listed;
            self.toolbox.store(Arc::new(tools));
            self.is_listed.store(true, Ordering::Release);
        }
        let Some(description) = description else {
            return;
        };
        let before = self.description.swap(Some(Arc::clone(&description)));
        self.learned.send_replace(());
        // MCP-5: callers that came before it know nothing of its tools, or those of its former life.
        if are_others || before.is_none() {
            self.tell_changed("tools");
        }
        let is_process = matches!(self.settings.server, McpServer::Stdio { .. });
        for list in ["prompts", "resources"] {
            let may_be_other = match before {
                None => description.can(list),
                // A connection is no new life of the server.
                Some(_) => is_process && description.has(list, "listChanged"),
            };
            if may_be_other {
                self.tell_changed(list);
            }
        }
    }

    /// Tells the callers that a list has changed.
    fn tell_changed(&self, list: &str) {
        let method = format!("notifications/{list}/list_changed");
        self.tell_audience(ServerNotice::new(method, None));
    }

    /// Sets the callers that are connected.
    #[cfg(feature = "gateway")]
    pub(super) fn set_audience(&self, audience: Weak<dyn ServerAudience>) {
        *self.audience.acquire() = Some(audience);
    }

    /// Passes a notification on to the callers that are connected.
    pub(super) fn tell_audience(&self, notice: ServerNotice) {
        if let Some(audience) = self.audience() {
            audience.heard(notice);
        }
    }

    /// Returns the only session that the server has at present.
    pub(super) fn only_session(&self) -> Option<Arc<dyn CallListener>> {
        self.audience()?.only_session()
    }

    fn audience(&self) -> Option<Arc<dyn ServerAudience>> {
        let audience = self.audience.acquire().clone();
        audience.and_then(|audience| audience.upgrade())
    }

    /// Returns the capabilities that are told to a server with a handshake.
    pub(super) fn callers_capabilities(&self) -> Value {
        if self.audience.acquire().is_some() {
            json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {},
                "roots": { "listChanged": true } })
        } else {
            json!({})
        }
    }

    /// Sets the tools that may be repeated.
    #[cfg(feature = "gateway")]
    pub(super) fn set_idempotent(&self, tools: &[String]) {
        let mut idempotent = self.idempotent.acquire();
        tools.clone_into(&mut idempotent);
        let listed = Arc::clone(&self.toolbox.load().listed);
        let tools = ToolTable::new(listed, &idempotent);
        self.toolbox.store(Arc::new(tools));
    }

    /// Returns the handshake that is tried first. `is_owned`: the connection serves one session alone.
    pub(super) fn known_handshake(&self, is_owned: bool) -> Option<HandshakeKind> {
        self.handshakes.acquire()[usize::from(is_owned)]
    }

    /// Remembers the handshake that works; `None`: the next connection finds it anew.
    pub(super) fn remember_handshake(&self, is_owned: bool, kind: Option<HandshakeKind>) {
        self.handshakes.acquire()[usize::from(is_owned)] = kind;
    }

    pub(super) fn note_attempt_limit(&self, attempt: Option<Duration>) {
        *self.attempt.acquire() = attempt;
    }

    pub(super) fn attempt_limit(&self) -> Option<Duration> {
        *self.attempt.acquire()
    }

    /// Notes a result of a tool, and returns what it changes in the complaint.
    pub(super) fn note_result(&self, is_error: bool) -> ComplaintChange {
        // HLT-1: an error of a tool is an answer too, and ends the wait for the first one.
        #[cfg(feature = "gateway")]
        let was_missed = self.is_missed.swap(false, Ordering::AcqRel);
        #[cfg(not(feature = "gateway"))]
        let was_missed = false;
        match self.count(is_error) {
            0 => ComplaintChange::Withdrawn,
            SICK => ComplaintChange::AllErrors,
            _ if was_missed => ComplaintChange::Withdrawn,
            _ => ComplaintChange::None,
        }
    }

    /// Returns true while all tools return errors, as the status says.
    #[cfg(feature = "gateway")]
    pub(super) fn has_sick_tools(&self) -> bool {
        self.tool_errors.load(Ordering::Relaxed) >= SICK
    }

    /// Counts a result, and returns the number of consecutive tool errors.
    fn count(&self, is_error: bool) -> u32 {
        if is_error {
            self.tool_errors.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            // It is zero for most calls: then nothing is written.
            if self.tool_errors.load(Ordering::Relaxed) != 0 {
                self.tool_errors.store(0, Ordering::Relaxed);
            }
            0
        }
    }
}

fn new_tail(settings: &McpSettings) -> StderrTail {
    StderrTail::new(settings.stderr_lines, settings.secrets())
}

impl std::fmt::Debug for ServerState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ServerState")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::Dialect;
    use super::super::json_text::JsonText;
    use super::*;

    /// Callers that note the changes that they hear of.
    #[derive(Default)]
    struct NotedChanges(Mutex<Vec<String>>);

    impl ServerAudience for NotedChanges {
        fn heard(&self, notice: ServerNotice) {
            self.0.acquire().push(notice.method.to_string());
        }

        fn only_session(&self) -> Option<Arc<dyn CallListener>> {
            None
        }
    }

    #[cfg(feature = "gateway")]
    #[test]
    fn hlt_1_an_error_of_a_tool_ends_the_wait_for_the_first_answer() {
        let state = ServerState::new(McpSettings::stdio("none", [""; 0]));
        state.is_missed.store(true, Ordering::Release);
        let changes = [true; 4].map(|is_error| state.note_result(is_error));
        let [first, second, third, fourth] = changes;
        assert_eq!(first, ComplaintChange::Withdrawn);
        assert_eq!(second, ComplaintChange::None);
        assert_eq!(third, ComplaintChange::AllErrors);
        assert_eq!(fourth, ComplaintChange::None);
        // A later first answer takes back nothing of it.
        assert!(!state.is_missed.load(Ordering::Acquire) && state.has_sick_tools());
        assert_eq!(state.note_result(false), ComplaintChange::Withdrawn);
        assert!(!state.has_sick_tools());
    }

    #[test]
    fn mcp_5_callers_hear_of_the_lists_that_differ_in_the_next_life() {
        let state = ServerState::new(McpSettings::stdio("none", [""; 0]));
        let heard = Arc::new(NotedChanges::default());
        let weak: Weak<NotedChanges> = Arc::downgrade(&heard);
        *state.audience.acquire() = Some(weak);
        let life = |tool: &str| {
            let text = json!({ "name": tool });
            let tool = RawTool::new(tool, JsonText::of(&text));
            let description = ServerDescription {
                dialect: Dialect::Handshake {
                    version: "2025-11-25".to_owned(),
                },
                capabilities: json!({ "tools": {}, "prompts": { "listChanged": true },
                    "resources": {} }),
                server_info: None,
                instructions: None,
            };
            state.learn(Some(Arc::new(description)), Some(vec![tool]));
            let heard = std::mem::take(&mut *heard.0.acquire());
            let list = |method: String| method.split('/').nth(1).unwrap_or_default().to_owned();
            heard.into_iter().map(list).collect::<Vec<_>>()
        };
        assert_eq!(life("a"), ["tools", "prompts", "resources"]);
        assert_eq!(life("a"), ["prompts"], "the prompts may be others");
        assert_eq!(life("b"), ["tools", "prompts"]);
    }
}
