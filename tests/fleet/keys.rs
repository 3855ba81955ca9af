//! Breakers of keys that the replicas share under hashes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox::fleet::SharedKey;
use breakerbox::policy::{Class, State};
use breakerbox::prelude::*;

use futures_util::TryStreamExt as _;

use crate::replicas::{DEP, Replica, start_of, stop};
use crate::server::{NatsServer, PATIENCE, until};

const KEY: &str = "tenant-7";
const SHARED: &str = "[dependencies.dep.fleet]\nkeys = \"hashed\"";

/// Makes one call with a key. Returns true if it has succeeded.
async fn call(replica: &Replica, key: &str) -> bool {
    let options = CallOptions {
        key: Some(Arc::from(key)),
        ..CallOptions::default()
    };
    let classify = |result: &Result<(), &str>| match result {
        Ok(()) => Class::Success.into(),
        Err(_) => Class::Failure.into(),
    };
    let fails = replica.target.is_down.load(Ordering::Relaxed);
    let work = || async move { if fails { Err("down") } else { Ok(()) } };
    let answer = replica.client.run_with(options, classify, work).await;
    answer.is_ok()
}

fn state(replica: &Replica, key: &str) -> State {
    let keys = replica.client.status().keys;
    let known = keys.iter().find(|one| one.key == key);
    known.map_or(State::Closed, |one| one.state)
}

fn shared(replica: &Replica) -> Vec<SharedKey> {
    replica.status().dependencies[DEP].keys.clone()
}

#[tokio::test]
async fn flt_16_a_key_opens_and_recovers_with_the_fleet_and_is_named_to_no_broker() {
    let Some(server) = NatsServer::start().await else {
        return;
    };
    let replicas = start_of(&server, 2, SHARED, "2s").await;
    let [a, b] = &replicas[..] else {
        unreachable!()
    };
    assert!(call(b, KEY).await && call(b, "other").await);
    a.target.is_down.store(true, Ordering::Relaxed);
    while state(a, KEY) == State::Closed {
        call(a, KEY).await;
    }
    until("the evidence is seen", || {
        shared(b).iter().any(|one| one.evidence == 1)
    })
    .await;
    let mut failed = 0;
    while state(b, KEY) == State::Closed {
        call(b, KEY).await;
        failed += 1;
    }
    assert_eq!(failed, 3, "beside evidence 0.6 of five");
    assert_eq!(state(b, "other"), State::Closed);
    assert_eq!(b.state(), State::Closed);
    a.target.is_down.store(false, Ordering::Relaxed);
    let is_well = || [a, b].iter().all(|one| state(one, KEY) == State::Closed);
    let recovered = async {
        while !is_well() {
            call(a, KEY).await;
            call(b, KEY).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.unwrap();
    let verdicts = replicas.iter().filter(|one| {
        let mut kinds = one
            .runtime
            .events_since(0)
            .into_iter()
            .map(|event| event.kind);
        kinds.any(|kind| matches!(kind, EventKind::Adopted { how: "verdict", .. }))
    });
    assert_eq!(verdicts.count(), 1, "one probed for both");
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let bucket = context.get_key_value("breakerbox_default").await.unwrap();
    let words: Vec<String> = bucket.keys().await.unwrap().try_collect().await.unwrap();
    let of_key = |word: &String| word.starts_with("lease.dep=1f");
    assert!(words.iter().any(of_key), "{words:?}");
    assert!(
        words.iter().all(|word| !word.contains("tenant")),
        "{words:?}"
    );
    stop(replicas).await;
}
