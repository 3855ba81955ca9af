//! LIM-1 and LIM-2 for waiting calls: those that wait for a pause to end, and those that wait for
//! something else when a pause begins. No call goes out during a pause, regardless of where it
//! waited.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_actors::testing::{Reaction, Script, ScriptedError, TestRuntime, run_paused};
use breakerbox_actors::{CallError, CallOptions, Client, Limit};
use breakerbox_policy::{
    BreakerCommand, BudgetSettings, DependencySettings, Executed, PauseReason, RateLimitSettings,
    RetryJitter,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::scripted::{Asked, Bench, Dep, Do, Error, let_others_run, ms, nonzero, pass, start};

fn throttled_for(millis: u64) -> Do {
    Do::Error(ScriptedError::throttled().retry_after(ms(millis)))
}

/// Returns the wait that a refusal during a pause names.
fn paused_for(error: &Error) -> Duration {
    assert_eq!(error.executed(), Executed::No);
    match error {
        CallError::RateLimited {
            limit: Limit::Pause(PauseReason::Throttled),
            retry_after: Some(wait),
            ..
        } => *wait,
        other => panic!("{other}"),
    }
}

/// Sets pauses exactly as long as the dependency asks, and calls that wait at most `max_wait`
/// milliseconds for their end.
fn waits(max_wait: u64) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        settings.throttle.backoff.jitter = RetryJitter::None;
        settings.throttle.max_wait = ms(max_wait);
        settings.timeout.total = None;
    }
}

/// Makes a call; returns its result and the milliseconds it took.
async fn timed(bench: &Bench, told: Do, options: CallOptions) -> (Asked, u128) {
    let began = Instant::now();
    let asked = bench.client.ask_with(told, options).await;
    (asked, began.elapsed().as_millis())
}

fn within(millis: u64) -> CallOptions {
    CallOptions {
        timeout: Some(ms(millis)),
        ..CallOptions::default()
    }
}

#[test]
fn lim_1_who_may_wait_goes_out_at_the_end_of_the_pause_in_bounded_number() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let starts: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noted = Arc::clone(&starts);
        let script = Script::new(move |told: Do, _| {
            noted.lock().unwrap().push(Instant::now());
            told.reaction()
        });
        let configure = |settings: &mut DependencySettings| {
            waits(10_000)(settings);
            settings.bulkhead.max_concurrent = nonzero(4);
        };
        let client = start(&runtime, "dep", &script, configure, Vec::new()).await;
        client.ask(throttled_for(7_000)).await.unwrap_err();
        let end = Instant::now() + ms(7_000);
        let watch = async {
            pass(6_999).await;
            let status = client.status();
            assert_eq!(
                (status.in_flight, status.queued),
                (0, 0),
                "no place is held"
            );
            pass(1).await;
            let_others_run().await;
            let status = client.status();
            assert_eq!((status.in_flight, status.queued), (4, 8));
        };
        let calls = join_all((0..12).map(|_| client.ask(Do::Answer(1).after(100))));
        let (ended, ()) = tokio::join!(calls, watch);
        assert!(ended.iter().all(Result::is_ok));
        let starts = starts.lock().unwrap()[1..].to_vec();
        let after: Vec<u128> = starts.iter().map(|at| (*at - end).as_millis()).collect();
        assert_eq!(after, [0, 0, 0, 0, 100, 100, 100, 100, 200, 200, 200, 200]);
        assert!(starts.iter().all(|at| *at >= end));
        runtime.finish().await;
    });
}

#[test]
fn lim_2_who_would_wait_too_long_for_the_end_of_a_pause_is_refused_at_once() {
    run_paused(async || {
        let bench = Bench::start(waits(7_000)).await;
        bench.ask(throttled_for(7_000)).await.unwrap_err();
        let answer = |millis| timed(&bench, Do::Answer(1), within(millis));
        let (at_its_end, after) = tokio::join!(answer(7_000), answer(7_001));
        assert_eq!(paused_for(&at_its_end.0.unwrap_err()), ms(7_000));
        assert_eq!(at_its_end.1, 0, "at once");
        assert!(after.0.is_ok() && after.1 == 7_000);
        bench.ask(throttled_for(7_001)).await.unwrap_err();
        let (refused, at) = timed(&bench, Do::Answer(1), CallOptions::default()).await;
        assert_eq!((paused_for(&refused.unwrap_err()), at), (ms(7_001), 0));
        bench.finish().await;
    });
}

#[test]
fn lim_1_who_waits_goes_on_waiting_when_the_pause_is_prolonged_or_is_refused_then() {
    run_paused(async || {
        let bench = Bench::start(waits(6_000)).await;
        let late = bench.ask(throttled_for(4_000).after(1_000));
        let early = bench.ask(throttled_for(3_000));
        let later = async {
            let_others_run().await;
            let patient = timed(&bench, Do::Answer(1), CallOptions::default());
            let hurried = timed(&bench, Do::Answer(1), within(4_000));
            tokio::join!(patient, hurried)
        };
        let (late, early, (patient, hurried)) = tokio::join!(late, early, later);
        assert!(late.is_err() && early.is_err());
        assert!(patient.0.is_ok());
        assert_eq!(patient.1, 5_000, "the end of the longer one");
        let (error, at) = (hurried.0.unwrap_err(), hurried.1);
        assert_eq!(
            (paused_for(&error), at),
            (ms(4_000), 1_000),
            "when it is known"
        );
        assert_eq!(bench.script.calls(), 3);
        bench.finish().await;
    });
}

#[test]
fn lim_1_who_waits_goes_out_when_the_pause_is_lifted() {
    run_paused(async || {
        let bench = Bench::start(waits(60_000)).await;
        bench.ask(throttled_for(7_000)).await.unwrap_err();
        let lift = async {
            pass(500).await;
            let reason = "we asked them".to_owned();
            bench.client.operate(BreakerCommand::Reset { reason }).await
        };
        let call = timed(&bench, Do::Answer(1), CallOptions::default());
        let ((asked, at), lifted) = tokio::join!(call, lift);
        assert!(asked.is_ok() && lifted.is_ok());
        assert_eq!(at, 500);
        bench.finish().await;
    });
}

/// Starts a pause after 10 ms, while `who` waits for something else; returns the result of `who`,
/// and the milliseconds it took.
async fn pause_meanwhile(bench: &Bench, who: impl Future<Output = (Asked, u128)>) -> (Asked, u128) {
    let throttled = bench.ask(throttled_for(7_000).after(10));
    let who = async {
        let_others_run().await;
        who.await
    };
    let (throttled, ended) = tokio::join!(throttled, who);
    throttled.unwrap_err();
    ended
}

#[test]
fn lim_1_who_waits_for_a_place_does_not_go_out_in_a_pause_that_begins_meanwhile() {
    run_paused(async || {
        for (max_wait, end) in [(0, 10), (60_000, 7_010)] {
            let bench = Bench::start(|settings| {
                waits(max_wait)(settings);
                settings.bulkhead.max_concurrent = nonzero(1);
            })
            .await;
            let call = timed(&bench, Do::Answer(1), CallOptions::default());
            let (asked, at) = pause_meanwhile(&bench, call).await;
            assert_eq!((asked.is_ok(), at), (max_wait > 0, end));
            if let Err(error) = asked {
                assert_eq!(paused_for(&error), ms(7_000));
                assert_eq!(bench.script.calls(), 1);
            }
            bench.finish().await;
        }
    });
}

#[test]
fn lim_1_who_waits_for_its_turn_does_not_go_out_in_a_pause_that_begins_meanwhile() {
    run_paused(async || {
        for (max_wait, end) in [(0, 1_000), (60_000, 7_010)] {
            let bench = Bench::start(|settings| {
                waits(max_wait)(settings);
                settings.rate_limit = Some(RateLimitSettings {
                    rate: 1.0,
                    per: ms(1_000),
                    burst: nonzero(1),
                    max_wait: ms(1_000),
                });
            })
            .await;
            let call = timed(&bench, Do::Answer(1), CallOptions::default());
            let (asked, at) = pause_meanwhile(&bench, call).await;
            assert_eq!((asked.is_ok(), at), (max_wait > 0, end));
            if let Err(error) = asked {
                assert_eq!(paused_for(&error), ms(6_010));
                assert_eq!(bench.script.calls(), 1);
            }
            bench.finish().await;
        }
    });
}

#[test]
fn lim_1_what_waits_for_a_worker_does_not_go_out_in_a_pause_that_begins_meanwhile() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            waits(0)(settings);
            settings.workers.backoff.base = ms(1_000);
            settings.workers.backoff.max = ms(1_000);
            settings.workers.backoff.jitter = RetryJitter::None;
            settings.workers.quarantine = None;
        })
        .await;
        // The worker restarts at once after the first crash, and a second after the second.
        bench.ask(Do::Panic).await.unwrap_err();
        pass(10).await;
        bench.ask(Do::Panic).await.unwrap_err();
        let calls = bench.script.calls();
        let closure = async {
            pass(10).await;
            let told = ScriptedError::throttled();
            let verdict = |result: &Result<(), ScriptedError>| {
                let error = result.as_ref().unwrap_err();
                breakerbox_actors::Verdict::from(error.class).retry_after(ms(7_000))
            };
            let work = async || Err(told.clone());
            bench
                .client
                .run_with(CallOptions::default(), verdict, work)
                .await
        };
        let held = timed(&bench, Do::Answer(1), CallOptions::default());
        let ((held, at), closure) = tokio::join!(held, closure);
        closure.unwrap_err();
        assert_eq!(paused_for(&held.unwrap_err()), ms(6_010));
        assert_eq!((at, bench.script.calls()), (1_000, calls));
        assert_eq!(bench.status().tally.failures, 2, "a refusal is no outcome");
        bench.finish().await;
    });
}

/// Starts a dependency that fails the first calls as told, and answers from then on. Returns its
/// client, and the start time of each call.
async fn sequel(
    runtime: &TestRuntime,
    first: Vec<Do>,
    configure: impl FnOnce(&mut DependencySettings),
) -> (Client<Dep>, Arc<Mutex<Vec<Instant>>>) {
    let starts: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = Arc::clone(&starts);
    let script = Script::new(move |_: Do, number| {
        noted.lock().unwrap().push(Instant::now());
        let index = usize::try_from(number).unwrap() - 1;
        let told = first.get(index).cloned();
        told.map_or(Reaction::Answer(1), Do::reaction)
    });
    let client = start(runtime, "dep", &script, configure, Vec::new()).await;
    (client, starts)
}

fn again() -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

#[test]
fn lim_1_a_retry_waits_out_the_pause_at_least_even_where_hints_are_not_respected() {
    run_paused(async || {
        for respect in [true, false] {
            let runtime = TestRuntime::start().await;
            let configure = |settings: &mut DependencySettings| {
                waits(0)(settings);
                settings.retry.max_attempts = nonzero(2);
                settings.retry.respect_retry_after = respect;
            };
            let (client, _) = sequel(&runtime, vec![throttled_for(7_000)], configure).await;
            let answer = client.ask_with(Do::Answer(1), again()).await.unwrap();
            assert_eq!(answer.attempts, 2);
            let spread = answer.elapsed - ms(7_000);
            assert!(spread <= ms(101), "{spread:?}");
            runtime.finish().await;
        }
    });
}

#[test]
fn lim_1_retries_do_not_all_come_back_at_the_very_end_of_a_pause() {
    run_paused(async || {
        fastrand::seed(1);
        let runtime = TestRuntime::start().await;
        let configure = |settings: &mut DependencySettings| {
            // The pause has its own long jitter, the same for all callers.
            settings.throttle.backoff.jitter = RetryJitter::Added(1.0);
            settings.throttle.backoff.base = ms(5_000);
            settings.retry.max_attempts = nonzero(2);
            settings.retry.budget = None;
            settings.bulkhead.max_concurrent = nonzero(100);
        };
        let first = vec![throttled_for(3_000).after(10); 100];
        let (client, starts) = sequel(&runtime, first, configure).await;
        let asked = join_all((0..100).map(|_| client.ask_with(Do::Answer(1), again()))).await;
        assert!(asked.iter().all(Result::is_ok));
        let mut retried = starts.lock().unwrap()[100..].to_vec();
        retried.sort();
        let most = retried.chunk_by(|one, next| one == next).map(<[_]>::len);
        assert!(most.max() <= Some(10), "{retried:?}");
        runtime.finish().await;
    });
}

#[test]
fn lim_1_a_retry_goes_on_waiting_when_its_pause_is_prolonged() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let configure = |settings: &mut DependencySettings| {
            waits(0)(settings);
            settings.retry.max_attempts = nonzero(2);
            settings.retry.backoff.jitter = RetryJitter::None;
        };
        let first = vec![
            throttled_for(3_000).after(10),
            throttled_for(4_000).after(1_000),
        ];
        let (client, _) = sequel(&runtime, first, configure).await;
        let options = |timeout| CallOptions { timeout, ..again() };
        let patient = client.ask_with(Do::Answer(1), options(None));
        let other = client.ask_with(Do::Answer(1), CallOptions::default());
        let (patient, other) = tokio::join!(patient, other);
        other.unwrap_err();
        assert_eq!(patient.unwrap().elapsed, ms(5_000));
        runtime.finish().await;
    });
}

#[test]
fn lim_1_a_retry_without_the_time_for_a_prolonged_pause_ends_as_its_attempt_did() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let configure = |settings: &mut DependencySettings| {
            waits(0)(settings);
            settings.retry.max_attempts = nonzero(2);
            settings.retry.backoff.jitter = RetryJitter::None;
        };
        let first = vec![
            throttled_for(3_000).after(10),
            throttled_for(4_000).after(1_000),
        ];
        let (client, starts) = sequel(&runtime, first, configure).await;
        let began = Instant::now();
        let options = CallOptions {
            timeout: Some(ms(4_000)),
            ..again()
        };
        let hurried = client.ask_with(Do::Answer(1), options);
        let other = client.ask_with(Do::Answer(1), CallOptions::default());
        let hurried = async { (hurried.await, began.elapsed()) };
        let ((hurried, at), other) = tokio::join!(hurried, other);
        other.unwrap_err();
        let error = hurried.unwrap_err();
        assert!(matches!(error, CallError::Failed { .. }), "{error}");
        assert_eq!((at, starts.lock().unwrap().len()), (ms(3_010), 2));
        runtime.finish().await;
    });
}

#[test]
fn lim_4_a_retry_that_a_pause_leaves_no_time_for_costs_the_budget_nothing() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            waits(0)(settings);
            settings.retry.max_attempts = nonzero(2);
            settings.breaker.failure_threshold = None;
            settings.retry.budget = Some(BudgetSettings {
                ratio: 0.0,
                floor_per_second: 1,
            });
        })
        .await;
        // The call's own error has no hint, and the pause is longer than the time it has left.
        let short = CallOptions {
            timeout: Some(ms(2_000)),
            ..again()
        };
        let failing = bench.client.ask_with(Do::Fail.after(10), short);
        let (failed, throttled) = tokio::join!(failing, bench.ask(throttled_for(7_000)));
        assert!(failed.is_err() && throttled.is_err());
        let reason = "for the test".to_owned();
        bench
            .client
            .operate(BreakerCommand::Reset { reason })
            .await
            .unwrap();
        let calls = bench.script.calls();
        bench.client.ask_with(Do::Fail, again()).await.unwrap_err();
        assert_eq!(bench.script.calls() - calls, 2, "the retry was still there");
        bench.finish().await;
    });
}
