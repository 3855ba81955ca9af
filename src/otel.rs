//! Traces and metrics for an OpenTelemetry collector, by OTLP over HTTP.
//!
//! Everything here runs on threads of its own. A request leaves a finished span in a bounded queue
//! and goes on; when the collector is slow or gone, spans are dropped and counted. What a span says
//! is decided by the gateway, what a metric says by `metrics`.

mod sender;

mod metrics;
mod spans;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry::trace::{TraceId, TracerProvider as _};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SdkTracerProvider};
use tokio::sync::oneshot;

use crate::admin::Admin;
use crate::config::OtelConfig;
use crate::gateway::Tracing;
use sender::Sender;

/// How much longer than an export the end of all exports may take.
const MARGIN: Duration = Duration::from_secs(1);

/// Sends traces and metrics until [`Exporter::shutdown`].
pub struct Exporter {
    config: OtelConfig,
    resource: Resource,
    sender: Sender,
    provider: Option<SdkTracerProvider>,
    counts: Arc<Counts>,
    reports: Option<Reports>,
    /// Ends the thread when it goes.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The task that sends metrics.
struct Reports {
    last: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// A thread cannot be made.
    #[error("a thread for traces and metrics cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// Something of the configuration cannot be used.
    #[error("nothing can be sent to otel.endpoint: {0}")]
    Unusable(String),
}

/// What became of spans and reports.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Spans that are not sent yet.
    waiting: AtomicUsize,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    reported: AtomicU64,
    unreported: AtomicU64,
}

impl Counts {
    /// Spans by what became of them.
    pub(crate) fn spans(&self) -> [(&'static str, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("sent", read(&self.sent)),
            ("dropped", read(&self.dropped)),
            ("failed", read(&self.failed)),
        ]
    }

    /// Reports of metrics by what became of them.
    pub(crate) fn reports(&self) -> [(&'static str, u64); 2] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("sent", read(&self.reported)),
            ("failed", read(&self.unreported)),
        ]
    }
}

impl Exporter {
    /// Begins to send traces as they come; `None` where no endpoint is configured. Metrics follow
    /// with [`Exporter::report`].
    ///
    /// # Errors  [`ExporterError`]. A collector that does not answer is none.
    pub fn start(config: &OtelConfig) -> Result<Option<Self>, ExporterError> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        let (stop, thread, runtime) = sender::thread()?;
        let endpoint = endpoint.trim_end_matches('/');
        let sender = Sender::new(endpoint, config, runtime)?;
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

    /// What the gateway makes spans with.
    #[must_use]
    pub fn tracing(&self) -> Tracing {
        match &self.provider {
            Some(provider) => Tracing::by(provider.tracer_with_scope(scope())),
            None => Tracing::default(),
        }
    }

    /// Sends what `GET /metrics` shows from now on, at each interval; and has that show what became
    /// of spans and reports.
    pub fn report(&mut self, admin: &Admin) {
        admin.metrics().count_exports(&self.counts);
        if !self.config.metrics || self.reports.is_some() {
            return;
        }
        let (last, is_last) = oneshot::channel();
        let reporter = metrics::Reporter {
            admin: admin.clone(),
            sender: self.sender.clone(),
            resource: self.resource.clone(),
            counts: Arc::clone(&self.counts),
        };
        let task = reporter.run(self.config.interval, is_last);
        self.reports = Some(Reports {
            last,
            task: self.sender.spawn(task),
        });
    }

    /// Sends what is left, for at most `otel.timeout`, and ends. False when something was lost.
    ///
    /// # Cancel safety   Dropped, what is left is not waited for.
    pub async fn shutdown(mut self) -> bool {
        let limit = self.config.timeout;
        let reports = self.reports.take();
        let reported = async {
            let Some(Reports { last, task }) = reports else {
                return true;
            };
            // Where the task is gone, waiting for it says so.
            let _ = last.send(());
            task.await.is_ok()
        };
        let provider = self.provider.take();
        let flushed = tokio::task::spawn_blocking(move || {
            // It waits for the thread that exports, and no longer than this.
            provider.is_none_or(|provider| provider.shutdown_with_timeout(limit).is_ok())
        });
        let both = async {
            let (reported, flushed) = tokio::join!(reported, flushed);
            reported && flushed.unwrap_or(false)
        };
        let ended = tokio::time::timeout(limit + MARGIN, both).await;
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends at once; when it panicked it is gone too.
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

/// Who says all of this.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("breakerbox")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// What this process is: `OTEL_RESOURCE_ATTRIBUTES`, below what is configured.
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

/// Random: two sidecars of one name must not be taken for one.
fn new_id() -> TraceId {
    RandomIdGenerator::default().new_trace_id()
}
