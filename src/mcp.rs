//! Protected clients for servers of the Model Context Protocol, as child processes or over HTTP.
//!
//! A process is a supervised worker: its whole process group is owned, killed and reaped with it,
//! a bounded tail of its standard error is kept, and it is replaced when it dies, breaks the
//! protocol or hangs. Both dialects of the protocol are supported. A tool's own error is an answer.
//! There is no promise to undo the effects of a tool (rules CALL-2 and CALL-7).
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
#![cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "only the gateway passes messages on")
)]

// path of a call
mod client;

pub(crate) mod call;

pub(crate) mod audience;

pub(crate) mod tools;

mod tool_figures;

mod group_status;

#[cfg(feature = "gateway")]
mod tool_book;

mod error;

// messages
pub(crate) mod message;

pub(crate) mod json_text;

mod canonical;

mod id_scanner;

pub(crate) mod request_meta;

pub(crate) mod http_headers;

// the server
mod settings;

mod server_state;

mod start_state;

mod dependency;

mod launch;

mod process_pool;

mod connector;

mod session;

pub(crate) mod dialect;

mod handshake;

mod standing;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

pub(crate) mod log_level;

mod tool_list;

mod connection;

mod call_table;

mod liveness;

mod incoming;

mod stdio;

mod spread_message;

mod http;

mod event_stream;

pub(crate) mod pieces_body;

mod process;

mod stderr_tail;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::DependencySettings;

pub use call::{ToolCall, ToolResult};
pub use client::McpClient;
pub use dependency::Mcp;
pub use error::McpError;
pub use group_status::{GroupStatus, MemberStatus};
pub use json_text::JsonText;
pub use settings::{McpServer, McpSettings};
pub use tool_figures::ToolFigures;
pub use tools::Tool;

#[cfg(feature = "gateway")]
pub(crate) use tool_book::{ToolBook, ToolOutcome};

#[cfg(all(target_os = "linux", feature = "cli"))]
pub(crate) use process::{adopt_orphans, reap_all};

use crate::{DependencyBuilder, Fallback, FallbackRule, Runtime, StartError};
use server_state::ServerState;

/// Starts a server as a dependency named `name`, with the policy from the runtime's settings, and
/// waits until it is ready.
///
/// # Errors  The server does not start, or as [`DependencyBuilder::start`].
pub async fn start(
    runtime: &Runtime,
    name: &str,
    settings: &McpSettings,
) -> Result<McpClient, StartError> {
    dependency(runtime, name, settings).start().await
}

/// Time limit of a call where the policy sets none: as long as client libraries wait for a tool.
const CALL: Duration = Duration::from_secs(60);

/// Returns a builder for a server, to set its policy and fallbacks before it starts.
///
/// Where the runtime's settings have the usual time limits, a call may take a minute, and a write
/// waits for its turn as long.
pub fn dependency(runtime: &Runtime, name: &str, settings: &McpSettings) -> McpBuilder {
    let server_state = Arc::new(ServerState::new(settings.clone()));
    let serial = settings.serial_writes;
    let new = runtime.dependency(name).configure(|policy| {
        let writes = &mut policy.bulkhead.max_concurrent_writes;
        if serial && writes.is_none() {
            *writes = Some(NonZeroU32::MIN);
        }
        let usual = DependencySettings::default();
        if policy.timeout == usual.timeout {
            policy.timeout.attempt = Some(CALL);
            policy.timeout.total = Some(CALL);
            policy.breaker.half_open.probe_lease = policy.breaker.half_open.probe_lease.max(CALL);
        }
        if policy.bulkhead.max_wait == usual.bulkhead.max_wait {
            policy.bulkhead.max_wait = policy.timeout.total.unwrap_or(CALL);
        }
    });
    let own = Arc::clone(&server_state);
    McpBuilder {
        builder: new.workers(move || Mcp::start(Arc::clone(&own))),
        server_state,
    }
}

/// Builder of a server.
#[derive(Debug)]
#[must_use = "nothing is started before `start`"]
pub struct McpBuilder {
    builder: DependencyBuilder<Mcp>,
    server_state: Arc<ServerState>,
}

impl McpBuilder {
    /// Changes the policy.
    pub fn configure(mut self, change: impl FnOnce(&mut DependencySettings)) -> Self {
        self.builder = self.builder.configure(change);
        self
    }

    /// Lets these callers hear what the server says beside its answers, from its start on.
    #[cfg(feature = "gateway")]
    pub(crate) fn heard_by(self, audience: std::sync::Weak<dyn audience::ServerAudience>) -> Self {
        self.server_state.set_audience(audience);
        self
    }

    /// Lets it take the place of a running dependency, as
    /// [`DependencyBuilder::replacing`](crate::DependencyBuilder::replacing) does.
    pub fn replacing(mut self) -> Self {
        self.builder = self.builder.replacing();
        self
    }

    /// Starts the server in the background: [`McpBuilder::start`] returns at once. Until it runs,
    /// calls wait for it or fail with the cause. A server that does not start is started again
    /// after a backoff, and with [`GiveUp::Retry`](crate::policy::GiveUp::Retry) for ever.
    pub fn background_start(mut self) -> Self {
        self.builder = self.builder.background_start();
        self
    }

    /// Permits [`Runtime::set_fallbacks`](crate::Runtime::set_fallbacks) while it runs.
    pub fn replaceable_fallbacks(mut self) -> Self {
        self.builder = self.builder.replaceable_fallbacks();
        self
    }

    /// Adds a fallback after the others, for refusals and failures but not for writes.
    pub fn fallback(mut self, fallback: impl Fallback<Mcp>) -> Self {
        self.builder = self.builder.fallback(fallback);
        self
    }

    /// Adds a fallback with its own rule for when it serves.
    pub fn fallback_rule(mut self, rule: FallbackRule<Mcp>) -> Self {
        self.builder = self.builder.fallback_rule(rule);
        self
    }

    /// Starts the server, and waits until it is ready, unless it is started in the background.
    ///
    /// # Errors  As [`start`].
    pub async fn start(self) -> Result<McpClient, StartError> {
        let client = self.builder.start().await?;
        Ok(McpClient::new(client, self.server_state))
    }
}
