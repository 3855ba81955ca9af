//! The tools of an MCP server, as API clients see them.

#![cfg_attr(
    not(feature = "mcp"),
    allow(dead_code, reason = "without MCP servers there are no tools")
)]

use serde::Serialize;

use super::Admin;
#[cfg(feature = "mcp")]
use crate::mcp::ToolFigures;

/// Maximum number of tools in the view of all dependencies.
#[cfg(feature = "mcp")]
const MOST: usize = 12;

/// A tool with its figures.
#[derive(Debug, Serialize)]
pub(super) struct ToolView {
    /// The name, as callers see it; `other` for all that are not counted by name.
    name: String,
    calls: u64,
    /// Number of calls without an answer.
    failed: u64,
    /// Number of calls that ended with the tool's own error.
    tool_errors: u64,
    latency_ms: ToolMillis,
}

/// Durations of a tool's calls. The percentiles are upper bounds, as coarse as the buckets of the
/// metrics, and `None` without a call or above the last bucket.
#[derive(Debug, Default, Serialize)]
struct ToolMillis {
    p50: Option<u64>,
    p99: Option<u64>,
    sum: f64,
}

/// Returns the tools that are called most; `None` for a dependency that is no MCP server.
#[cfg(feature = "mcp")]
pub(super) fn most_called(admin: &Admin, name: &str) -> Option<Vec<ToolView>> {
    let mut tools = admin.tools_of(name)?;
    tools.retain(|tool| tool.calls > 0);
    tools.sort_by(|one, other| (other.calls, &one.name).cmp(&(one.calls, &other.name)));
    tools.truncate(MOST);
    Some(tools.into_iter().map(view).collect())
}

/// Returns all tools, those that were never called among them.
#[cfg(feature = "mcp")]
pub(super) fn all(admin: &Admin, name: &str) -> Option<Vec<ToolView>> {
    let tools = admin.tools_of(name)?;
    Some(tools.into_iter().map(view).collect())
}

#[cfg(feature = "mcp")]
fn view(tool: ToolFigures) -> ToolView {
    let durations = &tool.durations;
    // The first bound below which this part of the calls ended.
    let bound = |percent: u64| {
        let wanted = (durations.count * percent).div_ceil(100).max(1);
        let mut buckets = durations.buckets.iter();
        let found = buckets.find(|(_, below)| *below >= wanted);
        found.and_then(|(bound, _)| u64::try_from(bound.as_millis()).ok())
    };
    ToolView {
        latency_ms: ToolMillis {
            p50: bound(50),
            p99: bound(99),
            sum: crate::rounded::millis(durations.sum),
        },
        name: tool.name,
        calls: tool.calls,
        failed: tool.failed,
        tool_errors: tool.tool_errors,
    }
}

#[cfg(not(feature = "mcp"))]
pub(super) fn most_called(_: &Admin, _: &str) -> Option<Vec<ToolView>> {
    None
}
