//! The section `throttle`.

use std::time::Duration;

use breakerbox_policy::{QuotaReset, ThrottleSettings};
use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::backoff;
use super::section::Section;
use super::value_type::{TICK, ValueType, YEAR, duration, string};

/// Reads `throttle`.
pub(super) fn read(mut section: Section<'_>) -> ThrottleSettings {
    let default = ThrottleSettings::default();
    let wait = duration(Duration::ZERO..=YEAR);
    let settings = ThrottleSettings {
        backoff: backoff::read(section.section("backoff"), default.backoff),
        max_wait: section.get_or("max_wait", &wait, default.max_wait),
        quota_reset: quota_reset(&mut section, default.quota_reset),
        max: section.get_or("max", &duration(TICK..=YEAR), default.max),
    };
    section.finish();
    settings
}

fn quota_reset(section: &mut Section<'_>, default: QuotaReset) -> QuotaReset {
    let example = "{ at = \"00:00\", zone = \"America/Los_Angeles\" }";
    let plain = duration(TICK..=YEAR).or_table(example);
    let (after, mut daily) = section.plain_or_table("quota_reset", &plain);
    let at = daily.get("at", &time_of_day());
    let zone = daily.get("zone", &zone());
    if daily.present {
        for key in ["at", "zone"] {
            if !daily.has(key) {
                daily.conflict(key, "it is missing", example);
            }
        }
    } else if let QuotaReset::After(default) = default {
        section.default_to("quota_reset", &plain, after, default);
    }
    daily.finish();
    match (after, at.zip(zone)) {
        (Some(after), _) => QuotaReset::After(after),
        (None, Some(((hour, minute), zone))) => QuotaReset::Daily { hour, minute, zone },
        (None, None) => default,
    }
}

/// Returns the type of a time of day, as hour and minute of 24 hours.
fn time_of_day() -> ValueType<'static, (u8, u8)> {
    let text = string("a time of day such as \"00:00\"", |_| true);
    let parse = |text: String| {
        let time = Time::strptime("%H:%M", text.trim()).ok()?;
        Some((time.hour().try_into().ok()?, time.minute().try_into().ok()?))
    };
    text.map(parse, |(hour, minute)| format!("{hour:02}:{minute:02}"))
}

/// Returns the type of a time zone, named as in the IANA database.
fn zone() -> ValueType<'static, String> {
    let allowed = "a time zone of the IANA database, such as \"America/Los_Angeles\"";
    let known = |text: String| Some(TimeZone::get(text.trim()).ok()?.iana_name()?.to_owned());
    string(allowed, |_| true).map(known, String::clone)
}
