//! LIM-2 and LIM-3 on the call path: the calls that a rate limit refuses, and the cost of a
//! refusal.

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallError, CallOptions, FallbackRule, Fixed, Limit, Session};
use breakerbox_policy::{DependencySettings, Executed, RateLimitSettings, RetryJitter, State};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

fn rate(burst: u32, max_wait: u64) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        settings.rate_limit = Some(RateLimitSettings {
            rate: 1.0,
            per: ms(1_000),
            burst: nonzero(burst),
            max_wait: ms(max_wait),
        });
    }
}

#[test]
fn lim_2_a_refusal_by_the_rate_limit_is_no_outcome_is_not_retried_and_tells_when() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            rate(1, 0)(settings);
            settings.retry.max_attempts = nonzero(3);
            settings.retry.backoff.jitter = RetryJitter::None;
        })
        .await;
        bench.ask(Do::Answer(1)).await.unwrap();
        pass(400).await;
        let (began, window) = (Instant::now(), bench.status().window);
        let options = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        let error = bench
            .client
            .ask_with(Do::Answer(1), options)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            CallError::RateLimited {
                limit: Limit::Rate,
                ..
            }
        ));
        assert_eq!(error.executed(), Executed::No);
        assert_eq!(error.retry_after(), Some(ms(600)));
        assert_eq!(
            error.to_string(),
            "dep was not called: the rate limit is used up; try again in 600 ms"
        );
        assert_eq!(began.elapsed(), ms(0));
        assert_eq!(bench.status().window, window);
        let totals = bench.status().totals;
        assert_eq!((totals.refused, totals.attempts), (1, 1));
        bench.finish().await;
    });
}

#[test]
fn lim_2_a_fallback_serves_what_came_too_fast_but_not_what_is_too_heavy() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(rate(1, 0), vec![FallbackRule::new(Fixed(77))]).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().value, 77);
        let heavy = CallOptions {
            weight: Some(nonzero(2)),
            ..CallOptions::default()
        };
        let error = bench
            .client
            .ask_with(Do::Answer(1), heavy)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            CallError::RateLimited {
                limit: Limit::TooHeavy { .. },
                ..
            }
        ));
        bench.finish().await;
    });
}

#[test]
fn lim_2_a_probe_that_comes_too_fast_gives_its_permit_back() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            opens_after(1, ms(100))(settings);
            rate(1, 0)(settings);
        })
        .await;
        bench.fail_until_open().await;
        pass(100).await;
        for _ in 0..3 {
            let error = bench.ask(Do::Answer(1)).await.unwrap_err();
            assert!(matches!(error, CallError::RateLimited { .. }), "{error}");
            assert_eq!(bench.state(), State::HalfOpen);
        }
        pass(900).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn lim_2_who_waits_for_its_turn_is_refused_when_the_breaker_opens_meanwhile() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            opens_after(1, ms(60_000))(settings);
            rate(1, 5_000)(settings);
        })
        .await;
        let failing = bench.ask(Do::Fail.after(500));
        let waiting = async {
            let_others_run().await;
            bench.ask(Do::Answer(1)).await
        };
        let (failing, waiting) = tokio::join!(failing, waiting);
        failing.unwrap_err();
        let error = waiting.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert_eq!(bench.script.calls(), 1);
        bench.finish().await;
    });
}

#[test]
fn lim_2_who_leaves_its_turn_takes_nothing_from_the_others() {
    run_paused(async || {
        let bench = Bench::start(rate(1, 3_000)).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        let began = Instant::now();
        let short = tokio::time::timeout(ms(500), bench.ask(Do::Answer(1)));
        let others = join_all((0..2).map(|_| async {
            let_others_run().await;
            bench.ask(Do::Answer(1)).await.unwrap();
            began.elapsed().as_millis()
        }));
        let (short, others) = tokio::join!(short, others);
        assert!(short.is_err());
        assert_eq!(others, [1_000, 2_000]);
        assert_eq!(bench.status().totals.cancelled, 1);
        bench.finish().await;
    });
}

#[test]
fn lim_3_a_spent_session_takes_nothing_from_the_others_and_no_fallback_pays_for_it() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(rate(2, 0), vec![FallbackRule::new(Fixed(77))]).await;
        let session = Session::new(1);
        let paid = || CallOptions {
            session: Some(session.clone()),
            ..CallOptions::default()
        };
        let ask = async || bench.client.ask_with(Do::Answer(1), paid()).await;
        assert!(ask().await.unwrap().is_primary());
        for _ in 0..10 {
            let error = ask().await.unwrap_err();
            assert!(matches!(error, CallError::SessionSpent { .. }), "{error}");
        }
        let answer = bench.ask(Do::Answer(1)).await.unwrap();
        assert!(answer.is_primary(), "its unit was still there");
        bench.finish().await;
    });
}

#[test]
fn lim_3_a_session_pays_by_weight_and_not_for_what_was_not_executed() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.workers.backoff.base = ms(5_000);
            settings.workers.backoff.max = ms(5_000);
            settings.workers.quarantine = None;
        })
        .await;
        let session = Session::new(10);
        let paid = || CallOptions {
            session: Some(session.clone()),
            weight: Some(nonzero(4)),
            timeout: Some(ms(1_000)),
            ..CallOptions::default()
        };
        let ask = async || bench.client.ask_with(Do::Answer(1), paid()).await;
        ask().await.unwrap();
        assert_eq!(session.left(), 6);
        // After the second crash the restart waits for five seconds, so no worker executes the
        // call.
        bench.ask(Do::Panic).await.unwrap_err();
        pass(10).await;
        bench.ask(Do::Panic).await.unwrap_err();
        let error = ask().await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!((error.executed(), session.left()), (Executed::No, 6));
        pass(10_000).await;
        ask().await.unwrap();
        let error = ask().await.unwrap_err();
        assert!(matches!(error, CallError::SessionSpent { .. }), "{error}");
        assert_eq!(session.left(), 2);
        bench.finish().await;
    });
}
