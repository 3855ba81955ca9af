//! Accounting of a stream's time (CALL-5, CALL-7, BRK-6, BRK-9): to the dependency, or to its
//! caller.

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallContext, CallError, CallOptions, Dependency, Verdict};
use breakerbox_policy::{Class, HedgeDelay, HedgeSettings, Rate, State};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::stream::{HANGS, TWO, lenient, open};
use crate::scripted::{Bench, let_others_run, ms, nonzero, pass};
use crate::streamed::{Items, LOST, Scripts, Step, read};

fn idempotent() -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

fn by_result(result: Result<&Items, &&str>) -> Verdict {
    Verdict::from(result.map_or(Class::Failure, |_| Class::Success))
}

/// A slow reader must not open the breaker for other callers.
#[test]
fn brk_6_time_that_the_caller_takes_is_not_the_dependencys() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            lenient(settings);
            settings.timeout.idle = Some(ms(100));
            settings.timeout.attempt = Some(ms(1_000));
            settings.timeout.total = Some(ms(10_000));
        })
        .await;
        let steps = [Step::Item(1), Step::Wait(90), Step::Item(2), Step::Wait(90)];
        let mut stream = open(&bench, &steps).await;
        for item in [1, 2] {
            assert_eq!(stream.next().await, Some(Ok(item)));
            pass(3_000).await;
        }
        assert_eq!(
            stream.next().await,
            None,
            "neither idle nor attempt is over"
        );
        assert_eq!(bench.status().tally.successes, 1);

        let mut stream = open(&bench, &TWO).await;
        assert_eq!(stream.next().await, Some(Ok(1)));
        pass(10_001).await;
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        let stream = open(&bench, &TWO).await;
        pass(10_001).await;
        drop(stream);
        let_others_run().await;
        let status = bench.status();
        assert_eq!((status.tally.failures, status.tally.cancelled), (0, 2));
        assert_eq!((status.totals.failed, status.totals.cancelled), (1, 1));
        bench.finish().await;
    });
}

#[test]
fn brk_6_a_stream_that_is_dropped_after_its_deadline_is_a_failure_where_it_was_waited_for() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            lenient(settings);
            settings.timeout.total = Some(ms(1_000));
        })
        .await;
        for (waited, counted) in [(999, (1, 0)), (1_000, (1, 1))] {
            let mut stream = open(&bench, &HANGS).await;
            assert_eq!(stream.next().await, Some(Ok(1)));
            assert_eq!(stream.next().now_or_never(), None);
            pass(waited).await;
            drop(stream);
            let_others_run().await;
            let tally = bench.status().tally;
            assert_eq!((tally.cancelled, tally.failures), counted);
        }
        bench.finish().await;
    });
}

/// The latency of a stream is the time to its first item: a stream of events that is followed for
/// an hour is not slow.
#[test]
fn brk_9_a_stream_that_goes_on_is_neither_slow_nor_overdue() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            lenient(settings);
            settings.breaker.slow_call = Some(ms(1_000));
            settings.breaker.slow_rate = Rate::new(0.5).ok();
            settings.breaker.minimum_calls = 1;
            settings.timeout.total = None;
        })
        .await;
        let events = [Step::Item(1), Step::Wait(900)].repeat(10);
        let stream = open(&bench, &events).await.long_lived();
        let (items, error) = read(stream).await;
        assert_eq!((items.len(), error), (10, None));
        let status = bench.status();
        assert_eq!((status.state, status.tally.slow), (State::Closed, 0));
        assert!(status.latency.p99.unwrap() < ms(1));
        // A stream is slow if its first item is.
        let stream = open(&bench, &[Step::Wait(1_000), Step::Item(1)]).await;
        assert_eq!(read(stream).await, (vec![1], None));
        assert_eq!(bench.status().tally.slow, 1);
        bench.finish().await;
    });
}

#[test]
fn call_5_a_long_lived_stream_is_bound_by_idle_and_total_alone() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            lenient(settings);
            settings.timeout.attempt = Some(ms(1_000));
            settings.timeout.idle = None;
        })
        .await;
        let steps = [Step::Item(1), Step::Wait(2_000), Step::Item(2)];
        let (items, error) = read(open(&bench, &steps).await).await;
        assert!(matches!(error, Some(CallError::TimedOut { after, .. }) if after == ms(1_000)));
        assert_eq!(items, [1]);
        let (items, error) = read(open(&bench, &steps).await.long_lived()).await;
        assert_eq!((items.len(), error), (2, None));
        bench.finish().await;
    });
}

/// Dependency that answers with the milliseconds its call has left.
struct Left;

impl Dependency for Left {
    type Request = ();
    type Response = Option<u128>;
    type Error = &'static str;

    async fn call(&self, (): (), call: &CallContext) -> Result<Option<u128>, &'static str> {
        Ok(call.remaining().map(|left| left.as_millis()))
    }
}

#[test]
fn call_5_what_a_stream_calls_must_be_over_by_its_deadline() {
    run_paused(async || {
        let bench = Bench::start(lenient).await;
        let inner = bench.runtime.dependency("inner");
        let inner = inner.configure(|settings| settings.timeout.total = None);
        let inner = inner.workers(|| Left).start().await.unwrap();
        assert_eq!(inner.ask(()).await.unwrap().value, None);
        let open = async || {
            let inner = inner.clone();
            let ask = move |wait| {
                let inner = inner.clone();
                async move {
                    pass(wait).await;
                    let answer = inner.ask(()).await.map_err(|_| LOST)?;
                    Ok::<_, &str>(answer.value)
                }
            };
            Ok(futures_util::stream::iter([0, 100]).then(ask))
        };
        let options = CallOptions {
            timeout: Some(ms(500)),
            ..CallOptions::default()
        };
        let good = |_: Result<&_, &&str>| Verdict::from(Class::Success);
        let stream = bench.client.run_stream_with(options, good, open).await;
        let left: Vec<_> = stream.unwrap().collect().await;
        assert_eq!(left, [Ok(Some(500)), Ok(Some(400))]);
        bench.finish().await;
    });
}

#[test]
fn call_7_the_first_of_two_streams_to_begin_wins_and_is_counted_alone() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            lenient(settings);
            settings.retry.budget = None;
            settings.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Fixed(ms(50)),
                max_hedges: nonzero(1),
            });
        })
        .await;
        let scripts = Scripts::new([&[Step::Hang], &[Step::Wait(10), Step::Item(7)]]);
        let began = Instant::now();
        let open = || scripts.open();
        let run = bench.client.run_stream_with(idempotent(), by_result, open);
        let stream = run.await.unwrap();
        assert_eq!((scripts.opened(), began.elapsed()), (2, ms(60)));
        assert_eq!(bench.status().in_flight, 1);
        assert_eq!(read(stream).await, (vec![7], None));
        let status = bench.status();
        assert_eq!((status.tally.recorded, status.tally.neutral), (1, 0));
        assert_eq!((status.totals.primary, status.totals.hedges), (1, 1));

        // The winner's own end still counts: the winner lost no race.
        let scripts = Scripts::new([&[Step::Hang], &HANGS]);
        let open = || scripts.open();
        let run = bench.client.run_stream_with(idempotent(), by_result, open);
        drop(run.await.unwrap());
        let_others_run().await;
        assert_eq!(bench.status().tally.cancelled, 1);
        bench.finish().await;
    });
}
