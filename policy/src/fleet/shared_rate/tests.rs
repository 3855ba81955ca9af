//! Rule FLT-13: the machine by itself, and fleets of it on a simulated board.

mod metered;
mod simulated;

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::RateLimitSettings;
use simulated::{MS, SimulatedFleet, SimulatedReplica};

const TIMEOUT: Duration = Duration::from_millis(250);

fn limit(rate: f64, burst: u32) -> RateLimitSettings {
    RateLimitSettings {
        rate,
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(burst).unwrap(),
        max_wait: Duration::ZERO,
    }
}

fn settings(rate: f64, burst: u32) -> SharedRateSettings {
    SharedRateSettings::new(&limit(rate, burst), crate::RateSharing::default(), TIMEOUT)
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn board(millis: u64) -> BoardTime {
    BoardTime(1_000_000_000_000 + millis * MS)
}

/// A machine that knows the board's clock exactly, from 0 ms on.
fn connected(rate: f64, burst: u32) -> SharedRate {
    let mut machine = SharedRate::new(settings(rate, burst));
    let mut clock = BoardClock::default();
    clock.heard(at(0), board(0));
    let number = RateNumber::default();
    assert_eq!(
        machine.on(at(0), RateInput::Connected { clock, number }),
        None
    );
    machine
}

fn word(request: RateRequest, revision: u64, written: u64, is_own: bool) -> RateInput {
    RateInput::Heard {
        number: RateNumber {
            full_at: request.full_at,
            free: request.free,
            revision: Revision(revision),
        },
        written: Some(board(written)),
        is_own,
    }
}

fn answered(answer: RateAnswer) -> RateInput {
    RateInput::Answered {
        expected: Revision(0),
        answer,
    }
}

#[test]
fn flt_13_settings_keep_both_parts_of_the_burst_within_it() {
    for (rate, burst) in [(500.0, 50), (500.0, 500), (20.0, 20), (5.0, 5), (500.0, 11)] {
        let set = settings(rate, burst);
        let whole = set.unit * u64::from(burst);
        assert!(set.early + set.life <= whole, "{rate}, {burst}: {set:?}");
        assert!(set.span <= set.life);
    }
    let set = settings(500.0, 50);
    assert_eq!((set.early, set.life, set.span), (50 * MS, 50 * MS, 50 * MS));
    let slow = settings(20.0, 20);
    assert_eq!(slow.span, 500 * MS, "ten units");
    let single = settings(5.0, 1);
    assert_eq!((single.early, single.life), (200 * MS, 20 * MS));
}

#[test]
fn flt_13_a_call_without_units_asks_for_a_lease_once() {
    let mut one = connected(500.0, 50);
    one.note_demand(at(0), 1);
    assert_eq!(one.answer(at(0), 0, 1), UnitAnswer::Asked);
    let request = one.request(at(0), 1, 1).unwrap();
    assert_eq!(request.expected, Revision(0));
    assert_eq!(one.request(at(0), 1, 1), None, "it is on its way");
    assert_eq!(one.on(at(2), word(request, 7, 1, true)), None);
    assert_eq!(one.answer(at(2), 0, 1), UnitAnswer::Granted);
    assert_eq!(one.counts().granted, 1);
    one.on(at(2), answered(RateAnswer::Done(Revision(7))));
    assert_eq!(one.counts().granted, 1, "its word told it before");
    assert!(!one.take_at_once(at(2), 1), "one unit was asked for");
}

#[test]
fn flt_13_units_of_a_lease_end_and_come_back_by_themselves() {
    let mut one = connected(500.0, 50);
    for _ in 0..5 {
        one.note_demand(at(0), 1);
    }
    let request = one.request(at(0), 5, 1).unwrap();
    one.on(at(1), word(request, 1, 1, true));
    assert!(one.take_at_once(at(2), 1));
    assert!(one.take_at_once(at(40), 1));
    assert!(!one.take_at_once(at(70), 1));
}

#[test]
fn flt_13_the_number_refuses_with_the_time() {
    let mut one = connected(500.0, 50);
    let full = RateRequest {
        expected: Revision(0),
        full_at: board(300),
        free: None,
    };
    one.on(at(100), word(full, 1, 100, false));
    one.note_demand(at(100), 1);
    // Its unit is made at 302 ms, and may go out 50 ms before.
    let UnitAnswer::NotBefore(when) = one.answer(at(100), 0, 1) else {
        panic!("the rate is used up");
    };
    assert!((at(252)..=at(253)).contains(&when), "{when}");
    let request = one.request(at(100), 0, 1).unwrap();
    assert_eq!(request.full_at, board(302), "one lease ahead is booked");
    one.on(at(101), word(request, 2, 101, true));
    one.note_demand(at(101), 1);
    assert_eq!(one.request(at(101), 0, 1), None, "and no second one");
    assert!(!one.take_at_once(at(251), 1));
    assert!(one.take_at_once(when, 1));
}

#[test]
fn flt_13_the_own_share_is_its_part_of_the_rate_and_of_the_burst() {
    let mut one = SharedRate::new(settings(500.0, 50));
    one.on(at(0), RateInput::Replicas(8));
    for _ in 0..6 {
        assert_eq!(one.take_alone(at(0), 0, 1), Ok(()));
    }
    assert_eq!(one.take_alone(at(0), 0, 1), Err(Some(at(16))));
    assert_eq!(
        one.take_alone(at(0), 2, 1),
        Err(Some(at(48))),
        "behind others"
    );
    assert_eq!(one.take_alone(at(15), 0, 1), Err(Some(at(16))));
    assert_eq!(one.take_alone(at(16), 0, 1), Ok(()));
    assert_eq!(one.take_alone(at(1_000), 0, 7), Err(None), "never so many");
    assert_eq!(
        one.take_alone(at(1_000), 1, 1),
        Err(Some(at(1_000))),
        "its turn"
    );
    let mut least = SharedRate::new(settings(5.0, 2));
    least.on(at(0), RateInput::Replicas(8));
    assert_eq!(least.take_alone(at(0), 0, 1), Ok(()), "at least one unit");
    assert_eq!(least.take_alone(at(0), 0, 1), Err(Some(at(1_600))));
    let mut slowest = SharedRate::new(settings(1e-12, 1));
    assert_eq!(slowest.take_alone(at(0), 0, 1), Ok(()), "no overflow");
    assert!(slowest.take_alone(at(1), 0, 1).is_err());
}

#[test]
fn flt_13_the_own_share_begins_as_full_as_the_number_was() {
    let mut one = connected(500.0, 50);
    // The burst lasts 100 ms, and 89 ms of it have not come back.
    one.on(at(0), full_at(89));
    one.on(at(0), RateInput::Disconnected);
    for _ in 0..5 {
        assert_eq!(one.take_alone(at(0), 0, 1), Ok(()));
    }
    let Err(Some(when)) = one.take_alone(at(0), 0, 1) else {
        panic!("no more is there");
    };
    assert!((at(1)..at(2)).contains(&when), "{when}");
}

#[test]
fn flt_13_what_went_out_without_the_board_counts_at_its_return() {
    let mut one = connected(500.0, 50);
    one.on(at(0), RateInput::Replicas(2));
    one.on(at(0), RateInput::Disconnected);
    assert_eq!(one.take_alone(at(0), 0, 8), Ok(()));
    let mut clock = BoardClock::default();
    clock.heard(at(0), board(0));
    let number = RateNumber::default();
    one.on(at(0), RateInput::Connected { clock, number });
    one.note_demand(at(0), 1);
    let request = one.request(at(0), 1, 1).unwrap();
    assert_eq!(
        request.full_at,
        board(8 * 2 + 2),
        "its own unit comes after"
    );
    one.on(at(0), answered(RateAnswer::Lost));
    one.on(at(0), full_at(10));
    let again = one.request(at(0), 1, 1).unwrap();
    assert_eq!(again.full_at, board(10 + 8 * 2 + 2), "it is owed still");
    one.on(at(0), word(again, 2, 0, true));
    assert_eq!(one.owed(at(0)), 0, "it was told");
    // The share makes it up by itself.
    let mut later = connected(500.0, 50);
    later.on(at(0), RateInput::Replicas(2));
    assert_eq!(later.take_alone(at(0), 0, 8), Ok(()));
    assert_eq!((later.owed(at(16)), later.owed(at(32))), (8 * MS, 0));
    later.on(at(16), RateInput::Replicas(4));
    assert_eq!(later.owed(at(16)), 8 * MS, "with any number of replicas");
    assert_eq!(later.owed(at(32)), 4 * MS, "a quarter of the rate");
}

#[test]
fn flt_13_a_silent_board_leaves_the_own_share_until_it_is_heard() {
    let mut one = connected(500.0, 50);
    assert_eq!(one.request(at(0), 1, 1).map(|one| one.expected.0), Some(0));
    assert_eq!(one.answer(at(249), 0, 1), UnitAnswer::Asked);
    assert_eq!(one.answer(at(250), 0, 1), UnitAnswer::Alone);
    one.on(at(260), answered(RateAnswer::Unknown));
    assert_eq!(one.answer(at(300), 0, 1), UnitAnswer::Alone);
    assert_eq!(one.request(at(300), 1, 1), None, "not at each call");
    assert!(one.request(at(510), 1, 1).is_some());
    let other = RateRequest {
        expected: Revision(0),
        full_at: board(500),
        free: None,
    };
    one.on(at(520), word(other, 1, 519, false));
    assert_ne!(one.answer(at(520), 0, 1), UnitAnswer::Alone);
    one.on(at(530), RateInput::Disconnected);
    assert_eq!(one.answer(at(530), 0, 1), UnitAnswer::Alone);
    assert!(one.counts().offline >= 2);
}

#[test]
fn flt_13_who_was_slower_asks_again_with_the_newer_number() {
    let mut one = connected(500.0, 50);
    one.note_demand(at(0), 1);
    let request = one.request(at(0), 1, 1).unwrap();
    one.on(at(1), answered(RateAnswer::Lost));
    assert_eq!(one.request(at(1), 1, 1), None, "it has not heard it yet");
    one.on(at(2), word(request, 5, 1, false));
    let again = one.request(at(2), 1, 1).unwrap();
    assert_eq!(again.expected, Revision(5));
    assert!(again.full_at > request.full_at);
    assert_eq!(one.counts().conflict, 1);
}

#[test]
fn flt_13_unused_units_are_given_back_and_taken_by_another() {
    let mut one = connected(500.0, 500);
    for _ in 0..40 {
        one.note_demand(at(0), 1);
    }
    let request = one.request(at(0), 40, 1).unwrap();
    one.on(at(1), word(request, 1, 1, true));
    assert!(one.take_at_once(at(2), 10));
    // Another one books far ahead while this one has no calls any more.
    let other = RateRequest {
        expected: Revision(1),
        full_at: board(1_000),
        free: None,
    };
    one.on(at(3), word(other, 2, 3, false));
    let heard = word(
        RateRequest {
            full_at: board(1_001),
            ..other
        },
        3,
        140,
        false,
    );
    let mut idle = one.clone();
    assert_eq!(idle.on(at(400), heard), None, "they have come back by then");
    let mut booked = connected(500.0, 500);
    booked.on(at(0), word(other, 1, 0, false));
    for _ in 0..40 {
        booked.note_demand(at(0), 1);
    }
    let own = booked.request(at(0), 0, 1).unwrap();
    booked.on(at(1), word(own, 2, 1, true));
    let next = RateRequest {
        full_at: own.full_at.plus(MS),
        ..other
    };
    let mut waited_for = booked.clone();
    waited_for.set_waiting(1);
    let kept = waited_for.on(at(300), word(next, 3, 300, false));
    assert_eq!(kept, None, "a call waits for them");
    let back = booked.on(at(300), word(next, 3, 300, false)).unwrap();
    assert_eq!(back.full_at, next.full_at);
    let free = back.free.unwrap();
    assert_eq!(free.last, own.full_at);
    let mut taker = connected(500.0, 500);
    taker.on(at(301), word(back, 4, 301, false));
    taker.note_demand(at(301), 1);
    let taken = taker.request(at(301), 0, 1).unwrap();
    assert_eq!(taken.full_at, next.full_at, "the number stays");
    assert_eq!(taken.free.unwrap().last, free.last);
    assert!(taken.free.unwrap().first > free.first);
}

#[test]
fn flt_13_a_number_beyond_all_leases_is_not_believed() {
    let mut one = connected(500.0, 50);
    let far = RateRequest {
        expected: Revision(0),
        full_at: board(3_600_000),
        free: None,
    };
    one.on(at(10), word(far, 1, 10, false));
    one.note_demand(at(10), 1);
    assert_eq!(one.answer(at(10), 0, 1), UnitAnswer::Asked);
    let request = one.request(at(10), 1, 1).unwrap();
    assert!(request.full_at < board(100));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flt_13_all_together_stay_below_burst_and_rate_at_any_time(
        seed in any::<u64>(),
        replicas in prop::collection::vec((1.0_f64..600.0, 1_u32..4, -400_i64..400), 1..6),
        rate in 5.0_f64..800.0,
        burst in 1_u32..200,
        latency in 1_u64..40,
        loses in any::<bool>(),
    ) {
        let set = settings(rate, burst);
        let mut fleet = SimulatedFleet::new(seed, set, latency * MS / 2);
        fleet.loses = loses;
        for (demand, weight, drift) in replicas {
            fleet.join(SimulatedReplica::new(demand, weight.min(burst).into(), drift));
        }
        fleet.run(4_000);
        fleet.assert_below(set);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flt_13_a_board_that_goes_and_comes_lets_out_no_burst_more_each_time(
        seed in any::<u64>(),
        count in 1_u32..5,
        rate in 100.0_f64..800.0,
        spans in prop::collection::vec(50_u64..1_500, 2..10),
    ) {
        let burst = 100;
        let set = settings(rate, burst);
        let mut fleet = SimulatedFleet::new(seed, set, 2 * MS);
        fleet.goes_alone = true;
        for _ in 0..count {
            let demand = rate * 2.0 / f64::from(count);
            fleet.join(SimulatedReplica::new(demand, 1, 0));
        }
        let mut end = 0;
        for (index, span) in spans.iter().enumerate() {
            end += span;
            fleet.run(end);
            fleet.cut(index % 2 == 0);
        }
        // A quarter of the burst for returns after which not all have told what they owe.
        fleet.assert_within(i128::from(set.unit) * i128::from(burst + burst / 4 + count));
    }
}

/// Demand of eight replicas for 800 calls a second of 500.
const UNEVEN: [f64; 8] = [300.0, 200.0, 120.0, 80.0, 50.0, 30.0, 15.0, 5.0];

fn uneven(share: f64, seed: u64) -> SimulatedFleet {
    let mut fleet = SimulatedFleet::new(seed, settings(500.0, 50), 2 * MS);
    for demand in UNEVEN {
        fleet.join(SimulatedReplica::new(demand * share, 1, 50));
    }
    fleet
}

#[test]
fn flt_13_uneven_demand_gets_the_rate_and_no_second_more() {
    for seed in 0..5 {
        let mut fleet = uneven(1.0, seed);
        fleet.run(20_000);
        fleet.assert_below(settings(500.0, 50));
        let error = fleet.out.len() as f64 / (500.0 * 20.0) - 1.0;
        println!(
            "{error:+.3}, {} asked, {:?}",
            fleet.requests,
            fleet.fullest()
        );
        assert!(error.abs() <= 0.05, "{error}");
        assert!(fleet.fullest() <= 550);
        let least = fleet.replicas.iter().map(|one| one.granted).min();
        assert!(least > Some(0));
    }
}

#[test]
fn flt_13_demand_below_the_rate_is_let_out() {
    for share in [0.1, 0.3, 0.5] {
        let mut fleet = uneven(share, 1);
        fleet.run(20_000);
        let (granted, asked) = fleet.sums();
        let refused = 1.0 - granted as f64 / asked as f64;
        println!("{share}: {refused:.4} refused, {} asked", fleet.requests);
        assert!(refused <= 0.02, "{share}: {refused}");
    }
}

#[test]
fn flt_13_demand_that_moves_is_followed_within_a_second() {
    let mut fleet = uneven(1.0, 3);
    fleet.run(5_000);
    for (one, demand) in fleet.replicas.iter_mut().zip(UNEVEN.iter().rev()) {
        one.demand = *demand;
    }
    fleet.run(6_000);
    let before = fleet.replicas[7].granted;
    fleet.run(8_000);
    let share = (fleet.replicas[7].granted - before) as f64 / 2.0;
    // Its part of the demand.
    let fair = 500.0 * 300.0 / 800.0;
    assert!((share / fair - 1.0).abs() < 0.15, "{share} of {fair}");
    fleet.assert_below(settings(500.0, 50));
}

/// A number of another replica that is heard at 0 ms.
fn full_at(millis: u64) -> RateInput {
    let request = RateRequest {
        expected: Revision(0),
        full_at: board(millis),
        free: None,
    };
    word(request, 1, 0, false)
}

#[test]
fn flt_13_a_request_is_for_the_demand_of_a_lease_and_no_more_than_a_lease() {
    let asked = |demand, round_trip| {
        let mut one = connected(500.0, 50);
        one.round_trip = round_trip;
        one.note_demand(at(0), demand);
        one.request(at(0), 0, 1).map(|one| one.full_at)
    };
    assert_eq!(asked(0, 0), None);
    assert_eq!(asked(4, 0), Some(board(8)));
    assert_eq!(asked(60, 0), Some(board(50)), "25 units are a lease");
    // Half of a lease passes until the answer comes, so half as many more are needed then.
    assert_eq!(asked(10, 25 * MS), Some(board(25 + 30)));
}

#[test]
fn flt_13_more_is_asked_for_once_half_of_the_demand_is_not_there() {
    for (more, asks) in [(1, false), (2, true)] {
        let mut one = connected(500.0, 50);
        one.note_demand(at(0), 2);
        let request = one.request(at(0), 0, 1).unwrap();
        one.on(at(0), word(request, 1, 0, true));
        one.note_demand(at(0), more);
        assert_eq!(one.request(at(0), 0, 1).is_some(), asks, "{more}");
    }
}

#[test]
fn flt_13_a_call_behind_others_takes_no_unit_before_them() {
    let mut one = connected(500.0, 50);
    one.note_demand(at(0), 2);
    let request = one.request(at(0), 0, 1).unwrap();
    one.on(at(0), word(request, 1, 0, true));
    assert_eq!(one.answer(at(0), 1, 1), UnitAnswer::Asked);
    assert_eq!(
        one.answer(at(0), 0, 2),
        UnitAnswer::Granted,
        "both are there"
    );
}

#[test]
fn flt_13_a_unit_that_begins_now_is_worth_asking_for() {
    let answer = |millis| {
        let mut one = connected(500.0, 50);
        one.on(at(0), full_at(millis));
        one.answer(at(0), 0, 1)
    };
    // A unit takes 2 ms, and may go out 50 ms early.
    assert_eq!(answer(48), UnitAnswer::Asked);
    let UnitAnswer::NotBefore(when) = answer(49) else {
        panic!("it begins later");
    };
    assert!((at(1)..at(2)).contains(&when), "{when}");
}

#[test]
fn flt_13_a_number_is_believed_up_to_two_leases_of_each_replica_and_ten_seconds() {
    for (replicas, most) in [(0, 10_300), (1, 10_300), (3, 10_500)] {
        let mut one = connected(500.0, 50);
        one.on(at(0), RateInput::Replicas(replicas));
        assert_eq!(one.replicas(), replicas.max(1));
        one.on(at(0), full_at(most));
        assert_eq!(one.believed(at(0)), board(most), "{replicas}");
        let mut one = connected(500.0, 50);
        one.on(at(0), RateInput::Replicas(replicas));
        one.on(at(0), full_at(most + 1));
        assert_eq!(one.believed(at(0)), BoardTime::default(), "{replicas}");
    }
}

#[test]
fn flt_13_a_lost_question_is_given_up_after_four_timeouts() {
    let mut one = connected(500.0, 50);
    assert!(one.request(at(0), 1, 1).is_some());
    assert_eq!(one.request(at(300), 1, 1), None);
    assert_eq!(one.request(at(999), 1, 1), None);
    assert!(one.request(at(1_000), 1, 1).is_some());
}

#[test]
fn flt_13_a_replaced_number_is_waited_for_no_longer_than_a_timeout() {
    let mut one = connected(500.0, 50);
    assert!(one.request(at(0), 1, 1).is_some());
    one.on(at(1), answered(RateAnswer::Lost));
    assert_eq!(one.request(at(250), 1, 1), None);
    assert!(one.request(at(251), 1, 1).is_some());
}

#[test]
fn flt_13_calls_by_the_own_share_count_once_a_lease() {
    let mut one = connected(500.0, 50);
    assert!(one.is_connected());
    one.on(at(0), RateInput::Disconnected);
    assert!(!one.is_connected());
    for (millis, offline) in [(0, 1), (0, 1), (49, 1), (50, 2), (99, 2), (100, 3)] {
        assert_eq!(one.answer(at(millis), 0, 1), UnitAnswer::Alone);
        assert_eq!(one.counts().offline, offline, "{millis}");
    }
    let mut silent = connected(500.0, 50);
    for (millis, offline) in [(0, 1), (1_000, 2)] {
        assert!(silent.request(at(millis), 1, 1).is_some());
        silent.on(at(millis), answered(RateAnswer::Unknown));
        assert_eq!(silent.counts().offline, offline, "{millis}");
    }
}

#[test]
fn flt_13_the_round_trip_is_an_average_of_four() {
    let mut one = connected(500.0, 50);
    for (sent, revision, average) in [(0, 1, 2_000_000), (100, 2, 3_500_000)] {
        one.note_demand(at(sent), 1);
        let request = one.request(at(sent), 1, 1).unwrap();
        one.on(at(sent + 8), word(request, revision, sent + 8, true));
        assert_eq!(one.round_trip, average);
        assert_eq!(one.counts().granted, revision);
    }
}

#[test]
fn flt_13_new_settings_hold_from_the_next_request_on() {
    let mut one = connected(500.0, 50);
    one.note_demand(at(0), 4);
    one.reconfigure(at(0), settings(250.0, 50));
    assert_eq!(one.settings(), &settings(250.0, 50));
    assert_eq!(one.settings().timeout(), TIMEOUT);
    let request = one.request(at(0), 0, 1).unwrap();
    assert_eq!(request.full_at, board(16), "four units of 4 ms");
}

#[test]
fn flt_13_a_reload_leaves_no_debt_that_is_longer_than_a_burst_of_the_new_rate() {
    let mut rate = SharedRate::new(settings(1.0 / 60.0, 5));
    for _ in 0..5 {
        assert_eq!(rate.take_alone(at(0), 0, 1), Ok(()));
    }
    assert_eq!(rate.take_alone(at(0), 0, 1), Err(Some(at(60_000))));
    rate.reconfigure(at(0), settings(500.0, 50));
    assert!(
        rate.take_alone(at(0), 0, 1).is_err(),
        "the burst is used up"
    );
    assert_eq!(rate.take_alone(at(200), 0, 1), Ok(()));
}
