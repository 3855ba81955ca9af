//! Replays limiter and budget scenarios.

use std::num::NonZeroU32;

use breakerbox_policy::{AimdLimit, Budget, BudgetSettings, Partitions, Rate, Time};
use serde_json::Value;

use super::words::{any_number, fraction, number, only_keys, steps, text, time, unknown};
use super::{Outcome, config, expect};

pub(super) fn replay(scenario: &Value) -> Outcome {
    let config = &scenario["config"];
    match text(config, "kind")? {
        "aimd" => aimd(config),
        "partitioned" => partitioned(scenario),
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
        let initial = config::count(number(case, "initial")?)?.get();
        let min = bound("min", NonZeroU32::MIN)?;
        let mut limit = AimdLimit::new(initial, min, bound("max", NonZeroU32::MAX)?, backoff);
        let in_flight = u32::try_from(number(&case["sample"], "inflight")?).unwrap_or(u32::MAX);
        let after = limit.sample(
            in_flight,
            case["sample"]["dropped"].as_bool().unwrap_or(false),
        );
        expect::same(index + 1, "limit_after", &case["limit_after"], after)?;
    }
    Ok(())
}

fn partitioned(scenario: &Value) -> Outcome {
    let config = &scenario["config"];
    only_keys(config, "configuration", &["kind", "limit", "partitions"])?;
    let mut names = Vec::new();
    let mut shares = Vec::new();
    for (name, share) in config["partitions"].as_object().into_iter().flatten() {
        names.push(name.as_str());
        shares.push(rate(share.as_f64().unwrap_or(-1.0))?);
    }
    let limit = u32::try_from(number(config, "limit")?).unwrap_or(u32::MAX);
    let fresh = || Partitions::new(limit, &shares);
    let mut partitions = fresh();
    for (step_number, step) in steps(scenario) {
        let partition = || {
            let name = text(step, "partition")?;
            let place = names.iter().position(|known| *known == name);
            place.ok_or_else(|| unknown("partition", name))
        };
        let count = any_number(step, &["count"]).unwrap_or(1);
        let mut granted = 0;
        match text(step, "op")? {
            "acquire" | "try_acquire" => {
                let partition = partition()?;
                for _ in 0..count {
                    granted += u64::from(partitions.acquire(partition));
                }
            }
            "release" => {
                let partition = partition()?;
                for _ in 0..count {
                    partitions.release(partition);
                }
            }
            "fresh" => partitions = fresh(),
            "set" => {
                let limit = number(step, "limit")?;
                partitions.set_limit(u32::try_from(limit).unwrap_or(u32::MAX));
            }
            "observe" => {}
            op => return Err(unknown("op", op)),
        }
        for (word, expected) in step["expect"].as_object().into_iter().flatten() {
            match word.as_str() {
                "granted" => expect::same(step_number, word, expected, granted)?,
                "inflight" => {
                    let own = partitions.in_flight(partition()?);
                    expect::same(step_number, word, expected, own)?;
                }
                "total_inflight" => {
                    expect::same(step_number, word, expected, partitions.total())?;
                }
                word => return Err(unknown("expectation", word)),
            }
        }
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
                    expect::same(step_number, word, expected, budget.balance(now))?;
                }
                (word, _) => return Err(unknown("expectation", word)),
            }
        }
    }
    Ok(())
}
