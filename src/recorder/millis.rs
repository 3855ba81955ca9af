//! Durations in a trace: milliseconds with a fraction, exact to the nanosecond.
//!
//! # Units   A JSON number is exact up to 104 days; a longer one is rounded to a few nanoseconds.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Maximum number of milliseconds, about 317 years; the policy crate's `Time` ends later.
const LONGEST: f64 = 1e13;

#[expect(
    clippy::cast_precision_loss,
    reason = "a span of 104 days and less is exact"
)]
fn to_millis(span: Duration) -> f64 {
    (span.as_nanos() as f64 / 1e6).min(LONGEST)
}

fn from_millis(millis: f64) -> Result<Duration, String> {
    if !(0.0..=LONGEST).contains(&millis) {
        return Err(format!(
            "{millis} is no number of milliseconds from 0 to {LONGEST:e}"
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in range"
    )]
    Ok(Duration::from_nanos((millis * 1e6).round() as u64))
}

pub(super) fn serialize<S: Serializer>(span: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(to_millis(*span))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from_millis(f64::deserialize(from)?).map_err(D::Error::custom)
}

/// The same for an optional duration: `None` is `null`.
pub(super) mod optional {
    use super::{
        Deserialize, Deserializer, Duration, Serialize, Serializer, from_millis, to_millis,
    };
    use serde::de::Error as _;

    pub(in super::super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(to_millis).serialize(out)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let millis = Option::<f64>::deserialize(from)?;
        millis
            .map(from_millis)
            .transpose()
            .map_err(D::Error::custom)
    }
}
