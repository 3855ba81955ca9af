//! How many calls may be at a dependency at once, and how many may wait.
//!
//! The bound in front of actix's mailboxes, which have none that holds (rule CALL-6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakerbox_policy::{BulkheadSettings, Time};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;

/// A place at the dependency; given back when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// Places, and a bounded queue for them, first come first served.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    places: Arc<Semaphore>,
    max_concurrent: u32,
    queued: AtomicU32,
    max_queue: u32,
    max_wait: Duration,
}

/// Why there was no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The queue is full, or `max_wait` is over.
    Overloaded,
    /// The call's own deadline came first.
    Deadline,
}

impl Bulkhead {
    pub(crate) fn new(settings: &BulkheadSettings) -> Self {
        let max_concurrent = settings.max_concurrent.get();
        let places = usize::try_from(max_concurrent)
            .unwrap_or(Semaphore::MAX_PERMITS)
            .min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places)),
            max_concurrent,
            queued: AtomicU32::new(0),
            max_queue: settings.max_queue,
            max_wait: settings.max_wait,
        }
    }

    /// Takes a place if one is free and nobody waits.
    pub(crate) fn try_enter(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Waits for a place.
    ///
    /// # Cancel safety   Dropped while it waits, it leaves the queue.
    pub(crate) async fn enter(
        &self,
        clock: &Clock,
        deadline: Option<Time>,
    ) -> Result<Place, NoPlace> {
        let Some(_seat) = Seat::take(&self.queued, self.max_queue) else {
            return Err(NoPlace::Overloaded);
        };
        let patience = clock.now().after(self.max_wait);
        let (until, reason) = match deadline {
            Some(deadline) if deadline < patience => (deadline, NoPlace::Deadline),
            _ => (patience, NoPlace::Overloaded),
        };
        tokio::select! {
            biased;
            // The semaphore is never closed.
            place = Arc::clone(&self.places).acquire_owned() => place.map_err(|_| NoPlace::Overloaded),
            () = clock.sleep_until(until) => Err(reason),
        }
    }

    pub(crate) fn max_concurrent(&self) -> u32 {
        self.max_concurrent
    }

    pub(crate) fn max_queue(&self) -> u32 {
        self.max_queue
    }

    pub(crate) fn queued(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Calls that hold a place.
    pub(crate) fn in_flight(&self) -> u32 {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        self.max_concurrent.saturating_sub(free)
    }
}

/// A seat in the queue; given back when dropped.
struct Seat<'a>(&'a AtomicU32);

impl<'a> Seat<'a> {
    fn take(queued: &'a AtomicU32, max: u32) -> Option<Self> {
        queued
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now < max).then_some(now + 1)
            })
            .ok()
            .map(|_| Self(queued))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
