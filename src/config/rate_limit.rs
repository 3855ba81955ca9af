//! The section `rate_limit`.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::judgement::CALL_RATE;
use breakerbox_policy::{RateLimitSettings, RateSharing};

use super::section::Section;
use super::value_type::{TICK, YEAR, boolean, count, duration, number};

/// Reads `rate_limit`, and its sharing.
pub(super) fn read(mut section: Section<'_>) -> Option<(RateLimitSettings, Option<RateSharing>)> {
    let rate = section.get("rate", &number(CALL_RATE));
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
    let sharing = read_sharing(&mut section);
    section.finish();
    let limit = |rate| RateLimitSettings {
        rate,
        per,
        burst,
        max_wait,
    };
    rate.map(|rate| (limit(rate), sharing))
}

fn read_sharing(section: &mut Section<'_>) -> Option<RateSharing> {
    let lease = duration(Duration::from_millis(10)..=Duration::from_secs(10));
    let is_shared = section.get_or("shared", &boolean(), false);
    let lease = section.get_or("lease", &lease.or_word("auto"), None);
    if !is_shared && lease.is_some() {
        let text = "it has no effect without shared = true";
        section.warn("lease", text.to_owned());
    }
    is_shared.then_some(RateSharing { lease })
}
