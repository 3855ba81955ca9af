//! Client for the tools of a server, with knowledge of each tool's traits.

use std::future::Future;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::call::{ToolCall, ToolResult};
use super::dependency::Mcp;
use super::error::McpError;
use super::server_state::ServerState;
use super::tools::Tool;
use crate::{Answer, CallError, CallOptions, Client};

/// Client of a server: cheap to clone, usable on any thread, and valid across restarts.
#[derive(Debug, Clone)]
pub struct McpClient {
    client: Client<Mcp>,
    pub(super) server_state: Arc<ServerState>,
}

impl McpClient {
    pub(super) fn new(client: Client<Mcp>, server_state: Arc<ServerState>) -> Self {
        Self {
            client,
            server_state,
        }
    }

    /// Calls a tool. The call counts as a write, and is not repeated after it may have been
    /// executed, unless the settings or the tool's own hints allow it.
    ///
    /// # Errors  [`CallError`], as for every dependency. A tool's own error is an answer, with
    /// [`ToolResult::is_error`].
    /// # Cancel safety   As [`Client::ask`]; a server that has begun is notified.
    pub fn call(
        &self,
        name: impl Into<String>,
        arguments: Map<String, Value>,
    ) -> impl Future<Output = Result<Answer<ToolResult>, CallError<McpError>>> {
        self.call_with(name, arguments, CallOptions::default())
    }

    /// Calls a tool with options for this call. Their `write` and `idempotent` take precedence over
    /// the tool's traits.
    ///
    /// # Errors  As [`McpClient::call`].
    /// # Cancel safety   As [`McpClient::call`].
    pub fn call_with(
        &self,
        name: impl Into<String>,
        arguments: Map<String, Value>,
        options: CallOptions,
    ) -> impl Future<Output = Result<Answer<ToolResult>, CallError<McpError>>> {
        let mut request = ToolCall::new(name, arguments);
        request.nature = self.server_state.nature(&request);
        let options = self.with_time(options);
        let options = CallOptions {
            idempotent: options.idempotent.or(Some(request.nature.idempotent)),
            write: options.write.or(Some(request.nature.write)),
            ..options
        };
        self.client.ask_with(request, options)
    }

    /// Gives an attempt the time that its caller allows, if that is more than the settings do. The
    /// total limit of the settings bounds it all the same.
    fn with_time(&self, options: CallOptions) -> CallOptions {
        // MCP-4: a caller that waits longer gets a longer attempt.
        let usual = self.client.settings().timeout.attempt;
        let own = options
            .timeout
            .filter(|own| usual.is_some_and(|usual| *own > usual));
        CallOptions {
            attempt: options.attempt.or(own),
            ..options
        }
    }

    /// Returns the server's tools as last listed: after each start, and after each change that the
    /// server announced.
    #[must_use]
    pub fn tools(&self) -> Arc<[Tool]> {
        Arc::clone(&self.server_state.toolbox.load().tools)
    }

    /// Returns the server's protocol version, such as `2025-11-25`; `None` until the first
    /// handshake.
    #[must_use]
    pub fn protocol_version(&self) -> Option<String> {
        let info = self.server_state.info.load();
        info.as_ref().map(|info| info.protocol_version.to_string())
    }

    /// Returns the last lines of standard error of the server's current incarnation.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.server_state.stderr_tail.now()
    }

    /// Returns the last lines of standard error of the previous incarnation, if there was one.
    #[must_use]
    pub fn last_words(&self) -> Vec<String> {
        self.server_state.stderr_tail.before()
    }

    /// Returns the server's description of itself.
    #[cfg(feature = "gateway")]
    pub(crate) fn info(&self) -> Option<Arc<rmcp::model::ServerPeerInfo>> {
        self.server_state.info.load_full()
    }

    /// Returns the tools in the server's own form; `None` until they were listed.
    #[cfg(feature = "gateway")]
    pub(crate) fn listed(&self) -> Option<Vec<rmcp::model::Tool>> {
        let is_listed = self
            .server_state
            .is_listed
            .load(std::sync::atomic::Ordering::Acquire);
        is_listed.then(|| self.server_state.toolbox.load().listed.clone())
    }

    /// Sets the tools that may be repeated, regardless of their own hints.
    #[cfg(feature = "gateway")]
    pub(crate) fn set_idempotent(&self, tools: &[String]) {
        self.server_state.set_idempotent(tools);
    }

    /// Sends a request other than a tool call, in the caller's own task, under the same breaker and
    /// limits.
    #[cfg(feature = "gateway")]
    pub(crate) async fn pass<T, F>(
        &self,
        options: CallOptions,
        ask: impl Fn(rmcp::service::Peer<rmcp::RoleClient>) -> F,
    ) -> Result<T, CallError<McpError>>
    where
        F: Future<Output = Result<T, rmcp::ServiceError>>,
    {
        let verdict = |result: &Result<T, McpError>| match result {
            Ok(_) => breakerbox_policy::Class::Success.into(),
            // Neutral: nothing was asked of the server, and its supervisor deals with its start.
            Err(McpError::StartFailed { .. }) => breakerbox_policy::Class::Cancelled.into(),
            Err(error) => error.verdict(),
        };
        let work = || async {
            // MCP-1: it waits for a server that is being started, as a call of a tool does.
            let started = || self.server_state.connector.load_full();
            let connector = self.server_state.start.wait(started).await?;
            let session = connector.session().await?;
            let answered = ask(session.peer().clone()).await;
            answered.map_err(|error| McpError::from(error).refined(&session.liveness))
        };
        let options = self.with_time(options);
        self.client.run_with(options, verdict, work).await
    }

    /// Returns the client that every dependency has, for its status, its breaker, and calls that
    /// ignore the tools' traits.
    #[must_use]
    pub fn client(&self) -> &Client<Mcp> {
        &self.client
    }
}
