//! Rules LLM-19 and LLM-20, tested on the machine.

use super::*;

fn settings(rate: u64, per_secs: u64, burst: u64) -> MeterSettings {
    MeterSettings {
        rate: NonZeroU64::new(rate).unwrap(),
        per: Duration::from_secs(per_secs),
        burst: NonZeroU64::new(burst).unwrap(),
    }
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

#[test]
fn llm_19_reservations_are_taken_before_and_settled_after() {
    let mut meter = Meter::new(settings(30_000, 60, 30_000), at(0));
    let mut taken: Vec<Reservation> = (0..10)
        .map(|_| meter.try_reserve(at(0), 3_000).unwrap())
        .collect();
    assert_eq!((meter.reserved(), meter.available(at(0))), (30_000, 0));
    let refusal = meter.try_reserve(at(0), 3_000).unwrap_err();
    assert_eq!(refusal, MeterRefusal::NotBefore(Duration::from_secs(6)));
    // 500 were used of each; five seconds have refilled 2,500.
    for reservation in taken.drain(..) {
        meter.settle(at(5_000), reservation, 500);
    }
    assert_eq!((meter.reserved(), meter.available(at(5_000))), (0, 27_500));
}

#[test]
fn llm_19_a_debt_delays_later_calls() {
    let mut meter = Meter::new(settings(10, 1, 100), at(0));
    let reservation = meter.try_reserve(at(0), 50).unwrap();
    meter.settle(at(0), reservation, 200);
    assert_eq!((meter.owed(at(0)), meter.available(at(0))), (100, 0));
    let refusal = meter.try_reserve(at(0), 20).unwrap_err();
    assert_eq!(refusal, MeterRefusal::NotBefore(Duration::from_secs(12)));
    let free = meter.try_reserve(at(0), 0).unwrap();
    meter.give_back(at(0), free);
    assert_eq!(meter.owed(at(4_000)), 60);
    assert!(meter.try_reserve(at(11_999), 20).is_err());
    assert!(meter.try_reserve(at(12_000), 20).is_ok());
}

#[test]
fn llm_19_an_absurd_usage_is_owed_for_a_day_at_most() {
    let day = Duration::from_secs(24 * 60 * 60);
    let mut meter = Meter::new(settings(10, 1, 100), at(0));
    for _ in 0..2 {
        let free = meter.try_reserve(at(0), 0).unwrap();
        meter.settle(at(0), free, u64::MAX);
        assert_eq!(meter.wait_for(at(0), 0), day);
    }
    let free = meter.try_reserve(at(0), 0).unwrap();
    meter.settle(at(0), free, 1);
    assert_eq!(
        meter.wait_for(at(0), 0),
        day,
        "and no debt is forgiven by another one"
    );
}

#[test]
fn llm_19_what_was_not_executed_is_given_back_whole() {
    let mut meter = Meter::new(settings(1, 1, 10), at(0));
    let reservation = meter.try_reserve(at(0), 10).unwrap();
    assert_eq!(reservation.amount(), 10);
    meter.give_back(at(100), reservation);
    assert_eq!(meter.available(at(100)), 10, "and not 10.1");
    assert!(meter.try_reserve(at(100), 10).is_ok());
}

#[test]
fn llm_19_no_refund_counts_twice() {
    let mut meter = Meter::new(settings(10, 1, 100), at(0));
    let old = meter.try_reserve(at(0), 100).unwrap();
    // The bucket is full again when another call takes all of it.
    let new = meter.try_reserve(at(10_000), 100).unwrap();
    meter.give_back(at(10_000), old);
    assert_eq!(meter.available(at(10_000)), 0);
    meter.settle(at(10_000), new, 60);
    assert_eq!(meter.available(at(10_000)), 40);
    // Nine of ten parts are full again: a tenth is worth something.
    let mut meter = Meter::new(settings(10, 1, 100), at(0));
    let old = meter.try_reserve(at(0), 100).unwrap();
    let _new = meter.try_reserve(at(9_000), 90).unwrap();
    meter.give_back(at(9_000), old);
    assert_eq!(meter.available(at(9_000)), 10);
}

#[test]
fn llm_20_what_can_never_be_reserved_is_told_with_both_figures() {
    let mut meter = Meter::new(settings(1, 60, 100), at(0));
    let refusal = meter.try_reserve(at(0), 101).unwrap_err();
    let expected = MeterRefusal::TooMuch {
        asked: 101,
        burst: 100,
    };
    assert_eq!(refusal, expected);
    assert!(meter.try_reserve(at(0), 100).is_ok());
}

#[test]
fn changed_settings_keep_balance_and_debt() {
    let mut meter = Meter::new(settings(10, 1, 100), at(0));
    let reservation = meter.try_reserve(at(0), 40).unwrap();
    meter.change(at(0), settings(600, 60, 200));
    assert_eq!(meter.available(at(0)), 60);
    assert_eq!(meter.available(at(14_000)), 200);
    meter.settle(at(0), reservation, 140);
    assert_eq!(meter.owed(at(0)), 40);
    meter.change(at(0), settings(1, 1, 5));
    assert_eq!(meter.owed(at(0)), 40);
    assert_eq!(meter.settings().burst.get(), 5);
}

#[test]
fn no_amount_overflows() {
    let most = u64::MAX;
    let mut meter = Meter::new(settings(most, most / 2_000_000_000, most), at(0));
    for amount in [most, most, 1, 0, most] {
        if let Ok(reservation) = meter.try_reserve(at(0), amount) {
            meter.settle(at(0), reservation, most);
        }
    }
    assert!(meter.try_reserve(at(0), most).is_err());
    assert!(meter.owed(at(0)) > 0);
    assert_eq!(meter.wait_for(at(0), 0), MAX_DEBT);
    assert_eq!(meter.owed(Time::MAX), 0);
}

#[test]
fn many_reservations_at_once_keep_the_bound() {
    let mut meter = Meter::new(settings(1_000, 1, 1_000), at(0));
    let mut taken = Vec::new();
    for step in 0..500 {
        taken.extend(meter.try_reserve(at(step * 10), 7));
    }
    assert!(taken.len() > 400);
    for reservation in taken {
        meter.give_back(at(5_000), reservation);
    }
    assert!(meter.available(at(5_000)) <= 1_000);
    assert_eq!(meter.reserved(), 0);
}

#[test]
fn llm_19_what_three_hundred_running_calls_give_back_is_whole() {
    let mut meter = Meter::new(settings(1, 1, 100_000), at(0));
    let reserve = |_| meter.try_reserve(at(0), 100).unwrap();
    let taken: Vec<Reservation> = (0..300).map(reserve).collect();
    for reservation in taken {
        meter.settle(at(0), reservation, 30);
    }
    assert_eq!(meter.available(at(0)), 91_000);
}
