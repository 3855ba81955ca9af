//! Breakerbox: an actor-based supervision runtime for the calls that a program makes to things
//! it does not control.
//!
//! This is the facade: configuration and log output here, the runtime in `breakerbox-actors`,
//! the machines that decide in `breakerbox-policy`.

pub mod config;

#[cfg(feature = "cli")]
pub mod telemetry;
