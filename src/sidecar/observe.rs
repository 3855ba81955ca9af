//! Observation of a process: metrics, traces and log output.

#[cfg(feature = "admin")]
pub(crate) mod metrics;

#[cfg(feature = "otel")]
mod export_counts;

#[cfg(feature = "otel")]
pub mod otel;

#[cfg(feature = "cli")]
pub mod telemetry;
