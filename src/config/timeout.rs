//! The section `timeout`.

use std::time::Duration;

use breakerbox_policy::TimeoutSettings;

use super::kind::DependencyKind;
use super::model;
use super::section::Section;
use super::value_type::{TICK, YEAR, duration};

/// Reads `timeout`. The default of a missing limit adapts to the one that was given.
pub(super) fn read(mut section: Section<'_>, kind: Option<DependencyKind>) -> TimeoutSettings {
    if kind == Some(DependencyKind::Model) {
        return read_model(section);
    }
    for key in CONTENT {
        section.get(key, &duration(TICK..=YEAR).or_off());
    }
    model::reject(&section, &CONTENT);
    if kind == Some(DependencyKind::Http) {
        return read_http(section);
    }
    let is_mcp = kind.is_some_and(DependencyKind::is_mcp);
    // MCP-4: a tool may take as long as client libraries wait for one.
    let default = match is_mcp {
        true => TimeoutSettings {
            attempt: Some(TOOL),
            total: Some(TOOL),
            ..TimeoutSettings::default()
        },
        false => TimeoutSettings::default(),
    };
    let limit = duration(TICK..=YEAR).or_off();
    let attempt = section.get("attempt", &limit);
    let total = section.get("total", &limit);
    let least = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
    let long_enough = attempt.map_or(default.total, |attempt| default.total.max(attempt));
    let total = section.default_to("total", &limit, total, long_enough);
    let attempt = section.default_to("attempt", &limit, attempt, least(default.attempt, total));
    check_total(&mut section, attempt, total);
    let settings = TimeoutSettings {
        connect: section.get_or("connect", &limit, default.connect),
        attempt,
        total,
        first_byte: section.get_or("first_byte", &limit, default.first_byte),
        idle: section.get_or("idle", &limit, default.idle),
        keep: section.get_or("keep", &limit, default.keep),
        ..default
    };
    section.finish();
    settings
}

/// Time limit of a tool call where the configuration sets none.
const TOOL: Duration = Duration::from_secs(60);
/// Time from a complete request to the head of its response, where the configuration sets no limit.
const HEAD: Duration = Duration::from_secs(60);

/// Reads `timeout` of an HTTP dependency. By default its limits bound silence, and not what flows:
/// answers and uploads take as long as they take.
fn read_http(mut section: Section<'_>) -> TimeoutSettings {
    // EDGE-4: only a limit that the configuration sets cuts what still flows.
    let default = TimeoutSettings {
        attempt: None,
        total: None,
        ..TimeoutSettings::default()
    };
    let limit = duration(TICK..=YEAR).or_off();
    let total = section.get_or("total", &limit, default.total);
    let attempt = section.get_or("attempt", &limit, default.attempt);
    check_total(&mut section, attempt, total);
    // A longer limit that was set for all of it holds for its head too.
    let head = attempt.or(total).or(Some(HEAD));
    let settings = TimeoutSettings {
        connect: section.get_or("connect", &limit, default.connect),
        attempt,
        total,
        first_byte: section.get_or("first_byte", &limit, head),
        idle: section.get_or("idle", &limit, default.idle),
        keep: section.get_or("keep", &limit, default.keep),
        ..default
    };
    section.finish();
    settings
}

/// Limits of the content of a model's stream.
const CONTENT: [&str; 2] = ["first_token", "gap"];
/// Time to the first content of a model's stream, where the configuration sets none.
const FIRST_TOKEN: Duration = Duration::from_secs(120);
/// Time between two pieces of its content, where the configuration sets none.
const GAP: Duration = Duration::from_secs(60);
/// Time of a whole answer of a model, where the configuration sets none.
const ANSWER: Duration = Duration::from_secs(600);
/// Time to connect to a model, where the configuration sets none.
const CONNECT: Duration = Duration::from_secs(5);

/// Reads `timeout` of a model. The head of a whole answer comes when the answer is done, and the
/// limits of content bound a stream.
fn read_model(mut section: Section<'_>) -> TimeoutSettings {
    let default = TimeoutSettings::default();
    let limit = duration(TICK..=YEAR).or_off();
    let total = section.get_or("total", &limit, None);
    let attempt = section.get("attempt", &limit);
    let usual = Some(total.map_or(ANSWER, |total| total.min(ANSWER)));
    let attempt = section.default_to("attempt", &limit, attempt, usual);
    check_total(&mut section, attempt, total);
    let settings = TimeoutSettings {
        connect: section.get_or("connect", &limit, Some(CONNECT)),
        attempt,
        total,
        first_byte: section.get_or("first_byte", &limit, None),
        idle: section.get_or("idle", &limit, None),
        first_token: section.get_or("first_token", &limit, Some(FIRST_TOKEN)),
        gap: section.get_or("gap", &limit, Some(GAP)),
        keep: section.get_or("keep", &limit, default.keep),
    };
    section.finish();
    settings
}

fn check_total(section: &mut Section<'_>, attempt: Option<Duration>, total: Option<Duration>) {
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
}
