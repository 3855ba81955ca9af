//! The section `bulkhead`, with its table `adaptive`.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::judgement::TOLERANCE;
use breakerbox_policy::{AdaptiveRule, AdaptiveSettings, BulkheadSettings, Rate};

use super::section::Section;
use super::value_type::{TICK, YEAR, count, duration, integer, number, one_of, rate};

/// Reads `bulkhead`. `writes`: default of `max_concurrent_writes`; 0 for no separate limit.
/// `max_wait`, `places`: the defaults of `max_wait` and `max_concurrent`, if the kind has some of its
/// own.
pub(super) fn read(
    mut section: Section<'_>,
    writes: u32,
    max_wait: Option<Duration>,
    places: Option<NonZeroU32>,
) -> BulkheadSettings {
    const MOST: u32 = 1_000_000;
    let default = BulkheadSettings::default();
    let max_wait = max_wait.unwrap_or(default.max_wait);
    let places = places.unwrap_or(default.max_concurrent);
    let most = section.get_or("max_concurrent", &count(MOST), places);
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
        max_wait: section.get_or("max_wait", &forever, max_wait),
        adaptive: adaptive.and_then(|section| read_adaptive(section, (!is_bad).then_some(most))),
    };
    section.finish();
    settings
}

/// Reads `bulkhead.adaptive`. `most`: `max_concurrent`, if it is valid.
fn read_adaptive(mut section: Section<'_>, most: Option<NonZeroU32>) -> Option<AdaptiveSettings> {
    #[derive(Clone, Copy, PartialEq)]
    enum AdaptiveKind {
        Aimd,
        Gradient,
    }
    const KINDS: &[(&str, AdaptiveKind)] = &[
        ("aimd", AdaptiveKind::Aimd),
        ("gradient", AdaptiveKind::Gradient),
    ];
    const MOST: u32 = 1_000_000;
    let default = AdaptiveSettings::default();
    let kind = section.get_or("rule", &one_of(KINDS), AdaptiveKind::Gradient);
    let backoff = section.get("backoff", &rate());
    let tolerance = section.get("tolerance", &number(TOLERANCE));
    let (rule, own) = match kind {
        AdaptiveKind::Aimd => {
            let usual = Rate::new(0.9).unwrap_or(Rate::ZERO);
            let backoff = section.default_to("backoff", &rate(), backoff, usual);
            (AdaptiveRule::Aimd { backoff }, "backoff")
        }
        AdaptiveKind::Gradient => {
            let shape = number(TOLERANCE);
            let tolerance = section.default_to("tolerance", &shape, tolerance, 1.5);
            (AdaptiveRule::Gradient { tolerance }, "tolerance")
        }
    };
    section.only_or("rule", "\"gradient\"", &[own, "min", "initial", "idle"]);
    let ceiling = most.map_or(default.initial, |most| most.min(default.initial));
    let initial = section.get("initial", &count(MOST));
    let lowest = default.min.min(initial.unwrap_or(ceiling));
    let min = section.get_or("min", &count(MOST), lowest);
    let initial = section.default_to("initial", &count(MOST), initial, ceiling.max(min));
    let settings = AdaptiveSettings {
        rule,
        min,
        initial,
        idle: section.get_or("idle", &duration(TICK..=YEAR), default.idle),
    };
    check_heights(&section, &settings, most);
    let given = section.present;
    section.finish();
    given.then_some(settings)
}

/// Checks `min <= initial <= max_concurrent`, and reports the key that was given.
fn check_heights(section: &Section<'_>, settings: &AdaptiveSettings, most: Option<NonZeroU32>) {
    let AdaptiveSettings { min, initial, .. } = *settings;
    if !section.present || section.is_bad("min") || section.is_bad("initial") {
        return;
    }
    if min > initial {
        section.conflict(
            "min",
            format!("it is more than initial, which is {initial}"),
            &format!("a whole number from 1 to {initial}"),
        );
    }
    if let Some(most) = most.filter(|most| initial > *most) {
        let key = if section.has("initial") {
            "initial"
        } else {
            "min"
        };
        section.conflict(
            key,
            format!("it is more than bulkhead.max_concurrent, which is {most}"),
            &format!("a whole number from 1 to {most}"),
        );
    }
}
