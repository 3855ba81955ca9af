//! The gate: one atomic word that a breaker publishes, and the successes that nobody needs to
//! tell it at once.
//!
//! Only the breaker actor writes the word. Everyone may read it, and so refuse a call without a
//! message. Each thread counts the successes of one generation and time bucket in a tally of its
//! own; that never decides.

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};

const MODE_BITS: u32 = 3;
const GENERATION_BITS: u32 = 20;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const RETRY_BITS: u32 = 64 - MODE_BITS - GENERATION_BITS;
pub(crate) const RETRY_MASK: u64 = (1 << RETRY_BITS) - 1;
const BUCKET_BITS: u32 = 20;
pub(crate) const BUCKET_MASK: u64 = (1 << BUCKET_BITS) - 1;
const COUNT_BITS: u32 = 64 - GENERATION_BITS - BUCKET_BITS;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// What the gate says to whoever wants to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Go; a success needs no message.
    Closed,
    /// Go; every outcome is reported, for a success could move the state.
    Watchful,
    /// No call before the published time; from then on ask the breaker.
    Open,
    /// Ask the breaker for one of its few permits.
    HalfOpen,
    /// No call, whatever the time.
    ForcedOpen,
    /// Go, and tell nobody.
    Disabled,
}

impl Mode {
    pub(crate) const ALL: [Self; 6] = [
        Self::Closed,
        Self::Watchful,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::Disabled,
    ];

    fn from_bits(bits: u64) -> Self {
        // Only `GateWord::new` makes words, so the index is one of the six; a word that is not
        // shuts the gate.
        usize::try_from(bits)
            .ok()
            .and_then(|index| Self::ALL.get(index))
            .copied()
            .unwrap_or(Self::ForcedOpen)
    }
}

/// The published word: mode, the low bits of the generation, and when to try again.
///
/// # Units   `retry_at`: milliseconds since the runtime's start, rounded up, 41 bits (69 years).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GateWord(u64);

impl GateWord {
    pub(crate) fn new(mode: Mode, generation: u64, retry_at_ms: u64) -> Self {
        let generation = generation & GENERATION_MASK;
        let retry = retry_at_ms.min(RETRY_MASK);
        Self(mode as u64 | generation << MODE_BITS | retry << (MODE_BITS + GENERATION_BITS))
    }

    pub(crate) fn mode(self) -> Mode {
        Mode::from_bits(self.0 & ((1 << MODE_BITS) - 1))
    }

    /// The low bits of the generation, the same as [`tag_of`] gives.
    pub(crate) fn tag(self) -> u64 {
        self.0 >> MODE_BITS & GENERATION_MASK
    }

    pub(crate) fn retry_at_ms(self) -> u64 {
        self.0 >> (MODE_BITS + GENERATION_BITS)
    }
}

/// The part of a generation that fits into the gate.
///
/// A call would have to be in flight during a million transitions to meet its own tag again.
pub(crate) fn tag_of(generation: u64) -> u64 {
    generation & GENERATION_MASK
}

/// Successes that were counted without a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Successes(u64);

impl Successes {
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

    /// The whole number of the bucket, given that of the present: the latest one that is not
    /// later and has these low bits.
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

    /// The same without those that were told before; `None` when there are no others.
    fn but(self, told: u64) -> Option<Self> {
        let left = self.count().saturating_sub(told);
        (left > 0).then_some(Self(self.0 & !COUNT_MASK | left))
    }
}

/// The published word.
///
/// # Source  DESIGN §1.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU64);

impl Gate {
    pub(crate) fn new(word: GateWord) -> Self {
        Self(AtomicU64::new(word.0))
    }

    /// What everyone reads before a call.
    #[inline]
    pub(crate) fn read(&self) -> GateWord {
        GateWord(self.0.load(Ordering::Acquire))
    }

    /// Publishes a new word. The breaker actor alone calls this.
    pub(crate) fn publish(&self, word: GateWord) {
        self.0.store(word.0, Ordering::Release);
    }
}

/// The successes of one thread: it alone counts, so that needs no atomic addition; the breaker
/// takes them when it likes.
///
/// # Source  Rule CALL-3. Proved with loom in tests/gate_loom.rs: whatever the interleaving, each
/// success is handed to the breaker exactly once, with its own generation.
#[derive(Debug)]
pub(crate) struct Tally {
    /// [`Successes`] of the present kind; only their own thread writes them.
    counted: AtomicU64,
    /// How many of those the breaker has been told of. The kind changes under this lock alone.
    told: Mutex<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            counted: AtomicU64::new(0),
            told: Mutex::new(0),
        }
    }

    /// Counts a success of the generation `tag` in a time bucket. Its own thread alone calls this.
    ///
    /// Returns what had been counted for another generation or bucket, and not told: the breaker
    /// must hear of it.
    #[inline(always)]
    pub(crate) fn count(&self, tag: u64, bucket: u64) -> Option<Successes> {
        let one = Successes::one(tag, bucket);
        let seen = Successes(self.counted.load(Ordering::Relaxed));
        if seen.same_kind(one) && !seen.is_full() {
            self.counted.store(seen.0 + 1, Ordering::Release);
            return None;
        }
        self.begin_anew(seen, one)
    }

    #[cold]
    fn begin_anew(&self, seen: Successes, one: Successes) -> Option<Successes> {
        let mut told = self.lock();
        self.counted.store(one.0, Ordering::Release);
        seen.but(std::mem::take(&mut *told))
    }

    /// Takes what was counted and not yet told.
    pub(crate) fn take(&self) -> Option<Successes> {
        let mut told = self.lock();
        let seen = Successes(self.counted.load(Ordering::Acquire));
        seen.but(std::mem::replace(&mut *told, seen.count()))
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
