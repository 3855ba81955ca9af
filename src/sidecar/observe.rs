//! Observation of a process: metrics, traces and log output.

pub(crate) mod metrics;

#[cfg(feature = "otel")]
pub mod otel;

pub mod telemetry;
