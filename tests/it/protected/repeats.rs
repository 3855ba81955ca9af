//! Number of runs of a body: one, or as many as the dependency's settings permit if repeating is
//! safe (rule CALL-7); and what each run gets.

use std::sync::atomic::{AtomicU32, Ordering};

use breakerbox::protected;
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallError, Verdict};
use breakerbox_policy::{
    Class, DependencySettings, HedgeDelay, HedgeSettings, RetryJitter, Symptom,
};

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

fn nothing_was_done(result: &Result<String, String>) -> Verdict {
    match result {
        Ok(_) => Class::Success.into(),
        Err(_) => Symptom::Connect.into(),
    }
}

#[protected("dep", classify = nothing_was_done)]
async fn reach(page: String, tried: &AtomicU32) -> Result<String, String> {
    tried.fetch_add(1, Ordering::Relaxed);
    Err(page)
}

#[test]
fn call_7_the_attribute_runs_a_function_once_that_has_done_nothing() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let _client = start(&runtime, "dep", three_attempts).await;
        let _here = runtime.enter();
        let tried = AtomicU32::new(0);
        let error = reach("page".to_owned(), &tried).await.unwrap_err();
        assert_eq!(error.into_failed(), Some("page".to_owned()));
        assert_eq!(tried.load(Ordering::Relaxed), 1);
        runtime.finish().await;
    });
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

/// A client library that has to be borrowed for a call.
#[derive(Default)]
struct Session {
    tries: u32,
    good_from: u32,
}

impl Session {
    #[protected("dep", idempotent)]
    async fn read(
        &mut self,
        mut page: String,
        log: &mut Vec<String>,
        limit: &u32,
    ) -> Result<String, String> {
        self.tries += 1;
        page.push_str(&self.tries.to_string());
        log.push(page.clone());
        if self.tries > *limit {
            return Err("too many".to_owned());
        }
        tokio::task::yield_now().await;
        if self.tries < self.good_from {
            Err(page)
        } else {
            Ok(page)
        }
    }

    #[protected("dep", fallback = Self::cached)]
    async fn find(
        &mut self,
        log: &mut Vec<String>,
        (word, _): (String, u8),
    ) -> Result<u32, String> {
        self.tries += 1;
        log.push(format!("asked for {word}"));
        if self.tries < self.good_from {
            Err(word)
        } else {
            Ok(self.tries)
        }
    }

    async fn cached(
        &mut self,
        log: &mut Vec<String>,
        (word, _): (String, u8),
        why: &CallError<String>,
    ) -> Result<u32, String> {
        self.good_from = 0;
        log.push(format!("instead of {word}: {why}"));
        Ok(0)
    }
}

#[test]
fn call_7_the_attribute_lends_self_and_arguments_to_each_attempt() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", three_attempts).await;
        let _here = runtime.enter();
        let mut session = Session {
            good_from: 3,
            ..Session::default()
        };
        let mut log = Vec::new();
        let page = session.read("page ".to_owned(), &mut log, &9).await;
        assert_eq!(page, Ok("page 3".to_owned()), "each has its own page");
        assert_eq!(log, ["page 1", "page 2", "page 3"]);
        assert_eq!(client.status().totals.attempts, 3);
        let error = session.read(String::new(), &mut log, &3).await.unwrap_err();
        assert_eq!(error.into_failed(), Some("too many".to_owned()));
        assert_eq!(session.tries, 6);
        runtime.finish().await;
    });
}

#[test]
fn fbk_1_the_attribute_lends_self_and_arguments_to_the_fallback() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", three_attempts).await;
        let _here = runtime.enter();
        let mut session = Session {
            good_from: 9,
            ..Session::default()
        };
        let mut log = Vec::new();
        let word = || ("rust".to_owned(), 1);
        assert_eq!(session.find(&mut log, word()).await, Ok(0));
        assert_eq!(session.find(&mut log, word()).await, Ok(2));
        let told = [
            "asked for rust",
            "instead of rust: dep failed: rust",
            "asked for rust",
        ];
        assert_eq!(log, told, "without `idempotent` it runs once");
        let totals = client.status().totals;
        assert_eq!((totals.primary, totals.fallback), (1, 1));
        runtime.finish().await;
    });
}
