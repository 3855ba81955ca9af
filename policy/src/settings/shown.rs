//! Settings under the keys of the configuration, with their values as a file has them.
//!
//! Each struct is taken apart by its fields: a setting that is forgotten here does not compile. Nothing
//! here compares or decides.

use std::fmt;
use std::time::Duration;

use super::{
    AdaptiveRule, AdaptiveSettings, BackoffSettings, BreakerSettings, BudgetSettings,
    BulkheadSettings, CancelledPolicy, ChaosSettings, ConfiguredOverride, DependencySettings,
    GiveUp, HalfOpenLimit, HalfOpenRule, HalfOpenSettings, HedgeDelay, HedgeSettings, Intensity,
    KeySettings, LostProbe, OpenTime, OverrideMode, Placement, ProbeLease, QuarantineSettings,
    QuotaReset, RateLimitSettings, RateSharing, RestartType, RetryJitter, RetrySettings,
    ThrottleSettings, TimeoutSettings, WhenAllDown, WhileRestarting, WindowKind, WorkerSettings,
};
use crate::text::ConfiguredSpan;
use crate::{ClassifySettings, HealthSettings, Rate, Symptom, Symptoms};

/// A value as a file has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ShownValue {
    /// A text, which has quotes in a file.
    Word(String),
    /// A number, a truth value or a list.
    Plain(String),
    /// A table, in the order of its documentation.
    Table(Vec<ShownEntry>),
}

/// A key with its value.
pub(super) type ShownEntry = (&'static str, ShownValue);

/// Writes a text without quotes if it stands by itself; within a table it has those of a file.
impl fmt::Display for ShownValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Plain(text) => out.write_str(text),
            Self::Table(entries) => write!(out, "{{ {} }}", ListedEntries(entries)),
        }
    }
}

/// The entries of a table, one after the other.
struct ListedEntries<'e>(&'e [ShownEntry]);

impl fmt::Display for ListedEntries<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match value {
                ShownValue::Word(text) => write!(out, "{comma}{key} = {text:?}")?,
                other => write!(out, "{comma}{key} = {other}")?,
            }
        }
        Ok(())
    }
}

/// The faults that are set, as a file has them.
impl fmt::Display for ChaosSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_delay = self.latency_rate > Rate::ZERO;
        let mut entries = chaos(self);
        entries.retain(|(key, value)| match *key {
            "latency" => has_delay,
            "lasts" => true,
            _ => *value != share(Rate::ZERO),
        });
        write!(out, "{}", ListedEntries(&entries))
    }
}

impl DependencySettings {
    /// Returns everything that calls read, by the keys of the configuration.
    pub(super) fn shown(&self) -> Vec<ShownEntry> {
        let Self {
            breaker,
            timeout,
            retry,
            hedge,
            rate_limit,
            rate_sharing,
            throttle,
            bulkhead,
            // Apart: a change of them needs a restart.
            workers: _,
            fallback_only: _,
            classify,
            health: HealthSettings { degraded_at },
            keys: KeySettings { max_entries, idle },
            key_lease,
            when_all_down,
            chaos: faults,
            configured_override,
        } = self;
        let mut shown = vec![
            ("breaker", table(breaker_entries(breaker))),
            ("timeout", table(timeout_entries(timeout))),
            ("retry", table(retry_entries(retry))),
            ("throttle", table(throttle_entries(throttle))),
            ("bulkhead", table(bulkhead_entries(bulkhead))),
            ("classify", table(classify_entries(classify))),
            (
                "keys",
                table(vec![
                    ("max_entries", plain(max_entries)),
                    ("idle", span(*idle)),
                ]),
            ),
            ("hedge", or_off(hedge, |hedge| table(hedge_entries(hedge)))),
            (
                "rate_limit",
                or_off(rate_limit, |limit| {
                    table(rate_entries(limit, *rate_sharing))
                }),
            ),
            ("health", table(vec![("degraded_at", share(*degraded_at))])),
            ("when_all_down", word(when_down(*when_all_down))),
            ("chaos", or_off(faults, |faults| table(chaos(faults)))),
            ("override", or_off(configured_override, override_table)),
        ];
        let leases = (breaker.half_open.lease, *key_lease);
        shown.push(("fleet", fleet_table(leases)));
        shown
    }

    /// Returns what needs a restart of the dependency, by the keys of the configuration.
    pub(super) fn shown_at_start(&self) -> Vec<ShownEntry> {
        vec![
            ("workers", table(worker_entries(&self.workers))),
            ("fallback_only", plain(self.fallback_only)),
        ]
    }
}

fn table(entries: Vec<ShownEntry>) -> ShownValue {
    ShownValue::Table(entries)
}

fn word(text: impl Into<String>) -> ShownValue {
    ShownValue::Word(text.into())
}

fn plain(value: impl fmt::Display) -> ShownValue {
    ShownValue::Plain(value.to_string())
}

fn span(span: Duration) -> ShownValue {
    word(ConfiguredSpan(span).to_string())
}

fn fraction(number: f64) -> ShownValue {
    // With its point, as files have it: 2.0.
    ShownValue::Plain(format!("{number:?}"))
}

fn share(rate: Rate) -> ShownValue {
    fraction(rate.as_f64())
}

fn or_off<T>(value: &Option<T>, show: impl FnOnce(&T) -> ShownValue) -> ShownValue {
    value.as_ref().map_or_else(|| word("off"), show)
}

fn span_or_off(value: &Option<Duration>) -> ShownValue {
    or_off(value, |value| span(*value))
}

fn breaker_entries(breaker: &BreakerSettings) -> Vec<ShownEntry> {
    let BreakerSettings {
        window,
        failure_threshold,
        consecutive_failures,
        failure_rate,
        slow_rate,
        slow_call,
        minimum_calls,
        open:
            OpenTime {
                base,
                factor,
                max,
                jitter,
            },
        half_open,
        cancelled,
    } = breaker;
    let growth = vec![
        ("factor", fraction(*factor)),
        ("max", span(*max)),
        ("jitter", fraction(*jitter)),
    ];
    let mut entries = vec![
        ("window", window_value(*window)),
        (
            "failure_threshold",
            or_off(failure_threshold, |count| plain(count)),
        ),
        (
            "consecutive_failures",
            or_off(consecutive_failures, |count| plain(count)),
        ),
        ("failure_rate", or_off(failure_rate, |rate| share(*rate))),
        ("slow_rate", or_off(slow_rate, |rate| share(*rate))),
        ("slow_call", span_or_off(slow_call)),
        ("minimum_calls", plain(minimum_calls)),
        ("recovery_timeout", span(*base)),
        ("recovery_backoff", table(growth)),
    ];
    entries.extend(half_open_entries(half_open));
    entries.push((
        "cancelled",
        match cancelled {
            CancelledPolicy::Ignore => word("ignore"),
            CancelledPolicy::Failure => word("failure"),
            CancelledPolicy::Rate(rate) => {
                table(vec![("kind", word("rate")), ("rate", share(*rate))])
            }
        },
    ));
    entries
}

fn window_value(window: WindowKind) -> ShownValue {
    let of_kind = |kind: &str, mut rest: Vec<ShownEntry>| {
        rest.insert(0, ("kind", word(kind)));
        table(rest)
    };
    match window {
        WindowKind::Consecutive => word("consecutive"),
        WindowKind::Count { size } => of_kind("count", vec![("size", plain(size))]),
        WindowKind::Time { span: age, buckets } => of_kind(
            "time",
            vec![("span", span(age)), ("buckets", plain(buckets))],
        ),
        WindowKind::Tumbling { span: length } => of_kind("tumbling", vec![("span", span(length))]),
    }
}

fn half_open_entries(half_open: &HalfOpenSettings) -> Vec<ShownEntry> {
    let HalfOpenSettings {
        max_calls,
        max_admitted,
        rule,
        probe_lease,
        lost_probe,
        cancelled_probe_reopens,
        limit,
        // It comes from the section of the fleet.
        lease: _,
    } = half_open;
    let (rule, needed) = match *rule {
        HalfOpenRule::Successes(needed) => (word("successes"), Some(needed)),
        HalfOpenRule::Rate { results } => (word("rate"), Some(results)),
        HalfOpenRule::KOfN { needed, of } => {
            let of = table(vec![("kind", word("k_of_n")), ("of", plain(of))]);
            (of, Some(needed))
        }
        HalfOpenRule::AutoClose => (word("auto_close"), None),
    };
    let lost = match lost_probe {
        LostProbe::Fails => "fails",
        LostProbe::FreesItsSlot => "frees_its_slot",
    };
    let limit = or_off(limit, |HalfOpenLimit { after, closes }| {
        let then = if *closes { "closes" } else { "opens" };
        table(vec![("after", span(*after)), ("then", word(then))])
    });
    let mut entries = vec![
        ("half_open_max_calls", plain(max_calls)),
        (
            "half_open_max_admitted",
            or_off(max_admitted, |count| plain(count)),
        ),
        ("half_open_rule", rule),
        ("probe_lease", span(*probe_lease)),
        ("lost_probe", word(lost)),
        ("cancelled_probe_reopens", plain(cancelled_probe_reopens)),
        ("half_open_limit", limit),
    ];
    entries.extend(needed.map(|needed| ("half_open_attempt_limit", plain(needed))));
    entries
}

fn timeout_entries(timeout: &TimeoutSettings) -> Vec<ShownEntry> {
    let TimeoutSettings {
        connect,
        attempt,
        total,
        first_byte,
        idle,
        // They are told with the model.
        first_token: _,
        gap: _,
        keep,
    } = timeout;
    vec![
        ("connect", span_or_off(connect)),
        ("attempt", span_or_off(attempt)),
        ("total", span_or_off(total)),
        ("first_byte", span_or_off(first_byte)),
        ("idle", span_or_off(idle)),
        ("keep", span_or_off(keep)),
    ]
}

fn retry_entries(retry: &RetrySettings) -> Vec<ShownEntry> {
    let RetrySettings {
        max_attempts,
        backoff,
        budget,
        respect_retry_after,
        on_open,
        on,
    } = retry;
    let budget = or_off(budget, |budget| {
        let BudgetSettings {
            ratio,
            floor_per_second,
        } = budget;
        table(vec![
            ("ratio", fraction(*ratio)),
            ("floor_per_second", plain(floor_per_second)),
        ])
    });
    vec![
        ("max_attempts", plain(max_attempts)),
        ("backoff", backoff_table(backoff)),
        ("budget", budget),
        ("respect_retry_after", plain(respect_retry_after)),
        ("on_open", plain(on_open)),
        ("on", on.as_ref().map_or_else(|| word("all"), symptoms)),
    ]
}

fn backoff_table(backoff: &BackoffSettings) -> ShownValue {
    let BackoffSettings {
        base,
        factor,
        max,
        jitter,
    } = backoff;
    let jitter = match *jitter {
        RetryJitter::None => word("none"),
        RetryJitter::Full => word("full"),
        RetryJitter::Equal => word("equal"),
        RetryJitter::Decorrelated => word("decorrelated"),
        RetryJitter::Added(share) => fraction(share),
    };
    table(vec![
        ("base", span(*base)),
        ("factor", fraction(*factor)),
        ("max", span(*max)),
        ("jitter", jitter),
    ])
}

fn symptoms(set: &Symptoms) -> ShownValue {
    let all = set.0.iter().map(|symptom| match symptom {
        Symptom::Status(status) => status.to_string(),
        named => format!("\"{named}\""),
    });
    ShownValue::Plain(format!("[{}]", all.collect::<Vec<_>>().join(", ")))
}

fn throttle_entries(throttle: &ThrottleSettings) -> Vec<ShownEntry> {
    let ThrottleSettings {
        backoff,
        max_wait,
        quota_reset,
        max,
    } = throttle;
    let reset = match quota_reset {
        QuotaReset::After(after) => span(*after),
        QuotaReset::Daily { hour, minute, zone } => table(vec![
            ("at", word(format!("{hour:02}:{minute:02}"))),
            ("zone", word(zone.as_str())),
        ]),
    };
    vec![
        ("backoff", backoff_table(backoff)),
        ("max_wait", span(*max_wait)),
        ("quota_reset", reset),
        ("max", span(*max)),
    ]
}

fn bulkhead_entries(bulkhead: &BulkheadSettings) -> Vec<ShownEntry> {
    let BulkheadSettings {
        max_concurrent,
        max_concurrent_writes,
        max_queue,
        max_wait,
        adaptive,
    } = bulkhead;
    let writes = max_concurrent_writes.map_or(0, std::num::NonZeroU32::get);
    let adaptive = or_off(adaptive, |adaptive| {
        let AdaptiveSettings {
            rule,
            min,
            initial,
            idle,
        } = adaptive;
        let (rule, own) = match *rule {
            AdaptiveRule::Aimd { backoff } => ("aimd", ("backoff", share(backoff))),
            AdaptiveRule::Gradient { tolerance } => {
                ("gradient", ("tolerance", fraction(tolerance)))
            }
        };
        table(vec![
            ("rule", word(rule)),
            own,
            ("min", plain(min)),
            ("initial", plain(initial)),
            ("idle", span(*idle)),
        ])
    });
    vec![
        ("max_concurrent", plain(max_concurrent)),
        ("max_concurrent_writes", plain(writes)),
        ("max_queue", plain(max_queue)),
        ("max_wait", span(*max_wait)),
        ("adaptive", adaptive),
    ]
}

fn classify_entries(classify: &ClassifySettings) -> Vec<ShownEntry> {
    let ClassifySettings {
        failure,
        throttled,
        rejected,
        misconfigured,
    } = classify;
    vec![
        ("failure", symptoms(failure)),
        ("throttled", symptoms(throttled)),
        ("rejected", symptoms(rejected)),
        ("misconfigured", symptoms(misconfigured)),
    ]
}

fn hedge_entries(hedge: &HedgeSettings) -> Vec<ShownEntry> {
    let HedgeSettings { delay, max_hedges } = hedge;
    let delay = match *delay {
        HedgeDelay::Fixed(delay) => span(delay),
        HedgeDelay::Quantile { quantile, at_least } => table(vec![
            ("quantile", share(quantile)),
            ("at_least", span(at_least)),
        ]),
    };
    vec![("delay", delay), ("max_hedges", plain(max_hedges))]
}

fn rate_entries(limit: &RateLimitSettings, sharing: Option<RateSharing>) -> Vec<ShownEntry> {
    let RateLimitSettings {
        rate,
        per,
        burst,
        max_wait,
    } = limit;
    let mut entries = vec![
        ("rate", fraction(*rate)),
        ("per", span(*per)),
        ("burst", plain(burst)),
        ("max_wait", span(*max_wait)),
        ("shared", plain(sharing.is_some())),
    ];
    if let Some(RateSharing { lease }) = sharing {
        let lease = lease.map_or_else(|| ShownValue::Word("auto".to_owned()), span);
        entries.push(("lease", lease));
    }
    entries
}

fn when_down(when: WhenAllDown) -> &'static str {
    match when {
        WhenAllDown::Refuse => "refuse",
        WhenAllDown::Try => "try",
    }
}

fn chaos(faults: &ChaosSettings) -> Vec<ShownEntry> {
    let ChaosSettings {
        latency_rate,
        latency,
        error_rate,
        hang_rate,
        panic_rate,
        lasts,
    } = faults;
    vec![
        ("latency_rate", share(*latency_rate)),
        ("latency", span(*latency)),
        ("error_rate", share(*error_rate)),
        ("hang_rate", share(*hang_rate)),
        ("panic_rate", share(*panic_rate)),
        ("lasts", span_or_off(lasts)),
    ]
}

fn override_table(set: &ConfiguredOverride) -> ShownValue {
    let ConfiguredOverride { mode, reason } = set;
    let mode = match mode {
        OverrideMode::ForcedOpen => "open",
        OverrideMode::Disabled => "disable",
        OverrideMode::Shadow => "shadow",
    };
    table(vec![
        ("mode", word(mode)),
        ("reason", word(reason.as_str())),
    ])
}

fn fleet_table((lease, key_lease): (ProbeLease, ProbeLease)) -> ShownValue {
    let mut shown = match lease {
        ProbeLease::Own => vec![("probes", word("each"))],
        ProbeLease::Leased { timeout } => {
            vec![("probes", word("one")), ("timeout", span(timeout))]
        }
    };
    let is_shared = key_lease != ProbeLease::Own;
    shown.push(("keys", word(if is_shared { "hashed" } else { "off" })));
    table(shown)
}

fn worker_entries(workers: &WorkerSettings) -> Vec<ShownEntry> {
    let WorkerSettings {
        count,
        placement,
        restart,
        intensity: Intensity { max, within },
        backoff,
        reset_after,
        start_timeout,
        give_up,
        while_restarting,
        drain,
        stuck_after,
        quarantine,
    } = workers;
    let quarantine = or_off(quarantine, |quarantine| {
        let QuarantineSettings {
            crashes,
            ttl,
            max_entries,
        } = quarantine;
        table(vec![
            ("crashes", plain(crashes)),
            ("ttl", span(*ttl)),
            ("max_entries", plain(max_entries)),
        ])
    });
    let placement = match placement {
        Placement::Shared => "shared",
        Placement::Dedicated => "dedicated",
    };
    let restart = match restart {
        RestartType::Permanent => "permanent",
        RestartType::Transient => "transient",
        RestartType::Temporary => "temporary",
    };
    let give_up = match give_up {
        GiveUp::Park => "park",
        GiveUp::Retry => "retry",
        GiveUp::Escalate => "escalate",
    };
    let meanwhile = match while_restarting {
        WhileRestarting::Hold => "hold",
        WhileRestarting::Reject => "reject",
    };
    vec![
        ("count", plain(count)),
        ("placement", word(placement)),
        ("restart", word(restart)),
        (
            "intensity",
            table(vec![("max", plain(max)), ("within", span(*within))]),
        ),
        ("backoff", backoff_table(backoff)),
        ("reset_after", span(*reset_after)),
        ("start_timeout", span_or_off(start_timeout)),
        ("give_up", word(give_up)),
        ("while_restarting", word(meanwhile)),
        ("drain", span(*drain)),
        ("stuck_after", span_or_off(stuck_after)),
        ("quarantine", quarantine),
    ]
}
