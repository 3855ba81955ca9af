//! Groups: strategies, names, nesting and escalation.

use std::time::Duration;

use breakerbox::{EventKind, Group};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::Intensity;
use breakerbox_policy::supervision::{ChildState, CommandError, Shutdown, StopCause, Strategy};

use super::{Behave, Log, MOMENT, probe};

/// Found by the replay of scenarios: the new child's body replaced the running one.
#[test]
fn sup_1_a_newcomer_of_a_taken_name_harms_nobody() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let first = runtime.supervise(probe("a", &log)).await.unwrap();
        let group = runtime.root();
        let second = group.add(probe("a", &Log::default())).await;
        assert_eq!(second.unwrap_err(), CommandError::AlreadyStarted);
        assert_eq!(first.addr().send(Behave::Answer(1)).await, Ok(1));
        assert_eq!(log.count("a dropped"), 0);
        assert_eq!(first.incarnation(), 1);
        runtime.finish().await;
    });
}

/// Found in review: a child added during a restart of the group was forgotten, and the group waited
/// for its start for ever.
#[test]
fn sup_1_a_child_that_is_added_during_a_round_starts_after_it() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let a = probe("a", &log);
        let slow = probe("b", &log).shutdown(Shutdown::Within(Duration::from_millis(100)));
        let (a_addr, b_addr) = (a.addr(), slow.addr());
        let group = Group::new("g").strategy(Strategy::OneForAll);
        let group = runtime
            .supervise_group(group.child(a).child(slow))
            .await
            .unwrap();
        // b refuses to stop until it is killed, so the group's restart takes 100 ms.
        b_addr.try_send(Behave::RefuseToStop).unwrap();
        a_addr.try_send(Behave::Panic).unwrap();
        tokio::time::sleep(MOMENT).await;
        let states = group.children().await;
        assert_eq!(states[1].state, ChildState::Stopping);
        let added = group.add(probe("c", &log));
        let added = tokio::time::timeout(Duration::from_secs(1), added).await;
        let c = added.expect("the group is not stuck").unwrap();
        assert_eq!(c.addr().send(Behave::Answer(3)).await, Ok(3));
        let running = group.children().await;
        assert!(running.iter().all(|one| one.state == ChildState::Running));
        runtime.finish().await;
    });
}

fn once() -> Intensity {
    Intensity {
        max: 1,
        within: Duration::from_secs(60),
    }
}

#[test]
fn sup_1_a_nested_group_is_started_anew_with_all_its_children() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let a = probe("a", &log);
        let addr = a.addr();
        let inner = Group::new("inner").intensity(once());
        let inner = inner.child(a).child(probe("b", &log));
        let outer = Group::new("outer").child(probe("c", &log)).group(inner);
        let outer = runtime.supervise_group(outer).await.unwrap();
        assert!(addr.send(Behave::Panic).await.is_err());
        assert_eq!(addr.send(Behave::Answer(1)).await, Ok(1));
        assert_eq!(log.count("b made"), 1, "one for one");
        assert!(addr.send(Behave::Panic).await.is_err());
        assert_eq!(
            addr.send(Behave::Answer(2)).await,
            Ok(2),
            "the same address"
        );
        assert_eq!((log.count("b made"), log.count("b stopped")), (2, 1));
        assert_eq!(log.count("c made"), 1);
        let children = outer.children().await;
        assert_eq!((children[1].incarnation, children[1].restarts), (2, 1));
        let last = children[1].last_exit.clone().unwrap();
        assert!(matches!(last, StopCause::GaveUp { .. }), "{last}");
        runtime.finish().await;
    });
}

#[test]
fn sup_4_what_nobody_can_keep_alive_ends_the_runtime() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let a = probe("a", &log);
        let addr = a.addr();
        let inner = Group::new("inner").intensity(once()).child(a);
        let outer = Group::new("outer").intensity(once()).group(inner);
        runtime.supervise_group(outer).await.unwrap();
        // Budgets multiply by level: 2 by 2, and by the root's own 6.
        let crashes = tokio::task::spawn_local(async move {
            loop {
                let _ = addr.send(Behave::Panic).await;
                tokio::task::yield_now().await;
            }
        });
        let cause = runtime.ended().await;
        crashes.abort();
        let StopCause::GaveUp { child, last } = cause else {
            panic!("{cause}");
        };
        assert_eq!(child, "outer");
        assert!(last.to_string().contains("gave up on inner"), "{last}");
        assert_eq!(log.count("a made"), 2 * 2 * 6);
        let gave_up = |kind: &EventKind| matches!(kind, EventKind::GaveUp { .. });
        assert!(
            runtime
                .events_since(0)
                .iter()
                .any(|event| gave_up(&event.kind))
        );
        runtime.finish().await;
    });
}
