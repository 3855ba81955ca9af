//! Rules FLT-13 and LLM-19: limits of tokens that several replicas have together.

use std::num::NonZeroU64;

use super::simulated::MeteredWork;
use super::*;
use crate::MeterSettings;

/// Tokens a second of the fleets here.
const RATE: u64 = 10_000;

fn meter(rate: u64, per: u64, burst: u64) -> SharedRateSettings {
    let settings = MeterSettings {
        rate: NonZeroU64::new(rate).unwrap(),
        per: Duration::from_secs(per),
        burst: NonZeroU64::new(burst).unwrap(),
    };
    SharedRateSettings::of_meter(&settings, TIMEOUT)
}

/// A fleet with these numbers of calls a second, at 10,000 tokens a second.
fn fleet(seed: u64, burst: u64, work: MeteredWork, demands: &[f64]) -> SimulatedFleet {
    let mut fleet = SimulatedFleet::new(seed, meter(RATE * 60, 60, burst), 4 * MS);
    fleet.work = Some(work);
    for demand in demands {
        fleet.join(SimulatedReplica::new(*demand, 1, 0));
    }
    fleet
}

const UNEVEN: [f64; 6] = [20.0, 8.0, 4.0, 2.0, 1.0, 0.5];

#[expect(clippy::cast_precision_loss)]
fn error_of(fleet: &SimulatedFleet, from: u64, until: u64) -> f64 {
    let made = RATE * (until - from) / 1_000;
    fleet.used_since(from) as f64 / made as f64 - 1.0
}

#[test]
fn flt_13_tokens_of_uneven_demand_come_to_the_rate() {
    // The shortest and the longest call, in milliseconds.
    for millis in [(500, 20_000), (5, 50)] {
        let work = MeteredWork {
            reserved: (1_000, 4_000),
            used: (100, 600),
            millis,
            at_once: usize::MAX,
        };
        let mut fleet = fleet(7, RATE * 60, work, &UNEVEN);
        fleet.run(120_000);
        let before = (fleet.requests, fleet.calls.len() as u64);
        fleet.run(300_000);
        let error = error_of(&fleet, 120_000, 300_000);
        let requests = fleet.requests - before.0;
        let calls = fleet.calls.len() as u64 - before.1;
        println!("{millis:?} ms: {error:+.3}, {requests} requests of {calls} calls");
        assert!(error.abs() <= 0.05, "{error}");
        assert!(requests * 20 <= calls, "no message for a call");
        fleet.assert_settled_within(0);
    }
}

#[test]
fn flt_13_debts_of_all_replicas_are_paid_by_later_calls() {
    // Twice as much is used as was reserved.
    let work = MeteredWork {
        reserved: (500, 1_500),
        used: (1_500, 2_500),
        millis: (100, 2_000),
        at_once: 4,
    };
    let mut fleet = fleet(11, RATE * 10, work, &UNEVEN);
    fleet.run(60_000);
    fleet.run(240_000);
    let error = error_of(&fleet, 60_000, 240_000);
    println!("{error:+.3}");
    assert!(error.abs() <= 0.05, "{error}");
    fleet.assert_settled_within(debts(&fleet, work));
}

/// The most that the calls under way can owe together.
fn debts(fleet: &SimulatedFleet, work: MeteredWork) -> u64 {
    let each = work.reserved.1 * work.used.1.saturating_sub(1_000) / 1_000;
    (fleet.replicas.len() * work.at_once) as u64 * each
}

proptest! {
    #[test]
    fn flt_13_no_span_has_more_tokens_than_burst_rate_and_running_debts(
        seed: u64,
        burst in 2_000_u64..600_000,
        least in 0_u64..2_000,
        reserved in 0_u64..6_000,
        used in 0_u64..2_500,
        millis in 1_u64..10_000,
        at_once in 1_usize..6,
        demands in prop::collection::vec(0.2_f64..20.0, 1..6),
        (loses, drift) in (any::<bool>(), -200_i64..200),
    ) {
        let weight = |weight: u64| weight.min(burst * 3 / 4).max(1);
        let work = MeteredWork {
            reserved: (weight(least), weight(least + reserved)),
            used: (used / 4, used),
            millis: (1, millis),
            at_once,
        };
        let mut fleet = fleet(seed, burst, work, &[]);
        fleet.loses = loses;
        for (one, demand) in (0..).zip(demands) {
            fleet.join(SimulatedReplica::new(demand, 1, drift * one));
        }
        fleet.run(60_000);
        fleet.assert_settled_within(debts(&fleet, work));
    }

    #[test]
    fn flt_13_no_board_and_its_return_let_out_a_share_and_a_call_more(
        seed: u64,
        used in 0_u64..2_000,
        cuts in prop::collection::vec(1_000_u64..15_000, 1..6),
        demands in prop::collection::vec(0.2_f64..20.0, 1..6),
    ) {
        let work = MeteredWork {
            reserved: (100, 4_000),
            used: (used / 4, used),
            millis: (1, 4_000),
            at_once: 2,
        };
        let mut fleet = fleet(seed, RATE * 6, work, &[]);
        fleet.goes_alone = true;
        for demand in demands {
            fleet.join(SimulatedReplica::new(demand, 1, 0));
        }
        let mut at = 0;
        for (span, is_cut) in cuts.into_iter().zip([true, false].into_iter().cycle()) {
            at += span;
            fleet.run(at);
            fleet.cut(is_cut);
        }
        fleet.run(at + 10_000);
        // One burst more by the shares, and a call of each beyond its share.
        let lost = RATE * 6 + fleet.replicas.len() as u64 * 4_000;
        fleet.assert_settled_within(debts(&fleet, work) + lost);
    }
}

/// A machine that knows the board's clock exactly and has leased so many units.
fn leased(settings: SharedRateSettings, units: u64) -> SharedRate {
    let mut machine = SharedRate::new(settings);
    let mut clock = BoardClock::default();
    clock.heard(at(0), board(0));
    let number = RateNumber::default();
    machine.on(at(0), RateInput::Connected { clock, number });
    let request = machine.request(at(0), units, units).unwrap();
    machine.on(at(0), word(request, 1, 0, true));
    machine.set_waiting(0);
    machine
}

/// Takes units and reserves them.
fn reserve(machine: &mut SharedRate, now: Time, amount: u64) -> Option<UnitReservation> {
    let is_taken = machine.take_at_once(now, amount);
    is_taken.then(|| machine.reserved_now(now, amount, false).unwrap())
}

#[test]
fn llm_19_a_refund_goes_into_the_stock_of_the_replica() {
    let mut one = leased(meter(600, 60, 600), 100);
    let held = reserve(&mut one, at(0), 100).unwrap();
    assert_eq!((one.reserved(), held.amount()), (100, 100));
    assert_eq!(reserve(&mut one, at(0), 10), None, "there are no more");
    one.settle(at(10), held, 30);
    assert_eq!(one.reserved(), 0);
    let next = reserve(&mut one, at(10), 70).unwrap();
    assert_eq!(reserve(&mut one, at(10), 1), None, "and no more than that");
    one.settle(at(10), next, 70);
    assert_eq!(one.debt(at(10)), 0);
}

#[test]
fn llm_19_no_refund_of_a_shared_limit_counts_twice() {
    // Their places pass: a tenth of a second for each, and a sixteenth of the burst.
    let mut one = leased(meter(600, 60, 600), 100);
    let held = reserve(&mut one, at(0), 100).unwrap();
    one.settle(at(20_000), held, 0);
    assert_eq!(
        one.stock.units(one.settings.unit),
        0,
        "time has brought them back"
    );
    let mut one = leased(meter(600, 60, 600), 100);
    let held = reserve(&mut one, at(0), 100).unwrap();
    one.settle(at(8_000), held, 0);
    let left = one.stock.units(one.settings.unit);
    assert!(
        (55..=60).contains(&left),
        "{left}: those up to 4.25 s have passed"
    );
}

#[test]
fn llm_19_a_debt_is_paid_from_the_stock_and_else_told_to_the_board() {
    let mut one = leased(meter(600, 60, 600), 100);
    let held = reserve(&mut one, at(0), 40).unwrap();
    one.settle(at(0), held, 70);
    assert_eq!(
        (one.debt(at(0)), one.stock.units(one.settings.unit)),
        (0, 30)
    );
    let held = reserve(&mut one, at(0), 10).unwrap();
    one.settle(at(0), held, 60);
    assert_eq!(
        (one.debt(at(0)), one.stock.units(one.settings.unit)),
        (30, 0)
    );
    assert!(one.owes(at(0)));
    let before = one.number.full_at;
    let request = one.request(at(0), 0, 1).unwrap();
    // The recent demand is leased with it.
    assert!(request.full_at >= before.plus(30 * one.settings.unit));
    one.on(at(0), answered_at(1, RateAnswer::Done(Revision(2))));
    assert_eq!(one.debt(at(0)), 0);
    assert!(!one.owes(at(0)));
}

fn answered_at(expected: u64, answer: RateAnswer) -> RateInput {
    RateInput::Answered {
        expected: Revision(expected),
        answer,
    }
}

#[test]
fn llm_19_a_debt_of_many_bursts_is_told_burst_by_burst_and_always_believed() {
    let mut one = leased(meter(600, 60, 600), 100);
    let held = reserve(&mut one, at(0), 100).unwrap();
    one.settle(at(0), held, 5_000);
    assert_eq!(one.debt(at(0)), 4_900);
    let request = one.request(at(0), 0, 1).unwrap();
    one.on(at(0), answered_at(1, RateAnswer::Done(Revision(2))));
    assert_eq!(one.debt(at(0)), 4_300, "a burst of 600");
    assert_eq!(one.believed(at(0)), request.full_at);
    assert_eq!(
        one.request(at(0), 0, 1),
        None,
        "the number is a burst ahead"
    );
    assert!(!one.take_at_once(at(0), 1));
    let absurd = one.reserved_now(at(0), 0, false).unwrap();
    one.settle(at(0), absurd, u64::MAX);
    assert_eq!(one.debt(at(0)), 24 * 60 * 600, "and a day at most");
}

#[test]
fn llm_20_the_heaviest_call_goes_out_and_owes_what_no_stock_holds() {
    let mut one = leased(meter(600, 60, 600), 600);
    // Nearly all of it stands in the stock; its rest is paid by the units that begin later.
    let held = reserve(&mut one, at(0), 600).unwrap();
    assert_eq!(
        (one.debt(at(0)), one.stock.units(one.settings.unit)),
        (0, 0)
    );
    one.settle(at(0), held, 600);
    assert!(!one.take_at_once(at(1_000), 1));
}

#[test]
fn flt_13_alone_a_call_of_more_than_the_share_goes_out_once_nothing_is_owed() {
    let mut one = SharedRate::new(meter(600, 60, 600));
    one.on(at(0), RateInput::Replicas(4));
    assert_eq!(one.available(at(0)), 150);
    assert_eq!(one.take_alone(at(0), 0, 400), Ok(()));
    let held = one.reserved_now(at(0), 400, true).unwrap();
    // A quarter of ten a second.
    assert_eq!(one.take_alone(at(0), 0, 100), Err(Some(at(140_000))));
    assert_eq!(one.time_of(at(0), 0, 100), at(140_000));
    one.settle(at(0), held, 100);
    assert_eq!(
        one.take_alone(at(0), 0, 50),
        Ok(()),
        "the rest is given back"
    );
    assert_eq!(one.take_alone(at(0), 0, 400), Err(Some(at(60_000))));
}

#[test]
fn llm_19_no_reload_forgives_a_debt_of_a_shared_limit() {
    let mut one = leased(meter(600, 60, 600), 100);
    let held = reserve(&mut one, at(0), 100).unwrap();
    one.settle(at(0), held, 300);
    assert_eq!(one.debt(at(0)), 200);
    one.reconfigure(at(0), meter(60, 60, 50));
    assert_eq!(one.debt(at(0)), 200);
    one.reconfigure(at(0), meter(6_000, 60, 9_000));
    assert_eq!(one.debt(at(0)), 200);
}

#[test]
fn llm_19_a_refund_is_lost_once_its_units_have_passed() {
    let mut one = leased(meter(600, 60, 600), 100);
    let old = reserve(&mut one, at(0), 100).unwrap();
    // The old ones have passed when another call takes as many.
    let request = one.request(at(20_000), 100, 100).unwrap();
    one.on(at(20_000), word(request, 2, 20_000, true));
    let new = reserve(&mut one, at(20_000), 100).unwrap();
    one.settle(at(20_000), old, 0);
    assert_eq!(one.stock.units(one.settings.unit), 0);
    one.settle(at(20_000), new, 60);
    assert_eq!(one.stock.units(one.settings.unit), 40);
    // The same by the own share.
    let mut one = SharedRate::new(meter(600, 60, 600));
    let take = |one: &mut SharedRate, millis| {
        assert_eq!(one.take_alone(at(millis), 0, 600), Ok(()));
        one.reserved_now(at(millis), 600, true).unwrap()
    };
    let old = take(&mut one, 0);
    let new = take(&mut one, 60_000);
    one.settle(at(60_000), old, 0);
    assert_eq!(one.available(at(60_000)), 0);
    one.settle(at(60_000), new, 500);
    assert_eq!(one.available(at(60_000)), 100);
}

#[test]
fn flt_13_what_a_refund_brings_back_goes_to_the_board_if_no_call_needs_it() {
    let mut one = leased(meter(600, 60, 600), 100);
    let held = reserve(&mut one, at(0), 100).unwrap();
    one.settle(at(10), held, 20);
    let others = RateRequest {
        expected: Revision(1),
        full_at: one.number.full_at.plus(50 * one.settings.unit),
        free: None,
    };
    // Another replica takes some, and this one has used its few units some time ago.
    one.demand.returned(at(10), 20, one.settings.span);
    let back = one.on(at(10), word(others, 2, 10, false)).unwrap();
    let units = back.free.unwrap().units(one.settings.unit);
    assert_eq!(units, 80);
}

#[test]
fn llm_19_a_debt_and_a_lease_together_are_a_burst_at_most() {
    for (waiting, leased_units) in [(200, 200), (201, 0)] {
        let mut one = leased(meter(600, 60, 600), 100);
        let held = reserve(&mut one, at(0), 100).unwrap();
        one.settle(at(0), held, 500);
        let before = one.number.full_at;
        let request = one.request(at(0), waiting, waiting).unwrap();
        let moved = (request.full_at.0 - before.0) / one.settings.unit;
        assert_eq!(moved, 400 + leased_units, "{waiting}");
    }
}
