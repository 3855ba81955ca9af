use super::*;
use State::{Closed, Open};

fn slow_rates(minimum_calls: u32) -> BreakerSettings {
    BreakerSettings {
        failure_rate: None,
        slow_rate: Some(rate(0.5)),
        slow_call: Some(100 * MS),
        ..rates(100, minimum_calls)
    }
}

#[test]
fn brk_1_a_rate_waits_for_its_minimum_and_is_judged_on_a_success_too() {
    let mut bench = Bench::new(rates(10, 4));
    assert_eq!(bench.fail(0, 2), Closed);
    assert_eq!(bench.call(0, Class::Success), Closed);
    assert_eq!(bench.call(0, Class::Success), Open);
}

#[test]
fn brk_14_a_rate_is_told_from_its_minimum_on_and_before_that_how_many_of_how_many() {
    let mut bench = Bench::new(BreakerSettings {
        slow_call: Some(100 * MS),
        ..rates(10, 4)
    });
    let told = |bench: &Bench| {
        let view = bench.breaker.view(at(0));
        let (counts, minimum) = (view.counts, view.minimum_calls);
        let rates = (counts.failure_rate(minimum), counts.slow_rate(minimum));
        (counts.calls, minimum, rates)
    };
    assert_eq!(told(&bench), (0, 4, (None, None)));
    bench.fail(0, 1);
    bench.call(0, Class::Success);
    bench.call(0, Class::Success);
    assert_eq!(told(&bench), (3, 4, (None, None)));
    bench.call(0, Class::Success);
    assert_eq!(told(&bench), (4, 4, (Some(0.25), Some(0.0))));
}

#[test]
fn brk_14_the_minimum_of_a_small_window_is_its_size_and_of_probes_the_results_they_wait_for() {
    let small = Bench::new(rates(4, 100));
    assert_eq!(small.breaker.view(at(0)).minimum_calls, 4);
    let mut bench = Bench::new(BreakerSettings {
        half_open: HalfOpenSettings {
            max_calls: n(3),
            rule: crate::HalfOpenRule::Rate { results: n(3) },
            ..settings().half_open
        },
        ..rates(4, 4)
    });
    assert_eq!(bench.fail(0, 4), Open);
    assert_eq!(bench.breaker.view(at(0)).counts.failure_rate(4), None);
    let probe = bench.admit(1_000);
    bench.report(1_000, probe, Class::Success);
    let view = bench.breaker.view(at(1_000));
    assert_eq!((view.counts.calls, view.minimum_calls), (1, 3));
    assert_eq!(view.counts.failure_rate(view.minimum_calls), None);
}

#[test]
fn brk_1_a_rate_just_below_does_not_open() {
    let mut bench = Bench::new(rates(1_000, 1_000));
    for _ in 0..501 {
        bench.call(0, Class::Success);
    }
    assert_eq!(bench.fail(0, 499), Closed, "499 of 1000");
    assert_eq!(
        bench.fail(0, 1),
        Open,
        "the first success is gone: 500 of 1000"
    );
}

#[test]
fn brk_1_a_minimum_larger_than_the_window_is_the_window() {
    let mut bench = Bench::new(rates(4, 100));
    assert_eq!(bench.fail(0, 3), Closed);
    assert_eq!(bench.fail(0, 1), Open);
}

#[test]
fn brk_1_failures_are_counted_in_the_last_span_only() {
    let mut bench = Bench::new(BreakerSettings {
        window: WindowKind::Time {
            span: 10_000 * MS,
            buckets: n(10),
        },
        ..settings()
    });
    bench.fail(0, 1);
    bench.fail(6_000, 1);
    assert_eq!(bench.fail(12_000, 1), Closed);
    assert_eq!(bench.fail(13_000, 1), Open);
}

#[test]
fn brk_1_a_run_of_failures_opens_whatever_the_window() {
    let mut bench = Bench::new(BreakerSettings {
        consecutive_failures: Some(n(3)),
        ..rates(1_000, 1_000)
    });
    bench.fail(0, 2);
    bench.call(0, Class::Success);
    assert_eq!(bench.fail(0, 2), Closed);
    assert_eq!(bench.fail(0, 1), Open);
}

#[test]
fn brk_9_slow_calls_open_by_their_rate_failed_or_not() {
    let mut bench = Bench::new(slow_rates(4));
    for (class, elapsed, state) in [
        (Class::Success, 99, Closed),
        (Class::Success, 100, Closed),
        (Class::Success, 99, Closed),
        (Class::Failure, 100, Open),
    ] {
        let permit = bench.admit(0);
        bench.finish(0, permit, &Outcome::new(class, elapsed * MS));
        assert_eq!(bench.breaker.state(), state);
    }
}

#[test]
fn brk_9_a_total_hang_opens_before_any_call_ends() {
    let mut bench = Bench::new(slow_rates(4));
    let mut overdue = |calls| {
        bench.breaker.set_overdue(at(200), calls, &mut || 0.0);
        bench.breaker.state()
    };
    assert_eq!(overdue(3), Closed);
    assert_eq!(overdue(4), Open);
    let text = bench.trip_reason().to_string();
    assert_eq!(
        text,
        "4 of 4 calls were slow (4 still running), at or above 0.5"
    );
    assert_eq!(bench.breaker.view(at(200)).overdue, 0, "a new generation");
}

#[test]
fn cfg_2_a_reload_keeps_the_counters_unless_the_window_changes() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 2);
    let permit = bench.admit(0);
    bench.breaker.reconfigure(
        at(0),
        BreakerSettings {
            failure_threshold: Some(n(4)),
            ..settings()
        },
    );
    assert_eq!(
        bench.report(0, permit, Class::Failure),
        RecordResult::Counted
    );
    assert_eq!(bench.counts(0).failures, 3);
    let generation = bench.breaker.generation();
    let permit = bench.admit(0);
    bench.breaker.reconfigure(at(0), rates(10, 4));
    assert_eq!(bench.breaker.generation(), generation + 1);
    assert_eq!(bench.report(0, permit, Class::Failure), RecordResult::Late);
    assert_eq!(bench.counts(0), WindowCounts::default());
}

#[test]
fn cfg_2_a_reload_while_open_keeps_the_open_time() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    bench.breaker.reconfigure(at(0), rates(10, 4));
    assert_eq!(bench.refuse(0).retry_after, Some(1_000 * MS));
}

#[test]
fn call_3_successes_may_be_counted_elsewhere_until_a_rate_can_be_reached() {
    let mut bench = Bench::new(rates(10, 4));
    assert!(!bench.breaker.needs_every_success());
    bench.fail(0, 1);
    assert!(!bench.breaker.needs_every_success());
    bench.fail(0, 1);
    assert!(bench.breaker.needs_every_success(), "two of four would do");
    bench.breaker.record_successes(at(0), 0, 5, &mut || 0.0);
    assert_eq!(bench.breaker.state(), Open);
    let tally = *bench.breaker.view(at(0)).tally;
    assert_eq!(
        (tally.successes, tally.late),
        (2, 3),
        "the rest came after the trip"
    );
}

#[test]
fn call_3_successes_of_another_generation_are_late() {
    let mut bench = Bench::new(settings());
    bench.breaker.record_successes(at(0), 7, 5, &mut || 0.0);
    assert_eq!(bench.breaker.view(at(0)).tally.late, 5);
    bench.breaker.record_successes(at(0), 0, 5, &mut || 0.0);
    assert_eq!(bench.counts(0).calls, 5);
}

#[test]
fn call_3_a_reload_to_fewer_failures_needs_the_next_success() {
    let failures = |most| BreakerSettings {
        window: WindowKind::Count { size: n(10) },
        failure_threshold: Some(n(most)),
        ..settings()
    };
    for (most, needed) in [(3, false), (2, true)] {
        let mut bench = Bench::new(failures(3));
        bench.fail(0, 2);
        bench.breaker.reconfigure(at(0), failures(most));
        assert_eq!(bench.breaker.needs_every_success(), needed, "{most}");
        let after = bench.call(0, Class::Success);
        assert_eq!(after == State::Open, needed, "{most}");
    }
    // In a row, a success never opens it, however many have failed before.
    let mut bench = Bench::new(settings());
    for class in [
        Class::Failure,
        Class::Failure,
        Class::Success,
        Class::Failure,
    ] {
        bench.call(0, class);
    }
    assert!(!bench.breaker.needs_every_success());
}
