//! The past of a dependency's figures: rings of buckets of fixed size.
//!
//! An hour in buckets of 5 s, and a day in buckets of a minute, take 8.6 kB together, however many
//! calls there are: each bucket is packed into 32 bits. The rings read no clock.

use std::time::Duration;

use breakerbox_policy::Time;

/// Width of the fine buckets, and their number: one hour.
pub(super) const FINE: (Duration, usize) = (Duration::from_secs(5), 720);
/// Width of the coarse buckets, and their number: one day.
pub(super) const COARSE: (Duration, usize) = (Duration::from_secs(60), 1440);

/// Calls and attempts that ended within a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct CallSums {
    /// Calls that were answered, by the dependency or by a fallback, refused, or failed.
    pub(super) calls: u64,
    /// Calls that were refused or failed: their callers got an error.
    pub(super) errors: u64,
    /// Calls that a fallback answered.
    pub(super) fallback: u64,
    pub(super) attempts: u64,
    /// Total duration of the attempts.
    pub(super) spent: Duration,
}

impl CallSums {
    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.errors = self.errors.saturating_add(other.errors);
        self.fallback = self.fallback.saturating_add(other.fallback);
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.spent = self.spent.saturating_add(other.spent);
    }

    /// Returns the increase since earlier sums. Lower sums than before mean that they began anew.
    pub(super) fn since(self, before: Self) -> Self {
        let increase = |now: u64, before: u64| now.checked_sub(before);
        let all = (|| {
            Some(Self {
                calls: increase(self.calls, before.calls)?,
                errors: increase(self.errors, before.errors)?,
                fallback: increase(self.fallback, before.fallback)?,
                attempts: increase(self.attempts, before.attempts)?,
                spent: self.spent.checked_sub(before.spent)?,
            })
        })();
        all.unwrap_or(self)
    }
}

/// One bucket, as it was kept: counts are exact up to 63, and within 1.6 % above.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct CallBucket {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) fallback: u64,
    /// Mean duration of an attempt, within 8 %; `None` without attempts.
    pub(super) latency: Option<Duration>,
}

impl CallBucket {
    /// Adds another one. The latency is the higher of both.
    pub(super) fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.errors = self.errors.saturating_add(other.errors);
        self.fallback = self.fallback.saturating_add(other.fallback);
        self.latency = self.latency.max(other.latency);
    }
}

/// A bucket in 32 bits: 10 for the calls, 10 for the errors, 5 for the share of fallbacks, 7 for the
/// latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedBucket(u32);

impl PackedBucket {
    /// A bucket of which nothing is known. No sums are packed like this: counts end below it.
    pub(super) const UNKNOWN: Self = Self(u32::MAX);

    /// The bucket of a word that [`PackedBucket::word`] returned.
    pub(super) const fn of_word(word: u32) -> Self {
        Self(word)
    }

    pub(super) const fn word(self) -> u32 {
        self.0
    }

    /// Packs a bucket that was opened.
    pub(super) fn of_bucket(bucket: &CallBucket) -> Self {
        let attempts = u64::from(bucket.latency.is_some());
        Self::new(&CallSums {
            calls: bucket.calls,
            errors: bucket.errors,
            fallback: bucket.fallback,
            attempts,
            spent: bucket.latency.unwrap_or_default(),
        })
    }

    fn new(sums: &CallSums) -> Self {
        let calls = pack_count(sums.calls);
        // Rounded apart from each other, the errors could exceed the calls.
        let errors = match sums.errors >= sums.calls {
            true => calls,
            false => pack_count(sums.errors).min(calls),
        };
        let fallback = pack_share(sums.fallback, sums.calls);
        let latency = match u32::try_from(sums.attempts) {
            Ok(0) => 0,
            Ok(attempts) => pack_latency(sums.spent / attempts),
            Err(_) => pack_latency(sums.spent / u32::MAX),
        };
        Self((calls << 22) | (errors << 12) | (fallback << 7) | latency)
    }

    pub(super) fn open(self) -> Option<CallBucket> {
        if self == Self::UNKNOWN {
            return None;
        }
        let calls = open_count(self.0 >> 22);
        Some(CallBucket {
            calls,
            errors: open_count((self.0 >> 12) & 0x3ff),
            fallback: open_share((self.0 >> 7) & 0x1f, calls),
            latency: open_latency(self.0 & 0x7f),
        })
    }
}

/// Packs a count into 10 bits: 5 bits of a power of two, and the 5 bits below the leading one.
fn pack_count(count: u64) -> u32 {
    // All ones are left to the bucket of which nothing is known.
    let count = count.min(1 << 35);
    if count < 64 {
        return u32::try_from(count).unwrap_or(0);
    }
    let shift = 58 - count.leading_zeros();
    let rounded = (count + (1 << (shift - 1))) >> shift;
    match u32::try_from(rounded) {
        Ok(64) => (shift + 2) << 5,
        Ok(rounded) => ((shift + 1) << 5) | (rounded & 0x1f),
        Err(_) => 0,
    }
}

fn open_count(packed: u32) -> u64 {
    let (power, rest) = (packed >> 5, u64::from(packed & 0x1f));
    match power {
        0 => rest,
        power => (32 + rest) << (power - 1),
    }
}

/// Highest packed share: all.
const ALL: u64 = 31;

/// Packs a share into 5 bits: 0 only for none, [`ALL`] only for all.
fn pack_share(part: u64, whole: u64) -> u32 {
    let share = match (part, whole) {
        (0, _) | (_, 0) => 0,
        (part, whole) if part >= whole => ALL,
        (part, whole) => (u128::from(part) * u128::from(ALL) / u128::from(whole))
            .try_into()
            .unwrap_or(ALL)
            .clamp(1, ALL - 1),
    };
    u32::try_from(share).unwrap_or(0)
}

fn open_share(packed: u32, whole: u64) -> u64 {
    let packed = u64::from(packed);
    match packed {
        0 => 0,
        ALL => whole,
        packed => (whole * packed / ALL).clamp(1, whole.max(1)),
    }
}

/// Lowest latency that is told apart, in microseconds, and the number of steps for a factor of ten.
/// The highest is 15 min.
const LEAST_MICROS: f64 = 10.0;
const STEPS_OF_TEN: f64 = 15.8;

/// Packs a latency into 7 bits, in steps of 16 %. 0 stands for none.
fn pack_latency(latency: Duration) -> u32 {
    let micros = latency.as_secs_f64() * 1e6;
    let step = (micros / LEAST_MICROS).max(1.0).log10() * STEPS_OF_TEN;
    let step = step.round().min(126.0);
    // In 0 to 126.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the step is between 0 and 126"
    )]
    let step = step as u32;
    step + 1
}

fn open_latency(packed: u32) -> Option<Duration> {
    let step = packed.checked_sub(1)?;
    let micros = LEAST_MICROS * 10f64.powf(f64::from(step) / STEPS_OF_TEN);
    Some(Duration::from_secs_f64(micros / 1e6))
}

/// A ring of buckets of equal width.
#[derive(Debug)]
struct BucketRing {
    width: Duration,
    slots: Box<[PackedBucket]>,
    /// Number of the bucket that is being filled, counted from the runtime's start.
    current: u64,
    /// Number of the first bucket.
    first: u64,
    /// Sums of the current bucket.
    open: CallSums,
}

impl BucketRing {
    fn new((width, length): (Duration, usize), now: Time) -> Self {
        let first = number(now, width);
        Self {
            width,
            slots: vec![PackedBucket::UNKNOWN; length].into(),
            current: first,
            first,
            open: CallSums::default(),
        }
    }

    /// Adds what ended between two moments.
    fn add(&mut self, (from, until): (Time, Time), sums: CallSums) {
        let span = until.since(from);
        // All of it would be booked to one bucket, as a peak that never was.
        let is_gap = span > self.width * 2;
        let middle = number(from.after(span / 2), self.width);
        let at = if is_gap {
            number(until, self.width)
        } else {
            middle
        };
        if at > self.current {
            self.put(self.current, PackedBucket::new(&self.open));
            let between = at - self.current - 1;
            let length = self.slots.len() as u64;
            for skipped in at - between.min(length)..at {
                self.put(skipped, PackedBucket::UNKNOWN);
            }
            self.current = at;
            self.open = CallSums::default();
        }
        if !is_gap {
            self.open.add(sums);
        }
    }

    fn put(&mut self, number: u64, bucket: PackedBucket) {
        let length = self.slots.len() as u64;
        let slot = usize::try_from(number % length).ok();
        if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = bucket;
        }
    }

    fn read(&self) -> SeriesStretch {
        let length = self.slots.len() as u64;
        let begin = self.first.max((self.current + 1).saturating_sub(length));
        let closed = (begin..self.current).map(|number| {
            let slot = usize::try_from(number % length).ok();
            slot.and_then(|slot| self.slots.get(slot)?.open())
        });
        let open = PackedBucket::new(&self.open).open();
        SeriesStretch {
            width: self.width,
            begin,
            buckets: closed.chain([open]).collect(),
        }
    }
}

fn number(at: Time, width: Duration) -> u64 {
    let number = at.since(Time::ZERO).as_nanos() / width.as_nanos();
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Consecutive buckets; the last one is still being filled. `None`: nothing is known of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SeriesStretch {
    pub(super) width: Duration,
    /// Number of the first bucket, counted from the runtime's start.
    begin: u64,
    pub(super) buckets: Vec<Option<CallBucket>>,
}

impl SeriesStretch {
    /// Returns the time at which the first bucket begins.
    pub(super) fn begin(&self) -> Time {
        let nanos = self.width.as_nanos() * u128::from(self.begin);
        Time::ZERO.after(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }

    /// Returns the number of the first bucket, counted from the runtime's start.
    pub(super) fn number(&self) -> i64 {
        i64::try_from(self.begin).unwrap_or(i64::MAX)
    }
}

/// Joins each `count` buckets into one, from that of this number on. The latency of a joint one is the
/// highest of them. Returns the number of the first joint one too.
pub(super) fn joined(
    (number, buckets): (i64, &[Option<CallBucket>]),
    count: u32,
) -> (i64, Vec<Option<CallBucket>>) {
    let count = i64::from(count.max(1));
    let mut all: Vec<Option<CallBucket>> = Vec::new();
    let first = number.div_euclid(count);
    for (number, bucket) in (number..).zip(buckets) {
        let at = usize::try_from(number.div_euclid(count) - first).unwrap_or(usize::MAX);
        if at >= all.len() {
            all.push(None);
        }
        let (Some(joint), Some(bucket)) = (all.last_mut(), bucket) else {
            continue;
        };
        joint.get_or_insert_default().add(bucket);
    }
    (first, all)
}

/// The past of one dependency.
#[derive(Debug)]
pub(super) struct DependencySeries {
    fine: BucketRing,
    coarse: BucketRing,
}

impl DependencySeries {
    /// Begins at this moment.
    pub(super) fn new(now: Time) -> Self {
        Self {
            fine: BucketRing::new(FINE, now),
            coarse: BucketRing::new(COARSE, now),
        }
    }

    /// Records what ended between two moments. A span of more than two buckets is a gap, because it
    /// is not known when within it the calls ended.
    pub(super) fn record(&mut self, span: (Time, Time), sums: CallSums) {
        self.fine.add(span, sums);
        self.coarse.add(span, sums);
    }

    /// Returns the last hour.
    pub(super) fn hour(&self) -> SeriesStretch {
        self.fine.read()
    }

    /// Returns the last day.
    pub(super) fn day(&self) -> SeriesStretch {
        self.coarse.read()
    }
}

#[cfg(test)]
mod tests;
