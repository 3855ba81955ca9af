//! Tables of a growing delay: `retry.backoff`, `workers.backoff` and `throttle.backoff`.

use breakerbox_policy::judgement::{FACTOR, SHARE};
use breakerbox_policy::{BackoffSettings, RetryJitter};

use super::section::Section;
use super::value_type::{OneOfTwo, TICK, ValueType, YEAR, duration, either, number, one_of};

/// Reads such a table.
pub(super) fn read(mut section: Section<'_>, default: BackoffSettings) -> BackoffSettings {
    let span = duration(TICK..=YEAR);
    let base = section.get("base", &span);
    let max = section.get("max", &span);
    let base = section.default_to("base", &span, base, default.base.min(max.unwrap_or(YEAR)));
    let settings = BackoffSettings {
        base,
        factor: section.get_or("factor", &number(FACTOR), default.factor),
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
    either(words, number(SHARE), join, |jitter| match jitter {
        RetryJitter::Added(share) => OneOfTwo::Second(*share),
        word => OneOfTwo::First(*word),
    })
}
