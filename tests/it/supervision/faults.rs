//! Faults of users' actors and workers in every place (rule SUP-8).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use actix::{Actor, Context};
use breakerbox::{Child, StartError};
use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_policy::GiveUp;
use breakerbox_policy::supervision::{CommandError, Shutdown, StopCause};

use super::{Behave, Log, MOMENT, Probe, probe};

#[test]
fn sup_8_queued_messages_outlive_a_panic_under_the_same_address() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let child = runtime.supervise(probe("a", &log)).await.unwrap();
        let addr = child.addr();
        let (panicked, one, two) = tokio::join!(
            addr.send(Behave::Panic),
            addr.send(Behave::Answer(1)),
            addr.send(Behave::Answer(2)),
        );
        assert!(panicked.is_err());
        assert_eq!((one, two), (Ok(1), Ok(2)));
        assert_eq!(child.incarnation(), 2);
        assert_eq!(
            log.take(),
            [
                "a made",
                "a started",
                "a dropped",
                "a made",
                "a started",
                "a answers 1",
                "a answers 2"
            ]
        );
        runtime.finish().await;
    });
}

#[test]
fn sup_8_a_panic_while_a_crashed_actor_is_dropped_ends_nothing() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let own = log.clone();
        let twice = Child::temporary("a", move || {
            let mut probe = Probe::new("a", &own);
            probe.panics_in_drop = true;
            probe
        });
        let child = runtime.supervise(twice).await.unwrap();
        assert!(child.addr().send(Behave::Panic).await.is_err());
        let StopCause::Crashed(panic) = runtime.watch("a").await.cause else {
            panic!("not crashed");
        };
        assert_eq!(panic.message, "a was told to panic");
        assert_eq!(panic.also.unwrap().message, "a panics in drop");
        runtime.finish().await;
    });
}

#[test]
fn sup_8_a_stop_in_a_handler_is_a_normal_end_and_failed_is_not() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let own = log.clone();
        let child = Child::transient("a", move || Probe::new("a", &own));
        let child = runtime.supervise(child).await.unwrap();
        assert_eq!(child.addr().send(Behave::Fail).await, Ok(1));
        assert_eq!(child.addr().send(Behave::Answer(1)).await, Ok(1));
        assert_eq!(child.incarnation(), 2, "a failed one is started again");
        let watch = runtime.watch("a");
        assert_eq!(child.addr().send(Behave::Stop).await, Ok(2));
        assert_eq!(watch.await.cause, StopCause::Normal);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!child.is_running());
        assert_eq!(log.count("a made"), 2);
        runtime.finish().await;
    });
}

/// Panics in `started` so many times.
struct Shy(Arc<AtomicU32>);

impl Actor for Shy {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        let left = self.0.load(Ordering::Relaxed);
        if left > 0 {
            self.0.store(left - 1, Ordering::Relaxed);
            panic!("too shy to start");
        }
    }
}

#[test]
fn sup_8_a_panic_in_started_is_a_failed_start() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let shyness = Arc::new(AtomicU32::new(1));
        let own = Arc::clone(&shyness);
        let shy = move || {
            Child::permanent("shy", {
                let own = Arc::clone(&own);
                move || Shy(Arc::clone(&own))
            })
        };
        let error = runtime.supervise(shy()).await.unwrap_err();
        let StartError::Failed {
            child,
            cause: StopCause::Crashed(panic),
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((&*child, &*panic.message), ("shy", "too shy to start"));
        // The failed child is removed, so its name is free.
        let child = runtime.supervise(shy()).await.unwrap();
        assert!(child.is_running());
        runtime.finish().await;
    });
}

#[test]
fn sup_8_a_factory_that_panics_is_a_failed_start() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let made = Arc::new(AtomicU32::new(0));
        let log = Log::default();
        let (own, count) = (log.clone(), Arc::clone(&made));
        let child = Child::permanent("a", move || {
            // The first attempt to make the second incarnation panics.
            assert!(count.fetch_add(1, Ordering::Relaxed) != 1, "no second life");
            Probe::new("a", &own)
        });
        let child = runtime.supervise(child).await.unwrap();
        let (panicked, answer) = tokio::join!(
            child.addr().send(Behave::Panic),
            child.addr().send(Behave::Answer(1)),
        );
        assert!(panicked.is_err());
        assert_eq!(answer, Ok(1), "served by the third");
        assert_eq!(made.load(Ordering::Relaxed), 3);
        runtime.finish().await;
    });
}

#[test]
fn sup_8_a_worker_factory_that_fails_or_panics_rolls_the_dependency_back() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|request: u32, _| Reaction::Answer(request));
        let fails = || Err::<breakerbox_actors::testing::Scripted<u32, u32>, _>("no key");
        let error = runtime.dependency("d").workers(fails).start().await;
        let Err(StartError::Failed { cause, .. }) = error else {
            panic!("it started");
        };
        assert!(cause.to_string().contains("no key"), "{cause}");
        let panics = || -> breakerbox_actors::testing::Scripted<u32, u32> { panic!("no memory") };
        let error = runtime.dependency("d").workers(panics).start().await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains("no memory"), "{text}");
        // The name is free again.
        let client = runtime.dependency("d").workers(move || script.dependency());
        let client = client.start().await.unwrap();
        assert_eq!(client.ask(1).await.unwrap().value, 1);
        runtime.finish().await;
    });
}

#[test]
fn sup_8_a_worker_that_hangs_at_its_start_can_be_stopped() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let hangs = || {
            std::future::pending::<Result<breakerbox_actors::testing::Scripted<u32, u32>, String>>()
        };
        let start = runtime.dependency("d").workers(hangs).start();
        let start = tokio::task::spawn_local(start);
        tokio::time::sleep(MOMENT).await;
        let begun = runtime.clock().now();
        runtime.root().terminate("d").await.unwrap();
        let error = start.await.unwrap().unwrap_err();
        assert!(matches!(error, StartError::Failed { .. }), "{error}");
        assert_eq!(runtime.clock().now(), begun, "no caller waits for it");
        runtime.finish().await;
    });
}

#[test]
fn sup_8_an_actor_that_does_not_heed_its_stop_is_killed() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let child = probe("a", &log).shutdown(Shutdown::Within(Duration::from_millis(200)));
        let child = runtime.supervise(child).await.unwrap();
        child.addr().send(Behave::RefuseToStop).await.unwrap();
        let (watch, begun) = (runtime.watch("a"), runtime.clock().now());
        runtime.root().terminate("a").await.unwrap();
        let took = runtime.clock().now().since(begun);
        assert_eq!(took, Duration::from_millis(200));
        assert_eq!(watch.await.cause, StopCause::Killed);
        assert_eq!(log.count("a stopped"), 0);
        assert_eq!(log.count("a dropped"), 1);
        runtime.finish().await;
    });
}

#[test]
fn sup_4_a_parked_actor_is_revived_by_hand() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let never = breakerbox_policy::Intensity {
            max: 0,
            within: Duration::from_secs(1),
        };
        let child = probe("a", &log).give_up(GiveUp::Park).intensity(never);
        let child = runtime.supervise(child).await.unwrap();
        let sibling = runtime.supervise(probe("b", &log)).await.unwrap();
        let watch = runtime.watch("a");
        assert!(child.addr().send(Behave::Panic).await.is_err());
        assert!(matches!(watch.await.cause, StopCause::Crashed(_)));
        assert!(!child.is_running() && sibling.is_running());
        runtime.root().restart("a").await.unwrap();
        assert_eq!(child.addr().send(Behave::Answer(1)).await, Ok(1));
        let again = runtime.root().restart("a").await;
        assert_eq!(again, Err(CommandError::Running));
        runtime.finish().await;
    });
}
