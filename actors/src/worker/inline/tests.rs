//! Inline execution as observed by callers on the worker's own thread.

use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;

use crate::client::Client;
use crate::dependency::{CallContext, Dependency};
use crate::error::CallError;
use crate::supervisor::Condition;
use crate::testing::{Reaction, Script, Scripted, TestRuntime, run_paused};

/// A scripted dependency with a worker on the test's thread, and its client.
async fn started(
    runtime: &TestRuntime,
    answer: impl Fn(u32) -> Reaction<u32> + Send + Sync + 'static,
) -> Client<Scripted<u32, u32>> {
    let script = Script::new(move |request: u32, _| answer(request));
    let new = runtime.dependency("d");
    let started = new.workers(move || script.dependency()).start().await;
    started.expect("it starts")
}

#[test]
fn a_call_that_ends_at_once_ends_in_its_callers_turn() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = started(&runtime, Reaction::Answer).await;
        let answer = client.ask(5).now_or_never().expect("in its first turn");
        assert_eq!(answer.expect("an answer").value, 5);
        runtime.finish().await;
    });
}

#[test]
fn a_caller_that_asks_in_a_loop_lets_others_have_their_turns() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = started(&runtime, Reaction::Answer).await;
        let others = tokio::task::spawn_local(async {});
        let mut calls = 0;
        while !others.is_finished() {
            client.ask(1).await.expect("an answer");
            calls += 1;
            assert!(calls < 10_000, "no other task has had a turn");
        }
        runtime.finish().await;
    });
}

/// Calls that wait for the worker's next turn go first.
#[test]
fn a_call_does_not_overtake_what_waits_in_the_queue() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = started(&runtime, Reaction::Answer).await;
        let inline = &client.core.workers[0].inline;
        let inline = || inline.executor::<Scripted<u32, u32>>();
        let free = inline().expect("no call waits");
        free.set_backlog(1);
        let mut second = Box::pin(client.ask(2));
        assert!(second.as_mut().now_or_never().is_none(), "it waits too");
        assert!(!client.core.workers[0].queue.is_idle());
        let mut third = Box::pin(client.ask(3));
        assert!(third.as_mut().now_or_never().is_none());
        drop(free);
        assert_eq!(second.await.expect("an answer").value, 2);
        assert_eq!(third.await.expect("an answer").value, 3);
        assert!(inline().is_some(), "free again");
        runtime.finish().await;
    });
}

/// The crash counts as the worker's: the driver marks it down before the caller gets the error.
#[test]
fn sup_5_a_panic_in_the_callers_turn_is_the_workers_crash() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = started(&runtime, |request| match request {
            0 => Reaction::Panic("told to"),
            request => Reaction::Answer(request),
        })
        .await;
        let mut poison = Box::pin(client.ask(0));
        assert!(poison.as_mut().now_or_never().is_none(), "not yet");
        let mut next = Box::pin(client.ask(1));
        assert!(next.as_mut().now_or_never().is_none(), "it is busy");
        let error = poison.await.expect_err("a crash");
        assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        let health = &client.core.workers[0].mail.health;
        let life = (health.condition(), health.incarnation());
        assert_ne!(life, (Condition::Running, 1), "marked down before");
        assert_eq!(next.await.expect("by the next incarnation").value, 1);
        assert_eq!(client.status().workers[0].restarts, 1);
        runtime.finish().await;
    });
}

/// Calls itself to the requested depth.
struct Deep(Arc<OnceLock<Client<Deep>>>);

impl Dependency for Deep {
    type Request = u32;
    type Response = u32;
    type Error = String;

    async fn call(&self, depth: u32, _: &CallContext) -> Result<u32, String> {
        let client = self.0.get().expect("it is set before the first call");
        if depth == 0 {
            return Ok(0);
        }
        let answer = Box::pin(client.ask(depth - 1)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        Ok(answer.value + 1)
    }
}

#[test]
fn a_dependency_that_calls_itself_keeps_the_stack_flat() {
    const DEPTH: u32 = 20_000;
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let own = Arc::new(OnceLock::new());
        let given = Arc::clone(&own);
        let new = runtime.dependency("d").configure(|settings| {
            settings.bulkhead.max_concurrent = (2 * DEPTH).try_into().expect("not zero");
        });
        let started = new.workers(move || Deep(Arc::clone(&given))).start().await;
        let client = started.expect("it starts");
        assert!(own.set(client.clone()).is_ok());
        let answer = client.ask(DEPTH).await.expect("an answer");
        assert_eq!(answer.value, DEPTH);
        drop(own);
        runtime.finish().await;
    });
}
