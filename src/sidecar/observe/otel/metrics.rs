//! Metrics of `GET /metrics` as OTLP: the same families, read once for each report.
//!
//! OpenTelemetry has no observable histogram, and its SDK has no histogram that can be filled from
//! outside. So the data points are built here, and not kept a second time in instruments. Names are
//! converted: `breakerbox_attempt_duration_seconds` becomes `breakerbox.attempt_duration` in
//! seconds. A collector converts that back to the same name for Prometheus.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, USER_AGENT};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource as Described;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prometheus::proto::{LabelPair, Metric as Series, MetricFamily, MetricType};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::sender::OtlpSender;
use super::{ExportCounts, MetricsSource, scope};

/// User agent for the collector.
const AGENT: &str = concat!("breakerbox/", env!("CARGO_PKG_VERSION"));

/// Sends reports.
pub(super) struct MetricsReporter {
    pub(super) source: MetricsSource,
    pub(super) sender: OtlpSender,
    pub(super) resource: Resource,
    pub(super) counts: Arc<ExportCounts>,
}

impl MetricsReporter {
    /// Reports at each interval, and once more after the signal `last`.
    pub(super) async fn run(self, every: Duration, mut last: oneshot::Receiver<()>) {
        let began = now();
        let mut times = interval_at(Instant::now() + every, every);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        let mut is_last = false;
        while !is_last {
            is_last = tokio::select! {
                // A dropped sender means the last report too.
                _ = &mut last => true,
                _ = times.tick() => false,
            };
            let result = self.report(began).await;
            let count = match &result {
                Ok(()) => &self.counts.reported,
                Err(_) => &self.counts.unreported,
            };
            count.fetch_add(1, Ordering::Relaxed);
            match &result {
                Err(error) if !is_failing => tracing::warn!(error, "metrics cannot be sent"),
                Ok(()) if is_failing => tracing::info!("metrics can be sent again"),
                _ => {}
            }
            is_failing = result.is_err();
        }
    }

    async fn report(&self, began: u64) -> Result<(), String> {
        let families = (self.source.read)();
        let message = message(&families, &self.resource, (began, now()));
        let request = Request::post(self.sender.address("metrics"))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, AGENT)
            .body(Bytes::from(message.encode_to_vec()));
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.sender.send(request).await;
        // The network error is not shown: it may contain more than it should.
        let answer = answer.map_err(|_| "the collector does not answer".to_owned())?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(format!(
            "the collector answered {}",
            answer.status().as_u16()
        ))
    }
}

/// Returns the current time.
///
/// # Units   Nanoseconds since 1970.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// Builds one report. `time`: start of all counters, and now.
fn message(
    families: &[MetricFamily],
    resource: &Resource,
    time: (u64, u64),
) -> ExportMetricsServiceRequest {
    let described = ResourceAttributesWithSchema::from(resource);
    let scope_metrics = ScopeMetrics {
        scope: Some((scope(), None).into()),
        metrics: families.iter().map(|family| metric(family, time)).collect(),
        schema_url: String::new(),
    };
    let resource_metrics = ResourceMetrics {
        resource: Some(Described {
            attributes: described.attributes.0,
            ..Described::default()
        }),
        scope_metrics: vec![scope_metrics],
        schema_url: described.schema_url.unwrap_or_default(),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![resource_metrics],
    }
}

fn metric(family: &MetricFamily, time: (u64, u64)) -> Metric {
    let kind = family.get_field_type();
    let (name, unit) = named(family.name());
    let series = family.get_metric().iter();
    let temporality = AggregationTemporality::Cumulative.into();
    let data = match kind {
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: series.map(|one| histogram(one, time)).collect(),
            aggregation_temporality: temporality,
        }),
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: series
                .map(|one| point(one, one.get_counter().get_value(), time))
                .collect(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        _ => Data::Gauge(Gauge {
            data_points: series
                .map(|one| point(one, one.get_gauge().get_value(), time))
                .collect(),
        }),
    };
    Metric {
        name,
        description: family.help().to_owned(),
        unit: unit.to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

/// Returns the name and the unit by OpenTelemetry's convention.
fn named(name: &str) -> (String, &'static str) {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let (name, unit) = match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
        (Some(name), _) => (name, "s"),
        (_, Some(name)) => (name, "By"),
        _ => (name, ""),
    };
    (name.replacen('_', ".", 1), unit)
}

fn point(series: &Series, value: f64, (began, now): (u64, u64)) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(series.get_label()),
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(Number::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// Converts the cumulative bucket counts of the family to a count for each bucket.
fn histogram(series: &Series, (began, now): (u64, u64)) -> HistogramDataPoint {
    let taken = series.get_histogram();
    let buckets = taken.get_bucket().iter();
    let finite = buckets.filter(|bucket| bucket.upper_bound().is_finite());
    let (bounds, mut counts): (Vec<f64>, Vec<u64>) = finite
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .unzip();
    counts.push(taken.get_sample_count());
    let mut below = 0;
    for count in &mut counts {
        let up_to = *count;
        *count = up_to.saturating_sub(below);
        below = up_to;
    }
    HistogramDataPoint {
        attributes: attributes(series.get_label()),
        start_time_unix_nano: began,
        time_unix_nano: now,
        count: taken.get_sample_count(),
        sum: Some(taken.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(labels: &[LabelPair]) -> Vec<KeyValue> {
    let pair = |label: &LabelPair| KeyValue {
        key: label.name().to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(label.value().to_owned())),
        }),
        ..KeyValue::default()
    };
    labels.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        let of = |name| {
            let (name, unit) = named(name);
            format!("{name} {unit}")
        };
        assert_eq!(of("breakerbox_calls_total"), "breakerbox.calls ");
        assert_eq!(
            of("breakerbox_attempt_duration_seconds"),
            "breakerbox.attempt_duration s"
        );
        assert_eq!(of("process_cpu_seconds_total"), "process.cpu s");
        assert_eq!(
            of("process_resident_memory_bytes"),
            "process.resident_memory By"
        );
        assert_eq!(of("breakerbox_breaker_state"), "breakerbox.breaker_state ");
    }
}
