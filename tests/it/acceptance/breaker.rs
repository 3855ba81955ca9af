//! Items 1 to 10, 18 to 22 and 25 to 30: conditions that open a breaker, its counts and its
//! listeners.

use std::sync::{Arc, Mutex};

use breakerbox_actors::testing::{Script, ScriptedError, TestRuntime, run_paused};
use breakerbox_actors::{CallError, EventKind, StartError};
use breakerbox_policy::{
    BreakerCommand, BreakerEvent, Class, DependencySettings, HalfOpenRule, RefusalState, State,
    Time, WindowKind,
};

use crate::scripted::{Bench, Dep, Do, Error, ms, nonzero, opens_after, pass, refused_connection};

fn is_open<E>(error: &CallError<E>) -> bool {
    matches!(error, CallError::Open(refused) if refused.state == RefusalState::Open)
}

fn is_own(error: &Error) -> bool {
    matches!(error, CallError::Failed { error, .. } if *error == refused_connection())
}

#[test]
fn item_01_a_new_breaker_is_closed_and_can_be_read_back() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|_: u32, _| unreachable!("no call is made"));
        let worker = script.clone();
        let client = runtime
            .dependency("x")
            .configure(opens_after(3, ms(5_000)))
            .workers(move || -> breakerbox_actors::testing::Scripted<u32, u32> {
                worker.dependency()
            })
            .start()
            .await
            .unwrap();
        let status = client.status();
        assert_eq!((status.state, status.window.failures), (State::Closed, 0));
        assert_eq!((client.name(), &*status.name), ("x", "x"));
        let breaker = &client.settings().breaker;
        assert_eq!(breaker.failure_threshold, Some(nonzero(3)));
        assert_eq!(breaker.open.base, ms(5_000));
        runtime.finish().await;
    });
}

#[test]
fn item_02_nothing_set_gives_the_defaults() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let breaker = &bench.client.settings().breaker;
        assert_eq!(breaker.failure_threshold, Some(nonzero(5)));
        assert_eq!(breaker.open.base, ms(30_000));
        assert_eq!(breaker.half_open.max_calls, nonzero(1));
        assert_eq!(breaker.half_open.rule, HalfOpenRule::Successes(nonzero(1)));
        for _ in 0..4 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        assert_eq!(bench.state(), State::Closed);
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.status().retry_after, Some(ms(30_000)));
        pass(30_000).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn item_03_the_first_failure_reaches_the_caller_and_is_counted() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(60_000))).await;
        assert!(is_own(&bench.ask(Do::Fail).await.unwrap_err()));
        assert_eq!((bench.state(), bench.failures()), (State::Closed, 1));
        bench.finish().await;
    });
}

#[test]
fn item_04_the_failure_that_reaches_the_threshold_opens_it() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(60_000))).await;
        bench.ask(Do::Fail).await.unwrap_err();
        assert!(is_own(&bench.ask(Do::Fail).await.unwrap_err()));
        let status = bench.status();
        assert_eq!(status.state, State::Open);
        assert_eq!(status.tally.failures, 2);
        assert!(status.reason.contains('2'), "{}", status.reason);
        bench.finish().await;
    });
}

#[test]
fn item_05_an_open_breaker_refuses_at_once_and_says_when_to_come_back() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(60_000))).await;
        bench.fail_until_open().await;
        pass(1_000).await;
        let before = bench.runtime.clock().now();
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(bench.runtime.clock().now(), before, "at once");
        assert!(is_open(&error), "{error}");
        assert_eq!(error.dependency(), "dep");
        assert_eq!(error.retry_after(), Some(ms(59_000)));
        assert!(error.to_string().contains("dep"), "{error}");
        assert_eq!(bench.script.calls(), 2);
        bench.finish().await;
    });
}

#[test]
fn item_06_a_good_probe_closes_it() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        bench.fail_until_open().await;
        pass(200).await;
        assert_eq!(bench.ask(Do::Answer(7)).await.unwrap().value, 7);
        assert_eq!((bench.state(), bench.failures()), (State::Closed, 0));
        bench.finish().await;
    });
}

#[test]
fn item_07_failed_probe_restarts_the_timer() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        bench.fail_until_open().await;
        pass(200).await;
        let error = bench.ask(Do::Fail.after(30)).await.unwrap_err();
        assert!(is_own(&error), "the probe's own error: {error}");
        assert_eq!(bench.state(), State::Open);
        pass(99).await;
        assert!(is_open(&bench.ask(Do::Answer(1)).await.unwrap_err()));
        assert_eq!(bench.script.calls(), 2);
        pass(1).await;
        assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().value, 1);
        bench.finish().await;
    });
}

#[test]
fn item_08_exactly_the_recovery_timeout_is_enough() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        bench.fail_until_open().await;
        pass(100).await;
        assert_eq!(bench.ask(Do::Answer(7)).await.unwrap().value, 7);
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn item_09_a_success_ends_the_run_of_failures() {
    run_paused(async || {
        let bench = Bench::start(opens_after(3, ms(100))).await;
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.failures(), 1);
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.failures(), 0);
        bench.ask(Do::Fail).await.unwrap_err();
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!((bench.state(), bench.failures()), (State::Closed, 2));
        bench.finish().await;
    });
}

#[test]
fn item_10_the_third_of_three_failures_opens_it() {
    run_paused(async || {
        let bench = Bench::start(opens_after(3, ms(100))).await;
        for count in 1..=2 {
            bench.ask(Do::Fail).await.unwrap_err();
            assert_eq!((bench.state(), bench.failures()), (State::Closed, count));
        }
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.state(), State::Open);
        let moved = bench.runtime.event(|event| is_trip(&event.kind)).await;
        let EventKind::Breaker(BreakerEvent::Transition { counts, .. }) = moved.kind else {
            unreachable!("it was looked for");
        };
        assert_eq!(counts.failures, 3);
        bench.finish().await;
    });
}

fn is_trip(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Breaker(BreakerEvent::Transition { to, .. }) if *to == State::Open)
}

fn reset() -> BreakerCommand {
    BreakerCommand::Reset {
        reason: "by hand".to_owned(),
    }
}

#[test]
fn item_18_a_reset_closes_it_and_empties_the_counters() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(60_000))).await;
        bench.fail_until_open().await;
        bench.client.operate(reset()).await.unwrap();
        let status = bench.status();
        assert_eq!(status.state, State::Closed);
        assert_eq!((status.window.calls, status.window.failures), (0, 0));
        assert_eq!(status.tally, Default::default());
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.script.calls(), 3);
        bench.finish().await;
    });
}

type Moves = Arc<Mutex<Vec<(String, State, State)>>>;

/// Records each transition event.
fn note_moves(runtime: &TestRuntime) -> Moves {
    let moves = Moves::default();
    let noted = Arc::clone(&moves);
    runtime.on_event(move |event| {
        if let EventKind::Breaker(BreakerEvent::Transition { from, to, .. }) = &event.kind {
            let one = (event.subject.to_string(), *from, *to);
            noted.lock().unwrap().push(one);
        }
    });
    moves
}

fn opened_and_reset() -> [(String, State, State); 2] {
    let dep = || "dep".to_owned();
    [
        (dep(), State::Closed, State::Open),
        (dep(), State::Open, State::Closed),
    ]
}

#[test]
fn item_19_a_listener_hears_each_transition_once_and_in_order() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        let moves = note_moves(&bench.runtime);
        bench.fail_until_open().await;
        bench.client.operate(reset()).await.unwrap();
        assert_eq!(*moves.lock().unwrap(), opened_and_reset());
        bench.finish().await;
    });
}

#[test]
fn item_20_a_listener_that_panics_disturbs_nobody() {
    let log = crate::log::Log::capture();
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        bench.runtime.on_event(|_| panic!("listener"));
        let moves = note_moves(&bench.runtime);
        bench.fail_until_open().await;
        assert!(is_open(&bench.ask(Do::Answer(1)).await.unwrap_err()));
        bench.client.operate(reset()).await.unwrap();
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(*moves.lock().unwrap(), opened_and_reset());
        bench.finish().await;
    });
    assert!(!log.lines("listener panicked").is_empty());
}

#[test]
fn item_21_a_guarded_closure_behaves_like_a_call() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(60_000))).await;
        let client = &bench.client;
        assert_eq!(client.run(async || Ok::<_, String>(5)).await, Ok(5));
        for (count, state) in [(1, State::Closed), (2, State::Open)] {
            let error = client.run(async || Err::<u32, _>("own")).await.unwrap_err();
            assert_eq!(error.into_failed(), Some("own"));
            assert_eq!(bench.status().tally.failures, count);
            assert_eq!(bench.state(), state);
        }
        let before = bench.runtime.clock().now();
        let mut made = 0;
        let work = || {
            // A closure that starts its work before its future is polled.
            made += 1;
            std::future::ready(Ok::<u32, String>(made))
        };
        let error = client.run(work).await.unwrap_err();
        assert!(is_open(&error), "{error}");
        assert_eq!(error.retry_after(), Some(ms(60_000)));
        assert_eq!(made, 0, "the closure was called although it was refused");
        assert_eq!(bench.runtime.clock().now(), before);
        bench.finish().await;
    });
}

fn within_ten_seconds(settings: &mut DependencySettings) {
    opens_after(3, ms(60_000))(settings);
    settings.breaker.window = WindowKind::Time {
        span: ms(10_000),
        buckets: nonzero(10),
    };
}

#[test]
fn item_22_a_time_window_forgets_and_a_run_does_not() {
    async fn fail_at(bench: &Bench, seconds: u64) {
        let at = Time::from_millis(seconds * 1_000);
        bench.runtime.clock().sleep_until(at).await;
        bench.ask(Do::Fail).await.unwrap_err();
    }
    run_paused(async || {
        let bench = Bench::start(within_ten_seconds).await;
        for seconds in [0, 6, 12] {
            fail_at(&bench, seconds).await;
            assert_eq!(bench.state(), State::Closed);
        }
        assert_eq!(bench.failures(), 2, "only two within ten seconds");
        fail_at(&bench, 13).await;
        assert_eq!(bench.state(), State::Open);
        bench.finish().await;
        let bench = Bench::start(opens_after(3, ms(60_000))).await;
        for seconds in [0, 6, 12] {
            assert_eq!(bench.state(), State::Closed);
            fail_at(&bench, seconds).await;
        }
        assert_eq!(bench.state(), State::Open);
        bench.finish().await;
    });
}

/// Only the runtime's clock is used, and it cannot be set: the kernel receives the time as an
/// argument, and the actors read it in one place, from a monotonic counter.
#[test]
fn item_25_a_jump_of_the_wall_clock_has_no_effect() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("policy/src"), root.join("actors/src")];
    let mut readers = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("SystemTime"), "{}", path.display());
            if text.contains("Instant") {
                readers.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    assert_eq!(readers, [std::path::Path::new("actors/src/clock.rs")]);
}

#[test]
fn item_26_a_second_dependency_of_the_same_name_is_refused() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        let script = bench.script.clone();
        let second = bench
            .runtime
            .dependency("dep")
            .configure(opens_after(9, ms(1)))
            .workers(move || script.dependency())
            .start()
            .await;
        let Err(StartError::AlreadyRegistered { name }) = second else {
            panic!("{second:?}");
        };
        assert_eq!(name, "dep");
        let kept = &bench.client.settings().breaker;
        assert_eq!(kept.failure_threshold, Some(nonzero(1)));
        bench.fail_until_open().await;
        assert_eq!(bench.script.calls(), 1, "the first one's settings hold");
        bench.finish().await;
    });
}

#[test]
fn item_27_the_registry_knows_every_breaker() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        let runtime = &bench.runtime;
        let other = crate::scripted::start(
            runtime,
            "other",
            &bench.script,
            opens_after(1, ms(60_000)),
            Vec::new(),
        )
        .await;
        let same = runtime.client::<Dep>("dep").unwrap();
        same.ask(Do::Fail).await.unwrap_err();
        other.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.state(), State::Open, "one breaker for one name");
        assert!(runtime.client::<Dep>("missing").is_none());
        assert!(runtime.status("missing").is_none());
        let all = runtime.statuses();
        let states: Vec<_> = all.iter().map(|one| (&*one.name, one.state)).collect();
        assert_eq!(states, [("dep", State::Open), ("other", State::Open)]);
        assert_eq!(runtime.operate("missing", reset()).await, None);
        assert_eq!(runtime.operate("dep", reset()).await, Some(Ok(())));
        assert_eq!(bench.state(), State::Closed);
        assert_eq!(other.status().state, State::Open);
        same.ask(Do::Fail).await.unwrap_err();
        runtime.reset_all("by hand").await;
        let closed = |status: &breakerbox_actors::DependencyStatus| status.state == State::Closed;
        assert!(runtime.statuses().iter().all(closed));
        bench.finish().await;
    });
}

#[test]
fn item_28_health_runs_share_one_breaker() {
    run_paused(async || {
        let bench = Bench::start(opens_after(5, ms(3_600_000))).await;
        for _ in 0..100 {
            let of_this_run = bench.runtime.client::<Dep>("dep").unwrap();
            of_this_run.ask(Do::Fail).await.unwrap_err();
        }
        assert_eq!(bench.state(), State::Open);
        assert_eq!(bench.script.calls(), 5);
        bench.finish().await;
    });
}

#[test]
fn item_29_a_callers_own_mistakes_do_not_count() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        for _ in 0..100 {
            bench.ask(Do::End(Class::Rejected)).await.unwrap_err();
            let too_short = tokio::time::timeout(ms(1), bench.ask(Do::Hang));
            too_short.await.unwrap_err();
        }
        crate::scripted::let_others_run().await;
        let status = bench.status();
        assert_eq!((status.state, status.window.failures), (State::Closed, 0));
        assert_eq!(status.totals.cancelled, 100);
        assert_eq!(status.tally.neutral, 200);
        bench.finish().await;
    });
}

/// The gateway's table decides which HTTP responses are failures. Here each error that a dependency
/// classifies as its own failure opens the breaker, and so does a timeout.
#[test]
fn item_30_each_transient_error_alone_opens() {
    let kinds = [
        "500",
        "502",
        "503",
        "504",
        "connection refused",
        "connection reset",
        "name not resolved",
    ];
    run_paused(async || {
        for kind in kinds {
            let runtime = TestRuntime::start().await;
            let script = Script::<(), ()>::new(move |(), _| {
                breakerbox_actors::testing::Reaction::Fail(ScriptedError::failure(kind))
            });
            let client = runtime
                .dependency("dep")
                .configure(opens_after(1, ms(60_000)))
                .workers(move || script.dependency())
                .start()
                .await
                .unwrap();
            let error = client.ask(()).await.unwrap_err();
            assert_eq!(error.into_failed().unwrap().message, kind);
            assert_eq!(client.status().state, State::Open, "{kind}");
            runtime.finish().await;
        }
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        let error = bench.ask(Do::Hang).await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!(bench.state(), State::Open, "attempt timeout");
        bench.finish().await;
    });
}
