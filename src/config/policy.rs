//! The sections `timeout`, `retry`, `bulkhead` and `workers`.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    BackoffSettings, BudgetSettings, BulkheadSettings, GiveUp, Intensity, Placement,
    QuarantineSettings, RestartType, RetryJitter, RetrySettings, TimeoutSettings, WhileRestarting,
    WorkerSettings,
};

use super::breaker::count;
use super::dependency::EdgeTimeouts;
use super::section::Section;
use super::shape::{Shape, TICK, YEAR, duration, number, truth, whole, word};

/// Reads `timeout`. A limit that was left out gives way to the one that was given.
pub(super) fn timeout(mut section: Section<'_>) -> (TimeoutSettings, EdgeTimeouts) {
    let default = TimeoutSettings::default();
    let limit = duration(TICK..=YEAR).or_off();
    let attempt = section.get("attempt", &limit);
    let total = section.get("total", &limit);
    let least = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
    let (attempt, total) = match (attempt, total) {
        (Some(attempt), Some(total)) => (attempt, total),
        (None, Some(total)) => (least(default.attempt, total), total),
        (Some(attempt), None) => (attempt, default.total.max(attempt)),
        (None, None) => (default.attempt, default.total),
    };
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
    let default = EdgeTimeouts::default();
    let edge = EdgeTimeouts {
        connect: section.get("connect", &limit).unwrap_or(default.connect),
        first_byte: section
            .get("first_byte", &limit)
            .unwrap_or(default.first_byte),
        idle: section.get("idle", &limit).unwrap_or(default.idle),
    };
    section.finish();
    (
        TimeoutSettings {
            attempt,
            total,
            ..TimeoutSettings::default()
        },
        edge,
    )
}

/// Reads `retry`.
pub(super) fn retry(mut section: Section<'_>) -> RetrySettings {
    let default = RetrySettings::default();
    let budget = section.section_or_off("budget").map(|mut budget| {
        let default = BudgetSettings::default();
        let settings = BudgetSettings {
            ratio: budget
                .get("ratio", &number(0.0..=1.0))
                .unwrap_or(default.ratio),
            floor_per_second: budget
                .get("floor_per_second", &whole(0..=1_000_000))
                .unwrap_or(default.floor_per_second),
        };
        budget.finish();
        settings
    });
    let settings = RetrySettings {
        max_attempts: section
            .get("max_attempts", &count(100))
            .unwrap_or(default.max_attempts),
        backoff: backoff(section.section("backoff"), default.backoff),
        budget,
        respect_retry_after: section
            .get("respect_retry_after", &truth())
            .unwrap_or(default.respect_retry_after),
        on_open: section.get("on_open", &truth()).unwrap_or(default.on_open),
        on: None,
    };
    section.finish();
    settings
}

fn backoff(mut section: Section<'_>, default: BackoffSettings) -> BackoffSettings {
    let base = section.get("base", &duration(TICK..=YEAR));
    let max = section.get("max", &duration(TICK..=YEAR));
    let base_or_default = base.unwrap_or(default.base.min(max.unwrap_or(YEAR)));
    let settings = BackoffSettings {
        base: base_or_default,
        factor: section
            .get("factor", &number(1.0..=100.0))
            .unwrap_or(default.factor),
        max: max.unwrap_or(default.max.max(base_or_default)),
        jitter: section.get("jitter", &jitter()).unwrap_or(default.jitter),
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

fn jitter() -> Shape<'static, RetryJitter> {
    let words = word(&[
        ("none", RetryJitter::None),
        ("full", RetryJitter::Full),
        ("equal", RetryJitter::Equal),
    ]);
    let share = number(0.0..=1.0);
    let allowed = format!("{} or {}", words.allowed, share.allowed);
    Shape::new(allowed, move |value| {
        let share = || (share.parse)(value).map(RetryJitter::Added);
        (words.parse)(value).or_else(share)
    })
}

/// Reads `bulkhead`, and the limit of writes.
pub(super) fn bulkhead(mut section: Section<'_>) -> (BulkheadSettings, Option<NonZeroU32>) {
    const MOST: u32 = 1_000_000;
    let default = BulkheadSettings::default();
    let settings = BulkheadSettings {
        max_concurrent: section
            .get("max_concurrent", &count(MOST))
            .unwrap_or(default.max_concurrent),
        max_queue: section
            .get("max_queue", &whole(0..=MOST))
            .unwrap_or(default.max_queue),
        max_wait: section
            .get("max_wait", &duration(Duration::ZERO..=YEAR))
            .unwrap_or(default.max_wait),
        ..default
    };
    let writes = section
        .get("max_concurrent_writes", &whole(0..=MOST))
        .unwrap_or(0);
    if writes > settings.max_concurrent.get() && !section.is_bad("max_concurrent") {
        section.conflict(
            "max_concurrent_writes",
            format!(
                "it is more than max_concurrent, which is {}",
                settings.max_concurrent
            ),
            &format!("a whole number from 0 to {}", settings.max_concurrent),
        );
    }
    section.finish();
    (settings, NonZeroU32::new(writes))
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
        count: section.get("count", &count(1024)).unwrap_or(default.count),
        placement: section
            .get("placement", &word(PLACES))
            .unwrap_or(default.placement),
        restart: section
            .get("restart", &word(RESTARTS))
            .unwrap_or(default.restart),
        intensity: intensity(section.section("intensity"), default.intensity),
        backoff: backoff(section.section("backoff"), default.backoff),
        reset_after: section
            .get("reset_after", &duration(Duration::ZERO..=YEAR))
            .unwrap_or(default.reset_after),
        give_up: section
            .get("give_up", &word(ENDS))
            .unwrap_or(default.give_up),
        while_restarting: section
            .get("while_restarting", &word(MEANWHILE))
            .unwrap_or(default.while_restarting),
        drain: section
            .get("drain", &duration(Duration::ZERO..=YEAR))
            .unwrap_or(default.drain),
        stuck_after: section
            .get("stuck_after", &duration(TICK..=YEAR).or_off())
            .unwrap_or(default.stuck_after),
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
        max: section
            .get("max", &whole(0..=1_000_000))
            .unwrap_or(default.max),
        within: section
            .get("within", &duration(TICK..=YEAR))
            .unwrap_or(default.within),
    };
    section.finish();
    settings
}

fn quarantine(mut section: Section<'_>) -> QuarantineSettings {
    let default = QuarantineSettings::default();
    let settings = QuarantineSettings {
        crashes: section
            .get("crashes", &count(1000))
            .unwrap_or(default.crashes),
        ttl: section
            .get("ttl", &duration(TICK..=YEAR))
            .unwrap_or(default.ttl),
        max_entries: section
            .get("max_entries", &count(1_000_000))
            .unwrap_or(default.max_entries),
    };
    section.finish();
    settings
}
