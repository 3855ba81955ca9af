//! The books in which calls of tools are counted.
//!
//! The number of tools that are counted by name is bounded: only names that the server lists, or
//! that the configuration has, are counted so.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use breakerbox_actors::LatencyBuckets;

use super::tool_figures::ToolFigures;
use crate::lock::LockExt as _;

/// Name under which calls of all other tools are counted.
const OTHER: &str = "other";
/// Maximum number of tools that are counted by name.
const MAX_TOOLS: usize = 256;
/// Bounds of the durations.
///
/// # Units   Milliseconds.
const BOUNDS: [u64; 15] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
];

/// Result of a call of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolOutcome {
    /// An answer.
    Answered,
    /// An answer that is the tool's own error.
    ToolError,
    /// No answer.
    Failed,
}

/// The figures of one server's tools.
#[derive(Debug, Default)]
pub(crate) struct ToolBook {
    tools: Mutex<BTreeMap<String, ToolCounts>>,
}

#[derive(Debug, Default, Clone)]
struct ToolCounts {
    calls: u64,
    failed: u64,
    tool_errors: u64,
    below: [u64; BOUNDS.len()],
    sum: Duration,
}

impl ToolBook {
    /// Counts a call that has ended. `is_known`: true if the server lists the tool, or the
    /// configuration names it.
    pub(crate) fn count(
        &self,
        tool: &str,
        is_known: bool,
        outcome: ToolOutcome,
        duration: Duration,
    ) {
        let mut tools = self.tools.acquire();
        let has_room = tools.len() < MAX_TOOLS || tools.contains_key(tool);
        let name = if is_known && has_room { tool } else { OTHER };
        if !tools.contains_key(name) {
            tools.insert(name.to_owned(), ToolCounts::default());
        }
        let Some(counts) = tools.get_mut(name) else {
            return;
        };
        counts.calls += 1;
        counts.failed += u64::from(outcome == ToolOutcome::Failed);
        counts.tool_errors += u64::from(outcome == ToolOutcome::ToolError);
        counts.sum = counts.sum.saturating_add(duration);
        for (below, bound) in counts.below.iter_mut().zip(BOUNDS) {
            *below += u64::from(duration <= Duration::from_millis(bound));
        }
    }

    /// Returns the figures of all tools that were called, by name.
    pub(crate) fn figures(&self) -> Vec<ToolFigures> {
        let tools = self.tools.acquire();
        let figures = tools.iter().map(|(name, counts)| {
            let mut durations = LatencyBuckets::default();
            let bounds = BOUNDS.map(Duration::from_millis);
            durations.buckets = bounds.into_iter().zip(counts.below).collect();
            durations.count = counts.calls;
            durations.sum = counts.sum;
            ToolFigures {
                name: name.clone(),
                calls: counts.calls,
                failed: counts.failed,
                tool_errors: counts.tool_errors,
                durations,
            }
        });
        figures.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcp_6_the_names_that_are_counted_are_bounded() {
        let book = ToolBook::default();
        let ms = Duration::from_millis;
        for number in 0..1000 {
            let name = format!("tool{number}");
            book.count(&name, true, ToolOutcome::Answered, ms(3));
        }
        book.count("tool1", true, ToolOutcome::Failed, ms(70));
        book.count("tool1", true, ToolOutcome::ToolError, ms(7));
        book.count("made up", false, ToolOutcome::Failed, ms(1));
        let figures = book.figures();
        assert!(figures.len() <= MAX_TOOLS + 1, "{}", figures.len());
        let of = |name: &str| figures.iter().find(|one| one.name == name).unwrap();
        let one = of("tool1");
        assert_eq!((one.calls, one.failed, one.tool_errors), (3, 1, 1));
        assert_eq!(one.durations.sum, ms(80));
        assert_eq!(one.durations.buckets[2], (ms(5), 1));
        assert_eq!(one.durations.buckets[3], (ms(10), 2));
        assert_eq!(one.durations.buckets[6], (ms(100), 3));
        let all: u64 = figures.iter().map(|one| one.calls).sum();
        assert_eq!(all, 1003);
        assert!(of(OTHER).calls > 0);
        assert!(figures.iter().all(|one| one.name != "made up"));
    }
}
