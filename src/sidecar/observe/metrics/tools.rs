//! Metrics of the tools of MCP servers.
//!
//! The label is the name of a tool that its server lists or that the configuration has, else
//! `other`: callers cannot make up series.

#[cfg(feature = "mcp")]
use crate::mcp::ToolFigures;

#[cfg(feature = "mcp")]
use super::series::SeriesFamily;

/// The figures of all tools, by server.
#[derive(Debug, Default)]
pub(crate) struct ToolSeries {
    #[cfg(feature = "mcp")]
    pub(crate) servers: Vec<(String, Vec<ToolFigures>)>,
}

#[cfg(feature = "mcp")]
impl ToolSeries {
    pub(super) fn families(&self) -> [SeriesFamily; 2] {
        let mut calls = SeriesFamily::counter(
            "breakerbox_tool_calls_total",
            "Calls of tools of MCP servers that ended, by their result.",
        );
        let mut durations = SeriesFamily::histogram(
            "breakerbox_tool_duration_seconds",
            "Duration of calls of tools, as callers saw them.",
        );
        for (server, tools) in &self.servers {
            for tool in tools.iter().filter(|tool| tool.calls > 0) {
                let name = [
                    ("dependency", server.as_str()),
                    ("tool", tool.name.as_str()),
                ];
                let answered = tool.calls.saturating_sub(tool.failed + tool.tool_errors);
                let ends = [
                    ("answered", answered),
                    ("tool_error", tool.tool_errors),
                    ("failed", tool.failed),
                ];
                for (result, count) in ends {
                    let [server, tool] = name;
                    calls.add(&[server, tool, ("result", result)], count);
                }
                durations.add_histogram(&name, &tool.durations);
            }
        }
        [calls, durations]
    }
}
