//! OPS-1: refusals are counted by their source, each call once.

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallOptions, FallbackRule, Fixed, RefusedBy, Session};
use breakerbox_policy::{BreakerCommand, Class, RateLimitSettings};

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero};

/// Returns the sources of the refusals so far, each with its count.
fn refused(bench: &Bench) -> Vec<(RefusedBy, u64)> {
    let counts = bench.status().counts;
    let all = RefusedBy::ALL.map(|by| (by, counts.refused(by)));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

async fn open(bench: &Bench) {
    let (reason, until) = ("a drill".to_owned(), None);
    let command = BreakerCommand::Open { reason, until };
    bench.client.operate(command).await.unwrap();
}

async fn ask(bench: &Bench, options: CallOptions) {
    let asked = bench.client.ask_with(Do::Answer(1), options).await;
    asked.expect_err("it is refused");
}

#[test]
fn ops_1_each_refused_call_is_counted_once_by_who_refused_it() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_queue = 0;
            settings.retry.max_attempts = nonzero(3);
            settings.rate_limit = Some(RateLimitSettings {
                rate: 1.0,
                per: ms(3_600_000),
                burst: nonzero(3),
                max_wait: ms(0),
            });
        })
        .await;
        let session = Some(Session::new(0));
        ask(
            &bench,
            CallOptions {
                session,
                ..CallOptions::default()
            },
        )
        .await;
        assert_eq!(refused(&bench), [(RefusedBy::Session, 1)]);

        let timeout = Some(ms(0));
        ask(
            &bench,
            CallOptions {
                timeout,
                ..CallOptions::default()
            },
        )
        .await;
        let client = bench.client.clone();
        let hangs = tokio::task::spawn_local(async move { client.ask(Do::Hang).await });
        let_others_run().await;
        ask(&bench, CallOptions::default()).await;
        hangs.abort();
        let_others_run().await;
        bench.ask(Do::End(Class::Throttled)).await.unwrap_err();
        ask(&bench, CallOptions::default()).await;
        tokio::time::sleep(ms(60_000)).await;
        ask(&bench, CallOptions::default()).await;
        open(&bench).await;
        ask(&bench, CallOptions::default()).await;
        ask(&bench, CallOptions::default()).await;
        let expected = [
            (RefusedBy::Breaker, 2),
            (RefusedBy::RateLimit, 1),
            (RefusedBy::Pause, 1),
            (RefusedBy::Bulkhead, 1),
            (RefusedBy::Session, 1),
            (RefusedBy::Deadline, 1),
        ];
        assert_eq!(refused(&bench), expected);
        bench.finish().await;
    });
}

#[test]
fn ops_1_a_refused_call_that_a_fallback_answers_is_counted_all_the_same() {
    run_paused(async || {
        let rules = vec![FallbackRule::new(Fixed(7))];
        let bench = Bench::with_fallbacks(|_| {}, rules).await;
        open(&bench).await;
        for _ in 0..3 {
            assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().value, 7);
        }
        assert_eq!(refused(&bench), [(RefusedBy::Breaker, 3)]);
        let totals = bench.status().totals;
        assert_eq!(
            (totals.submitted, totals.fallback, totals.refused),
            (3, 3, 0)
        );
        bench.finish().await;
    });
}

#[test]
fn call_1_refusals_at_once_are_in_the_books() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        open(&bench).await;
        for _ in 0..3 {
            ask(&bench, CallOptions::default()).await;
        }
        let totals = bench.status().totals;
        assert_eq!(
            (totals.submitted, totals.primary, totals.refused),
            (4, 1, 3)
        );
        assert_eq!(totals.in_flight(), 0);
        bench.finish().await;
    });
}
