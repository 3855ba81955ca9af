//! Slots that threads cache for their next calls.
//!
//! A slot given back where no call waits stays with the thread that gave it back. The thread's next
//! call takes it again without touching the shared counts, so their cache line does not move
//! between threads. A cached slot counts as taken, so the bound is never exceeded. A call that
//! finds no free slot reclaims the cached ones before it waits.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicBool, Ordering, THREAD_INDEXES, thread_index};

/// Number of cache entries: so many threads have one each, further threads share.
const ENTRIES: usize = THREAD_INDEXES;

/// One slot or none in each entry; never the slot of a write.
///
/// All changes are SeqCst, in one order with those of the counts and of the limit. The keeper
/// stores, then reads `waiting`; the waiter stores, then reads the cache: one of them sees the
/// other.
#[derive(Debug, Default)]
pub(super) struct SlotCache([CachePadded<AtomicBool>; ENTRIES]);

impl SlotCache {
    #[inline(always)]
    fn own_entry(&self) -> &AtomicBool {
        &self.0[thread_index()]
    }

    /// Returns true if this thread's entry is empty, so that it may cache a slot.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        !self.own_entry().load(Ordering::Relaxed)
    }

    /// Caches a slot; returns false if another thread has filled the entry meanwhile.
    #[inline(always)]
    pub(super) fn put(&self) -> bool {
        !self.own_entry().swap(true, Ordering::SeqCst)
    }

    /// Takes the slot that this thread cached, if there is one.
    #[inline(always)]
    pub(super) fn take(&self) -> bool {
        let own_entry = self.own_entry();
        own_entry.load(Ordering::Relaxed) && own_entry.swap(false, Ordering::SeqCst)
    }

    /// Takes out the cached slots of all threads, and runs `then` after each. Returns their number.
    pub(super) fn take_each(&self, mut then: impl FnMut()) -> u32 {
        let mut taken = 0;
        for entry in &self.0 {
            if entry.load(Ordering::SeqCst) && entry.swap(false, Ordering::SeqCst) {
                taken += 1;
                then();
            }
        }
        taken
    }

    /// Number of cached slots.
    pub(super) fn count(&self) -> u32 {
        let entries = self.0.iter();
        let cached = entries.filter(|entry| entry.load(Ordering::SeqCst));
        u32::try_from(cached.count()).unwrap_or(0)
    }
}
