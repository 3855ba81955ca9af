//! Traces and metrics for an OpenTelemetry collector, by OTLP over HTTP.
//!
//! Exports run on their own threads. A request only pushes a finished span to a bounded queue. If
//! the collector is slow or gone, spans are dropped and counted. The gateway defines the content of
//! spans, `metrics` that of metrics.

mod sender;

mod metrics;
mod spans;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry::trace::{TraceId, TracerProvider as _};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SdkTracerProvider};
use prometheus::proto::MetricFamily;
use tokio::sync::oneshot;

use crate::config::OtelConfig;
use crate::sidecar::gateway::Tracing;
use sender::OtlpSender;

use super::export_counts::ExportCounts;
use super::metrics::MetricsReader;

/// Time that ending all exports may take beyond the limit of one export.
const MARGIN: Duration = Duration::from_secs(1);

/// Exports traces and metrics until [`Exporter::shutdown`].
pub struct Exporter {
    config: OtelConfig,
    resource: Resource,
    sender: OtlpSender,
    provider: Option<SdkTracerProvider>,
    counts: Arc<ExportCounts>,
    reports: Option<ReportTask>,
    /// Ends the thread when dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The task that exports metrics.
struct ReportTask {
    last: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// Reason why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// A thread cannot be started.
    #[error("a thread for traces and metrics cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// A part of the configuration cannot be used.
    #[error("nothing can be sent to otel.endpoint: {0}")]
    Unusable(String),
}

/// Source of the metrics to export: the admin side, with the same content as its `GET /metrics`. Cheap to
/// clone.
#[derive(Clone)]
pub struct MetricsSource {
    metrics: MetricsReader,
    read: Arc<dyn Fn() -> Vec<MetricFamily> + Send + Sync>,
}

impl MetricsSource {
    /// Creates a source. `read`: reads all families once.
    pub(crate) fn new(
        metrics: MetricsReader,
        read: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static,
    ) -> Self {
        Self {
            metrics,
            read: Arc::new(read),
        }
    }
}

impl fmt::Debug for MetricsSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MetricsSource").finish_non_exhaustive()
    }
}

impl Exporter {
    /// Starts exporting traces. Returns `None` if no endpoint is configured. [`Exporter::report`]
    /// starts the metrics.
    ///
    /// # Errors  [`ExporterError`]. An unreachable collector is no error.
    pub fn start(config: &OtelConfig) -> Result<Option<Self>, ExporterError> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        let (stop, thread, runtime) = sender::thread()?;
        let endpoint = endpoint.trim_end_matches('/');
        let sender = OtlpSender::new(endpoint, config, runtime)?;
        let mut exporter = Self {
            config: config.clone(),
            resource: resource(config),
            sender,
            provider: None,
            counts: Arc::default(),
            reports: None,
            stop: Some(stop),
            thread: Some(thread),
        };
        if config.traces {
            let processor = spans::processor(&exporter.sender, config, &exporter.counts)?;
            let provider = spans::provider(processor, config, exporter.resource.clone());
            exporter.provider = Some(provider);
        }
        Ok(Some(exporter))
    }

    /// Returns the gateway's factory of spans.
    #[must_use]
    pub fn tracing(&self) -> Tracing {
        match &self.provider {
            Some(provider) => Tracing::by(provider.tracer_with_scope(scope())),
            None => Tracing::default(),
        }
    }

    /// Exports the metrics of the source at each interval, and adds the counters of spans and reports
    /// to them.
    pub fn report(&mut self, source: MetricsSource) {
        source.metrics.count_exports(&self.counts);
        if !self.config.metrics || self.reports.is_some() {
            return;
        }
        let (last, is_last) = oneshot::channel();
        let reporter = metrics::MetricsReporter {
            source,
            sender: self.sender.clone(),
            resource: self.resource.clone(),
            counts: Arc::clone(&self.counts),
        };
        let task = reporter.run(self.config.interval, is_last);
        self.reports = Some(ReportTask {
            last,
            task: self.sender.spawn(task),
        });
    }

    /// Sends the rest, for at most `otel.timeout`, and ends. Returns false if data was lost.
    ///
    /// # Cancel safety   If dropped, the rest is not waited for.
    pub async fn shutdown(mut self) -> bool {
        let limit = self.config.timeout;
        let reports = self.reports.take();
        let reported = async {
            let Some(ReportTask { last, task }) = reports else {
                return true;
            };
            // If the task is gone, awaiting it reports that.
            let _ = last.send(());
            task.await.is_ok()
        };
        let provider = self.provider.take();
        let flushed = tokio::task::spawn_blocking(move || {
            // This waits for the exporting thread, up to the limit.
            provider.is_none_or(|provider| provider.shutdown_with_timeout(limit).is_ok())
        });
        let both = async {
            let (reported, flushed) = tokio::join!(reported, flushed);
            reported && flushed.unwrap_or(false)
        };
        let ended = tokio::time::timeout(limit + MARGIN, both).await;
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends at once. A thread that panicked has ended too.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        let [_, (_, dropped), (_, failed)] = self.counts.spans();
        let lost = dropped + failed;
        if lost > 0 {
            tracing::warn!(dropped, failed, "some spans never reached the collector");
        }
        ended.unwrap_or(false) && lost == 0
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Exporter")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Returns the instrumentation scope of all data.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("breakerbox")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// Returns the resource of this process. The configuration takes precedence over
/// `OTEL_RESOURCE_ATTRIBUTES`.
fn resource(config: &OtelConfig) -> Resource {
    let name = config.service_name.clone();
    let around = Resource::builder().build();
    let instance = Key::from_static_str("service.instance.id");
    let id = around.get(&instance);
    let id = id.unwrap_or_else(|| new_id().to_string().into());
    Resource::builder()
        .with_service_name(name)
        .with_attribute(KeyValue::new(instance, id))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Returns a random id, so that two sidecars of one name stay distinct.
fn new_id() -> TraceId {
    RandomIdGenerator::default().new_trace_id()
}
