//! The table `override` of a dependency: an override of its breaker that the configuration sets.

use breakerbox_policy::{ConfiguredOverride, OverrideMode};

use super::section::Section;
use super::value_type::{one_of, string};

const ALLOWED: &str = "a text of 1 to 500 letters";

/// Reads `override`; `None` if it is not given, or off.
///
/// # Source  Rule HLT-3 in docs/rules.md.
pub(super) fn read(mut section: Section<'_>) -> Option<ConfiguredOverride> {
    const MODES: &[(&str, OverrideMode)] = &[
        ("open", OverrideMode::ForcedOpen),
        ("disable", OverrideMode::Disabled),
        ("shadow", OverrideMode::Shadow),
    ];
    let text = string(ALLOWED, |text| {
        (1..=500).contains(&text.trim().chars().count())
    });
    let mode = section.get("mode", &one_of(MODES));
    let reason = section.get("reason", &text);
    if section.present && !section.has("mode") {
        let allowed = "\"open\" or \"disable\" or \"shadow\"";
        section.conflict("mode", "an override needs it", allowed);
    }
    // As for an operator's order: callers that are refused learn the reason.
    if section.present && !section.has("reason") {
        section.conflict("reason", "an override needs it", ALLOWED);
    }
    section.finish();
    Some(ConfiguredOverride {
        mode: mode?,
        reason: reason?.trim().to_owned(),
    })
}
