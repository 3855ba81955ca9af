//! Limit on the calls in flight to a dependency, and on the calls that wait for a slot.
//!
//! It is the bound in front of every queue of the runtime (rule CALL-6). A free slot is taken and
//! returned with one atomic operation. Where no call waits, the thread caches a returned slot for
//! its next call ([`kept`]). Only where calls wait is there a lock: a returned slot then goes
//! straight to the next waiter.
//!
//! Invariant: while the lock is free, no waiter could run. A thread that frees a slot or raises the
//! limit hands it to the next waiter before it unlocks. The counts of a queue that is not empty,
//! and the limits, change only under the lock.

mod slot_cache;

mod waiter;

mod counts;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use breakerbox_policy::{
    AdaptiveLimit, BulkheadSettings, Class, Priority, QueuePosition, Ticket, Time, WaitQueue,
};
use crossbeam_utils::CachePadded;

use crate::clock::Clock;
use crate::sync::LockExt;
use counts::{MOST, PackedCounts};
use slot_cache::SlotCache;
use waiter::Waiter;

/// Slots, and a bounded queue for them: by priority, then FIFO.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    /// A [`PackedCounts`]. Padded, because calls write it and also read the fields next to it.
    word: CachePadded<AtomicU64>,
    /// Slots that count as taken although no call holds them.
    kept: SlotCache,
    /// Maximum number of calls in flight: `max_concurrent`, or less where the limit is adaptive.
    limit: AtomicU32,
    max_writes: AtomicU32,
    max_concurrent: AtomicU32,
    max_queue: AtomicU32,
    /// In nanoseconds.
    max_wait: AtomicU64,
    queue: Mutex<Queue>,
    /// True if `adaptive` holds a limit, so that the mutex is not locked in vain.
    is_adaptive: AtomicBool,
    adaptive: Mutex<Option<AdaptiveLimit>>,
}

#[derive(Debug, Default)]
struct Queue {
    line: WaitQueue<Waker>,
    /// Waiters shed to make room for others, and not polled since.
    shed: BTreeSet<QueuePosition>,
}

/// Reason why a call got no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// The queue is full, the waiter made room for a call of higher priority, or `max_wait` is
    /// over.
    Overloaded,
    /// The call's own deadline passed first.
    Deadline,
}

/// The ticket under which cached slots are accounted.
const KEPT: Ticket = Ticket {
    priority: Priority::Normal,
    write: false,
};

/// The decision on an arriving call.
#[derive(Debug, Clone, Copy)]
enum EntryDecision {
    Place,
    Seat,
    Nothing,
}

impl Bulkhead {
    pub(crate) fn new(settings: &BulkheadSettings) -> Self {
        let bulkhead = Self {
            word: CachePadded::default(),
            kept: SlotCache::default(),
            limit: AtomicU32::new(0),
            max_writes: AtomicU32::new(0),
            max_concurrent: AtomicU32::new(0),
            max_queue: AtomicU32::new(0),
            max_wait: AtomicU64::new(0),
            queue: Mutex::default(),
            is_adaptive: AtomicBool::new(false),
            adaptive: Mutex::default(),
        };
        bulkhead.resize(settings);
        bulkhead
    }

    /// Changes the bounds. Running calls keep their slots and waiters their positions; waiters that
    /// fit under the new bounds get slots.
    pub(crate) fn resize(&self, settings: &BulkheadSettings) {
        let max = settings.max_concurrent.min(most());
        let writes = settings
            .max_concurrent_writes
            .map_or(MOST, |writes| writes.get().min(MOST));
        let wait = u64::try_from(settings.max_wait.as_nanos()).unwrap_or(u64::MAX);
        let mut adaptive = locked(&self.adaptive);
        let limit = match (&mut *adaptive, settings.adaptive) {
            (_, None) => {
                *adaptive = None;
                max.get()
            }
            (Some(known), Some(new)) => known.resize(&new, max),
            (None, Some(new)) => {
                let new = adaptive.insert(AdaptiveLimit::new(&new, max));
                new.limit(Time::ZERO)
            }
        };
        self.is_adaptive
            .store(adaptive.is_some(), Ordering::Release);
        let woken = {
            let mut queue = self.lock();
            self.max_concurrent.store(max.get(), Ordering::Release);
            let seats = settings.max_queue.min(MOST);
            self.max_queue.store(seats, Ordering::Release);
            self.max_wait.store(wait, Ordering::Release);
            self.max_writes.store(writes, Ordering::Release);
            self.limit.store(limit, Ordering::SeqCst);
            self.seat_all(&mut queue)
        };
        drop(adaptive);
        wake(woken);
        self.reclaim();
    }

    /// Takes a slot if one is free and no call waits.
    #[inline(always)]
    pub(crate) fn try_enter(&self, ticket: Ticket, now: Time) -> Option<BulkheadSlot<'_>> {
        self.adapt(|limit| limit.limit(now));
        let has_place = self.take_kept(ticket)
            || self.take_free(ticket)
            || (self.reclaim() && self.take_free(ticket));
        has_place.then(|| BulkheadSlot {
            bulkhead: self,
            ticket,
        })
    }

    #[inline(always)]
    fn take_free(&self, ticket: Ticket) -> bool {
        self.change(|word| {
            (word.waiting() == 0 && self.fits(word, ticket)).then(|| word.enter(ticket))
        })
    }

    /// Takes the slot that this thread cached, if it may still be used.
    #[inline(always)]
    fn take_kept(&self, ticket: Ticket) -> bool {
        if ticket.write || !self.kept.take() {
            return false;
        }
        if self.is_calm() {
            return true;
        }
        self.give_back(ticket);
        false
    }

    /// Caches a slot for this thread's next call, if no other call needs it.
    #[inline(always)]
    fn keep(&self, ticket: Ticket) -> bool {
        let may_keep = !ticket.write && self.kept.has_room() && self.is_calm();
        may_keep && self.kept.put() && self.stays_kept()
    }

    /// Returns false if the slot just cached must be given back. Either this thread sees the new
    /// waiter, or the waiter saw the slot and reclaimed it.
    #[inline(always)]
    fn stays_kept(&self) -> bool {
        self.is_calm() || !self.kept.take()
    }

    /// Returns true if no call waits and the slots taken do not exceed the limit.
    #[inline(always)]
    fn is_calm(&self) -> bool {
        let word = PackedCounts(self.word.load(Ordering::SeqCst));
        word.waiting() == 0 && word.running() <= self.limit.load(Ordering::SeqCst)
    }

    /// Gives all cached slots back; returns false if there were none.
    fn reclaim(&self) -> bool {
        // One by one: a slot that is already out of the cache and not yet given back still counts
        // as taken.
        let given_back = self.kept.take_each(|| self.give_back(KEPT));
        given_back > 0
    }

    /// Waits for a slot.
    ///
    /// # Cancel safety   If the future is dropped while it waits, it leaves the queue.
    pub(crate) async fn enter(
        &self,
        clock: &Clock,
        deadline: Option<Time>,
        ticket: Ticket,
    ) -> Result<BulkheadSlot<'_>, NoSlot> {
        let max_wait = Duration::from_nanos(self.max_wait.load(Ordering::Acquire));
        let patience = clock.now().after(max_wait);
        let (until, reason) = match deadline {
            Some(deadline) if deadline < patience => (deadline, NoSlot::Deadline),
            _ => (patience, NoSlot::Overloaded),
        };
        tokio::select! {
            biased;
            place = Waiter::new(self, ticket) => place,
            () = clock.sleep_until(until) => Err(reason),
        }
    }

    /// Gives a slot back: to the next waiter that may run, if there is one.
    #[inline(always)]
    pub(crate) fn leave(&self, ticket: Ticket) {
        if !self.keep(ticket) {
            self.give_back(ticket);
        }
    }

    fn give_back(&self, ticket: Ticket) {
        if self.change(|word| (word.waiting() == 0).then(|| word.leave(ticket))) {
            return;
        }
        let next = {
            let mut queue = self.lock();
            self.change(|word| Some(word.leave(ticket)));
            self.seat_next(&mut queue)
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// Feeds the result of an attempt to the adaptive limit. Its slot has been given back by then.
    #[inline(always)]
    pub(crate) fn sample(&self, now: Time, elapsed: Duration, class: Class) {
        let dropped = match class {
            Class::Success => false,
            Class::Failure | Class::Throttled => true,
            // These classes say nothing about the dependency's capacity.
            Class::Rejected | Class::Misconfigured | Class::Cancelled => return,
        };
        self.adapt(|limit| limit.sample(now, self.in_flight() + 1, elapsed, dropped));
    }

    /// Maximum number of calls in flight at this time.
    pub(crate) fn limit(&self, now: Time) -> u32 {
        self.adapt(|limit| limit.limit(now));
        self.limit.load(Ordering::Acquire)
    }

    pub(crate) fn max_concurrent(&self) -> u32 {
        self.max_concurrent.load(Ordering::Acquire)
    }

    pub(crate) fn max_queue(&self) -> u32 {
        self.max_queue.load(Ordering::Acquire)
    }

    pub(crate) fn queued(&self) -> u32 {
        self.read().waiting()
    }

    /// Number of calls that hold a slot.
    pub(crate) fn in_flight(&self) -> u32 {
        let kept = self.kept.count();
        let word = self.read();
        // Cached slots may have been given back since they were counted. A write's slot is never
        // cached.
        word.running().saturating_sub(kept).max(word.writes())
    }

    /// Number of writes among the calls in flight.
    pub(crate) fn writes(&self) -> u32 {
        self.read().writes()
    }

    /// Updates the adaptive limit, if there is one, and admits the waiters that fit under it.
    #[inline(always)]
    fn adapt(&self, ask: impl FnOnce(&mut AdaptiveLimit) -> u32) {
        if !self.is_adaptive.load(Ordering::Acquire) {
            return;
        }
        let mut adaptive = locked(&self.adaptive);
        let Some(limit) = adaptive.as_mut().map(ask) else {
            return;
        };
        if limit == self.limit.load(Ordering::Acquire) {
            return;
        }
        let woken = {
            let mut queue = self.lock();
            self.limit.store(limit, Ordering::SeqCst);
            self.seat_all(&mut queue)
        };
        drop(adaptive);
        wake(woken);
        self.reclaim();
    }

    /// Gives an arriving call a slot, or counts it as a waiter if the queue has room. Called under
    /// the lock, while no waiter could run.
    fn place_or_seat(&self, ticket: Ticket) -> EntryDecision {
        let mut step = EntryDecision::Nothing;
        self.change(|word| {
            if self.fits(word, ticket) {
                step = EntryDecision::Place;
                Some(word.enter(ticket))
            } else if word.waiting() < self.max_queue() {
                step = EntryDecision::Seat;
                Some(word.add_waiter())
            } else {
                step = EntryDecision::Nothing;
                None
            }
        });
        step
    }

    /// Gives a slot to the next waiter, if there is a free one for it. Called under the lock.
    fn seat_next(&self, queue: &mut Queue) -> Option<Waker> {
        let word = self.read();
        if word.running() >= self.limit.load(Ordering::Acquire) {
            return None;
        }
        let writes = word.writes() < self.max_writes.load(Ordering::Acquire);
        let (turn, waker) = queue.line.take_next(writes)?;
        self.change(|word| Some(word.remove_waiter().enter(turn.ticket())));
        Some(waker)
    }

    fn seat_all(&self, queue: &mut Queue) -> Vec<Waker> {
        std::iter::from_fn(|| self.seat_next(queue)).collect()
    }

    #[inline]
    fn fits(&self, word: PackedCounts, ticket: Ticket) -> bool {
        word.running() < self.limit.load(Ordering::Acquire)
            && (!ticket.write || word.writes() < self.max_writes.load(Ordering::Acquire))
    }

    fn read(&self) -> PackedCounts {
        PackedCounts(self.word.load(Ordering::Acquire))
    }

    /// Changes the counts, unless the closure returns `None`. Returns true if they changed.
    #[inline]
    fn change(&self, mut change: impl FnMut(PackedCounts) -> Option<PackedCounts>) -> bool {
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                change(PackedCounts(word)).map(|word| word.0)
            })
            .is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        locked(&self.queue)
    }
}

/// A slot at the dependency; given back on drop.
#[derive(Debug)]
pub(crate) struct BulkheadSlot<'a> {
    bulkhead: &'a Bulkhead,
    ticket: Ticket,
}

impl BulkheadSlot<'_> {
    /// Passes on the duty to give the slot back, by [`Bulkhead::leave`] with the returned ticket.
    pub(crate) fn hand_over(self) -> Ticket {
        let ticket = self.ticket;
        std::mem::forget(self);
        ticket
    }
}

impl Drop for BulkheadSlot<'_> {
    fn drop(&mut self) {
        self.bulkhead.leave(self.ticket);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.acquire()
}

const fn most() -> NonZeroU32 {
    match NonZeroU32::new(MOST) {
        Some(most) => most,
        None => NonZeroU32::MIN,
    }
}

/// Wakes outside of every lock: a waker may run arbitrary code.
fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
