//! Breakerbox: an actor-based supervision runtime for the calls that a program makes to things it
//! does not control.
//!
//! Every external dependency gets its own breaker actor, its own supervised workers and its own
//! fallbacks, so that one failing dependency can neither hang, overload nor crash the rest.
//!
//! The attribute `#[protected("name")]` protects an async function (feature `macros`).
//!
//! This crate is the facade. It contains configuration and log output; the runtime is in
//! `breakerbox-actors`, the state machines are in `breakerbox-policy`.

pub mod config;

#[cfg(feature = "recorder")]
pub mod recorder;

#[cfg(feature = "agents")]
pub mod agents;

#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "cli")]
pub mod reload;

#[cfg(any(feature = "admin", feature = "gateway"))]
mod sidecar;

// shared by all of them
#[cfg(any(feature = "admin", feature = "mcp", feature = "recorder"))]
mod lock;

// shared by the HTTP clients
#[cfg(feature = "mcp")]
mod retry_after;

#[cfg(feature = "mcp")]
mod tls;

pub use breakerbox_actors::*;
#[cfg(feature = "macros")]
#[doc = include_str!("protected.md")]
pub use breakerbox_macros::protected;
pub use breakerbox_policy as policy;
pub use config::Settings;
#[cfg(feature = "admin")]
pub use sidecar::admin;
#[cfg(feature = "gateway")]
pub use sidecar::gateway;
#[cfg(feature = "otel")]
pub use sidecar::observe::otel;
#[cfg(feature = "cli")]
pub use sidecar::observe::telemetry;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use sidecar::{serve, simulated};

/// Items that most programs need: `use breakerbox::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    pub use breakerbox_actors::{
        Answer, AnswerSource, Call, CallContext, CallError, CallOptions, Child, Client, Dependency,
        Event, EventKind, FallbackRule, Fixed, Group, Runtime, RuntimeSettings, ServeOn, Session,
        StaleCache, Verdict,
    };
    pub use breakerbox_policy::{
        BreakerCommand, Class, DependencySettings, Executed, Priority, Symptom,
    };

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
    /// Converts to runtime settings, with a recorder if `recorder.path` names a file.
    ///
    /// # Errors  The file, or the thread that writes it, cannot be created.
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

/// Compiles the program of the page on agent systems.
#[cfg(all(doctest, feature = "agents"))]
#[doc = include_str!("../docs/agents.md")]
pub struct AgentsPage;
