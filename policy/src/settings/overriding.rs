//! Overrides of a breaker: their effects, and the one that the settings of a dependency can set.

use std::fmt;

/// Effect of an override.
///
/// Exhaustive on purpose: a gate must publish each mode to the callers that read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OverrideMode {
    /// Refuses everything.
    ForcedOpen,
    /// Admits everything, records nothing.
    Disabled,
    /// Admits everything, measures, never trips.
    Shadow,
}

impl fmt::Display for OverrideMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::Shadow => "shadow",
        })
    }
}

/// An override that the configuration of a dependency sets.
///
/// # Source  Rule HLT-3 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredOverride {
    /// Its effect.
    pub mode: OverrideMode,
    /// Reason for it.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_told_by_the_word_of_its_mode() {
        let modes = [
            OverrideMode::ForcedOpen,
            OverrideMode::Disabled,
            OverrideMode::Shadow,
        ];
        let words = modes.map(|mode| mode.to_string());
        assert_eq!(words, ["forced_open", "disabled", "shadow"]);
    }
}
