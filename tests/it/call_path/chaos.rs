//! Injected faults (OPS-1, CALL-2, BRK-7): each has its configured effect, on its configured share
//! of attempts, for its configured time.

use std::cell::Cell;

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallError, CallOptions, EventKind};
use breakerbox_policy::{
    ChaosSettings, Class, DependencySettings, Executed, Rate, RetryJitter, State,
};

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

fn rate(share: f64) -> Rate {
    Rate::new(share).unwrap()
}

fn errors(share: f64) -> ChaosSettings {
    ChaosSettings {
        error_rate: rate(share),
        ..ChaosSettings::default()
    }
}

fn hangs() -> ChaosSettings {
    ChaosSettings {
        hang_rate: rate(1.0),
        ..ChaosSettings::default()
    }
}

fn panics() -> ChaosSettings {
    ChaosSettings {
        panic_rate: rate(1.0),
        ..ChaosSettings::default()
    }
}

fn late(millis: u64) -> ChaosSettings {
    ChaosSettings {
        latency_rate: rate(1.0),
        latency: ms(millis),
        ..ChaosSettings::default()
    }
}

async fn bench(chaos: ChaosSettings) -> Bench {
    let bench = Bench::start(|settings| settings.breaker.failure_threshold = None).await;
    bench.client.set_chaos(Some(chaos), "a test");
    bench
}

/// Returns the result of a closure, and the number of times it was called.
async fn run(bench: &Bench) -> (Result<u32, CallError<String>>, u32) {
    let begun = Cell::new(0);
    let ran = bench.client.run(|| {
        begun.set(begun.get() + 1);
        std::future::ready(Ok::<_, String>(1))
    });
    (ran.await, begun.get())
}

#[test]
fn call_2_an_injected_error_counts_as_a_failure_and_was_not_executed() {
    run_paused(async || {
        let bench = bench(errors(1.0)).await;
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        assert!(matches!(error, CallError::Injected { .. }), "{error}");
        assert_eq!(
            (error.executed(), error.is_refusal()),
            (Executed::No, false)
        );
        let (ran, begun) = run(&bench).await;
        assert!(matches!(ran, Err(CallError::Injected { .. })));
        assert_eq!((begun, bench.script.calls()), (0, 0));
        let status = bench.status();
        assert_eq!((status.tally.failures, status.totals.failed), (2, 2));
        bench.finish().await;
    });
}

#[test]
fn brk_1_injected_errors_open_the_breaker() {
    run_paused(async || {
        let bench = Bench::start(opens_after(3, ms(1_000))).await;
        bench.client.set_chaos(Some(errors(1.0)), "a test");
        for _ in 0..3 {
            bench.ask(Do::Answer(1)).await.unwrap_err();
        }
        assert_eq!(bench.state(), State::Open);
        bench.finish().await;
    });
}

#[test]
fn call_7_an_injected_error_is_retried_whatever_the_call_is() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.breaker.failure_threshold = None;
            settings.retry.max_attempts = nonzero(3);
            settings.retry.backoff.jitter = RetryJitter::None;
        })
        .await;
        bench.client.set_chaos(Some(errors(1.0)), "a test");
        let not_idempotent = CallOptions {
            idempotent: Some(false),
            ..CallOptions::default()
        };
        let asked = bench.client.ask_with(Do::Answer(1), not_idempotent).await;
        asked.unwrap_err();
        assert_eq!(bench.status().totals.attempts, 3);
        run(&bench).await.0.unwrap_err();
        assert_eq!(bench.status().totals.attempts, 6);
        bench.finish().await;
    });
}

#[test]
fn call_2_an_attempt_that_was_made_to_hang_times_out() {
    run_paused(async || {
        let bench = bench(hangs()).await;
        for closure in [false, true] {
            let began = tokio::time::Instant::now();
            let error = if closure {
                run(&bench).await.0.unwrap_err().executed()
            } else {
                bench.ask(Do::Answer(1)).await.unwrap_err().executed()
            };
            assert_eq!((error, began.elapsed()), (Executed::Maybe, ms(5_000)));
        }
        assert_eq!(bench.script.calls(), 0);
        assert_eq!(bench.status().tally.failures, 2);
        bench.finish().await;
    });
}

#[test]
fn sup_1_a_panic_on_purpose_crashes_the_worker_and_never_the_caller() {
    run_paused(async || {
        let bench = bench(panics()).await;
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        let restarted = |kind: &EventKind| matches!(kind, EventKind::Started { incarnation: 2 });
        bench.runtime.event(|event| restarted(&event.kind)).await;
        let (ran, begun) = run(&bench).await;
        assert!(
            matches!(ran, Err(CallError::Injected { .. })),
            "not a panic"
        );
        assert_eq!((begun, bench.script.calls()), (0, 0));
        assert_eq!(bench.status().tally.failures, 2);
        bench.finish().await;
    });
}

#[test]
fn brk_9_a_delay_on_purpose_is_the_attempts_own_time() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.breaker.slow_call = Some(ms(300))).await;
        bench.client.set_chaos(Some(late(300)), "a test");
        let answer = bench.ask(Do::Answer(1).after(20)).await.unwrap();
        assert_eq!((answer.value, answer.elapsed), (1, ms(320)));
        let began = tokio::time::Instant::now();
        let (ran, begun) = run(&bench).await;
        assert_eq!((ran.unwrap(), begun, began.elapsed()), (1, 1, ms(300)));
        let tally = bench.status().tally;
        assert_eq!((tally.successes, tally.slow), (2, 2));
        bench.finish().await;
    });
}

#[test]
fn ops_1_as_many_attempts_are_hit_as_the_rates_say() {
    const CALLS: u32 = 5_000;
    run_paused(async || {
        fastrand::seed(20_260_101);
        let mixed = ChaosSettings {
            latency_rate: rate(0.4),
            latency: ms(10),
            error_rate: rate(0.2),
            hang_rate: rate(0.1),
            lasts: None,
            ..ChaosSettings::default()
        };
        let bench = bench(mixed).await;
        for by_worker in [true, false] {
            let (mut good, mut late, mut failed, mut hung) = (0_u32, 0_u32, 0_u32, 0_u32);
            for _ in 0..CALLS {
                let began = tokio::time::Instant::now();
                let ended = if by_worker {
                    let asked = bench.ask(Do::Answer(1)).await;
                    asked.map(drop).map_err(|error| error.executed())
                } else {
                    run(&bench)
                        .await
                        .0
                        .map(drop)
                        .map_err(|error| error.executed())
                };
                match ended {
                    Ok(()) => good += 1,
                    Err(Executed::No) => failed += 1,
                    Err(_) => hung += 1,
                }
                late += u32::from(ended != Err(Executed::Maybe) && began.elapsed() == ms(10));
            }
            for (what, count, share) in [
                ("good", good, 0.7),
                ("failed", failed, 0.2),
                ("hung", hung, 0.1),
                ("late", late, 0.9 * 0.4),
            ] {
                let seen = f64::from(count) / f64::from(CALLS);
                assert!((seen - share).abs() < 0.025, "{what}: {seen} of {share}");
            }
        }
        bench.finish().await;
    });
}

#[test]
fn ops_1_chaos_ends_by_itself() {
    run_paused(async || {
        let lasting = ChaosSettings {
            lasts: Some(ms(1_000)),
            ..errors(1.0)
        };
        let bench = bench(lasting).await;
        pass(999).await;
        bench.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(bench.status().chaos, Some(lasting));
        pass(1).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.status().chaos, None);
        bench.finish().await;
    });
}

#[test]
fn ops_1_an_operator_sets_chaos_and_takes_it_off_by_name() {
    run_paused(async || {
        let bench = bench(errors(1.0)).await;
        assert!(bench.runtime.chaos("dep", Some(late(50)), "alice"));
        assert!(!bench.runtime.chaos("nobody", Some(late(50)), "alice"));
        assert_eq!(bench.status().chaos, Some(late(50)));
        assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().elapsed, ms(50));
        assert!(bench.runtime.chaos("dep", None, "bob"));
        assert_eq!(bench.status().chaos, None);
        assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().elapsed, ms(0));
        let told: Vec<_> = bench
            .runtime
            .events_since(0)
            .into_iter()
            .filter_map(|event| match event.kind {
                EventKind::Chaos { by, settings } => {
                    Some((event.subject.to_string(), by, settings))
                }
                _ => None,
            })
            .collect();
        let expected = [
            ("a test", Some(errors(1.0))),
            ("alice", Some(late(50))),
            ("bob", None),
        ];
        let expected = expected.map(|(by, chaos)| ("dep".to_owned(), by.to_owned(), chaos));
        assert_eq!(told, expected);
        bench.finish().await;
    });
}

#[test]
fn ops_1_a_listener_may_take_chaos_off_again() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let client = bench.client.clone();
        bench.runtime.on_event(move |event| {
            if matches!(
                event.kind,
                EventKind::Chaos {
                    settings: Some(_),
                    ..
                }
            ) {
                client.set_chaos(None, "a guard");
            }
        });
        assert!(bench.runtime.chaos("dep", Some(errors(1.0)), "alice"));
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.finish().await;
    });
}

#[test]
fn ops_1_the_settings_may_begin_with_chaos() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.chaos = Some(errors(1.0));
            settings.breaker.failure_threshold = None;
        };
        let bench = Bench::start(configure).await;
        bench.ask(Do::Answer(1)).await.unwrap_err();
        // Ten minutes is the default.
        pass(600_000).await;
        let_others_run().await;
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.finish().await;
    });
}

#[test]
fn brk_7_chaos_says_nothing_about_the_class_of_a_real_answer() {
    run_paused(async || {
        let bench = bench(late(10)).await;
        bench.ask(Do::End(Class::Rejected)).await.unwrap_err();
        assert_eq!(bench.status().tally.neutral, 1);
        bench.finish().await;
    });
}
