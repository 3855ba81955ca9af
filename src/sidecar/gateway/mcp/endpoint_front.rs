//! Front of an MCP server, from the configuration: the tools of its callers and their headers that
//! pass to it; and the figures of its tools.
//!
//! It outlives the server: a reload changes it in place, and a new start of the server goes on with
//! it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::tool_table::{AppliedTools, ReachableTool};
use crate::CallOptions;
use crate::config::{DependencyConfig, is_credential_name};
use crate::mcp::tools::RawTool;
use crate::mcp::{McpClient, ToolBook, ToolFigures, ToolOutcome};

/// Maximum number of tools with figures that were never called.
const MAX_IDLE: usize = 256;

/// The front of one server.
pub(crate) struct EndpointFront {
    tools: ArcSwap<AppliedTools>,
    forwarded: ArcSwap<PassedHeaders>,
    book: ToolBook,
}

/// The headers of callers that pass to the server, and the credentials of our own beside them.
struct PassedHeaders {
    names: Vec<HeaderName>,
    has_own_credentials: bool,
}

impl EndpointFront {
    pub(crate) fn new(config: &DependencyConfig) -> Self {
        Self {
            tools: ArcSwap::from_pointee(AppliedTools::new(&config.tools)),
            forwarded: ArcSwap::from_pointee(PassedHeaders::of(config)),
            book: ToolBook::default(),
        }
    }

    /// Applies a configuration.
    pub(crate) fn follow(&self, config: &DependencyConfig) {
        if !self.tools.load().is_of(&config.tools) {
            let tools = AppliedTools::new(&config.tools);
            self.tools.store(Arc::new(tools));
        }
        self.forwarded.store(Arc::new(PassedHeaders::of(config)));
    }

    /// Returns the tool that a caller means; `None` if there is none that it may reach.
    pub(crate) fn find(&self, name: &str) -> Option<ReachableTool> {
        self.tools.load().find(name)
    }

    /// Returns the tools that callers see, as they see them.
    pub(crate) fn shown(&self, tools: &Arc<[RawTool]>) -> Arc<[RawTool]> {
        self.tools.load().seen(tools)
    }

    /// Applies the table to the result of `tools/list`; `None` if it stays as it is.
    pub(crate) fn filter(&self, result: &str) -> Option<String> {
        self.tools.load().filter(result)
    }

    /// Returns the key of the time that a tool has for each attempt; `None` if the table gives it none.
    /// `own`: the server's own name.
    pub(crate) fn time_key(&self, own: &str) -> Option<String> {
        self.tools.load().time_key(own)
    }

    /// Warns once of entries for tools that the server does not have.
    pub(crate) fn tell_absent(&self, client: &McpClient) {
        let listed = client.listed().unwrap_or_default();
        let tools = self.tools.load();
        tools.tell_absent(client.client().name(), &listed);
    }

    /// Returns the headers of a caller that pass to the server; `None` if there are none.
    pub(crate) fn forwarded(&self, headers: &HeaderMap) -> Option<Arc<HeaderMap>> {
        let forwarded = self.forwarded.load();
        let mut passed = HeaderMap::new();
        for name in &forwarded.names {
            for value in headers.get_all(name) {
                let mut value = value.clone();
                value.set_sensitive(true);
                passed.append(name, value);
            }
        }
        (!passed.is_empty()).then(|| Arc::new(passed))
    }

    /// Returns true if the credentials that the server checks are those of the caller: it has sent
    /// them, or has to. `passed`: its headers that pass.
    pub(crate) fn are_callers_credentials(&self, passed: Option<&HeaderMap>) -> bool {
        let forwarded = self.forwarded.load();
        let mut names = forwarded.names.iter();
        // EDGE-1: a refusal is about this header, also if keys of ours go with it.
        passed.is_some_and(|passed| passed.contains_key(AUTHORIZATION))
            || !forwarded.has_own_credentials && names.any(|name| is_credential_name(name.as_str()))
    }

    /// Counts a call that has ended. `tool`: as callers see it.
    pub(crate) fn count(
        &self,
        client: &McpClient,
        tool: &str,
        outcome: ToolOutcome,
        duration: Duration,
    ) {
        let tools = self.tools.load();
        let own = tools.find(tool).map(|tool| tool.name);
        let is_known = own.is_some_and(|own| tools.names(&own) || client.lists(&own));
        self.book.count(tool, is_known, outcome, duration);
    }

    /// Returns the figures of all tools that callers see, by name.
    pub(crate) fn figures(&self, client: &McpClient) -> Vec<ToolFigures> {
        let tools = self.tools.load();
        let mut figures = self.book.figures();
        let listed = client.listed().unwrap_or_default();
        let idle = listed.iter().filter_map(|tool| tools.shown(tool.name()));
        let idle: Vec<ToolFigures> = idle
            .filter(|name| !figures.iter().any(|tool| tool.name == *name))
            .take(MAX_IDLE)
            .map(ToolFigures::idle)
            .collect();
        figures.extend(idle);
        figures.sort_by(|one, other| one.name.cmp(&other.name));
        figures
    }
}

impl ReachableTool {
    /// Applies the table's entry to the options of a call. What the entry does not say stays as the
    /// tool's own hints have it.
    pub(crate) fn apply(&self, options: &mut CallOptions) {
        options.write = self.rule.write.or(options.write);
        options.idempotent = self.rule.idempotent.or(options.idempotent);
        options.attempt = self.rule.timeout.or(options.attempt);
    }
}

impl PassedHeaders {
    fn of(config: &DependencyConfig) -> Self {
        let own = config.mcp.iter().flat_map(|own| own.headers.keys());
        let own: Vec<String> = own.map(|name| name.to_ascii_lowercase()).collect();
        // MCP-6: the gateway's own headers take precedence.
        let names = config.forward_headers.iter();
        let names = names.filter(|name| !own.contains(&name.to_ascii_lowercase()));
        Self {
            names: names.filter_map(|name| name.parse().ok()).collect(),
            has_own_credentials: own.iter().any(|name| is_credential_name(name)),
        }
    }
}
