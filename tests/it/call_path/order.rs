//! CALL-5: the order of the layers, from the outside in: fallback, total deadline, retry, breaker,
//! bulkhead, attempt timeout, worker.

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallError, CallOptions, FallbackRule, Fixed};
use breakerbox_policy::{
    BreakerCommand, DependencySettings, Executed, RefusalState, RetryJitter, State,
};

use crate::scripted::{Asked, Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

fn idempotent() -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

fn trip() -> BreakerCommand {
    BreakerCommand::Trip {
        reason: "for the test".to_owned(),
        wait: None,
    }
}

/// Starts a call in its own task and lets it run until it waits.
async fn begin(bench: &Bench, told: Do) -> tokio::task::JoinHandle<Asked> {
    let client = bench.client.clone();
    let call = tokio::spawn(async move { client.ask(told).await });
    let_others_run().await;
    call
}

#[test]
fn call_5_a_refusal_by_the_bulkhead_gives_the_probe_back() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            opens_after(1, ms(100))(settings);
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_queue = 0;
        };
        let bench = Bench::start(configure).await;
        let late = begin(&bench, Do::Answer(1).after(1_000)).await;
        bench.client.operate(trip()).await.unwrap();
        pass(100).await;
        for _ in 0..3 {
            let error = bench.ask(Do::Answer(2)).await.unwrap_err();
            assert!(matches!(error, CallError::Overloaded { .. }), "{error}");
            let_others_run().await;
            let status = bench.status();
            assert_eq!(status.state, State::HalfOpen);
            assert_eq!(status.half_open.unwrap().in_flight, 0);
        }
        late.await.unwrap().unwrap();
        assert_eq!(bench.ask(Do::Answer(2)).await.unwrap().value, 2);
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn call_5_the_breaker_is_asked_before_the_bulkhead() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_queue = 0;
        };
        let bench = Bench::start(configure).await;
        let late = begin(&bench, Do::Answer(1).after(1_000)).await;
        bench.client.operate(trip()).await.unwrap();
        let error = bench.ask(Do::Answer(2)).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        late.await.unwrap().unwrap();
        bench.finish().await;
    });
}

/// A call that waits when the breaker opens must not reach a dependency that is known to be sick.
#[test]
fn call_5_a_call_that_waits_for_a_place_is_refused_when_the_breaker_opens() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            opens_after(1, ms(60_000))(settings);
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(10_000);
        };
        let bench = Bench::start(configure).await;
        let failing = begin(&bench, Do::Fail.after(500)).await;
        let waiting = [begin(&bench, Do::Fail).await, begin(&bench, Do::Fail).await];
        let ran = bench.client.run(async || Err::<u32, _>("no"));
        assert!(matches!(ran.await, Err(CallError::Open(_))));
        failing.await.unwrap().unwrap_err();
        for call in waiting {
            let error = call.await.unwrap().unwrap_err();
            assert!(matches!(error, CallError::Open(_)), "{error}");
            assert_eq!(error.executed(), Executed::No);
        }
        assert_eq!(bench.script.calls(), 1);
        assert_eq!(bench.status().totals.refused, 3);
        bench.finish().await;
    });
}

/// Two crashes open the breaker; calls held for the next incarnation are refused, not replayed.
#[test]
fn call_5_a_call_that_waits_for_a_worker_is_refused_when_the_breaker_opens() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            opens_after(2, ms(60_000))(settings);
            settings.workers.backoff.jitter = RetryJitter::None;
        };
        let bench = Bench::start(configure).await;
        let told = [Do::Hang, Do::Panic, Do::Answer(1), Do::Fail];
        let asked = told.map(|told| bench.ask(told));
        let ended = futures_util::future::join_all(asked).await;
        let errors: Vec<_> = ended.into_iter().map(|one| one.unwrap_err()).collect();
        assert!(
            matches!(errors[0], CallError::Interrupted { .. }),
            "{}",
            errors[0]
        );
        assert!(
            matches!(errors[1], CallError::WorkerCrashed { .. }),
            "{}",
            errors[1]
        );
        for error in &errors[2..] {
            assert!(matches!(error, CallError::Open(_)), "{error}");
            assert_eq!(error.executed(), Executed::No);
        }
        assert_eq!(bench.script.calls(), 2);
        let status = bench.status();
        assert_eq!((status.totals.failed, status.totals.refused), (2, 2));
        bench.finish().await;
    });
}

/// Otherwise a dependency that is being probed would receive more calls than the probes.
#[test]
fn brk_4_a_call_that_waited_since_before_is_no_probe() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(10_000);
        };
        let bench = Bench::start(configure).await;
        let first = begin(&bench, Do::Answer(1).after(500)).await;
        let second = begin(&bench, Do::Hang).await;
        let third = begin(&bench, Do::Answer(3)).await;
        bench.client.operate(trip()).await.unwrap();
        let probe = BreakerCommand::Probe {
            reason: "for the test".to_owned(),
        };
        bench.client.operate(probe).await.unwrap();
        first.await.unwrap().unwrap();
        pass(1_000).await;
        // The second call became the probe; the third still waits for its slot.
        let view = bench.status().half_open.unwrap();
        assert_eq!((view.in_flight, bench.script.calls()), (1, 2));
        let error = second.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        let error = third.await.unwrap().unwrap_err();
        let CallError::Open(refused) = &error else {
            panic!("{error}");
        };
        assert_eq!(refused.state, RefusalState::Open);
        assert_eq!(bench.script.calls(), 2);
        bench.finish().await;
    });
}

fn slow_retries(settings: &mut DependencySettings) {
    settings.breaker.failure_threshold = None;
    settings.timeout.total = Some(ms(1_000));
    settings.retry.max_attempts = nonzero(10);
    settings.retry.backoff.base = ms(400);
    settings.retry.backoff.factor = 1.0;
    settings.retry.backoff.jitter = RetryJitter::None;
}

#[test]
fn call_5_the_total_deadline_covers_attempts_and_the_waits_between() {
    run_paused(async || {
        let bench = Bench::start(slow_retries).await;
        let begin = bench.runtime.clock().now();
        let told = Do::Fail.after(310);
        let error = bench.client.ask_with(told, idempotent()).await.unwrap_err();
        // 310 ms of work, 400 ms of waiting, 290 ms of work, then the deadline.
        assert_eq!(bench.runtime.clock().now().since(begin), ms(1_000));
        assert_eq!(bench.script.calls(), 2);
        assert_eq!(error.executed(), Executed::Maybe, "{error}");
        // A wait past the deadline is not begun.
        let told = Do::Fail.after(650);
        let begin = bench.runtime.clock().now();
        bench.client.ask_with(told, idempotent()).await.unwrap_err();
        assert_eq!(bench.runtime.clock().now().since(begin), ms(650));
        bench.finish().await;
    });
}

#[test]
fn call_5_the_total_deadline_covers_the_wait_for_a_place() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(5_000);
            settings.timeout.attempt = None;
            settings.timeout.total = Some(ms(1_000));
        };
        let bench = Bench::start(configure).await;
        let holder = bench.client.run_with(
            CallOptions::default(),
            |_: &Result<u32, String>| breakerbox_policy::Class::Success.into(),
            async || {
                pass(900).await;
                Ok(1)
            },
        );
        let short = async {
            let options = CallOptions {
                timeout: Some(ms(200)),
                ..CallOptions::default()
            };
            let begin = bench.runtime.clock().now();
            let error = bench
                .client
                .ask_with(Do::Answer(1), options)
                .await
                .unwrap_err();
            assert_eq!(bench.runtime.clock().now().since(begin), ms(200));
            assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
            assert_eq!(error.executed(), Executed::No);
        };
        let (held, ()) = tokio::join!(holder, short);
        held.unwrap();
        assert_eq!(bench.script.calls(), 0);
        assert_eq!(
            bench.status().tally.failures,
            0,
            "no call asked the dependency"
        );
        bench.finish().await;
    });
}

#[test]
fn call_5_a_call_may_shorten_the_total_deadline_but_not_lengthen_it() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.timeout.total = Some(ms(1_000))).await;
        for (own, after) in [(200, 200), (9_000, 1_000)] {
            let options = CallOptions {
                timeout: Some(ms(own)),
                ..CallOptions::default()
            };
            let begin = bench.runtime.clock().now();
            bench.client.ask_with(Do::Hang, options).await.unwrap_err();
            assert_eq!(bench.runtime.clock().now().since(begin), ms(after));
        }
        bench.finish().await;
    });
}

#[test]
fn call_5_what_a_caller_has_waited_counts_to_the_limits_of_the_call() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.timeout.total = Some(ms(1_000))).await;
        for (own, waited, after) in [(None, 300, 700), (Some(500), 300, 200), (None, 1_000, 0)] {
            let options = CallOptions {
                timeout: own.map(ms),
                waited: ms(waited),
                ..CallOptions::default()
            };
            let begin = bench.runtime.clock().now();
            let error = bench.client.ask_with(Do::Hang, options).await.unwrap_err();
            assert_eq!(bench.runtime.clock().now().since(begin), ms(after));
            assert_eq!(error.executed() == Executed::No, after == 0, "{error}");
            let CallError::TimedOut { after: told, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(told, ms(own.unwrap_or(1_000)), "the whole limit is told");
        }
        bench.finish().await;
    });
}

#[test]
fn call_5_the_fallback_stands_outside_of_everything() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            slow_retries(settings);
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_queue = 0;
        };
        let bench = Bench::with_fallbacks(configure, vec![FallbackRule::new(Fixed(77))]).await;
        let late = begin(&bench, Do::Hang).await;
        let overloaded = bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(overloaded.source.to_string(), "fallback:fixed");
        let timed_out = late.await.unwrap().unwrap();
        assert_eq!((timed_out.value, timed_out.elapsed), (77, ms(1_000)));
        let told = Do::Fail.after(300);
        let retried = bench.client.ask_with(told, idempotent()).await.unwrap();
        assert_eq!((retried.value, retried.attempts), (77, 2));
        bench.finish().await;
    });
}

#[test]
fn call_5_every_layer_can_be_left_out() {
    run_paused(async || {
        let bare = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = None;
            settings.timeout.attempt = None;
            settings.timeout.total = None;
            settings.retry.budget = None;
            settings.bulkhead.max_concurrent = nonzero(u32::MAX);
            settings.bulkhead.max_queue = 0;
            settings.workers.quarantine = None;
        };
        let bench = Bench::start(bare).await;
        for _ in 0..100 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        let told = Do::Answer(1).after(3_600_000);
        assert_eq!(bench.ask(told).await.unwrap().elapsed, ms(3_600_000));
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}
