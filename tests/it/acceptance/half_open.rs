//! Items 11 to 17 and 23: probes, late outcomes, cancelled callers.

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallError, DependencyStatus};
use breakerbox_policy::{DependencySettings, HalfOpenRule, RefusalState, State};
use futures_util::future::join_all;

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

fn needs(successes: u32) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        opens_after(1, ms(100))(settings);
        settings.breaker.half_open.rule = HalfOpenRule::Successes(nonzero(successes));
    }
}

/// Returns the successes so far, and the number needed.
fn progress(status: &DependencyStatus) -> Option<(u64, u64)> {
    status.half_open.map(|view| (view.successes, view.needed))
}

#[test]
fn item_11_so_many_successes_close_it() {
    run_paused(async || {
        let bench = Bench::start(needs(3)).await;
        bench.fail_until_open().await;
        pass(100).await;
        for count in 1..=2 {
            bench.ask(Do::Answer(1)).await.unwrap();
            let status = bench.status();
            assert_eq!(status.state, State::HalfOpen);
            assert_eq!(progress(&status), Some((count, 3)));
        }
        bench.ask(Do::Answer(1)).await.unwrap();
        let status = bench.status();
        assert_eq!((status.state, status.half_open), (State::Closed, None));
        assert_eq!((status.window.calls, status.window.failures), (0, 0));
        bench.finish().await;
    });
}

#[test]
fn item_12_a_failed_probe_opens_it_and_the_next_period_starts_from_zero() {
    run_paused(async || {
        let bench = Bench::start(needs(3)).await;
        bench.fail_until_open().await;
        pass(100).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.state(), State::Open);
        pass(100).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(progress(&bench.status()), Some((1, 3)));
        bench.finish().await;
    });
}

#[test]
fn item_13_half_open_admits_exactly_its_probes() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            needs(2)(settings);
            settings.breaker.half_open.max_calls = nonzero(2);
        };
        let bench = Bench::start(configure).await;
        bench.fail_until_open().await;
        pass(100).await;
        let before = bench.runtime.clock().now();
        let clock = bench.runtime.clock();
        let ask = async || {
            let answer = bench.ask(Do::Answer(1).after(500)).await;
            (answer, clock.now().since(before))
        };
        let ended = join_all((0..10).map(|_| ask())).await;
        let good = ended.iter().filter(|(answer, _)| answer.is_ok());
        assert_eq!(good.count(), 2);
        assert_eq!(bench.script.calls(), 1 + 2);
        for (answer, after) in &ended {
            let Err(error) = answer else { continue };
            let CallError::Open(refused) = error else {
                panic!("{error}");
            };
            assert_eq!(refused.state, RefusalState::HalfOpen);
            assert!(after.is_zero(), "at once, not after {after:?}");
        }
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn item_14_a_silent_probe_opens_it_again_and_the_next_one_is_admitted() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            opens_after(1, ms(100))(settings);
            settings.timeout.attempt = Some(ms(1_000));
        };
        let bench = Bench::start(configure).await;
        bench.fail_until_open().await;
        for _ in 0..3 {
            pass(100).await;
            let before = bench.runtime.clock().now();
            let error = bench.ask(Do::Hang).await.unwrap_err();
            assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
            assert_eq!(bench.runtime.clock().now().since(before), ms(1_000));
            assert_eq!(bench.state(), State::Open);
        }
        pass(99).await;
        bench.ask(Do::Answer(1)).await.unwrap_err();
        pass(1).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

/// Returns the fields that a late outcome must not change.
fn verdict(status: &DependencyStatus) -> impl PartialEq + std::fmt::Debug {
    (
        status.state,
        status.generation,
        status.since,
        status.half_open,
        status.window,
        status.tally.recorded,
    )
}

#[test]
fn item_15_a_late_success_is_no_probe() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            needs(2)(settings);
            settings.breaker.half_open.max_calls = nonzero(1);
        };
        let bench = Bench::start(configure).await;
        let client = bench.client.clone();
        let slow = tokio::spawn(async move { client.ask(Do::Answer(1).after(300)).await });
        let_others_run().await;
        bench.fail_until_open().await;
        pass(100).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        let before = bench.status();
        assert_eq!(before.state, State::HalfOpen);
        slow.await.unwrap().unwrap();
        let after = bench.status();
        assert_eq!(verdict(&after), verdict(&before));
        assert_eq!(after.tally.late, before.tally.late + 1);
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed, "the probe's place is free");
        bench.finish().await;
    });
}

#[test]
fn item_16_a_late_failure_does_not_lengthen_the_open_time() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(1_000))).await;
        let client = bench.client.clone();
        let slow = tokio::spawn(async move { client.ask(Do::Fail.after(300)).await });
        let_others_run().await;
        bench.fail_until_open().await;
        let before = bench.status();
        slow.await.unwrap().unwrap_err();
        let after = bench.status();
        assert_eq!(verdict(&after), verdict(&before));
        assert_eq!(after.retry_after, Some(ms(700)));
        assert_eq!(after.tally.late, 1);
        bench.finish().await;
    });
}

#[test]
fn item_17_a_probe_whose_caller_left_gives_its_permit_back() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        bench.fail_until_open().await;
        pass(100).await;
        for _ in 0..3 {
            let left = tokio::time::timeout(ms(10), bench.ask(Do::Hang));
            left.await.unwrap_err();
            assert_eq!(bench.state(), State::HalfOpen);
        }
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn item_23_ten_concurrent_successes_are_ten_successes() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let asked = (0..10).map(|number| bench.ask(Do::Answer(number).after(10)));
        let answers = join_all(asked).await;
        let values: Vec<u32> = answers.into_iter().map(|one| one.unwrap().value).collect();
        assert_eq!(values, (0..10).collect::<Vec<_>>());
        let status = bench.status();
        assert_eq!((status.totals.submitted, status.totals.primary), (10, 10));
        assert_eq!(status.totals.failed, 0);
        assert_eq!((status.tally.successes, status.tally.failures), (10, 0));
        bench.finish().await;
    });
}
