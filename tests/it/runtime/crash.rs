//! Crashes: the error of each caller, queued calls, quarantine and parking.

use breakerbox::{AnswerSource, CallContext, CallError, Dependency, EventKind, NotExecutedReason};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{DependencySettings, Executed, Intensity, OverrideMode, WhileRestarting};

use super::{Do, Log, Served, backoff, crash, dependency, happened, life, millis, number, standby};

fn rejects(settings: &mut DependencySettings) {
    settings.workers.while_restarting = WhileRestarting::Reject;
}

#[test]
fn r01_worker_panics_and_its_queue_is_kept() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, |_| {}).start().await.unwrap();
        crash(&client).await;
        log.take();
        let before = client.status();
        let begun = runtime.clock().now();
        let timed = async |request| {
            let reply = client.ask(request).await;
            (reply, runtime.clock().now().since(begun))
        };
        let (a, b, c, d) = tokio::join!(
            timed(Do::Hang),
            timed(Do::Panic),
            timed(Do::Answer(3)),
            timed(Do::Answer(4)),
        );
        let (error, at) = (a.0.unwrap_err(), a.1);
        assert!(matches!(error, CallError::Interrupted { .. }), "{error}");
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!(at, millis(0), "at once, not after the backoff");
        let error = b.0.unwrap_err();
        assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!((number(&c.0), life(&c.0)), (3, 3), "the next incarnation");
        assert_eq!((number(&d.0), life(&d.0)), (4, 3));
        assert_eq!(c.1, millis(200), "after the backoff");
        assert_eq!(
            log.take(),
            [
                "called",
                "called",
                "called",
                "answers 3",
                "called",
                "answers 4"
            ],
            "D after C"
        );
        let after = client.status();
        assert_eq!(after.totals.restarts - before.totals.restarts, 1);
        assert_eq!(after.tally.failures - before.tally.failures, 2);
        runtime.finish().await;
    });
}

#[test]
fn r02_worker_panics_and_its_queue_fails() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, rejects).start().await.unwrap();
        let (a, b, c, d) = tokio::join!(
            client.ask(Do::Hang),
            client.ask(Do::Panic),
            client.ask(Do::Answer(3)),
            client.ask(Do::Answer(4)),
        );
        let (a, b) = (a.unwrap_err(), b.unwrap_err());
        assert!(matches!(a, CallError::Interrupted { .. }), "{a}");
        assert!(matches!(b, CallError::WorkerCrashed { .. }), "{b}");
        assert_eq!(
            (a.executed(), b.executed()),
            (Executed::Maybe, Executed::Maybe)
        );
        for queued in [c.unwrap_err(), d.unwrap_err()] {
            assert!(matches!(queued, CallError::NotExecuted { .. }), "{queued}");
            assert_eq!(queued.executed(), Executed::No);
        }
        assert_eq!(log.count("called"), 2);
        runtime.finish().await;
    });
}

#[test]
fn r03_calls_during_the_backoff_are_rejected() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, rejects).start().await.unwrap();
        crash(&client).await;
        client.ask(Do::Panic).await.unwrap_err();
        tokio::time::sleep(millis(10)).await;
        let begun = runtime.clock().now();
        for _ in 0..3 {
            let error = client.ask(Do::Answer(1)).await.unwrap_err();
            let CallError::NotExecuted { reason, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*reason, NotExecutedReason::Restarting);
            assert_eq!(error.executed(), Executed::No);
            assert_eq!(error.retry_after(), Some(millis(190)));
        }
        assert_eq!(runtime.clock().now(), begun, "at once");
        let scheduled =
            |kind: &EventKind| *kind == EventKind::RestartScheduled { after: millis(200) };
        assert_eq!(happened(&runtime, "d/worker-1", scheduled), 1);
        tokio::time::sleep(millis(191)).await;
        assert_eq!(number(&client.ask(Do::Answer(1)).await), 1);
        runtime.finish().await;
    });
}

#[test]
fn r03_calls_during_the_backoff_go_to_the_fallback() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, rejects)
            .fallback(standby())
            .start()
            .await
            .unwrap();
        for _ in 0..2 {
            // The fallback also answers the call that crashes.
            client.ask(Do::Panic).await.unwrap();
            tokio::time::sleep(millis(10)).await;
        }
        assert!(!client.status().workers[0].running);
        log.take();
        for _ in 0..3 {
            let answer = client.ask(Do::Answer(1)).await.unwrap();
            assert_eq!(answer.source, AnswerSource::Fallback("fixed".into()));
        }
        assert_eq!(log.take(), Vec::<String>::new(), "the worker is untouched");
        runtime.finish().await;
    });
}

#[test]
fn r03_calls_during_the_backoff_are_held_as_long_as_there_is_room() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let two_places = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = 2.try_into().unwrap();
            settings.bulkhead.max_queue = 0;
        };
        let client = dependency(&runtime, &log, two_places)
            .start()
            .await
            .unwrap();
        crash(&client).await;
        client.ask(Do::Panic).await.unwrap_err();
        tokio::time::sleep(millis(10)).await;
        log.take();
        let begun = runtime.clock().now();
        let third = async {
            let reply = client.ask(Do::Answer(3)).await;
            (reply, runtime.clock().now().since(begun))
        };
        let (one, two, (three, at)) =
            tokio::join!(client.ask(Do::Answer(1)), client.ask(Do::Answer(2)), third);
        assert_eq!((number(&one), number(&two)), (1, 2));
        assert_eq!(log.take(), ["called", "answers 1", "called", "answers 2"]);
        let error = three.unwrap_err();
        assert!(matches!(error, CallError::Overloaded { .. }), "{error}");
        assert_eq!((error.executed(), at), (Executed::No, millis(0)));
        runtime.finish().await;
    });
}

#[test]
fn r04_a_second_crash_among_the_held_calls_loses_none() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let ten_places = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = 10.try_into().unwrap();
            settings.workers.backoff = backoff(50);
        };
        let client = dependency(&runtime, &log, ten_places)
            .start()
            .await
            .unwrap();
        crash(&client).await;
        client.ask(Do::Panic).await.unwrap_err();
        let (one, two, three, four) = tokio::join!(
            client.ask(Do::Answer(1)),
            client.ask(Do::Panic),
            client.ask(Do::Answer(3)),
            client.ask(Do::Answer(4)),
        );
        assert_eq!((number(&one), life(&one)), (1, 3));
        let error = two.unwrap_err();
        assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!((number(&three), life(&three)), (3, 4));
        assert_eq!((number(&four), life(&four)), (4, 4));
        runtime.finish().await;
    });
}

#[test]
fn r08_a_poison_message_is_quarantined() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let client = dependency(&runtime, &log, |_| {}).start().await.unwrap();
        for _ in 0..2 {
            let error = client.ask(Do::Poison(7)).await.unwrap_err();
            assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        }
        assert_eq!(number(&client.ask(Do::Answer(1)).await), 1);
        log.take();
        let error = client.ask(Do::Poison(7)).await.unwrap_err();
        assert!(matches!(error, CallError::Quarantined { .. }), "{error}");
        assert_eq!(error.executed(), Executed::No);
        assert_eq!(error.retry_after(), Some(millis(59_800)));
        assert_eq!(log.take(), Vec::<String>::new(), "the worker is untouched");
        assert_eq!(number(&client.ask(Do::Answer(2)).await), 2);
        assert_eq!(client.status().totals.restarts, 2);
        let quarantined = |kind: &EventKind| matches!(kind, EventKind::Quarantined { .. });
        assert_eq!(happened(&runtime, "d", quarantined), 1);
        runtime.finish().await;
    });
}

/// Panics in the call, and again in `drop`.
struct DoubleFault;

impl Dependency for DoubleFault {
    type Request = ();
    type Response = ();
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
        panic!("first fault")
    }
}

impl Drop for DoubleFault {
    fn drop(&mut self) {
        panic!("second fault")
    }
}

#[test]
fn r14_a_double_fault_does_not_abort_the_process() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = runtime
            .dependency("d")
            .workers(|| DoubleFault)
            .start()
            .await
            .unwrap();
        let error = client.ask(()).await.unwrap_err();
        assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        let ended = |kind: &EventKind| matches!(kind, EventKind::Ended { .. });
        let event = runtime
            .event(|event| &*event.subject == "d/worker-1" && ended(&event.kind))
            .await;
        let EventKind::Ended {
            cause: StopCause::Crashed(panic),
            ..
        } = event.kind
        else {
            panic!("{}", event.kind);
        };
        assert_eq!(panic.message, "first fault");
        assert!(panic.location.unwrap().contains("crash.rs"));
        assert_eq!(panic.also.unwrap().message, "second fault");
        runtime.finish().await;
    });
}

#[test]
fn r15_an_exhausted_budget_parks_the_child_alone() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let parks = |settings: &mut DependencySettings| {
            settings.workers.intensity = Intensity {
                max: 2,
                within: millis(60_000),
            };
            settings.breaker.failure_threshold = 100.try_into().ok();
        };
        let client = dependency(&runtime, &log, parks)
            .fallback(standby())
            .start()
            .await
            .unwrap();
        let sibling = runtime.dependency("sibling").workers(|| super::Worker {
            life: 1,
            log: Log::default(),
        });
        let sibling = sibling.start().await.unwrap();
        for _ in 0..3 {
            client.ask(Do::Panic).await.unwrap();
            tokio::time::sleep(millis(1_000)).await;
        }
        let status = client.status();
        assert!(status.parked && !status.workers[0].running);
        assert_eq!(status.overridden.unwrap().mode, OverrideMode::ForcedOpen);
        log.take();
        let answer = client.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(answer.source, AnswerSource::Fallback("fixed".into()));
        assert_eq!(log.take(), Vec::<String>::new());
        let parked = |kind: &EventKind| matches!(kind, EventKind::Parked { .. });
        assert_eq!(happened(&runtime, "d/worker-1", parked), 1);
        let untouched = sibling.status().workers[0].clone();
        assert!(untouched.running && untouched.incarnation == 1);
        assert_eq!(sibling.ask(Do::Answer(5)).await.unwrap().value.number, 5);

        let group = runtime.group("d").unwrap();
        group.restart("worker-1").await.unwrap();
        let revived = client.ask(Do::Answer(2)).await.unwrap();
        assert_eq!(revived.value, Served { number: 2, life: 4 });
        assert!(revived.is_primary() && !client.status().parked);
        // The restart budget is new: two more crashes are tolerated.
        for _ in 0..2 {
            client.ask(Do::Panic).await.unwrap();
            tokio::time::sleep(millis(1_000)).await;
        }
        assert!(!client.status().parked);
        assert!(client.ask(Do::Answer(3)).await.unwrap().is_primary());
        runtime.finish().await;
    });
}
