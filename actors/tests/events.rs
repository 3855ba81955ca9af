//! OPS-1: events of a child are published, each once and in order.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use breakerbox_actors::EventKind;
use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_policy::RetryJitter;

/// The events of a worker that crashes twice: the first restart is immediate, the second one waits,
/// and its event gives the delay.
#[test]
fn ops_1_a_restart_with_a_wait_is_announced() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::<()>::Panic("a bug"));
        let worker = script.clone();
        let client = runtime
            .dependency("fragile")
            .configure(|settings| {
                settings.workers.backoff.base = Duration::from_millis(70);
                settings.workers.backoff.jitter = RetryJitter::None;
            })
            .workers(move || worker.dependency())
            .start()
            .await
            .unwrap();
        for life in 1..=2 {
            client.ask(()).await.unwrap_err();
            runtime
                .event(|event| {
                    event.kind
                        == EventKind::Started {
                            incarnation: life + 1,
                        }
                })
                .await;
        }
        let events = runtime.events_since(0);
        let worker = events
            .iter()
            .filter(|one| &*one.subject == "fragile/worker-1");
        let told: Vec<&str> = worker
            .map(|one| match one.kind {
                EventKind::Started { .. } => "started",
                EventKind::Ended { .. } => "ended",
                EventKind::RestartScheduled { after } => {
                    assert_eq!(after, Duration::from_millis(70));
                    "waits"
                }
                ref other => panic!("unexpected: {other}"),
            })
            .collect();
        assert_eq!(
            told,
            ["started", "ended", "started", "ended", "waits", "started"]
        );
        runtime.finish().await;
    });
}
