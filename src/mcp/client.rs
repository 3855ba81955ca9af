//! The handle by which anybody calls the tools of a server: it knows what each tool is.

use std::future::Future;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::board::Board;
use super::call::{ToolCall, ToolResult};
use super::dependency::Mcp;
use super::error::McpError;
use super::tools::Tool;
use crate::{Answer, CallError, CallOptions, Client};

/// A server's handle: cheap to clone, good on any thread, the same after every restart.
#[derive(Debug, Clone)]
pub struct McpClient {
    client: Client<Mcp>,
    pub(super) board: Arc<Board>,
}

impl McpClient {
    pub(super) fn new(client: Client<Mcp>, board: Arc<Board>) -> Self {
        Self { client, board }
    }

    /// Calls a tool. It is taken for a write, and not repeated after it may have been executed,
    /// unless the settings or the tool itself say otherwise.
    ///
    /// # Errors  [`CallError`], as of every dependency. A tool's own error is an answer, with
    /// [`ToolResult::is_error`].
    /// # Cancel safety   As [`Client::ask`]; a server that has begun is told.
    pub fn call(
        &self,
        name: impl Into<String>,
        arguments: Map<String, Value>,
    ) -> impl Future<Output = Result<Answer<ToolResult>, CallError<McpError>>> {
        self.call_with(name, arguments, CallOptions::default())
    }

    /// Calls a tool with settings of this call's own. What they say of writing and of repeating
    /// goes before what is known of the tool.
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
        request.nature = self.board.nature(&request);
        let options = CallOptions {
            idempotent: options.idempotent.or(Some(request.nature.idempotent)),
            write: options.write.or(Some(request.nature.write)),
            ..options
        };
        self.client.ask_with(request, options)
    }

    /// The server's tools, as they were last listed: after each start, and when it said that they
    /// have changed.
    #[must_use]
    pub fn tools(&self) -> Arc<[Tool]> {
        Arc::clone(&self.board.toolbox.load().tools)
    }

    /// The version of the protocol that the server speaks, such as `2025-11-25`; `None` until it
    /// was reached for the first time.
    #[must_use]
    pub fn protocol_version(&self) -> Option<String> {
        let info = self.board.info.load();
        info.as_ref().map(|info| info.protocol_version.to_string())
    }

    /// The last lines that the server wrote to its standard error, in its present life.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.board.words.now()
    }

    /// The last lines that it wrote in the life before, where there was one.
    #[must_use]
    pub fn last_words(&self) -> Vec<String> {
        self.board.words.before()
    }

    /// The handle that every dependency has: its status, its breaker, and calls without what is
    /// known of the tools.
    #[must_use]
    pub fn client(&self) -> &Client<Mcp> {
        &self.client
    }
}
