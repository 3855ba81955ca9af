//! Many threads at once: the bounds hold at every moment, and no waiter is forgotten.

use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, Thread};

use super::*;

const CALLERS: u32 = 6;
const CALLS: u32 = 3_000;
const MOST_PLACES: u32 = 3;
const MOST_WRITES: u32 = 2;
const SEATS: u32 = 4;

/// Far longer than a waiter waits for its wake-up.
const FORGOTTEN: Duration = Duration::from_secs(30);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Number of running calls, counted by themselves.
#[derive(Default)]
struct Inside {
    all: AtomicU32,
    writes: AtomicU32,
}

impl Inside {
    /// Simulates work, and checks the bounds.
    fn work(&self, ticket: Ticket) {
        let all = self.all.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(all <= MOST_PLACES, "{all} at once");
        if ticket.write {
            let writes = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(writes <= MOST_WRITES, "{writes} writes at once");
        }
        thread::yield_now();
        if ticket.write {
            self.writes.fetch_sub(1, Ordering::SeqCst);
        }
        self.all.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Polls a waiter until it resolves, or gives up after so many polls.
fn wait<'a>(
    mut seat: Seated<'a>,
    mut looks: Option<u32>,
) -> Option<Result<BulkheadSlot<'a>, NoSlot>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let clock = Clock::real();
    loop {
        if let Poll::Ready(end) = seat.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(end);
        }
        match &mut looks {
            Some(0) => return None,
            Some(left) => {
                *left -= 1;
                thread::yield_now();
            }
            None => {
                let before = clock.now();
                thread::park_timeout(FORGOTTEN);
                assert!(clock.now().since(before) < FORGOTTEN, "no thread wakes it");
            }
        }
    }
}

/// Makes one thread's calls; returns how many got a slot, were refused, and gave up.
fn call(bulkhead: &Bulkhead, inside: &Inside, caller: u32) -> [u32; 3] {
    let mut random = fastrand::Rng::with_seed(caller.into());
    let mut ends = [0; 3];
    for _ in 0..CALLS {
        let priorities = [Priority::Low, Priority::Normal, Priority::High];
        let ticket = Ticket {
            priority: priorities[random.usize(..3)],
            write: random.bool(),
        };
        assert!(bulkhead.queued() <= SEATS && bulkhead.in_flight() <= MOST_PLACES);
        let looks = (random.u8(..4) == 0).then(|| random.u32(..3));
        let end = match enter(bulkhead, ticket) {
            Some(place) => Some(Ok(place)),
            None => wait(Box::pin(bulkhead.pool.wait(ticket)), looks),
        };
        match end {
            Some(Ok(place)) => {
                inside.work(ticket);
                drop(place);
                ends[0] += 1;
            }
            Some(Err(_)) => ends[1] += 1,
            None => ends[2] += 1,
        }
    }
    ends
}

#[test]
fn call_6_on_many_threads_the_bounds_hold_and_nobody_is_forgotten() {
    let high = with_writes(MOST_PLACES, MOST_WRITES, SEATS);
    let low = with_writes(1, 1, SEATS - 2);
    let bulkhead = Bulkhead::new(&high);
    let inside = Inside::default();
    let is_over = AtomicBool::new(false);
    let mut ends = [0; 3];
    thread::scope(|scope| {
        let reloads = scope.spawn(|| {
            for settings in [low, high].iter().cycle() {
                bulkhead.resize(settings);
                thread::yield_now();
                if is_over.load(Ordering::Acquire) {
                    return;
                }
            }
        });
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn({
                    let (bulkhead, inside) = (&bulkhead, &inside);
                    move || call(bulkhead, inside, caller)
                })
            })
            .collect();
        for caller in callers {
            let own = caller.join();
            is_over.fetch_or(own.is_err(), Ordering::AcqRel);
            let own = own.unwrap();
            ends = std::array::from_fn(|index| ends[index] + own[index]);
        }
        is_over.store(true, Ordering::Release);
        reloads.join().unwrap();
    });
    assert_eq!(ends.iter().sum::<u32>(), CALLS * CALLERS);
    assert!(ends.iter().all(|&count| count > 0), "{ends:?}: too tame");
    assert_eq!(bulkhead.in_flight(), 0);
    bulkhead.pool.reclaim();
    assert_eq!(bulkhead.pool.counts(), (0, 0));
    assert!(bulkhead.pool.lock().shed.is_empty());
}
