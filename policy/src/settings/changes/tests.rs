//! Each setting, changed once: the line of the change, with the key and both values of a file.

use std::time::Duration;

use super::*;
use crate::settings::{nonzero, *};
use crate::{Rate, Symptom, Symptoms};

/// Changes one setting, or one table.
type Change = fn(&mut DependencySettings);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn rate(share: f64) -> Rate {
    Rate::new(share).unwrap()
}

/// Every setting that calls read: its change from the defaults, and the line.
const CHANGES: &[(Change, &str)] = &[
    (
        |s| s.breaker.window = WindowKind::Count { size: nonzero(50) },
        r#"breaker.window: consecutive -> { kind = "count", size = 50 }"#,
    ),
    (
        |s| s.breaker.failure_threshold = None,
        "breaker.failure_threshold: 5 -> off",
    ),
    (
        |s| s.breaker.consecutive_failures = Some(nonzero(3)),
        "breaker.consecutive_failures: off -> 3",
    ),
    (
        |s| s.breaker.failure_rate = Some(rate(0.5)),
        "breaker.failure_rate: off -> 0.5",
    ),
    (
        |s| s.breaker.slow_rate = Some(rate(0.8)),
        "breaker.slow_rate: off -> 0.8",
    ),
    (
        |s| s.breaker.slow_call = Some(Duration::from_millis(1_500)),
        "breaker.slow_call: off -> 1s 500ms",
    ),
    (
        |s| s.breaker.minimum_calls = 9,
        "breaker.minimum_calls: 20 -> 9",
    ),
    (
        |s| s.breaker.open.base = secs(10),
        "breaker.recovery_timeout: 30s -> 10s",
    ),
    (
        |s| s.breaker.open.factor = 2.0,
        "breaker.recovery_backoff.factor: 1.0 -> 2.0",
    ),
    (
        |s| s.breaker.open.max = secs(60),
        "breaker.recovery_backoff.max: 5m -> 1m",
    ),
    (
        |s| s.breaker.open.jitter = 0.1,
        "breaker.recovery_backoff.jitter: 0.0 -> 0.1",
    ),
    (
        |s| s.breaker.half_open.max_calls = nonzero(2),
        "breaker.half_open_max_calls: 1 -> 2",
    ),
    (
        |s| s.breaker.half_open.max_admitted = Some(nonzero(4)),
        "breaker.half_open_max_admitted: off -> 4",
    ),
    (
        |s| s.breaker.half_open.rule = HalfOpenRule::Successes(nonzero(3)),
        "breaker.half_open_attempt_limit: 1 -> 3",
    ),
    (
        |s| {
            s.breaker.half_open.rule = HalfOpenRule::KOfN {
                needed: nonzero(1),
                of: nonzero(5),
            };
        },
        r#"breaker.half_open_rule: successes -> { kind = "k_of_n", of = 5 }"#,
    ),
    (
        |s| s.breaker.half_open.rule = HalfOpenRule::AutoClose,
        "breaker.half_open_rule: successes -> auto_close",
    ),
    (
        |s| s.breaker.half_open.probe_lease = secs(90),
        "breaker.probe_lease: 10s -> 1m 30s",
    ),
    (
        |s| s.breaker.half_open.lost_probe = LostProbe::FreesItsSlot,
        "breaker.lost_probe: fails -> frees_its_slot",
    ),
    (
        |s| s.breaker.half_open.cancelled_probe_reopens = true,
        "breaker.cancelled_probe_reopens: false -> true",
    ),
    (
        |s| {
            s.breaker.half_open.limit = Some(HalfOpenLimit {
                after: secs(60),
                closes: true,
            });
        },
        r#"breaker.half_open_limit: off -> { after = "1m", then = "closes" }"#,
    ),
    (
        |s| s.breaker.half_open.lease = ProbeLease::Leased { timeout: secs(1) },
        "fleet.probes: each -> one",
    ),
    (
        |s| s.breaker.cancelled = CancelledPolicy::Failure,
        "breaker.cancelled: ignore -> failure",
    ),
    (
        |s| s.breaker.cancelled = CancelledPolicy::Rate(rate(0.5)),
        r#"breaker.cancelled: ignore -> { kind = "rate", rate = 0.5 }"#,
    ),
    (|s| s.timeout.connect = None, "timeout.connect: 1s -> off"),
    (
        |s| s.timeout.attempt = Some(secs(1)),
        "timeout.attempt: 5s -> 1s",
    ),
    (
        |s| s.timeout.total = Some(secs(3_600)),
        "timeout.total: 15s -> 1h",
    ),
    (
        |s| s.timeout.first_byte = Some(secs(2)),
        "timeout.first_byte: 5s -> 2s",
    ),
    (|s| s.timeout.idle = None, "timeout.idle: 30s -> off"),
    (|s| s.timeout.keep = None, "timeout.keep: 4s -> off"),
    (
        |s| s.retry.max_attempts = nonzero(3),
        "retry.max_attempts: 1 -> 3",
    ),
    (
        |s| s.retry.backoff.base = Duration::from_millis(10),
        "retry.backoff.base: 100ms -> 10ms",
    ),
    (
        |s| s.retry.backoff.factor = 3.0,
        "retry.backoff.factor: 2.0 -> 3.0",
    ),
    (
        |s| s.retry.backoff.max = secs(4),
        "retry.backoff.max: 2s -> 4s",
    ),
    (
        |s| s.retry.backoff.jitter = RetryJitter::Added(0.2),
        "retry.backoff.jitter: full -> 0.2",
    ),
    (
        |s| s.retry.budget = None,
        "retry.budget: { ratio = 0.2, floor_per_second = 10 } -> off",
    ),
    (
        |s| s.retry.budget.as_mut().unwrap().ratio = 0.1,
        "retry.budget.ratio: 0.2 -> 0.1",
    ),
    (
        |s| s.retry.budget.as_mut().unwrap().floor_per_second = 1,
        "retry.budget.floor_per_second: 10 -> 1",
    ),
    (
        |s| s.retry.respect_retry_after = false,
        "retry.respect_retry_after: true -> false",
    ),
    (|s| s.retry.on_open = true, "retry.on_open: false -> true"),
    (
        |s| s.retry.on = Some(Symptoms::from([Symptom::Connect, Symptom::Status(503)])),
        r#"retry.on: all -> ["connect", 503]"#,
    ),
    (
        |s| s.throttle.backoff.jitter = RetryJitter::None,
        "throttle.backoff.jitter: 0.2 -> none",
    ),
    (
        |s| s.throttle.max_wait = secs(5),
        "throttle.max_wait: 0s -> 5s",
    ),
    (
        |s| s.throttle.quota_reset = QuotaReset::After(secs(60)),
        "throttle.quota_reset: 1h -> 1m",
    ),
    (
        |s| {
            s.throttle.quota_reset = QuotaReset::Daily {
                hour: 0,
                minute: 30,
                zone: "Europe/Berlin".to_owned(),
            };
        },
        r#"throttle.quota_reset: 1h -> { at = "00:30", zone = "Europe/Berlin" }"#,
    ),
    (|s| s.throttle.max = secs(3_600), "throttle.max: 1day -> 1h"),
    (
        |s| s.bulkhead.max_concurrent = nonzero(8),
        "bulkhead.max_concurrent: 32 -> 8",
    ),
    (
        |s| s.bulkhead.max_concurrent_writes = Some(nonzero(1)),
        "bulkhead.max_concurrent_writes: 0 -> 1",
    ),
    (|s| s.bulkhead.max_queue = 0, "bulkhead.max_queue: 64 -> 0"),
    (
        |s| s.bulkhead.max_wait = secs(1),
        "bulkhead.max_wait: 500ms -> 1s",
    ),
    (
        |s| {
            s.bulkhead.adaptive = Some(AdaptiveSettings {
                rule: AdaptiveRule::Aimd { backoff: rate(0.5) },
                ..AdaptiveSettings::default()
            });
        },
        r#"bulkhead.adaptive: off -> { rule = "aimd", backoff = 0.5, min = 1, initial = 10, idle = "30s" }"#,
    ),
    (
        |s| s.classify.failure = Symptoms::from([Symptom::StatusClass(5), Symptom::Timeout]),
        r#"classify.failure: ["5xx", "connect", "timeout", "reset"] -> ["5xx", "timeout"]"#,
    ),
    (
        |s| s.classify.throttled = Symptoms::from([Symptom::Status(429), Symptom::Status(420)]),
        "classify.throttled: [429] -> [429, 420]",
    ),
    (
        |s| s.classify.rejected = Symptoms::from([]),
        r#"classify.rejected: ["4xx"] -> []"#,
    ),
    (
        |s| s.classify.misconfigured = Symptoms::from([]),
        "classify.misconfigured: [401, 403] -> []",
    ),
    (
        |s| s.keys.max_entries = nonzero(10),
        "keys.max_entries: 1000 -> 10",
    ),
    (|s| s.keys.idle = secs(60), "keys.idle: 10m -> 1m"),
    (
        |s| s.key_lease = ProbeLease::Leased { timeout: secs(1) },
        "fleet.keys: off -> hashed",
    ),
    (
        |s| {
            s.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Fixed(Duration::from_millis(50)),
                max_hedges: nonzero(1),
            });
        },
        r#"hedge: off -> { delay = "50ms", max_hedges = 1 }"#,
    ),
    (
        |s| {
            s.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Quantile {
                    quantile: rate(0.95),
                    at_least: Duration::from_millis(20),
                },
                max_hedges: nonzero(1),
            });
        },
        r#"hedge: off -> { delay = { quantile = 0.95, at_least = "20ms" }, max_hedges = 1 }"#,
    ),
    (
        |s| {
            s.rate_limit = Some(RateLimitSettings {
                rate: 5.0,
                per: secs(1),
                burst: nonzero(5),
                max_wait: Duration::ZERO,
            });
        },
        r#"rate_limit: off -> { rate = 5.0, per = "1s", burst = 5, max_wait = "0s", shared = false }"#,
    ),
    (
        |s| s.health.degraded_at = rate(0.1),
        "health.degraded_at: 0.05 -> 0.1",
    ),
    (
        |s| s.when_all_down = WhenAllDown::Try,
        "when_all_down: refuse -> try",
    ),
    (
        |s| {
            s.chaos = Some(ChaosSettings {
                error_rate: rate(0.1),
                ..ChaosSettings::default()
            });
        },
        r#"chaos: off -> { latency_rate = 0.0, latency = "0s", error_rate = 0.1, hang_rate = 0.0, panic_rate = 0.0, lasts = "10m" }"#,
    ),
    (
        |s| {
            s.configured_override = Some(ConfiguredOverride {
                mode: OverrideMode::ForcedOpen,
                reason: "a \"move\"".to_owned(),
            });
        },
        r#"override: off -> { mode = "open", reason = "a \"move\"" }"#,
    ),
];

/// The same for what needs a restart.
const RESTARTS: &[(Change, &str)] = &[
    (|s| s.workers.count = nonzero(2), "workers.count: 1 -> 2"),
    (
        |s| s.workers.placement = Placement::Dedicated,
        "workers.placement: shared -> dedicated",
    ),
    (
        |s| s.workers.restart = RestartType::Transient,
        "workers.restart: permanent -> transient",
    ),
    (
        |s| s.workers.intensity.max = 1,
        "workers.intensity.max: 5 -> 1",
    ),
    (
        |s| s.workers.intensity.within = secs(60),
        "workers.intensity.within: 30s -> 1m",
    ),
    (
        |s| s.workers.backoff.max = secs(60),
        "workers.backoff.max: 10s -> 1m",
    ),
    (
        |s| s.workers.reset_after = secs(1),
        "workers.reset_after: 10s -> 1s",
    ),
    (
        |s| s.workers.start_timeout = Some(secs(5)),
        "workers.start_timeout: off -> 5s",
    ),
    (
        |s| s.workers.give_up = GiveUp::Retry,
        "workers.give_up: park -> retry",
    ),
    (
        |s| s.workers.while_restarting = WhileRestarting::Reject,
        "workers.while_restarting: hold -> reject",
    ),
    (|s| s.workers.drain = secs(60), "workers.drain: 5s -> 1m"),
    (
        |s| s.workers.stuck_after = Some(secs(5)),
        "workers.stuck_after: off -> 5s",
    ),
    (
        |s| s.workers.quarantine = None,
        r#"workers.quarantine: { crashes = 2, ttl = "1m", max_entries = 1024 } -> off"#,
    ),
    (
        |s| s.workers.quarantine.as_mut().unwrap().ttl = secs(1),
        "workers.quarantine.ttl: 1m -> 1s",
    ),
    (|s| s.fallback_only = true, "fallback_only: false -> true"),
];

fn changed(change: Change) -> DependencySettings {
    let mut new = DependencySettings::default();
    change(&mut new);
    new
}

#[test]
fn cfg_2_each_change_is_told_with_its_key_and_both_values() {
    let old = DependencySettings::default();
    assert_eq!(old.changes(&old.clone()), Vec::<String>::new());
    for (change, line) in CHANGES {
        let new = changed(*change);
        assert_eq!(old.changes(&new), [*line]);
        assert_eq!(new.changes(&old).len(), 1, "and back: {line}");
        assert!(old.worker_changes(&new).is_empty(), "{line}");
    }
    for (change, line) in RESTARTS {
        let new = changed(*change);
        assert_eq!(old.worker_changes(&new), [*line]);
        assert!(old.changes(&new).is_empty(), "{line}");
    }
}

/// Lists the keys of sections and of the tables in them.
fn keys(shown: &[ShownEntry], above: &str) -> Vec<String> {
    let of = |(key, value): &ShownEntry| match value {
        ShownValue::Table(entries) => keys(entries, &format!("{above}{key}.")),
        _ => vec![format!("{above}{key}")],
    };
    shown.iter().flat_map(of).collect()
}

#[test]
fn cfg_2_no_setting_is_without_its_line() {
    let old = DependencySettings::default();
    let all = [old.shown(), old.shown_at_start()].concat();
    let lines: Vec<&str> = CHANGES
        .iter()
        .chain(RESTARTS)
        .map(|(_, line)| *line)
        .collect();
    for key in keys(&all, "") {
        // One delay stands for the three that share its keys.
        let key = match key.split_once(".backoff.") {
            Some((section, _)) => format!("{section}.backoff."),
            None => key,
        };
        let key = match key.rsplit_once('.') {
            Some((table, _)) if table == "workers.quarantine" => table,
            _ => &key,
        };
        let is_told = |line: &&str| line.starts_with(key);
        assert!(lines.iter().any(is_told), "{key} has no case");
    }
}

#[test]
fn cfg_2_tables_of_one_kind_are_compared_key_by_key() {
    let window = |size| WindowKind::Count {
        size: nonzero(size),
    };
    let mut old = DependencySettings::default();
    old.breaker.window = window(50);
    let mut new = old.clone();
    new.breaker.window = window(60);
    assert_eq!(old.changes(&new), ["breaker.window.size: 50 -> 60"]);
    new.breaker.window = WindowKind::Tumbling { span: secs(60) };
    let line =
        r#"breaker.window: { kind = "count", size = 50 } -> { kind = "tumbling", span = "1m" }"#;
    assert_eq!(old.changes(&new), [line]);
    let lease = |timeout| ProbeLease::Leased { timeout };
    old.breaker = BreakerSettings::default();
    old.breaker.half_open.lease = lease(secs(1));
    new = old.clone();
    new.breaker.half_open.lease = lease(secs(2));
    assert_eq!(old.changes(&new), ["fleet.timeout: 1s -> 2s"]);
}

#[test]
fn cfg_2_chaos_is_told_by_the_faults_that_are_set() {
    let faults = ChaosSettings {
        latency_rate: rate(0.5),
        latency: secs(2),
        error_rate: rate(0.1),
        ..ChaosSettings::default()
    };
    let told = r#"latency_rate = 0.5, latency = "2s", error_rate = 0.1, lasts = "10m""#;
    assert_eq!(faults.to_string(), told);
}

#[test]
fn cfg_2_chaos_without_a_delay_tells_no_latency() {
    let faults = ChaosSettings {
        latency: secs(2),
        error_rate: rate(0.1),
        ..ChaosSettings::default()
    };
    assert_eq!(faults.to_string(), r#"error_rate = 0.1, lasts = "10m""#);
}

#[test]
fn cfg_2_another_rule_of_an_adaptive_limit_is_told_whole() {
    let adaptive = |rule| {
        let mut settings = DependencySettings::default();
        settings.bulkhead.adaptive = Some(AdaptiveSettings {
            rule,
            ..AdaptiveSettings::default()
        });
        settings
    };
    let old = adaptive(AdaptiveRule::Aimd { backoff: rate(0.9) });
    let told = old.changes(&adaptive(AdaptiveRule::Gradient { tolerance: 1.5 }));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with(r#"bulkhead.adaptive: { rule = "aimd", backoff = 0.9, "#),
        "{told:?}"
    );
}

#[test]
fn cfg_2_flt_13_the_begin_and_the_end_of_sharing_a_rate_are_told() {
    let alone = DependencySettings {
        rate_limit: Some(RateLimitSettings {
            rate: 10.0,
            per: secs(1),
            burst: nonzero(10),
            max_wait: Duration::ZERO,
        }),
        ..DependencySettings::default()
    };
    let shared = DependencySettings {
        rate_sharing: Some(RateSharing::default()),
        ..alone.clone()
    };
    assert_eq!(alone.changes(&shared), ["rate_limit.shared: false -> true"]);
    assert_eq!(shared.changes(&alone), ["rate_limit.shared: true -> false"]);
}
