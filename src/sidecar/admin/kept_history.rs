//! The last day of each dependency beyond the process, in the section `history` of the file of
//! `admin.state` (rule HLT-3).
//!
//! Minutes of earlier processes stand before those of this one. They are written once a minute, for a
//! bounded number of dependencies. Nothing here samples or judges.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AdminState;
use super::series::{COARSE, CallBucket, PackedBucket, SeriesStretch};
use crate::lock::LockExt as _;
use crate::sidecar::state_file::StateFileError;

/// Name of the section.
pub(super) const SECTION: &str = "history";

/// Maximum number of dependencies with a history in the file.
const MAX_DEPENDENCIES: usize = 256;

/// Minutes of one dependency, in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptMinutes {
    /// Begin of the first one.
    begin: Timestamp,
    /// The buckets, eight hexadecimal digits each.
    packed: String,
}

/// The minutes of earlier processes, by dependency.
#[derive(Debug, Default)]
pub(super) struct EarlierMinutes(Mutex<BTreeMap<String, KeptMinutes>>);

/// The day of a dependency: the begin of its first minute, and its minutes.
pub(super) struct WholeDay {
    pub(super) begin: Timestamp,
    pub(super) buckets: Vec<Option<CallBucket>>,
}

/// Reads the section.
///
/// # Errors  It is not as this version writes it.
pub(super) fn minutes(
    section: Option<Value>,
    path: &Path,
) -> Result<BTreeMap<String, KeptMinutes>, StateFileError> {
    let Some(section) = section else {
        return Ok(BTreeMap::new());
    };
    let unreadable = |reason: String| StateFileError::Unreadable {
        path: path.display().to_string(),
        reason: format!("its section \"{SECTION}\" cannot be used: {reason}"),
    };
    let all: BTreeMap<String, KeptMinutes> =
        serde_json::from_value(section).map_err(|error| unreadable(error.to_string()))?;
    match all.iter().find(|(_, one)| one.open().is_none()) {
        Some((name, _)) => Err(unreadable(format!("the minutes of {name} are damaged"))),
        None => Ok(all),
    }
}

impl KeptMinutes {
    fn of(day: &WholeDay) -> Self {
        let packed = day.buckets.iter().map(|bucket| {
            let word = bucket.as_ref().map(PackedBucket::of_bucket);
            format!("{:08x}", word.unwrap_or(PackedBucket::UNKNOWN).word())
        });
        Self {
            begin: day.begin,
            packed: packed.collect(),
        }
    }

    /// Returns the minutes; `None` if the text is damaged.
    fn open(&self) -> Option<Vec<Option<CallBucket>>> {
        let digits = self.packed.as_bytes();
        if !self.packed.is_ascii() || !digits.len().is_multiple_of(8) || digits.len() > COARSE.1 * 8
        {
            return None;
        }
        let words = digits.chunks_exact(8).map(|word| {
            let word = std::str::from_utf8(word).ok()?;
            let word = u32::from_str_radix(word, 16).ok()?;
            Some(PackedBucket::of_word(word).open())
        });
        words.collect()
    }

    /// Returns the minute that is nearest to this begin.
    fn at(&self, buckets: &[Option<CallBucket>], begin: Timestamp) -> Option<CallBucket> {
        let width = COARSE.0.as_secs_f64();
        let number = (begin.duration_since(self.begin).as_secs_f64() / width).round();
        if number < 0.0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number, and a later one than there are is none"
        )]
        let number = number as usize;
        buckets.get(number).copied().flatten()
    }
}

impl EarlierMinutes {
    /// Takes over the minutes of earlier processes.
    pub(super) fn restore(&self, all: BTreeMap<String, KeptMinutes>) {
        *self.0.acquire() = all;
    }

    /// Returns the day of a dependency: the minutes of earlier processes, then those of this one.
    /// `began`: the begin of the first minute of `stretch`.
    pub(super) fn before(&self, name: &str, began: Timestamp, stretch: &SeriesStretch) -> WholeDay {
        let earlier = self.0.acquire().get(name).cloned();
        let buckets = earlier.as_ref().and_then(KeptMinutes::open);
        let (Some(earlier), Some(buckets)) = (earlier, buckets) else {
            return WholeDay {
                begin: began,
                buckets: stretch.buckets.clone(),
            };
        };
        let room = COARSE.1.saturating_sub(stretch.buckets.len());
        let mut begin = began;
        let mut before = Vec::new();
        for _ in 0..room {
            let Ok(one) = begin.checked_sub(COARSE.0) else {
                break;
            };
            if one.duration_since(earlier.begin) < -half(COARSE.0) {
                break;
            }
            begin = one;
            before.push(earlier.at(&buckets, one));
        }
        before.reverse();
        before.extend(stretch.buckets.iter().copied());
        WholeDay {
            begin,
            buckets: before,
        }
    }
}

fn half(width: Duration) -> SignedDuration {
    SignedDuration::try_from(width / 2).unwrap_or(SignedDuration::ZERO)
}

/// Writes the days of all dependencies into the file, if there is one.
pub(super) async fn write(inner: &Arc<AdminState>) {
    let Some(file) = inner.state_file() else {
        return;
    };
    let days = inner.history.days(inner).into_iter().take(MAX_DEPENDENCIES);
    let all: BTreeMap<String, KeptMinutes> = days
        .map(|(name, day)| (name, KeptMinutes::of(&day)))
        .collect();
    // A slow disk must not delay the requests of this thread.
    let written = tokio::task::spawn_blocking(move || {
        let section = serde_json::to_value(all)?;
        file.put(SECTION, section)
    });
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "admin.state cannot be written: the history"),
        Err(ended) => tracing::error!(%ended, "admin.state cannot be written: the history"),
    }
}

#[cfg(test)]
mod tests {
    use breakerbox_policy::Time;

    use super::super::series::{CallSums, DependencySeries};
    use super::*;

    fn minute(number: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + number * 60).unwrap()
    }

    fn calls(day: &WholeDay) -> Vec<Option<u64>> {
        day.buckets
            .iter()
            .map(|one| one.map(|one| one.calls))
            .collect()
    }

    fn stretch(counts: &[u64]) -> SeriesStretch {
        let at = |number: usize| Time::from_millis(number as u64 * 60_000);
        let mut series = DependencySeries::new(at(0));
        for (number, calls) in counts.iter().enumerate() {
            let sums = CallSums {
                calls: *calls,
                errors: *calls,
                ..CallSums::default()
            };
            let end = at(number).after(Duration::from_secs(59));
            series.record((at(number), end), sums);
        }
        series.day()
    }

    #[test]
    fn hlt_3_minutes_of_an_earlier_process_stand_before_those_of_this_one() {
        let first = WholeDay {
            begin: minute(0),
            buckets: stretch(&[1, 2, 3]).buckets,
        };
        let text = serde_json::to_value(BTreeMap::from([("web", KeptMinutes::of(&first))]));
        let all = minutes(Some(text.unwrap()), Path::new("state.json")).unwrap();
        let earlier = EarlierMinutes::default();
        earlier.restore(all);
        // It was away for two minutes, and its minutes begin at another second.
        let began = minute(5)
            .checked_add(SignedDuration::from_secs(11))
            .unwrap();
        let day = earlier.before("web", began, &stretch(&[7, 8]));
        let expected = [Some(1), Some(2), Some(3), None, None, Some(7), Some(8)];
        assert_eq!(calls(&day), expected);
        assert_eq!(began.duration_since(day.begin).as_secs(), 300);
        assert_eq!(
            calls(&earlier.before("other", began, &stretch(&[7]))),
            [Some(7)]
        );
        // It is written, and read, as a whole.
        let again = KeptMinutes::of(&day);
        assert_eq!(again.open().unwrap(), day.buckets);
    }

    #[test]
    fn hlt_3_a_day_has_at_most_its_minutes() {
        let many: Vec<u64> = (0..1_400).collect();
        let first = WholeDay {
            begin: minute(0),
            buckets: stretch(&many).buckets,
        };
        let earlier = EarlierMinutes::default();
        earlier.restore(BTreeMap::from([(
            "web".to_owned(),
            KeptMinutes::of(&first),
        )]));
        let day = earlier.before("web", minute(1_400), &stretch(&[5; 100]));
        assert_eq!(day.buckets.len(), COARSE.1);
        assert_eq!(day.begin, minute(60));
    }

    #[test]
    fn hlt_3_damaged_minutes_are_told() {
        let damaged = serde_json::json!({"web": {"begin": "2026-01-01T00:00:00Z", "packed": "12"}});
        let refused = minutes(Some(damaged), Path::new("state.json")).unwrap_err();
        assert!(
            refused.to_string().contains("minutes of web are damaged"),
            "{refused}"
        );
    }
}
