//! CALL-8: an answer that is judged a failure is treated as one, by whichever way the call is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use breakerbox::attribute::{self, Unanswered};
use breakerbox::{
    AnswerSource, Call, CallContext, CallError, CallOptions, Client, Dependency, DependencyBuilder,
    Fixed, Runtime, RuntimeSettings, StaleCache, Verdict,
};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::{Class, DependencySettings, HedgeDelay, HedgeSettings, RetryJitter};
use futures_util::StreamExt as _;

use crate::scripted::{ms, nonzero};

/// One attempt: the answer, or an error, after a wait.
#[derive(Clone, Copy)]
struct Turn(u64, Result<i32, &'static str>);

/// Answers by its script: negative numbers are judged failures, those from 1000 on rejections.
#[derive(Clone)]
struct Judged {
    script: Arc<[Turn]>,
    calls: Arc<AtomicU32>,
    judged: Arc<AtomicU32>,
}

fn judged(script: &[Turn]) -> Judged {
    Judged {
        script: script.into(),
        calls: Arc::default(),
        judged: Arc::default(),
    }
}

fn answers(numbers: &[i32]) -> Judged {
    let turns: Vec<Turn> = numbers.iter().map(|number| Turn(0, Ok(*number))).collect();
    judged(&turns)
}

impl Judged {
    async fn next(&self) -> Result<(i32, Arc<AtomicU32>), String> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) as usize;
        let Turn(wait, result) = self.script[number.min(self.script.len() - 1)];
        if wait > 0 {
            tokio::time::sleep(ms(wait)).await;
        }
        let value = result.map_err(str::to_owned)?;
        Ok((value, Arc::clone(&self.judged)))
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    fn judgements(&self) -> u32 {
        self.judged.load(Ordering::SeqCst)
    }
}

fn class_of(value: i32) -> Class {
    match value {
        -1000 => Class::Throttled,
        ..0 => Class::Failure,
        0..1000 => Class::Success,
        _ => Class::Rejected,
    }
}

impl Dependency for Judged {
    type Request = ();
    type Response = (i32, Arc<AtomicU32>);
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<Self::Response, String> {
        self.next().await
    }

    fn classify(result: Result<&Self::Response, &String>) -> Verdict {
        match result {
            Ok((value, judged)) => {
                judged.fetch_add(1, Ordering::SeqCst);
                class_of(*value).into()
            }
            Err(_) => Class::Failure.into(),
        }
    }

    fn is_idempotent((): &()) -> bool {
        true
    }
}

fn three_attempts(settings: &mut DependencySettings) {
    settings.retry.max_attempts = nonzero(3);
    settings.retry.budget = None;
    settings.retry.backoff.jitter = RetryJitter::None;
    settings.breaker.failure_threshold = Some(nonzero(100));
}

fn built(runtime: &Runtime, name: &str, what: &Judged) -> DependencyBuilder<Judged> {
    let made = what.clone();
    let builder = runtime.dependency(name).configure(three_attempts);
    builder.workers(move || made.clone())
}

async fn started(runtime: &Runtime, what: &Judged) -> Client<Judged> {
    built(runtime, "d", what).start().await.unwrap()
}

fn repeatable() -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

/// The books: primary, fallback and failed calls.
fn books(client: &Client<Judged>) -> (u64, u64, u64) {
    let totals = client.status().totals;
    (totals.primary, totals.fallback, totals.failed)
}

#[test]
fn call_8_l5_a_bad_answer_is_tried_again() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = answers(&[-1, -1000, 7]);
        let client = started(&runtime, &what).await;
        let answer = client.ask(()).await.unwrap();
        assert_eq!((answer.value.0, answer.attempts), (7, 3));
        assert_eq!(books(&client), (1, 0, 0));
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_the_last_bad_answer_is_given_and_booked_as_failed() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = answers(&[-1, -2, -3]);
        let client = started(&runtime, &what).await;
        let answer = client.ask(()).await.unwrap();
        assert_eq!((answer.value.0, answer.source), (-3, AnswerSource::Primary));
        assert_eq!(books(&client), (0, 0, 1));
        assert_eq!(client.status().window.failures, 3);
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_a_bad_answer_is_better_than_none() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = judged(&[Turn(0, Ok(-1)), Turn(0, Err("gone"))]);
        let client = started(&runtime, &what).await;
        assert_eq!(client.ask(()).await.unwrap().value.0, -1);
        assert_eq!((what.calls(), books(&client)), (3, (0, 0, 1)));
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_a_rejection_stays_an_answer() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = answers(&[1000]);
        let client = started(&runtime, &what).await;
        assert_eq!(client.ask(()).await.unwrap().value.0, 1000);
        assert_eq!((what.calls(), books(&client)), (1, (1, 0, 0)));
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_a_fallback_answers_for_a_bad_answer() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = answers(&[-1]);
        let told = |(): (), why: &CallError<String>| {
            let is_bad = matches!(why, CallError::BadAnswer { .. });
            async move { Ok::<_, String>((if is_bad { 9 } else { 0 }, Arc::default())) }
        };
        let client = built(&runtime, "d", &what).fallback(told);
        let client = client.start().await.unwrap();
        let answer = client.ask(()).await.unwrap();
        assert_eq!(answer.value.0, 9);
        assert!(!answer.is_primary());
        assert_eq!(books(&client), (0, 1, 0));
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_a_bad_answer_is_given_when_the_fallback_fails_too() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = answers(&[-1]);
        let fails = |(): (), _: &CallError<String>| async { Err("no".to_owned()) };
        let client = built(&runtime, "d", &what).fallback(fails);
        let client = client.start().await.unwrap();
        assert_eq!(client.ask(()).await.unwrap().value.0, -1);
        assert_eq!(books(&client), (0, 0, 1));
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_a_dependency_as_a_fallback_is_judged_too() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let bad = built(&runtime, "bad", &answers(&[-2]));
        let bad = bad.start().await.unwrap();
        let what = judged(&[Turn(0, Err("gone"))]);
        let good = Fixed((5, Arc::default()));
        let client = built(&runtime, "d", &what)
            .fallback(bad.clone())
            .fallback(good);
        let client = client.start().await.unwrap();
        assert_eq!(client.ask(()).await.unwrap().value.0, 5);
        // Without a better one, its bad answer is given.
        let lonely = built(&runtime, "e", &what).fallback(bad);
        let lonely = lonely.start().await.unwrap();
        let answer = lonely.ask(()).await.unwrap();
        assert_eq!(answer.value.0, -2);
        assert_eq!(answer.source, AnswerSource::Fallback("bad".into()));
        assert_eq!(books(&lonely), (0, 0, 1));
        runtime.finish().await;
    });
}

/// On the real clock: the next fallback blocks its thread until the caller has its answer.
#[test]
fn call_8_l5_a_bad_answer_outlives_a_fallback_that_blocks() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let bad = built(&runtime, "bad", &answers(&[-2]));
        let bad = bad.start().await.unwrap();
        let (free, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let blocks = move |(): (), _: &CallError<String>| {
            let wait = Arc::clone(&wait);
            async move {
                // It ends when the other end is dropped.
                let _ = wait.lock().unwrap().recv();
                Err::<<Judged as Dependency>::Response, _>("no".to_owned())
            }
        };
        let client = built(&runtime, "d", &judged(&[Turn(0, Err("gone"))]));
        let client = client.fallback(bad).fallback(blocks);
        let client = client.start().await.unwrap();
        let hasty = CallOptions {
            timeout: Some(ms(300)),
            ..CallOptions::default()
        };
        let answer = client.ask_with((), hasty).await.unwrap();
        assert_eq!(answer.value.0, -2);
        drop(free);
        runtime.shutdown().await;
    });
}

#[test]
fn call_8_l5_a_bad_answer_is_not_cached() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = judged(&[
            Turn(0, Ok(3)),
            Turn(0, Ok(-1)),
            Turn(0, Ok(1000)),
            Turn(0, Err("gone")),
        ]);
        let cached = StaleCache::new(ms(60_000), 10);
        let builder = built(&runtime, "d", &what).configure(|settings| {
            settings.retry.max_attempts = nonzero(1);
        });
        let client = builder.fallback(cached).start().await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(client.ask(()).await.unwrap().value.0);
        }
        assert_eq!(seen, [3, 3, 1000, 3]);
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_calls_by_message_closures_and_the_attribute_retry_too() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = answers(&[-1, 1]);
        let client = started(&runtime, &what).await;
        let sent = client.breaker().send(Call::new(())).await.unwrap();
        assert_eq!((sent.unwrap().value.0, what.calls()), (1, 2));
        let judge =
            |result: &Result<i32, String>| Verdict::from(class_of(*result.as_ref().unwrap()));
        let script = [-1, -2, 4];
        let turn = AtomicU32::new(0);
        let work = || {
            let at = turn.fetch_add(1, Ordering::SeqCst) as usize;
            async move { Ok::<i32, String>(script[at % 3]) }
        };
        let ran = client.run_with(repeatable(), judge, work).await;
        assert_eq!((ran, turn.load(Ordering::SeqCst)), (Ok(4), 3));
        let before = books(&client);
        let once = client.run_once_with(repeatable(), judge, async || Ok::<i32, String>(-5));
        assert_eq!(once.await, Ok(-5), "there is no better one");
        assert_eq!(books(&client).2, before.2 + 1);
        let any = client.any();
        let unanswered =
            attribute::run_with_fallback(&any, CallOptions::default(), judge, || async {
                Ok::<i32, String>(-6)
            });
        let unanswered: Unanswered<'_, i32, String> = unanswered.await.unwrap_err();
        assert!(unanswered.may_fall_back());
        assert_eq!(unanswered.end("stand-in", Ok(8)), Ok(8));
        let unanswered =
            attribute::run_with_fallback(&any, CallOptions::default(), judge, || async {
                Ok::<i32, String>(-6)
            });
        let unanswered = unanswered.await.unwrap_err();
        assert_eq!(unanswered.end("stand-in", Err("no".to_owned())), Ok(-6));
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_an_empty_stream_that_is_a_failure_is_opened_again() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = started(&runtime, &answers(&[1])).await;
        type Items = futures_util::stream::Iter<std::vec::IntoIter<Result<u32, String>>>;
        for (good_from, items, opened) in [(2, 1, 3), (9, 0, 3)] {
            let opens = Arc::new(AtomicU32::new(0));
            let seen = Arc::clone(&opens);
            let judge = move |_: Result<&Items, &String>| {
                let is_bad = seen.load(Ordering::SeqCst) <= good_from;
                Verdict::from(if is_bad {
                    Class::Failure
                } else {
                    Class::Success
                })
            };
            let open = || {
                let at = opens.fetch_add(1, Ordering::SeqCst);
                let items = if at < good_from { vec![] } else { vec![Ok(1)] };
                async move { Ok(futures_util::stream::iter(items)) }
            };
            let failed = client.status().totals.failed;
            let stream = client
                .run_stream_with(repeatable(), judge, open)
                .await
                .unwrap();
            assert_eq!(stream.count().await, items);
            assert_eq!(opens.load(Ordering::SeqCst), opened);
            let failed = client.status().totals.failed - failed;
            assert_eq!(failed, u64::from(items == 0));
        }
        runtime.finish().await;
    });
}

#[test]
fn call_8_l5_a_bad_answer_does_not_win_against_a_hedge() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let what = judged(&[Turn(50, Ok(-1)), Turn(50, Ok(6))]);
        let builder = built(&runtime, "d", &what).configure(|settings| {
            settings.retry.max_attempts = nonzero(1);
            settings.workers.count = nonzero(2);
            settings.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Fixed(ms(20)),
                max_hedges: nonzero(1),
            });
        });
        let client = builder.start().await.unwrap();
        assert_eq!(client.ask(()).await.unwrap().value.0, 6);
        runtime.finish().await;
    });
}

/// On the worker's own thread and from another one, with a cache that keeps the answer.
#[test]
fn call_8_l15_classify_is_asked_once_for_each_attempt() {
    let check = async |runtime: &Runtime| {
        let what = judged(&[Turn(1, Ok(1)), Turn(1, Ok(-1)), Turn(0, Ok(2))]);
        let cached = StaleCache::new(ms(60_000), 10);
        let client = built(runtime, "d", &what)
            .fallback(cached)
            .start()
            .await
            .unwrap();
        for _ in 0..2 {
            client.ask(()).await.unwrap();
        }
        assert_eq!((what.calls(), what.judgements()), (3, 3));
    };
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        check(&runtime).await;
        runtime.finish().await;
    });
    let elsewhere = std::thread::spawn(move || {
        let tokio = tokio::runtime::Runtime::new().unwrap();
        tokio.block_on(async {
            let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
            check(&runtime).await;
            runtime.shutdown().await;
        });
    });
    elsewhere.join().unwrap();
}
