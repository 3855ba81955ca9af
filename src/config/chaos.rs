//! The section `chaos`.

use std::time::Duration;

use breakerbox_policy::{ChaosSettings, Rate};

use super::section::Section;
use super::value_type::{TICK, YEAR, boolean, duration, rate};

/// Reads `chaos`. In production it needs `allow_in_production`, so that a leftover is not active by
/// accident.
pub(super) fn read(mut section: Section<'_>, environment: &str) -> Option<ChaosSettings> {
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
