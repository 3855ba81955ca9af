//! CALL-6 and LIM-3: the order of waiters for a slot, separate slots for writes, and an adaptive
//! limit.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallContext, CallError, CallOptions, Client, Dependency, Health};
use breakerbox_policy::{
    AdaptiveRule, AdaptiveSettings, BulkheadSettings, Class, DependencySettings, Executed,
    Priority, Rate,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::scripted::{Asked, Bench, Do, let_others_run, ms, nonzero, pass};

fn one_place(max_queue: u32) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        settings.bulkhead.max_concurrent = nonzero(1);
        settings.bulkhead.max_queue = max_queue;
        settings.bulkhead.max_wait = ms(60_000);
    }
}

fn with(priority: Priority) -> CallOptions {
    CallOptions {
        priority,
        ..CallOptions::default()
    }
}

/// Makes a call after `at` milliseconds; returns its result and the time since `began`.
async fn ask_at(bench: &Bench, at: u64, priority: Priority, began: Instant) -> (Asked, Duration) {
    pass(at).await;
    let told = Do::Answer(1).after(100);
    let asked = bench.client.ask_with(told, with(priority)).await;
    (asked, began.elapsed())
}

#[test]
fn call_6_who_matters_more_overtakes_those_who_wait() {
    run_paused(async || {
        let bench = Bench::start(one_place(4)).await;
        let began = Instant::now();
        let asked = [
            (0, Priority::Low),
            (10, Priority::Low),
            (20, Priority::Normal),
            (30, Priority::Low),
            (40, Priority::High),
        ];
        let calls = asked.map(|(at, priority)| ask_at(&bench, at, priority, began));
        let ended = join_all(calls).await.into_iter();
        let times: Vec<_> = ended.map(|(asked, at)| (asked.is_ok(), at)).collect();
        let expected = [100, 400, 300, 500, 200].map(|at| (true, ms(at)));
        assert_eq!(times, expected, "the first ran already");
        bench.finish().await;
    });
}

#[test]
fn call_6_a_full_queue_sheds_the_low_for_the_high_at_once() {
    run_paused(async || {
        let bench = Bench::start(one_place(2)).await;
        let began = Instant::now();
        let asked = [
            (0, Priority::Normal),
            (10, Priority::Low),
            (20, Priority::Low),
            (30, Priority::High),
            (40, Priority::Low),
        ];
        let calls = asked.map(|(at, priority)| ask_at(&bench, at, priority, began));
        let ended = join_all(calls).await;
        let times: Vec<_> = ended
            .iter()
            .map(|(asked, at)| (asked.is_ok(), *at))
            .collect();
        let expected = [
            (true, 100),
            (true, 300),
            (false, 30),
            (true, 200),
            (false, 40),
        ];
        assert_eq!(times, expected.map(|(good, at)| (good, ms(at))));
        for error in ended.into_iter().filter_map(|(asked, _)| asked.err()) {
            assert!(matches!(error, CallError::Overloaded { .. }), "{error}");
            assert_eq!(error.executed(), Executed::No);
        }
        assert_eq!(bench.script.calls(), 3);
        bench.finish().await;
    });
}

/// Dependency that classifies its own requests as reads or writes.
struct Files;

#[derive(Debug, Clone, Copy, PartialEq)]
enum File {
    Read,
    Write,
    /// Write that panics.
    Spoil,
}

impl Dependency for Files {
    type Request = File;
    type Response = ();
    type Error = String;

    async fn call(&self, request: File, _: &CallContext) -> Result<(), String> {
        pass(100).await;
        assert!(request != File::Spoil, "told to");
        Ok(())
    }

    fn is_write(request: &File) -> bool {
        *request != File::Read
    }
}

async fn files(runtime: &TestRuntime) -> Client<Files> {
    let builder = runtime.dependency("files").configure(|settings| {
        settings.bulkhead.max_concurrent = nonzero(3);
        settings.bulkhead.max_concurrent_writes = Some(nonzero(1));
        settings.bulkhead.max_wait = ms(60_000);
    });
    builder.workers(|| Files).start().await.unwrap()
}

/// Makes these calls at once; returns the milliseconds until each ended.
async fn ends(client: &Client<Files>, calls: &[(File, CallOptions)]) -> Vec<u128> {
    let began = Instant::now();
    let calls = calls.iter().map(|(file, options)| async {
        client.ask_with(*file, options.clone()).await.unwrap();
        began.elapsed().as_millis()
    });
    join_all(calls).await
}

#[test]
fn lim_3_two_writes_run_one_after_another_while_reads_pass() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = files(&runtime).await;
        let plain = |file| (file, CallOptions::default());
        let both = [File::Write, File::Write, File::Read, File::Read].map(plain);
        assert_eq!(ends(&client, &both).await, [100, 200, 100, 100]);
        // A third read finds no slot; the write has waited for longer and comes first.
        let more = [File::Write, File::Write, File::Read, File::Read, File::Read].map(plain);
        assert_eq!(ends(&client, &more).await, [100, 200, 100, 100, 200]);
        runtime.finish().await;
    });
}

#[test]
fn lim_3_a_call_may_say_itself_whether_it_is_a_write() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = files(&runtime).await;
        let write = |write| CallOptions {
            write,
            ..CallOptions::default()
        };
        let calls = [
            (File::Write, write(None)),
            (File::Write, write(Some(false))),
            (File::Read, write(Some(true))),
        ];
        assert_eq!(ends(&client, &calls).await, [100, 100, 200]);

        let began = Instant::now();
        let closure = async |own: Option<bool>| {
            let good = |_: &Result<(), String>| Class::Success.into();
            let work = async || {
                pass(100).await;
                Ok(())
            };
            client.run_with(write(own), good, work).await.unwrap();
            began.elapsed().as_millis()
        };
        let ended = tokio::join!(closure(Some(true)), closure(Some(true)), closure(None));
        assert_eq!(ended, (100, 200, 100));
        runtime.finish().await;
    });
}

#[test]
fn lim_3_a_write_that_crashes_or_is_left_gives_both_places_back() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = files(&runtime).await;
        client.ask(File::Spoil).await.unwrap_err();
        assert_eq!(client.status().in_flight, 0);
        let left = tokio::time::timeout(ms(50), client.ask(File::Write)).await;
        assert!(left.is_err());
        let (first, second) = tokio::join!(client.ask(File::Write), client.ask(File::Write));
        assert_eq!(first.unwrap().elapsed, ms(100));
        assert_eq!(second.unwrap().elapsed, ms(200));
        assert_eq!(client.status().health, Health::Ok);
        runtime.finish().await;
    });
}

const CAP: u32 = 8;

fn adaptive(rule: AdaptiveRule) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        settings.breaker.failure_threshold = None;
        settings.bulkhead = BulkheadSettings {
            max_concurrent: nonzero(CAP),
            max_queue: 1000,
            max_wait: ms(600_000),
            adaptive: Some(AdaptiveSettings {
                rule,
                min: nonzero(1),
                initial: nonzero(4),
                idle: ms(30_000),
            }),
            ..BulkheadSettings::default()
        };
        settings.timeout.attempt = None;
        settings.timeout.total = None;
    }
}

/// Returns the maximum number of calls in flight when many start at once.
async fn most_at_once(bench: &Bench, told: Do) -> u32 {
    let most = AtomicU32::new(0);
    let calls = join_all((0..100).map(|_| async {
        let asked = bench.ask(told.clone()).await;
        most.fetch_max(bench.status().in_flight, Ordering::Relaxed);
        asked
    }));
    let watch = async {
        let_others_run().await;
        most.fetch_max(bench.status().in_flight, Ordering::Relaxed);
    };
    tokio::join!(calls, watch);
    most.into_inner()
}

#[test]
fn call_6_an_adaptive_limit_falls_under_failures_and_never_passes_the_cap() {
    run_paused(async || {
        for rule in [
            AdaptiveRule::Aimd {
                backoff: Rate::new(0.5).unwrap(),
            },
            AdaptiveRule::Gradient { tolerance: 1.5 },
        ] {
            let bench = Bench::start(adaptive(rule)).await;
            let good = Do::Answer(1).after(10);
            assert_eq!(most_at_once(&bench, good.clone()).await, CAP, "{rule:?}");
            for _ in 0..50 {
                bench.ask(Do::Fail).await.unwrap_err();
            }
            let calls = join_all((0..6).map(|_| bench.ask(good.clone())));
            let watch = async {
                let_others_run().await;
                let status = bench.status();
                assert_eq!((status.in_flight, status.queued), (1, 5), "{rule:?}");
            };
            tokio::join!(calls, watch);
            // After a rest the limit starts from its initial value.
            pass(600_000).await;
            let rush = join_all((0..10).map(|_| bench.ask(good.clone())));
            let watch = async {
                let_others_run().await;
                assert_eq!(bench.status().in_flight, 4, "{rule:?}");
            };
            tokio::join!(rush, watch);
            bench.finish().await;
        }
    });
}
