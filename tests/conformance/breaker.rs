//! Replays breaker scenarios.

use serde_json::Value;

use crate::report::Verdict;

/// Replays one scenario.
pub(crate) fn replay(_scenario: &Value) -> Verdict {
    Verdict::Skip("not replayed yet".into())
}
