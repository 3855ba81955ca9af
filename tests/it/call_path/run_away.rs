//! CALL-3 and BRK-9: no caller gets past a breaker that should have opened, however fast it calls,
//! and silence opens it too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallContext, Client, Dependency, Runtime, RuntimeSettings};
use breakerbox_policy::{Class, DependencySettings, Rate, State};
use futures_util::future::join_all;

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

const RULE: u32 = 5;
const HOUR: u64 = 3_600_000;

#[test]
fn call_3_a_closure_that_fails_in_a_loop_is_stopped_by_the_rule() {
    run_paused(async || {
        let bench = Bench::start(opens_after(RULE, ms(HOUR))).await;
        let mut made = 0;
        for _ in 0..1_000 {
            let work = || {
                made += 1;
                std::future::ready(Err::<u32, _>("no"))
            };
            bench.client.run(work).await.unwrap_err();
        }
        assert_eq!(made, RULE);
        bench.finish().await;
    });
}

#[test]
fn call_3_an_ask_that_fails_in_a_loop_is_stopped_by_the_rule() {
    run_paused(async || {
        let bench = Bench::start(opens_after(RULE, ms(HOUR))).await;
        for _ in 0..1_000 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        assert_eq!(bench.script.calls(), u64::from(RULE));
        bench.finish().await;
    });
}

/// Asks from its own task, which only the answer wakes: a test's outermost future is polled last,
/// and would find every outcome counted by then.
#[test]
fn call_3_an_outcome_is_counted_before_its_caller_sees_it() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = None;
            settings.timeout.attempt = Some(ms(10));
            settings.workers.intensity.max = u32::MAX;
        };
        let bench = Bench::start(configure).await;
        let client = bench.client.clone();
        let ends = [Do::Fail, Do::Fail.after(1), Do::Hang, Do::Panic, Do::Fail];
        let caller = async move {
            for (told, counted) in ends.into_iter().zip(1..) {
                let what = format!("{told:?}");
                client.ask(told).await.unwrap_err();
                assert_eq!(client.status().tally.failures, counted, "{what}");
            }
        };
        tokio::task::spawn_local(caller).await.unwrap();
        bench.finish().await;
    });
}

/// Successes are counted without a message; the failures between them must not get lost.
#[test]
fn call_3_a_rate_is_judged_with_every_success_that_came_before() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.breaker.window = breakerbox_policy::WindowKind::Count { size: nonzero(10) };
            settings.breaker.failure_threshold = None;
            settings.breaker.failure_rate = Rate::new(0.5).ok();
            settings.breaker.minimum_calls = 10;
        };
        let bench = Bench::start(configure).await;
        for call in 1..=10 {
            assert_eq!(bench.state(), State::Closed, "before call {call}");
            let told = if call % 2 == 0 {
                Do::Fail
            } else {
                Do::Answer(1)
            };
            let _ = bench.ask(told).await;
        }
        assert_eq!(bench.state(), State::Open);
        bench.finish().await;
    });
}

const CALLERS: u64 = 64;

/// The success that completes `minimum_calls` is judged like any other outcome (rule BRK-1), so
/// counting it at the gate is not enough.
#[test]
fn call_3_a_success_that_opens_the_breaker_is_not_kept_from_it() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.breaker.window = breakerbox_policy::WindowKind::Count { size: nonzero(4) };
            settings.breaker.failure_threshold = None;
            settings.breaker.failure_rate = Rate::new(0.75).ok();
            settings.breaker.minimum_calls = 4;
        };
        let bench = Bench::start(configure).await;
        for _ in 0..3 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        assert_eq!(bench.state(), State::Closed);
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(bench.state(), State::Open);
        assert_eq!(bench.script.calls(), 4);
        bench.finish().await;
    });
}

#[test]
fn call_3_sixty_four_callers_on_one_thread_are_stopped_by_the_rule() {
    run_paused(async || {
        for by_closure in [false, true] {
            let bench = Bench::start(opens_after(RULE, ms(HOUR))).await;
            let made = Arc::new(AtomicU64::new(0));
            let callers = (0..CALLERS).map(|_| {
                let (client, made) = (bench.client.clone(), Arc::clone(&made));
                tokio::spawn(async move {
                    for _ in 0..100 {
                        if by_closure {
                            let work = || {
                                made.fetch_add(1, Ordering::Relaxed);
                                std::future::ready(Err::<u32, _>("no"))
                            };
                            client.run(work).await.unwrap_err();
                        } else {
                            client.ask(Do::Fail).await.unwrap_err();
                        }
                    }
                })
            });
            let callers: Vec<_> = callers.collect();
            for caller in callers {
                caller.await.unwrap();
            }
            let executed = bench.script.calls() + made.load(Ordering::Relaxed);
            assert!(executed <= u64::from(RULE) + CALLERS, "{executed}");
            bench.finish().await;
        }
    });
}

struct Failing(Arc<AtomicU64>);

impl Dependency for Failing {
    type Request = ();
    type Response = ();
    type Error = &'static str;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), &'static str> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err("no")
    }
}

async fn call_in_a_loop(client: Client<Failing>, made: Arc<AtomicU64>) {
    for call in 0..200 {
        if call % 2 == 0 {
            let work = || {
                made.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Err::<u32, _>("no"))
            };
            client.run(work).await.unwrap_err();
        } else {
            client.ask(()).await.unwrap_err();
        }
    }
}

#[test]
fn call_3_sixty_four_callers_on_two_threads_are_stopped_by_the_rule() {
    let callers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    callers.block_on(async {
        for _ in 0..10 {
            let settings = RuntimeSettings {
                extra_threads: 1,
                ..RuntimeSettings::default()
            };
            let runtime = Runtime::start(settings).await.unwrap();
            let made = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&made);
            let client = runtime
                .dependency("dep")
                .configure(|settings| {
                    opens_after(RULE, ms(HOUR))(settings);
                    settings.workers.count = nonzero(2);
                    settings.bulkhead.max_concurrent = nonzero(64);
                })
                .workers(move || Failing(Arc::clone(&counted)))
                .start()
                .await
                .unwrap();
            let calling = (0..CALLERS)
                .map(|_| tokio::spawn(call_in_a_loop(client.clone(), Arc::clone(&made))));
            for caller in join_all(calling).await {
                caller.unwrap();
            }
            let executed = made.load(Ordering::Relaxed);
            assert!(executed <= u64::from(RULE) + CALLERS, "{executed}");
            assert!(executed >= u64::from(RULE));
            runtime.shutdown().await;
        }
    });
}

fn judged_by_slowness(settings: &mut DependencySettings) {
    settings.breaker.failure_threshold = None;
    settings.breaker.slow_call = Some(ms(1_000));
    settings.breaker.slow_rate = Rate::new(0.5).ok();
    settings.breaker.minimum_calls = 10;
    settings.breaker.open.base = ms(3_000);
    settings.timeout.attempt = None;
    settings.timeout.total = None;
}

/// Starts calls that never end.
fn hang(bench: &Bench, calls: u32) -> Vec<tokio::task::JoinHandle<()>> {
    let calls = (0..calls).map(|_| {
        let client = bench.client.clone();
        tokio::spawn(async move {
            // Interrupted at the end of the test.
            let _ = client.ask(Do::Hang).await;
        })
    });
    calls.collect()
}

#[test]
fn brk_9_a_total_hang_opens_the_breaker_after_about_one_slow_call() {
    run_paused(async || {
        let bench = Bench::start(judged_by_slowness).await;
        let hung = hang(&bench, 20);
        let_others_run().await;
        pass(999).await;
        assert_eq!(bench.state(), State::Closed);
        pass(300).await;
        let status = bench.status();
        assert_eq!(status.state, State::Open, "{}", status.reason);
        assert_eq!(bench.script.calls(), 20);
        hung.iter().for_each(tokio::task::JoinHandle::abort);
        bench.finish().await;
    });
}

#[test]
fn brk_9_calls_that_ended_in_time_are_never_overdue() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            judged_by_slowness(settings);
            settings.retry.max_attempts = nonzero(2);
        })
        .await;
        for call in 0..20 {
            let work = || std::future::ready(Ok::<u32, String>(call));
            bench.client.run(work).await.unwrap();
            bench.ask(Do::Answer(call)).await.unwrap();
            bench.ask(Do::End(Class::Rejected)).await.unwrap_err();
        }
        // Longer than a call in flight may take before it is slow.
        pass(3_000).await;
        let status = bench.status();
        assert_eq!(status.state, State::Closed, "{}", status.reason);
        assert_eq!(status.totals.trips, 0);
        bench.finish().await;
    });
}

#[test]
fn brk_9_what_hung_before_the_breaker_closed_again_does_not_open_it_again() {
    run_paused(async || {
        let bench = Bench::start(judged_by_slowness).await;
        let hung = hang(&bench, 20);
        let_others_run().await;
        pass(5_000).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed);
        for _ in 0..20 {
            pass(1_000).await;
            bench.ask(Do::Answer(1)).await.unwrap();
        }
        assert_eq!(bench.status().totals.trips, 1);
        hung.iter().for_each(tokio::task::JoinHandle::abort);
        bench.finish().await;
    });
}

#[test]
fn brk_9_waiting_for_a_place_is_not_slow() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            judged_by_slowness(settings);
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_queue = 30;
            settings.bulkhead.max_wait = ms(60_000);
        };
        let bench = Bench::start(configure).await;
        let calls = (0..20).map(|_| bench.ask(Do::Answer(1).after(200)));
        let answers = join_all(calls).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(bench.status().totals.trips, 0);
        bench.finish().await;
    });
}
