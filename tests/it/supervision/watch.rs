//! Death watch (rule SUP-5).

use std::time::Duration;

use breakerbox::{Child, Group};
use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_policy::supervision::StopCause;

use super::{Behave, Log, Probe, probe};

#[test]
fn sup_5_a_dead_child_and_an_unknown_one_answer_at_once() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let own = log.clone();
        let child = Child::temporary("a", move || Probe::new("a", &own));
        let child = runtime.supervise(child).await.unwrap();
        assert!(child.addr().send(Behave::Panic).await.is_err());
        let cause = runtime.watch("a").await.cause;
        let StopCause::Crashed(panic) = &cause else {
            panic!("{cause}");
        };
        assert_eq!(panic.message, "a was told to panic");
        assert!(panic.location.as_ref().unwrap().contains("actors.rs"));
        let begun = runtime.clock().now();
        assert_eq!(runtime.watch("a").await.cause, cause);
        let nobody = runtime.watch("nobody").await;
        assert_eq!((nobody.incarnation, nobody.cause), (0, StopCause::Lost));
        assert_eq!(runtime.clock().now(), begun);
        runtime.finish().await;
    });
}

#[test]
fn sup_5_a_restart_is_no_death() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let child = runtime.supervise(probe("a", &log)).await.unwrap();
        let mut watch = runtime.watch("a");
        assert!(child.addr().send(Behave::Panic).await.is_err());
        assert_eq!(child.addr().send(Behave::Answer(1)).await, Ok(1));
        let waited = tokio::time::timeout(Duration::from_secs(60), &mut watch).await;
        assert!(waited.is_err(), "it lives");
        runtime.root().terminate("a").await.unwrap();
        let notice = watch.await;
        assert_eq!((notice.incarnation, notice.cause), (2, StopCause::Shutdown));
        runtime.finish().await;
    });
}

#[test]
fn sup_5_each_watcher_is_told_once_and_one_that_left_is_not() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let group = Group::new("g").child(probe("a", &log));
        let group = runtime.supervise_group(group).await.unwrap();
        drop(runtime.watch("g/a"));
        let (one, two) = (runtime.watch("g/a"), runtime.watch("g/a"));
        group.terminate("a").await.unwrap();
        assert_eq!(one.await, two.await);
        // After the restart, new watches see the child alive.
        group.restart("a").await.unwrap();
        let watch = runtime.watch("g/a");
        group.terminate("a").await.unwrap();
        assert_eq!(watch.await.incarnation, 2);
        runtime.finish().await;
    });
}

#[test]
fn sup_5_the_end_of_a_whole_group_is_told_for_each_of_it() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let inner = Group::new("inner").child(probe("a", &log));
        let outer = Group::new("outer").child(probe("b", &log)).group(inner);
        runtime.supervise_group(outer).await.unwrap();
        let names = ["outer/inner/a", "outer/inner", "outer/b", "outer"];
        let watches = names.map(|name| runtime.watch(name));
        runtime.root().terminate("outer").await.unwrap();
        for (name, watch) in names.into_iter().zip(watches) {
            let notice = watch.await;
            assert_eq!((&*notice.name, notice.cause), (name, StopCause::Shutdown));
        }
        runtime.finish().await;
    });
}

#[test]
fn sup_5_the_end_of_a_former_dependency_is_no_death_of_the_one_in_its_place() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|request: u32, _| Reaction::Answer(request));
        let new = || {
            let script = script.clone();
            runtime.dependency("d").workers(move || script.dependency())
        };
        new().start().await.unwrap();
        let names = ["d", "d/worker-1"];
        let watches = names.map(|name| runtime.watch(name));
        let next = new().replacing().start().await.unwrap();
        runtime.end_former("d", "a test").unwrap().end().await;
        let mut watches = watches.map(Box::pin);
        for watch in &mut watches {
            assert!(futures_util::poll!(watch).is_pending(), "it lives on");
        }
        next.ask(1).await.unwrap();
        // A removal is the end of both.
        assert!(runtime.remove("d", "a test").await);
        for (name, watch) in names.into_iter().zip(watches) {
            let notice = watch.await;
            assert_eq!((&*notice.name, notice.cause), (name, StopCause::Shutdown));
        }
        runtime.finish().await;
    });
}
