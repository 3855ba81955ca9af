//! Compares what happened with what a scenario asks for.

use breakerbox_policy::{Time, WindowCounts};
use serde_json::{Value, json};

use super::Outcome;
use super::layers::Guard;
use super::words::unknown;
use crate::report::Verdict;

/// One word of an expectation.
pub(super) fn same(step: usize, word: &str, expected: &Value, got: impl Into<Value>) -> Outcome {
    let got = got.into();
    let equal = match (expected.as_f64(), got.as_f64()) {
        (Some(expected), Some(got)) => (expected - got).abs() < 1e-9,
        _ => *expected == got,
    };
    if equal {
        Ok(())
    } else {
        Err(differs(step, word, expected, &got))
    }
}

/// A word for which several readings are right.
pub(super) fn any(step: usize, word: &str, expected: &Value, got: &[Value]) -> Outcome {
    let mut result = Err(differs(step, word, expected, &json!(got)));
    for got in got {
        result =
            result.or_else(|verdict| same(step, word, expected, got.clone()).map_err(|_| verdict));
    }
    result
}

fn differs(step: usize, word: &str, expected: &Value, got: &Value) -> Verdict {
    Verdict::fail(step, format!("{word} {expected}"), got)
}

/// Words about what a window holds.
pub(super) fn counts(step: usize, word: &str, expected: &Value, counts: &WindowCounts) -> Outcome {
    let rate = |rate: Option<f64>| rate.map_or(Value::Null, Value::from);
    match word {
        "counts" | "at_trip" | "window" => {
            for (word, expected) in expected.as_object().into_iter().flatten() {
                self::counts(step, word, expected, counts)?;
            }
            Ok(())
        }
        "total" | "calls" => same(step, word, expected, counts.calls),
        "failed" | "failures" => same(step, word, expected, counts.failures),
        "succeeded" | "successes" | "successful" => {
            same(step, word, expected, counts.calls - counts.failures)
        }
        "slow" | "slow_total" => same(step, word, expected, counts.slow),
        "failure_rate" => same(step, word, expected, rate(counts.failure_rate(1))),
        "slow_rate" => same(step, word, expected, rate(counts.slow_rate(1))),
        "consecutive_failures" => same(step, word, expected, counts.consecutive_failures),
        "total_took_ms" => {
            let total = counts.elapsed_total.as_secs_f64() * 1000.0;
            same(step, word, expected, total)
        }
        "average_took_ms" | "mean_took_ms" => {
            #[expect(clippy::cast_precision_loss)]
            let mean = counts.elapsed_total.as_secs_f64() * 1000.0 / counts.calls.max(1) as f64;
            same(step, word, expected, mean)
        }
        word => Err(unknown("expectation", word)),
    }
}

/// Words about the (first) breaker.
pub(super) fn breaker(
    guard: &Guard,
    number: usize,
    word: &str,
    expected: &Value,
    now: Time,
    refused: bool,
) -> Outcome {
    let view = guard.breaker.view(now);
    let equals = |got: Value| same(number, word, expected, got);
    match word {
        "state" => guard.expect_state(number, expected),
        "retry_after_ms" => {
            let wait = match guard.refusal {
                Some(refusal) if refused => refusal.retry_after,
                _ => view.retry_after,
            };
            equals(json!(wait.map(|wait| wait.as_secs_f64() * 1000.0)))
        }
        "lost_results" => equals(json!(view.tally.late)),
        "open_wait_attempt" => equals(json!(view.open_attempt)),
        "half_open_successes" => equals(json!(view.half_open.map(|period| period.successes))),
        "half_open_in_flight" => equals(json!(view.half_open.map(|period| period.in_flight))),
        "at_trip" => {
            let at_trip = guard.at_trip.unwrap_or_default();
            counts(number, word, expected, &at_trip)
        }
        "breaker_recorded" => {
            for (word, expected) in expected.as_object().into_iter().flatten() {
                let got = match word.as_str() {
                    "total" => view.tally.recorded,
                    "failed" => view.tally.failures,
                    "succeeded" => view.tally.successes,
                    word => return Err(unknown("breaker_recorded", word)),
                };
                same(number, word, expected, got)?;
            }
            Ok(())
        }
        "event_totals" => {
            for (word, expected) in expected.as_object().into_iter().flatten() {
                let events = &guard.events;
                let moves = events.opened + events.half_opened + events.closed;
                let got = match word.as_str() {
                    "opened" => events.opened,
                    "half_opened" => events.half_opened,
                    "closed" => events.closed,
                    "state_transition" => moves + events.overridden,
                    "failure_rate_exceeded" => events.failure_rate,
                    "slow_rate_exceeded" | "slow_call_rate_exceeded" => events.slow_rate,
                    "rejected" | "not_permitted" | "call_rejected" => view.tally.refused,
                    "success" => view.tally.successes,
                    "error" | "failure" => view.tally.failures,
                    "ignored" => view.tally.neutral,
                    word => return Err(unknown("event total", word)),
                };
                same(number, word, expected, got)?;
            }
            Ok(())
        }
        word => counts(number, word, expected, &view.counts),
    }
}
