//! Histogram of latencies, in the form that metrics scrapers expect.

use std::time::Duration;

use super::Totals;
use crate::state::counts::LatencyBuckets;

/// Bounds from a millisecond to a minute, in the steps that the ecosystem expects.
///
/// # Units   Milliseconds.
const BOUNDS: [u64; 15] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
];

impl Totals {
    /// Number of attempts with a counted latency: all that have ended.
    pub(crate) fn observed(&self) -> u64 {
        let histogram = self.latencies();
        histogram.map_or(0, |histogram| super::count(&histogram))
    }

    /// Returns the latencies as cumulative buckets. A histogram bucket that a bound divides counts
    /// as above the bound, so the number of slow attempts is never too low.
    pub(crate) fn latency_buckets(&self) -> LatencyBuckets {
        let mut buckets: Vec<(Duration, u64)> = BOUNDS
            .iter()
            .map(|millis| (Duration::from_millis(*millis), 0))
            .collect();
        let (mut count, mut sum) = (0, 0_u128);
        if let Some(latencies) = self.latencies() {
            for bucket in latencies.iter().filter(|bucket| bucket.count() > 0) {
                count += bucket.count();
                let middle = u128::midpoint(bucket.start().into(), bucket.end().into());
                sum += middle * u128::from(bucket.count());
                let end = Duration::from_micros(bucket.end());
                let within = buckets.iter_mut().filter(|(bound, _)| end <= *bound);
                within.for_each(|(_, below)| *below += bucket.count());
            }
        }
        let micros = u64::try_from(sum).unwrap_or(u64::MAX);
        LatencyBuckets {
            buckets,
            count,
            sum: Duration::from_micros(micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_buckets_are_cumulative_and_their_sum_is_close() {
        let totals = Totals::new();
        for millis in [0, 3, 3, 40, 700, 120_000] {
            totals.observe(Duration::from_millis(millis), breakerbox_policy::Time::ZERO);
        }
        let latency = totals.latency_buckets();
        let below = |millis| {
            let bound = Duration::from_millis(millis);
            latency
                .buckets
                .iter()
                .find(|(at, _)| *at == bound)
                .unwrap()
                .1
        };
        assert_eq!((below(1), below(2), below(5)), (1, 1, 3));
        assert_eq!((below(50), below(500), below(1_000)), (4, 4, 5));
        assert_eq!((below(60_000), latency.count), (5, 6));
        let exact = 120_746.0;
        let off = (latency.sum.as_secs_f64() * 1e3 - exact).abs() / exact;
        assert!(off < 0.03, "{off}");
        assert_eq!(totals.observed(), 6);
    }
}
