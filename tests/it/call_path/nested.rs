//! BRK-6: calls of one breaker within one another. After an outage they recover: a call within a
//! probe goes under that probe's permit.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallContext, CallError, CallOptions, Client, Dependency};
use breakerbox_policy::{Class, State};
use futures_util::StreamExt as _;

use crate::scripted::{Bench, Do, ms, opens_after, pass};

/// Asks itself, or another dependency of its kind, as often as it is told; the last one fails if it
/// is told to.
#[derive(Clone, Default)]
struct NestedAsker(Arc<OnceLock<Client<NestedAsker>>>);

impl Dependency for NestedAsker {
    type Request = (u32, bool);
    type Response = u32;
    type Error = String;

    async fn call(&self, (depth, bad): (u32, bool), _: &CallContext) -> Result<u32, String> {
        if depth == 0 {
            return if bad { Err("sick".to_owned()) } else { Ok(0) };
        }
        // A wait, so that the call is not polled in its caller's stack alone.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let next = self.0.get().expect("a client");
        let answer = next.ask((depth - 1, bad)).await;
        answer
            .map(|answer| answer.value + 1)
            .map_err(|error| error.to_string())
    }
}

async fn start(runtime: &TestRuntime, name: &str) -> (NestedAsker, Client<NestedAsker>) {
    let asker = NestedAsker::default();
    let made = asker.clone();
    let dependency = runtime
        .dependency(name)
        .configure(opens_after(2, ms(1_000)));
    let client = dependency
        .workers(move || made.clone())
        .start()
        .await
        .unwrap();
    (asker, client)
}

#[test]
fn brk_6_a_dependency_that_asks_itself_recovers_from_an_outage() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (asker, client) = start(&runtime, "d").await;
        let _ = asker.0.set(client.clone());
        assert_eq!(client.ask((2, false)).await.unwrap().value, 2);
        while client.state() == "closed" {
            client.ask((2, true)).await.unwrap_err();
        }
        pass(1_000).await;
        let answer = client.ask((2, false)).await.unwrap();
        assert_eq!((answer.value, client.state()), (2, "closed"));
        runtime.finish().await;
    });
}

#[test]
fn brk_6_a_probe_that_comes_back_by_another_dependency_recovers() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (a, to_a) = start(&runtime, "a").await;
        let (b, to_b) = start(&runtime, "b").await;
        let _ = (a.0.set(to_b.clone()), b.0.set(to_a.clone()));
        while to_a.state() == "closed" || to_b.state() == "closed" {
            let _ = (to_a.ask((0, true)).await, to_b.ask((0, true)).await);
        }
        pass(1_000).await;
        let answer = to_a.ask((4, false)).await.unwrap();
        assert_eq!(answer.value, 4);
        assert_eq!((to_a.state(), to_b.state()), ("closed", "closed"));
        runtime.finish().await;
    });
}

#[test]
fn brk_6_a_failed_call_within_a_probe_fails_it_once() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (asker, client) = start(&runtime, "d").await;
        let _ = asker.0.set(client.clone());
        while client.state() == "closed" {
            client.ask((0, true)).await.unwrap_err();
        }
        pass(1_000).await;
        let before = client.status().tally;
        client.ask((2, true)).await.unwrap_err();
        let after = client.status().tally;
        assert_eq!(client.state(), "open");
        assert_eq!(after.failures - before.failures, 1);
        assert_eq!(after.recorded - before.recorded, 1);
        runtime.finish().await;
    });
}

#[test]
fn brk_6_closures_and_streams_within_a_probe_go_under_it() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(1_000))).await;
        let client = &bench.client;
        let judge = |result: &Result<u32, String>| match result {
            Ok(_) => Class::Success.into(),
            Err(_) => Class::Failure.into(),
        };
        for outer_streams in [false, true] {
            bench.ask(Do::Fail).await.unwrap_err();
            pass(4_000).await;
            assert_eq!(bench.state(), State::HalfOpen);
            let inner = async || {
                let run = client.run_with(CallOptions::default(), judge, async || Ok(1));
                run.await
                    .map_err(|error: CallError<String>| error.to_string())
            };
            if outer_streams {
                let open = async || Ok(Box::pin(futures_util::stream::once(inner())));
                let mut stream = client.run_stream(open).await.unwrap();
                assert!(matches!(stream.next().await, Some(Ok(1))));
                assert!(stream.next().await.is_none());
            } else {
                let told = client.run_with(CallOptions::default(), judge, inner);
                assert_eq!(told.await.unwrap(), 1);
            }
            assert_eq!(bench.state(), State::Closed, "{outer_streams}");
        }
        bench.finish().await;
    });
}

#[test]
fn brk_4_a_call_beside_a_probe_is_refused() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(1_000))).await;
        bench.ask(Do::Fail).await.unwrap_err();
        pass(1_000).await;
        let client = bench.client.clone();
        let probe =
            tokio::task::spawn_local(
                async move { client.ask(Do::Answer(1).after(500)).await.is_ok() },
            );
        pass(100).await;
        let beside = bench.ask(Do::Answer(1)).await;
        assert!(matches!(beside, Err(CallError::Open(_))));
        pass(500).await;
        assert!(probe.await.unwrap());
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}
