//! Replays supervision scenarios.

mod compare;
mod machine;
mod scenario;

use serde_json::Value;

use crate::report::Verdict;

/// Replays one scenario on the pure machine.
pub(crate) fn replay(scenario: &Value) -> Verdict {
    match scenario::read(scenario) {
        Ok(scenario) => compare::verdict(&scenario.expect, &machine::replay(&scenario)),
        Err(word) => Verdict::Skip(format!("no counterpart for: {word}")),
    }
}
