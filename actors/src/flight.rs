//! How many calls are in flight, and how many of them for too long.
//!
//! It counts; the breaker judges (rule BRK-9).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakerbox_policy::Time;

const SLOTS: usize = 64;
/// Slots that together are as long as a slow call.
const SLOTS_PER_SLOW_CALL: u64 = 8;

/// Calls in flight by the time they started at, in a ring of slots.
///
/// A slot is an eighth of a slow call long, and the ring eight slow calls. A call that is in
/// flight for longer shares its slot with new ones and is then taken for a young one for an eighth
/// of the time; by then a hang has long been seen.
#[derive(Debug)]
pub(crate) struct InFlight {
    slot_nanos: u64,
    slots: [AtomicU32; SLOTS],
}

impl InFlight {
    pub(crate) fn new(slow_call: Duration) -> Self {
        let nanos = u64::try_from(slow_call.as_nanos()).unwrap_or(u64::MAX);
        Self {
            slot_nanos: (nanos / SLOTS_PER_SLOW_CALL).max(1),
            slots: [const { AtomicU32::new(0) }; SLOTS],
        }
    }

    /// How often the ring should be looked at.
    pub(crate) fn tick(&self) -> Duration {
        Duration::from_nanos(self.slot_nanos)
    }

    /// Counts a call that starts now; the slot is given back to [`InFlight::end`].
    pub(crate) fn start(&self, now: Time) -> usize {
        let slot = self.slot(now.as_nanos() / self.slot_nanos);
        self.slots[slot].fetch_add(1, Ordering::Relaxed);
        slot
    }

    pub(crate) fn end(&self, slot: usize) {
        self.slots[slot].fetch_sub(1, Ordering::Relaxed);
    }

    /// Calls in flight that started a slow call ago or earlier.
    pub(crate) fn overdue(&self, now: Time) -> u64 {
        let current = now.as_nanos() / self.slot_nanos;
        let young = |slot: usize| {
            (0..=SLOTS_PER_SLOW_CALL).any(|back| {
                current
                    .checked_sub(back)
                    .is_some_and(|index| self.slot(index) == slot)
            })
        };
        (0..SLOTS)
            .filter(|slot| !young(*slot))
            .map(|slot| u64::from(self.slots[slot].load(Ordering::Relaxed)))
            .sum()
    }

    fn slot(&self, index: u64) -> usize {
        // The remainder is below 64.
        usize::try_from(index % SLOTS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brk_9_a_call_is_overdue_after_a_slow_call_and_not_before() {
        let flight = InFlight::new(Duration::from_millis(800));
        let slot = flight.start(Time::from_millis(50));
        assert_eq!(flight.overdue(Time::from_millis(850)), 0);
        assert_eq!(flight.overdue(Time::from_millis(1_000)), 1);
        flight.end(slot);
        assert_eq!(flight.overdue(Time::from_millis(1_000)), 0);
    }
}
