//! The breaker during crashes and timeouts: routing, lost probes, late results.

use breakerbox::{AnswerSource, CallError};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::{BreakerCommand, DependencySettings, State};

use super::{Do, Log, dependency, millis, number, standby};

fn trip() -> BreakerCommand {
    BreakerCommand::Trip {
        reason: "test".into(),
        wait: None,
    }
}

/// The breaker opens for 100 ms, then admits one probe with a lease of 500 ms.
fn short(settings: &mut DependencySettings) {
    settings.breaker.open.base = millis(100);
    settings.breaker.half_open.probe_lease = millis(500);
}

#[test]
fn r05_an_open_breaker_sends_calls_to_the_fallback() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, |_| {})
            .fallback(standby())
            .start()
            .await
            .unwrap();
        client.operate(trip()).await.unwrap();
        for _ in 0..10 {
            let answer = client.ask(Do::Answer(1)).await.unwrap();
            assert_eq!(answer.source, AnswerSource::Fallback("fixed".into()));
        }
        let status = client.status();
        assert_eq!(status.totals.fallback, 10);
        assert_eq!(log.take(), Vec::<String>::new(), "no message to the worker");
        assert_eq!(status.totals.attempts, 0);
        assert_eq!(status.totals.restarts, 0);
        runtime.finish().await;
    });
}

#[test]
fn r06_a_probe_whose_caller_goes_away_gives_its_permit_back() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, short).start().await.unwrap();
        client.operate(trip()).await.unwrap();
        tokio::time::sleep(millis(100)).await;
        let probe = tokio::time::timeout(millis(10), client.ask(Do::Hang)).await;
        assert!(probe.is_err(), "its caller goes away");
        tokio::task::yield_now().await;
        let status = client.status();
        assert_eq!(status.state, State::HalfOpen);
        assert_eq!(status.half_open.unwrap().in_flight, 0, "a free permit");
        assert_eq!(number(&client.ask(Do::Answer(1)).await), 1);
        assert_eq!(client.status().state, State::Closed);
        runtime.finish().await;
    });
}

#[test]
fn r06_a_probe_whose_worker_crashes_opens_the_breaker_again() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, short).start().await.unwrap();
        client.operate(trip()).await.unwrap();
        tokio::time::sleep(millis(100)).await;
        let error = client.ask(Do::Panic).await.unwrap_err();
        assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        assert_eq!(client.status().state, State::Open);
        tokio::time::sleep(millis(100)).await;
        assert_eq!(number(&client.ask(Do::Answer(1)).await), 1);
        assert_eq!(client.status().state, State::Closed);
        runtime.finish().await;
    });
}

#[test]
fn r06_a_silent_probe_loses_its_lease() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, short).start().await.unwrap();
        client.operate(trip()).await.unwrap();
        tokio::time::sleep(millis(100)).await;
        let silent = client.clone();
        let silent = tokio::task::spawn_local(async move { silent.ask(Do::Hang).await });
        tokio::time::sleep(millis(499)).await;
        assert_eq!(client.status().state, State::HalfOpen);
        tokio::time::sleep(millis(2)).await;
        assert_eq!(client.status().state, State::Open, "500 ms at the latest");
        silent.abort();
        runtime.finish().await;
    });
}

#[test]
fn r07_a_late_result_of_an_older_epoch_does_not_move_the_breaker() {
    for late in [Do::Later(1_000, 1), Do::FailLater(1_000)] {
        run_paused(async || {
            let runtime = TestRuntime::start().await;
            let log = Log::default();
            let client = dependency(&runtime, &log, |settings| {
                short(settings);
                settings.breaker.half_open.probe_lease = millis(60_000);
            });
            let client = client.start().await.unwrap();
            let (old, probe) = (client.clone(), client.clone());
            let old = tokio::task::spawn_local(async move { old.ask(late).await });
            tokio::time::sleep(millis(10)).await;
            client.operate(trip()).await.unwrap();
            tokio::time::sleep(millis(100)).await;
            let probe = tokio::task::spawn_local(async move { probe.ask(Do::Hang).await });
            tokio::time::sleep(millis(10)).await;
            let before = client.status();
            assert_eq!(before.state, State::HalfOpen);
            // The caller still gets its own result.
            let _ = old.await.unwrap();
            let after = client.status();
            assert_eq!(after.state, State::HalfOpen, "unchanged by it");
            assert_eq!(after.generation, before.generation);
            assert_eq!(after.tally.late, 1);
            assert_eq!(after.half_open, before.half_open);
            probe.abort();
            runtime.finish().await;
        });
    }
}
