//! Places that threads keep for their next calls.
//!
//! A place that is given back where nobody waits stays with the thread that gave it: its next call
//! takes it again without a word to the other threads, whose caches then need not hand the count
//! to and fro. It counts as taken, so no bound is ever passed; and whoever finds no free place
//! calls in what the threads keep before waiting.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// Threads that keep a place of their own each; more than that share.
const LOCKERS: usize = 8;

thread_local! {
    /// Which of the lockers is this thread's.
    static MINE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % LOCKERS
    };
}

/// One place, or none, in each locker; only of calls that are no writes.
///
/// All changes are in one order with those of the count and of the limit: whoever keeps a place looks afterwards
/// whether anybody waits, and whoever waits looks afterwards whether anybody keeps one.
#[derive(Debug, Default)]
pub(super) struct Kept([CachePadded<AtomicBool>; LOCKERS]);

impl Kept {
    #[inline(always)]
    fn mine(&self) -> &AtomicBool {
        &self.0[MINE.with(|mine| *mine)]
    }

    /// Whether this thread may keep one: its locker is empty.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        !self.mine().load(Ordering::Relaxed)
    }

    /// Keeps a place; false when another thread's has come into the locker.
    #[inline(always)]
    pub(super) fn put(&self) -> bool {
        !self.mine().swap(true, Ordering::SeqCst)
    }

    /// Takes the place out that this thread keeps.
    #[inline(always)]
    pub(super) fn take(&self) -> bool {
        let mine = self.mine();
        mine.load(Ordering::Relaxed) && mine.swap(false, Ordering::SeqCst)
    }

    /// Takes out what all threads keep, and does something after each; says how many that were.
    pub(super) fn take_each(&self, mut then: impl FnMut()) -> u32 {
        let mut taken = 0;
        for locker in &self.0 {
            if locker.load(Ordering::SeqCst) && locker.swap(false, Ordering::SeqCst) {
                taken += 1;
                then();
            }
        }
        taken
    }

    /// How many are kept.
    pub(super) fn count(&self) -> u32 {
        let lockers = self.0.iter();
        let kept = lockers.filter(|locker| locker.load(Ordering::SeqCst));
        u32::try_from(kept.count()).unwrap_or(0)
    }
}
