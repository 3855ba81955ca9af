//! LIM-2 at each layer: a deadline that has passed, or that would pass during a wait.

use std::cell::Cell;
use std::num::NonZeroU32;

use breakerbox_actors::CallError;
use breakerbox_actors::testing::run_paused;
use breakerbox_policy::{
    CancelledPolicy, Class, DependencySettings, Executed, RateLimitSettings, RetryJitter, State,
};

use super::within;
use crate::scripted::{Asked, Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

fn assert_too_late(asked: Asked) {
    let error = asked.unwrap_err();
    let CallError::TimedOut { executed, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(executed, Executed::No);
}

/// Settings of the layers that a call passes, the first without any.
fn layers() -> [fn(&mut DependencySettings); 4] {
    [
        |_| {},
        |settings| {
            settings.rate_limit = Some(RateLimitSettings {
                rate: 1.0,
                per: ms(1_000),
                burst: NonZeroU32::MIN,
                max_wait: ms(60_000),
            });
        },
        |settings| settings.bulkhead.max_concurrent = nonzero(1),
        |settings| settings.retry.max_attempts = nonzero(3),
    ]
}

#[test]
fn lim_2_a_deadline_that_has_passed_refuses_before_any_work() {
    run_paused(async || {
        for layer in layers() {
            let bench = Bench::start(|settings| {
                layer(settings);
                settings.breaker.failure_threshold = Some(NonZeroU32::MIN);
                settings.breaker.cancelled = CancelledPolicy::Failure;
            })
            .await;
            assert_too_late(bench.client.ask_with(Do::Answer(1), within(0)).await);
            let begun = Cell::new(false);
            let by_result = |_: &Result<(), String>| Class::Success.into();
            let ran = bench.client.run_with(within(0), by_result, || {
                begun.set(true);
                std::future::ready(Ok(()))
            });
            ran.await.unwrap_err();
            assert!(!begun.get(), "the closure was called");
            assert_eq!(bench.script.calls(), 0);
            let status = bench.status();
            assert_eq!((status.state, status.tally.failures), (State::Closed, 0));
            assert_eq!(status.totals.attempts, 0);
            bench.finish().await;
        }
    });
}

#[test]
fn lim_2_a_deadline_that_has_passed_takes_no_probe() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        bench.fail_until_open().await;
        pass(100).await;
        assert_too_late(bench.client.ask_with(Do::Answer(1), within(0)).await);
        assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().value, 1);
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn lim_2_a_turn_after_the_deadline_is_refused_at_once() {
    run_paused(async || {
        let bench = Bench::start(layers()[1]).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        let before = bench.runtime.clock().now();
        let error = bench
            .client
            .ask_with(Do::Answer(2), within(900))
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::RateLimited { .. }), "{error}");
        assert_eq!(bench.runtime.clock().now(), before, "without a wait");
        bench.finish().await;
    });
}

#[test]
fn lim_2_who_waits_for_a_place_leaves_at_the_deadline() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(60_000);
        })
        .await;
        let waiter = async {
            let_others_run().await;
            let asked = bench.client.ask_with(Do::Answer(2), within(250)).await;
            assert_too_late(asked);
            assert_eq!(bench.runtime.clock().now().as_nanos() / 1_000_000, 250);
        };
        let (held, ()) = tokio::join!(bench.ask(Do::Answer(1).after(1_000)), waiter);
        held.unwrap();
        assert_eq!((bench.script.calls(), bench.failures()), (1, 0));
        bench.finish().await;
    });
}

#[test]
fn lim_2_who_waits_for_a_worker_is_answered_at_the_deadline_and_not_executed() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.workers.backoff.jitter = RetryJitter::None;
            settings.workers.backoff.base = ms(5_000);
            settings.workers.backoff.max = ms(5_000);
            settings.workers.quarantine = None;
        })
        .await;
        for _ in 0..2 {
            bench.ask(Do::Panic).await.unwrap_err();
        }
        assert!(!bench.status().workers[0].running);
        let before = bench.runtime.clock().now();
        assert_too_late(bench.client.ask_with(Do::Answer(1), within(500)).await);
        assert_eq!(bench.runtime.clock().now().since(before), ms(500));
        pass(60_000).await;
        assert_eq!(bench.script.calls(), 2);
        assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().value, 1);
        bench.finish().await;
    });
}

#[test]
fn lim_2_a_retry_that_would_come_too_late_is_not_waited_for() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.retry.max_attempts = nonzero(3);
            settings.retry.backoff.base = ms(1_000);
            settings.retry.backoff.jitter = RetryJitter::None;
        })
        .await;
        let options = breakerbox_actors::CallOptions {
            idempotent: Some(true),
            ..within(1_000)
        };
        let asked = bench.client.ask_with(Do::Fail, options).await;
        assert!(matches!(asked, Err(CallError::Failed { .. })));
        assert_eq!(bench.script.calls(), 1);
        assert_eq!(bench.runtime.clock().now().as_nanos(), 0, "without a wait");
        bench.finish().await;
    });
}

#[test]
fn call_4_who_leaves_while_it_waits_for_a_place_is_no_outcome() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.breaker.cancelled = CancelledPolicy::Failure;
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(60_000);
        })
        .await;
        let waiter = async {
            let_others_run().await;
            let gone = tokio::time::timeout(ms(100), bench.ask(Do::Answer(2))).await;
            assert!(gone.is_err());
            let_others_run().await;
            let tally = bench.status().tally;
            assert_eq!((tally.cancelled, tally.failures), (0, 0));
        };
        let (held, ()) = tokio::join!(bench.ask(Do::Answer(1).after(1_000)), waiter);
        held.unwrap();
        bench.finish().await;
    });
}
