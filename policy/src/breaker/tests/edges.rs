use super::*;
use crate::{FailureNote, Symptom};
use State::{Closed, HalfOpen, Open};

#[test]
fn brk_1_closed_stays_closed_below_the_threshold_and_opens_at_it() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.fail(0, 2), Closed);
    assert_eq!(bench.counts(0).failures, 2);
    assert_eq!(bench.fail(0, 1), Open);
    assert_eq!(bench.moves(), [(Closed, Open)]);
}

#[test]
fn brk_1_the_default_opens_at_five_failures_in_a_row_for_thirty_seconds() {
    let mut bench = Bench::new(BreakerSettings::default());
    assert_eq!(bench.fail(0, 4), Closed);
    assert_eq!(bench.fail(0, 1), Open);
    assert_eq!(bench.refuse(0).retry_after, Some(30_000 * MS));
    assert_eq!(bench.call(30_000, Class::Success), Closed);
}

#[test]
fn brk_8_open_refuses_until_its_last_instant_and_admits_at_the_boundary() {
    let mut bench = Bench::new(settings());
    bench.fail(7, 3);
    let refusal = bench.refuse(1_006);
    assert_eq!(refusal.state, RefusalState::Open);
    assert_eq!(refusal.retry_after, Some(MS));
    assert_eq!(refusal.generation, 1);
    assert!(bench.admit(1_007).is_probe());
    assert_eq!(bench.moves(), [(Closed, Open), (Open, HalfOpen)]);
}

#[test]
fn brk_8_time_alone_makes_it_half_open_at_its_deadline() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    assert_eq!(bench.breaker.next_deadline(), Some(at(1_000)));
    assert_eq!(bench.tick(999), Open);
    assert_eq!(bench.tick(1_000), HalfOpen);
    assert_eq!(bench.breaker.next_deadline(), None);
}

#[test]
fn brk_4_half_open_closes_after_a_good_probe() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    assert_eq!(bench.call(1_000, Class::Success), Closed);
    assert_eq!(bench.counts(1_000), WindowCounts::default());
    let moves = [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)];
    assert_eq!(bench.moves(), moves);
}

#[test]
fn brk_4_half_open_opens_again_after_a_bad_probe_for_a_full_open_time() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    assert_eq!(bench.call(1_500, Class::Failure), Open);
    assert_eq!(bench.refuse(2_499).retry_after, Some(MS));
    assert!(bench.admit(2_500).is_probe());
}

#[test]
fn brk_8_open_time_grows_with_each_failed_period_and_starts_again_after_a_close() {
    let growing = BreakerSettings {
        open: OpenTime {
            base: 1_000 * MS,
            factor: 2.0,
            max: 3_000 * MS,
            jitter: 0.5,
        },
        ..settings()
    };
    let mut bench = Bench::new(growing);
    bench.fail(0, 3);
    let wait = |bench: &Bench, millis| bench.breaker.view(at(millis)).retry_after.unwrap();
    assert_eq!(wait(&bench, 0), 1_000 * MS);
    bench.call(1_000, Class::Failure);
    assert_eq!(wait(&bench, 1_000), 2_000 * MS);
    bench.unit = 0.5;
    bench.call(3_000, Class::Failure);
    assert_eq!(
        wait(&bench, 3_000),
        3_750 * MS,
        "the maximum, and jitter on top"
    );
    assert_eq!(bench.breaker.view(at(3_000)).open_attempt, 2);
    bench.unit = 0.0;
    bench.call(6_750, Class::Success);
    bench.fail(6_750, 3);
    assert_eq!(wait(&bench, 6_750), 1_000 * MS);
}

#[test]
fn brk_8_a_hint_lengthens_the_open_time_and_never_shortens_it() {
    for (hint, wait) in [(5_000, 5_000), (10, 1_000)] {
        let mut bench = Bench::new(settings());
        bench.fail(0, 2);
        let permit = bench.admit(0);
        let outcome = Outcome {
            retry_after: Some(hint * MS),
            ..Outcome::new(Class::Failure, MS)
        };
        bench.finish(0, permit, &outcome);
        assert_eq!(bench.refuse(0).retry_after, Some(wait * MS));
    }
}

#[test]
fn brk_8_a_wait_that_was_asked_for_is_told_apart_from_the_own_open_time() {
    for (hint, is_asked) in [(Some(5_000), true), (Some(10), false), (None, false)] {
        let mut bench = Bench::new(settings());
        bench.fail(0, 2);
        let permit = bench.admit(0);
        let outcome = Outcome {
            retry_after: hint.map(|hint| hint * MS),
            ..Outcome::new(Class::Failure, MS)
        };
        bench.finish(0, permit, &outcome);
        assert_eq!(
            bench.breaker.view(at(5)).wait_is_asked,
            is_asked,
            "{hint:?}"
        );
    }
}

#[test]
fn edge_8_a_trip_and_a_failed_probe_tell_the_last_failure() {
    let of = |symptom, limit| Outcome {
        cause: Some(FailureNote {
            symptom: Some(symptom),
            after: 300 * MS,
            limit,
            ..FailureNote::default()
        }),
        ..Outcome::new(Class::Failure, MS)
    };
    let status = of(Symptom::Status(500), None);
    let timeout = of(Symptom::Timeout, Some("timeout.attempt"));
    let mut bench = Bench::new(settings());
    bench.fail(0, 2);
    let permit = bench.admit(0);
    bench.finish(0, permit, &status);
    let told = bench.breaker.view(at(0)).cause.to_string();
    assert!(told.ends_with("; last: 500 from the dependency"), "{told}");
    bench.tick(1_000);
    let permit = bench.admit(1_000);
    bench.finish(1_000, permit, &timeout);
    let told = bench.breaker.view(at(1_000)).cause.to_string();
    assert!(
        told.ends_with("; last: no answer within 300 ms (timeout.attempt)"),
        "{told}"
    );
}

#[test]
fn brk_3_a_late_outcome_is_counted_and_changes_nothing() {
    let mut bench = Bench::new(settings());
    let (slow, slower) = (bench.admit(0), bench.admit(0));
    bench.fail(0, 3);
    assert_eq!(bench.report(10, slow, Class::Failure), RecordResult::Late);
    assert_eq!(
        bench.refuse(10).retry_after,
        Some(990 * MS),
        "the time stands"
    );
    assert_eq!(bench.tick(1_000), HalfOpen);
    assert_eq!(
        bench.report(1_000, slower, Class::Success),
        RecordResult::Late
    );
    assert_eq!(bench.breaker.state(), HalfOpen);
    assert!(bench.admit(1_000).is_probe(), "no probe was used up");
    assert_eq!(bench.breaker.view(at(1_000)).tally.late, 2);
}

#[test]
fn brk_3_an_outcome_of_an_earlier_closed_period_is_late_in_the_next() {
    let mut bench = Bench::new(settings());
    let old = bench.admit(0);
    bench.fail(0, 3);
    bench.call(1_000, Class::Success);
    bench.fail(1_000, 2);
    assert_eq!(bench.report(1_000, old, Class::Failure), RecordResult::Late);
    assert_eq!(bench.breaker.state(), Closed);
}

#[test]
fn brk_3_a_probe_of_an_earlier_period_is_late_in_the_next() {
    let mut bench = Bench::new(BreakerSettings {
        half_open: HalfOpenSettings {
            max_calls: n(2),
            ..settings().half_open
        },
        ..settings()
    });
    bench.fail(0, 3);
    let old = bench.admit(1_000);
    bench.call(1_000, Class::Failure);
    assert_eq!(bench.tick(2_000), HalfOpen);
    assert_eq!(bench.report(2_000, old, Class::Success), RecordResult::Late);
    assert_eq!(bench.breaker.state(), HalfOpen);
}

#[test]
fn brk_7_only_success_and_failure_feed_the_breaker() {
    let mut bench = Bench::new(settings());
    for class in [
        Class::Throttled,
        Class::Rejected,
        Class::Misconfigured,
        Class::Cancelled,
    ] {
        for _ in 0..100 {
            let permit = bench.admit(0);
            assert_eq!(bench.report(0, permit, class), RecordResult::Neutral);
        }
    }
    assert_eq!(bench.breaker.state(), Closed);
    assert_eq!(bench.counts(0), WindowCounts::default());
    assert_eq!(bench.breaker.view(at(0)).tally.neutral, 400);
}

#[test]
fn brk_7_a_neutral_outcome_does_not_end_a_run_of_failures() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 2);
    bench.call(0, Class::Rejected);
    assert_eq!(bench.fail(0, 1), Open);
}

#[test]
fn brk_6_a_cancelled_call_is_a_failure_when_the_policy_says_so() {
    let mut bench = Bench::new(BreakerSettings {
        cancelled: CancelledPolicy::Failure,
        ..settings()
    });
    for _ in 0..3 {
        bench.call(0, Class::Cancelled);
    }
    assert_eq!(bench.breaker.state(), Open);
    assert_eq!(bench.breaker.view(at(0)).tally.cancelled, 3);
}

#[test]
fn brk_6_cancelled_calls_are_failures_once_they_are_many() {
    let many = |fraction| BreakerSettings {
        cancelled: CancelledPolicy::Rate(rate(fraction)),
        ..rates(10, 3)
    };
    let mut bench = Bench::new(many(1.0));
    bench.call(0, Class::Success);
    for _ in 0..9 {
        assert_eq!(bench.call(0, Class::Cancelled), Closed);
    }
    let mut bench = Bench::new(many(1.0));
    bench.call(0, Class::Cancelled);
    assert_eq!(bench.call(0, Class::Cancelled), Closed);
    assert_eq!(bench.call(0, Class::Cancelled), Open);
    let mut bench = Bench::new(many(0.5));
    bench.call(0, Class::Success);
    bench.call(0, Class::Success);
    assert_eq!(bench.call(0, Class::Cancelled), Closed);
    assert_eq!(
        bench.call(0, Class::Cancelled),
        Open,
        "all of them count then"
    );
}

#[test]
fn brk_8_auto_close_has_no_half_open() {
    let mut bench = Bench::new(BreakerSettings {
        half_open: HalfOpenSettings {
            rule: HalfOpenRule::AutoClose,
            ..settings().half_open
        },
        ..settings()
    });
    bench.fail(0, 3);
    bench.refuse(999);
    assert!(!bench.admit(1_000).is_probe());
    assert_eq!(bench.moves(), [(Closed, Open), (Open, Closed)]);
}

#[test]
fn brk_8_no_wait_at_all_makes_every_call_after_a_trip_a_probe() {
    let mut bench = Bench::new(BreakerSettings {
        open: OpenTime {
            base: Duration::ZERO,
            ..OpenTime::default()
        },
        ..settings()
    });
    bench.fail(0, 3);
    for attempt in 1..5 {
        assert_eq!(bench.call(0, Class::Failure), Open);
        assert_eq!(bench.breaker.view(at(0)).open_attempt, attempt);
    }
}

#[test]
fn brk_11_a_trip_explains_itself_with_figures() {
    let mut bench = Bench::new(BreakerSettings {
        failure_rate: Some(rate(0.25)),
        ..rates(20, 20)
    });
    for _ in 0..15 {
        bench.call(0, Class::Success);
    }
    assert_eq!(bench.fail(0, 4), Closed);
    bench.fail(0, 1);
    let text = bench.trip_reason().to_string();
    assert_eq!(text, "5 of 20 calls failed, at or above 0.25");
}

#[test]
fn brk_12_a_crash_of_its_actor_keeps_the_verdict_and_forgets_the_permits() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    bench.breaker.recover(at(400));
    assert_eq!(bench.refuse(400).retry_after, Some(600 * MS));
    let lost = bench.admit(1_000);
    bench.breaker.recover(at(1_010));
    assert_eq!(bench.breaker.state(), HalfOpen);
    let fresh = bench.admit(1_010);
    assert_eq!(
        bench.report(1_010, lost, Class::Failure),
        RecordResult::Late
    );
    assert_eq!(
        bench.report(1_010, fresh, Class::Success),
        RecordResult::Counted
    );
    assert_eq!(bench.breaker.state(), Closed);
}

fn told(words: &'static str) -> FailureNote {
    FailureNote {
        words: Some(words),
        ..FailureNote::default()
    }
}

#[test]
fn edge_8_a_trip_has_the_cause_of_the_failure_that_decided() {
    let failure = |cause| Outcome {
        cause: Some(told(cause)),
        ..Outcome::new(Class::Failure, MS)
    };
    let trip_cause = |bench: &mut Bench| match bench.breaker.view(at(0)).cause {
        BreakerCause::Tripped { last_failure, .. } => *last_failure,
        other => panic!("it did not trip: {other}"),
    };
    let mut bench = Bench::new(settings());
    let late = bench.admit(0);
    bench.command(0, BreakerCommand::Clear);
    for cause in ["timed out", "connection refused"] {
        let permit = bench.admit(0);
        bench.finish(0, permit, &failure(cause));
    }
    bench.finish(0, late, &failure("of an earlier generation"));
    let permit = bench.admit(0);
    let rejected = Outcome {
        cause: Some(told("no failure")),
        ..Outcome::new(Class::Rejected, MS)
    };
    bench.finish(0, permit, &rejected);
    bench.call(0, Class::Failure);
    assert_eq!(trip_cause(&mut bench), None, "the last one told no cause");

    let mut bench = Bench::new(BreakerSettings {
        cancelled: CancelledPolicy::Failure,
        ..settings()
    });
    let late = bench.admit(0);
    bench.command(0, BreakerCommand::Clear);
    for cause in ["timed out", "connection refused"] {
        let permit = bench.admit(0);
        bench.finish(0, permit, &failure(cause));
    }
    bench.finish(0, late, &failure("of an earlier generation"));
    bench.call(0, Class::Rejected);
    assert_eq!(bench.call(0, Class::Cancelled), Open);
    assert_eq!(trip_cause(&mut bench), Some(told("connection refused")));
}

#[test]
fn brk_14_totals_tell_successes_from_failures_and_slow_calls() {
    let mut bench = Bench::new(BreakerSettings {
        slow_call: Some(10 * MS),
        ..settings()
    });
    for (class, elapsed) in [
        (Class::Success, 9),
        (Class::Success, 10),
        (Class::Success, 0),
        (Class::Failure, 9),
        (Class::Failure, 10),
    ] {
        let permit = bench.admit(0);
        bench.finish(0, permit, &Outcome::new(class, elapsed * MS));
    }
    let tally = *bench.breaker.view(at(0)).tally;
    assert_eq!((tally.recorded, tally.successes), (5, 3));
    assert_eq!((tally.failures, tally.slow), (2, 2));
}

#[test]
fn edge_8_a_trip_by_command_has_no_failure_as_its_cause() {
    let mut bench = Bench::new(settings());
    let permit = bench.admit(0);
    let failure = Outcome {
        cause: Some(told("timed out")),
        ..Outcome::new(Class::Failure, MS)
    };
    bench.finish(0, permit, &failure);
    bench.command(0, trip(None));
    let view = bench.breaker.view(at(0));
    let by_command = BreakerCause::Tripped {
        reason: TripReason::Commanded(reason()),
        last_failure: None,
    };
    assert_eq!((view.cause, view.tally.trips), (&by_command, 1));
    bench.tick(1_000);
    bench.call(1_000, Class::Failure);
    assert_eq!(bench.breaker.view(at(1_000)).tally.trips, 2);
}
