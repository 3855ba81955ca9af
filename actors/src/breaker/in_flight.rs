//! Number of calls in flight, and of those in flight for too long.
//!
//! It counts; the breaker judges (rule BRK-9). Each thread counts the starts and the ends on it. A
//! call that ends on another thread than it started on is counted one too many here and one too few
//! there: only the sum over all threads is meaningful.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::Time;

use crate::breaker::gate::tag_of;

const SLOTS: usize = 64;
/// Number of slots that together are as long as a slow call.
const SLOTS_PER_SLOW_CALL: u64 = 8;

/// Slot width of the age ring, and an epoch. Changing `slow_call` starts a new epoch; tickets of
/// earlier epochs are ignored.
///
/// # Units   Slot width: nanoseconds in 48 bits, 78 hours; 0 while ages are not tracked. Epoch: 16
/// bits.
#[derive(Debug, Default)]
pub(crate) struct AgeTracker(AtomicU64);

const NANOS_BITS: u32 = 48;
const NANOS_MASK: u64 = (1 << NANOS_BITS) - 1;

/// One epoch, with its slot width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Epoch(u64);

impl Epoch {
    fn slot_nanos(self) -> u64 {
        self.0 & NANOS_MASK
    }

    fn number(self) -> u64 {
        self.0 >> NANOS_BITS
    }

    /// Returns the slot index of a time, counted from the runtime's start; `None` while ages are
    /// not tracked.
    fn index(self, at: Time) -> Option<u64> {
        at.as_nanos().checked_div(self.slot_nanos())
    }
}

/// The slot and the epoch that a call is counted in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlightTicket {
    slot: usize,
    kind: SlotEpoch,
}

impl AgeTracker {
    fn epoch(&self) -> Epoch {
        Epoch(self.0.load(Ordering::Relaxed))
    }

    /// Tracks calls that are in flight for `slow_call` or longer; `None` ends the tracking. Calls
    /// in flight when the length changes are not tracked.
    pub(crate) fn set(&self, slow_call: Option<Duration>) {
        let slot_nanos = slow_call.map_or(0, |span| {
            let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            (nanos / SLOTS_PER_SLOW_CALL).clamp(1, NANOS_MASK)
        });
        let old = self.epoch();
        if old.slot_nanos() != slot_nanos {
            let number = old.number().wrapping_add(1) << NANOS_BITS;
            self.0.store(number | slot_nanos, Ordering::Relaxed);
        }
    }

    /// Returns the interval for checks of the rings; `None` while ages are not tracked.
    pub(crate) fn tick(&self) -> Option<Duration> {
        match self.epoch().slot_nanos() {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Returns the ticket of a call of the generation `tag` that starts at `now`.
    #[inline(always)]
    pub(crate) fn ticket(&self, now: Time, tag: u64) -> Option<InFlightTicket> {
        let epoch = self.epoch();
        Some(InFlightTicket {
            slot: slot(epoch.index(now)?),
            kind: SlotEpoch::new(epoch, tag),
        })
    }

    /// Returns the number of calls in flight of the generation `tag` that started a slow call ago
    /// or earlier, summed over the rings of all threads.
    pub(crate) fn overdue<'a>(
        &self,
        now: Time,
        tag: u64,
        rings: impl Iterator<Item = &'a AgeRing> + Clone,
    ) -> u64 {
        let epoch = self.epoch();
        let Some(current) = epoch.index(now) else {
            return 0;
        };
        let kind = SlotEpoch::new(epoch, tag);
        let young = |at: usize| {
            (0..=SLOTS_PER_SLOW_CALL).any(|back| {
                current
                    .checked_sub(back)
                    .is_some_and(|index| slot(index) == at)
            })
        };
        let in_flight = |at: usize| {
            let sum: i64 = rings.clone().map(|ring| ring.count(at, kind)).sum();
            u64::try_from(sum).unwrap_or(0)
        };
        (0..SLOTS).filter(|at| !young(*at)).map(in_flight).sum()
    }
}

fn slot(index: u64) -> usize {
    // The remainder is below 64.
    usize::try_from(index % SLOTS as u64).unwrap_or(0)
}

/// One thread's share of the calls in flight, by their start time, in a ring of slots. A slot
/// counts one generation and epoch at a time: earlier ones say nothing about the present.
///
/// A slot is an eighth of a slow call long, and the ring eight slow calls. A call in flight for
/// longer shares its slot with new ones, and counts as young for an eighth of the time; a hang has
/// been detected long before.
#[derive(Debug)]
pub(crate) struct AgeRing([AtomicU64; SLOTS]);

/// The common key of a slot's calls: the epoch in 16 bits above the generation's tag in 20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SlotEpoch(u64);

const TAG_BITS: u32 = 20;
/// Number of count bits in a slot's word, below the key: starts minus ends in that slot.
const COUNT_BITS: u32 = 28;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

impl SlotEpoch {
    fn new(epoch: Epoch, tag: u64) -> Self {
        Self(epoch.number() << TAG_BITS | tag_of(tag))
    }

    fn of(word: u64) -> Self {
        Self(word >> COUNT_BITS)
    }

    /// Returns true if it is later than `other`, with wraparound.
    fn is_later(self, other: Self) -> bool {
        let (number, tag) = (self.0 >> TAG_BITS, tag_of(self.0));
        let (other_number, other_tag) = (other.0 >> TAG_BITS, tag_of(other.0));
        if number == other_number {
            is_ahead(tag, other_tag, TAG_BITS)
        } else {
            is_ahead(number, other_number, u64::BITS - NANOS_BITS)
        }
    }
}

/// Returns true if `one` is later than `other`, as numbers of `bits` bits with wraparound.
fn is_ahead(one: u64, other: u64, bits: u32) -> bool {
    let ahead = one.wrapping_sub(other) & ((1 << bits) - 1);
    ahead != 0 && ahead < 1 << (bits - 1)
}

impl AgeRing {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU64::new(0) }; SLOTS])
    }

    /// Counts the start of a call. Only the ring's own thread calls this, and [`AgeRing::end`].
    #[inline(always)]
    pub(crate) fn start(&self, ticket: InFlightTicket) {
        self.add(ticket, 1);
    }

    /// Counts the end of a call.
    #[inline(always)]
    pub(crate) fn end(&self, ticket: InFlightTicket) {
        self.add(ticket, COUNT_MASK);
    }

    /// Adds in the count bits only. A ticket of an earlier epoch or generation than its slot's is
    /// not counted.
    #[inline(always)]
    fn add(&self, InFlightTicket { slot, kind }: InFlightTicket, count: u64) {
        let Some(at) = self.0.get(slot) else {
            return;
        };
        let word = at.load(Ordering::Relaxed);
        let before = SlotEpoch::of(word);
        let sum = if before == kind {
            word.wrapping_add(count) & COUNT_MASK
        } else if word & COUNT_MASK == 0 || kind.is_later(before) {
            count
        } else {
            return;
        };
        at.store(kind.0 << COUNT_BITS | sum, Ordering::Relaxed);
    }

    /// Returns the count of this epoch and generation; negative if more calls ended than started.
    fn count(&self, slot: usize, kind: SlotEpoch) -> i64 {
        const ABOVE: u32 = u64::BITS - COUNT_BITS;
        let word = self.0[slot].load(Ordering::Relaxed);
        if SlotEpoch::of(word) == kind {
            (word << ABOVE).cast_signed() >> ABOVE
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(millis: u64) -> AgeTracker {
        let watch = AgeTracker::default();
        watch.set(Some(Duration::from_millis(millis)));
        watch
    }

    fn start(watch: &AgeTracker, ring: &AgeRing, at: Time, tag: u64) -> InFlightTicket {
        let ticket = watch.ticket(at, tag).unwrap();
        ring.start(ticket);
        ticket
    }

    fn overdue(watch: &AgeTracker, rings: &[AgeRing], millis: u64, tag: u64) -> u64 {
        watch.overdue(Time::from_millis(millis), tag, rings.iter())
    }

    const BEGIN: Time = Time::from_millis(50);

    #[test]
    fn brk_9_a_call_is_overdue_after_a_slow_call_and_not_before() {
        let (watch, rings) = (watch(800), [AgeRing::new()]);
        let ticket = start(&watch, &rings[0], BEGIN, 7);
        assert_eq!(overdue(&watch, &rings, 850, 7), 0);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 1);
        rings[0].end(ticket);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 0);
    }

    #[test]
    fn brk_9_a_call_may_end_on_another_thread_than_it_started_on() {
        let (watch, rings) = (watch(800), [AgeRing::new(), AgeRing::new()]);
        let [here, there] = &rings;
        let one = start(&watch, here, BEGIN, 7);
        let other = start(&watch, here, BEGIN, 7);
        there.end(one);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 1);
        there.end(other);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 0);
        start(&watch, there, BEGIN, 7);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 1);
    }

    #[test]
    fn brk_9_an_earlier_generation_is_not_overdue() {
        let (watch, rings) = (watch(800), [AgeRing::new(), AgeRing::new()]);
        let [here, there] = &rings;
        let old = start(&watch, here, BEGIN, 7);
        assert_eq!(overdue(&watch, &rings, 1_000, 8), 0);
        let new = start(&watch, here, BEGIN, 8);
        start(&watch, here, BEGIN, 7);
        here.end(old);
        there.end(old);
        assert_eq!(overdue(&watch, &rings, 1_000, 8), 1, "stragglers");
        here.end(new);
        assert_eq!(overdue(&watch, &rings, 1_000, 8), 0);
        start(&watch, here, BEGIN, tag_of(u64::MAX));
        start(&watch, here, BEGIN, 0);
        assert_eq!(overdue(&watch, &rings, 1_000, 0), 1, "they begin again");
    }

    #[test]
    fn brk_9_a_call_under_another_division_is_nobodys() {
        let (watch, rings) = (AgeTracker::default(), [AgeRing::new()]);
        let span = |millis| Some(Duration::from_millis(millis));
        assert!(watch.ticket(BEGIN, 7).is_none());
        watch.set(span(800));
        let old = start(&watch, &rings[0], BEGIN, 7);
        watch.set(span(400));
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 0);
        let new = start(&watch, &rings[0], BEGIN, 7);
        rings[0].end(old);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 1, "the new one");
        watch.set(span(400));
        rings[0].end(new);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 0, "no other epoch");
        watch.set(span(800));
        start(&watch, &rings[0], BEGIN, 7);
        rings[0].end(old);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 1, "as long as the first");
        watch.set(None);
        assert!(watch.ticket(BEGIN, 7).is_none());
        assert_eq!(watch.tick(), None);
    }

    #[test]
    fn brk_9_each_length_of_a_slow_call_is_followed() {
        let (watch, rings) = (AgeTracker::default(), [AgeRing::new()]);
        // More than the number of epochs.
        for change in 0..70_000_u64 {
            let millis = 400 + change % 2 * 400;
            watch.set(Some(Duration::from_millis(millis)));
            let ticket = start(&watch, &rings[0], BEGIN, 7);
            assert_eq!(overdue(&watch, &rings, 1_000, 7), 1, "change {change}");
            rings[0].end(ticket);
        }
    }
}
