//! Jobs that arrive after the end of a worker. A client checks the worker's health first, so only a
//! test inside the crate can send one so late.

use crate::error::{CallError, NotExecutedReason};
use crate::supervisor::DriverQueue;
use crate::testing::{Reaction, Script, TestRuntime, run_paused};

#[test]
fn call_1_work_for_a_closed_queue_is_answered_at_once_and_not_executed() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|request: u32, _| Reaction::Answer(request));
        let worker = script.clone();
        let new = runtime.dependency("d");
        let started = new.workers(move || worker.dependency()).start().await;
        let client = started.expect("it starts");
        client.core.workers[0].queue.close();
        let begun = runtime.clock().now();
        let error = client.ask(1).await.expect_err("no worker takes it");
        let reason = match error {
            CallError::NotExecuted { reason, .. } => reason,
            other => panic!("{other}"),
        };
        assert_eq!(reason, NotExecutedReason::Restarting);
        assert_eq!(runtime.clock().now(), begun);
        assert_eq!(script.calls(), 0);
        client.core.workers[0].queue.open();
        assert_eq!(client.ask(2).await.expect("it is open again").value, 2);
        runtime.finish().await;
    });
}
