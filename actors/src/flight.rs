//! How many calls are in flight, and how many of them for too long.
//!
//! It counts; the breaker judges (rule BRK-9). Each thread counts by itself what starts and what
//! ends there, so a call that ends on another thread than it started on is one too many here and
//! one too few there: only the sum over all threads tells anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::Time;

use crate::gate::tag_of;

const SLOTS: usize = 64;
/// Slots that together are as long as a slow call.
const SLOTS_PER_SLOW_CALL: u64 = 8;

/// How calls in flight are told apart by their age, and a number for that: each length of a slow
/// call is another division, and a seat of an earlier one is none of the present.
///
/// # Units   Nanoseconds of a slot in 48 bits, 78 hours, 0 while nobody watches; the number in 16.
#[derive(Debug, Default)]
pub(crate) struct Watch(AtomicU64);

const NANOS_BITS: u32 = 48;
const NANOS_MASK: u64 = (1 << NANOS_BITS) - 1;

/// One division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Division(u64);

impl Division {
    fn slot_nanos(self) -> u64 {
        self.0 & NANOS_MASK
    }

    fn number(self) -> u64 {
        self.0 >> NANOS_BITS
    }

    /// The slot of a time, counted from the beginning; `None` while nobody watches.
    fn index(self, at: Time) -> Option<u64> {
        at.as_nanos().checked_div(self.slot_nanos())
    }
}

/// Where a call is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat {
    slot: usize,
    kind: Kind,
}

impl Watch {
    fn division(&self) -> Division {
        Division(self.0.load(Ordering::Relaxed))
    }

    /// Watches for calls that are in flight for this long; `None` to watch no more. Calls that are
    /// in flight when the length changes are not watched.
    pub(crate) fn set(&self, slow_call: Option<Duration>) {
        let slot_nanos = slow_call.map_or(0, |span| {
            let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            (nanos / SLOTS_PER_SLOW_CALL).clamp(1, NANOS_MASK)
        });
        let old = self.division();
        if old.slot_nanos() != slot_nanos {
            let number = old.number().wrapping_add(1) << NANOS_BITS;
            self.0.store(number | slot_nanos, Ordering::Relaxed);
        }
    }

    /// How often the rings should be looked at; `None` while nobody watches.
    pub(crate) fn tick(&self) -> Option<Duration> {
        match self.division().slot_nanos() {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Where a call of the generation `tag` is counted that starts now.
    #[inline(always)]
    pub(crate) fn seat(&self, now: Time, tag: u64) -> Option<Seat> {
        let division = self.division();
        Some(Seat {
            slot: slot(division.index(now)?),
            kind: Kind::new(division, tag),
        })
    }

    /// Calls of the generation `tag` in flight that started a slow call ago or earlier, by the
    /// rings of all threads.
    pub(crate) fn overdue<'a>(
        &self,
        now: Time,
        tag: u64,
        rings: impl Iterator<Item = &'a Ring> + Clone,
    ) -> u64 {
        let division = self.division();
        let Some(current) = division.index(now) else {
            return 0;
        };
        let kind = Kind::new(division, tag);
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

/// One thread's part of the calls in flight by the time they started at, in a ring of slots, for
/// one generation and division at a time: those of an earlier one say nothing about the present.
///
/// A slot is an eighth of a slow call long, and the ring eight slow calls. A call that is in
/// flight for longer shares its slot with new ones and is then taken for a young one for an eighth
/// of the time; by then a hang has long been seen.
#[derive(Debug)]
pub(crate) struct Ring([AtomicU64; SLOTS]);

/// What calls of a slot have in common: the division's number in 16 bits above the generation's
/// tag in 20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind(u64);

const TAG_BITS: u32 = 20;
/// A slot's word: the kind, and below it the calls that started there less those that ended.
const COUNT_BITS: u32 = 28;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

impl Kind {
    fn new(division: Division, tag: u64) -> Self {
        Self(division.number() << TAG_BITS | tag_of(tag))
    }

    fn of(word: u64) -> Self {
        Self(word >> COUNT_BITS)
    }

    /// Whether it is later than another one, around the end of the numbers.
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

/// Whether one of two numbers of so many bits is the later one, around the end of the numbers.
fn is_ahead(one: u64, other: u64, bits: u32) -> bool {
    let ahead = one.wrapping_sub(other) & ((1 << bits) - 1);
    ahead != 0 && ahead < 1 << (bits - 1)
}

impl Ring {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU64::new(0) }; SLOTS])
    }

    /// Counts a call that starts. Its own thread alone calls this, and [`Ring::end`].
    #[inline(always)]
    pub(crate) fn start(&self, seat: Seat) {
        self.add(seat, 1);
    }

    /// Counts one that has ended.
    #[inline(always)]
    pub(crate) fn end(&self, seat: Seat) {
        self.add(seat, COUNT_MASK);
    }

    /// Adds in the bits of the count alone. One of an earlier kind than those in its slot is not
    /// counted.
    #[inline(always)]
    fn add(&self, Seat { slot, kind }: Seat, count: u64) {
        let Some(at) = self.0.get(slot) else {
            return;
        };
        let word = at.load(Ordering::Relaxed);
        let before = Kind::of(word);
        let sum = if before == kind {
            word.wrapping_add(count) & COUNT_MASK
        } else if word & COUNT_MASK == 0 || kind.is_later(before) {
            count
        } else {
            return;
        };
        at.store(kind.0 << COUNT_BITS | sum, Ordering::Relaxed);
    }

    /// What is counted of this kind; less than nothing where more ended than started.
    fn count(&self, slot: usize, kind: Kind) -> i64 {
        const ABOVE: u32 = u64::BITS - COUNT_BITS;
        let word = self.0[slot].load(Ordering::Relaxed);
        if Kind::of(word) == kind {
            (word << ABOVE).cast_signed() >> ABOVE
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(millis: u64) -> Watch {
        let watch = Watch::default();
        watch.set(Some(Duration::from_millis(millis)));
        watch
    }

    fn start(watch: &Watch, ring: &Ring, at: Time, tag: u64) -> Seat {
        let seat = watch.seat(at, tag).unwrap();
        ring.start(seat);
        seat
    }

    fn overdue(watch: &Watch, rings: &[Ring], millis: u64, tag: u64) -> u64 {
        watch.overdue(Time::from_millis(millis), tag, rings.iter())
    }

    const BEGIN: Time = Time::from_millis(50);

    #[test]
    fn brk_9_a_call_is_overdue_after_a_slow_call_and_not_before() {
        let (watch, rings) = (watch(800), [Ring::new()]);
        let seat = start(&watch, &rings[0], BEGIN, 7);
        assert_eq!(overdue(&watch, &rings, 850, 7), 0);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 1);
        rings[0].end(seat);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 0);
    }

    #[test]
    fn brk_9_a_call_may_end_on_another_thread_than_it_started_on() {
        let (watch, rings) = (watch(800), [Ring::new(), Ring::new()]);
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
        let (watch, rings) = (watch(800), [Ring::new(), Ring::new()]);
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
        let (watch, rings) = (Watch::default(), [Ring::new()]);
        let span = |millis| Some(Duration::from_millis(millis));
        assert!(watch.seat(BEGIN, 7).is_none());
        watch.set(span(800));
        let old = start(&watch, &rings[0], BEGIN, 7);
        watch.set(span(400));
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 0);
        let new = start(&watch, &rings[0], BEGIN, 7);
        rings[0].end(old);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 1, "the new one");
        watch.set(span(400));
        rings[0].end(new);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 0, "no other division");
        watch.set(span(800));
        start(&watch, &rings[0], BEGIN, 7);
        rings[0].end(old);
        assert_eq!(overdue(&watch, &rings, 1_000, 7), 1, "as long as the first");
        watch.set(None);
        assert!(watch.seat(BEGIN, 7).is_none());
        assert_eq!(watch.tick(), None);
    }

    #[test]
    fn brk_9_each_length_of_a_slow_call_is_followed() {
        let (watch, rings) = (Watch::default(), [Ring::new()]);
        // More than there are numbers.
        for change in 0..70_000_u64 {
            let millis = 400 + change % 2 * 400;
            watch.set(Some(Duration::from_millis(millis)));
            let seat = start(&watch, &rings[0], BEGIN, 7);
            assert_eq!(overdue(&watch, &rings, 1_000, 7), 1, "change {change}");
            rings[0].end(seat);
        }
    }
}
