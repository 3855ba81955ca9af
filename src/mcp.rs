//! Servers that speak the Model Context Protocol, under the runtime's protection: as processes of
//! ours, or over HTTP.
//!
//! A process is a supervised worker: its whole group of processes is owned, killed and reaped with
//! it, its standard error is kept within bounds, and it is replaced when it dies, breaks the
//! protocol or hangs. Both dialects are spoken. A tool's own error is an answer; what a tool may
//! have done is never promised to be undone (rules CALL-2 and CALL-7).
//!
//! ```no_run
//! use breakerbox::mcp::{self, McpSettings};
//! use breakerbox::prelude::*;
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::start(RuntimeSettings::default()).await?;
//! let server = McpSettings::stdio("npx", ["-y", "@modelcontextprotocol/server-memory"]);
//! let graph = mcp::start(&runtime, "knowledge_graph", &server).await?;
//! let query = json!({ "query": "ada" });
//! let found = graph.call("search_nodes", query.as_object().cloned().unwrap_or_default()).await?;
//! println!("{}", found.value.content);
//! runtime.shutdown().await;
//! # Ok(())
//! # }
//! ```

// a call's way
mod client;

mod call;

mod tools;

mod error;

// the server
mod settings;

mod board;

mod dependency;

mod link;

mod session;

mod signs;

mod pipe;

mod process;

mod words;

use std::num::NonZeroU32;
use std::sync::Arc;

use breakerbox_policy::DependencySettings;

pub use call::{ToolCall, ToolResult};
pub use client::McpClient;
pub use dependency::Mcp;
pub use error::McpError;
pub use settings::{McpServer, McpSettings};
pub use tools::Tool;

use crate::{DependencyBuilder, Fallback, Rule, Runtime, StartError};
use board::Board;

/// Starts a server as a dependency of this name, with the policy that the runtime's settings have
/// for it, and waits until it serves.
///
/// # Errors  The server does not start, or as [`DependencyBuilder::start`].
pub async fn start(
    runtime: &Runtime,
    name: &str,
    settings: &McpSettings,
) -> Result<McpClient, StartError> {
    dependency(runtime, name, settings).start().await
}

/// A server that can be started, once its policy and its fallbacks are said.
pub fn dependency(runtime: &Runtime, name: &str, settings: &McpSettings) -> McpBuilder {
    let board = Arc::new(Board::new(settings.clone()));
    let serial = settings.serial_writes;
    let new = runtime.dependency(name).configure(|policy| {
        let writes = &mut policy.bulkhead.max_concurrent_writes;
        if serial && writes.is_none() {
            *writes = Some(NonZeroU32::MIN);
        }
    });
    let own = Arc::clone(&board);
    McpBuilder {
        builder: new.workers(move || Mcp::start(Arc::clone(&own))),
        board,
    }
}

/// A server that can be started.
#[derive(Debug)]
#[must_use = "nothing is started before `start`"]
pub struct McpBuilder {
    builder: DependencyBuilder<Mcp>,
    board: Arc<Board>,
}

impl McpBuilder {
    /// Changes its policy.
    pub fn configure(mut self, change: impl FnOnce(&mut DependencySettings)) -> Self {
        self.builder = self.builder.configure(change);
        self
    }

    /// Adds a fallback behind the others, for refusals and failures but not for writes.
    pub fn fallback(mut self, fallback: impl Fallback<Mcp>) -> Self {
        self.builder = self.builder.fallback(fallback);
        self
    }

    /// Adds a fallback that says itself when it serves.
    pub fn fallback_rule(mut self, rule: Rule<Mcp>) -> Self {
        self.builder = self.builder.fallback_rule(rule);
        self
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Errors  As [`start`].
    pub async fn start(self) -> Result<McpClient, StartError> {
        let client = self.builder.start().await?;
        Ok(McpClient::new(client, self.board))
    }
}
