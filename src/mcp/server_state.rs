//! State shared by all incarnations of one server: its settings, and the facts learned from it.
//!
//! Callers read it; only the current incarnation writes it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};
use rmcp::model::{ServerPeerInfo, Tool};
use rmcp::service::ClientLifecycleMode;

use super::call::{ToolCall, ToolTraits};
use super::connector::McpConnector;
use super::settings::McpSettings;
use super::start_state::StartState;
use super::stderr_tail::StderrTail;
use super::tools::ToolTable;

use crate::lock::LockExt as _;

/// Shared state of one server.
pub(super) struct ServerState {
    pub(super) settings: McpSettings,
    pub(super) stderr_tail: Arc<StderrTail>,
    /// The tools of the current incarnation, or of the last one.
    pub(super) toolbox: ArcSwap<ToolTable>,
    /// True once the tools have been listed.
    pub(super) is_listed: AtomicBool,
    /// The server's latest description of itself.
    pub(super) info: ArcSwapOption<ServerPeerInfo>,
    /// The connector, for requests other than tool calls.
    pub(super) connector: ArcSwapOption<McpConnector>,
    /// The dialect of the server, so that the next incarnation need not detect it.
    pub(super) dialect: Mutex<Option<ClientLifecycleMode>>,
    /// Tools that may be repeated, by the present configuration. Held while the tools are learned,
    /// so that they are never read by an older list.
    idempotent: Mutex<Vec<String>>,
    /// Number of consecutive tool errors.
    tool_errors: AtomicU32,
    /// The state of its start.
    pub(super) start: StartState,
}

impl ServerState {
    pub(super) fn new(settings: McpSettings) -> Self {
        let stderr_tail = StderrTail::new(settings.stderr_lines, settings.secrets());
        Self {
            stderr_tail: Arc::new(stderr_tail),
            idempotent: Mutex::new(settings.idempotent.clone()),
            settings,
            toolbox: ArcSwap::default(),
            is_listed: AtomicBool::new(false),
            info: ArcSwapOption::empty(),
            connector: ArcSwapOption::empty(),
            dialect: Mutex::default(),
            tool_errors: AtomicU32::new(0),
            start: StartState::default(),
        }
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
    pub(super) fn learn(&self, info: Option<Arc<ServerPeerInfo>>, listed: Option<Vec<Tool>>) {
        if let Some(listed) = listed {
            let idempotent = self.idempotent.acquire();
            let tools = ToolTable::new(listed, &idempotent);
            self.toolbox.store(Arc::new(tools));
            self.is_listed.store(true, Ordering::Release);
        }
        if let Some(info) = info {
            let dialect = if info.protocol_version.has_initialize() {
                ClientLifecycleMode::Initialize
            } else {
                ClientLifecycleMode::Discover {
                    preferred_versions: vec![info.protocol_version.clone()],
                }
            };
            *self.dialect.acquire() = Some(dialect);
            self.info.store(Some(info));
        }
    }

    /// Sets the tools that may be repeated.
    #[cfg(feature = "gateway")]
    pub(super) fn set_idempotent(&self, tools: &[String]) {
        let mut idempotent = self.idempotent.acquire();
        tools.clone_into(&mut idempotent);
        let listed = self.toolbox.load().listed.clone();
        let tools = ToolTable::new(listed, &idempotent);
        self.toolbox.store(Arc::new(tools));
    }

    /// Takes the dialect to begin with. If it fails, the next handshake detects the dialect.
    pub(super) fn take_dialect(&self) -> Option<ClientLifecycleMode> {
        self.dialect.acquire().take()
    }

    /// Counts a result, and returns the number of consecutive tool errors.
    pub(super) fn count(&self, is_error: bool) -> u32 {
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

impl std::fmt::Debug for ServerState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Board")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
