//! Number of runs of a body: one, or as many as the dependency's settings permit if repeating is
//! safe (rule CALL-7).

use std::sync::atomic::{AtomicU32, Ordering};

use breakerbox::protected;
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::{DependencySettings, HedgeDelay, HedgeSettings, RetryJitter};

use super::start;
use crate::scripted::{ms, nonzero, pass};

fn three_attempts(settings: &mut DependencySettings) {
    settings.retry.max_attempts = nonzero(3);
    settings.retry.backoff.base = ms(100);
    settings.retry.backoff.jitter = RetryJitter::None;
}

#[protected("dep", idempotent)]
async fn read(mut page: String, tried: &AtomicU32) -> Result<String, String> {
    let number = tried.fetch_add(1, Ordering::Relaxed) + 1;
    page.push_str(&number.to_string());
    if number == 3 { Ok(page) } else { Err(page) }
}

#[protected("dep")]
async fn store(mut page: String, tried: &AtomicU32) -> Result<String, String> {
    let number = tried.fetch_add(1, Ordering::Relaxed) + 1;
    page.push_str(&number.to_string());
    if number == 3 { Ok(page) } else { Err(page) }
}

#[test]
fn call_7_the_attribute_repeats_an_idempotent_function_with_its_arguments() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", three_attempts).await;
        let _here = runtime.enter();
        let (before, tried) = (runtime.clock().now(), AtomicU32::new(0));
        let page = read("page ".to_owned(), &tried).await;
        assert_eq!(page, Ok("page 3".to_owned()), "each attempt has its own");
        assert_eq!(runtime.clock().now().since(before), ms(100 + 200));
        assert_eq!(client.status().totals.attempts, 3);
        runtime.finish().await;
    });
}

#[test]
fn call_7_the_attribute_runs_any_other_function_once() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", three_attempts).await;
        let _here = runtime.enter();
        let tried = AtomicU32::new(0);
        let error = store("page ".to_owned(), &tried).await.unwrap_err();
        assert_eq!(error.into_failed(), Some("page 1".to_owned()));
        assert_eq!(tried.load(Ordering::Relaxed), 1);
        assert_eq!(client.status().totals.attempts, 1);
        runtime.finish().await;
    });
}

#[protected("dep", idempotent)]
async fn slow_at_first(
    (tried, wait): (&AtomicU32, u64),
    [first, ..]: [&'static str; 2],
) -> Result<(u32, &'static str), String> {
    let number = tried.fetch_add(1, Ordering::Relaxed) + 1;
    if number == 1 {
        pass(wait).await;
    }
    Ok((number, first))
}

#[test]
fn the_attribute_hedges_an_idempotent_function() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let hedged = |settings: &mut DependencySettings| {
            settings.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Fixed(ms(50)),
                max_hedges: nonzero(1),
            });
        };
        let client = start(&runtime, "dep", hedged).await;
        let _here = runtime.enter();
        let (before, tried) = (runtime.clock().now(), AtomicU32::new(0));
        let answer = slow_at_first((&tried, 1_000), ["a", "b"]).await;
        assert_eq!(answer, Ok((2, "a")));
        assert_eq!(runtime.clock().now().since(before), ms(50));
        assert_eq!(client.status().totals.hedges, 1);
        runtime.finish().await;
    });
}
