//! The section `reload`.

use std::time::Duration;

use super::section::Section;
use super::value_type::{boolean, duration};

/// Reloading of the configuration while the program runs.
///
/// # Source  Rule CFG-2 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadConfig {
    /// True to reload after a change of a file; SIGHUP always reloads.
    pub watch: bool,
    /// Minimum delay between a change and the reload: editors and deployments write several times.
    pub debounce: Duration,
    /// True to apply a configuration that leaves nothing of what runs. Otherwise it is refused: a
    /// file may be empty or absent for a moment while it is replaced.
    pub allow_empty: bool,
}

impl Default for ReloadConfig {
    fn default() -> Self {
        Self {
            watch: true,
            debounce: Duration::from_millis(500),
            allow_empty: false,
        }
    }
}

/// Reads `reload`.
pub(super) fn read(mut section: Section<'_>) -> ReloadConfig {
    let default = ReloadConfig::default();
    let moment = duration(Duration::from_millis(10)..=Duration::from_secs(60));
    let settings = ReloadConfig {
        watch: section.get_or("watch", &boolean(), default.watch),
        debounce: section.get_or("debounce", &moment, default.debounce),
        allow_empty: section.get_or("allow_empty", &boolean(), default.allow_empty),
    };
    // A file that names each default says nothing.
    if !settings.watch && settings.debounce != default.debounce {
        let text = "it has no effect without reload.watch: a SIGHUP reloads at once";
        section.warn("debounce", text.to_owned());
    }
    section.finish();
    settings
}
