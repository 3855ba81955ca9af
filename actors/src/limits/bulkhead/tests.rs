//! The bulkhead itself: without a runtime, and on threads.

mod model;

mod threads;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use breakerbox_policy::{AdaptiveRule, AdaptiveSettings, Priority, Rate};

use super::counts::PackedCounts;
use super::waiter::Waiter;
use super::*;

const READ: Ticket = Ticket {
    priority: Priority::Normal,
    write: false,
};

const WRITE: Ticket = Ticket {
    priority: Priority::Normal,
    write: true,
};

fn ticket(priority: Priority) -> Ticket {
    Ticket { priority, ..READ }
}

fn settings(places: u32, max_queue: u32) -> BulkheadSettings {
    BulkheadSettings {
        max_concurrent: places.try_into().unwrap(),
        max_queue,
        ..BulkheadSettings::default()
    }
}

fn with_writes(places: u32, writes: u32, max_queue: u32) -> BulkheadSettings {
    BulkheadSettings {
        max_concurrent_writes: Some(writes.try_into().unwrap()),
        ..settings(places, max_queue)
    }
}

fn enter(bulkhead: &Bulkhead, ticket: Ticket) -> Option<BulkheadSlot<'_>> {
    bulkhead.try_enter(ticket, Time::ZERO)
}

type Seated<'a> = Pin<Box<Waiter<'a>>>;

fn poll<'a>(seat: &mut Seated<'a>) -> Poll<Result<BulkheadSlot<'a>, NoSlot>> {
    seat.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A waiter that has to wait.
fn waiting(bulkhead: &Bulkhead, ticket: Ticket) -> Seated<'_> {
    let mut seat = Box::pin(bulkhead.pool.wait(ticket));
    assert!(poll(&mut seat).is_pending());
    seat
}

fn has_place<'a>(seat: &mut Seated<'a>) -> Option<BulkheadSlot<'a>> {
    match poll(seat) {
        Poll::Ready(Ok(place)) => Some(place),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

fn is_refused(seat: &mut Seated<'_>) -> bool {
    matches!(poll(seat), Poll::Ready(Err(NoSlot::Overloaded(_))))
}

#[test]
fn call_6_places_and_seats_are_bounded_exactly() {
    let bulkhead = Bulkhead::new(&settings(1, 1));
    let place = enter(&bulkhead, READ).unwrap();
    assert!(enter(&bulkhead, READ).is_none());
    let mut waits = waiting(&bulkhead, READ);
    assert!(is_refused(&mut Box::pin(bulkhead.pool.wait(READ))));
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (1, 1));
    drop(place);
    assert!(enter(&bulkhead, READ).is_none(), "the waiter comes first");
    assert!(has_place(&mut waits).is_some());
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
}

#[test]
fn call_6_who_leaves_the_queue_leaves_nothing_behind() {
    let bulkhead = Bulkhead::new(&settings(1, 2));
    let place = enter(&bulkhead, READ).unwrap();
    let first = waiting(&bulkhead, READ);
    let second = waiting(&bulkhead, READ);
    drop(first);
    drop(place);
    // The slot now belongs to the second waiter, which is dropped before it is polled.
    drop(second);
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
    assert!(enter(&bulkhead, READ).is_some());
}

#[test]
fn call_6_a_place_that_nobody_looked_at_goes_to_the_next() {
    let bulkhead = Bulkhead::new(&with_writes(2, 1, 2));
    let place = enter(&bulkhead, WRITE).unwrap();
    let first = waiting(&bulkhead, WRITE);
    let mut second = waiting(&bulkhead, WRITE);
    drop(place);
    drop(first);
    let place = has_place(&mut second).unwrap();
    assert_eq!((bulkhead.in_flight(), bulkhead.writes()), (1, 1));
    // Another owner gives it back, once.
    let ticket = place.into_ticket();
    assert_eq!((bulkhead.in_flight(), bulkhead.writes()), (1, 1));
    bulkhead.release(ticket);
    assert_eq!((bulkhead.in_flight(), bulkhead.writes()), (0, 0));
}

#[test]
fn call_6_nobody_slips_in_while_a_place_goes_to_the_next() {
    let bulkhead = Bulkhead::new(&settings(1, 2));
    let place = enter(&bulkhead, READ).unwrap();
    let mut next = waiting(&bulkhead, READ);
    // The middle of a `release`.
    let mut queue = bulkhead.pool.lock();
    let ticket = place.into_ticket();
    bulkhead.pool.change(|word| Some(word.release(ticket)));
    // No slot may be dropped here: returning it takes the lock.
    let slipped_in = enter(&bulkhead, READ).map(BulkheadSlot::into_ticket);
    assert_eq!(slipped_in, None);
    assert!(bulkhead.pool.admit_next(&mut queue).is_some());
    drop(queue);
    assert!(has_place(&mut next).is_some());
}

#[test]
fn call_6_the_youngest_of_the_lowest_makes_room_for_a_higher_priority() {
    let bulkhead = Bulkhead::new(&settings(1, 3));
    let place = enter(&bulkhead, READ).unwrap();
    let mut old = waiting(&bulkhead, ticket(Priority::Low));
    let mut young = waiting(&bulkhead, ticket(Priority::Low));
    let mut normal = waiting(&bulkhead, READ);
    let refused = |priority| is_refused(&mut Box::pin(bulkhead.pool.wait(ticket(priority))));
    assert!(refused(Priority::Low), "no waiter has a lower priority");
    let mut high = waiting(&bulkhead, ticket(Priority::High));
    assert!(is_refused(&mut young), "at once");
    let unseen = waiting(&bulkhead, READ);
    assert!(refused(Priority::Normal), "no lower waiter is left");
    assert!(is_refused(&mut old));
    assert_eq!(bulkhead.queued(), 3);
    drop(place);
    let place = has_place(&mut high).unwrap();
    drop(place);
    assert!(has_place(&mut normal).is_some());
    drop(unseen);
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
}

#[test]
fn call_6_who_is_shed_and_goes_before_it_looked_takes_nothing_along() {
    let bulkhead = Bulkhead::new(&settings(1, 1));
    let place = enter(&bulkhead, READ).unwrap();
    let low = waiting(&bulkhead, ticket(Priority::Low));
    let high = waiting(&bulkhead, ticket(Priority::High));
    drop(low);
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (1, 1));
    assert!(bulkhead.pool.lock().shed.is_empty());
    drop((high, place));
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
}

/// Number of slots counted as taken, including cached ones.
fn taken(bulkhead: &Bulkhead) -> u32 {
    bulkhead.pool.read().running()
}

#[test]
fn call_6_a_thread_keeps_one_place_for_its_next_call() {
    let bulkhead = Bulkhead::new(&settings(3, 1));
    let places = [(); 3].map(|()| enter(&bulkhead, READ).unwrap());
    drop(places);
    assert_eq!((bulkhead.in_flight(), taken(&bulkhead)), (0, 1));
    let place = enter(&bulkhead, READ).unwrap();
    assert_eq!((bulkhead.in_flight(), taken(&bulkhead)), (1, 1));
    let others = [(); 2].map(|()| enter(&bulkhead, READ).unwrap());
    assert!(enter(&bulkhead, READ).is_none(), "the bound is the bound");
    drop((place, others));
    bulkhead.pool.reclaim();
    assert_eq!((bulkhead.in_flight(), taken(&bulkhead)), (0, 0));
}

#[test]
fn call_6_a_place_that_a_thread_keeps_is_whosever_needs_it() {
    let bulkhead = &Bulkhead::new(&settings(1, 1));
    let keep = || {
        drop(enter(bulkhead, READ).unwrap());
        assert_eq!((bulkhead.in_flight(), taken(bulkhead)), (0, 1));
    };
    let elsewhere = |seated: bool, ticket| {
        std::thread::scope(|scope| {
            let newcomer = scope.spawn(move || {
                let place = if seated {
                    has_place(&mut Box::pin(bulkhead.pool.wait(ticket)))
                } else {
                    enter(bulkhead, ticket)
                };
                // The slot is not cached by this thread as well.
                place.map(BulkheadSlot::into_ticket)
            });
            newcomer.join().unwrap()
        })
    };
    for (seated, ticket) in [(false, READ), (true, READ), (false, WRITE), (true, WRITE)] {
        keep();
        let ticket = elsewhere(seated, ticket).expect("a place");
        assert!(enter(bulkhead, READ).is_none());
        bulkhead.release(ticket);
        bulkhead.pool.reclaim();
    }
    keep();
    drop(enter(bulkhead, WRITE).expect("on its own thread too"));
    assert_eq!(taken(bulkhead), 0, "a write's is not kept");
}

#[test]
fn call_6_who_sits_down_while_a_place_is_being_put_away_gets_it() {
    let bulkhead = Bulkhead::new(&settings(1, 1));
    let place = enter(&bulkhead, READ).unwrap();
    let mut waits = waiting(&bulkhead, READ);
    // As if the waiter had queued after the first check and before the slot was cached.
    assert!(bulkhead.pool.cache.put());
    assert!(
        !bulkhead.pool.stays_cached(),
        "it is still to be given back"
    );
    bulkhead.pool.give_back(place.into_ticket());
    let place = has_place(&mut waits).unwrap();
    let mut waits = waiting(&bulkhead, READ);
    assert!(bulkhead.pool.cache.put());
    let _given_back_for_us = place.into_ticket();
    assert!(bulkhead.pool.reclaim());
    assert!(
        bulkhead.pool.stays_cached(),
        "another thread has given it back"
    );
    assert!(has_place(&mut waits).is_some());
}

#[test]
fn call_6_no_place_is_kept_while_anybody_waits_or_too_many_are_taken() {
    let bulkhead = Bulkhead::new(&settings(2, 1));
    let (one, other) = (
        enter(&bulkhead, READ).unwrap(),
        enter(&bulkhead, READ).unwrap(),
    );
    let mut waits = waiting(&bulkhead, READ);
    drop(one);
    let one = has_place(&mut waits).expect("the waiter gets it");
    bulkhead.resize(&settings(1, 1));
    drop(one);
    assert_eq!((bulkhead.in_flight(), taken(&bulkhead)), (1, 1));
    drop(other);
    assert_eq!((bulkhead.in_flight(), taken(&bulkhead)), (0, 1), "kept");
    // The middle of a change to a lower limit: the cached slot exceeds it when it is used.
    bulkhead.pool.limit.store(0, Ordering::Release);
    assert!(enter(&bulkhead, READ).is_none());
    assert_eq!(taken(&bulkhead), 0);
    bulkhead.resize(&settings(2, 1));
    drop(enter(&bulkhead, READ).unwrap());
    bulkhead.resize(&settings(1, 1));
    assert_eq!(taken(&bulkhead), 0, "new bounds reclaim cached slots");
}

#[test]
fn lim_3_writes_have_places_of_their_own_and_hold_no_read_up() {
    let bulkhead = Bulkhead::new(&with_writes(3, 1, 4));
    let write = enter(&bulkhead, WRITE).unwrap();
    let mut second = waiting(&bulkhead, WRITE);
    // With a waiter in the queue the fast path is closed; a slot is free all the same.
    let mut read = Box::pin(bulkhead.pool.wait(READ));
    let first_read = has_place(&mut read).unwrap();
    let mut read = Box::pin(bulkhead.pool.wait(READ));
    let second_read = has_place(&mut read).unwrap();
    let mut third_read = waiting(&bulkhead, READ);
    drop(first_read);
    let third_read = has_place(&mut third_read).unwrap();
    let mut fourth_read = waiting(&bulkhead, READ);
    drop(write);
    assert!(poll(&mut fourth_read).is_pending(), "the write was first");
    assert_eq!((bulkhead.in_flight(), bulkhead.writes()), (3, 1));
    drop(has_place(&mut second).unwrap());
    drop((
        second_read,
        third_read,
        has_place(&mut fourth_read).unwrap(),
    ));
    assert_eq!((bulkhead.in_flight(), bulkhead.writes()), (0, 0));
}

#[test]
fn lim_3_without_a_limit_of_their_own_writes_take_every_place() {
    let bulkhead = Bulkhead::new(&settings(3, 0));
    let places: Vec<_> = (0..3).map(|_| enter(&bulkhead, WRITE)).collect();
    assert!(places.iter().all(Option::is_some));
    assert_eq!((bulkhead.in_flight(), bulkhead.writes()), (3, 3));
}

#[test]
fn cfg_2_new_bounds_take_nothing_away_and_let_in_who_fits() {
    let bulkhead = Bulkhead::new(&with_writes(2, 1, 3));
    let place = enter(&bulkhead, WRITE).unwrap();
    let other = enter(&bulkhead, READ).unwrap();
    let mut write = waiting(&bulkhead, WRITE);
    let mut read = waiting(&bulkhead, READ);
    let mut late = waiting(&bulkhead, READ);
    bulkhead.resize(&with_writes(1, 1, 1));
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (2, 3));
    drop(other);
    assert!(poll(&mut read).is_pending(), "one too many ran");
    bulkhead.resize(&with_writes(2, 1, 1));
    let read = has_place(&mut read).unwrap();
    bulkhead.resize(&with_writes(3, 2, 1));
    let write = has_place(&mut write).unwrap();
    assert_eq!((bulkhead.writes(), bulkhead.max_concurrent()), (2, 3));
    assert_eq!((bulkhead.queued(), bulkhead.max_queue()), (1, 1));
    assert!(is_refused(&mut Box::pin(bulkhead.pool.wait(READ))));
    drop((place, read, write));
    assert!(has_place(&mut late).is_some());
}

#[test]
fn call_6_without_a_bound_there_is_still_the_most_that_can_be_counted() {
    let bulkhead = Bulkhead::new(&settings(u32::MAX, u32::MAX));
    assert_eq!(bulkhead.max_concurrent(), MOST);
    assert_eq!(bulkhead.max_queue(), MOST);
    let full =
        |count: u32| (0..count).fold(PackedCounts(0), |word, _| word.enter(WRITE).add_waiter());
    let word = full(MOST);
    assert_eq!(
        (word.running(), word.writes(), word.waiting()),
        (MOST, MOST, MOST)
    );
}

fn adaptive(rule: AdaptiveRule) -> BulkheadSettings {
    BulkheadSettings {
        adaptive: Some(AdaptiveSettings {
            rule,
            min: 1.try_into().unwrap(),
            initial: 4.try_into().unwrap(),
            idle: Duration::from_secs(30),
        }),
        ..settings(6, 8)
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn an_adaptive_limit_falls_under_failures_and_grows_to_the_cap_and_no_further() {
    let half = Rate::new(0.5).unwrap();
    for rule in [
        AdaptiveRule::Aimd { backoff: half },
        AdaptiveRule::Gradient { tolerance: 1.5 },
    ] {
        let bulkhead = Bulkhead::new(&adaptive(rule));
        assert_eq!(bulkhead.limit(Time::ZERO), 4, "{rule:?}");
        let places: Vec<_> = (0..4).map(|_| enter(&bulkhead, READ).unwrap()).collect();
        assert!(enter(&bulkhead, READ).is_none());
        let mut seats: Vec<_> = (0..4).map(|_| waiting(&bulkhead, READ)).collect();
        for class in [Class::Rejected, Class::Misconfigured, Class::Cancelled] {
            bulkhead.sample(Time::ZERO, MS, class);
            assert_eq!(bulkhead.limit(Time::ZERO), 4, "{rule:?}: {class:?}");
        }
        for _ in 0..100 {
            bulkhead.sample(Time::ZERO, MS, Class::Success);
        }
        assert_eq!(bulkhead.limit(Time::ZERO), 6, "{rule:?}");
        assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (6, 2));
        let more: Vec<_> = seats
            .drain(..2)
            .map(|mut seat| has_place(&mut seat))
            .collect();
        assert!(more.iter().all(Option::is_some), "those that fit run");
        for class in [Class::Failure, Class::Throttled].repeat(50) {
            bulkhead.sample(Time::ZERO, MS, class);
        }
        assert_eq!(bulkhead.limit(Time::ZERO), 1, "{rule:?}");
        drop(places);
        assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (2, 2));
        drop(more);
        assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (1, 1));
        drop(seats);
        assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
        for _ in 0..20 {
            drop(enter(&bulkhead, READ).unwrap());
            bulkhead.sample(Time::ZERO, MS, Class::Success);
        }
        assert_eq!(bulkhead.limit(Time::ZERO), 3, "one call is less than half");
    }
}

#[test]
fn an_idle_adaptive_limit_is_asked_before_the_next_call_enters() {
    let half = Rate::new(0.5).unwrap();
    let bulkhead = Bulkhead::new(&adaptive(AdaptiveRule::Aimd { backoff: half }));
    for _ in 0..10 {
        bulkhead.sample(Time::ZERO, MS, Class::Failure);
    }
    let later = Time::from_millis(3_600_000);
    let places: Vec<_> = (0..5).map(|_| bulkhead.try_enter(READ, later)).collect();
    assert_eq!(places.iter().flatten().count(), 4, "as in the beginning");
}

#[test]
fn cfg_2_an_adaptive_limit_comes_and_goes_and_keeps_what_it_learnt() {
    let adaptive = adaptive(AdaptiveRule::Aimd {
        backoff: Rate::new(0.5).unwrap(),
    });
    let limit = |bulkhead: &Bulkhead| bulkhead.limit(Time::ZERO);
    let bulkhead = Bulkhead::new(&settings(6, 8));
    bulkhead.sample(Time::ZERO, MS, Class::Failure);
    assert_eq!(limit(&bulkhead), 6, "it is not adaptive");
    bulkhead.resize(&adaptive);
    assert_eq!(limit(&bulkhead), 4);
    bulkhead.sample(Time::ZERO, MS, Class::Failure);
    bulkhead.resize(&adaptive);
    assert_eq!(limit(&bulkhead), 2);
    bulkhead.resize(&settings(6, 8));
    assert_eq!(limit(&bulkhead), 6);
}
