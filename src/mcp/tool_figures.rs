//! Figures of each tool of a server: calls, failures and durations.

use breakerbox_actors::LatencyBuckets;

/// Figures of one tool.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolFigures {
    /// The tool's name, as callers see it; `other` for all that are not counted by name.
    pub name: String,
    /// Number of calls that have ended.
    pub calls: u64,
    /// Number of those that ended without an answer.
    pub failed: u64,
    /// Number of those that ended with the tool's own error.
    pub tool_errors: u64,
    /// Their durations, as callers saw them.
    pub durations: LatencyBuckets,
}

#[cfg(feature = "gateway")]
impl ToolFigures {
    /// Returns the figures of a tool that was never called.
    pub(crate) fn idle(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            calls: 0,
            failed: 0,
            tool_errors: 0,
            durations: LatencyBuckets::default(),
        }
    }
}
