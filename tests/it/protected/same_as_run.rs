//! A function under the attribute ends as a closure under `run` does (item 21).

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};

use breakerbox::protected;
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallError, TimeLimit, Verdict};
use breakerbox_policy::{Class, Executed, State};

use super::start;
use crate::scripted::{ms, opens_after, pass};

#[protected("dep")]
async fn told(result: Result<u32, &'static str>, reached: &AtomicU32) -> Result<u32, &'static str> {
    reached.fetch_add(1, Ordering::Relaxed);
    result
}

#[test]
fn item_21_the_attribute_behaves_like_a_call() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", opens_after(2, ms(60_000))).await;
        let _here = runtime.enter();
        let reached = AtomicU32::new(0);
        assert_eq!(told(Ok(5), &reached).await, Ok(5));
        for (count, state) in [(1, State::Closed), (2, State::Open)] {
            let error = told(Err("ConnectionError"), &reached).await.unwrap_err();
            assert_eq!(error.into_failed(), Some("ConnectionError"));
            assert_eq!(client.status().tally.failures, count);
            assert_eq!(client.status().state, state);
        }
        let before = runtime.clock().now();
        let error = told(Ok(5), &reached).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert_eq!(error.dependency(), "dep");
        assert_eq!(error.retry_after(), Some(ms(60_000)));
        assert_eq!(reached.load(Ordering::Relaxed), 3, "the body was run");
        assert_eq!(runtime.clock().now(), before, "it was refused at once");
        pass(60_000).await;
        assert_eq!(told(Ok(6), &reached).await, Ok(6), "the probe");
        assert_eq!(client.status().state, State::Closed);
        runtime.finish().await;
    });
}

#[test]
fn item_21_the_attribute_gives_the_very_errors_of_run() {
    type Ended = (
        Vec<Result<u32, CallError<&'static str>>>,
        breakerbox_actors::TotalsView,
    );

    async fn by_hand(told: Vec<Result<u32, &'static str>>) -> Ended {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", opens_after(2, ms(60_000))).await;
        let mut ended = Vec::new();
        for result in told {
            ended.push(client.run(async || result).await);
        }
        let totals = client.status().totals;
        runtime.finish().await;
        (ended, totals)
    }

    async fn by_attribute(results: Vec<Result<u32, &'static str>>) -> Ended {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", opens_after(2, ms(60_000))).await;
        let _here = runtime.enter();
        let mut ended = Vec::new();
        for result in results {
            ended.push(told(result, &AtomicU32::new(0)).await);
        }
        let totals = client.status().totals;
        runtime.finish().await;
        (ended, totals)
    }

    let results = [Ok(1), Err("a"), Ok(2), Err("b"), Err("c"), Ok(3), Err("d")];
    let by_hand = run_paused(async || by_hand(results.to_vec()).await);
    let by_attribute = run_paused(async || by_attribute(results.to_vec()).await);
    assert_eq!(by_attribute, by_hand);
    assert!(matches!(by_hand.0[5], Err(CallError::Open(_))));
}

#[protected("dep", timeout = "2s")]
async fn hangs() -> Result<(), String> {
    pending().await
}

#[protected("dep", timeout = 2)]
async fn hangs_for_seconds() -> Result<(), String> {
    pending().await
}

#[test]
fn item_21_the_attribute_has_a_deadline_of_its_own() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        for error in [hangs().await, hangs_for_seconds().await] {
            let expected = CallError::TimedOut {
                dependency: "dep".into(),
                limit: TimeLimit::Caller,
                after: ms(2_000),
                executed: Executed::Maybe,
            };
            assert_eq!(error.unwrap_err(), expected);
        }
        // EDGE-1: a deadline shorter than the settings' limits says nothing about the dependency.
        assert_eq!(client.status().tally.failures, 0);
        assert_eq!(client.status().tally.cancelled, 2);
        runtime.finish().await;
    });
}

fn by_text(result: &Result<(), String>) -> Class {
    match result {
        Ok(()) => Class::Success,
        Err(text) if text == "your fault" => Class::Rejected,
        Err(_) => Class::Failure,
    }
}

#[protected("dep", classify = by_text)]
async fn judged(error: &str) -> Result<(), String> {
    Err(error.to_owned())
}

#[protected("dep", classify = |result| match result {
    Err(error) if error.is_empty() => Verdict::from(Class::Rejected),
    _ => Verdict::from(Class::Failure),
})]
async fn judged_in_place(error: &str) -> Result<(), String> {
    Err(error.to_owned())
}

#[test]
fn item_21_the_attribute_asks_what_a_result_counts_for() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", opens_after(1, ms(60_000))).await;
        let _here = runtime.enter();
        judged("your fault").await.unwrap_err();
        judged_in_place("").await.unwrap_err();
        assert_eq!(client.status().state, State::Closed, "the caller's fault");
        assert_eq!(client.status().tally.failures, 0);
        judged("mine").await.unwrap_err();
        assert_eq!(client.status().state, State::Open);
        runtime.finish().await;
    });
}

#[protected("dep", key = tenant)]
async fn of_tenant(tenant: String, ok: bool) -> Result<String, String> {
    if ok { Ok(tenant) } else { Err(tenant) }
}

#[test]
fn the_attribute_goes_by_the_breaker_of_its_key() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", opens_after(1, ms(60_000))).await;
        let _here = runtime.enter();
        of_tenant("a".to_owned(), false).await.unwrap_err();
        let error = of_tenant("a".to_owned(), true).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert_eq!(of_tenant("b".to_owned(), true).await, Ok("b".to_owned()));
        assert_eq!(client.status().state, State::Closed, "the dependency's own");
        runtime.finish().await;
    });
}

#[protected("dep", weight = tokens, priority = "low")]
async fn weighs(tokens: u32) -> Result<u32, String> {
    Ok(tokens)
}

#[protected("dep", write)]
async fn writes() -> Result<(), String> {
    tokio::task::yield_now().await;
    Ok(())
}

#[test]
fn the_attribute_says_what_a_call_weighs_and_that_it_writes() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let limited = |settings: &mut breakerbox_policy::DependencySettings| {
            settings.rate_limit = Some(breakerbox_policy::RateLimitSettings {
                rate: 1.0,
                per: ms(1_000),
                burst: crate::scripted::nonzero(10),
                max_wait: ms(0),
            });
        };
        let client = start(&runtime, "dep", limited).await;
        let _here = runtime.enter();
        assert_eq!(weighs(9).await, Ok(9));
        let error = weighs(9).await.unwrap_err();
        assert!(matches!(error, CallError::RateLimited { .. }), "{error}");
        assert_eq!(error.executed(), Executed::No);
        let work = writes();
        tokio::pin!(work);
        assert!(futures_util::poll!(&mut work).is_pending());
        assert_eq!(client.status().writes, 1);
        work.await.unwrap();
        assert_eq!(client.status().writes, 0);
        runtime.finish().await;
    });
}
