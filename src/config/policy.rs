//! The sections `timeout`, `retry`, `bulkhead` and `workers`.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    BackoffSettings, BudgetSettings, BulkheadSettings, GiveUp, Intensity, Placement,
    QuarantineSettings, RestartType, RetryJitter, RetrySettings, TimeoutSettings, WhileRestarting,
    WorkerSettings,
};

use super::breaker::count;
use super::classify::symptoms;
use super::limits;
use super::section::Section;
use super::value_type::{
    OneOfTwo, TICK, ValueType, YEAR, boolean, duration, either, integer, number, one_of,
};

/// Reads `timeout`. The default of a missing limit adapts to the one that was given.
pub(super) fn timeout(mut section: Section<'_>) -> TimeoutSettings {
    let default = TimeoutSettings::default();
    let limit = duration(TICK..=YEAR).or_off();
    let attempt = section.get("attempt", &limit);
    let total = section.get("total", &limit);
    let least = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
    let long_enough = attempt.map_or(default.total, |attempt| default.total.max(attempt));
    let total = section.default_to("total", &limit, total, long_enough);
    let attempt = section.default_to("attempt", &limit, attempt, least(default.attempt, total));
    if let (Some(attempt), Some(total)) = (attempt, total)
        && attempt > total
    {
        let total = humantime::format_duration(total);
        section.conflict(
            "attempt",
            format!("it is longer than timeout.total, which is {total}"),
            &format!("a duration of at most {total}"),
        );
    }
    let settings = TimeoutSettings {
        connect: section.get_or("connect", &limit, default.connect),
        attempt,
        total,
        first_byte: section.get_or("first_byte", &limit, default.first_byte),
        idle: section.get_or("idle", &limit, default.idle),
    };
    section.finish();
    settings
}

/// Reads `retry`.
pub(super) fn retry(mut section: Section<'_>) -> RetrySettings {
    let default = RetrySettings::default();
    let budget = section.section_or_off("budget").map(|mut budget| {
        let default = BudgetSettings::default();
        let settings = BudgetSettings {
            ratio: budget.get_or("ratio", &number(0.0..=1.0), default.ratio),
            floor_per_second: budget.get_or(
                "floor_per_second",
                &integer(0..=1_000_000),
                default.floor_per_second,
            ),
        };
        budget.finish();
        settings
    });
    let settings = RetrySettings {
        max_attempts: section.get_or("max_attempts", &count(100), default.max_attempts),
        backoff: backoff(section.section("backoff"), default.backoff),
        budget,
        respect_retry_after: section.get_or(
            "respect_retry_after",
            &boolean(),
            default.respect_retry_after,
        ),
        on_open: section.get_or("on_open", &boolean(), default.on_open),
        on: section.get_or("on", &symptoms().or_word("all"), default.on),
    };
    if settings.on.as_ref().is_some_and(|on| on.0.is_empty()) {
        section.conflict(
            "on",
            "it would never retry",
            "a symptom, or max_attempts = 1",
        );
    }
    section.finish();
    settings
}

/// Reads a table of backoff settings.
pub(super) fn backoff(mut section: Section<'_>, default: BackoffSettings) -> BackoffSettings {
    let span = duration(TICK..=YEAR);
    let base = section.get("base", &span);
    let max = section.get("max", &span);
    let base = section.default_to("base", &span, base, default.base.min(max.unwrap_or(YEAR)));
    let settings = BackoffSettings {
        base,
        factor: section.get_or("factor", &number(1.0..=100.0), default.factor),
        max: section.default_to("max", &span, max, default.max.max(base)),
        jitter: section.get_or("jitter", &jitter(), default.jitter),
    };
    if settings.base > settings.max {
        let max = humantime::format_duration(settings.max);
        section.conflict(
            "base",
            format!("it is longer than max, which is {max}"),
            &format!("a duration of at most {max}"),
        );
    }
    section.finish();
    settings
}

fn jitter() -> ValueType<'static, RetryJitter> {
    let words = one_of(&[
        ("none", RetryJitter::None),
        ("full", RetryJitter::Full),
        ("equal", RetryJitter::Equal),
        ("decorrelated", RetryJitter::Decorrelated),
    ]);
    let join = |jitter| match jitter {
        OneOfTwo::First(word) => word,
        OneOfTwo::Second(share) => RetryJitter::Added(share),
    };
    either(words, number(0.0..=1.0), join, |jitter| match jitter {
        RetryJitter::Added(share) => OneOfTwo::Second(*share),
        word => OneOfTwo::First(*word),
    })
}

/// Reads `bulkhead`. `writes`: default of `max_concurrent_writes`; 0 for no separate limit.
pub(super) fn bulkhead(mut section: Section<'_>, writes: u32) -> BulkheadSettings {
    const MOST: u32 = 1_000_000;
    let default = BulkheadSettings::default();
    let most = section.get_or("max_concurrent", &count(MOST), default.max_concurrent);
    let writes = section.get_or("max_concurrent_writes", &integer(0..=MOST), writes);
    let is_bad = section.is_bad("max_concurrent");
    if writes > most.get() && !is_bad {
        section.conflict(
            "max_concurrent_writes",
            format!("it is more than max_concurrent, which is {most}"),
            &format!("a whole number from 0 to {most}"),
        );
    }
    let forever = duration(Duration::ZERO..=YEAR);
    let adaptive = section.section_if_given("adaptive");
    let settings = BulkheadSettings {
        max_concurrent: most,
        max_concurrent_writes: NonZeroU32::new(writes),
        max_queue: section.get_or("max_queue", &integer(0..=MOST), default.max_queue),
        max_wait: section.get_or("max_wait", &forever, default.max_wait),
        adaptive: adaptive.and_then(|section| limits::adaptive(section, (!is_bad).then_some(most))),
    };
    section.finish();
    settings
}

/// Reads `workers`.
pub(super) fn workers(mut section: Section<'_>) -> WorkerSettings {
    const PLACES: &[(&str, Placement)] = &[
        ("shared", Placement::Shared),
        ("dedicated", Placement::Dedicated),
    ];
    const RESTARTS: &[(&str, RestartType)] = &[
        ("permanent", RestartType::Permanent),
        ("transient", RestartType::Transient),
        ("temporary", RestartType::Temporary),
    ];
    const ENDS: &[(&str, GiveUp)] = &[("park", GiveUp::Park), ("escalate", GiveUp::Escalate)];
    const MEANWHILE: &[(&str, WhileRestarting)] = &[
        ("hold", WhileRestarting::Hold),
        ("reject", WhileRestarting::Reject),
    ];
    let default = WorkerSettings::default();
    let settings = WorkerSettings {
        count: section.get_or("count", &count(1024), default.count),
        placement: section.get_or("placement", &one_of(PLACES), default.placement),
        restart: section.get_or("restart", &one_of(RESTARTS), default.restart),
        intensity: intensity(section.section("intensity"), default.intensity),
        backoff: backoff(section.section("backoff"), default.backoff),
        reset_after: section.get_or(
            "reset_after",
            &duration(Duration::ZERO..=YEAR),
            default.reset_after,
        ),
        give_up: section.get_or("give_up", &one_of(ENDS), default.give_up),
        while_restarting: section.get_or(
            "while_restarting",
            &one_of(MEANWHILE),
            default.while_restarting,
        ),
        drain: section.get_or("drain", &duration(Duration::ZERO..=YEAR), default.drain),
        stuck_after: section.get_or(
            "stuck_after",
            &duration(TICK..=YEAR).or_off(),
            default.stuck_after,
        ),
        quarantine: section.section_or_off("quarantine").map(quarantine),
    };
    let shared = settings.placement == Placement::Shared && !section.is_bad("placement");
    if settings.stuck_after.is_some() && shared {
        section.conflict(
            "stuck_after",
            "a shared thread blocks for many reasons",
            "\"off\", or placement = \"dedicated\"",
        );
    }
    section.finish();
    settings
}

fn intensity(mut section: Section<'_>, default: Intensity) -> Intensity {
    let settings = Intensity {
        max: section.get_or("max", &integer(0..=1_000_000), default.max),
        within: section.get_or("within", &duration(TICK..=YEAR), default.within),
    };
    section.finish();
    settings
}

fn quarantine(mut section: Section<'_>) -> QuarantineSettings {
    let default = QuarantineSettings::default();
    let settings = QuarantineSettings {
        crashes: section.get_or("crashes", &count(1000), default.crashes),
        ttl: section.get_or("ttl", &duration(TICK..=YEAR), default.ttl),
        max_entries: section.get_or("max_entries", &count(1_000_000), default.max_entries),
    };
    section.finish();
    settings
}
