//! Turns a scenario's configuration into settings.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    BreakerSettings, CancelledPolicy, HalfOpenLimit, HalfOpenRule, HalfOpenSettings, LostProbe,
    OpenTime, ProbeLease, Rate, WindowKind,
};
use serde_json::Value;

use super::Outcome;
use super::words::{any_number, fraction, number, only_keys, span, text, unknown};

/// Outcomes that a window without a bound remembers: more than any scenario has.
const EVERYTHING: u32 = 10_000;

const TICK: Duration = Duration::from_nanos(1);

/// The settings of one breaker.
pub(super) fn breaker(config: &Value) -> Outcome<BreakerSettings> {
    let known = [
        "window",
        "trip_any_of",
        "open_wait",
        "half_open",
        "ignored",
        "classify",
        "timeout_ms",
        "abandoned",
        "initial_state",
    ];
    only_keys(config, "configuration", &known)?;
    let mut settings = BreakerSettings {
        window: window(&config["window"])?,
        failure_threshold: None,
        open: open_time(&config["open_wait"])?,
        half_open: half_open(&config["half_open"])?,
        cancelled: cancelled(&config["abandoned"])?,
        ..BreakerSettings::default()
    };
    let mut minimum = None;
    for rule in config["trip_any_of"].as_array().into_iter().flatten() {
        trip_rule(rule, &mut settings)?;
        if let Some(calls) = rule["min_calls"].as_u64() {
            if minimum.is_some_and(|other| other != calls) {
                return Err(unknown("pair of different", "min_calls"));
            }
            minimum = Some(calls);
        }
    }
    settings.minimum_calls = count(minimum.unwrap_or(1))?.get();
    Ok(settings)
}

/// The memory; `none` remembers everything since the last transition.
pub(super) fn window(window: &Value) -> Outcome<WindowKind> {
    only_keys(
        window,
        "window",
        &["kind", "size", "duration_ms", "bucket_ms", "buckets"],
    )?;
    let duration = || {
        span(&window["duration_ms"]).ok_or_else(|| unknown("duration_ms", &window["duration_ms"]))
    };
    Ok(match window["kind"].as_str().unwrap_or("none") {
        "none" => WindowKind::Count {
            size: count(u64::from(EVERYTHING))?,
        },
        "count" => WindowKind::Count {
            size: count(number(window, "size")?)?,
        },
        "time" => {
            let span = duration()?;
            let buckets = match (
                any_number(window, &["bucket_ms"]),
                any_number(window, &["buckets"]),
            ) {
                (Some(bucket), _) => number(window, "duration_ms")?.div_ceil(bucket.max(1)),
                (None, buckets) => buckets.unwrap_or(10),
            };
            WindowKind::Time {
                span,
                buckets: count(buckets)?,
            }
        }
        "tumbling" => WindowKind::Tumbling { span: duration()? },
        kind => return Err(unknown("window", kind)),
    })
}

/// A threshold above which (`>`) or from which on (`>=`) something happens.
fn is_strict(rule: &Value, key: &str) -> Outcome<bool> {
    match rule[key].as_str().unwrap_or(">=") {
        ">=" => Ok(false),
        ">" => Ok(true),
        cmp => Err(unknown(key, cmp)),
    }
}

fn trip_rule(rule: &Value, settings: &mut BreakerSettings) -> Outcome {
    let known = [
        "rule",
        "threshold",
        "cmp",
        "min_calls",
        "count",
        "slow_over_ms",
        "slow_cmp",
    ];
    only_keys(rule, "trip rule's word", &known)?;
    let strict = is_strict(rule, "cmp")?;
    let least = |given: u64| count(given + u64::from(strict));
    match text(rule, "rule")? {
        "failure_rate" => settings.failure_rate = rate(rule, strict)?,
        "slow_rate" => {
            let slow = span(&rule["slow_over_ms"])
                .ok_or_else(|| unknown("slow_over_ms", &rule["slow_over_ms"]))?;
            let more = if is_strict(rule, "slow_cmp")? {
                TICK
            } else {
                Duration::ZERO
            };
            settings.slow_call = Some(slow + more);
            settings.slow_rate = rate(rule, strict)?;
        }
        "failures_in_window" => {
            settings.failure_threshold = Some(least(number(rule, "count")?)?);
        }
        "consecutive_failures" => {
            settings.consecutive_failures = Some(least(number(rule, "count")?)?);
        }
        kind => return Err(unknown("trip rule", kind)),
    }
    Ok(())
}

/// A rate; more than all is never reached.
fn rate(rule: &Value, strict: bool) -> Outcome<Option<Rate>> {
    let given = fraction(rule, "threshold")?;
    let given = if strict { given + 0.000_001 } else { given };
    Ok(Rate::new(given).ok())
}

fn open_time(wait: &Value) -> Outcome<OpenTime> {
    let known = [
        "kind",
        "ms",
        "base_ms",
        "factor",
        "max_ms",
        "jitter",
        "default_ms",
        "start_ms",
    ];
    only_keys(wait, "open wait's word", &known)?;
    let base = any_number(wait, &["ms", "base_ms", "start_ms", "default_ms"]).unwrap_or(0);
    let max = any_number(wait, &["max_ms"]).map_or(Duration::MAX, Duration::from_millis);
    let base = Duration::from_millis(base);
    let fixed = OpenTime {
        base,
        factor: wait["factor"].as_f64().unwrap_or(1.0),
        max,
        jitter: wait["jitter"].as_f64().unwrap_or(0.0),
    };
    Ok(match wait["kind"].as_str().unwrap_or("fixed") {
        "fixed" | "hint" | "function_of_attempt" => fixed,
        "exponential" => OpenTime {
            factor: wait["factor"].as_f64().unwrap_or(2.0),
            ..fixed
        },
        // Half of it fixed, half of it random: as much again at most, on top of the half.
        "equal_jitter" | "exponential_equal_jitter" => OpenTime {
            base: base / 2,
            factor: wait["factor"].as_f64().unwrap_or(2.0),
            max: max / 2,
            jitter: 1.0,
        },
        kind => return Err(unknown("open wait", kind)),
    })
}

fn half_open(config: &Value) -> Outcome<HalfOpenSettings> {
    let known = [
        "max_admitted",
        "max_concurrent",
        "decide",
        "successes",
        "results",
        "of",
        "probe_lease_ms",
        "max_wait_ms",
        "then",
        "cancelled_probe",
    ];
    only_keys(config, "half-open word", &known)?;
    let max_admitted = any_number(config, &["max_admitted"])
        .map(count)
        .transpose()?;
    let lease = span(&config["probe_lease_ms"]);
    let at_once = match any_number(config, &["max_concurrent"]) {
        Some(most) => count(most)?,
        None if lease.is_some() => NonZeroU32::MIN,
        None => max_admitted.unwrap_or(NonZeroU32::MAX),
    };
    Ok(HalfOpenSettings {
        lease: ProbeLease::Own,
        max_calls: at_once,
        max_admitted,
        rule: half_open_rule(config)?,
        // "for longer than this"
        probe_lease: lease.map_or(Duration::MAX, |lease| lease + TICK),
        lost_probe: LostProbe::FreesItsSlot,
        cancelled_probe_reopens: match config["cancelled_probe"].as_str() {
            None | Some("return_permit") => false,
            Some("reopen") => true,
            Some(word) => return Err(unknown("cancelled_probe", word)),
        },
        limit: match span(&config["max_wait_ms"]) {
            None => None,
            Some(after) if after.is_zero() => None,
            Some(after) => Some(HalfOpenLimit {
                after,
                closes: match config["then"].as_str().unwrap_or("open") {
                    "open" => false,
                    "closed" => true,
                    state => return Err(unknown("then", state)),
                },
            }),
        },
    })
}

fn half_open_rule(config: &Value) -> Outcome<HalfOpenRule> {
    let successes = || count(any_number(config, &["successes"]).unwrap_or(1));
    Ok(match config["decide"].as_str() {
        None | Some("n_successes_any_failure_reopens") => HalfOpenRule::Successes(successes()?),
        Some("rate_after_n_results") => HalfOpenRule::Rate {
            results: count(number(config, "results")?)?,
        },
        Some("k_of_n_early") => HalfOpenRule::KOfN {
            needed: successes()?,
            of: count(number(config, "of")?)?,
        },
        Some("none_auto_close") => HalfOpenRule::AutoClose,
        Some(rule) => return Err(unknown("half-open decision", rule)),
    })
}

fn cancelled(abandoned: &Value) -> Outcome<CancelledPolicy> {
    only_keys(abandoned, "abandoned word", &["policy", "threshold"])?;
    Ok(match abandoned["policy"].as_str() {
        None | Some("ignore") => CancelledPolicy::Ignore,
        Some("as_failures") => CancelledPolicy::Failure,
        Some("rate_threshold") => CancelledPolicy::Rate(
            Rate::new(fraction(abandoned, "threshold")?)
                .map_err(|error| unknown("threshold", error))?,
        ),
        Some(policy) => return Err(unknown("abandoned policy", policy)),
    })
}

/// A number that is not zero.
pub(super) fn count(given: u64) -> Outcome<NonZeroU32> {
    u32::try_from(given)
        .ok()
        .and_then(NonZeroU32::new)
        .ok_or_else(|| unknown("count", given))
}
