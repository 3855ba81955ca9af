use super::*;
use State::{Closed, HalfOpen, Open};

fn open(until: Option<Time>) -> BreakerCommand {
    BreakerCommand::Open {
        reason: reason(),
        until,
    }
}

fn disable() -> BreakerCommand {
    BreakerCommand::Disable {
        reason: reason(),
        until: None,
    }
}

fn shadow(until: Option<Time>) -> BreakerCommand {
    BreakerCommand::Shadow {
        reason: reason(),
        until,
    }
}

fn reset() -> BreakerCommand {
    BreakerCommand::Reset { reason: reason() }
}

#[test]
fn brk_10_forced_open_refuses_and_taking_it_off_shows_the_true_state() {
    let mut bench = Bench::new(settings());
    bench.command(0, open(None));
    let refusal = bench.refuse(0);
    assert_eq!(refusal.state, RefusalState::ForcedOpen);
    assert_eq!(refusal.retry_after, None);
    assert_eq!(bench.breaker.state(), Closed);
    bench.command(0, BreakerCommand::Clear);
    assert!(!bench.admit(0).is_probe());
    assert_eq!(bench.moves(), [], "the automatic state never moved");
}

#[test]
fn brk_10_an_override_ends_by_itself_at_its_time() {
    let mut bench = Bench::new(settings());
    bench.command(0, open(Some(at(100))));
    assert_eq!(bench.breaker.next_deadline(), Some(at(100)));
    assert_eq!(bench.refuse(99).retry_after, Some(MS));
    assert!(!bench.admit(100).is_probe());
    let events = bench.events();
    assert!(matches!(
        events.last(),
        Some(BreakerEvent::OverrideRemoved {
            cause: BreakerCause::OverrideExpired,
            ..
        })
    ));
}

#[test]
fn brk_10_disabled_admits_everything_and_records_nothing() {
    let mut bench = Bench::new(settings());
    bench.command(0, disable());
    for _ in 0..10 {
        let permit = bench.admit(0);
        assert_eq!(
            bench.report(0, permit, Class::Failure),
            RecordResult::Unrecorded
        );
    }
    assert_eq!(bench.counts(0), WindowCounts::default());
    let late = bench.admit(0);
    bench.command(0, BreakerCommand::Clear);
    assert_eq!(
        bench.report(0, late, Class::Failure),
        RecordResult::Unrecorded
    );
}

#[test]
fn brk_10_shadow_measures_says_once_that_it_would_trip_and_never_does() {
    let mut bench = Bench::new(settings());
    bench.command(0, shadow(None));
    bench.events();
    assert_eq!(bench.fail(0, 10), Closed);
    assert_eq!(bench.counts(0).failures, 10);
    let events = bench.events();
    assert!(
        matches!(events[..], [BreakerEvent::WouldTrip { .. }]),
        "{events:?}"
    );
}

#[test]
fn brk_10_shadow_over_an_open_breaker_lets_its_time_run_on() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    bench.command(0, shadow(None));
    assert_eq!(bench.call(10, Class::Failure), Open);
    bench.tick(1_000);
    assert_eq!(bench.call(1_000, Class::Failure), HalfOpen);
    bench.command(1_000, BreakerCommand::Clear);
    assert!(bench.admit(1_000).is_probe());
}

#[test]
fn brk_10_the_supervisors_park_lies_over_the_operators_will() {
    let mut bench = Bench::new(settings());
    bench.command(0, disable());
    bench.command(0, BreakerCommand::Park { reason: reason() });
    bench.refuse(0);
    let by = bench.breaker.overridden().map(|set| set.by);
    assert_eq!(by, Some(CommandSource::Supervisor));
    bench.command(0, BreakerCommand::Unpark);
    assert_eq!(bench.admit(0).kind(), PermitKind::Unrecorded);
    let generation = bench.breaker.generation();
    bench.command(0, BreakerCommand::Unpark);
    assert_eq!(
        bench.breaker.generation(),
        generation,
        "nothing to take off"
    );
}

#[test]
fn brk_3_every_command_starts_a_generation() {
    let commands = [
        open(None),
        disable(),
        shadow(None),
        BreakerCommand::Clear,
        BreakerCommand::Clear,
        BreakerCommand::Close { reason: reason() },
        reset(),
        BreakerCommand::Park { reason: reason() },
        BreakerCommand::Unpark,
        trip(None),
        trip(None),
        probe(),
        probe(),
    ];
    let mut bench = Bench::new(settings());
    for command in commands {
        let before = bench.breaker.generation();
        bench.command(0, command.clone());
        assert!(bench.breaker.generation() > before, "{command:?}");
    }
}

#[test]
fn brk_10_closed_cannot_be_made_half_open() {
    let mut bench = Bench::new(settings());
    let refused = bench.breaker.command(at(0), probe(), &mut || 0.0);
    let error = refused.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a breaker that is closed cannot become half_open"
    );
    assert_eq!(bench.breaker.generation(), 0);
}

#[test]
fn brk_10_a_probe_by_command_begins_a_period_of_its_own() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    bench.command(0, probe());
    let old = bench.admit(0);
    bench.refuse(0);
    bench.command(0, probe());
    let fresh = bench.admit(0);
    assert_eq!(bench.report(0, old, Class::Failure), RecordResult::Late);
    assert_eq!(
        bench.report(0, fresh, Class::Success),
        RecordResult::Counted
    );
    assert_eq!(bench.breaker.state(), Closed);
}

#[test]
fn brk_10_a_trip_by_command_opens_for_its_wait_and_is_not_repeated() {
    let mut bench = Bench::new(settings());
    bench.command(0, trip(Some(7_000 * MS)));
    bench.command(0, trip(None));
    bench.command(0, trip(Some(5_000 * MS)));
    assert_eq!(bench.refuse(0).retry_after, Some(7_000 * MS));
    bench.command(0, trip(Some(9_000 * MS)));
    assert_eq!(bench.refuse(0).retry_after, Some(9_000 * MS));
    assert_eq!(bench.moves(), [(Closed, Open)]);
}

#[test]
fn brk_10_reset_closes_and_sets_every_counter_to_zero() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    bench.refuse(0);
    bench.command(0, open(None));
    bench.command(0, reset());
    let view = bench.breaker.view(at(0));
    assert_eq!((view.state, view.overridden), (Closed, None));
    assert_eq!(*view.tally, EndedPermits::default());
    assert_eq!(bench.moves(), [(Closed, Open), (Open, Closed)]);
    bench.fail(0, 2);
    bench.command(0, reset());
    assert_eq!(bench.counts(0), WindowCounts::default());
    assert_eq!(bench.moves(), []);
}

#[test]
fn brk_10_close_keeps_the_totals() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    bench.command(0, BreakerCommand::Close { reason: reason() });
    assert_eq!(bench.breaker.state(), Closed);
    assert_eq!(bench.breaker.view(at(0)).tally.failures, 3);
}

#[test]
fn events_that_nobody_fetches_are_bounded() {
    let mut bench = Bench::new(settings());
    for _ in 0..200 {
        bench.command(0, open(None));
    }
    assert_eq!(bench.events().len(), MAX_EVENTS);
}

fn configure(mode: Option<OverrideMode>) -> BreakerCommand {
    let set = mode.map(|mode| ConfiguredOverride {
        mode,
        reason: reason(),
    });
    BreakerCommand::Configure { set }
}

#[test]
fn hlt_3_an_operators_order_covers_the_configurations_and_uncovers_it_again() {
    let mut bench = Bench::new(settings());
    bench.command(0, configure(Some(OverrideMode::ForcedOpen)));
    assert_eq!(bench.refuse(0).state, RefusalState::ForcedOpen);
    bench.command(0, disable());
    assert!(!bench.admit(0).is_probe());
    for command in [
        BreakerCommand::Close { reason: reason() },
        reset(),
        BreakerCommand::Clear,
    ] {
        bench.command(1, command);
        let set = bench.breaker.overridden().unwrap();
        assert_eq!(set.by, CommandSource::Configuration);
        assert_eq!(bench.refuse(1).state, RefusalState::ForcedOpen);
    }
    bench.command(2, configure(None));
    assert_eq!(bench.breaker.overridden(), None);
    assert!(!bench.admit(2).is_probe());
}

#[test]
fn hlt_3_another_override_of_the_configuration_takes_the_place_of_the_former() {
    let mut bench = Bench::new(settings());
    bench.command(0, configure(Some(OverrideMode::ForcedOpen)));
    bench.command(0, configure(Some(OverrideMode::Shadow)));
    assert_eq!(bench.fail(0, 10), Closed);
    let removed = |event: &BreakerEvent| matches!(event, BreakerEvent::OverrideRemoved { .. });
    assert!(!bench.events().iter().any(removed));
}

#[test]
fn brk_13_an_active_probe_has_the_permits_of_calls_and_none_of_its_own() {
    let mut bench = Bench::new(settings());
    let permit = bench.breaker.admit_active_probe(at(0)).unwrap();
    assert!(!permit.is_probe());
    bench.report(0, permit, Class::Failure);
    assert_eq!(bench.counts(0).failures, 1);
    bench.fail(0, 2);
    assert!(bench.breaker.admit_active_probe(at(999)).is_none());
    // The end of the open time is found without a call.
    let permit = bench.breaker.admit_active_probe(at(1_000)).unwrap();
    assert!(permit.is_probe());
    assert!(bench.breaker.admit_active_probe(at(1_000)).is_none());
    assert_eq!(bench.breaker.view(at(1_000)).tally.refused, 0);
    assert_eq!(bench.refuse(1_000).state, RefusalState::HalfOpen);
    bench.report(1_001, permit, Class::Success);
    assert_eq!(bench.breaker.state(), Closed);
    for command in [open(None), disable(), shadow(None)] {
        bench.command(2_000, command);
        assert!(bench.breaker.admit_active_probe(at(2_000)).is_none());
    }
}

#[test]
fn brk_3_taking_overrides_off_begins_one_generation_for_each() {
    for parked in [false, true] {
        for operated in [false, true] {
            let mut bench = Bench::new(settings());
            if parked {
                bench.command(0, BreakerCommand::Park { reason: reason() });
            }
            if operated {
                bench.command(0, disable());
            }
            let before = bench.breaker.generation();
            bench.command(0, BreakerCommand::Clear);
            let begun = bench.breaker.generation() - before;
            let removed = u64::from(parked) + u64::from(operated);
            assert_eq!(
                begun,
                removed.max(1),
                "parked {parked}, operated {operated}"
            );
        }
    }
}

#[test]
fn brk_10_what_a_gate_reports_while_disabled_is_not_recorded() {
    let mut bench = Bench::new(settings());
    bench.command(0, disable());
    let generation = bench.breaker.generation();
    let permit = Permit::normal(generation, at(0));
    let recorded = bench.report(0, permit, Class::Failure);
    assert_eq!(recorded, RecordResult::Unrecorded);
    let breaker = &mut bench.breaker;
    breaker.record_successes(at(0), generation, 5, &mut || 0.0);
    let tally = *breaker.view(at(0)).tally;
    assert_eq!((tally.unrecorded, tally.recorded, tally.late), (6, 0, 0));
}
