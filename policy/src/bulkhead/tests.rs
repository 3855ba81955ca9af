use std::num::NonZeroU32;

use super::*;

fn settings(max_concurrent: u32, max_queue: u32) -> BulkheadSettings {
    BulkheadSettings {
        max_concurrent: NonZeroU32::new(max_concurrent).unwrap(),
        max_queue,
        ..BulkheadSettings::default()
    }
}

#[test]
fn call_6_two_run_one_waits_and_seven_are_refused() {
    let mut bulkhead = Bulkhead::new(&settings(2, 1));
    let admissions: Vec<_> = (0..10).map(|_| bulkhead.admit()).collect();
    let count = |wanted| admissions.iter().filter(|&&got| got == wanted).count();
    assert_eq!(count(Admission::Run), 2);
    assert_eq!(count(Admission::Queue), 1);
    assert_eq!(count(Admission::Full), 7);
}

#[test]
fn call_6_a_place_goes_to_who_waits_and_nobody_overtakes() {
    let mut bulkhead = Bulkhead::new(&settings(1, 2));
    assert_eq!(bulkhead.admit(), Admission::Run);
    assert_eq!(bulkhead.admit(), Admission::Queue);
    assert!(bulkhead.finish());
    assert_eq!((bulkhead.running(), bulkhead.queued()), (1, 0));
    assert_eq!(bulkhead.admit(), Admission::Queue);
    bulkhead.leave_queue();
    assert!(!bulkhead.finish());
    assert_eq!((bulkhead.running(), bulkhead.queued()), (0, 0));
}

#[test]
fn cfg_2_new_bounds_keep_places_and_let_waiting_calls_in() {
    let mut bulkhead = Bulkhead::new(&settings(1, 2));
    for _ in 0..3 {
        let _ = bulkhead.admit();
    }
    assert_eq!(bulkhead.resize(&settings(2, 0)), 1);
    assert_eq!((bulkhead.running(), bulkhead.queued()), (2, 1));
    assert_eq!(bulkhead.resize(&settings(1, 0)), 0);
    assert!(!bulkhead.finish(), "one too many ran");
    assert!(bulkhead.finish());
    assert_eq!(bulkhead.admit(), Admission::Full);
}

#[test]
fn a_partition_uses_what_is_idle_but_never_a_guaranteed_share() {
    let mut partitions = Partitions::new(10, &[Rate::new(0.3).unwrap(), Rate::new(0.7).unwrap()]);
    assert_eq!((0..11).filter(|_| partitions.acquire(0)).count(), 10);
    assert_eq!((0..8).filter(|_| partitions.acquire(1)).count(), 7);
    assert_eq!(partitions.total(), 17);
    partitions.release(1);
    assert!(partitions.acquire(1));
    assert!(!partitions.acquire(2), "no such partition");
}

fn ticket(priority: Priority, write: bool) -> Ticket {
    Ticket { priority, write }
}

#[test]
fn call_6_the_highest_priority_is_next_and_within_it_the_longest_wait() {
    let mut line = WaitQueue::new();
    let asked = [
        (Priority::Normal, "b"),
        (Priority::Low, "d"),
        (Priority::High, "a"),
        (Priority::Normal, "c"),
    ];
    for (priority, who) in asked {
        line.join(ticket(priority, false), who);
    }
    let served: Vec<_> = std::iter::from_fn(|| line.take_next(true)).collect();
    let names: Vec<_> = served.iter().map(|(_, who)| *who).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
}

#[test]
fn call_6_the_youngest_of_the_lowest_makes_room_for_a_higher_one_alone() {
    let mut line = WaitQueue::new();
    line.join(ticket(Priority::Low, false), "old low");
    line.join(ticket(Priority::Low, true), "young low");
    line.join(ticket(Priority::Normal, false), "normal");
    let mut shed = |newcomer| line.shed_for(newcomer).map(|(_, who)| who);
    assert_eq!(shed(Priority::Low), None);
    assert_eq!(shed(Priority::Normal), Some("young low"));
    assert_eq!(shed(Priority::High), Some("old low"));
    assert_eq!(shed(Priority::Normal), None);
    assert_eq!(shed(Priority::High), Some("normal"));
    assert_eq!(shed(Priority::High), None);
}

#[test]
fn lim_3_a_write_that_may_not_run_lets_reads_by_and_keeps_its_turn() {
    let mut line = WaitQueue::new();
    let write = line.join(ticket(Priority::Normal, true), "write");
    line.join(ticket(Priority::Normal, false), "read");
    line.join(ticket(Priority::Normal, false), "later read");
    let first = line.take_next(false).unwrap();
    assert_eq!((first.0.ticket().write, first.1), (false, "read"));
    assert_eq!(line.take_next(true), Some((write, "write")));
    assert!(line.get_mut(write).is_none() && line.leave(write).is_none());
    assert!(line.take_next(false).is_some());
    assert!(line.take_next(true).is_none());
}
