//! Traces and metrics of the sidecar, if its build and its configuration include them.

use crate::config::Settings;
use crate::sidecar::admin::Admin;
use crate::sidecar::gateway::Tracing;

/// The exporter: none in this build.
#[cfg(not(feature = "otel"))]
pub(super) struct SidecarExport(());

#[cfg(not(feature = "otel"))]
impl SidecarExport {
    pub(super) fn start(_: &Settings) -> Result<Self, super::SidecarError> {
        Ok(Self(()))
    }

    pub(super) fn tracing(&self) -> Tracing {
        Tracing::default()
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

    /// Returns the spans of the gateway's requests, if they are exported.
    pub(super) fn tracing(&self) -> Tracing {
        let exporter = self.0.as_ref();
        exporter
            .map(crate::sidecar::observe::otel::Exporter::tracing)
            .unwrap_or_default()
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
