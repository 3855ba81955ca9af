//! Replays limiter and budget scenarios.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    AdaptiveLimit, AdaptiveRule, AdaptiveSettings, Budget, BudgetSettings, Rate, Time,
};
use serde_json::Value;

use super::words::{any_number, fraction, number, only_keys, span, steps, text, time, unknown};
use super::{Outcome, config, expect};

pub(super) fn replay(scenario: &Value) -> Outcome {
    let config = &scenario["config"];
    match text(config, "kind")? {
        "aimd" => aimd(config),
        // The runtime divides no limit among kinds of calls: priorities order its waiters (CALL-6).
        kind => Err(unknown("limiter", kind)),
    }
}

fn rate(given: f64) -> Outcome<Rate> {
    Rate::new(given).map_err(|error| unknown("share", error))
}

fn aimd(config: &Value) -> Outcome {
    only_keys(
        config,
        "configuration",
        &["kind", "backoff_ratio", "min", "max", "cases"],
    )?;
    let backoff = rate(config["backoff_ratio"].as_f64().unwrap_or(0.9))?;
    for (index, case) in config["cases"].as_array().into_iter().flatten().enumerate() {
        only_keys(
            case,
            "case",
            &["initial", "min", "max", "sample", "limit_after"],
        )?;
        only_keys(
            &case["sample"],
            "sample",
            &["rtt_ms", "inflight", "dropped"],
        )?;
        let bound = |key: &str, default: NonZeroU32| {
            any_number(case, &[key])
                .or_else(|| any_number(config, &[key]))
                .map_or(Ok(default), config::count)
        };
        let settings = AdaptiveSettings {
            rule: AdaptiveRule::Aimd { backoff },
            min: bound("min", NonZeroU32::MIN)?,
            initial: config::count(number(case, "initial")?)?,
            idle: Duration::MAX,
        };
        let mut limit = AdaptiveLimit::new(&settings, bound("max", NonZeroU32::MAX)?);
        let in_flight = u32::try_from(number(&case["sample"], "inflight")?).unwrap_or(u32::MAX);
        let dropped = case["sample"]["dropped"].as_bool().unwrap_or(false);
        let rtt = span(&case["sample"]["rtt_ms"]).unwrap_or_default();
        let after = limit.sample(Time::ZERO, in_flight, rtt, dropped);
        expect::same(index + 1, "limit_after", &case["limit_after"], after)?;
    }
    Ok(())
}

/// A retry budget by calls, retries and time.
pub(super) fn replay_budget(scenario: &Value) -> Outcome {
    let config = &scenario["config"];
    only_keys(
        config,
        "configuration",
        &["kind", "ratio", "floor_per_second"],
    )?;
    let settings = BudgetSettings {
        ratio: fraction(config, "ratio")?,
        floor_per_second: u32::try_from(number(config, "floor_per_second")?).unwrap_or(u32::MAX),
    };
    let mut budget = Budget::new(&settings, Time::ZERO);
    for (step_number, step) in steps(scenario) {
        let now = time(step)?;
        let count = any_number(step, &["count"]).unwrap_or(1);
        let mut granted = 0;
        match text(step, "op")? {
            "deposit" | "call" | "request" => budget.deposit(now, count),
            "acquire" | "try_acquire" | "withdraw" | "try_withdraw" | "retry" => {
                granted = (0..count)
                    .map(|_| u64::from(budget.try_withdraw(now)))
                    .sum();
            }
            "fresh" => budget = Budget::new(&settings, now),
            "observe" => {}
            op => return Err(unknown("op", op)),
        }
        for (word, expected) in step["expect"].as_object().into_iter().flatten() {
            match (word.as_str(), expected.as_bool()) {
                ("granted", Some(_)) => {
                    expect::same(step_number, word, expected, granted == count)?;
                }
                ("granted", None) => expect::same(step_number, word, expected, granted)?,
                ("balance", _) => {
                    // As many as a copy of it would grant.
                    let mut copy = budget.clone();
                    let left = std::iter::repeat_with(|| copy.try_withdraw(now));
                    let left = left.take_while(|granted| *granted).count() as u64;
                    expect::same(step_number, word, expected, left)?;
                }
                (word, _) => return Err(unknown("expectation", word)),
            }
        }
    }
    Ok(())
}
