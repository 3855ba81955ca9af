use super::*;
use State::{Closed, HalfOpen, Open};

/// A breaker that is half-open at 1,000 ms, with this rule.
fn half_open(max_calls: u32, rule: HalfOpenRule) -> Bench {
    half_open_with(BreakerSettings {
        half_open: HalfOpenSettings {
            max_calls: n(max_calls),
            rule,
            ..settings().half_open
        },
        ..settings()
    })
}

fn half_open_with(settings: BreakerSettings) -> Bench {
    let mut bench = Bench::new(settings);
    bench.command(0, trip(Some(1_000 * MS)));
    assert_eq!(bench.tick(1_000), HalfOpen);
    bench.events();
    bench
}

#[test]
fn brk_4_no_more_probes_at_once_than_set() {
    let mut bench = half_open(2, HalfOpenRule::Successes(n(2)));
    let (one, _two) = (bench.admit(1_000), bench.admit(1_000));
    let refusal = bench.refuse(1_100);
    assert_eq!(refusal.state, RefusalState::HalfOpen);
    assert_eq!(refusal.retry_after, Some(400 * MS), "until the lease ends");
    bench.report(1_100, one, Class::Success);
    assert!(bench.admit(1_100).is_probe());
    bench.refuse(1_100);
}

#[test]
fn brk_4_no_more_probes_in_all_than_set_but_enough_to_decide() {
    let limited = |most, needed| {
        half_open_with(BreakerSettings {
            half_open: HalfOpenSettings {
                max_calls: n(9),
                max_admitted: Some(n(most)),
                rule: HalfOpenRule::Successes(n(needed)),
                ..settings().half_open
            },
            ..settings()
        })
    };
    let mut bench = limited(3, 3);
    bench.call(1_000, Class::Success);
    let (_a, _b) = (bench.admit(1_000), bench.admit(1_000));
    bench.refuse(1_000);
    let mut bench = limited(1, 2);
    bench.call(1_000, Class::Success);
    assert_eq!(bench.call(1_000, Class::Success), Closed, "never stuck");
}

#[test]
fn brk_4_n_successes_close_and_any_failure_opens() {
    let mut bench = half_open(1, HalfOpenRule::Successes(n(3)));
    bench.call(1_000, Class::Success);
    assert_eq!(bench.call(1_000, Class::Success), HalfOpen);
    let period = bench.breaker.view(at(1_000)).half_open.unwrap();
    assert_eq!((period.successes, period.needed), (2, 3));
    assert_eq!(bench.call(1_000, Class::Success), Closed);
    let mut bench = half_open(1, HalfOpenRule::Successes(n(3)));
    bench.call(1_000, Class::Success);
    assert_eq!(bench.call(1_000, Class::Failure), Open);
    assert_eq!(bench.trip_reason(), TripReason::ProbeFailed);
    assert_eq!(bench.tick(2_000), HalfOpen);
    let period = bench.breaker.view(at(2_000)).half_open.unwrap();
    assert_eq!(period.successes, 0);
}

#[test]
fn brk_4_rates_are_judged_over_exactly_n_results() {
    use Class::{Failure, Success};
    for (last, state) in [(Failure, Open), (Success, Closed)] {
        let mut bench = half_open_with(BreakerSettings {
            half_open: HalfOpenSettings {
                rule: HalfOpenRule::Rate { results: n(4) },
                ..settings().half_open
            },
            ..rates(100, 50)
        });
        for class in [Failure, Success, Success] {
            assert_eq!(bench.call(1_000, class), HalfOpen);
        }
        assert_eq!(bench.call(1_000, last), state);
    }
}

#[test]
fn brk_4_k_of_n_is_decided_as_early_as_it_is_certain() {
    let rule = HalfOpenRule::KOfN {
        needed: n(3),
        of: n(4),
    };
    let mut bench = half_open(4, rule);
    bench.call(1_000, Class::Failure);
    assert_eq!(bench.call(1_000, Class::Success), HalfOpen);
    assert_eq!(bench.call(1_000, Class::Failure), Open);
    let mut bench = half_open(4, rule);
    bench.call(1_000, Class::Success);
    bench.call(1_000, Class::Success);
    assert_eq!(bench.call(1_000, Class::Success), Closed);
}

#[test]
fn brk_4_a_slow_success_is_no_success() {
    let slow = |elapsed| {
        let mut bench = half_open_with(BreakerSettings {
            slow_call: Some(100 * MS),
            ..settings()
        });
        let permit = bench.admit(1_000);
        bench.finish(1_000, permit, &Outcome::new(Class::Success, elapsed));
        bench.breaker.state()
    };
    assert_eq!(slow(100 * MS - Duration::from_nanos(1)), Closed);
    assert_eq!(slow(100 * MS), Open);
}

#[test]
fn brk_5_a_silent_probe_counts_as_failed_when_its_lease_ends() {
    let mut bench = half_open(1, HalfOpenRule::Successes(n(1)));
    let lost = bench.admit(1_000);
    assert_eq!(bench.breaker.next_deadline(), Some(at(1_500)));
    assert_eq!(bench.tick(1_499), HalfOpen);
    assert_eq!(bench.tick(1_500), Open);
    assert_eq!(
        bench.trip_reason(),
        TripReason::ProbeLost { lease: 500 * MS }
    );
    assert_eq!(
        bench.report(1_500, lost, Class::Success),
        RecordResult::Late
    );
    assert!(bench.admit(2_500).is_probe());
}

#[test]
fn brk_5_an_admission_finds_a_lost_probe_without_a_timer() {
    let mut bench = half_open(1, HalfOpenRule::Successes(n(1)));
    let _lost = bench.admit(1_000);
    assert_eq!(bench.refuse(1_600).state, RefusalState::Open);
}

#[test]
fn brk_5_a_probe_that_reports_at_its_leases_end_is_too_late() {
    let mut bench = half_open(1, HalfOpenRule::Successes(n(1)));
    let probe = bench.admit(1_000);
    assert_eq!(
        bench.report(1_500, probe, Class::Success),
        RecordResult::Late
    );
    assert_eq!(bench.breaker.state(), Open);
}

#[test]
fn brk_5_a_lost_probe_may_free_its_slot_instead() {
    let mut bench = half_open_with(BreakerSettings {
        half_open: HalfOpenSettings {
            max_admitted: Some(n(1)),
            lost_probe: LostProbe::FreesItsSlot,
            ..settings().half_open
        },
        ..settings()
    });
    let lost = bench.admit(1_000);
    bench.refuse(1_499);
    let next = bench.admit(1_500);
    assert_eq!(
        bench.report(1_500, lost, Class::Failure),
        RecordResult::Late
    );
    assert_eq!(
        bench.report(1_500, next, Class::Success),
        RecordResult::Counted
    );
    assert_eq!(bench.breaker.view(at(1_500)).tally.lost_probes, 1);
    assert_eq!(bench.breaker.state(), Closed);
}

#[test]
fn brk_6_a_probe_given_back_unused_frees_its_slot() {
    let mut bench = half_open(1, HalfOpenRule::Successes(n(1)));
    let probe = bench.admit(1_000);
    bench.refuse(1_000);
    bench.breaker.release(at(1_000), probe);
    for class in [Class::Rejected, Class::Throttled, Class::Cancelled] {
        assert_eq!(bench.call(1_000, class), HalfOpen);
    }
    assert_eq!(bench.call(1_000, Class::Success), Closed);
    assert_eq!(bench.breaker.view(at(1_000)).tally.released, 1);
}

#[test]
fn brk_6_a_cancelled_probe_opens_it_again_where_that_is_set() {
    let mut bench = half_open_with(BreakerSettings {
        half_open: HalfOpenSettings {
            cancelled_probe_reopens: true,
            ..settings().half_open
        },
        ..settings()
    });
    assert_eq!(bench.call(1_000, Class::Cancelled), Open);
    assert_eq!(bench.trip_reason(), TripReason::ProbeCancelled);
}

#[test]
fn brk_5_a_half_open_period_ends_at_its_limit() {
    for (closes, state) in [(false, Open), (true, Closed)] {
        let mut bench = half_open_with(BreakerSettings {
            half_open: HalfOpenSettings {
                limit: Some(crate::HalfOpenLimit {
                    after: 200 * MS,
                    closes,
                }),
                ..settings().half_open
            },
            ..settings()
        });
        assert_eq!(bench.breaker.next_deadline(), Some(at(1_200)));
        assert_eq!(bench.tick(1_199), HalfOpen);
        assert_eq!(bench.tick(1_200), state);
    }
}

#[test]
fn brk_3_a_reload_that_changes_how_it_probes_begins_the_period_anew() {
    let mut bench = half_open(1, HalfOpenRule::Successes(n(2)));
    bench.call(1_000, Class::Success);
    let old = bench.admit(1_000);
    let generation = bench.breaker.generation();
    bench.breaker.reconfigure(at(1_000), settings());
    assert_eq!(bench.breaker.generation(), generation + 1);
    assert_eq!(bench.report(1_000, old, Class::Failure), RecordResult::Late);
    assert_eq!(bench.call(1_000, Class::Success), Closed);
}

#[test]
fn brk_14_the_minimum_is_that_of_the_counts_that_are_shown() {
    let results = n(3);
    let mut bench = Bench::new(BreakerSettings {
        half_open: HalfOpenSettings {
            rule: HalfOpenRule::Rate { results },
            max_calls: results,
            ..settings().half_open
        },
        ..rates(20, 4)
    });
    assert_eq!(bench.breaker.view(at(0)).minimum_calls, 4);
    bench.fail(0, 4);
    let probe = bench.admit(1_000);
    assert_eq!(bench.breaker.view(at(1_000)).minimum_calls, 3);
    bench.report(1_000, probe, Class::Success);
    let probe = bench.admit(1_000);
    bench.report(1_000, probe, Class::Success);
    let view = bench.breaker.view(at(1_000)).half_open;
    assert_eq!(view.map(|one| (one.results, one.needed)), Some((2, 3)));
}

#[test]
fn brk_11_progress_is_told_of_a_good_probe_after_which_more_are_needed() {
    let k_of_n = HalfOpenRule::KOfN {
        needed: n(2),
        of: n(3),
    };
    let mut bench = half_open(1, k_of_n);
    bench.call(1_000, Class::Failure);
    assert_eq!(bench.events(), [], "a failed probe is no progress");
    bench.call(1_000, Class::Success);
    let progress = BreakerEvent::HalfOpenProgress {
        at: at(1_000),
        generation: bench.breaker.generation(),
        successes: 1,
        needed: 2,
    };
    assert_eq!(bench.events(), [progress]);
    bench.call(1_000, Class::Success);
    let events = bench.events();
    assert!(
        matches!(events[..], [BreakerEvent::Transition { .. }]),
        "the last one is told by the transition: {events:?}"
    );
}
