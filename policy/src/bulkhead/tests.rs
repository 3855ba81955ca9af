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
fn an_adaptive_limit_grows_while_used_and_backs_off_at_a_drop() {
    let limit = |initial, max| {
        let max = NonZeroU32::new(max).unwrap();
        AimdLimit::new(initial, NonZeroU32::MIN, max, Rate::new(0.9).unwrap())
    };
    assert_eq!(limit(20, 200).sample(10, false), 21);
    assert_eq!(limit(20, 200).sample(9, false), 20);
    assert_eq!(limit(30, 200).sample(0, true), 27);
    assert_eq!(limit(21, 21).sample(21, false), 21);
    assert_eq!(limit(1, 21).sample(1, true), 1);
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
