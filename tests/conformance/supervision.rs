//! Replays supervision scenarios, each twice: on the pure machine, and on real actors.

mod compare;
mod scenario;

mod machine;

mod actors;
mod specimen;

use serde_json::Value;

use crate::report::Verdict;

/// Replays one scenario; it holds when both replays say so.
pub(crate) fn replay(scenario: &Value) -> Verdict {
    let scenario = match scenario::read(scenario) {
        Ok(scenario) => scenario,
        Err(word) => return Verdict::Skip(format!("no counterpart for: {word}")),
    };
    let pure = compare::verdict(&scenario.expect, &machine::replay(&scenario));
    if pure != Verdict::Ok {
        return pure;
    }
    match actors::replay(&scenario) {
        Ok(seen) => compare::verdict(&scenario.expect, &seen).among_actors(),
        // The machine alone knows this word; its replay counts.
        Err(_word) => Verdict::Ok,
    }
}
