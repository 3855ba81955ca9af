//! The section `health`.

use breakerbox_policy::HealthSettings;

use super::section::Section;
use super::value_type::rate;

/// Reads `health`.
pub(super) fn read(mut section: Section<'_>) -> HealthSettings {
    let default = HealthSettings::default();
    let settings = HealthSettings {
        degraded_at: section.get_or("degraded_at", &rate(), default.degraded_at),
    };
    section.finish();
    settings
}
