//! Items 77 to 82: failures that are retried, the delays, and the budget shared by all callers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_actors::testing::{Reaction, Script, ScriptedError, TestRuntime, run_paused};
use breakerbox_actors::{CallError, CallOptions};
use breakerbox_policy::{
    BudgetSettings, DependencySettings, Executed, RetryJitter, State, Symptom, Symptoms,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::scripted::{Bench, Do, ms, nonzero, start};

fn idempotent() -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

/// Sets three attempts, 100 and 200 ms apart.
fn three(settings: &mut DependencySettings) {
    settings.retry.max_attempts = nonzero(3);
    settings.retry.backoff.base = ms(100);
    settings.retry.backoff.factor = 2.0;
    settings.retry.backoff.jitter = RetryJitter::None;
}

#[test]
fn item_77_a_call_that_fails_twice_is_tried_three_times_with_growing_waits() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noted = Arc::clone(&times);
        let script = Script::new(move |_: Do, number| {
            noted.lock().unwrap().push(Instant::now());
            match number {
                1 | 2 => Reaction::Fail(ScriptedError::failure("not yet")),
                _ => Reaction::Answer(7),
            }
        });
        let client = start(&runtime, "dep", &script, three, Vec::new()).await;
        let asked = client.ask_with(Do::Answer(1), idempotent()).await;
        let answer = asked.unwrap();
        assert_eq!((answer.value, answer.attempts), (7, 3));
        assert_eq!((script.calls(), answer.elapsed), (3, ms(300)));
        let times = times.lock().unwrap().clone();
        let waits: Vec<Duration> = times.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(waits, [ms(100), ms(200)]);
        runtime.finish().await;
    });
}

#[test]
fn item_78_retrying_stops_when_the_breaker_opens() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            three(settings);
            settings.breaker.failure_threshold = Some(nonzero(5));
        })
        .await;
        let ask = async || bench.client.ask_with(Do::Fail, idempotent()).await;
        ask().await.unwrap_err();
        assert_eq!((bench.failures(), bench.state()), (3, State::Closed));
        ask().await.unwrap_err();
        assert_eq!((bench.script.calls(), bench.state()), (5, State::Open));
        let before = Instant::now();
        let third = ask().await.unwrap_err();
        assert!(matches!(third, CallError::Open(_)), "{third}");
        assert_eq!(bench.script.calls(), 5, "no attempts");
        assert_eq!(before.elapsed(), ms(0), "at once");
        bench.finish().await;
    });
}

#[test]
fn item_79_an_open_rejection_is_never_retried() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            three(settings);
            settings.breaker.failure_threshold = Some(nonzero(1));
        })
        .await;
        bench.fail_until_open().await;
        let (before, calls) = (Instant::now(), bench.script.calls());
        let asked = bench.client.ask_with(Do::Answer(1), idempotent()).await;
        let ran = bench
            .client
            .run_with(
                idempotent(),
                |_: &Result<(), String>| breakerbox_policy::Class::Success.into(),
                async || Ok(()),
            )
            .await;
        let sent = bench.send(Do::Answer(1)).await.unwrap();
        assert!(matches!(asked, Err(CallError::Open(_))));
        assert!(matches!(ran, Err(CallError::Open(_))));
        assert!(matches!(sent, Err(CallError::Open(_))));
        assert_eq!((before.elapsed(), bench.script.calls()), (ms(0), calls));
        assert_eq!(bench.status().totals.refused, 3);
        bench.finish().await;
    });
}

#[test]
fn item_80_only_what_is_named_is_retried() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            three(settings);
            settings.breaker.failure_threshold = None;
            let named = Symptoms::from([Symptom::Timeout, Symptom::Status(503)]);
            settings.retry.on = Some(named);
            settings.timeout.attempt = Some(ms(50));
        })
        .await;
        let status = |status| Do::Error(ScriptedError::symptom(Symptom::Status(status)));
        for (told, attempts) in [
            (status(400), 1),
            (status(500), 1),
            (status(429), 1),
            (Do::Fail, 1),
            (status(503), 3),
            (Do::Hang, 3),
        ] {
            let before = bench.script.calls();
            let asked = bench.client.ask_with(told.clone(), idempotent()).await;
            asked.unwrap_err();
            assert_eq!(bench.script.calls() - before, attempts, "{told:?}");
            // The pause after a 429 would hold the next call back.
            tokio::time::sleep(ms(60_000)).await;
        }
        bench.finish().await;
    });
}

#[test]
fn item_81_what_may_have_been_executed_and_is_not_idempotent_is_made_once() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            three(settings);
            settings.timeout.attempt = Some(ms(50));
        })
        .await;
        let error = bench.ask(Do::Hang).await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!(bench.script.calls(), 1);
        bench.finish().await;
    });
}

/// Makes a hundred calls that fail at the same instant; returns the times of their second attempts.
async fn second_attempts(budget: Option<BudgetSettings>) -> Vec<Duration> {
    let runtime = TestRuntime::start().await;
    let began = Instant::now();
    let times: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let noted = Arc::clone(&times);
    let script = Script::new(move |_: Do, number| {
        if number > 100 {
            noted.lock().unwrap().push(began.elapsed());
        }
        Reaction::Fail(ScriptedError::failure("all at once"))
    });
    let configure = |settings: &mut DependencySettings| {
        settings.breaker.failure_threshold = None;
        settings.bulkhead.max_concurrent = nonzero(100);
        settings.retry.max_attempts = nonzero(2);
        settings.retry.budget = budget;
    };
    let client = start(&runtime, "dep", &script, configure, Vec::new()).await;
    let asked = join_all((0..100).map(|_| client.ask_with(Do::Fail, idempotent()))).await;
    assert!(asked.iter().all(Result::is_err));
    let totals = client.status().totals;
    let times = times.lock().unwrap().clone();
    assert_eq!(totals.attempts, 100 + times.len() as u64);
    runtime.finish().await;
    times
}

#[test]
fn item_82_second_attempts_are_spread_and_bounded_together() {
    run_paused(async || {
        // The runtime draws from this thread's generator: each run has the same numbers.
        fastrand::seed(82);
        let times = second_attempts(None).await;
        assert_eq!(times.len(), 100);
        let mut buckets: BTreeMap<u128, usize> = BTreeMap::new();
        for time in &times {
            *buckets.entry(time.as_millis() / 2).or_default() += 1;
        }
        let fullest = buckets.values().max();
        assert!(fullest.is_some_and(|most| *most <= 10), "{buckets:?}");
        let budget = BudgetSettings {
            ratio: 0.2,
            floor_per_second: 0,
        };
        let times = second_attempts(Some(budget)).await;
        assert_eq!(times.len(), 20, "a fifth of a hundred calls");
    });
}

/// A call that never reached the dependency: it says so, also when the breaker opens because of it,
/// and it is retried although it is not idempotent.
#[test]
fn call_2_what_was_never_sent_is_retried_whatever_the_request() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|_: Do, _| -> Reaction<u32> {
            Reaction::Fail(ScriptedError::symptom(Symptom::Connect))
        });
        let client = start(&runtime, "dep", &script, three, Vec::new()).await;
        let failed = client.ask(Do::Fail).await.unwrap_err();
        assert_eq!(failed.executed(), Executed::No, "{failed}");
        assert_eq!(script.calls(), 3, "never sent, so always safe to send");
        let opens_at_once = |settings: &mut DependencySettings| {
            three(settings);
            settings.breaker.failure_threshold = Some(nonzero(1));
        };
        let client = start(&runtime, "other", &script, opens_at_once, Vec::new()).await;
        let open = client.ask_with(Do::Fail, idempotent()).await.unwrap_err();
        assert!(matches!(open, CallError::Open(_)), "{open}");
        assert_eq!(open.executed(), Executed::No, "{open}");
        assert!(!open.is_refusal(), "an attempt was made: {open}");
        assert_eq!(client.status().totals.failed, 1);
        runtime.finish().await;
    });
}
