//! The section `keys`.

use breakerbox_policy::KeySettings;

use super::section::Section;
use super::value_type::{TICK, YEAR, count, duration};

/// Reads `keys`.
pub(super) fn read(mut section: Section<'_>) -> KeySettings {
    let default = KeySettings::default();
    let settings = KeySettings {
        max_entries: section.get_or("max_entries", &count(1_000_000), default.max_entries),
        idle: section.get_or("idle", &duration(TICK..=YEAR), default.idle),
    };
    section.finish();
    settings
}
