//! Workers that are started in the background, tried for ever, and started anew by an order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use breakerbox::{
    CallContext, CallError, Client, Dependency, EventKind, Health, NotExecutedReason,
    RestartRefusal, WorkerRestart,
};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{
    BreakerCommand, DependencySettings, GiveUp, Intensity, OverrideMode, RetryJitter,
};

use super::{happened, millis};

/// A dependency that answers, and ends itself when told to.
struct Plain {
    ends: Arc<tokio::sync::Notify>,
}

impl Dependency for Plain {
    type Request = u64;
    type Response = u64;
    type Error = std::convert::Infallible;

    async fn call(&self, request: u64, _: &CallContext) -> Result<u64, Self::Error> {
        tokio::time::sleep(millis(request)).await;
        Ok(request)
    }

    async fn ended(&self) -> String {
        self.ends.notified().await;
        "its process ended".to_owned()
    }

    fn fingerprint(request: &u64) -> Option<u64> {
        Some(*request)
    }
}

/// A dependency whose worker starts only while it is allowed to.
#[derive(Default)]
struct Site {
    is_sound: Arc<AtomicBool>,
    starts: Arc<AtomicU32>,
    ends: Arc<tokio::sync::Notify>,
}

impl Site {
    fn allow(&self, sound: bool) {
        self.is_sound.store(sound, Ordering::SeqCst);
    }

    async fn start(&self, runtime: &TestRuntime, give_up: GiveUp) -> Client<Plain> {
        let (sound, starts) = (Arc::clone(&self.is_sound), Arc::clone(&self.starts));
        let ends = Arc::clone(&self.ends);
        let make = move || {
            starts.fetch_add(1, Ordering::SeqCst);
            let ends = Arc::clone(&ends);
            match sound.load(Ordering::SeqCst) {
                true => Ok(Plain { ends }),
                false => Err("no licence"),
            }
        };
        let configure = |settings: &mut DependencySettings| {
            settings.workers.give_up = give_up;
            settings.workers.backoff.jitter = RetryJitter::None;
            settings.workers.intensity = Intensity {
                max: 2,
                within: millis(30_000),
            };
        };
        let new = runtime.dependency("d").configure(configure).workers(make);
        new.background_start().start().await.unwrap()
    }
}

fn forced(client: &Client<Plain>) -> bool {
    let overridden = client.status().overridden;
    overridden.is_some_and(|set| set.mode == OverrideMode::ForcedOpen)
}

#[test]
fn mcp_1_m1_a_background_start_waits_for_nothing_and_callers_learn_the_cause() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let site = Site::default();
        let client = site.start(&runtime, GiveUp::Retry).await;
        // Three starts, the last after 100 ms: then the budget is used up.
        let begun = runtime.clock().now();
        let error = client.ask(1).await.unwrap_err();
        assert_eq!(runtime.clock().now().since(begun), millis(100));
        let CallError::NotExecuted { reason, cause, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*reason, NotExecutedReason::Parked);
        assert!(cause.as_ref().unwrap().contains("no licence"), "{error}");
        assert!(error.to_string().contains("no licence"), "{error}");
        let error = client.ask(1).await.unwrap_err();
        assert!(error.to_string().contains("no licence"), "{error}");
        let Health::Down { reason } = client.status().health else {
            panic!("{:?}", client.status());
        };
        assert!(reason.contains("no licence"), "{reason}");
        site.allow(true);
        tokio::time::sleep(millis(30_000)).await;
        assert_eq!(client.ask(1).await.unwrap().value, 1);
        assert!(!forced(&client) && client.status().health == Health::Ok);
        let parked =
            |kind: &EventKind| matches!(kind, EventKind::Parked { is_retried, .. } if *is_retried);
        assert_eq!(happened(&runtime, "d/worker-1", parked), 1);
        runtime.finish().await;
    });
}

#[test]
fn mcp_1_m2_a_retrying_worker_is_tried_for_ever_and_is_well_by_itself() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let site = Site::default();
        site.allow(true);
        let client = site.start(&runtime, GiveUp::Retry).await;
        assert_eq!(client.ask(1).await.unwrap().value, 1);
        site.allow(false);
        site.ends.notify_one();
        tokio::time::sleep(millis(3_600_000)).await;
        assert!(forced(&client) && client.status().parked);
        let starts = site.starts.load(Ordering::SeqCst);
        assert!((250..400).contains(&starts), "every 10 to 12 s: {starts}");
        site.allow(true);
        tokio::time::sleep(millis(12_000)).await;
        assert_eq!(client.ask(1).await.unwrap().value, 1);
        assert!(!client.status().parked);
        runtime.finish().await;
    });
}

#[test]
fn mcp_1_m2_an_order_starts_workers_anew_whatever_their_state() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let site = Site::default();
        let client = site.start(&runtime, GiveUp::Retry).await;
        tokio::time::sleep(millis(60_000)).await;
        let restarted = runtime.restart_workers("d", millis(1_000)).await;
        let Ok(WorkerRestart::NotStarted(StopCause::Failed(cause))) = restarted else {
            panic!("{restarted:?}");
        };
        assert!(cause.contains("no licence"), "{cause}");
        assert!(forced(&client), "it is still told as down");
        site.allow(true);
        let restarted = runtime.restart_workers("d", millis(1_000)).await;
        assert_eq!(restarted, Ok(WorkerRestart::Running));
        assert!(!forced(&client));
        // One that runs ends its calls first, and others wait for the next incarnation.
        let before = client.status().workers[0].incarnation;
        let (slow, restarted, waits) = tokio::join!(
            client.ask(500),
            runtime.restart_workers("d", millis(1_000)),
            async {
                tokio::time::sleep(millis(100)).await;
                client.ask(1).await
            }
        );
        assert_eq!(restarted, Ok(WorkerRestart::Running));
        assert_eq!((slow.unwrap().value, waits.unwrap().value), (500, 1));
        assert_eq!(client.status().workers[0].incarnation, before + 1);
        let unknown = runtime.restart_workers("nobody", millis(1)).await;
        assert_eq!(unknown, Err(RestartRefusal::UnknownDependency));
        runtime.dependency("closures").start().await.unwrap();
        let none = runtime.restart_workers("closures", millis(1)).await;
        assert_eq!(none, Err(RestartRefusal::NoWorkers));
        runtime.finish().await;
    });
}

#[test]
fn mcp_1_m2_closing_and_resetting_never_hide_a_parked_worker_and_start_it_again() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let site = Site::default();
        let client = site.start(&runtime, GiveUp::Park).await;
        tokio::time::sleep(millis(60_000)).await;
        let reason = || "well again".to_owned();
        for sound in [false, true] {
            let starts = site.starts.load(Ordering::SeqCst);
            assert!(client.status().parked && forced(&client));
            site.allow(sound);
            let close = BreakerCommand::Close { reason: reason() };
            runtime.operate("d", close).await.unwrap().unwrap();
            assert!(sound || forced(&client), "it never reads as closed");
            tokio::time::sleep(millis(1)).await;
            assert_eq!(site.starts.load(Ordering::SeqCst), starts + 1);
            assert_eq!((client.status().parked, forced(&client)), (!sound, !sound));
        }
        assert_eq!(client.ask(1).await.unwrap().value, 1);
        site.allow(false);
        site.ends.notify_one();
        tokio::time::sleep(millis(60_000)).await;
        assert!(client.status().parked);
        site.allow(true);
        let reset = BreakerCommand::Reset { reason: reason() };
        runtime.operate("d", reset).await.unwrap().unwrap();
        tokio::time::sleep(millis(1)).await;
        assert_eq!(client.ask(1).await.unwrap().value, 1);
        runtime.finish().await;
    });
}

#[test]
fn sup_6_a_call_that_is_suspected_late_spares_no_call_of_the_next_end() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let site = Site::default();
        site.allow(true);
        let client = site.start(&runtime, GiveUp::Retry).await;
        // Longer than the restarts are counted.
        let pause = millis(31_000);
        assert_eq!(client.ask(1).await.unwrap().value, 1);
        // The first restart is immediate. The second one waits, so there is no value then.
        for _ in 0..2 {
            site.ends.notify_one();
            tokio::time::sleep(millis(1)).await;
        }
        client.suspect(7);
        tokio::time::sleep(pause).await;
        for _ in 0..2 {
            let ending = async {
                tokio::time::sleep(millis(50)).await;
                site.ends.notify_one();
            };
            let (ended, ()) = tokio::join!(client.ask(1_000), ending);
            assert!(
                matches!(ended, Err(CallError::Interrupted { .. })),
                "{ended:?}"
            );
            tokio::time::sleep(pause).await;
            // It was alone at the end, so no answer clears it.
            let _ = client.ask(1_000).await;
        }
        let refused = client.ask(1_000).await.unwrap_err();
        assert!(
            matches!(refused, CallError::Quarantined { .. }),
            "{refused}"
        );
        runtime.finish().await;
    });
}

#[test]
fn sup_6_m16_a_call_in_flight_when_a_value_ends_itself_is_quarantined_the_second_time() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let site = Site::default();
        site.allow(true);
        let client = site.start(&runtime, GiveUp::Retry).await;
        for _ in 0..2 {
            let ending = async {
                tokio::time::sleep(millis(50)).await;
                site.ends.notify_one();
            };
            let (ended, ()) = tokio::join!(client.ask(1_000), ending);
            assert!(
                matches!(ended, Err(CallError::Interrupted { .. })),
                "{ended:?}"
            );
            tokio::time::sleep(millis(500)).await;
        }
        let refused = client.ask(1_000).await.unwrap_err();
        assert!(
            matches!(refused, CallError::Quarantined { .. }),
            "{refused}"
        );
        assert_eq!(client.ask(10).await.unwrap().value, 10);
        runtime.finish().await;
    });
}
