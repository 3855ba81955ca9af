//! How many calls are in flight, and how many of them for too long.
//!
//! It counts; the breaker judges (rule BRK-9).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::Time;

use crate::gate::tag_of;

const SLOTS: usize = 64;
/// Slots that together are as long as a slow call.
const SLOTS_PER_SLOW_CALL: u64 = 8;
/// A slot's word: the generation's tag, and the calls below it.
const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Calls in flight by the time they started at, in a ring of slots, for one generation at a time:
/// those of an earlier one say nothing about the present.
///
/// A slot is an eighth of a slow call long, and the ring eight slow calls. A call that is in
/// flight for longer shares its slot with new ones and is then taken for a young one for an eighth
/// of the time; by then a hang has long been seen.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// How long a slot is; 0 while nobody watches.
    slot_nanos: AtomicU64,
    slots: [AtomicU64; SLOTS],
}

/// Where a call is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat {
    slot: u8,
    /// The generation's, which has 20 bits.
    tag: u32,
    /// The slots' length then: a seat of another division is none of this one.
    slot_nanos: u64,
}

impl InFlight {
    /// A ring that nobody watches yet.
    pub(crate) fn new() -> Self {
        Self {
            slot_nanos: AtomicU64::new(0),
            slots: [const { AtomicU64::new(0) }; SLOTS],
        }
    }

    /// Watches for calls that are in flight for this long; `None` to watch no more. Calls that are
    /// in flight when the length changes are not watched.
    pub(crate) fn watch(&self, slow_call: Option<Duration>) {
        let slot_nanos = slow_call.map_or(0, |span| {
            let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            (nanos / SLOTS_PER_SLOW_CALL).max(1)
        });
        if self.slot_nanos.swap(slot_nanos, Ordering::Relaxed) != slot_nanos {
            for slot in &self.slots {
                slot.store(0, Ordering::Relaxed);
            }
        }
    }

    /// How often the ring should be looked at; `None` while nobody watches.
    pub(crate) fn tick(&self) -> Option<Duration> {
        match self.slot_nanos.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Counts a call of the generation `tag` that starts now; the seat is given back to
    /// [`InFlight::end`]. One of an earlier generation than those in its slot is not counted.
    #[inline(always)]
    pub(crate) fn start(&self, now: Time, tag: u64) -> Option<Seat> {
        let slot_nanos = self.slot_nanos.load(Ordering::Relaxed);
        let slot = self.slot(now.as_nanos().checked_div(slot_nanos)?);
        let counted = self.slots[slot].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            if word >> COUNT_BITS == tag {
                Some(word + 1)
            } else if word & COUNT_MASK == 0 || is_later(tag, word >> COUNT_BITS) {
                Some(tag << COUNT_BITS | 1)
            } else {
                None
            }
        });
        counted.ok()?;
        Some(Seat {
            slot: u8::try_from(slot).ok()?,
            tag: u32::try_from(tag).ok()?,
            slot_nanos,
        })
    }

    #[inline(always)]
    pub(crate) fn end(&self, seat: Seat) {
        let Seat {
            slot,
            tag,
            slot_nanos,
        } = seat;
        if slot_nanos != self.slot_nanos.load(Ordering::Relaxed) {
            return;
        }
        let (slot, tag) = (usize::from(slot), u64::from(tag));
        // Taken over by a later generation, there is nothing to give back.
        let _ = self.slots[slot].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            (word >> COUNT_BITS == tag && word & COUNT_MASK > 0).then(|| word - 1)
        });
    }

    /// Calls of the generation `tag` in flight that started a slow call ago or earlier.
    pub(crate) fn overdue(&self, now: Time, tag: u64) -> u64 {
        let slot_nanos = self.slot_nanos.load(Ordering::Relaxed);
        let Some(current) = now.as_nanos().checked_div(slot_nanos) else {
            return 0;
        };
        let young = |slot: usize| {
            (0..=SLOTS_PER_SLOW_CALL).any(|back| {
                current
                    .checked_sub(back)
                    .is_some_and(|index| self.slot(index) == slot)
            })
        };
        (0..SLOTS)
            .filter(|slot| !young(*slot))
            .map(|slot| self.slots[slot].load(Ordering::Relaxed))
            .filter(|word| word >> COUNT_BITS == tag)
            .map(|word| word & COUNT_MASK)
            .sum()
    }

    fn slot(&self, index: u64) -> usize {
        // The remainder is below 64.
        usize::try_from(index % SLOTS as u64).unwrap_or(0)
    }
}

/// Whether a generation's tag is later than another's, around the end of the numbers.
fn is_later(tag: u64, other: u64) -> bool {
    let ahead = tag_of(tag.wrapping_sub(other));
    ahead != 0 && ahead < tag_of(u64::MAX) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brk_9_a_call_is_overdue_after_a_slow_call_and_not_before() {
        let flight = InFlight::new();
        flight.watch(Some(Duration::from_millis(800)));
        let seat = flight.start(Time::from_millis(50), 7).unwrap();
        assert_eq!(flight.overdue(Time::from_millis(850), 7), 0);
        assert_eq!(flight.overdue(Time::from_millis(1_000), 7), 1);
        flight.end(seat);
        assert_eq!(flight.overdue(Time::from_millis(1_000), 7), 0);
    }

    #[test]
    fn brk_9_an_earlier_generation_is_not_overdue() {
        let flight = InFlight::new();
        flight.watch(Some(Duration::from_millis(800)));
        let (begin, later) = (Time::from_millis(50), Time::from_millis(1_000));
        let old = flight.start(begin, 7).unwrap();
        assert_eq!(flight.overdue(later, 8), 0);
        let new = flight.start(begin, 8).unwrap();
        assert!(flight.start(begin, 7).is_none(), "a straggler");
        flight.end(old);
        assert_eq!(flight.overdue(later, 8), 1);
        flight.end(new);
        assert_eq!(flight.overdue(later, 8), 0);
        let last = tag_of(u64::MAX);
        flight.start(begin, last).unwrap();
        assert!(flight.start(begin, 0).is_some(), "the numbers begin again");
    }

    #[test]
    fn brk_9_a_call_under_another_division_is_nobodys() {
        let flight = InFlight::new();
        assert!(flight.start(Time::from_millis(50), 7).is_none());
        flight.watch(Some(Duration::from_millis(800)));
        let old = flight.start(Time::from_millis(50), 7).unwrap();
        flight.watch(Some(Duration::from_millis(400)));
        let (begin, later) = (Time::from_millis(50), Time::from_millis(1_000));
        assert_eq!(flight.overdue(later, 7), 0);
        flight.start(begin, 7).unwrap();
        flight.end(old);
        assert_eq!(flight.overdue(later, 7), 1, "the new one is still there");
    }
}
