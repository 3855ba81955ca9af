//! Export of finished spans: a bounded queue, a thread that sends them in batches, and a count of
//! lost spans.
//!
//! The queue is the SDK's. The bound is enforced before the queue, because the SDK does not report
//! the number of spans it dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};

use super::sender::OtlpSender;
use super::{ExportCounts, ExporterError};
use crate::config::OtelConfig;

/// Maximum number of spans in one export.
const MAX_BATCH: usize = 512;

/// Creates the queue, and the thread that drains it.
pub(super) fn processor(
    sender: &OtlpSender,
    config: &OtelConfig,
    counts: &Arc<ExportCounts>,
) -> Result<BoundedQueue, ExporterError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(sender.clone())
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(sender.address("traces"))
        .with_timeout(config.timeout)
        .build();
    let exporter = exporter.map_err(|error| ExporterError::Unusable(error.to_string()))?;
    let exporter = CountedExporter {
        exporter,
        counts: Arc::clone(counts),
        is_failing: AtomicBool::new(false),
    };
    let most = usize::try_from(config.max_queue.get()).unwrap_or(usize::MAX);
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(most)
        .with_max_export_batch_size(most.min(MAX_BATCH))
        .build();
    let queue = BatchSpanProcessor::builder(exporter);
    Ok(BoundedQueue {
        queue: queue.with_batch_config(batches).build(),
        most,
        counts: Arc::clone(counts),
    })
}

/// Creates the provider of spans. The caller's sampling decision is kept; without one, the ratio
/// decides.
pub(super) fn provider(
    processor: BoundedQueue,
    config: &OtelConfig,
    resource: Resource,
) -> SdkTracerProvider {
    let ratio = Sampler::TraceIdRatioBased(config.sample_ratio);
    SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_resource(resource)
        .with_span_processor(processor)
        .build()
}

/// A queue that drops spans when full, and counts them.
#[derive(Debug)]
pub(super) struct BoundedQueue {
    queue: BatchSpanProcessor,
    most: usize,
    counts: Arc<ExportCounts>,
}

impl SpanProcessor for BoundedQueue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let waiting = &self.counts.waiting;
        if waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.queue.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// Counts sent and failed spans.
#[derive(Debug)]
struct CountedExporter<E> {
    exporter: E,
    counts: Arc<ExportCounts>,
    /// True while exports fail, so that an unreachable collector does not flood the log.
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for CountedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let length = batch.len();
        let result = self.exporter.export(batch).await;
        self.counts.waiting.fetch_sub(length, Ordering::Relaxed);
        let count = match &result {
            Ok(()) => &self.counts.sent,
            Err(_) => &self.counts.failed,
        };
        count.fetch_add(u64::try_from(length).unwrap_or(u64::MAX), Ordering::Relaxed);
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_failing => tracing::warn!(%error, "spans cannot be sent"),
            Ok(()) if was_failing => tracing::info!("spans can be sent again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
