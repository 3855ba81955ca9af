//! The section `retry`.

use std::num::NonZeroU32;

use breakerbox_policy::judgement::SHARE;
use breakerbox_policy::{BudgetSettings, RetrySettings};

use super::backoff;
use super::classify::symptoms;
use super::section::Section;
use super::value_type::{boolean, count, integer, number};

/// Reads `retry`.
/// `attempts`: default of `max_attempts`, if the kind has one of its own.
pub(super) fn read(mut section: Section<'_>, attempts: Option<NonZeroU32>) -> RetrySettings {
    let mut default = RetrySettings::default();
    default.max_attempts = attempts.unwrap_or(default.max_attempts);
    let budget = section.section_or_off("budget").map(|mut budget| {
        let default = BudgetSettings::default();
        let settings = BudgetSettings {
            ratio: budget.get_or("ratio", &number(SHARE), default.ratio),
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
        backoff: backoff::read(section.section("backoff"), default.backoff),
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
