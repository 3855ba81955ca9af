//! One connection to a server, from the handshake to its end.
//!
//! Every call on it has a deadline besides that of the client: the library waits for ever for a
//! response that never comes, or that names no call.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation,
    ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, NotificationContext, Peer, RoleClient,
    RunningService,
};
use rmcp::transport::Transport;
use rmcp::{ClientHandler, service::ServiceError};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::call::{ToolCall, ToolResult};
use super::error::McpError;
use super::liveness::{ConnectionEnd, Liveness};
use super::server_state::ServerState;
use crate::CallContext;
use crate::lock::LockExt as _;

/// Maximum duration of any call, even if the settings have no limit.
const LONGEST: Duration = Duration::from_secs(600);
/// Limit for closing a connection.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection after its handshake.
pub(super) struct Session {
    peer: Peer<RoleClient>,
    /// Dropping it closes the connection.
    running: Mutex<Option<RunningService<RoleClient, ServerNotifications>>>,
    pub(super) liveness: Arc<Liveness>,
}

impl Session {
    /// Performs the handshake, lists the tools, and stores both in the server state.
    ///
    /// # Errors  The server speaks no supported dialect, or it ended. The caller sets the time
    /// limit.
    pub(super) async fn open(
        transport: impl Transport<RoleClient> + 'static,
        liveness: Arc<Liveness>,
        server_state: &Arc<ServerState>,
    ) -> Result<Self, McpError> {
        let dialect = server_state.take_dialect().unwrap_or_else(either_dialect);
        let detects = matches!(dialect, ClientLifecycleMode::Auto { .. });
        let ears = ServerNotifications(Arc::clone(server_state));
        let running = ears.serve_with_lifecycle(transport, dialect).await;
        let running = running.map_err(|error| {
            let error = McpError::from(error).refined(&liveness);
            // MCP-1: it started so slowly that its refusal came after the older dialect was tried.
            if detects && error.is_late_refusal() {
                *server_state.dialect.acquire() = Some(ClientLifecycleMode::Initialize);
            }
            error
        })?;
        let peer = running.peer().clone();
        let info = peer.peer_info();
        let has_tools = info
            .as_ref()
            .is_some_and(|info| info.capabilities.tools.is_some());
        let listed = if has_tools {
            let listed = peer.list_all_tools().await;
            listed.map_err(|error| McpError::from(error).refined(&liveness))?
        } else {
            Vec::new()
        };
        server_state.learn(info, Some(listed));
        Ok(Self {
            peer,
            running: Mutex::new(Some(running)),
            liveness,
        })
    }

    /// Calls a tool.
    ///
    /// # Cancel safety   Dropping the future notifies the server of the cancellation.
    pub(super) async fn call(
        &self,
        request: ToolCall,
        call: &CallContext,
    ) -> Result<ToolResult, McpError> {
        let ToolCall {
            name, arguments, ..
        } = request;
        if self.liveness.end() != ConnectionEnd::None {
            return Err(McpError::Ended {
                reason: "it has just ended".to_owned(),
            });
        }
        let params = CallToolRequestParams::new(name).with_arguments(arguments);
        let _watch = CallTimer::new(&self.liveness, call);
        let answered = timeout(LONGEST, self.peer.call_tool_once(params)).await;
        let answered = answered.unwrap_or(Err(ServiceError::Timeout { timeout: LONGEST }));
        match answered {
            Ok(CallToolResponse::Complete(result)) => Ok(ToolResult::of(&result)),
            Ok(_) => Err(McpError::protocol(
                "it asks for input during the call, which is not supported",
            )),
            Err(error) => Err(McpError::from(error).refined(&self.liveness)),
        }
    }

    /// Returns the peer, for other requests.
    #[cfg(feature = "gateway")]
    pub(super) fn peer(&self) -> &Peer<RoleClient> {
        &self.peer
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        if let Some(mut running) = self.running.lock().await.take()
            && let Err(error) = running.close_with_timeout(GOODBYE).await
        {
            tracing::debug!(%error, "a connection did not close in an orderly way");
        }
    }
}

impl McpError {
    /// Returns true for the refusal of a handshake that was given up already.
    fn is_late_refusal(&self) -> bool {
        matches!(self, Self::Protocol { reason } if reason.contains("uncorrelated error response"))
    }

    /// Adds the known cause of the connection's end.
    pub(super) fn refined(self, liveness: &Liveness) -> Self {
        let Self::TransportClosed { .. } = &self else {
            return self;
        };
        match (liveness.violation(), liveness.end()) {
            (Some(reason), _) => Self::Protocol { reason },
            (None, ConnectionEnd::Hung) => Self::closed("it hung, and is replaced"),
            (None, _) => self,
        }
    }
}

fn either_dialect() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: None,
    }
}

/// Timer of one call. Dropped after the deadline, it records a timeout without a message.
struct CallTimer<'a> {
    liveness: &'a Liveness,
    call: &'a CallContext,
    since: u64,
    began: tokio::time::Instant,
}

impl<'a> CallTimer<'a> {
    fn new(liveness: &'a Liveness, call: &'a CallContext) -> Self {
        Self {
            liveness,
            call,
            since: liveness.so_far(),
            began: tokio::time::Instant::now(),
        }
    }
}

impl Drop for CallTimer<'_> {
    fn drop(&mut self) {
        // A caller that left before the deadline shows nothing about the server.
        let attempt = self.call.timeouts().attempt;
        let is_over = attempt.is_some_and(|limit| self.began.elapsed() >= limit);
        if is_over || self.call.remaining() == Some(Duration::ZERO) {
            self.liveness.timed_out(self.since);
        }
    }
}

/// Handler of notifications from the server.
struct ServerNotifications(Arc<ServerState>);

impl ClientHandler for ServerNotifications {
    fn get_info(&self) -> ClientConfig {
        let own = Implementation::new("breakerbox", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), own)
    }

    async fn on_tool_list_changed(&self, context: NotificationContext<RoleClient>) {
        match context.peer.list_all_tools().await {
            Ok(listed) => self.0.learn(None, Some(listed)),
            Err(error) => tracing::warn!(
                error = %McpError::from(error),
                "a server's tools have changed, and cannot be listed"
            ),
        }
    }
}
