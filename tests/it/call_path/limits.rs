//! CALL-6, CALL-7 and LIM-4: limits on calls, permitted retries, and one budget for the retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{
    CallContext, CallError, CallOptions, Dependency, Runtime, RuntimeSettings,
};
use breakerbox_policy::{BudgetSettings, Class, DependencySettings, RetryJitter};
use futures_util::future::join_all;

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero, pass};

const PLACES: u32 = 5;
const SEATS: u32 = 10;
const CALLS: usize = 200;

fn narrow(settings: &mut DependencySettings) {
    settings.bulkhead.max_concurrent = nonzero(PLACES);
    settings.bulkhead.max_queue = SEATS;
    settings.bulkhead.max_wait = ms(60_000);
}

#[test]
fn call_6_of_two_hundred_at_once_as_many_are_taken_as_there_are_places_and_seats() {
    run_paused(async || {
        let bench = Bench::start(narrow).await;
        let watch = async {
            let_others_run().await;
            let status = bench.status();
            assert_eq!((status.in_flight, status.queued), (PLACES, SEATS));
        };
        let calls = join_all((0..CALLS).map(|_| bench.ask(Do::Answer(1).after(100))));
        let (ended, ()) = tokio::join!(calls, watch);
        let good = ended.iter().filter(|one| one.is_ok()).count();
        assert_eq!(good, (PLACES + SEATS) as usize);
        for error in ended.into_iter().filter_map(Result::err) {
            let CallError::Overloaded {
                max_concurrent,
                max_queue,
                ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!((max_concurrent, max_queue), (PLACES, SEATS));
        }
        assert_eq!(bench.status().tally.failures, 0, "a refusal is no outcome");
        bench.finish().await;
    });
}

#[test]
fn call_6_who_waits_too_long_for_a_place_is_refused_and_served_in_turn() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            narrow(settings);
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(250);
        };
        let bench = Bench::start(configure).await;
        let calls = (0..5).map(|number| bench.ask(Do::Answer(number).after(100)));
        let ended = join_all(calls).await;
        let values: Vec<u32> = ended.iter().flatten().map(|one| one.value).collect();
        assert_eq!(values, [0, 1, 2], "in the order of their asking");
        for error in ended.into_iter().filter_map(Result::err) {
            assert!(matches!(error, CallError::Overloaded { .. }), "{error}");
        }
        bench.finish().await;
    });
}

/// Dependency that counts the calls inside it, and their maximum.
struct Crowd {
    now: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
}

impl Dependency for Crowd {
    type Request = ();
    type Response = ();
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn call_6_the_bounds_hold_on_several_threads() {
    let callers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    callers.block_on(async {
        let settings = RuntimeSettings {
            extra_threads: 1,
            ..RuntimeSettings::default()
        };
        let runtime = Runtime::start(settings).await.unwrap();
        let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (inside, high) = (Arc::clone(&now), Arc::clone(&most));
        let client = runtime
            .dependency("crowd")
            .configure(|settings| {
                narrow(settings);
                settings.workers.count = nonzero(2);
            })
            .workers(move || Crowd {
                now: Arc::clone(&inside),
                most: Arc::clone(&high),
            })
            .start()
            .await
            .unwrap();
        let calling = (0..CALLS).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut good = 0_u64;
                for _ in 0..20 {
                    let answer = client.ask(()).await;
                    let status = client.status();
                    assert!(status.queued <= SEATS && status.in_flight <= PLACES);
                    match answer {
                        Ok(_) => good += 1,
                        Err(CallError::Overloaded { .. }) => tokio::task::yield_now().await,
                        Err(other) => panic!("{other}"),
                    }
                }
                good
            })
        });
        let good = join_all(calling).await.into_iter().map(Result::unwrap);
        let totals = client.status().totals;
        assert_eq!(good.sum::<u64>(), totals.primary);
        assert_eq!(totals.primary + totals.refused, totals.submitted);
        assert!(most.load(Ordering::SeqCst) <= PLACES);
        assert!(totals.refused > 0, "none was refused: nothing was tested");
        runtime.shutdown().await;
    });
}

fn retries(settings: &mut DependencySettings) {
    settings.breaker.failure_threshold = None;
    settings.retry.max_attempts = nonzero(3);
    settings.retry.backoff.base = ms(100);
    settings.retry.backoff.jitter = RetryJitter::None;
    settings.workers.quarantine = None;
}

fn repeatable(idempotent: bool) -> CallOptions {
    CallOptions {
        idempotent: Some(idempotent),
        ..CallOptions::default()
    }
}

#[test]
fn call_7_only_what_is_idempotent_is_repeated() {
    run_paused(async || {
        let bench = Bench::start(retries).await;
        for (told, idempotent, attempts) in [
            (Do::Fail, true, 3),
            (Do::Fail, false, 1),
            (Do::Hang, true, 3),
            (Do::Hang, false, 1),
            (Do::Panic, false, 1),
            (Do::End(Class::Rejected), true, 1),
            (Do::End(Class::Misconfigured), true, 1),
            (Do::End(Class::Throttled), true, 3),
            (Do::End(Class::Throttled), false, 1),
        ] {
            // The pause of an earlier throttle would still hold calls back.
            pass(60_000).await;
            let before = bench.script.calls();
            let options = repeatable(idempotent);
            let asked = bench.client.ask_with(told.clone(), options).await;
            asked.unwrap_err();
            let made = bench.script.calls() - before;
            assert_eq!(made, attempts, "{told:?}, idempotent: {idempotent}");
        }
        bench.finish().await;
    });
}

#[test]
fn call_7_a_closure_is_not_idempotent_unless_it_says_so() {
    run_paused(async || {
        let bench = Bench::start(retries).await;
        for (options, attempts) in [(CallOptions::default(), 1), (repeatable(true), 3)] {
            let mut made = 0;
            let by_result = |_: &Result<u32, &str>| Class::Failure.into();
            let work = || {
                made += 1;
                std::future::ready(Err("no"))
            };
            bench
                .client
                .run_with(options, by_result, work)
                .await
                .unwrap_err();
            assert_eq!(made, attempts);
        }
        bench.finish().await;
    });
}

#[test]
fn lim_4_all_callers_share_one_budget_of_retries() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            retries(settings);
            settings.bulkhead.max_concurrent = nonzero(100);
            settings.retry.budget = Some(BudgetSettings {
                ratio: 0.2,
                floor_per_second: 0,
            });
        };
        let bench = Bench::start(configure).await;
        let asked = join_all((0..50).map(|_| bench.client.ask_with(Do::Fail, repeatable(true))));
        let made = AtomicU32::new(0);
        let closures = (0..50).map(|_| {
            let by_result = |_: &Result<u32, &str>| Class::Failure.into();
            bench
                .client
                .run_with(repeatable(true), by_result, async || {
                    made.fetch_add(1, Ordering::Relaxed);
                    Err("no")
                })
        });
        let (asked, ran) = tokio::join!(asked, join_all(closures));
        assert!(asked.iter().all(Result::is_err) && ran.iter().all(Result::is_err));
        let attempts = bench.script.calls() + u64::from(made.load(Ordering::Relaxed));
        assert_eq!(attempts, 100 + 20, "a fifth of a hundred calls");
        assert_eq!(bench.status().totals.attempts, attempts);
        bench.finish().await;
    });
}
