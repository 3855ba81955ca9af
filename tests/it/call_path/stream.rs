//! Streams under the rules of the call path (CALL-1 to CALL-6, BRK-7, SUP-7): the time at which a
//! stream is counted, and its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallError, CallOptions, Streamed, Verdict};
use breakerbox_policy::{BreakerCommand, Class, DependencySettings, Symptom};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::scripted::{Bench, let_others_run, ms, nonzero, opens_after, pass};
use crate::streamed::{Items, LOST, Scripts, Step, play, read};

pub(super) const TWO: [Step; 2] = [Step::Item(1), Step::Item(2)];
pub(super) const HANGS: [Step; 2] = [Step::Item(1), Step::Hang];

/// Sets a breaker that counts and never opens.
pub(super) fn lenient(settings: &mut DependencySettings) {
    settings.breaker.failure_threshold = None;
}

pub(super) async fn open(bench: &Bench, steps: &[Step]) -> Streamed<Items> {
    let opening = async || Ok(play(steps));
    bench.client.run_stream(opening).await.unwrap()
}

#[test]
fn call_1_a_stream_is_one_call_until_its_caller_knows_the_end() {
    run_paused(async || {
        let bench = Bench::start(lenient).await;
        let mut stream = open(&bench, &TWO).await;
        for item in [1, 2] {
            let status = bench.status();
            assert_eq!((status.in_flight, status.totals.in_flight()), (1, 1));
            assert_eq!(status.tally.recorded, 0);
            assert_eq!(stream.next().await, Some(Ok(item)));
        }
        assert!(stream.get_ref().is_some());
        assert_eq!(stream.next().await, None);
        assert!(stream.get_ref().is_none(), "the connection is kept");
        let status = bench.status();
        assert_eq!((status.in_flight, status.totals.primary), (0, 1));
        assert_eq!(status.tally.successes, 1);
        assert_eq!(stream.next().await, None);
        drop(stream);
        assert_eq!(bench.status().totals, status.totals);
        bench.finish().await;
    });
}

#[test]
fn call_1_an_empty_stream_is_a_good_answer() {
    run_paused(async || {
        let bench = Bench::start(lenient).await;
        let stream = open(&bench, &[Step::Wait(10)]).await;
        let status = bench.status();
        assert_eq!((status.totals.primary, status.tally.successes), (1, 1));
        assert_eq!(status.in_flight, 0);
        assert_eq!(read(stream).await, (vec![], None));
        bench.finish().await;
    });
}

#[test]
fn call_1_a_stream_that_is_not_opened_is_cancelled() {
    run_paused(async || {
        let bench = Bench::start(lenient).await;
        let opening = async || Ok(play([Step::Hang]));
        let opening = bench.client.run_stream(opening);
        assert!(opening.now_or_never().is_none());
        let_others_run().await;
        let status = bench.status();
        assert_eq!((status.totals.cancelled, status.totals.in_flight()), (1, 0));
        assert_eq!((status.tally.cancelled, status.in_flight), (1, 0));
        bench.finish().await;
    });
}

/// Reads in its own task, which only the stream wakes.
#[test]
fn call_3_the_error_of_a_stream_is_counted_before_its_caller_sees_it() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            lenient(settings);
            settings.timeout.idle = Some(ms(50));
            settings.timeout.attempt = Some(ms(100));
        })
        .await;
        let client = bench.client.clone();
        let caller = async move {
            let item = Step::Item(1);
            let scripts: [&[Step]; 6] = [
                &[Step::Fail],
                &[item, Step::Fail],
                &[item, Step::Wait(1), Step::Fail],
                &[item, Step::Hang],
                &[Step::Hang],
                &[item, Step::Wait(40)].repeat(5),
            ];
            for (script, counted) in scripts.into_iter().zip(1..) {
                let error = match client.run_stream(async || Ok(play(script))).await {
                    Ok(stream) => read(stream).await.1,
                    Err(error) => Some(error),
                };
                assert!(error.is_some(), "{script:?}");
                let status = client.status();
                assert_eq!(status.tally.failures, counted, "{script:?}");
                assert_eq!((status.totals.failed, status.in_flight), (counted, 0));
            }
        };
        tokio::task::spawn_local(caller).await.unwrap();
        bench.finish().await;
    });
}

#[test]
fn call_3_streams_that_break_in_a_loop_are_stopped_by_the_rule() {
    run_paused(async || {
        let bench = Bench::start(opens_after(5, ms(3_600_000))).await;
        let breaks = Scripts::new([&[Step::Item(1), Step::Fail]]);
        for _ in 0..100 {
            if let Ok(stream) = bench.client.run_stream(|| breaks.open()).await {
                read(stream).await.1.unwrap();
            }
        }
        assert_eq!(breaks.opened(), 5);
        let totals = bench.status().totals;
        assert_eq!((totals.failed, totals.refused), (5, 95));
        bench.finish().await;
    });
}

#[test]
fn call_1_a_stream_that_panics_is_a_failure_and_has_ended() {
    run_paused(async || {
        let bench = Bench::start(lenient).await;
        let mut stream = open(&bench, &[Step::Item(1), Step::Panic]).await;
        assert_eq!(stream.next().await, Some(Ok(1)));
        let next = std::panic::AssertUnwindSafe(stream.next());
        next.catch_unwind().await.unwrap_err();
        let_others_run().await;
        let status = bench.status();
        assert_eq!((status.tally.failures, status.in_flight), (1, 0));
        assert_eq!(status.totals.in_flight(), 0);
        assert_eq!(stream.next().await, None);
        let opening = async || Ok(play([Step::Panic]));
        let opening = std::panic::AssertUnwindSafe(bench.client.run_stream(opening));
        opening.catch_unwind().await.unwrap_err();
        let_others_run().await;
        let status = bench.status();
        assert_eq!((status.tally.failures, status.in_flight), (2, 0));
        bench.finish().await;
    });
}

#[test]
fn brk_7_the_callers_word_counts_for_errors_and_for_good_ends() {
    run_paused(async || {
        let bench = Bench::start(lenient).await;
        let classify = |result: Result<&Items, &&str>| match result {
            Ok(_) => Verdict::from(Class::Rejected),
            Err(_) => Verdict::from(Symptom::Status(429)).retry_after(ms(5_000)),
        };
        let options = CallOptions::default;
        let run = async |steps: &[Step]| {
            let open = async || Ok(play(steps));
            bench
                .client
                .run_stream_with(options(), classify, open)
                .await
        };
        assert_eq!(read(run(&TWO).await.unwrap()).await, (vec![1, 2], None));
        let tally = bench.status().tally;
        assert_eq!((tally.recorded, tally.neutral), (0, 1));
        let (_, error) = read(run(&[Step::Item(1), Step::Fail]).await.unwrap()).await;
        assert!(matches!(error, Some(CallError::Failed { error, .. }) if error == LOST));
        assert_eq!(bench.status().tally.recorded, 0);
        let refused = run(&TWO).await.unwrap_err();
        assert!(
            matches!(refused, CallError::RateLimited { .. }),
            "{refused}"
        );
        bench.finish().await;
    });
}

#[test]
fn call_5_no_stream_is_opened_that_the_breaker_refuses() {
    run_paused(async || {
        let bench = Bench::start(lenient).await;
        let shut = BreakerCommand::Open {
            reason: "closed for the night".to_owned(),
            until: None,
        };
        bench.client.operate(shut).await.unwrap();
        let scripts = Scripts::new([&TWO]);
        let refused = bench.client.run_stream(|| scripts.open()).await;
        assert!(matches!(refused, Err(CallError::Open(_))));
        assert_eq!((scripts.opened(), bench.status().totals.refused), (0, 1));
        bench.finish().await;
    });
}

#[test]
fn sup_7_a_drain_waits_for_open_streams_and_opens_no_new_ones() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.workers.drain = ms(10_000)).await;
        let steps = [Step::Item(1), Step::Wait(2_000), Step::Item(2)];
        let stream = open(&bench, &steps).await;
        let began = Instant::now();
        let late = async {
            pass(1_000).await;
            let late = bench.client.run_stream(async || Ok(play(TWO))).await;
            assert!(matches!(late, Err(CallError::NotExecuted { .. })));
        };
        let (read, (), ()) = tokio::join!(read(stream), late, bench.runtime.shutdown());
        assert_eq!(read, (vec![1, 2], None));
        assert_eq!(began.elapsed(), ms(2_000));
        bench.finish().await;
    });
}

/// The end is not counted any more; the caller still receives it.
#[test]
fn call_1_a_stream_that_outlives_the_runtime_is_answered() {
    run_paused(async || {
        for last in [Step::Fail, Step::Hang] {
            let bench = Bench::start(|settings| {
                settings.workers.drain = ms(100);
                settings.timeout.idle = Some(ms(5_000));
            })
            .await;
            let stream = open(&bench, &[Step::Item(1), Step::Wait(1_000), last]).await;
            let whole = async { tokio::join!(read(stream), bench.runtime.shutdown()) };
            let whole = tokio::time::timeout(ms(3_600_000), whole).await;
            let ((items, error), ()) = whole.expect("a caller waits for ever");
            assert_eq!((items.len(), error.is_some()), (1, true));
            bench.finish().await;
        }
    });
}

/// Counters of the open streams, and of their maximum.
#[derive(Clone, Default)]
struct Lines(Arc<(AtomicU64, AtomicU64)>);

struct Line(Lines);

impl Lines {
    fn open(&self) -> Line {
        let (open, most) = &*self.0;
        let now = open.fetch_add(1, Ordering::Relaxed) + 1;
        most.fetch_max(now, Ordering::Relaxed);
        Line(self.clone())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// For each kind of end, a stream's connection is closed before the next caller opens one.
#[test]
fn call_6_there_are_never_more_streams_open_than_places() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            lenient(settings);
            settings.bulkhead.max_concurrent = nonzero(2);
            settings.bulkhead.max_wait = ms(60_000);
            settings.timeout.idle = Some(ms(20));
        })
        .await;
        let lines = Lines::default();
        let ends = [&TWO[..], &HANGS, &[Step::Item(1), Step::Fail]];
        let calls = (0..30).map(|number| {
            let (client, lines) = (bench.client.clone(), lines.clone());
            let steps = ends[number % ends.len()];
            tokio::spawn(async move {
                let open = async || {
                    let line = lines.open();
                    let items = play(steps).map(move |item| {
                        let _line = &line;
                        item
                    });
                    Ok(items.boxed())
                };
                read(client.run_stream(open).await.unwrap()).await
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        let (open, most) = &*lines.0;
        let counts = [open, most].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [0, 2]);
        bench.finish().await;
    });
}

#[test]
fn a_stream_may_go_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    run_paused(async || {
        let bench = Bench::start(lenient).await;
        let open = || async { Ok(play(TWO)) };
        let run = bench.client.run_stream(open);
        is_send(&run);
        let stream = run.await.unwrap();
        is_send(&stream);
        let reader = tokio::spawn(read(stream));
        assert_eq!(reader.await.unwrap(), (vec![1, 2], None));
        bench.finish().await;
    });
}
