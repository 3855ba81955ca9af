//! Breakerbox: an actor-based supervision runtime for the calls that a program makes to things
//! it does not control.
//!
//! Every external dependency gets its own breaker actor, its own supervised workers and its own
//! fallbacks, so that one sick dependency can neither hang, drown nor crash the rest.
//!
//! An async function is protected by an attribute, `#[protected("name")]` (feature `macros`).
//!
//! This is the facade: configuration and log output here, the runtime in `breakerbox-actors`,
//! the machines that decide in `breakerbox-policy`.

pub mod config;

#[cfg(feature = "recorder")]
pub mod recorder;

#[cfg(feature = "agents")]
pub mod agents;

#[cfg(feature = "cli")]
pub mod admin;
#[cfg(feature = "cli")]
pub mod gateway;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "cli")]
mod metrics;
#[cfg(feature = "otel")]
pub mod otel;
#[cfg(feature = "cli")]
pub mod reload;
#[cfg(feature = "cli")]
pub mod telemetry;

// what the HTTP clients share
#[cfg(feature = "mcp")]
mod hint;

#[cfg(feature = "mcp")]
mod tls;

pub use breakerbox_actors::*;
#[cfg(feature = "macros")]
#[doc = include_str!("protected.md")]
pub use breakerbox_macros::protected;
pub use breakerbox_policy as policy;
pub use config::Settings;

/// What most programs need: `use breakerbox::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    pub use breakerbox_actors::{
        Answer, Call, CallContext, CallError, CallOptions, Child, Client, Dependency, Event,
        EventKind, Fixed, Group, On, Rule, Runtime, RuntimeSettings, Session, Source, StaleCache,
        Verdict,
    };
    pub use breakerbox_policy::{Class, Command, DependencySettings, Executed, Priority, Symptom};

    pub use crate::config::Settings;
    #[cfg(feature = "macros")]
    pub use crate::protected;
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

#[cfg(feature = "recorder")]
impl Settings {
    /// What a runtime is started with, its recorder too where `recorder.path` names a file.
    ///
    /// # Errors  The file, or the thread that writes it, cannot be made.
    pub fn into_runtime(self) -> std::io::Result<RuntimeSettings> {
        let config = self.recorder.clone();
        let mut settings = RuntimeSettings::from(self);
        if let Some(path) = config.path {
            let options = recorder::RecorderOptions {
                max_queue: usize::try_from(config.max_queue.get()).unwrap_or(usize::MAX),
                max_bytes: config.max_bytes,
            };
            let recorder = recorder::Recorder::create(path, options)?;
            settings.recorder = Some(std::sync::Arc::new(recorder));
        }
        Ok(settings)
    }
}

/// Compiles and runs the programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
