//! BRK-9: a call is in flight from when it begins until it ends, and no longer.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_actors::CallOptions;
use breakerbox_actors::testing::{Reaction, Script, ScriptedError, TestRuntime, run_paused};
use breakerbox_policy::{BreakerSettings, Rate, WindowKind};

fn count(number: u32) -> NonZeroU32 {
    number.try_into().unwrap()
}

/// Opens on slow calls alone.
fn slow_calls_open(rate: f64) -> BreakerSettings {
    BreakerSettings {
        window: WindowKind::Count { size: count(100) },
        failure_threshold: None,
        slow_call: Some(Duration::from_millis(100)),
        slow_rate: Some(Rate::new(rate).unwrap()),
        minimum_calls: 5,
        ..BreakerSettings::default()
    }
}

#[test]
fn brk_9_a_retry_leaves_nothing_in_flight() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), number| {
            if number % 2 == 1 {
                Reaction::Fail(ScriptedError::failure("flaky"))
            } else {
                Reaction::Answer(())
            }
        });
        let client = runtime
            .dependency("flaky")
            .configure(|settings| {
                settings.breaker = slow_calls_open(0.2);
                settings.retry.max_attempts = count(2);
                settings.retry.budget = None;
            })
            .workers(move || script.dependency())
            .start()
            .await
            .unwrap();
        let twice = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        for _ in 0..20 {
            client.ask_with((), twice).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(client.status().totals.trips, 0);
        runtime.finish().await;
    });
}

#[test]
fn brk_9_waiting_for_a_place_is_not_a_slow_call() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()).after(Duration::from_millis(90)));
        let client = runtime
            .dependency("busy")
            .configure(|settings| {
                settings.breaker = slow_calls_open(0.5);
                settings.bulkhead.max_concurrent = count(1);
                settings.bulkhead.max_wait = Duration::from_secs(60);
            })
            .workers(move || script.dependency())
            .start()
            .await
            .unwrap();
        let calls = (0..20).map(|_| client.ask(()));
        for answer in futures_util::future::join_all(calls).await {
            answer.unwrap();
        }
        assert_eq!(client.status().totals.trips, 0);
        runtime.finish().await;
    });
}
