//! The runtime that a function under the attribute uses, with and without a handle.

use std::sync::{Arc, Barrier};

use breakerbox::protected;
use breakerbox_actors::testing::{Scripted, TestRuntime, run_paused};
use breakerbox_actors::{
    AnyClient, CallError, Client, Closures, NotExecutedReason, Runtime, RuntimeSettings,
};
use breakerbox_policy::Executed;

use super::start;
use crate::scripted::{Bench, Do, ms, opens_after};

#[protected("dep", fallback = stand_in)]
async fn told(fails: bool) -> Result<&'static str, &'static str> {
    if fails { Err("own") } else { Ok("primary") }
}

async fn stand_in(fails: bool) -> Result<&'static str, &'static str> {
    if fails {
        Err("it fails too")
    } else {
        Ok("fallback")
    }
}

fn absent(result: Result<&'static str, CallError<&'static str>>) -> NotExecutedReason {
    match result.unwrap_err() {
        CallError::NotExecuted {
            reason, dependency, ..
        } if &*dependency == "dep" => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn without_a_runtime_the_attribute_gives_an_error() {
    run_paused(async || {
        let error = told(false).await.unwrap_err();
        assert_eq!(error.executed(), Executed::No);
        assert_eq!(
            error.to_string(),
            "dep was not called: there is no runtime here; install or enter one, or name it in \
             the attribute"
        );
        let runtime = TestRuntime::start().await;
        {
            let _here = runtime.enter();
            assert_eq!(absent(told(false).await), NotExecutedReason::NotStarted);
            let _client = start(&runtime, "dep", |_| {}).await;
            assert_eq!(told(false).await, Ok("primary"));
        }
        assert_eq!(absent(told(false).await), NotExecutedReason::NoRuntime);
        let _here = runtime.enter();
        runtime.finish().await;
        assert_eq!(
            absent(told(false).await),
            NotExecutedReason::NoRuntime,
            "it has gone"
        );
    });
}

#[test]
fn scopes_lie_within_each_other_whatever_order_they_end_in() {
    run_paused(async || {
        let (one, other) = (TestRuntime::start().await, TestRuntime::start().await);
        let first = start(&one, "dep", |_| {}).await;
        let second = start(&other, "dep", |_| {}).await;
        let calls = |client: &Client<Closures>| client.status().totals.submitted;
        let outer = one.enter();
        let inner = other.enter();
        told(false).await.unwrap();
        assert_eq!((calls(&first), calls(&second)), (0, 1));
        one.scope(told(false)).await.unwrap();
        assert_eq!((calls(&first), calls(&second)), (1, 1));
        drop(outer);
        told(false).await.unwrap();
        assert_eq!((calls(&first), calls(&second)), (1, 2));
        let again = one.enter();
        drop(inner);
        told(false).await.unwrap();
        assert_eq!((calls(&first), calls(&second)), (2, 2));
        drop(again);
        assert_eq!(absent(told(false).await), NotExecutedReason::NoRuntime);
        one.finish().await;
        other.finish().await;
    });
}

#[test]
fn runtimes_of_tests_side_by_side_do_not_mix() {
    let together = Arc::new(Barrier::new(2));
    let test = |opens: bool| {
        let together = Arc::clone(&together);
        std::thread::spawn(move || {
            run_paused(async || {
                let runtime = TestRuntime::start().await;
                let client = start(&runtime, "dep", opens_after(1, ms(60_000))).await;
                let _here = runtime.enter();
                for _ in 0..100 {
                    together.wait();
                    let _ = told(opens).await;
                    assert_eq!(told(false).await.unwrap() == "fallback", opens);
                }
                assert_eq!(client.status().totals.submitted, 200);
                assert_eq!(client.status().totals.primary, if opens { 0 } else { 200 });
                runtime.finish().await;
            });
        })
    };
    let tests = [test(true), test(false)];
    for test in tests {
        test.join().expect("a test that does not mix");
    }
}

#[test]
fn a_scope_goes_with_its_future_from_thread_to_thread() {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let client = runtime.dependency("dep").start().await.unwrap();
        let calls = (0..32).map(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move {
                let twice = async {
                    told(false).await.unwrap();
                    tokio::task::yield_now().await;
                    told(false).await
                };
                runtime.scope(twice).await
            })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), Ok("primary"));
        }
        assert_eq!(client.status().totals.primary, 64);
        runtime.shutdown().await;
    });
}

#[test]
fn a_dependency_that_was_taken_out_comes_back_by_its_name() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let _first = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        told(false).await.unwrap();
        runtime.remove("dep", "test").await;
        assert_eq!(absent(told(false).await), NotExecutedReason::NotStarted);
        let second = start(&runtime, "dep", |_| {}).await;
        told(false).await.unwrap();
        assert_eq!(second.status().totals.primary, 1);
        runtime.finish().await;
    });
}

struct Agent {
    runtime: Runtime,
    workers: Client<Scripted<Do, u32>>,
    closures: AnyClient,
}

impl Agent {
    #[protected("dep", runtime = self.runtime)]
    async fn by_runtime(&self) -> Result<(), String> {
        Ok(())
    }

    #[protected(client = self.workers)]
    async fn by_client(&self) -> Result<(), String> {
        Ok(())
    }

    #[protected(client = self.closures, timeout = "1s")]
    async fn by_any_client(&self) -> Result<(), String> {
        std::future::pending().await
    }
}

#[test]
fn the_attribute_takes_a_handle_that_is_given_to_it() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let agent = Agent {
            runtime: bench.runtime.clone(),
            workers: bench.client.clone(),
            closures: bench.client.any(),
        };
        agent.by_runtime().await.unwrap();
        agent.by_client().await.unwrap();
        let error = agent.by_any_client().await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        bench.ask(Do::Answer(1)).await.unwrap();
        let totals = bench.status().totals;
        assert_eq!((totals.primary, totals.failed), (3, 1), "one dependency");
        drop(agent);
        bench.finish().await;
    });
}
