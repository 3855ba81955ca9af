//! Replays breaker scenarios on the kernel, with `now` as an argument.
//!
//! The head of the scenario file explains the words. An unknown word skips its scenario and is
//! named; nothing else is skipped but what a scenario itself calls a quirk of one product.

mod config;
mod expect;
mod layers;
mod limiter;
mod memory;
mod stack;
mod words;

use serde_json::Value;

use crate::report::Verdict;

/// Ends a replay early.
type Outcome<T = ()> = Result<T, Verdict>;

/// Replays one scenario.
pub(crate) fn replay(scenario: &Value) -> Verdict {
    let replayed = match scenario["area"].as_str().unwrap_or_default() {
        "breaker" | "composition" => stack::replay(scenario),
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
