//! Dependencies without workers.

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallError, Health, NotExecutedReason, StartError};

use super::start;
use crate::scripted::{let_others_run, ms, pass};

#[test]
fn a_dependency_without_workers_is_a_dependency_like_others() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", |_| {}).await;
        assert_eq!(client.run(async || Ok::<_, String>(1)).await, Ok(1));
        let any = runtime.any_client("dep").unwrap();
        assert_eq!(any.run(async || Ok::<_, String>(2)).await, Ok(2));
        assert_eq!(any.name(), "dep");
        let status = client.status();
        assert_eq!(status.health, Health::Ok, "no worker is missed");
        assert_eq!((status.workers.len(), status.totals.primary), (0, 2));
        let again = runtime.dependency("dep").start().await;
        assert!(matches!(again, Err(StartError::AlreadyRegistered { .. })));
        assert!(runtime.any_client("other").is_none());
        runtime.finish().await;
    });
}

#[test]
fn sup_7_a_drain_waits_for_the_closures_of_a_dependency_without_workers() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", |settings| {
            settings.workers.drain = ms(1_000);
        })
        .await;
        let (before, other) = (runtime.clock().now(), client.clone());
        let accepted = actix::spawn(async move {
            let work = async || {
                pass(700).await;
                Ok::<_, String>("done")
            };
            other.run(work).await
        });
        let_others_run().await;
        let other = client.clone();
        let late = actix::spawn(async move {
            pass(100).await;
            other.run(async || Ok::<_, String>("late")).await
        });
        runtime.shutdown().await;
        assert_eq!(runtime.clock().now().since(before), ms(700));
        assert_eq!(accepted.await.unwrap(), Ok("done"));
        let error = late.await.unwrap().unwrap_err();
        let CallError::NotExecuted { reason, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(reason, NotExecutedReason::ShuttingDown);
        runtime.finish().await;
    });
}
