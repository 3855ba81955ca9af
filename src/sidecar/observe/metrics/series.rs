//! Families of series, in the encoder's types.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use breakerbox_actors::{LatencyBuckets, printable};

/// A metric with its series.
pub(super) struct SeriesFamily {
    family: MetricFamily,
    series: Vec<Metric>,
}

/// A count as a float, the format's only number type: exact up to 2^53.
pub(super) trait FloatCount {
    fn exact(self) -> f64;
}

impl FloatCount for u32 {
    fn exact(self) -> f64 {
        f64::from(self)
    }
}

impl FloatCount for u64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "floats are the only numbers of the format"
    )]
    fn exact(self) -> f64 {
        self as f64
    }
}

impl SeriesFamily {
    pub(super) fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub(super) fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    pub(super) fn histogram(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self {
            family,
            series: Vec::new(),
        }
    }

    /// Adds a series.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: impl FloatCount) {
        self.add_exact(labels, value.exact());
    }

    pub(super) fn add_exact(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = labelled(labels);
        if self.family.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.series.push(metric);
    }

    pub(super) fn add_histogram(&mut self, labels: &[(&str, &str)], taken: &LatencyBuckets) {
        let buckets = taken.buckets.iter().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(taken.count);
        histogram.set_sample_sum(taken.sum.as_secs_f64());
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.series.push(metric);
    }

    /// Returns the family for the encoder; `None` if it has no series.
    pub(super) fn build(mut self) -> Option<MetricFamily> {
        if self.series.is_empty() {
            return None;
        }
        self.family.set_metric(self.series);
        Some(self.family)
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        // EDGE-7: servers give names too, which must not move the terminal that shows them.
        pair.set_value(printable(value).into_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_7_e9b_no_label_moves_a_terminal() {
        let metric = labelled(&[("tool", "a\u{1b}[2J\r\u{202e}b\u{e9}")]);
        let pairs = metric.get_label();
        assert_eq!(pairs[0].value(), "a\\u{1b}[2J\\r\\u{202e}b\u{e9}");
    }
}
