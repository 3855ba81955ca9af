//! Traces and metrics of the sidecar, where its build and its configuration have them.

use std::io;

use breakerbox::Runtime;
use breakerbox::admin::Admin;
use breakerbox::config::{GatewayConfig, Settings};
use breakerbox::gateway::Gateway;

/// What is exported: nothing in this build.
#[cfg(not(feature = "otel"))]
pub(super) struct Export(());

#[cfg(not(feature = "otel"))]
impl Export {
    pub(super) fn start(_: &Settings) -> Result<Self, super::ServeError> {
        Ok(Self(()))
    }

    pub(super) fn gateway(&self, config: &GatewayConfig, runtime: &Runtime) -> io::Result<Gateway> {
        Gateway::start(config, runtime)
    }

    pub(super) fn report(&mut self, _: &Admin) {}

    pub(super) async fn end(self) {}
}

/// What is exported, where an endpoint is configured.
#[cfg(feature = "otel")]
pub(super) struct Export(Option<breakerbox::otel::Exporter>);

#[cfg(feature = "otel")]
impl Export {
    pub(super) fn start(settings: &Settings) -> Result<Self, super::ServeError> {
        Ok(Self(breakerbox::otel::Exporter::start(&settings.otel)?))
    }

    /// Starts the gateway, with spans where they are wanted.
    pub(super) fn gateway(&self, config: &GatewayConfig, runtime: &Runtime) -> io::Result<Gateway> {
        let tracing = self.0.as_ref().map(breakerbox::otel::Exporter::tracing);
        Gateway::start_traced(config, runtime, tracing.unwrap_or_default())
    }

    /// Sends metrics from now on.
    pub(super) fn report(&mut self, admin: &Admin) {
        if let Some(exporter) = &mut self.0 {
            exporter.report(admin);
        }
    }

    /// Sends what is left, for as long as the configuration allows.
    pub(super) async fn end(self) {
        if let Some(exporter) = self.0 {
            // What was lost is in the log.
            exporter.shutdown().await;
        }
    }
}
