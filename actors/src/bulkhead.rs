//! How many calls may be at a dependency at once, and how many may wait.
//!
//! The bound in front of every queue of the runtime (rule CALL-6). A free place is taken and
//! given back with one atomic operation; only where calls wait is there a lock, and a place that
//! is given back then goes straight to the one who has waited longest.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use breakerbox_policy::{BulkheadSettings, Time};

use crate::clock::Clock;

/// Places, and a bounded queue for them, first come first served.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    /// Places that are taken in the upper half, calls that wait in the lower.
    word: AtomicU64,
    waiting: Mutex<Waiters>,
    max_concurrent: u32,
    max_queue: u32,
    max_wait: Duration,
}

#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    queue: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    waker: Waker,
}

/// Why there was no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The queue is full, or `max_wait` is over.
    Overloaded,
    /// The call's own deadline came first.
    Deadline,
}

const fn taken(word: u64) -> u32 {
    (word >> 32) as u32
}

const fn queued(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

const ONE_TAKEN: u64 = 1 << 32;
const ONE_QUEUED: u64 = 1;

impl Bulkhead {
    pub(crate) fn new(settings: &BulkheadSettings) -> Self {
        Self {
            word: AtomicU64::new(0),
            waiting: Mutex::default(),
            max_concurrent: settings.max_concurrent.get(),
            max_queue: settings.max_queue,
            max_wait: settings.max_wait,
        }
    }

    /// Takes a place if one is free and nobody waits.
    pub(crate) fn try_enter(&self) -> Option<Place<'_>> {
        let free = |word| {
            (queued(word) == 0 && taken(word) < self.max_concurrent).then_some(word + ONE_TAKEN)
        };
        self.update(free).ok().map(|_| Place { bulkhead: self })
    }

    /// Waits for a place.
    ///
    /// # Cancel safety   Dropped while it waits, it leaves the queue.
    pub(crate) async fn enter(
        &self,
        clock: &Clock,
        deadline: Option<Time>,
    ) -> Result<Place<'_>, NoPlace> {
        let patience = clock.now().after(self.max_wait);
        let (until, reason) = match deadline {
            Some(deadline) if deadline < patience => (deadline, NoPlace::Deadline),
            _ => (patience, NoPlace::Overloaded),
        };
        let seat = Seat {
            bulkhead: self,
            number: None,
        };
        tokio::select! {
            biased;
            place = seat => place,
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
        queued(self.word.load(Ordering::Acquire))
    }

    /// Calls that hold a place.
    pub(crate) fn in_flight(&self) -> u32 {
        taken(self.word.load(Ordering::Acquire))
    }

    /// Gives a place back: to whoever has waited longest, if anybody waits.
    pub(crate) fn leave(&self) {
        let alone = |word| (queued(word) == 0).then(|| word - ONE_TAKEN);
        if self.update(alone).is_ok() {
            return;
        }
        let next = {
            let mut waiters = self.lock();
            let next = waiters.queue.pop_front();
            // The queue is changed under the lock alone, together with the word.
            let change = match next {
                Some(_) => ONE_QUEUED,
                None => ONE_TAKEN,
            };
            self.word.fetch_sub(change, Ordering::AcqRel);
            next
        };
        if let Some(next) = next {
            next.waker.wake();
        }
    }

    fn update(&self, change: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place at the dependency; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    bulkhead: &'a Bulkhead,
}

impl Place<'_> {
    /// Leaves it to somebody else to give the place back with [`Bulkhead::leave`].
    pub(crate) fn hand_over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bulkhead.leave();
    }
}

/// A seat in the queue. A place comes to it with its number taken off the queue.
struct Seat<'a> {
    bulkhead: &'a Bulkhead,
    number: Option<u64>,
}

impl<'a> Seat<'a> {
    fn sit_down(&mut self, cx: &Context<'_>) -> Poll<Result<Place<'a>, NoPlace>> {
        let bulkhead = self.bulkhead;
        let mut waiters = bulkhead.lock();
        let step = bulkhead.update(|word| {
            if queued(word) == 0 && taken(word) < bulkhead.max_concurrent {
                Some(word + ONE_TAKEN)
            } else {
                (queued(word) < bulkhead.max_queue).then_some(word + ONE_QUEUED)
            }
        });
        match step {
            Err(_full) => Poll::Ready(Err(NoPlace::Overloaded)),
            Ok(before) if queued(before) == 0 && taken(before) < bulkhead.max_concurrent => {
                Poll::Ready(Ok(Place { bulkhead }))
            }
            Ok(_) => {
                let number = waiters.next;
                waiters.next += 1;
                let waker = cx.waker().clone();
                waiters.queue.push_back(Waiter { number, waker });
                self.number = Some(number);
                Poll::Pending
            }
        }
    }
}

impl<'a> Future for Seat<'a> {
    type Output = Result<Place<'a>, NoPlace>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(number) = self.number else {
            return self.sit_down(cx);
        };
        let bulkhead = self.bulkhead;
        let mut waiters = bulkhead.lock();
        let mine = waiters.queue.iter_mut().find(|one| one.number == number);
        match mine {
            Some(waiter) => {
                waiter.waker.clone_from(cx.waker());
                Poll::Pending
            }
            None => {
                drop(waiters);
                self.number = None;
                Poll::Ready(Ok(Place { bulkhead }))
            }
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else {
            return;
        };
        let mut waiters = self.bulkhead.lock();
        let seat = waiters.queue.iter().position(|one| one.number == number);
        match seat {
            Some(index) => {
                waiters.queue.remove(index);
                self.bulkhead.word.fetch_sub(ONE_QUEUED, Ordering::AcqRel);
            }
            None => {
                // The place came just now, and nobody will use it.
                drop(waiters);
                self.bulkhead.leave();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulkhead(places: u32, max_queue: u32) -> Bulkhead {
        Bulkhead::new(&BulkheadSettings {
            max_concurrent: places.try_into().unwrap(),
            max_queue,
            max_wait: Duration::from_secs(1),
            ..BulkheadSettings::default()
        })
    }

    fn seat(bulkhead: &Bulkhead) -> Pin<Box<Seat<'_>>> {
        Box::pin(Seat {
            bulkhead,
            number: None,
        })
    }

    fn poll<'a>(seat: &mut Pin<Box<Seat<'a>>>) -> Poll<Result<Place<'a>, NoPlace>> {
        seat.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn call_6_places_and_seats_are_bounded_exactly() {
        let bulkhead = bulkhead(1, 1);
        let place = bulkhead.try_enter().unwrap();
        assert!(bulkhead.try_enter().is_none());
        let mut waits = seat(&bulkhead);
        assert!(poll(&mut waits).is_pending());
        let refused = poll(&mut seat(&bulkhead));
        assert!(matches!(refused, Poll::Ready(Err(NoPlace::Overloaded))));
        assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (1, 1));
        drop(place);
        assert!(bulkhead.try_enter().is_none(), "who waited comes first");
        assert!(matches!(poll(&mut waits), Poll::Ready(Ok(_))));
        assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
    }

    #[test]
    fn call_6_who_leaves_the_queue_leaves_nothing_behind() {
        let bulkhead = bulkhead(1, 2);
        let place = bulkhead.try_enter().unwrap();
        let (mut first, mut second) = (seat(&bulkhead), seat(&bulkhead));
        assert!(poll(&mut first).is_pending());
        assert!(poll(&mut second).is_pending());
        drop(first);
        drop(place);
        // The place is the second one's now; it goes before it looked.
        drop(second);
        assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
        assert!(bulkhead.try_enter().is_some());
    }
}
