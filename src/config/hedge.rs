//! The section `hedge`.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{HedgeDelay, HedgeSettings, Rate};

use super::section::Section;
use super::value_type::{TICK, YEAR, count, duration, rate};

/// Reads `hedge`. `attempt`: the attempt timeout, which must exceed the delay.
pub(super) fn read(mut section: Section<'_>, attempt: Option<Duration>) -> Option<HedgeSettings> {
    let span = duration(TICK..=YEAR);
    let plain = duration(TICK..=YEAR).or_table("{ quantile = 0.95, at_least = \"20ms\" }");
    let (fixed, mut learnt) = section.plain_or_table("delay", &plain);
    section.warn_if_long("delay", &plain, "");
    let often = Rate::new(0.95).unwrap_or(Rate::ZERO);
    let quantile = learnt.get_or("quantile", &rate(), often);
    let at_least = learnt.get_or("at_least", &span, Duration::from_millis(20));
    if section.present && !section.has("delay") {
        section.conflict("delay", "it is missing", &plain.allowed);
    }
    let too_late = |delay: Duration| attempt.filter(|attempt| *attempt <= delay);
    let reason = |attempt| {
        let attempt = humantime::format_duration(attempt);
        let reason = format!("every attempt ends before, timeout.attempt is {attempt}");
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
