//! What all lives of one server have in common: its settings, and what is known of it.
//!
//! Whoever calls reads here; the present life writes.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use rmcp::model::ServerPeerInfo;
use rmcp::service::ClientLifecycleMode;

use super::call::{Nature, ToolCall};
use super::link::Link;
use super::settings::McpSettings;
use super::tools::Toolbox;
use super::words::Words;

/// One server's common side.
pub(super) struct Board {
    pub(super) settings: McpSettings,
    pub(super) words: Arc<Words>,
    /// The tools of the present life, or of the last one.
    pub(super) toolbox: ArcSwap<Toolbox>,
    /// Whether they were ever listed.
    pub(super) is_listed: AtomicBool,
    /// What it said of itself last.
    pub(super) info: ArcSwapOption<ServerPeerInfo>,
    /// The way to it, for what is no call of a tool.
    pub(super) link: ArcSwapOption<Link>,
    /// The dialect that it was found to speak, so that the next life need not ask.
    pub(super) dialect: Mutex<Option<ClientLifecycleMode>>,
    /// Tools' own errors in a row.
    tool_errors: AtomicU32,
}

impl Board {
    pub(super) fn new(settings: McpSettings) -> Self {
        let words = Words::new(settings.stderr_lines, settings.secrets());
        Self {
            words: Arc::new(words),
            settings,
            toolbox: ArcSwap::default(),
            is_listed: AtomicBool::new(false),
            info: ArcSwapOption::empty(),
            link: ArcSwapOption::empty(),
            dialect: Mutex::default(),
            tool_errors: AtomicU32::new(0),
        }
    }

    /// What a call of this tool is.
    pub(super) fn nature(&self, call: &ToolCall) -> Nature {
        if let Some(nature) = self.toolbox.load().nature(&call.name) {
            return nature;
        }
        Nature {
            idempotent: self.settings.idempotent.contains(&call.name),
            ..Nature::UNKNOWN
        }
    }

    /// Takes over what a life has found out.
    pub(super) fn learn(&self, info: Option<Arc<ServerPeerInfo>>, tools: Option<Toolbox>) {
        if let Some(tools) = tools {
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
            *self.lock_dialect() = Some(dialect);
            self.info.store(Some(info));
        }
    }

    /// The dialect to begin with. It is asked for only once where that fails.
    pub(super) fn take_dialect(&self) -> Option<ClientLifecycleMode> {
        self.lock_dialect().take()
    }

    /// Counts how results are, and says how many tools' errors there were in a row.
    pub(super) fn count(&self, is_error: bool) -> u32 {
        if is_error {
            self.tool_errors.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            // Most calls find it so: then nothing is written.
            if self.tool_errors.load(Ordering::Relaxed) != 0 {
                self.tool_errors.store(0, Ordering::Relaxed);
            }
            0
        }
    }

    fn lock_dialect(&self) -> std::sync::MutexGuard<'_, Option<ClientLifecycleMode>> {
        self.dialect.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Board")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
