//! The section `timeout`.

use std::time::Duration;

use breakerbox_policy::TimeoutSettings;

use super::section::Section;
use super::value_type::{TICK, YEAR, duration};

/// Reads `timeout`. The default of a missing limit adapts to the one that was given.
pub(super) fn read(mut section: Section<'_>) -> TimeoutSettings {
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
