//! Lossless form of a breaker's settings in a trace.
//!
//! It covers more than the configuration: a program may set values that no file may. Durations are
//! in milliseconds and rates in [0, 1], as everywhere in a trace.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    BreakerSettings, CancelledPolicy, HalfOpenLimit, HalfOpenRule, HalfOpenSettings, LostProbe,
    OpenTime, ProbeLease, Rate, WindowKind,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::millis::{self, optional};

#[derive(Serialize, Deserialize)]
#[serde(remote = "BreakerSettings", deny_unknown_fields)]
pub(super) struct BreakerLine {
    #[serde(with = "WindowLine")]
    window: WindowKind,
    failure_threshold: Option<NonZeroU32>,
    consecutive_failures: Option<NonZeroU32>,
    #[serde(with = "optional_share")]
    failure_rate: Option<Rate>,
    #[serde(with = "optional_share")]
    slow_rate: Option<Rate>,
    #[serde(rename = "slow_call_ms", with = "optional")]
    slow_call: Option<Duration>,
    minimum_calls: u32,
    #[serde(with = "OpenLine")]
    open: OpenTime,
    #[serde(with = "HalfOpenLine")]
    half_open: HalfOpenSettings,
    #[serde(with = "CancelledLine")]
    cancelled: CancelledPolicy,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "WindowKind", rename_all = "snake_case", tag = "kind")]
enum WindowLine {
    Consecutive,
    Count {
        size: NonZeroU32,
    },
    Time {
        #[serde(rename = "span_ms", with = "millis")]
        span: Duration,
        #[serde(deserialize_with = "buckets")]
        buckets: NonZeroU32,
    },
    Tumbling {
        #[serde(rename = "span_ms", with = "millis")]
        span: Duration,
    },
}

/// Maximum number of buckets in a trace that is read: a window takes memory for all of them at once.
const MAX_BUCKETS: u32 = 1_000_000;

fn buckets<'de, D: Deserializer<'de>>(from: D) -> Result<NonZeroU32, D::Error> {
    let buckets = NonZeroU32::deserialize(from)?;
    // EDGE-7: a number from outside is bounded before memory is taken by it.
    if buckets.get() > MAX_BUCKETS {
        let text = format!("{buckets} buckets are more than {MAX_BUCKETS}");
        return Err(serde::de::Error::custom(text));
    }
    Ok(buckets)
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OpenTime", deny_unknown_fields)]
struct OpenLine {
    #[serde(rename = "base_ms", with = "millis")]
    base: Duration,
    factor: f64,
    #[serde(rename = "max_ms", with = "millis")]
    max: Duration,
    jitter: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "HalfOpenSettings", deny_unknown_fields)]
struct HalfOpenLine {
    max_calls: NonZeroU32,
    max_admitted: Option<NonZeroU32>,
    #[serde(with = "HalfOpenRuleLine")]
    rule: HalfOpenRule,
    #[serde(rename = "probe_lease_ms", with = "millis")]
    probe_lease: Duration,
    #[serde(with = "LostProbeLine")]
    lost_probe: LostProbe,
    cancelled_probe_reopens: bool,
    #[serde(with = "optional_limit")]
    limit: Option<HalfOpenLimit>,
    /// A replay has no fleet.
    #[serde(skip)]
    lease: ProbeLease,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "HalfOpenRule", rename_all = "snake_case")]
enum HalfOpenRuleLine {
    Successes(NonZeroU32),
    Rate { results: NonZeroU32 },
    KOfN { needed: NonZeroU32, of: NonZeroU32 },
    AutoClose,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "LostProbe", rename_all = "snake_case")]
enum LostProbeLine {
    Fails,
    FreesItsSlot,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CancelledPolicy", rename_all = "snake_case")]
enum CancelledLine {
    Ignore,
    Failure,
    Rate(#[serde(with = "share")] Rate),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "HalfOpenLimit", deny_unknown_fields)]
struct LimitLine {
    #[serde(rename = "after_ms", with = "millis")]
    after: Duration,
    closes: bool,
}

mod share {
    use super::{Deserialize, Deserializer, Rate, Serializer};

    pub(super) fn serialize<S: Serializer>(rate: &Rate, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_f64(rate.as_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Rate, D::Error> {
        Rate::new(f64::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

mod optional_share {
    use super::{Deserialize, Deserializer, Rate, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(rate: &Option<Rate>, out: S) -> Result<S::Ok, S::Error> {
        rate.map(Rate::as_f64).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Rate>, D::Error> {
        let share = Option::<f64>::deserialize(from)?;
        let rate = share.map(Rate::new).transpose();
        rate.map_err(serde::de::Error::custom)
    }
}

mod optional_limit {
    use super::{Deserialize, Deserializer, HalfOpenLimit, LimitLine, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "LimitLine")] HalfOpenLimit);

    pub(super) fn serialize<S: Serializer>(
        limit: &Option<HalfOpenLimit>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        limit.map(Wrapped).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<HalfOpenLimit>, D::Error> {
        let wrapped = Option::<Wrapped>::deserialize(from)?;
        Ok(wrapped.map(|Wrapped(limit)| limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Whole(#[serde(with = "BreakerLine")] BreakerSettings);

    fn round_trip(settings: &BreakerSettings) -> BreakerSettings {
        let text = serde_json::to_string(&Whole(settings.clone())).unwrap();
        let Whole(back) = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        back
    }

    #[test]
    fn every_kind_of_settings_comes_back_as_it_was() {
        let nonzero = |number| NonZeroU32::new(number).unwrap();
        let share = |fraction| Rate::new(fraction).unwrap();
        let span = Duration::from_nanos(1_234_567_891);
        let windows = [
            WindowKind::Consecutive,
            WindowKind::Count { size: nonzero(7) },
            WindowKind::Time {
                span,
                buckets: nonzero(3),
            },
            WindowKind::Tumbling { span },
        ];
        let rules = [
            HalfOpenRule::Successes(nonzero(2)),
            HalfOpenRule::Rate {
                results: nonzero(4),
            },
            HalfOpenRule::KOfN {
                needed: nonzero(2),
                of: nonzero(5),
            },
            HalfOpenRule::AutoClose,
        ];
        let cancelled = [
            CancelledPolicy::Ignore,
            CancelledPolicy::Failure,
            CancelledPolicy::Rate(share(0.333_333)),
            CancelledPolicy::Ignore,
        ];
        for ((window, rule), cancelled) in windows.into_iter().zip(rules).zip(cancelled) {
            let settings = BreakerSettings {
                window,
                failure_threshold: None,
                consecutive_failures: Some(nonzero(9)),
                failure_rate: Some(share(0.000_001)),
                slow_rate: Some(share(1.0)),
                slow_call: Some(span),
                minimum_calls: 3,
                open: OpenTime {
                    base: span,
                    factor: 1.7,
                    max: span * 3,
                    jitter: 0.1,
                },
                half_open: HalfOpenSettings {
                    max_calls: nonzero(3),
                    max_admitted: Some(nonzero(8)),
                    rule,
                    probe_lease: span,
                    lost_probe: LostProbe::FreesItsSlot,
                    cancelled_probe_reopens: true,
                    limit: Some(HalfOpenLimit {
                        after: span,
                        closes: true,
                    }),
                    lease: ProbeLease::Own,
                },
                cancelled,
            };
            assert_eq!(round_trip(&settings), settings);
        }
        let default = BreakerSettings::default();
        assert_eq!(round_trip(&default), default);
    }
}
