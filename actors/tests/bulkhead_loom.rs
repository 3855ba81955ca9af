//! Loom runs the interleavings of a bulkhead's slots: threads that cache returned slots, calls that
//! wait for one, and new bounds meanwhile.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use breakerbox_policy::{Priority, Ticket};
use loom::sync::Notify;
use loom::sync::atomic::AtomicU32;
use loom::thread;

use bulkhead::slot_pool::{BulkheadSlot, SlotBounds, SlotPool};
use sync::Ordering;

mod sync {
    use std::cell::Cell;
    use std::ops::Deref;

    use loom::sync::atomic;

    pub(crate) use loom::sync::atomic::Ordering;
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// Declares an atomic that stores its initial value with SeqCst. Loom lets a SeqCst load return
    /// an initial value after later SeqCst stores, which the memory model forbids (loom issue 180).
    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug)]
            pub(crate) struct $name(atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    let atomic = atomic::$name::new(value);
                    atomic.store(value, Ordering::SeqCst);
                    Self(atomic)
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new(<$value>::default())
                }
            }

            impl Deref for $name {
                type Target = atomic::$name;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);

    pub(crate) trait LockExt<T> {
        fn acquire(&self) -> MutexGuard<'_, T>;
    }

    impl<T> LockExt<T> for Mutex<T> {
        fn acquire(&self) -> MutexGuard<'_, T> {
            self.lock().unwrap()
        }
    }

    pub(crate) const THREAD_INDEXES: usize = 2;

    loom::thread_local! {
        static THREAD_INDEX: Cell<usize> = Cell::new(0);
    }

    pub(crate) fn thread_index() -> usize {
        THREAD_INDEX.with(Cell::get)
    }

    pub(crate) fn set_thread_index(index: usize) {
        THREAD_INDEX.with(|own| own.set(index));
    }
}

#[path = "../src/limits/bulkhead"]
#[allow(
    dead_code,
    reason = "the rest of the modules is used by the package itself"
)]
mod bulkhead {
    mod counts;

    mod slot_cache;

    pub(crate) mod slot_pool;

    mod waiter;
}

const READ: Ticket = Ticket {
    priority: Priority::Normal,
    write: false,
};

const WRITE: Ticket = Ticket {
    priority: Priority::Normal,
    write: true,
};

/// A pool, and the number of calls that hold one of its slots.
struct Calls {
    pool: SlotPool,
    inside: AtomicU32,
}

impl Calls {
    fn new(limit: u32) -> Arc<Self> {
        let calls = Arc::new(Self {
            pool: SlotPool::new(),
            inside: AtomicU32::new(0),
        });
        calls.resize(limit);
        calls
    }

    fn resize(&self, limit: u32) {
        let admitted = self.pool.resize(SlotBounds {
            limit,
            max_writes: limit,
            max_queue: 2,
        });
        self.pool.finish_resize(admitted);
    }

    /// Waits for a slot. Loom reports a deadlock if no thread wakes this one.
    fn wait(&self, ticket: Ticket) -> BulkheadSlot<'_> {
        self.wait_and(ticket, || ())
    }

    /// Waits for a slot; runs `on_pending` each time it must wait.
    fn wait_and(&self, ticket: Ticket, on_pending: impl Fn()) -> BulkheadSlot<'_> {
        let unblock = Arc::new(Unblock(Notify::new()));
        let waker = Waker::from(Arc::clone(&unblock));
        // Not dropped by a panic: its destructor would panic too, which aborts the process.
        let mut waiter = ManuallyDrop::new(Box::pin(self.pool.wait(ticket)));
        loop {
            match waiter.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(slot) => {
                    drop(ManuallyDrop::into_inner(waiter));
                    return slot.unwrap();
                }
                Poll::Pending => {
                    on_pending();
                    unblock.0.wait();
                }
            }
        }
    }

    fn enter(&self, ticket: Ticket) -> BulkheadSlot<'_> {
        let slot = self.pool.try_enter(ticket);
        slot.unwrap_or_else(|| self.wait(ticket))
    }

    /// Holds a slot for a moment, and gives it back.
    fn hold(&self, slot: BulkheadSlot<'_>, limit: u32) {
        let others = self.inside.fetch_add(1, Ordering::Relaxed);
        assert!(others < limit, "too many calls at once");
        self.inside.fetch_sub(1, Ordering::Relaxed);
        drop(slot);
    }

    /// Checks the counts after all calls have left.
    fn assert_empty(&self, limit: u32) {
        assert_eq!(self.pool.in_flight(), 0);
        let slots: Vec<_> = (0..limit)
            .map_while(|_| self.pool.try_enter(READ))
            .collect();
        assert_eq!(slots.len(), usize::try_from(limit).unwrap(), "every slot");
        assert!(self.pool.try_enter(READ).is_none(), "no slot above them");
        drop(slots);
        self.pool.reclaim();
        assert_eq!(self.pool.counts(), (0, 0));
    }
}

struct Unblock(Notify);

impl Wake for Unblock {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Runs `body` with every interleaving of at most this many preemptions.
fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// Runs `other` on a thread with this cache entry.
fn spawn(
    calls: &Arc<Calls>,
    index: usize,
    other: impl FnOnce(&Calls) + Send + 'static,
) -> thread::JoinHandle<()> {
    let calls = Arc::clone(calls);
    thread::spawn(move || {
        sync::set_thread_index(index);
        other(&calls);
    })
}

#[test]
fn call_6_a_caller_gets_the_slot_that_another_thread_holds_or_caches() {
    // The threads have a cache entry each, or share one.
    for index in [1, 0] {
        model(4, move || {
            let calls = Calls::new(1);
            let other = spawn(&calls, index, |calls| {
                for _ in 0..2 {
                    calls.hold(calls.enter(READ), 1);
                }
            });
            calls.hold(calls.enter(READ), 1);
            other.join().unwrap();
            calls.assert_empty(1);
        });
    }
}

#[test]
fn call_6_a_waiter_gets_the_slot_that_is_being_cached() {
    for (index, ticket) in [(1, READ), (0, READ), (1, WRITE)] {
        model(4, move || {
            let calls = Calls::new(1);
            let slot = calls.enter(READ);
            let other = spawn(&calls, index, move |calls| {
                calls.hold(calls.wait(ticket), 1);
            });
            calls.hold(slot, 1);
            other.join().unwrap();
            calls.assert_empty(1);
        });
    }
}

#[test]
fn call_6_a_waiter_that_goes_takes_no_slot_along() {
    model(4, || {
        let calls = Calls::new(1);
        let slot = calls.enter(READ);
        let other = spawn(&calls, 1, |calls| {
            let mut waiter = Box::pin(calls.pool.wait(READ));
            let polled = waiter
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            drop(waiter);
            if let Poll::Ready(slot) = polled {
                calls.hold(slot.unwrap(), 1);
            }
        });
        calls.hold(slot, 1);
        other.join().unwrap();
        calls.assert_empty(1);
    });
}

#[test]
fn call_6_a_lower_limit_holds_for_cached_slots_too() {
    model(4, || {
        let calls = Calls::new(2);
        let held = calls.enter(READ);
        let is_lower = Arc::new(sync::AtomicBool::new(false));
        let other = spawn(&calls, 1, {
            let is_lower = Arc::clone(&is_lower);
            move |calls| {
                if let Some(slot) = calls.pool.try_enter(READ) {
                    calls.hold(slot, 2);
                }
                let is_lower = is_lower.load(Ordering::Acquire);
                let slot = calls.pool.try_enter(READ);
                assert!(!is_lower || slot.is_none(), "the other thread holds one");
            }
        });
        calls.resize(1);
        is_lower.store(true, Ordering::Release);
        other.join().unwrap();
        assert_eq!(calls.pool.counts(), (1, 0), "no slot is cached above it");
        assert!(calls.pool.try_enter(READ).is_none());
        drop(held);
        calls.assert_empty(1);
    });
}

#[test]
fn call_6_a_waiter_gets_the_last_slot_of_a_lower_limit() {
    model(4, || {
        let calls = Calls::new(2);
        let held = calls.enter(READ);
        let other = spawn(&calls, 1, |calls| {
            for _ in 0..2 {
                calls.hold(calls.enter(READ), 2);
            }
        });
        calls.resize(1);
        calls.hold(held, 2);
        other.join().unwrap();
        calls.assert_empty(1);
    });
}

#[test]
fn call_6_a_waiter_gets_the_slot_of_a_higher_limit() {
    model(4, || {
        let calls = Calls::new(0);
        let other = spawn(&calls, 1, |calls| calls.hold(calls.enter(READ), 1));
        calls.resize(1);
        other.join().unwrap();
        calls.assert_empty(1);
    });
}

#[test]
fn call_6_two_threads_with_one_cache_entry_lose_no_slot() {
    model(4, || {
        let calls = Calls::new(2);
        let other = spawn(&calls, 0, |calls| {
            for _ in 0..2 {
                calls.hold(calls.enter(READ), 2);
            }
        });
        calls.hold(calls.enter(READ), 2);
        other.join().unwrap();
        calls.assert_empty(2);
    });
}

#[test]
fn call_6_a_newcomer_does_not_overtake_a_waiter() {
    // The newcomer shares its cache entry with the thread that gives the slot back, or with none.
    for index in [0, 1] {
        model(2, move || {
            let calls = Calls::new(1);
            let slot = calls.enter(READ);
            let is_waiting = Arc::new(sync::AtomicBool::new(false));
            let waiter = spawn(&calls, 1, {
                let is_waiting = Arc::clone(&is_waiting);
                move |calls| {
                    let tell = || is_waiting.store(true, Ordering::Release);
                    calls.hold(calls.wait_and(READ, tell), 1);
                }
            });
            let newcomer = spawn(&calls, index, move |calls| {
                let is_waiting = is_waiting.load(Ordering::Acquire);
                let slot = calls.pool.try_enter(READ).or_else(|| {
                    let mut waiter = Box::pin(calls.pool.wait(READ));
                    let mut cx = Context::from_waker(Waker::noop());
                    match waiter.as_mut().poll(&mut cx) {
                        Poll::Ready(slot) => Some(slot.unwrap()),
                        Poll::Pending => None,
                    }
                });
                if let Some(slot) = slot {
                    let (_, waiters) = calls.pool.counts();
                    assert!(!is_waiting || waiters == 0, "the waiter was first");
                    calls.hold(slot, 1);
                }
            });
            calls.hold(slot, 1);
            waiter.join().unwrap();
            newcomer.join().unwrap();
            calls.assert_empty(1);
        });
    }
}
