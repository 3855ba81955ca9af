//! Several runtimes in this process, on one server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox::policy::State;
use breakerbox::prelude::*;

use crate::replicas::{DEP, start, start_of, stop, traffic};
use crate::server::{NatsServer, until};

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn flt_4_a_trip_is_seen_by_others_and_a_broken_network_of_one_hurts_none() {
    let Some(server) = NatsServer::start().await else {
        return;
    };
    let replicas = start_of(&server, 3, "", "1h").await;
    let [broken, healthy @ ..] = &replicas[..] else {
        unreachable!()
    };
    broken.is_cut_off.store(true, Ordering::Relaxed);
    while broken.state() == State::Closed {
        broken.call().await;
    }
    for one in healthy {
        until("the evidence is seen", || {
            one.status().dependencies[DEP].evidence == 1
        })
        .await;
    }
    until("the evidence is told with its age", || {
        let replicas = healthy[0].status().replicas;
        let told = replicas.iter().find(|one| one.name == "replica-0");
        let told = told.and_then(|one| one.dependencies.get(DEP));
        told.is_some_and(|told| told.evidence && told.age_ms.is_some())
    })
    .await;
    let end = tokio::time::Instant::now() + 500 * MS;
    let calls = traffic(healthy, 2 * MS, || tokio::time::Instant::now() > end).await;
    assert!(
        calls.iter().flatten().all(|(is_ok, _)| *is_ok),
        "none is refused"
    );
    for one in healthy {
        assert_eq!(one.state(), State::Closed);
    }
    stop(replicas).await;
}

#[tokio::test]
async fn flt_7_one_replica_probes_and_its_verdict_closes_all() {
    let Some(server) = NatsServer::start().await else {
        return;
    };
    let replicas = start(&server, 4, "timeout = \"5s\"").await;
    let target = &replicas[0].target;
    target.is_down.store(true, Ordering::Relaxed);
    let is_open = || replicas.iter().all(|one| one.state() == State::Open);
    traffic(&replicas, 2 * MS, is_open).await;
    target.most.store(0, Ordering::Relaxed);
    let before = target.calls.load(Ordering::Relaxed);
    let periods = |replicas: &[crate::replicas::Replica]| -> usize {
        replicas
            .iter()
            .map(|one| one.moves(State::HalfOpen).len())
            .sum()
    };
    let old = periods(&replicas);
    traffic(&replicas, 2 * MS, || periods(&replicas) >= old + 12).await;
    assert_eq!(target.most.load(Ordering::Relaxed), 1, "one at a time");
    let probes = target.calls.load(Ordering::Relaxed) - before;
    let new = (periods(&replicas) - old) as u64;
    assert!(probes <= new, "{probes} probes in {new} periods");
    target.is_down.store(false, Ordering::Relaxed);
    let is_closed = || replicas.iter().all(|one| one.state() == State::Closed);
    traffic(&replicas, 2 * MS, is_closed).await;
    let adopted = |one: &crate::replicas::Replica| {
        let events = one.runtime.events_since(0).into_iter();
        let mut kinds = events.map(|event| event.kind);
        kinds.any(|kind| matches!(kind, EventKind::Adopted { how: "verdict", .. }))
    };
    assert_eq!(replicas.iter().filter(|one| adopted(one)).count(), 3);
    stop(replicas).await;
}

#[tokio::test]
async fn flt_15_a_broker_that_is_killed_slows_no_call_and_is_joined_again() {
    let Some(mut server) = NatsServer::start().await else {
        return;
    };
    let replicas = start(&server, 3, "").await;
    let target = &replicas[0].target;
    server.kill();
    for one in &replicas {
        until("the loss is noticed", || !one.status().connected).await;
    }
    target.is_down.store(true, Ordering::Relaxed);
    let end = tokio::time::Instant::now() + 1500 * MS;
    let calls = traffic(&replicas, 2 * MS, || tokio::time::Instant::now() > end).await;
    let mut took: Vec<Duration> = calls.iter().flatten().map(|(_, took)| *took).collect();
    took.sort();
    // A call itself takes 2 ms; the slowest are this machine's.
    let slow = took[took.len() * 99 / 100];
    assert!(slow < 250 * MS, "{slow:?}");
    for one in &replicas {
        assert!(
            !one.moves(State::Open).is_empty(),
            "each opens by its own rules"
        );
        assert!(!one.moves(State::HalfOpen).is_empty(), "and probes alone");
    }
    server.begin().await;
    for one in &replicas {
        until("it is joined again", || one.status().connected).await;
    }
    // Each has said its own evidence again, or has new one by now.
    let is_told = || {
        replicas
            .iter()
            .any(|one| one.status().dependencies[DEP].evidence >= 1)
    };
    traffic(&replicas, 2 * MS, is_told).await;
    target.is_down.store(false, Ordering::Relaxed);
    let is_closed = || replicas.iter().all(|one| one.state() == State::Closed);
    traffic(&replicas, 2 * MS, is_closed).await;
    let kinds = replicas[0]
        .runtime
        .events_since(0)
        .into_iter()
        .map(|event| event.kind);
    let told: Vec<String> = kinds
        .filter_map(|kind| match kind {
            EventKind::FleetJoined { .. } => Some("joined".to_owned()),
            EventKind::FleetLost { .. } => Some("lost".to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(told.first().map(String::as_str), Some("joined"));
    assert_eq!(told.last().map(String::as_str), Some("joined"));
    assert!(told.contains(&"lost".to_owned()), "{told:?}");
    stop(replicas).await;
}

#[tokio::test]
async fn flt_1_a_start_waits_for_no_board() {
    let Some(mut server) = NatsServer::start().await else {
        return;
    };
    server.kill();
    let target = std::sync::Arc::default();
    let settings = crate::replicas::settings(&server.url(), "early", "");
    let early = crate::replicas::Replica::start(settings, &target).await;
    assert!(early.call().await.0);
    assert!(!early.status().connected);
    server.begin().await;
    until("it joins by itself", || early.status().connected).await;
    stop(vec![early]).await;
}
