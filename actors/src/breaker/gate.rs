//! The gate: one atomic word that a breaker publishes, and the successes that it learns of in
//! batches.
//!
//! Only the breaker actor writes the word. Every thread may read it, and so refuse a call without a
//! message. Each thread counts the successes of one generation and time bucket in a counter of its
//! own; that counter never decides anything.

use crate::sync::{AtomicU64, LockExt, Mutex, MutexGuard, Ordering};

const MODE_BITS: u32 = 3;
const GENERATION_BITS: u32 = 20;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const RETRY_BITS: u32 = 64 - MODE_BITS - GENERATION_BITS;
pub(crate) const RETRY_MASK: u64 = (1 << RETRY_BITS) - 1;
const BUCKET_BITS: u32 = 20;
pub(crate) const BUCKET_MASK: u64 = (1 << BUCKET_BITS) - 1;
const COUNT_BITS: u32 = 64 - GENERATION_BITS - BUCKET_BITS;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The rule that the gate publishes for callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GateMode {
    /// Calls go out; a success needs no message.
    Closed,
    /// Calls go out; every outcome is reported, because a success could change the state.
    ClosedReportAll,
    /// No call goes out before the published time; from then on, ask the breaker.
    Open,
    /// Ask the breaker for one of its few permits.
    HalfOpen,
    /// No call goes out at any time.
    ForcedOpen,
    /// Calls go out, and no outcome is reported.
    Disabled,
}

impl GateMode {
    pub(crate) const ALL: [Self; 6] = [
        Self::Closed,
        Self::ClosedReportAll,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::Disabled,
    ];

    fn from_bits(bits: u64) -> Self {
        // Only `GateWord::new` makes words, so the index is one of the six; any other word refuses
        // every call.
        usize::try_from(bits)
            .ok()
            .and_then(|index| Self::ALL.get(index))
            .copied()
            .unwrap_or(Self::ForcedOpen)
    }
}

/// The published word: mode, the low bits of the generation, and the time of the next try.
///
/// # Units   `retry_at`: milliseconds since the runtime's start, rounded up, 41 bits (69 years).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GateWord(u64);

impl GateWord {
    pub(crate) fn new(mode: GateMode, generation: u64, retry_at_ms: u64) -> Self {
        let generation = generation & GENERATION_MASK;
        let retry = retry_at_ms.min(RETRY_MASK);
        Self(mode as u64 | generation << MODE_BITS | retry << (MODE_BITS + GENERATION_BITS))
    }

    pub(crate) fn mode(self) -> GateMode {
        GateMode::from_bits(self.0 & ((1 << MODE_BITS) - 1))
    }

    /// The low bits of the generation, as [`tag_of`] returns them.
    pub(crate) fn tag(self) -> u64 {
        self.0 >> MODE_BITS & GENERATION_MASK
    }

    pub(crate) fn retry_at_ms(self) -> u64 {
        self.0 >> (MODE_BITS + GENERATION_BITS)
    }
}

/// The part of a generation that fits into the gate.
///
/// A call would meet its own tag again only if it were in flight during a million transitions.
pub(crate) fn tag_of(generation: u64) -> u64 {
    generation & GENERATION_MASK
}

/// A batch of successes that were counted without a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SuccessBatch(u64);

impl SuccessBatch {
    pub(crate) fn one(tag: u64, bucket: u64) -> Self {
        Self(tag << (BUCKET_BITS + COUNT_BITS) | (bucket & BUCKET_MASK) << COUNT_BITS | 1)
    }

    pub(crate) fn count(self) -> u64 {
        self.0 & COUNT_MASK
    }

    /// The generation's tag.
    pub(crate) fn tag(self) -> u64 {
        self.0 >> (BUCKET_BITS + COUNT_BITS)
    }

    /// The low bits of the time bucket.
    pub(crate) fn bucket(self) -> u64 {
        self.0 >> COUNT_BITS & BUCKET_MASK
    }

    /// The full number of the bucket: the latest one that is not after `now_bucket` and has these
    /// low bits.
    pub(crate) fn bucket_before(self, now_bucket: u64) -> u64 {
        let candidate = (now_bucket & !BUCKET_MASK) | self.bucket();
        if candidate > now_bucket {
            candidate.saturating_sub(BUCKET_MASK + 1)
        } else {
            candidate
        }
    }

    fn same_kind(self, other: Self) -> bool {
        self.0 >> COUNT_BITS == other.0 >> COUNT_BITS
    }

    fn is_full(self) -> bool {
        self.count() == COUNT_MASK
    }

    /// Returns the batch without the successes already reported; `None` if there are no others.
    fn without_reported(self, reported: u64) -> Option<Self> {
        let left = self.count().saturating_sub(reported);
        (left > 0).then_some(Self(self.0 & !COUNT_MASK | left))
    }
}

/// The published word.
///
/// # Source  Rule BRK-3; docs/architecture.md, "One call".
#[derive(Debug)]
pub(crate) struct Gate(AtomicU64);

impl Gate {
    pub(crate) fn new(word: GateWord) -> Self {
        Self(AtomicU64::new(word.0))
    }

    /// Reads the word, as each call does first.
    #[inline]
    pub(crate) fn read(&self) -> GateWord {
        GateWord(self.0.load(Ordering::Acquire))
    }

    /// Publishes a new word. Only the breaker actor calls this.
    pub(crate) fn publish(&self, word: GateWord) {
        self.0.store(word.0, Ordering::Release);
    }
}

/// The successes of one thread. Only that thread counts, so no atomic addition is needed; the
/// breaker takes them at any time.
///
/// # Source  Rule CALL-3. Proved with loom in tests/gate_loom.rs: under every interleaving, each
/// success is handed to the breaker exactly once, with its own generation.
#[derive(Debug)]
pub(crate) struct SuccessCounter {
    /// The [`SuccessBatch`] of the present generation and bucket; only the owning thread writes it.
    counted: AtomicU64,
    /// Number of those already reported to the breaker. Generation and bucket change only under
    /// this lock.
    reported: Mutex<u64>,
}

impl SuccessCounter {
    pub(crate) fn new() -> Self {
        Self {
            counted: AtomicU64::new(0),
            reported: Mutex::new(0),
        }
    }

    /// Counts a success of the generation `tag` in a time bucket. Only the owning thread calls
    /// this.
    ///
    /// Returns the successes counted for another generation or bucket and not yet reported: the
    /// breaker must get them.
    #[inline(always)]
    pub(crate) fn count(&self, tag: u64, bucket: u64) -> Option<SuccessBatch> {
        let one = SuccessBatch::one(tag, bucket);
        let seen = SuccessBatch(self.counted.load(Ordering::Relaxed));
        if seen.same_kind(one) && !seen.is_full() {
            self.counted.store(seen.0 + 1, Ordering::Release);
            return None;
        }
        self.begin_anew(seen, one)
    }

    #[cold]
    fn begin_anew(&self, seen: SuccessBatch, one: SuccessBatch) -> Option<SuccessBatch> {
        let mut reported = self.lock();
        self.counted.store(one.0, Ordering::Release);
        seen.without_reported(std::mem::take(&mut *reported))
    }

    /// Takes the successes not yet reported.
    pub(crate) fn take(&self) -> Option<SuccessBatch> {
        let mut reported = self.lock();
        let seen = SuccessBatch(self.counted.load(Ordering::Acquire));
        seen.without_reported(std::mem::replace(&mut *reported, seen.count()))
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.reported.acquire()
    }
}
