//! Traces and metrics of the sidecar, if its build and its configuration include them.

use std::collections::BTreeSet;
use std::io;

use crate::Runtime;
use crate::config::{GatewayConfig, Settings};
use crate::sidecar::admin::Admin;
use crate::sidecar::gateway::Gateway;

/// The exporter: none in this build.
#[cfg(not(feature = "otel"))]
pub(super) struct SidecarExport(());

#[cfg(not(feature = "otel"))]
impl SidecarExport {
    pub(super) fn start(_: &Settings) -> Result<Self, super::SidecarError> {
        Ok(Self(()))
    }

    pub(super) fn gateway(
        &self,
        config: &GatewayConfig,
        runtime: &Runtime,
        awaited: BTreeSet<String>,
    ) -> io::Result<Gateway> {
        Gateway::start_before(
            config,
            runtime,
            crate::sidecar::gateway::Tracing::default(),
            awaited,
        )
    }

    pub(super) fn report(&mut self, _: &Admin) {}

    pub(super) async fn end(self) {}
}

/// The exporter, if an endpoint is configured.
#[cfg(feature = "otel")]
pub(super) struct SidecarExport(Option<crate::sidecar::observe::otel::Exporter>);

#[cfg(feature = "otel")]
impl SidecarExport {
    pub(super) fn start(settings: &Settings) -> Result<Self, super::SidecarError> {
        Ok(Self(crate::sidecar::observe::otel::Exporter::start(
            &settings.otel,
        )?))
    }

    /// Starts the gateway, with spans if they are exported.
    pub(super) fn gateway(
        &self,
        config: &GatewayConfig,
        runtime: &Runtime,
        awaited: BTreeSet<String>,
    ) -> io::Result<Gateway> {
        let tracing = self
            .0
            .as_ref()
            .map(crate::sidecar::observe::otel::Exporter::tracing);
        Gateway::start_before(config, runtime, tracing.unwrap_or_default(), awaited)
    }

    /// Starts exporting metrics.
    pub(super) fn report(&mut self, admin: &Admin) {
        if let Some(exporter) = &mut self.0 {
            exporter.report(admin.metrics());
        }
    }

    /// Sends the rest, within the configured time limit.
    pub(super) async fn end(self) {
        if let Some(exporter) = self.0 {
            // Losses are logged.
            exporter.shutdown().await;
        }
    }
}
