//! Breakerbox: an actor-based supervision runtime for the calls that a program makes to things
//! it does not control.
//!
//! Every external dependency gets its own breaker actor, its own supervised workers and its own
//! fallbacks, so that one sick dependency can neither hang, drown nor crash the rest.
//!
//! This is the facade: configuration and log output here, the runtime in `breakerbox-actors`,
//! the machines that decide in `breakerbox-policy`.

pub mod config;

#[cfg(feature = "recorder")]
pub mod recorder;

#[cfg(feature = "cli")]
pub mod reload;
#[cfg(feature = "cli")]
pub mod telemetry;

pub use breakerbox_actors::*;
pub use breakerbox_policy as policy;
pub use config::Settings;

/// What most programs need: `use breakerbox::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    pub use breakerbox_actors::{
        Answer, Call, CallContext, CallError, CallOptions, Child, Client, Dependency, Event,
        EventKind, Fixed, Group, On, Rule, Runtime, RuntimeSettings, Source, StaleCache, Verdict,
    };
    pub use breakerbox_policy::{Class, Command, DependencySettings, Executed};

    pub use crate::config::Settings;
}

impl From<Settings> for RuntimeSettings {
    fn from(settings: Settings) -> Self {
        let dependencies = settings
            .dependencies
            .into_iter()
            .map(|(name, dependency)| (name, dependency.settings))
            .collect();
        Self {
            dependencies,
            ..Self::default()
        }
    }
}

/// Compiles and runs the programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
