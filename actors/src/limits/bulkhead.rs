//! Limit on the calls in flight to a dependency, and on the calls that wait for a slot.
//!
//! It is the bound in front of every queue of the runtime (rule CALL-6). The slots and their queue
//! are a [`SlotPool`]; this file adds the time limits and the adaptive limit.

mod slot_pool;

mod slot_cache;

mod waiter;

mod counts;

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::{AdaptiveLimit, BulkheadSettings, Class, Ticket, Time};

use crate::clock::Clock;
use crate::sync::LockExt;
use counts::MOST;
use slot_pool::{SlotBounds, SlotPool};

pub(crate) use slot_pool::{BulkheadSlot, NoSlot, QueueRefusal};

/// Slots, and a bounded queue for them, with limits that follow the settings or the dependency.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    /// Its limit is `max_concurrent`, or less where the limit is adaptive.
    pool: SlotPool,
    max_concurrent: AtomicU32,
    /// In nanoseconds.
    max_wait: AtomicU64,
    /// True if `adaptive` holds a limit, so that the mutex is not locked in vain.
    is_adaptive: AtomicBool,
    adaptive: Mutex<Option<AdaptiveLimit>>,
}

impl Bulkhead {
    pub(crate) fn new(settings: &BulkheadSettings) -> Self {
        let bulkhead = Self {
            pool: SlotPool::new(),
            max_concurrent: AtomicU32::new(0),
            max_wait: AtomicU64::new(0),
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
        let max_writes = settings
            .max_concurrent_writes
            .map_or(MOST, |writes| writes.get().min(MOST));
        let wait = u64::try_from(settings.max_wait.as_nanos()).unwrap_or(u64::MAX);
        let mut adaptive = self.adaptive.acquire();
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
        self.max_concurrent.store(max.get(), Ordering::Release);
        self.max_wait.store(wait, Ordering::Release);
        let admitted = self.pool.resize(SlotBounds {
            limit,
            max_writes,
            max_queue: settings.max_queue.min(MOST),
        });
        drop(adaptive);
        self.pool.finish_resize(admitted);
    }

    /// Takes a slot if one is free and no call waits.
    #[inline(always)]
    pub(crate) fn try_enter(&self, ticket: Ticket, now: Time) -> Option<BulkheadSlot<'_>> {
        self.adapt(|limit| limit.limit(now));
        self.pool.try_enter(ticket)
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
            _ => (patience, NoSlot::Overloaded(QueueRefusal::Waited(max_wait))),
        };
        tokio::select! {
            biased;
            slot = self.pool.wait(ticket) => slot,
            () = clock.sleep_until(until) => Err(reason),
        }
    }

    /// Gives a slot back: to the next waiter that may run, if there is one.
    #[inline(always)]
    pub(crate) fn release(&self, ticket: Ticket) {
        self.pool.release(ticket);
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

    /// Returns true if a call of this kind would find no free slot.
    pub(crate) fn is_full(&self, ticket: Ticket) -> bool {
        self.pool.is_full(ticket)
    }

    /// Maximum number of calls in flight at this time.
    pub(crate) fn limit(&self, now: Time) -> u32 {
        self.adapt(|limit| limit.limit(now));
        self.pool.limit()
    }

    pub(crate) fn max_concurrent(&self) -> u32 {
        self.max_concurrent.load(Ordering::Acquire)
    }

    /// Returns the limit on writes if it is what a call of this kind waits for.
    pub(crate) fn exceeded_writes(&self, ticket: Ticket) -> Option<NonZeroU32> {
        self.pool.exceeded_writes(ticket)
    }

    pub(crate) fn max_queue(&self) -> u32 {
        self.pool.max_queue()
    }

    pub(crate) fn queued(&self) -> u32 {
        self.pool.read().waiting()
    }

    /// Number of calls that hold a slot.
    pub(crate) fn in_flight(&self) -> u32 {
        self.pool.in_flight()
    }

    /// Number of writes among the calls in flight.
    pub(crate) fn writes(&self) -> u32 {
        self.pool.read().writes()
    }

    /// Updates the adaptive limit, if there is one, and admits the waiters that fit under it.
    #[inline(always)]
    fn adapt(&self, ask: impl FnOnce(&mut AdaptiveLimit) -> u32) {
        if !self.is_adaptive.load(Ordering::Acquire) {
            return;
        }
        let mut adaptive = self.adaptive.acquire();
        let Some(limit) = adaptive.as_mut().map(ask) else {
            return;
        };
        if limit == self.pool.limit() {
            return;
        }
        let admitted = self.pool.resize_limit(limit);
        drop(adaptive);
        self.pool.finish_resize(admitted);
    }
}

const fn most() -> NonZeroU32 {
    match NonZeroU32::new(MOST) {
        Some(most) => most,
        None => NonZeroU32::MIN,
    }
}

#[cfg(test)]
mod tests;
