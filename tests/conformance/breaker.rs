//! Replays breaker scenarios on the kernel, with `now` as an argument, and composition scenarios
//! through a real runtime too.
//!
//! The head of the scenario file explains the words. An unknown word skips its scenario and is
//! named; nothing else is skipped but what a scenario itself calls a quirk of one product.

mod actors;
mod config;
mod expect;
mod layers;
mod limiter;
mod memory;
mod slots;
mod stack;
mod words;

use serde_json::Value;

use crate::report::Verdict;

/// Ends a replay early.
type Outcome<T = ()> = Result<T, Verdict>;

/// Replays one scenario.
pub(crate) fn replay(scenario: &Value) -> Verdict {
    let replayed = match scenario["area"].as_str().unwrap_or_default() {
        "breaker" => stack::replay(scenario),
        "composition" => stack::replay(scenario).and_then(|()| among_actors(scenario)),
        "window" => memory::replay(scenario),
        "limiter" => limiter::replay(scenario),
        "budget" => limiter::replay_budget(scenario),
        area => Err(words::unknown("area", area)),
    };
    match replayed {
        Ok(()) => Verdict::Ok,
        Err(verdict) => verdict,
    }
}

/// Replays a composition scenario through a real runtime; where that lacks a word of it, the
/// kernel's replay counts alone.
fn among_actors(scenario: &Value) -> Outcome {
    match actors::replay(scenario) {
        Err(Verdict::Skip(_no_counterpart)) => Ok(()),
        other => other.map_err(Verdict::among_actors),
    }
}
