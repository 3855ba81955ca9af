//! Reads JSON, and names what it cannot read.

use std::time::Duration;

use breakerbox_policy::Time;
use serde_json::Value;

use super::Outcome;
use crate::report::Verdict;

pub(super) fn unknown(kind: &str, word: impl std::fmt::Display) -> Verdict {
    Verdict::Skip(format!("unknown {kind} `{word}`"))
}

/// Makes sure that an object has no key but these.
pub(super) fn only_keys(value: &Value, kind: &str, known: &[&str]) -> Outcome {
    for key in value.as_object().into_iter().flatten().map(|(key, _)| key) {
        if !known.contains(&key.as_str()) {
            return Err(unknown(kind, key));
        }
    }
    Ok(())
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> Outcome<&'a str> {
    let found = &value[key];
    found.as_str().ok_or_else(|| unknown(key, found))
}

pub(super) fn number(value: &Value, key: &str) -> Outcome<u64> {
    let found = &value[key];
    found.as_u64().ok_or_else(|| unknown(key, found))
}

/// The first of these keys that is there.
pub(super) fn any_number(value: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| value[*key].as_u64())
}

pub(super) fn fraction(value: &Value, key: &str) -> Outcome<f64> {
    let found = &value[key];
    found.as_f64().ok_or_else(|| unknown(key, found))
}

/// A moment in milliseconds, possibly with a fraction.
pub(super) fn time(step: &Value) -> Outcome<Time> {
    Ok(Time::ZERO.after(span(&step["t"]).ok_or_else(|| unknown("t", &step["t"]))?))
}

/// A span in milliseconds, possibly with a fraction.
pub(super) fn span(value: &Value) -> Option<Duration> {
    value
        .as_f64()
        .and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok())
}

pub(super) fn steps(scenario: &Value) -> impl Iterator<Item = (usize, &Value)> {
    scenario["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, step)| (index + 1, step))
}
