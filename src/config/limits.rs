//! Limits of calls beside the breaker: `hedge`, `rate_limit`, `throttle`, `bulkhead.adaptive`,
//! `keys` and `chaos`.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    AdaptiveRule, AdaptiveSettings, ChaosSettings, HedgeDelay, HedgeSettings, KeySettings,
    QuotaReset, Rate, RateLimitSettings, ThrottleSettings,
};
use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::breaker::count;
use super::policy::backoff;
use super::section::Section;
use super::value_type::{TICK, ValueType, YEAR, boolean, duration, number, one_of, rate, string};

/// Reads `hedge`. `attempt`: the attempt timeout, which must exceed the delay.
pub(super) fn hedge(mut section: Section<'_>, attempt: Option<Duration>) -> Option<HedgeSettings> {
    let span = duration(TICK..=YEAR);
    let plain = duration(TICK..=YEAR).or_table("{ quantile = 0.95, at_least = \"20ms\" }");
    let (fixed, mut learnt) = section.plain_or_table("delay", &plain);
    let often = Rate::new(0.95).unwrap_or(Rate::ZERO);
    let quantile = learnt.get_or("quantile", &rate(), often);
    let at_least = learnt.get_or("at_least", &span, Duration::from_millis(20));
    if section.present && !section.has("delay") {
        section.conflict("delay", "it is missing", &plain.allowed);
    }
    let too_late = |delay: Duration| attempt.filter(|attempt| *attempt <= delay);
    let reason = |attempt| {
        let attempt = humantime::format_duration(attempt);
        let reason = format!("no attempt is silent for so long, timeout.attempt is {attempt}");
        (reason, format!("a duration of less than {attempt}"))
    };
    if let Some((reason, allowed)) = fixed.and_then(too_late).map(reason) {
        section.conflict("delay", reason, &allowed);
    }
    if learnt.present
        && let Some((reason, allowed)) = too_late(at_least).map(reason)
    {
        learnt.conflict("at_least", reason, &allowed);
    }
    let learnt_delay = learnt
        .present
        .then_some(HedgeDelay::Quantile { quantile, at_least });
    let max_hedges = section.get_or("max_hedges", &count(5), NonZeroU32::MIN);
    learnt.finish();
    section.finish();
    let delay = fixed.map(HedgeDelay::Fixed).or(learnt_delay)?;
    Some(HedgeSettings { delay, max_hedges })
}

/// Reads `rate_limit`.
pub(super) fn rate_limit(mut section: Section<'_>) -> Option<RateLimitSettings> {
    let rate = section.get("rate", &number(0.001..=1e9));
    if section.present && !section.has("rate") {
        let allowed = "a number of calls for each interval";
        section.conflict("rate", "it is missing", allowed);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates"
    )]
    let one_interval = rate.and_then(|rate| NonZeroU32::new(rate.ceil() as u32));
    let one_interval = one_interval.unwrap_or(NonZeroU32::MIN);
    let per = section.get_or("per", &duration(TICK..=YEAR), Duration::from_secs(1));
    let burst = section.get_or("burst", &count(u32::MAX), one_interval);
    let wait = duration(Duration::ZERO..=YEAR);
    let max_wait = section.get_or("max_wait", &wait, Duration::ZERO);
    section.finish();
    rate.map(|rate| RateLimitSettings {
        rate,
        per,
        burst,
        max_wait,
    })
}

/// Reads `throttle`.
pub(super) fn throttle(mut section: Section<'_>) -> ThrottleSettings {
    let default = ThrottleSettings::default();
    let wait = duration(Duration::ZERO..=YEAR);
    let settings = ThrottleSettings {
        backoff: backoff(section.section("backoff"), default.backoff),
        max_wait: section.get_or("max_wait", &wait, default.max_wait),
        quota_reset: quota_reset(&mut section, default.quota_reset),
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

/// Reads `bulkhead.adaptive`. `most`: `max_concurrent`, if it is valid.
pub(super) fn adaptive(
    mut section: Section<'_>,
    most: Option<NonZeroU32>,
) -> Option<AdaptiveSettings> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Aimd,
        Gradient,
    }
    const KINDS: &[(&str, Kind)] = &[("aimd", Kind::Aimd), ("gradient", Kind::Gradient)];
    const MOST: u32 = 1_000_000;
    let default = AdaptiveSettings::default();
    let kind = section.get_or("rule", &one_of(KINDS), Kind::Gradient);
    let backoff = section.get("backoff", &rate());
    let tolerance = section.get("tolerance", &number(1.0..=100.0));
    let (rule, own) = match kind {
        Kind::Aimd => {
            let usual = Rate::new(0.9).unwrap_or(Rate::ZERO);
            let backoff = section.default_to("backoff", &rate(), backoff, usual);
            (AdaptiveRule::Aimd { backoff }, "backoff")
        }
        Kind::Gradient => {
            let shape = number(1.0..=100.0);
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

/// Reads `keys`.
pub(super) fn keys(mut section: Section<'_>) -> KeySettings {
    let default = KeySettings::default();
    let settings = KeySettings {
        max_entries: section.get_or("max_entries", &count(1_000_000), default.max_entries),
        idle: section.get_or("idle", &duration(TICK..=YEAR), default.idle),
    };
    section.finish();
    settings
}

/// Reads `chaos`. In production it needs `allow_in_production`, so that a leftover is not active by
/// accident.
pub(super) fn chaos(mut section: Section<'_>, environment: &str) -> Option<ChaosSettings> {
    let default = ChaosSettings::default();
    let settings = ChaosSettings {
        latency_rate: section.get_or("latency_rate", &rate(), default.latency_rate),
        latency: section.get_or("latency", &duration(Duration::ZERO..=YEAR), default.latency),
        error_rate: section.get_or("error_rate", &rate(), default.error_rate),
        hang_rate: section.get_or("hang_rate", &rate(), default.hang_rate),
        panic_rate: section.get_or("panic_rate", &rate(), default.panic_rate),
        lasts: section.get_or("lasts", &duration(TICK..=YEAR).or_off(), default.lasts),
    };
    let is_allowed = section.get_or("allow_in_production", &boolean(), false);
    let blows = [settings.error_rate, settings.hang_rate, settings.panic_rate];
    let sum: f64 = blows.iter().map(|rate| rate.as_f64()).sum();
    // Each rate is exact to a millionth; their sum as floats is not.
    if sum > 1.0 + 1e-7 {
        section.conflict_here(
            &format!("error_rate, hang_rate and panic_rate make {sum:.2} together"),
            "rates that make at most 1",
        );
    }
    if settings.latency_rate > Rate::ZERO
        && settings.latency.is_zero()
        && !section.is_bad("latency")
    {
        let reason = "nothing is delayed without latency";
        section.conflict("latency_rate", reason, "to set latency too");
    }
    if section.present && environment == "production" && !is_allowed {
        let allowed = "\"off\", or allow_in_production = true";
        section.conflict_here("faults on purpose in production", allowed);
    }
    let given = section.present;
    section.finish();
    given.then_some(settings)
}
