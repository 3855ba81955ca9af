//! The slots of a bulkhead and the queue for them, without a clock.
//!
//! A free slot is taken and returned with one atomic operation. Where no call waits, the thread
//! caches a returned slot for its next call ([`SlotCache`]). Only where calls wait is there a lock:
//! a returned slot then goes straight to the next waiter.
//!
//! Invariant: while the lock is free, no waiter could run. A thread that frees a slot or raises the
//! limit hands it to the next waiter before it unlocks. The counts of a queue that is not empty,
//! and the limits, change only under the lock.
//!
//! `tests/bulkhead_loom.rs` runs the interleavings of this file.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::task::Waker;
use std::time::Duration;

use breakerbox_policy::{Priority, QueuePosition, Ticket, WaitQueue};
use crossbeam_utils::CachePadded;

use super::counts::PackedCounts;
use super::slot_cache::SlotCache;
use super::waiter::Waiter;
use crate::sync::{AtomicU32, AtomicU64, LockExt, Mutex, MutexGuard, Ordering};

/// Slots, and a bounded queue for them: by priority, then FIFO.
#[derive(Debug)]
pub(crate) struct SlotPool {
    /// A [`PackedCounts`]. Padded, because calls write it and also read the fields next to it.
    pub(super) counts: CachePadded<AtomicU64>,
    /// Slots that count as taken although no call holds them.
    pub(super) cache: SlotCache,
    /// Maximum number of calls in flight.
    pub(super) limit: AtomicU32,
    max_writes: AtomicU32,
    max_queue: AtomicU32,
    queue: Mutex<Queue>,
}

/// The waiters, under the lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiters: WaitQueue<Waker>,
    /// Waiters shed to make room for others, and not polled since.
    pub(super) shed: BTreeSet<QueuePosition>,
}

/// The bounds of a [`SlotPool`], each at most [`super::counts::MOST`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotBounds {
    pub(crate) limit: u32,
    /// Maximum number of writes among the calls in flight.
    pub(crate) max_writes: u32,
    /// Maximum number of waiters.
    pub(crate) max_queue: u32,
}

/// Reason why a call got no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// The limits do not allow it.
    Overloaded(QueueRefusal),
    /// The call's own deadline passed first.
    Deadline,
}

/// Reason why a call does not wait for a slot any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueRefusal {
    /// The queue is full, or the waiter made room for a call of higher priority.
    Full,
    /// `max_wait`, of this length, is over.
    Waited(Duration),
}

/// The ticket under which cached slots are accounted.
const CACHED: Ticket = Ticket {
    priority: Priority::Normal,
    write: false,
};

/// The decision on an arriving call.
#[derive(Debug, Clone, Copy)]
pub(super) enum EntryDecision {
    Slot,
    Wait,
    Full,
}

impl SlotPool {
    /// Makes a pool without slots; [`Self::resize`] gives it some.
    pub(crate) fn new() -> Self {
        Self {
            counts: CachePadded::default(),
            cache: SlotCache::default(),
            limit: AtomicU32::new(0),
            max_writes: AtomicU32::new(0),
            max_queue: AtomicU32::new(0),
            queue: Mutex::new(Queue::default()),
        }
    }

    /// Changes the bounds, and admits the waiters that fit under them. The caller passes their
    /// wakers to [`Self::finish_resize`] once it holds no lock.
    #[must_use]
    pub(crate) fn resize(&self, bounds: SlotBounds) -> Vec<Waker> {
        let mut queue = self.lock();
        self.max_queue.store(bounds.max_queue, Ordering::Release);
        self.max_writes.store(bounds.max_writes, Ordering::Release);
        self.set_limit(&mut queue, bounds.limit)
    }

    /// Changes the limit only; see [`Self::resize`].
    #[must_use]
    pub(super) fn resize_limit(&self, limit: u32) -> Vec<Waker> {
        self.set_limit(&mut self.lock(), limit)
    }

    fn set_limit(&self, queue: &mut Queue, limit: u32) -> Vec<Waker> {
        self.limit.store(limit, Ordering::SeqCst);
        self.admit_all(queue)
    }

    /// Wakes the admitted waiters, and reclaims the cached slots, which may exceed the new limit.
    pub(crate) fn finish_resize(&self, admitted: Vec<Waker>) {
        // Outside of every lock: a waker may run arbitrary code.
        for waker in admitted {
            waker.wake();
        }
        self.reclaim();
    }

    /// Takes a slot if one is free and no call waits.
    #[inline(always)]
    pub(crate) fn try_enter(&self, ticket: Ticket) -> Option<BulkheadSlot<'_>> {
        let has_slot = self.take_cached(ticket)
            || self.take_free(ticket)
            || (self.reclaim() && self.take_free(ticket));
        has_slot.then(|| BulkheadSlot { pool: self, ticket })
    }

    /// Returns a future that waits for a slot.
    pub(crate) fn wait(&self, ticket: Ticket) -> Waiter<'_> {
        Waiter::new(self, ticket)
    }

    #[inline(always)]
    fn take_free(&self, ticket: Ticket) -> bool {
        self.change(|word| {
            (word.waiting() == 0 && self.fits(word, ticket)).then(|| word.enter(ticket))
        })
    }

    /// Takes the slot that this thread cached, if it may still be used.
    #[inline(always)]
    fn take_cached(&self, ticket: Ticket) -> bool {
        if ticket.write || !self.cache.take() {
            return false;
        }
        if self.has_no_demand() {
            return true;
        }
        self.give_back(ticket);
        false
    }

    /// Caches a slot for this thread's next call, if no other call needs it.
    #[inline(always)]
    fn cache(&self, ticket: Ticket) -> bool {
        let may_cache = !ticket.write && self.cache.has_room() && self.has_no_demand();
        may_cache && self.cache.put() && self.stays_cached()
    }

    /// Returns false if the slot just cached must be given back. Either this thread sees the new
    /// waiter, or the waiter saw the slot and reclaimed it.
    #[inline(always)]
    pub(super) fn stays_cached(&self) -> bool {
        self.has_no_demand() || !self.cache.take()
    }

    /// Returns true if no call waits and the slots taken do not exceed the limit.
    #[inline(always)]
    fn has_no_demand(&self) -> bool {
        let word = PackedCounts(self.counts.load(Ordering::SeqCst));
        word.waiting() == 0 && word.running() <= self.limit.load(Ordering::SeqCst)
    }

    /// Gives all cached slots back; returns false if there were none.
    pub(crate) fn reclaim(&self) -> bool {
        // One by one: a slot that is already out of the cache and not yet given back still counts
        // as taken.
        let given_back = self.cache.take_each(|| self.give_back(CACHED));
        given_back > 0
    }

    /// Gives a slot back: to the next waiter that may run, if there is one.
    #[inline(always)]
    pub(crate) fn release(&self, ticket: Ticket) {
        if !self.cache(ticket) {
            self.give_back(ticket);
        }
    }

    pub(super) fn give_back(&self, ticket: Ticket) {
        if self.change(|word| (word.waiting() == 0).then(|| word.release(ticket))) {
            return;
        }
        let next = {
            let mut queue = self.lock();
            self.change(|word| Some(word.release(ticket)));
            self.admit_next(&mut queue)
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// Maximum number of calls in flight.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    /// Returns the limit on writes if it is what a call of this kind waits for.
    pub(super) fn exceeded_writes(&self, ticket: Ticket) -> Option<NonZeroU32> {
        let max = self.max_writes.load(Ordering::Acquire);
        let word = self.read();
        let is_it = ticket.write && word.writes() >= max && self.in_flight() < self.limit();
        NonZeroU32::new(max).filter(|_| is_it)
    }

    /// Returns true if a call of this kind would find no free slot.
    pub(super) fn is_full(&self, ticket: Ticket) -> bool {
        self.in_flight() >= self.limit() || self.exceeded_writes(ticket).is_some()
    }

    /// Maximum number of waiters.
    pub(super) fn max_queue(&self) -> u32 {
        self.max_queue.load(Ordering::Acquire)
    }

    /// Number of calls that hold a slot.
    pub(crate) fn in_flight(&self) -> u32 {
        let cached = self.cache.count();
        let word = self.read();
        // Cached slots may have been given back since they were counted. A write's slot is never
        // cached.
        word.running().saturating_sub(cached).max(word.writes())
    }

    /// Number of slots taken or cached, and number of waiters.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (u32, u32) {
        let word = self.read();
        (word.running(), word.waiting())
    }

    /// Gives an arriving call a slot, or counts it as a waiter if the queue has room. Called under
    /// the lock, while no waiter could run.
    pub(super) fn slot_or_wait(&self, ticket: Ticket) -> EntryDecision {
        let mut decision = EntryDecision::Full;
        self.change(|word| {
            if self.fits(word, ticket) {
                decision = EntryDecision::Slot;
                Some(word.enter(ticket))
            } else if word.waiting() < self.max_queue() {
                decision = EntryDecision::Wait;
                Some(word.add_waiter())
            } else {
                decision = EntryDecision::Full;
                None
            }
        });
        decision
    }

    /// Gives a slot to the next waiter, if there is a free one for it. Called under the lock.
    pub(super) fn admit_next(&self, queue: &mut Queue) -> Option<Waker> {
        let word = self.read();
        if word.running() >= self.limit() {
            return None;
        }
        let writes = word.writes() < self.max_writes.load(Ordering::Acquire);
        let (turn, waker) = queue.waiters.take_next(writes)?;
        self.change(|word| Some(word.remove_waiter().enter(turn.ticket())));
        Some(waker)
    }

    fn admit_all(&self, queue: &mut Queue) -> Vec<Waker> {
        std::iter::from_fn(|| self.admit_next(queue)).collect()
    }

    #[inline]
    fn fits(&self, word: PackedCounts, ticket: Ticket) -> bool {
        word.running() < self.limit()
            && (!ticket.write || word.writes() < self.max_writes.load(Ordering::Acquire))
    }

    pub(super) fn read(&self) -> PackedCounts {
        PackedCounts(self.counts.load(Ordering::Acquire))
    }

    /// Changes the counts, unless the closure returns `None`. Returns true if they changed.
    #[inline]
    pub(super) fn change(
        &self,
        mut change: impl FnMut(PackedCounts) -> Option<PackedCounts>,
    ) -> bool {
        self.counts
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                change(PackedCounts(word)).map(|word| word.0)
            })
            .is_ok()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.acquire()
    }
}

/// A slot at the dependency; given back on drop.
#[derive(Debug)]
pub(crate) struct BulkheadSlot<'a> {
    pub(super) pool: &'a SlotPool,
    pub(super) ticket: Ticket,
}

impl BulkheadSlot<'_> {
    /// Passes on the duty to give the slot back, by [`SlotPool::release`] with the returned ticket.
    pub(crate) fn into_ticket(self) -> Ticket {
        let ticket = self.ticket;
        std::mem::forget(self);
        ticket
    }
}

impl Drop for BulkheadSlot<'_> {
    #[inline]
    fn drop(&mut self) {
        self.pool.release(self.ticket);
    }
}
