//! How many calls may be at a dependency at once, and how many may wait.
//!
//! The bound in front of every queue of the runtime (rule CALL-6). A free place is taken and
//! given back with one atomic operation, and kept by the thread for its next call where nobody
//! waits ([`kept`]); only where calls wait is there a lock, and a place that is given back then goes
//! straight to the one whose turn it is.
//!
//! While the lock is free, nobody waits for whom the count has a place: whoever makes room, by leaving or by a
//! higher limit, seats the next ones before letting the lock go. Counts of a queue that is not
//! empty, and the limits, change under the lock alone.

mod kept;

mod seat;

mod word;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use breakerbox_policy::{
    AdaptiveLimit, BulkheadSettings, Class, Line, Priority, Ticket, Time, Turn,
};
use crossbeam_utils::CachePadded;

use crate::clock::Clock;
use kept::Kept;
use seat::Seat;
use word::{MOST, Word};

/// Places, and a bounded queue for them: by priority, then first come first served.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    /// A [`Word`]. Calls write it, and read what would stand beside it.
    word: CachePadded<AtomicU64>,
    /// Places that count as taken though no call holds them.
    kept: Kept,
    /// Calls that may run now: `max_concurrent`, or less where the limit is adaptive.
    limit: AtomicU32,
    max_writes: AtomicU32,
    max_concurrent: AtomicU32,
    max_queue: AtomicU32,
    /// In nanoseconds.
    max_wait: AtomicU64,
    queue: Mutex<Queue>,
    /// Whether `adaptive` holds one, for those who would lock it in vain.
    is_adaptive: AtomicBool,
    adaptive: Mutex<Option<AdaptiveLimit>>,
}

#[derive(Debug, Default)]
struct Queue {
    line: Line<Waker>,
    /// Those who made room for others, and have not looked since.
    shed: BTreeSet<Turn>,
}

/// Why there was no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The queue is full, the seat went to a call that matters more, or `max_wait` is over.
    Overloaded,
    /// The call's own deadline came first.
    Deadline,
}

/// Whose the places are that threads keep.
const KEPT: Ticket = Ticket {
    priority: Priority::Normal,
    write: false,
};

/// What a newcomer gets.
#[derive(Debug, Clone, Copy)]
enum Step {
    Place,
    Seat,
    Nothing,
}

impl Bulkhead {
    pub(crate) fn new(settings: &BulkheadSettings) -> Self {
        let bulkhead = Self {
            word: CachePadded::default(),
            kept: Kept::default(),
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

    /// Changes the bounds. Who has a place or a seat keeps it, and who fits now gets a place.
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
        self.call_in();
    }

    /// Takes a place if one is free and nobody waits.
    #[inline(always)]
    pub(crate) fn try_enter(&self, ticket: Ticket, now: Time) -> Option<Place<'_>> {
        self.adapt(|limit| limit.limit(now));
        let has_place = self.take_kept(ticket)
            || self.take_free(ticket)
            || (self.call_in() && self.take_free(ticket));
        has_place.then(|| Place {
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

    /// Takes the place that this thread kept, if it may still be used.
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

    /// Keeps a place for this thread's next call, where nobody is in need of it.
    #[inline(always)]
    fn keep(&self, ticket: Ticket) -> bool {
        let may_keep = !ticket.write && self.kept.has_room() && self.is_calm();
        may_keep && self.kept.put() && self.stays_kept()
    }

    /// Whether a place is this thread's affair no more that it has just put away. Whoever sat down
    /// meanwhile is either seen here, or has seen the place and called it in.
    #[inline(always)]
    fn stays_kept(&self) -> bool {
        self.is_calm() || !self.kept.take()
    }

    /// Whether nobody waits, and no more places are taken than there are.
    #[inline(always)]
    fn is_calm(&self) -> bool {
        let word = Word(self.word.load(Ordering::SeqCst));
        word.waiting() == 0 && word.running() <= self.limit.load(Ordering::SeqCst)
    }

    /// Gives all places back that threads keep; false when there were none.
    fn call_in(&self) -> bool {
        // One by one: what is on its way is in no locker, and still taken.
        let given_back = self.kept.take_each(|| self.give_back(KEPT));
        given_back > 0
    }

    /// Waits for a place.
    ///
    /// # Cancel safety   Dropped while it waits, it leaves the queue.
    pub(crate) async fn enter(
        &self,
        clock: &Clock,
        deadline: Option<Time>,
        ticket: Ticket,
    ) -> Result<Place<'_>, NoPlace> {
        let max_wait = Duration::from_nanos(self.max_wait.load(Ordering::Acquire));
        let patience = clock.now().after(max_wait);
        let (until, reason) = match deadline {
            Some(deadline) if deadline < patience => (deadline, NoPlace::Deadline),
            _ => (patience, NoPlace::Overloaded),
        };
        tokio::select! {
            biased;
            place = Seat::new(self, ticket) => place,
            () = clock.sleep_until(until) => Err(reason),
        }
    }

    /// Gives a place back: to whose turn it is, if anybody waits who may run.
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

    /// Tells an adaptive limit what an attempt came to. Its place has been given back by then.
    #[inline(always)]
    pub(crate) fn sample(&self, now: Time, elapsed: Duration, class: Class) {
        let dropped = match class {
            Class::Success => false,
            Class::Failure | Class::Throttled => true,
            // They say nothing about how much the dependency can take.
            Class::Rejected | Class::Misconfigured | Class::Cancelled => return,
        };
        self.adapt(|limit| limit.sample(now, self.in_flight() + 1, elapsed, dropped));
    }

    /// Calls that may run at this time.
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

    /// Calls that hold a place.
    pub(crate) fn in_flight(&self) -> u32 {
        let kept = self.kept.count();
        let word = self.read();
        // Those that were kept may have been given back meanwhile; a write's never are.
        word.running().saturating_sub(kept).max(word.writes())
    }

    /// Writes among them.
    pub(crate) fn writes(&self) -> u32 {
        self.read().writes()
    }

    /// Asks the adaptive limit, if there is one, and lets in who fits by its word.
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
        self.call_in();
    }

    /// Gives a newcomer a place, or a seat where one is free; called under the lock, under which
    /// nobody waits who could run.
    fn place_or_seat(&self, ticket: Ticket) -> Step {
        let mut step = Step::Nothing;
        self.change(|word| {
            if self.fits(word, ticket) {
                step = Step::Place;
                Some(word.enter(ticket))
            } else if word.waiting() < self.max_queue() {
                step = Step::Seat;
                Some(word.sit_down())
            } else {
                step = Step::Nothing;
                None
            }
        });
        step
    }

    /// Gives a place to whose turn it is, if there is one for it; called under the lock.
    fn seat_next(&self, queue: &mut Queue) -> Option<Waker> {
        let word = self.read();
        if word.running() >= self.limit.load(Ordering::Acquire) {
            return None;
        }
        let writes = word.writes() < self.max_writes.load(Ordering::Acquire);
        let (turn, waker) = queue.line.take_next(writes)?;
        self.change(|word| Some(word.get_up().enter(turn.ticket())));
        Some(waker)
    }

    fn seat_all(&self, queue: &mut Queue) -> Vec<Waker> {
        std::iter::from_fn(|| self.seat_next(queue)).collect()
    }

    #[inline]
    fn fits(&self, word: Word, ticket: Ticket) -> bool {
        word.running() < self.limit.load(Ordering::Acquire)
            && (!ticket.write || word.writes() < self.max_writes.load(Ordering::Acquire))
    }

    fn read(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Changes the counts, unless there is no change; says whether there was one.
    #[inline]
    fn change(&self, mut change: impl FnMut(Word) -> Option<Word>) -> bool {
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                change(Word(word)).map(|word| word.0)
            })
            .is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        locked(&self.queue)
    }
}

/// A place at the dependency; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    bulkhead: &'a Bulkhead,
    ticket: Ticket,
}

impl Place<'_> {
    /// Leaves it to somebody else to give the place back, by [`Bulkhead::leave`] with the ticket.
    pub(crate) fn hand_over(self) -> Ticket {
        let ticket = self.ticket;
        std::mem::forget(self);
        ticket
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bulkhead.leave(self.ticket);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn most() -> NonZeroU32 {
    match NonZeroU32::new(MOST) {
        Some(most) => most,
        None => NonZeroU32::MIN,
    }
}

/// Wakes outside of every lock: a waker may run anything.
fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
