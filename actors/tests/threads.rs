//! SUP-7: a runtime's threads end with it, and a driver's own thread ends with the driver. A
//! blocked thread does not delay callers on another.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::RefCell;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use breakerbox_actors::testing::ScriptedError;
use breakerbox_actors::{
    CallContext, CallError, CallOptions, Child, Dependency, Runtime, RuntimeSettings,
};
use breakerbox_policy::{BreakerCommand, Placement};

/// Sends a message when the thread that holds it ends.
struct Farewell(Sender<()>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

thread_local! {
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

struct Quick;

impl Dependency for Quick {
    type Request = bool;
    type Response = ();
    type Error = ScriptedError;

    async fn call(&self, block: bool, _: &CallContext) -> Result<(), ScriptedError> {
        if block {
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }
}

async fn dedicated(runtime: &Runtime, ends: &Sender<()>) -> breakerbox_actors::Client<Quick> {
    let ends = std::sync::Mutex::new(ends.clone());
    runtime
        .dependency("d")
        .configure(|settings| {
            settings.workers.placement = Placement::Dedicated;
            settings.workers.stuck_after = Some(Duration::from_millis(50));
        })
        .workers(move || {
            let farewell = Farewell(ends.lock().unwrap().clone());
            FAREWELL.with(|one| *one.borrow_mut() = Some(farewell));
            Quick
        })
        .start()
        .await
        .unwrap()
}

#[test]
fn sup_7_a_dropped_runtime_ends_its_threads() {
    let (ends, ended) = channel();
    actix::System::new().block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let client = dedicated(&runtime, &ends).await;
        client.ask(false).await.unwrap();
        drop(runtime);
        tokio::time::sleep(Duration::from_millis(100)).await;
        ended
            .recv_timeout(Duration::from_secs(5))
            .expect("the worker's thread ends");
    });
}

#[test]
fn sup_7_a_thread_that_was_given_up_ends_when_it_comes_back() {
    let (ends, ended) = channel();
    actix::System::new().block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let client = dedicated(&runtime, &ends).await;
        client.ask(true).await.unwrap_err();
        client.ask(false).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        ended
            .recv_timeout(Duration::from_secs(5))
            .expect("the first worker's thread ends");
        runtime.shutdown().await;
    });
}

/// An actor that blocks its thread.
struct Blocker;

impl actix::Actor for Blocker {
    type Context = actix::Context<Self>;
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Block;

impl actix::Handler<Block> for Blocker {
    type Result = ();

    fn handle(&mut self, _: Block, _: &mut actix::Context<Self>) {
        std::thread::sleep(Duration::from_secs(2));
    }
}

#[tokio::test]
async fn lim_2_a_deadline_holds_while_the_breakers_thread_is_blocked() {
    let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
    let client = runtime
        .dependency("d")
        .workers(|| Quick)
        .start()
        .await
        .unwrap();
    let trip = BreakerCommand::Trip {
        reason: "test".to_owned(),
        wait: Some(Duration::from_millis(1)),
    };
    client.operate(trip).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let blocker = Child::permanent("blocker", || Blocker);
    let blocker = runtime.supervise(blocker).await.unwrap();
    let blocked = tokio::spawn(blocker.addr().send(Block));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = runtime.clock().now();
    let hasty = CallOptions {
        timeout: Some(Duration::from_millis(100)),
        ..CallOptions::default()
    };
    let late = client.ask_with(false, hasty).await;
    assert!(matches!(late, Err(CallError::TimedOut { .. })), "{late:?}");
    let waited = runtime.clock().now().since(began);
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    blocked.await.unwrap().unwrap();
    runtime.shutdown().await;
}
