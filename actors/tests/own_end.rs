//! SUP-5 and SUP-7: a value that reports its own end, and one with an asynchronous `close`.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_actors::testing::{ScriptedError, TestRuntime, run_paused};
use breakerbox_actors::{CallContext, CallError, CallOptions, Client, Dependency, EventKind};
use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{DependencySettings, Executed, GiveUp, Intensity, QuarantineSettings};
use tokio::sync::Notify;
use tokio::time::sleep;

/// State shared by the test and all incarnations of one value.
#[derive(Default)]
struct World {
    lives: AtomicU32,
    /// Notified to end the current incarnation.
    end: Notify,
    /// True if the calls in flight fail by themselves at the end.
    calls_notice: AtomicBool,
    noticed: Notify,
    /// Duration of `close`, in milliseconds.
    goodbye: AtomicU32,
    said_goodbye: AtomicU32,
    dropped: AtomicU32,
    /// The call that is suspected of the next end, though it has left before.
    left: Mutex<Option<CallContext>>,
}

impl World {
    /// Ends the current incarnation once calls are in flight.
    async fn end_soon(&self) {
        sleep(Duration::from_millis(1)).await;
        self.end.notify_one();
    }
}

struct Mortal {
    world: Arc<World>,
}

impl Dependency for Mortal {
    type Request = Duration;
    type Response = u32;
    type Error = ScriptedError;

    async fn call(&self, work: Duration, call: &CallContext) -> Result<u32, ScriptedError> {
        if work.is_zero() {
            return Ok(self.world.lives.load(Ordering::Relaxed));
        }
        if work == HANGS {
            *self.world.left.lock().unwrap() = Some(call.clone());
        }
        tokio::select! {
            () = sleep(work) => Ok(self.world.lives.load(Ordering::Relaxed)),
            () = self.world.noticed.notified() => Err(ScriptedError::failure("the line is dead")),
        }
    }

    fn fingerprint(request: &Duration) -> Option<u64> {
        u64::try_from(request.as_millis()).ok()
    }

    async fn ended(&self) -> String {
        self.world.end.notified().await;
        if let Some(left) = self.world.left.lock().unwrap().take() {
            left.suspect();
        }
        if self.world.calls_notice.load(Ordering::Relaxed) {
            self.world.noticed.notify_waiters();
        }
        "it has gone".to_owned()
    }

    async fn close(&self) {
        let wait = self.world.goodbye.load(Ordering::Relaxed);
        // An end during `close` is no failure.
        self.world.end.notify_one();
        sleep(Duration::from_millis(wait.into())).await;
        self.world.said_goodbye.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.world.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

async fn start(
    runtime: &TestRuntime,
    world: &Arc<World>,
    change: impl FnOnce(&mut DependencySettings),
) -> Client<Mortal> {
    let world = Arc::clone(world);
    runtime
        .dependency("d")
        .configure(change)
        .workers(move || {
            world.lives.fetch_add(1, Ordering::Relaxed);
            Mortal {
                world: Arc::clone(&world),
            }
        })
        .start()
        .await
        .unwrap()
}

fn last_exit(client: &Client<Mortal>) -> Option<String> {
    let status = client.status();
    status.workers[0]
        .last_exit
        .as_ref()
        .map(ToString::to_string)
}

const LONG: Duration = Duration::from_secs(4);
const HANGS: Duration = Duration::from_secs(9);

#[test]
fn sup_6_one_end_is_one_crash_for_all_equal_calls_in_flight() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let world = Arc::<World>::default();
        let client = start(&runtime, &world, |settings| {
            settings.workers.quarantine = Some(QuarantineSettings {
                crashes: NonZeroU32::new(2).unwrap(),
                ..QuarantineSettings::default()
            });
        })
        .await;
        let end = world.end_soon();
        let (first, second, third, ()) =
            tokio::join!(client.ask(LONG), client.ask(LONG), client.ask(LONG), end);
        for cut in [first, second, third] {
            assert!(matches!(cut, Err(CallError::Interrupted { .. })), "{cut:?}");
        }
        assert_eq!(client.ask(LONG).await.unwrap().value, 2);
        runtime.finish().await;
    });
}

/// The call that answers ends in its first poll, on the worker's own thread.
#[test]
fn sup_6_an_answer_at_once_clears_a_call_that_was_one_of_several() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let world = Arc::<World>::default();
        let client = start(&runtime, &world, |settings| {
            settings.breaker.failure_threshold = None;
        })
        .await;
        let alike = || CallOptions {
            fingerprint: Some(7),
            ..CallOptions::default()
        };
        for life in 2..5 {
            let end = world.end_soon();
            let (cut, other, ()) =
                tokio::join!(client.ask_with(LONG, alike()), client.ask(LONG), end);
            assert!(matches!(cut, Err(CallError::Interrupted { .. })), "{cut:?}");
            assert!(other.is_err());
            sleep(Duration::from_secs(20)).await;
            let answer = client.ask_with(Duration::ZERO, alike()).await;
            assert_eq!(answer.unwrap().value, life);
            client.ask(Duration::from_millis(1)).await.unwrap();
            let cleared = CallOptions {
                fingerprint: Some(4000),
                ..CallOptions::default()
            };
            client.ask_with(Duration::ZERO, cleared).await.unwrap();
        }
        runtime.finish().await;
    });
}

#[test]
fn sup_6_m16_a_call_that_has_left_is_suspected_too_and_the_one_in_flight_is_not_alone() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let world = Arc::<World>::default();
        let client = start(&runtime, &world, |settings| {
            settings.breaker.failure_threshold = None;
        })
        .await;
        for life in 2..4 {
            let short = CallOptions {
                timeout: Some(Duration::from_millis(1)),
                ..CallOptions::default()
            };
            let late = client.ask_with(HANGS, short).await;
            assert!(matches!(late, Err(CallError::TimedOut { .. })), "{late:?}");
            let end = world.end_soon();
            let (cut, ()) = tokio::join!(client.ask(LONG), end);
            assert!(matches!(cut, Err(CallError::Interrupted { .. })), "{cut:?}");
            sleep(Duration::from_secs(20)).await;
            // Its answer clears it, as it was one of two.
            let alike = CallOptions {
                fingerprint: Some(4000),
                ..CallOptions::default()
            };
            let answer = client.ask_with(Duration::ZERO, alike).await;
            assert_eq!(answer.unwrap().value, life);
        }
        let refused = client.ask(HANGS).await;
        assert!(
            matches!(refused, Err(CallError::Quarantined { .. })),
            "{refused:?}"
        );
        runtime.finish().await;
    });
}

#[test]
fn sup_5_a_value_that_ends_by_itself_is_a_failed_life_and_a_restart() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let world = Arc::<World>::default();
        let client = start(&runtime, &world, |_| {}).await;
        let in_flight = client.ask(LONG);
        let next = async {
            sleep(Duration::from_millis(1)).await;
            world.end.notify_one();
            // The worker observes it in its next turn.
            sleep(Duration::from_millis(1)).await;
            client.ask(Duration::ZERO).await.unwrap().value
        };
        let (cut, served_by) = tokio::join!(in_flight, next);
        let cut = cut.unwrap_err();
        let expected = StopCause::Failed("it has gone".to_owned());
        assert!(matches!(&cut, CallError::Interrupted { cause, .. } if *cause == expected));
        assert_eq!(cut.executed(), Executed::Maybe);
        assert_eq!(served_by, 2, "the next incarnation serves the waiting call");
        assert_eq!(world.dropped.load(Ordering::Relaxed), 1);
        assert_eq!(
            world.said_goodbye.load(Ordering::Relaxed),
            0,
            "it was gone already"
        );
        assert_eq!(last_exit(&client).unwrap(), "failed: it has gone");
        assert_eq!(client.status().totals.failed, 1);
        runtime.finish().await;
    });
}

#[test]
fn call_1_what_the_calls_make_of_the_end_themselves_comes_first() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let world = Arc::<World>::default();
        world.calls_notice.store(true, Ordering::Relaxed);
        let client = start(&runtime, &world, |_| {}).await;
        let end = world.end_soon();
        let (cut, ()) = tokio::join!(client.ask(LONG), end);
        assert!(
            matches!(&cut, Err(CallError::Failed { error, .. }) if error.message == "the line is dead"),
            "{cut:?}"
        );
        runtime.finish().await;
    });
}

#[test]
fn sup_2_one_that_always_ends_is_given_up() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let world = Arc::<World>::default();
        start(&runtime, &world, |settings| {
            settings.workers.give_up = GiveUp::Park;
            settings.workers.intensity = Intensity {
                max: 3,
                within: Duration::from_secs(60),
            };
        })
        .await;
        let killer = Arc::clone(&world);
        let killing = actix::spawn(async move {
            loop {
                killer.end.notify_one();
                sleep(Duration::from_millis(10)).await;
            }
        });
        runtime
            .event(|event| matches!(&event.kind, EventKind::Parked { .. }))
            .await;
        killing.abort();
        assert_eq!(
            world.lives.load(Ordering::Relaxed),
            4,
            "one, and three more"
        );
        runtime.finish().await;
    });
}

#[test]
fn sup_7_an_orderly_stop_waits_for_the_goodbye_after_the_last_call() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let world = Arc::<World>::default();
        world.goodbye.store(100, Ordering::Relaxed);
        let client = start(&runtime, &world, |_| {}).await;
        let began = runtime.clock().now();
        let stop = async {
            sleep(Duration::from_millis(1)).await;
            runtime.shutdown().await;
        };
        let (answer, ()) = tokio::join!(client.ask(Duration::from_secs(1)), stop);
        answer.unwrap();
        let took = runtime.clock().now().since(began);
        assert!(took >= Duration::from_millis(1100), "{took:?}");
        assert_eq!(world.said_goodbye.load(Ordering::Relaxed), 1);
        assert_eq!(
            world.lives.load(Ordering::Relaxed),
            1,
            "its end is no failure"
        );
        assert_eq!(last_exit(&client).unwrap(), "shutdown");
        runtime.finish().await;
    });
}

/// A value that takes a second to close.
struct SlowToClose {
    closed: Arc<AtomicU32>,
}

impl Dependency for SlowToClose {
    type Request = Duration;
    type Response = ();
    type Error = ScriptedError;

    async fn call(&self, work: Duration, _: &CallContext) -> Result<(), ScriptedError> {
        sleep(work).await;
        Ok(())
    }

    async fn close(&self) {
        sleep(Duration::from_secs(1)).await;
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn sup_7_at_the_end_of_the_runtime_all_values_are_closed_at_the_same_time() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let closed = Arc::<AtomicU32>::default();
        let mut clients = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let closed = Arc::clone(&closed);
            let workers = move || SlowToClose {
                closed: Arc::clone(&closed),
            };
            let started = runtime.dependency(name).workers(workers).start().await;
            clients.push(started.unwrap());
        }
        let began = runtime.clock().now();
        let stop = async {
            sleep(Duration::from_millis(1)).await;
            runtime.shutdown().await;
        };
        let (answer, ()) = tokio::join!(clients[1].ask(Duration::from_secs(1)), stop);
        answer.unwrap();
        let took = runtime.clock().now().since(began);
        // None before the last call has ended, and then all.
        assert!(took >= Duration::from_secs(2), "{took:?}");
        assert!(took < Duration::from_millis(2_500), "{took:?}");
        let workers: usize = clients.iter().map(|one| one.status().workers.len()).sum();
        assert_eq!(closed.load(Ordering::Relaxed) as usize, workers);
        runtime.finish().await;
    });
}

#[test]
fn sup_7_a_goodbye_has_no_longer_than_the_drain() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let world = Arc::<World>::default();
        world.goodbye.store(3_600_000, Ordering::Relaxed);
        let client = start(&runtime, &world, |settings| {
            settings.workers.count = NonZeroU32::MIN;
            settings.workers.drain = Duration::from_secs(1);
        })
        .await;
        let began = runtime.clock().now();
        runtime.shutdown().await;
        let took = runtime.clock().now().since(began);
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(world.said_goodbye.load(Ordering::Relaxed), 0);
        assert_eq!(world.dropped.load(Ordering::Relaxed), 1);
        assert_eq!(last_exit(&client).unwrap(), "killed");
        runtime.finish().await;
    });
}
