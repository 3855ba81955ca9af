//! The settings that a dependency got from the configuration, and those that the program set.

use breakerbox_policy::{DependencySettings, SettingProblem};

use crate::limits::pause;

/// Judges settings from code as those of files are judged (rule CFG-1).
///
/// # Errors  The first setting that cannot work.
pub(crate) fn judge(settings: &DependencySettings) -> Result<(), SettingProblem> {
    settings.judge()?;
    pause::judge(&settings.throttle)
}

/// The settings that a dependency got from the configuration, and the same after the program's
/// changes.
#[derive(Debug, Clone)]
pub(crate) struct ConfiguredSettings {
    /// The configuration's settings when they were last applied.
    given: DependencySettings,
    /// The same after the program's changes.
    made: DependencySettings,
}

/// Takes each section of `new`, except those that the program has changed.
macro_rules! merge {
    ($one:expr, $new:expr, [$($section:ident),* $(,)?]) => {
        DependencySettings {
            $($section: if $one.given.$section == $one.made.$section {
                $new.$section.clone()
            } else {
                $one.made.$section.clone()
            }),*
        }
    };
}

impl ConfiguredSettings {
    /// Pairs the configuration's settings with the program's version of them.
    pub(crate) fn new(given: DependencySettings, made: DependencySettings) -> Self {
        Self { given, made }
    }

    /// Takes new settings of the configuration. Returns the settings before, and those to apply.
    pub(crate) fn follow(
        &mut self,
        given: &DependencySettings,
    ) -> (DependencySettings, DependencySettings) {
        let made = self.with(given);
        let old = std::mem::replace(&mut self.made, made.clone());
        self.given = given.clone();
        (old, made)
    }

    /// Takes the program's settings, and returns those before.
    pub(crate) fn set(&mut self, made: DependencySettings) -> DependencySettings {
        std::mem::replace(&mut self.made, made)
    }

    /// Returns the settings to apply when the configuration gives `new`.
    fn with(&self, new: &DependencySettings) -> DependencySettings {
        let mut merged = merge!(
            self,
            new,
            [
                breaker,
                timeout,
                retry,
                hedge,
                rate_limit,
                rate_sharing,
                throttle,
                bulkhead,
                workers,
                classify,
                health,
                keys,
                key_lease,
                when_all_down,
                chaos,
                fallback_only,
                configured_override,
            ]
        );
        // FLT-13: a limit of the program's own is shared only if the program says so.
        if self.given.rate_limit != self.made.rate_limit {
            merged.rate_sharing = self.made.rate_sharing;
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use breakerbox_policy::{RateLimitSettings, RateSharing};

    use super::*;

    #[test]
    fn flt_13_a_limit_of_the_program_is_shared_as_the_program_says() {
        let limit = |rate| RateLimitSettings {
            rate,
            per: Duration::from_secs(1),
            burst: NonZeroU32::MIN,
            max_wait: Duration::ZERO,
        };
        let shared = DependencySettings {
            rate_limit: Some(limit(1.0)),
            rate_sharing: Some(RateSharing::default()),
            ..DependencySettings::default()
        };
        let alone = DependencySettings {
            rate_sharing: None,
            ..shared.clone()
        };
        let own = |one: &DependencySettings| DependencySettings {
            rate_limit: Some(limit(7.0)),
            ..one.clone()
        };
        let mut settings = ConfiguredSettings::new(alone.clone(), own(&alone));
        let (_, made) = settings.follow(&shared);
        assert_eq!(made, own(&alone));
        let mut settings = ConfiguredSettings::new(shared.clone(), shared.clone());
        let (_, made) = settings.follow(&alone);
        assert_eq!(made, alone);
    }
}
