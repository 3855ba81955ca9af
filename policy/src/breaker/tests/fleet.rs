use super::*;
use crate::ProbeLease;
use State::{Closed, HalfOpen, Open};

fn suspicion(share: f64, until: u64) -> Option<Suspicion> {
    let (share, until) = (rate(share), at(until));
    Some(Suspicion { share, until })
}

fn leased() -> BreakerSettings {
    let mut settings = settings();
    settings.half_open.lease = ProbeLease::Leased { timeout: 250 * MS };
    settings
}

fn hold(millis: u32, failed_periods: u32) -> BreakerCommand {
    let wait = millis * MS;
    BreakerCommand::Hold {
        wait,
        failed_periods,
    }
}

fn recovered() -> BreakerCommand {
    BreakerCommand::Recovered { by: "eu-2".into() }
}

fn adopt(millis: u32) -> BreakerCommand {
    let (replicas, of, wait) = (2, 3, millis * MS);
    BreakerCommand::Adopt { replicas, of, wait }
}

#[test]
fn flt_4_beside_others_evidence_a_share_of_the_own_numbers_is_enough() {
    for (own, share, enough) in [
        (5, 0.6, 3),
        (3, 0.6, 2),
        (2, 0.1, 2),
        (1, 0.6, 1),
        (10, 0.0, 2),
    ] {
        let mut one = settings();
        one.failure_threshold = Some(n(own));
        let mut bench = Bench::new(one);
        bench.breaker.suspect(at(0), suspicion(share, 1_000));
        assert_eq!(bench.fail(0, enough - 1), Closed, "{own} at {share}");
        assert_eq!(bench.fail(0, 1), Open, "{own} at {share}");
    }
}

#[test]
fn flt_4_rates_stay_as_they_are_and_only_their_minimum_is_lowered() {
    let mut bench = Bench::new(rates(20, 10));
    bench.breaker.suspect(at(0), suspicion(0.5, 1_000));
    for _ in 0..3 {
        bench.call(0, Class::Success);
    }
    assert_eq!(bench.fail(0, 2), Closed, "two of five are no half");
    assert_eq!(bench.fail(0, 1), Open, "three of six are");
}

#[test]
fn flt_4_a_suspicion_ends_with_its_time_or_its_evidence() {
    for ends_by_time in [true, false] {
        let mut bench = Bench::new(settings());
        bench.breaker.suspect(at(0), suspicion(0.1, 100));
        assert_eq!(bench.breaker.next_deadline(), Some(at(100)));
        assert!(bench.breaker.needs_every_success());
        if ends_by_time {
            bench.tick(100);
        } else {
            bench.breaker.suspect(at(50), None);
        }
        assert_eq!(bench.breaker.suspicion(), None);
        assert_eq!(bench.breaker.next_deadline(), None);
        assert!(!bench.breaker.needs_every_success());
        assert_eq!(bench.fail(100, 2), Closed);
        assert_eq!(bench.fail(100, 1), Open);
    }
}

#[test]
fn flt_7_a_probe_waits_for_the_lease_and_only_with_a_call_at_hand() {
    let mut bench = Bench::new(leased());
    bench.fail(0, 3);
    bench.events();
    assert_eq!(bench.tick(5_000), Open, "time alone asks for nothing");
    assert_eq!(bench.breaker.next_deadline(), None);
    assert!(bench.events().is_empty());
    for _ in 0..2 {
        let refusal = bench.refuse(5_000);
        assert_eq!(refusal.state, RefusalState::AwaitingLease);
        assert_eq!(refusal.retry_after, Some(250 * MS));
    }
    let due = BreakerEvent::ProbeDue {
        at: at(5_000),
        generation: 1,
    };
    assert_eq!(bench.events(), [due], "it asks once");
    assert!(bench.breaker.awaits_lease(at(5_249)));
    assert!(!bench.breaker.awaits_lease(at(5_250)), "then alone");
    bench.command(5_100, BreakerCommand::Grant);
    assert_eq!(bench.breaker.state(), HalfOpen);
    assert!(!bench.breaker.awaits_lease(at(5_100)));
    assert!(bench.admit(5_100).is_probe());
}

#[test]
fn flt_1_without_an_answer_it_probes_alone() {
    let mut bench = Bench::new(leased());
    bench.fail(0, 3);
    bench.refuse(1_000);
    assert_eq!(bench.breaker.next_deadline(), Some(at(1_250)));
    assert_eq!(bench.refuse(1_249).state, RefusalState::AwaitingLease);
    assert!(bench.admit(1_250).is_probe());
}

#[test]
fn flt_7_a_grant_that_comes_early_or_late_changes_nothing() {
    let mut bench = Bench::new(leased());
    bench.command(0, BreakerCommand::Grant);
    assert_eq!(bench.breaker.state(), Closed);
    bench.fail(0, 3);
    bench.command(999, BreakerCommand::Grant);
    assert_eq!(bench.breaker.state(), Open);
}

#[test]
fn flt_8_a_hold_only_lengthens_and_keeps_the_generation() {
    let mut bench = Bench::new(leased());
    bench.fail(0, 3);
    let generation = bench.breaker.generation();
    bench.command(500, hold(100, 0));
    assert_eq!(bench.refuse(500).retry_after, Some(500 * MS));
    bench.refuse(1_000);
    bench.command(1_000, hold(2_000, 4));
    assert_eq!(bench.refuse(1_000).retry_after, Some(2_000 * MS));
    assert_eq!(bench.breaker.view(at(1_000)).open_attempt, 4);
    assert_eq!(bench.breaker.generation(), generation);
    assert_eq!(bench.refuse(2_999).state, RefusalState::Open);
    assert_eq!(bench.refuse(3_000).state, RefusalState::AwaitingLease);
    let mut closed = Bench::new(settings());
    closed.command(0, hold(1_000, 1));
    assert_eq!(closed.breaker.state(), Closed);
}

#[test]
fn flt_8_a_verdict_closes_what_its_rules_opened_and_no_override_or_hint() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    bench.command(10, recovered());
    assert_eq!(bench.breaker.state(), Closed);
    assert_eq!(bench.moves(), [(Closed, Open), (Open, Closed)]);

    bench.fail(20, 2);
    let permit = bench.admit(20);
    let mut outcome = Outcome::new(Class::Failure, MS);
    outcome.retry_after = Some(60_000 * MS);
    bench.finish(20, permit, &outcome);
    bench.command(30, recovered());
    assert_eq!(bench.breaker.state(), Open, "the dependency asked for it");

    let mut forced = Bench::new(settings());
    let reason = reason();
    forced.command(
        0,
        BreakerCommand::Open {
            reason,
            until: None,
        },
    );
    forced.command(10, recovered());
    assert_eq!(forced.refuse(10).state, RefusalState::ForcedOpen);
}

#[test]
fn flt_3_an_adopted_trip_has_a_reason_of_its_own() {
    let mut bench = Bench::new(settings());
    bench.command(0, adopt(700));
    assert_eq!(bench.refuse(0).retry_after, Some(700 * MS));
    let reason = bench.trip_reason();
    assert_eq!(reason, TripReason::Fleet { replicas: 2, of: 3 });
    assert_eq!(reason.to_string(), "2 of 3 replicas had it open");
    let generation = bench.breaker.generation();
    bench.command(10, adopt(9_000));
    assert_eq!(bench.breaker.generation(), generation, "it is open already");
    bench.tick(700);
    assert_eq!(bench.breaker.state(), HalfOpen);
    bench.command(700, adopt(9_000));
    assert_eq!(bench.breaker.state(), HalfOpen, "it finds out for itself");
}

#[test]
fn flt_12_an_override_of_this_replica_lies_above_that_of_the_fleet() {
    let set = |mode, until| {
        BreakerCommand::OfFleet(Some(Override {
            mode,
            reason: reason(),
            by: CommandSource::Operator,
            until,
        }))
    };
    let mut bench = Bench::new(settings());
    bench.command(0, set(OverrideMode::ForcedOpen, Some(at(100))));
    assert_eq!(bench.refuse(0).state, RefusalState::ForcedOpen);
    let by = bench.breaker.overridden().unwrap().by;
    assert_eq!(by, CommandSource::Fleet);
    let reason = reason();
    bench.command(
        0,
        BreakerCommand::Disable {
            reason,
            until: None,
        },
    );
    bench.call(0, Class::Success);
    bench.command(0, BreakerCommand::Clear);
    assert_eq!(bench.refuse(0).state, RefusalState::ForcedOpen);
    bench.tick(100);
    assert!(bench.breaker.overridden().is_none());
    bench.command(100, set(OverrideMode::ForcedOpen, None));
    bench.command(100, BreakerCommand::OfFleet(None));
    bench.call(100, Class::Success);
}

#[test]
fn flt_7_an_active_probe_asks_for_the_lease_as_a_caller_does() {
    let mut bench = Bench::new(leased());
    bench.fail(0, 3);
    bench.events();
    assert_eq!(bench.breaker.admit_active_probe(at(999)), None);
    assert_eq!(bench.events(), [], "its open time is not over");
    assert_eq!(bench.breaker.admit_active_probe(at(1_000)), None);
    let due = BreakerEvent::ProbeDue {
        at: at(1_000),
        generation: 1,
    };
    assert_eq!(bench.events(), [due]);
    bench.command(1_010, BreakerCommand::Grant);
    let probe = bench.breaker.admit_active_probe(at(1_010));
    assert!(probe.is_some_and(|permit| permit.is_probe()));
}

#[test]
fn flt_7_another_deadline_makes_no_breaker_half_open_without_the_lease() {
    let mut bench = Bench::new(leased());
    bench.fail(0, 3);
    bench.breaker.suspect(at(0), suspicion(0.5, 2_000));
    assert_eq!(bench.breaker.next_deadline(), Some(at(2_000)));
    assert_eq!(bench.tick(2_000), Open, "its open time is over at 1 s");
}

#[test]
fn flt_7_without_probes_there_is_nothing_to_lease() {
    let mut closing = leased();
    closing.half_open.rule = HalfOpenRule::AutoClose;
    let mut bench = Bench::new(closing);
    bench.fail(0, 3);
    assert_eq!(bench.breaker.next_deadline(), Some(at(1_000)));
    assert_eq!(bench.tick(1_000), Closed);
}

#[test]
fn flt_4_a_suspicion_stands_until_its_end_and_one_at_its_end_is_none() {
    let mut bench = Bench::new(settings());
    bench.breaker.suspect(at(0), suspicion(0.1, 100));
    assert_eq!(bench.breaker.suspicion(), suspicion(0.1, 100));
    bench.breaker.suspect(at(100), suspicion(0.1, 100));
    assert_eq!(bench.breaker.suspicion(), None);
}
