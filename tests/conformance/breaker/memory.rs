//! Replays window scenarios.

use std::time::Duration;

use breakerbox_policy::{Time, Window};
use serde_json::Value;

use super::words::{any_number, only_keys, steps, text, time, unknown};
use super::{Outcome, config, expect};

pub(super) fn replay(scenario: &Value) -> Outcome {
    only_keys(&scenario["config"], "configuration", &["window"])?;
    let mut window = Window::new(config::window(&scenario["config"]["window"])?, Time::ZERO);
    for (number, step) in steps(scenario) {
        let now = time(step)?;
        match text(step, "op")? {
            "record" => {
                let took = any_number(step, &["took_ms"]).unwrap_or(0);
                let took = Duration::from_millis(took);
                let slow = step["slow"].as_bool().unwrap_or(false);
                match text(step, "outcome")? {
                    "success" => window.record(now, false, slow, took),
                    "failure" | "timeout" | "panic" => window.record(now, true, slow, took),
                    "ignored" | "released" => {}
                    outcome => return Err(unknown("outcome", outcome)),
                }
            }
            "observe" => {}
            "fresh" | "clear" | "reset" => window.clear(now),
            op => return Err(unknown("op", op)),
        }
        let counts = window.counts(now);
        for (word, expected) in step["expect"].as_object().into_iter().flatten() {
            expect::counts(number, word, expected, &counts)?;
        }
    }
    Ok(())
}
