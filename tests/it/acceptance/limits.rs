//! Items 59 to 61 as far as the library implements them, and 86 to 88: throttles, rates, weights,
//! sessions.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_actors::testing::{ScriptedError, TestRuntime, run_paused};
use breakerbox_actors::{
    AnswerSource, CallContext, CallError, CallOptions, Clock, Dependency, FallbackRule, Fault,
    Limit, RuntimeSettings, Session, StaleCache,
};
use breakerbox_policy::{
    BackoffSettings, DependencySettings, Executed, PauseReason, QuotaReset, RateLimitSettings,
    RetryJitter, State,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::scripted::{Bench, Do, Error, ms, nonzero, opens_after, pass, start};

const HOUR: u64 = 3_600_000;

/// Returns the reason and the remaining wait of a refusal during a pause.
fn pause_of(error: &Error) -> (PauseReason, Duration) {
    assert_eq!(error.executed(), Executed::No);
    match error {
        CallError::RateLimited {
            limit: Limit::Pause(reason),
            retry_after: Some(wait),
            ..
        } => (*reason, *wait),
        other => panic!("{other}"),
    }
}

fn throttled_for(millis: u64) -> Do {
    Do::Error(ScriptedError::throttled().retry_after(ms(millis)))
}

fn used_up() -> Do {
    Do::Error(ScriptedError::quota_used_up())
}

async fn at_noon_in_california(configure: impl FnOnce(&mut DependencySettings)) -> Bench {
    let settings = RuntimeSettings {
        clock: Some(Clock::tokio_at("2026-01-10T20:00:00Z".parse().unwrap())),
        ..RuntimeSettings::default()
    };
    let runtime = TestRuntime::with(settings).await;
    Bench::on(runtime, configure, Vec::new()).await
}

#[test]
fn lim_1_item_59_a_used_up_quota_is_left_alone_until_it_is_full_again() {
    run_paused(async || {
        let bench = at_noon_in_california(|settings| {
            settings.throttle.quota_reset = QuotaReset::Daily {
                hour: 0,
                minute: 0,
                zone: "America/Los_Angeles".to_owned(),
            };
            settings.breaker.failure_threshold = Some(nonzero(1));
        })
        .await;
        bench.ask(used_up()).await.unwrap_err();
        for _ in 0..12 {
            let (reason, _) = pause_of(&bench.ask(Do::Answer(1)).await.unwrap_err());
            assert_eq!(reason, PauseReason::QuotaUsedUp);
            pass(HOUR - 1).await;
        }
        let (_, wait) = pause_of(&bench.ask(Do::Answer(1)).await.unwrap_err());
        assert_eq!(wait, ms(12));
        assert_eq!(bench.script.calls(), 1, "zero further calls");
        assert_eq!((bench.state(), bench.failures()), (State::Closed, 0));
        pass(12).await;
        let answer = bench.ask(Do::Answer(1)).await.unwrap();
        assert!(answer.is_primary());
        bench.finish().await;
    });
}

#[test]
fn lim_1_item_59_a_quota_is_full_again_after_a_span_or_when_it_says() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.throttle.quota_reset = QuotaReset::After(ms(2 * HOUR));
        })
        .await;
        let hinted = Do::Error(ScriptedError::quota_used_up().retry_after(ms(HOUR)));
        for (told, span) in [(used_up(), 2 * HOUR), (hinted, HOUR)] {
            bench.ask(told).await.unwrap_err();
            let calls = bench.script.calls();
            pass(span - 1).await;
            let (_, wait) = pause_of(&bench.ask(Do::Answer(1)).await.unwrap_err());
            assert_eq!((wait, bench.script.calls()), (ms(1), calls));
            pass(1).await;
            bench.ask(Do::Answer(1)).await.unwrap();
        }
        bench.finish().await;
    });
}

/// Calls in every available way; no call may reach the dependency.
async fn nobody_gets_through(bench: &Bench) {
    let calls = bench.script.calls();
    pause_of(&bench.ask(Do::Answer(1)).await.unwrap_err());
    pause_of(&bench.send(Do::Answer(1)).await.unwrap().unwrap_err());
    let ran = bench.client.run(async || -> Result<(), String> {
        panic!("it is paused");
    });
    let error = ran.await.unwrap_err();
    assert!(matches!(error, CallError::RateLimited { .. }), "{error}");
    assert_eq!(bench.script.calls(), calls);
}

#[test]
fn lim_1_item_60_the_larger_of_two_hints_holds_for_every_caller() {
    run_paused(async || {
        let bench = Bench::start(|settings| opens_after(1, ms(1_000))(settings)).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        let window = bench.status().window;
        let first = bench.ask(throttled_for(3_500).after(10));
        let second = bench.ask(throttled_for(7_000).after(20));
        let third = bench.ask(throttled_for(1_000).after(30));
        let (first, second, third) = tokio::join!(first, second, third);
        assert!(first.is_err() && second.is_err() && third.is_err());
        let at = Instant::now() - ms(10);
        while at.elapsed() < ms(7_000) {
            nobody_gets_through(&bench).await;
            pass(70).await;
        }
        // Plus jitter: at most a fifth of two seconds, because it is the second throttle.
        let calls = bench.script.calls();
        while bench.ask(Do::Answer(1)).await.is_err() {
            pass(1).await;
        }
        assert!(at.elapsed() <= ms(7_401), "{:?}", at.elapsed());
        assert_eq!(bench.script.calls(), calls + 1);
        let status = bench.status();
        assert_eq!(status.state, State::Closed);
        assert_eq!((window.calls, status.window.calls), (1, 2));
        assert_eq!(status.window.failures, 0);
        assert!(bench.runtime.transitions().is_empty());
        bench.finish().await;
    });
}

#[test]
fn lim_1_item_60_jitter_comes_on_top_of_the_hint_and_never_below() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let mut waits = Vec::new();
        for _ in 0..50 {
            bench.ask(throttled_for(7_000)).await.unwrap_err();
            let paused = bench.status().paused;
            waits.push(paused.map(|(_, wait)| wait).unwrap());
            pass(7_200).await;
            bench.ask(Do::Answer(1)).await.unwrap();
        }
        let (least, most) = (waits.iter().min(), waits.iter().max());
        assert!(least >= Some(&ms(7_000)) && most <= Some(&ms(7_200)));
        assert!(least < most, "no jitter in {waits:?}");
        bench.finish().await;
    });
}

#[test]
fn lim_1_item_61_without_a_hint_pauses_grow_and_are_everybodys() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.throttle.backoff = BackoffSettings {
                base: ms(1_000),
                factor: 2.0,
                max: ms(5_000),
                jitter: RetryJitter::None,
            };
        })
        .await;
        let throttled = || Do::Error(ScriptedError::throttled());
        for wait in [1_000, 2_000, 4_000, 5_000, 5_000] {
            bench.ask(throttled()).await.unwrap_err();
            pass(wait - 1).await;
            nobody_gets_through(&bench).await;
            pass(1).await;
        }
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.ask(throttled()).await.unwrap_err();
        let paused = bench.status().paused;
        assert_eq!(paused, Some((PauseReason::Throttled, ms(1_000))));
        bench.finish().await;
    });
}

fn five_a_second(max_wait: u64) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        settings.rate_limit = Some(RateLimitSettings {
            rate: 5.0,
            per: ms(1_000),
            burst: nonzero(5),
            max_wait: ms(max_wait),
        });
    }
}

/// Makes twenty calls at once; returns for each whether it ran, and at which millisecond it started
/// or was refused.
async fn twenty(bench: &Bench, timeout: Option<Duration>) -> Vec<(bool, u128)> {
    let began = Instant::now();
    let calls = (0..20).map(|_| async {
        let options = CallOptions {
            timeout,
            ..CallOptions::default()
        };
        let asked = bench.client.ask_with(Do::Answer(1), options).await;
        if let Err(error) = &asked {
            let CallError::RateLimited {
                limit: Limit::Rate,
                retry_after: Some(wait),
                ..
            } = error
            else {
                panic!("{error}");
            };
            assert!(*wait >= ms(1_000), "{wait:?}");
            assert_eq!(error.executed(), Executed::No);
            assert_eq!(error.fault(), Fault::Runtime);
        }
        (asked.is_ok(), began.elapsed().as_millis())
    });
    join_all(calls).await
}

#[test]
fn item_86_a_burst_goes_out_the_rest_is_paced_and_the_late_are_refused_at_once() {
    run_paused(async || {
        let expected = |paced: u128| {
            let mut ends = vec![(true, 0); 5];
            ends.extend((1..=paced).map(|turn| (true, turn * 200)));
            ends.resize(20, (false, 0));
            ends
        };
        let bench = Bench::start(five_a_second(1_000)).await;
        assert_eq!(twenty(&bench, None).await, expected(5));
        assert_eq!(bench.script.calls(), 10);
        bench.finish().await;
        let bench = Bench::start(five_a_second(60_000)).await;
        // A start exactly at the deadline is too late.
        assert_eq!(twenty(&bench, Some(ms(1_000))).await, expected(4));
        assert_eq!(bench.status().totals.refused, 11);
        bench.finish().await;
    });
}

/// Dependency that embeds texts; the weight of a text is its number of tokens.
struct Embedding;

impl Dependency for Embedding {
    type Request = Vec<u32>;
    type Response = usize;
    type Error = String;

    async fn call(&self, texts: Vec<u32>, _: &CallContext) -> Result<usize, String> {
        let tokens: u32 = texts.iter().sum();
        if tokens > 20_000 {
            return Err(format!("{tokens} tokens"));
        }
        Ok(texts.len())
    }

    fn weight(texts: &Vec<u32>) -> NonZeroU32 {
        NonZeroU32::new(texts.iter().sum()).unwrap_or(NonZeroU32::MIN)
    }
}

#[test]
fn item_87_a_batch_that_is_too_heavy_is_refused_here_and_can_be_split() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let builder = runtime.dependency("embedding").configure(|settings| {
            settings.rate_limit = Some(RateLimitSettings {
                rate: 20_000.0,
                per: ms(1_000),
                burst: nonzero(20_000),
                max_wait: ms(10_000),
            });
        });
        let client = builder.workers(|| Embedding).start().await.unwrap();
        let texts = vec![200; 250];
        let error = client.ask(texts.clone()).await.unwrap_err();
        let CallError::RateLimited {
            limit: Limit::TooHeavy { weight, burst },
            retry_after: None,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((weight.get(), burst.get()), (50_000, 20_000));
        assert_eq!(error.executed(), Executed::No);
        assert_eq!(error.fault(), Fault::Caller);
        assert_eq!(
            error.to_string(),
            "embedding was not called: the call weighs 50000, and at most 20000 may go out at \
             once; split it"
        );
        assert_eq!(client.status().totals.attempts, 0);

        let began = Instant::now();
        let mut embedded = Vec::new();
        for part in texts.chunks(100) {
            let answer = client.ask(part.to_vec()).await.unwrap();
            embedded.push((answer.value, began.elapsed()));
        }
        // 20,000 tokens at once, 20,000 once they are refilled, 10,000 half a second later.
        let expected = [(100, ms(0)), (100, ms(1_000)), (50, ms(1_500))];
        assert_eq!(embedded, expected);
        runtime.finish().await;
    });
}

#[test]
fn item_87_a_call_may_say_itself_what_it_weighs() {
    run_paused(async || {
        let bench = Bench::start(five_a_second(10_000)).await;
        let weighing = |weight| CallOptions {
            weight: Some(nonzero(weight)),
            ..CallOptions::default()
        };
        let began = Instant::now();
        let heavy = bench.client.ask_with(Do::Answer(1), weighing(6)).await;
        assert!(matches!(
            heavy,
            Err(CallError::RateLimited {
                limit: Limit::TooHeavy { .. },
                ..
            })
        ));
        let good = |_: &Result<(), String>| breakerbox_policy::Class::Success.into();
        let work = async || Ok(());
        bench
            .client
            .ask_with(Do::Answer(1), weighing(4))
            .await
            .unwrap();
        bench
            .client
            .run_with(weighing(3), good, work)
            .await
            .unwrap();
        assert_eq!(began.elapsed(), ms(400), "two units more than there were");
        bench.finish().await;
    });
}

fn paid_by(session: &Session) -> CallOptions {
    CallOptions {
        session: Some(session.clone()),
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

#[test]
fn item_88_the_call_that_a_session_cannot_pay_for_is_refused_before_it_is_made() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let session = Session::new(10);
        let ask = async || {
            bench
                .client
                .ask_with(Do::Answer(1), paid_by(&session))
                .await
        };
        for left in (0..10).rev() {
            ask().await.unwrap();
            assert_eq!(session.left(), left);
        }
        let error = ask().await.unwrap_err();
        assert!(matches!(error, CallError::SessionSpent { limit: 10, .. }));
        assert_eq!(
            (error.executed(), error.fault()),
            (Executed::No, Fault::Caller)
        );
        assert_eq!(
            error.to_string(),
            "dep was not called: the session has spent all of its 10"
        );
        assert_eq!(bench.script.calls(), 10);
        // Calls outside the session continue.
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.finish().await;
    });
}

#[test]
fn item_88_retries_are_paid_for_too() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.retry.max_attempts = nonzero(4);
            settings.breaker.failure_threshold = None;
        })
        .await;
        let session = Session::new(10);
        let ask = async || bench.client.ask_with(Do::Fail, paid_by(&session)).await;
        let mut left = Vec::new();
        for _ in 0..3 {
            let error = ask().await.unwrap_err();
            // The session cuts off the third call's retries; the error reports the result so far.
            assert!(matches!(error, CallError::Failed { .. }), "{error}");
            left.push(session.left());
        }
        assert_eq!(left, [6, 2, 0]);
        let error = ask().await.unwrap_err();
        assert!(matches!(error, CallError::SessionSpent { .. }), "{error}");
        assert_eq!(bench.script.calls(), 10);
        bench.finish().await;
    });
}

#[test]
fn item_88_a_cached_answer_costs_nothing() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = breakerbox_actors::testing::Script::new(|_: Do, number| match number {
            1 => breakerbox_actors::testing::Reaction::Answer(1),
            _ => breakerbox_actors::testing::Reaction::Fail(ScriptedError::failure("down")),
        });
        let rules = vec![FallbackRule::new(StaleCache::new(ms(HOUR), 10))];
        let client = start(&runtime, "dep", &script, opens_after(1, ms(HOUR)), rules).await;
        let session = Session::new(10);
        let ask = async || client.ask_with(Do::Answer(1), paid_by(&session)).await;
        ask().await.unwrap();
        ask().await.unwrap();
        assert_eq!(
            (session.left(), script.calls()),
            (8, 2),
            "the second failed"
        );
        for _ in 0..20 {
            let answer = ask().await.unwrap();
            assert!(matches!(answer.source, AnswerSource::Fallback(_)));
        }
        assert_eq!((session.left(), script.calls()), (8, 2));
        runtime.finish().await;
    });
}
