//! OPS-1: a listener may query the runtime, since no lock is held while it runs.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::mpsc;
use std::time::Duration;

use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_policy::BreakerCommand;

#[test]
fn ops_1_a_listener_may_look_at_the_status() {
    let (done, waits) = mpsc::channel();
    std::thread::spawn(move || {
        run_paused(async || {
            let runtime = TestRuntime::start().await;
            let script = Script::new(|(), _| Reaction::Answer(()));
            let worker = script.clone();
            let client = runtime
                .dependency("d")
                .workers(move || worker.dependency())
                .start()
                .await
                .unwrap();
            let observer = (*runtime).clone();
            runtime.on_event(move |_| {
                observer.status("d").unwrap();
            });
            let reason = "test".to_owned();
            client
                .operate(BreakerCommand::Trip { reason, wait: None })
                .await
                .unwrap();
            runtime.finish().await;
        });
        done.send(()).unwrap();
    });
    waits
        .recv_timeout(Duration::from_secs(10))
        .expect("no lock is held while a listener runs");
}
