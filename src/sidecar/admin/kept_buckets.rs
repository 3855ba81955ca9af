//! Buckets of earlier processes before those of this one, and their form in a file (rule HLT-3).
//!
//! A file has the begin of the first bucket by the wall clock, and each bucket as a word. Nothing here
//! samples, judges or writes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::series::{CallBucket, PackedBucket, SeriesStretch, joined};
use crate::lock::LockExt as _;

/// Buckets of one dependency, in a row, as a file has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptBuckets {
    /// Begin of the first one.
    begin: Timestamp,
    /// The buckets, eight hexadecimal digits each.
    packed: String,
}

/// Buckets of one dependency that earlier processes filled.
#[derive(Debug)]
struct EarlierStretch {
    begin: Timestamp,
    buckets: Vec<PackedBucket>,
}

/// The buckets of earlier processes, by dependency.
#[derive(Debug)]
pub(super) struct EarlierBuckets {
    width: Duration,
    /// Maximum number of buckets that are shown, with those of this process.
    length: usize,
    all: Mutex<BTreeMap<String, EarlierStretch>>,
}

/// Buckets in a row, those of earlier processes first.
pub(super) struct WholeStretch {
    pub(super) width: Duration,
    /// Number of the first bucket, counted from the runtime's start; below zero before it.
    number: i64,
    /// Begin of the first bucket.
    pub(super) begin: Timestamp,
    pub(super) buckets: Vec<Option<CallBucket>>,
}

impl KeptBuckets {
    pub(super) fn of(stretch: &WholeStretch) -> Self {
        let packed = stretch.buckets.iter().map(|bucket| {
            let word = bucket.as_ref().map(PackedBucket::of_bucket);
            format!("{:08x}", word.unwrap_or(PackedBucket::UNKNOWN).word())
        });
        Self {
            begin: stretch.begin,
            packed: packed.collect(),
        }
    }

    /// Returns true if these are at most `length` buckets, none of them cut.
    pub(super) fn is_whole(&self, length: usize) -> bool {
        self.packed.len() <= length * 8 && self.open().is_some()
    }

    /// Returns the buckets; `None` if the text is damaged.
    fn open(&self) -> Option<Vec<PackedBucket>> {
        let digits = self.packed.as_bytes();
        let is_hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
        if !is_hexadecimal || !digits.len().is_multiple_of(8) {
            return None;
        }
        let words = digits.chunks_exact(8).map(|word| {
            let word = std::str::from_utf8(word).ok()?;
            let word = u32::from_str_radix(word, 16).ok()?;
            Some(PackedBucket::of_word(word))
        });
        words.collect()
    }
}

impl EarlierStretch {
    /// Returns the bucket that is nearest to this begin.
    fn at(&self, width: Duration, begin: Timestamp) -> Option<CallBucket> {
        let apart = begin.duration_since(self.begin).as_secs_f64();
        let number = (apart / width.as_secs_f64()).round();
        if number < 0.0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number, and a later one than there are is none"
        )]
        let number = number as usize;
        self.buckets.get(number)?.open()
    }
}

impl EarlierBuckets {
    /// No buckets, of this width and maximum number.
    pub(super) const fn new((width, length): (Duration, usize)) -> Self {
        Self {
            width,
            length,
            all: Mutex::new(BTreeMap::new()),
        }
    }

    /// Takes over the buckets of earlier processes.
    pub(super) fn restore(&self, all: BTreeMap<String, KeptBuckets>) {
        let all = all.into_iter().filter_map(|(name, kept)| {
            let (begin, buckets) = (kept.begin, kept.open()?);
            Some((name, EarlierStretch { begin, buckets }))
        });
        *self.all.acquire() = all.collect();
    }

    /// Returns the buckets of earlier processes, then those of this one. `began`: the begin of the
    /// first bucket of `stretch`.
    pub(super) fn before(
        &self,
        name: &str,
        began: Timestamp,
        stretch: &SeriesStretch,
    ) -> WholeStretch {
        let room = self.length.saturating_sub(stretch.buckets.len());
        let mut begin = began;
        let mut before = Vec::new();
        let mut shared = None;
        if let Some(earlier) = self.all.acquire().get(name) {
            // A process that follows at once begins within the last bucket of the one before.
            shared = earlier.at(self.width, began);
            for _ in 0..room {
                let Ok(one) = begin.checked_sub(self.width) else {
                    break;
                };
                if one.duration_since(earlier.begin) < -half(self.width) {
                    break;
                }
                begin = one;
                before.push(earlier.at(self.width, one));
            }
        }
        before.reverse();
        let number = stretch.number() - i64::try_from(before.len()).unwrap_or(0);
        let first = before.len();
        before.extend(stretch.buckets.iter().copied());
        if let (Some(own), Some(shared)) = (before.get_mut(first), shared) {
            own.get_or_insert_default().add(&shared);
        }
        WholeStretch {
            width: self.width,
            number,
            begin,
            buckets: before,
        }
    }
}

impl WholeStretch {
    /// Joins each `count` buckets into one, on the same grid for all dependencies.
    pub(super) fn joined(&self, count: u32) -> Self {
        let (number, buckets) = joined((self.number, &self.buckets), count);
        let skipped = self.number - number * i64::from(count);
        let skipped = self.width * u32::try_from(skipped).unwrap_or(0);
        Self {
            width: self.width * count,
            number,
            begin: self.begin.checked_sub(skipped).unwrap_or(self.begin),
            buckets,
        }
    }
}

fn half(width: Duration) -> SignedDuration {
    SignedDuration::try_from(width / 2).unwrap_or(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use breakerbox_policy::Time;

    use super::super::series::{COARSE, CallSums, DependencySeries, FINE};
    use super::*;

    fn minute(number: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + number * 60).unwrap()
    }

    fn calls(stretch: &WholeStretch) -> Vec<Option<u64>> {
        let all = stretch.buckets.iter();
        all.map(|one| one.map(|one| one.calls)).collect()
    }

    /// One count a step, by a process that started with the first of them.
    fn series(step: Duration, counts: &[u64]) -> DependencySeries {
        let at = |number: usize| Time::ZERO.after(step * u32::try_from(number).unwrap());
        let mut series = DependencySeries::new(at(0));
        for (number, calls) in counts.iter().enumerate() {
            let sums = CallSums {
                calls: *calls,
                errors: *calls,
                ..CallSums::default()
            };
            let end = at(number).after(step - Duration::from_secs(1));
            series.record((at(number), end), sums);
        }
        series
    }

    fn day(counts: &[u64]) -> SeriesStretch {
        series(COARSE.0, counts).day()
    }

    fn hour(counts: &[u64]) -> SeriesStretch {
        series(FINE.0, counts).hour()
    }

    /// The buckets of a process that began at `minute(0)`, as a later one reads them.
    fn earlier(stretch: &SeriesStretch, ring: (Duration, usize)) -> EarlierBuckets {
        let whole = EarlierBuckets::new(ring).before("web", minute(0), stretch);
        let text = serde_json::to_string(&KeptBuckets::of(&whole)).unwrap();
        let kept: KeptBuckets = serde_json::from_str(&text).unwrap();
        assert!(kept.is_whole(ring.1));
        let earlier = EarlierBuckets::new(ring);
        earlier.restore(BTreeMap::from([("web".to_owned(), kept)]));
        earlier
    }

    #[test]
    fn hlt_3_minutes_of_an_earlier_process_stand_before_those_of_this_one() {
        let earlier = earlier(&day(&[1, 2, 3]), COARSE);
        // It was away for two minutes, and its minutes begin at another second.
        let began = minute(5)
            .checked_add(SignedDuration::from_secs(11))
            .unwrap();
        let whole = earlier.before("web", began, &day(&[7, 8]));
        let expected = [Some(1), Some(2), Some(3), None, None, Some(7), Some(8)];
        assert_eq!(calls(&whole), expected);
        assert_eq!(began.duration_since(whole.begin).as_secs(), 300);
        assert_eq!(
            calls(&earlier.before("other", began, &day(&[7]))),
            [Some(7)]
        );
    }

    #[test]
    fn hlt_3_a_day_has_at_most_its_minutes() {
        let many: Vec<u64> = (0..1_400).collect();
        let earlier = earlier(&day(&many), COARSE);
        let whole = earlier.before("web", minute(1_400), &day(&[5; 100]));
        assert_eq!(whole.buckets.len(), COARSE.1);
        assert_eq!(whole.begin, minute(60));
    }

    #[test]
    fn hlt_3_the_steps_of_an_hour_before_a_restart_join_on_the_grid_of_this_process() {
        let earlier = earlier(&hour(&[1, 2, 3, 4]), FINE);
        // Away for two steps: 4 s more than the steps of the new process show.
        let began = minute(0)
            .checked_add(SignedDuration::from_secs(32))
            .unwrap();
        let whole = earlier.before("web", began, &hour(&[7, 8]));
        let expected = [
            Some(1),
            Some(2),
            Some(3),
            Some(4),
            None,
            None,
            Some(7),
            Some(8),
        ];
        assert_eq!(calls(&whole), expected);
        let joint = whole.joined(6);
        assert_eq!(joint.width, Duration::from_secs(30));
        assert_eq!(calls(&joint), [Some(10), Some(15)]);
        assert_eq!(began.duration_since(joint.begin).as_secs(), 30);
        // A process that began in the midst of the grid.
        let mut late = DependencySeries::new(Time::from_millis(25_000));
        let span = (Time::from_millis(25_000), Time::from_millis(29_000));
        let sums = CallSums {
            calls: 9,
            ..CallSums::default()
        };
        late.record(span, sums);
        let joint = earlier.before("web", began, &late.hour()).joined(6);
        // Six steps to the left are those of the earlier process and two of none; the grid cuts them.
        assert_eq!(calls(&joint), [Some(1), Some(2 + 3 + 4 + 9)]);
        assert_eq!(began.duration_since(joint.begin).as_secs(), 55);
    }

    #[test]
    fn hlt_3_a_restart_within_a_step_loses_none_of_its_calls() {
        let earlier = earlier(&hour(&[1, 2, 3]), FINE);
        let began = minute(0)
            .checked_add(SignedDuration::from_secs(11))
            .unwrap();
        let whole = earlier.before("web", began, &hour(&[7, 8]));
        assert_eq!(calls(&whole), [Some(1), Some(2), Some(3 + 7), Some(8)]);
    }

    #[test]
    fn hlt_3_damaged_buckets_are_none() {
        for packed in ["12", "0000000g", "é23456", "+2345678"] {
            let kept = KeptBuckets {
                begin: minute(0),
                packed: packed.to_owned(),
            };
            assert!(!kept.is_whole(COARSE.1), "{packed}");
        }
        let many = KeptBuckets {
            begin: minute(0),
            packed: "0".repeat(COARSE.1 * 8 + 8),
        };
        assert!(!many.is_whole(COARSE.1));
    }
}
