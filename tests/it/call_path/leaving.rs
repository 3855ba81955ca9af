//! CALL-1 and CALL-4: callers that cancel at every point leave nothing behind.

use std::pin::pin;

use breakerbox_actors::CallOptions;
use breakerbox_actors::testing::run_paused;
use breakerbox_policy::{DependencySettings, RetryJitter, State};
use futures_util::poll;

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

/// Polls the call `polls` times, awaits `between` after each poll, and drops the call. Returns true
/// if the call was still pending.
async fn leave_after<F: Future>(polls: u32, call: F, between: impl AsyncFn()) -> bool {
    let mut call = pin!(call);
    for _ in 0..polls {
        if poll!(&mut call).is_ready() {
            return false;
        }
        between().await;
    }
    true
}

/// Asserts that the calls so far left nothing behind, and that the next one is served.
async fn assert_nothing_left(bench: &Bench, polls: u32) {
    let_others_run().await;
    pass(10_000).await;
    let status = bench.status();
    let totals = status.totals;
    assert_eq!(
        totals.submitted,
        totals.ended(),
        "after {polls} polls: {totals:?}"
    );
    assert_eq!(
        (status.in_flight, status.queued),
        (0, 0),
        "after {polls} polls"
    );
    let probes = status.half_open.map_or(0, |view| view.in_flight);
    assert_eq!(probes, 0, "after {polls} polls");
    let answer = bench.ask(Do::Answer(1)).await;
    assert_eq!(answer.unwrap().value, 1, "after {polls} polls");
}

async fn yield_once() {
    tokio::task::yield_now().await;
}

async fn step() {
    pass(10).await;
}

#[test]
fn call_1_a_caller_may_leave_an_ask_at_every_point() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let mut left = 0;
        for polls in 0..12 {
            for told in [Do::Answer(1), Do::Fail, Do::Hang, Do::Answer(1).after(30)] {
                left += u64::from(leave_after(polls, bench.ask(told.clone()), yield_once).await);
                left += u64::from(leave_after(polls, bench.ask(told.clone()), step).await);
                left += u64::from(leave_after(polls, bench.send(told), step).await);
                assert_nothing_left(&bench, polls).await;
            }
        }
        assert!(left > 50, "only {left} left early");
        bench.finish().await;
    });
}

#[test]
fn call_1_a_caller_may_leave_a_closure_at_every_point() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.breaker.failure_threshold = None).await;
        for polls in 0..12 {
            let good = bench.client.run(async || {
                step().await;
                Ok::<_, String>(1)
            });
            leave_after(polls, good, yield_once).await;
            let failing = bench.client.run(async || {
                tokio::task::yield_now().await;
                Err::<u32, _>("no")
            });
            leave_after(polls, failing, yield_once).await;
            assert_nothing_left(&bench, polls).await;
        }
        bench.finish().await;
    });
}

#[test]
fn call_1_a_prober_may_leave_at_every_point() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        for polls in 0..12 {
            for told in [Do::Answer(1), Do::Hang] {
                bench.fail_until_open().await;
                pass(100).await;
                leave_after(polls, bench.ask(told), yield_once).await;
                let_others_run().await;
                // The probe is free at once, not when its lease is over.
                let before = bench.runtime.clock().now();
                assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().value, 1);
                assert_eq!(bench.runtime.clock().now(), before);
                assert_eq!(bench.state(), State::Closed, "after {polls} polls");
            }
            assert_nothing_left(&bench, polls).await;
        }
        bench.finish().await;
    });
}

#[test]
fn call_1_a_prober_in_its_own_task_may_leave_at_every_point() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        for polls in 0..12 {
            bench.fail_until_open().await;
            pass(100).await;
            let probe = bench.client.run(async || {
                step().await;
                Ok::<_, String>(1)
            });
            leave_after(polls, probe, yield_once).await;
            let_others_run().await;
            assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().value, 1);
            assert_eq!(bench.state(), State::Closed, "after {polls} polls");
            assert_nothing_left(&bench, polls).await;
        }
        bench.finish().await;
    });
}

fn one_place(settings: &mut DependencySettings) {
    settings.bulkhead.max_concurrent = nonzero(1);
    settings.bulkhead.max_queue = 4;
    settings.bulkhead.max_wait = ms(1_000);
}

#[test]
fn call_4_a_caller_who_leaves_the_queue_costs_the_dependency_nothing() {
    run_paused(async || {
        let bench = Bench::start(one_place).await;
        for polls in 0..8 {
            let holder = bench.client.clone();
            let holder =
                tokio::spawn(async move { holder.ask(Do::Answer(1).after(500)).await.map(drop) });
            let_others_run().await;
            let reached = bench.script.calls();
            leave_after(polls, bench.ask(Do::Answer(2)), step).await;
            let ran = bench.client.run(async || Ok::<_, String>(1));
            leave_after(polls, ran, step).await;
            assert_eq!(bench.script.calls(), reached);
            assert_eq!(bench.status().queued, 0, "after {polls} polls");
            holder.await.unwrap().unwrap();
            assert_nothing_left(&bench, polls).await;
        }
        bench.finish().await;
    });
}

#[test]
fn call_4_a_caller_who_leaves_while_no_worker_runs_costs_the_dependency_nothing() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.workers.backoff.jitter = RetryJitter::None;
            settings.workers.quarantine = None;
        };
        let bench = Bench::start(configure).await;
        for polls in 0..6 {
            // After the second crash in a row, the next incarnation starts after a backoff.
            bench.ask(Do::Panic).await.unwrap_err();
            bench.ask(Do::Panic).await.unwrap_err();
            assert!(!bench.status().workers[0].running);
            let reached = bench.script.calls();
            leave_after(polls, bench.ask(Do::Answer(1)), yield_once).await;
            pass(60_000).await;
            assert_eq!(bench.script.calls(), reached, "after {polls} polls");
            assert_nothing_left(&bench, polls).await;
        }
        bench.finish().await;
    });
}

#[test]
fn call_1_a_caller_may_leave_while_it_waits_for_a_retry() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = None;
            settings.retry.max_attempts = nonzero(3);
            settings.retry.backoff.base = ms(100);
            settings.retry.budget = None;
        };
        let bench = Bench::start(configure).await;
        let again = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        for polls in 0..40 {
            let call = bench.client.ask_with(Do::Fail, again.clone());
            leave_after(polls, call, step).await;
            let reached = bench.script.calls();
            pass(10_000).await;
            assert_eq!(bench.script.calls(), reached, "no attempt without a caller");
            assert_nothing_left(&bench, polls).await;
        }
        bench.finish().await;
    });
}
