//! Drains, death watch and backoff.

use breakerbox::{CallError, Child, EventKind, Group, NotExecutedReason};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::supervision::{ChildState, RestartBackoff, StopCause};
use breakerbox_policy::{DependencySettings, Executed, Intensity};

use super::{Do, Log, backoff, dependency, happened, millis, number};
use crate::supervision::{Behave, Probe};

#[test]
fn r09_a_graceful_drain_keeps_its_deadline() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let drains = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = 2.try_into().unwrap();
            settings.workers.drain = millis(300);
        };
        let client = dependency(&runtime, &log, drains).start().await.unwrap();
        let begun = runtime.clock().now();
        let drain = async {
            tokio::time::sleep(millis(1)).await;
            runtime.shutdown().await;
            runtime.clock().now().since(begun)
        };
        let long = async {
            let reply = client.ask(Do::Later(5_000, 2)).await;
            (reply, runtime.clock().now().since(begun))
        };
        let late = async {
            tokio::time::sleep(millis(10)).await;
            client.ask(Do::Answer(6)).await
        };
        let (short, (long, at), a, b, c, new, elapsed) = tokio::join!(
            client.ask(Do::Later(50, 1)),
            long,
            client.ask(Do::Later(20, 3)),
            client.ask(Do::Later(20, 4)),
            client.ask(Do::Later(20, 5)),
            late,
            drain,
        );
        assert_eq!(number(&short), 1);
        assert_eq!([number(&a), number(&b), number(&c)], [3, 4, 5]);
        let error = long.unwrap_err();
        assert!(matches!(error, CallError::Interrupted { .. }), "{error}");
        assert_eq!((error.executed(), at), (Executed::Maybe, millis(301)));
        let error = new.unwrap_err();
        let CallError::NotExecuted { reason, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*reason, NotExecutedReason::ShuttingDown);
        assert_eq!(error.executed(), Executed::No);
        assert!(
            (millis(300)..=millis(400)).contains(&elapsed),
            "{elapsed:?}"
        );
        let totals = client.status().totals;
        assert_eq!((totals.submitted, totals.primary), (6, 4));
        assert_eq!((totals.failed, totals.refused, totals.cancelled), (1, 1, 0));
        runtime.finish().await;
    });
}

#[test]
fn r10_death_watch_tells_everyone_once() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let own = log.clone();
        let child = Child::temporary("a", move || Probe::new("a", &own));
        let child = runtime.supervise(child).await.unwrap();
        let (first, second) = (runtime.watch("a"), runtime.watch("a"));
        let unwatched = runtime.watch("a");
        drop(unwatched);
        // Separate tasks: they run in the order in which they were woken.
        let noted = log.clone();
        let told = tokio::task::spawn_local(async move {
            let notice = first.await;
            noted.note("told");
            notice
        });
        let (noted, addr) = (log.clone(), child.addr());
        let answered = tokio::task::spawn_local(async move {
            let answer = addr.send(Behave::Stop).await;
            noted.note("answer");
            answer
        });
        let (answer, notice, again) = tokio::join!(answered, told, second);
        let notice = notice.unwrap();
        assert_eq!(answer.unwrap(), Ok(1));
        assert_eq!(notice, again);
        assert_eq!(notice.name, "a");
        assert_eq!(notice.incarnation, 1);
        assert_eq!(notice.cause, StopCause::Normal);
        let order = log.take();
        let place = |line: &str| order.iter().position(|known| known == line).unwrap();
        assert_eq!(order.iter().filter(|line| *line == "told").count(), 1);
        assert!(
            place("told") > place("answer"),
            "after the last reply: {order:?}"
        );
        assert!(place("told") > place("a dropped"), "{order:?}");
        // The child is dead already, so the watch completes at once.
        let begun = runtime.clock().now();
        assert_eq!(runtime.watch("a").await, notice);
        assert_eq!(runtime.clock().now(), begun);
        runtime.finish().await;
    });
}

#[test]
fn r11_the_backoff_grows_and_is_reset_by_a_healthy_run() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let mut delay = backoff(100);
        delay.max = millis(1_000);
        let group = Group::new("g")
            .backoff(RestartBackoff {
                delay,
                reset_after: millis(5_000),
                ..RestartBackoff::default()
            })
            .intensity(Intensity {
                max: 100,
                within: millis(1_000),
            });
        let own = log.clone();
        let child = Child::permanent("a", move || Probe::new("a", &own));
        let addr = child.addr();
        runtime.supervise_group(group.child(child)).await.unwrap();
        for _ in 0..6 {
            assert!(addr.send(Behave::Panic).await.is_err());
        }
        assert_eq!(addr.send(Behave::Answer(1)).await, Ok(1));
        tokio::time::sleep(millis(5_000)).await;
        assert!(addr.send(Behave::Panic).await.is_err());
        assert_eq!(addr.send(Behave::Answer(2)).await, Ok(2));
        let events = runtime.events_since(0);
        let mut ended = None;
        let mut delays = Vec::new();
        for event in events.iter().filter(|event| &*event.subject == "g/a") {
            match event.kind {
                EventKind::Ended { .. } => ended = Some(event.at),
                EventKind::Started { .. } => {
                    delays.extend(ended.take().map(|ended| event.at.since(ended)));
                }
                _ => {}
            }
        }
        assert_eq!(delays, [0, 100, 200, 400, 800, 1_000, 0].map(millis));
        runtime.finish().await;
    });
}

#[test]
fn r12_the_supervisor_is_responsive_during_a_backoff() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let group = Group::new("g").backoff(RestartBackoff {
            first: millis(10_000),
            ..RestartBackoff::default()
        });
        let own = log.clone();
        let child = Child::permanent("a", move || Probe::new("a", &own));
        let addr = child.addr();
        let group = runtime.supervise_group(group.child(child)).await.unwrap();
        assert!(addr.send(Behave::Panic).await.is_err());
        tokio::time::sleep(millis(100)).await;
        let waits = group.children().await[0].state;
        assert!(matches!(waits, ChildState::Waiting { .. }), "{waits:?}");
        let begun = runtime.clock().now();
        group.terminate("a").await.unwrap();
        assert_eq!(runtime.clock().now(), begun);
        tokio::time::sleep(millis(60_000)).await;
        let started = |kind: &EventKind| matches!(kind, EventKind::Started { .. });
        assert_eq!(happened(&runtime, "g/a", started), 1, "no later start");
        assert_eq!(log.count("a made"), 1);
        runtime.finish().await;
    });
}
