//! Attempts that are kept back, and attempts that are made again.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakerbox_policy::{
    BreakerCommand, DependencySettings, HedgeDelay, HedgeSettings, RetryJitter, State,
};

use crate::call_options::CallOptions;
use crate::client::Client;
use crate::error::CallError;
use crate::testing::{Reaction, Script, Scripted, ScriptedError, TestRuntime, run_paused};

type Echo = Client<Scripted<u64, u64>>;

/// A dependency that answers with the milliseconds that it takes, and fails at zero.
async fn echo(
    runtime: &TestRuntime,
    configure: impl FnOnce(&mut DependencySettings),
) -> (Echo, Script<u64, u64>) {
    let script = Script::new(|millis: u64, _| match millis {
        0 => Reaction::Fail(ScriptedError::failure("down")),
        _ => Reaction::Answer(millis).after(Duration::from_millis(millis)),
    });
    let worker = script.clone();
    let client = runtime
        .dependency("d")
        .configure(configure)
        .workers(move || worker.dependency())
        .start()
        .await
        .expect("it starts");
    (client, script)
}

fn attempts(settings: &mut DependencySettings, most: u32) {
    settings.retry.max_attempts = NonZeroU32::new(most).expect("not zero");
    settings.retry.backoff.base = Duration::from_millis(1);
    settings.retry.backoff.jitter = RetryJitter::None;
}

fn idempotent(most: Option<u32>) -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        max_attempts: most.and_then(NonZeroU32::new),
        ..CallOptions::default()
    }
}

fn trip(millis: u64) -> BreakerCommand {
    BreakerCommand::Trip {
        reason: "for the test".to_owned(),
        wait: Some(Duration::from_millis(millis)),
    }
}

fn reset() -> BreakerCommand {
    BreakerCommand::Reset {
        reason: "for the test".to_owned(),
    }
}

#[test]
fn brk_6_a_probe_is_given_back_while_its_call_waits_for_our_own_limits() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, script) = echo(&runtime, |settings| {
            settings.bulkhead.max_concurrent = NonZeroU32::MIN;
            settings.bulkhead.max_wait = Duration::from_secs(60);
            settings.breaker.half_open.probe_lease = Duration::from_millis(500);
        })
        .await;
        let begin = |millis| {
            let client = client.clone();
            tokio::spawn(async move { client.ask(millis).await })
        };
        let late = begin(4_000);
        tokio::time::sleep(Duration::from_millis(1)).await;
        client.operate(trip(10)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let waiting = begin(1);
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        let status = client.status();
        assert_eq!((status.state, status.queued), (State::HalfOpen, 1));
        assert_eq!(status.half_open.unwrap().in_flight, 0, "the probe is free");
        assert_eq!(script.calls(), 1);
        late.await.unwrap().unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().value, 1, "the probe");
        assert_eq!(client.status().state, State::Closed);
        runtime.finish().await;
    });
}

#[test]
fn lim_4_the_options_of_a_call_limit_its_attempts() {
    run_paused(async || {
        for (of_settings, of_call, made) in [(5, Some(2), 2), (1, Some(3), 3), (4, None, 4)] {
            let runtime = TestRuntime::start().await;
            let (client, script) = echo(&runtime, |settings| {
                attempts(settings, of_settings);
                settings.breaker.failure_threshold = None;
            })
            .await;
            client.ask_with(0, idempotent(of_call)).await.unwrap_err();
            assert_eq!(script.calls(), made);
            assert_eq!(client.status().counts.retries, made - 1);
            runtime.finish().await;
        }
    });
}

#[test]
fn call_7_work_that_can_begin_once_waits_for_an_open_breaker() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, script) = echo(&runtime, |settings| {
            attempts(settings, 5);
            settings.retry.backoff.base = Duration::from_millis(100);
            settings.retry.on_open = true;
            settings.breaker.failure_threshold = None;
        })
        .await;
        let begun = AtomicU32::new(0);
        let work = async || {
            begun.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>("down")
        };
        client.operate(trip(250)).await.unwrap();
        client.run_once(async || Ok::<_, ()>(())).await.unwrap();
        assert_eq!(client.status().state, State::Closed);
        let once = CallOptions {
            max_attempts: Some(NonZeroU32::MIN),
            ..CallOptions::default()
        };
        client.operate(trip(250)).await.unwrap();
        assert_eq!(client.ask_with(1, once.clone()).await.unwrap().value, 1);
        assert_eq!(script.calls(), 1);
        let failed = client.run_with(once, |_| breakerbox_policy::Class::Failure.into(), work);
        let failed = failed.await.unwrap_err();
        assert!(matches!(failed, CallError::Failed { .. }), "{failed}");
        assert_eq!(begun.load(Ordering::Relaxed), 1, "it has begun");
        runtime.finish().await;
    });
}

#[test]
fn lim_4_a_refusal_by_the_breaker_uses_up_no_attempt() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, script) = echo(&runtime, |settings| {
            attempts(settings, 5);
            settings.retry.backoff.base = Duration::from_millis(100);
            settings.retry.on_open = true;
            settings.breaker.failure_threshold = None;
        })
        .await;
        // It is refused at 0 and 100 ms.
        client.operate(trip(250)).await.unwrap();
        let closing = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            client.operate(reset()).await.unwrap();
        };
        let asked = client.ask_with(0, idempotent(Some(2)));
        let (failed, ()) = tokio::join!(asked, closing);
        let failed = failed.unwrap_err();
        assert!(matches!(failed, CallError::Failed { .. }), "{failed}");
        assert_eq!(script.calls(), 2);
        runtime.finish().await;
    });
}

#[test]
fn lim_4_a_refusal_between_two_attempts_uses_up_none_and_refusals_have_a_bound() {
    run_paused(async || {
        for (of_settings, of_call, open_ms, made) in [
            (5, Some(2), 250, 2),
            (2, None, 150, 2),
            (3, None, 60_000, 1),
        ] {
            let runtime = TestRuntime::start().await;
            let (client, script) = echo(&runtime, |settings| {
                attempts(settings, of_settings);
                settings.retry.backoff.base = Duration::from_millis(100);
                settings.retry.on_open = true;
                settings.breaker.failure_threshold = None;
            })
            .await;
            // It fails at once, and is refused from 100 ms on.
            let outage = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                client.operate(trip(open_ms)).await.unwrap();
            };
            let began = runtime.clock().now();
            let asked = client.ask_with(0, idempotent(of_call));
            let (failed, ()) = tokio::join!(asked, outage);
            let (failed, took) = (failed.unwrap_err(), runtime.clock().now().since(began));
            assert_eq!(script.calls(), made, "{failed}");
            assert_eq!(matches!(failed, CallError::Open(_)), made == 1, "{failed}");
            assert!(took < Duration::from_secs(2), "{took:?}");
            runtime.finish().await;
        }
    });
}

#[test]
fn lim_4_neither_a_hedge_without_a_slot_nor_a_retry_that_is_refused_counts_as_a_retry() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, script) = echo(&runtime, |settings| {
            attempts(settings, 3);
            settings.breaker.failure_threshold = Some(NonZeroU32::MIN);
            settings.bulkhead.max_concurrent = NonZeroU32::MIN;
            settings.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Fixed(Duration::from_millis(10)),
                max_hedges: NonZeroU32::MIN,
            });
        })
        .await;
        let answer = client.ask_with(100, idempotent(None)).await.unwrap();
        assert_eq!(answer.value, 100);
        // Its failure opens the breaker.
        client.ask_with(0, idempotent(None)).await.unwrap_err();
        let status = client.status();
        assert_eq!((status.totals.attempts, script.calls()), (2, 2));
        assert_eq!((status.totals.hedges, status.counts.retries), (0, 0));
        runtime.finish().await;
    });
}
