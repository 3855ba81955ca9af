//! Breakers of keys that a fleet shares under hashes.

use breakerbox_policy::PauseReason;
use breakerbox_policy::fleet::TripSharing;

use super::*;
use crate::CallOptions;
use crate::config::KeySharing;

const KEY: &str = "tenant-7";

/// Replicas of which the keys take part.
async fn sharing_keys(count: usize) -> TestFleet {
    let fleet = TestFleet::start(count).await;
    for one in &fleet.replicas {
        let (_, mut settings) = settings(TripSharing::Confirm);
        let config = settings.dependencies.get_mut(DEP).unwrap();
        config.fleet.keys = KeySharing::Hashed;
        one.fleet.follow(&settings);
        let mut own = (*one.client.settings()).clone();
        own.key_lease = own.breaker.half_open.lease;
        one.client.reconfigure(own, "a test").await.unwrap();
    }
    fleet
}

impl TestReplica {
    /// Makes calls with a key. Returns how many reached the dependency.
    async fn call_with(&self, key: &str, count: usize) -> u64 {
        let before = self.script.calls();
        for _ in 0..count {
            let options = CallOptions {
                key: Some(Arc::from(key)),
                ..CallOptions::default()
            };
            let _ = self.client.ask_with((), options).await;
        }
        self.script.calls() - before
    }

    fn state_of(&self, key: &str) -> State {
        let keys = self.client.status().keys;
        keys.iter().find(|one| one.key == key).unwrap().state
    }
}

#[test]
fn flt_16_evidence_of_a_key_counts_for_this_key_alone_and_names_it_nowhere() {
    run_paused(async || {
        let fleet = sharing_keys(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        b.call_with(KEY, 1).await;
        b.call_with("other", 1).await;
        a.fail(true);
        assert_eq!(a.call_with(KEY, 10).await, 5, "alone it takes five");
        fleet.pass(MS).await;
        b.fail(true);
        assert_eq!(b.call_with(KEY, 10).await, 3, "beside evidence 0.6 of five");
        assert_eq!(b.call_with("other", 10).await, 5);
        assert_eq!(b.kinds(), ["confirm"]);
        assert_eq!(fleet.states(), [State::Closed; 2]);
        let shared = &a.fleet.status().dependencies[DEP];
        assert_eq!((shared.evidence, shared.keys.len()), (0, 2), "{shared:?}");
        let known = shared.keys.iter().find(|one| one.key.is_some()).unwrap();
        assert_eq!((known.key.as_deref(), known.evidence), (Some(KEY), 2));
        let words = fleet.board.words();
        assert!(words.iter().any(|(key, _)| key.starts_with("evidence.")));
        assert!(!format!("{words:?}").contains("tenant"), "{words:?}");
        assert_eq!(
            a.fleet.figures().dependencies.len(),
            1,
            "no label has a key"
        );
        fleet.finish().await;
    });
}

#[test]
fn flt_16_a_key_that_no_call_has_had_here_follows_within_a_heartbeat_of_the_first() {
    run_paused(async || {
        let fleet = sharing_keys(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        a.fail(true);
        let mut own = (*a.client.settings()).clone();
        own.breaker.open.base = Duration::from_secs(60);
        a.client.reconfigure(own, "a test").await.unwrap();
        a.call_with(KEY, 5).await;
        fleet.pass(10 * MS).await;
        let shared = &b.fleet.status().dependencies[DEP];
        assert_eq!((shared.keys[0].evidence, &shared.keys[0].key), (1, &None));
        b.call_with(KEY, 1).await;
        fleet.pass(Duration::from_secs(3)).await;
        b.fail(true);
        assert_eq!(b.call_with(KEY, 10).await, 3);
        fleet.finish().await;
    });
}

#[test]
fn flt_7_one_probe_of_a_key_goes_out_for_the_whole_fleet() {
    run_paused(async || {
        let fleet = sharing_keys(3).await;
        for one in &fleet.replicas {
            one.fail(true);
            one.call_with(KEY, 10).await;
        }
        let before: u64 = fleet.replicas.iter().map(|one| one.script.calls()).sum();
        for _ in 0..1_000 {
            for one in &fleet.replicas {
                one.call_with(KEY, 1).await;
            }
            fleet.pass(10 * MS).await;
        }
        let after: u64 = fleet.replicas.iter().map(|one| one.script.calls()).sum();
        let probes = after - before;
        assert!((7..=11).contains(&probes), "about one a second: {probes}");
        for one in &fleet.replicas {
            one.fail(false);
        }
        for _ in 0..200 {
            for one in &fleet.replicas {
                one.call_with(KEY, 1).await;
            }
            fleet.pass(10 * MS).await;
        }
        for one in &fleet.replicas {
            assert_eq!(one.state_of(KEY), State::Closed, "a verdict closes all");
        }
        let verdicts = fleet.replicas.iter();
        let verdicts = verdicts.filter(|one| one.kinds().contains(&"verdict".to_owned()));
        assert_eq!(verdicts.count(), 2);
        fleet.finish().await;
    });
}

#[test]
fn flt_16_keys_that_are_not_shared_decide_alone_and_wait_for_no_lease() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        b.call_with(KEY, 1).await;
        a.fail(true);
        a.call_with(KEY, 5).await;
        fleet.pass(MS).await;
        b.fail(true);
        assert_eq!(b.call_with(KEY, 10).await, 5);
        assert!(b.fleet.status().dependencies[DEP].keys.is_empty());
        fleet.pass(Duration::from_secs(1)).await;
        a.fail(false);
        assert_eq!(a.call_with(KEY, 1).await, 1, "its probe goes out at once");
        assert_eq!(a.state_of(KEY), State::Closed);
        fleet.finish().await;
    });
}

#[test]
fn flt_11_a_pause_of_a_key_holds_for_this_key_at_all_replicas() {
    run_paused(async || {
        let fleet = sharing_keys(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        b.call_with("other", 1).await;
        a.throttle(Some(Duration::from_secs(30)));
        a.call_with(KEY, 1).await;
        a.throttle(None);
        fleet.pass(MS).await;
        // Its first call here comes later.
        b.call_with(KEY, 1).await;
        fleet.pass(Duration::from_secs(3)).await;
        let keys = b.client.status().keys;
        let paused = |key: &str| keys.iter().find(|one| one.key == key).unwrap().paused;
        let (reason, left) = paused(KEY).unwrap();
        assert_eq!(reason, PauseReason::Throttled);
        assert!(left > Duration::from_secs(25), "{left:?}");
        assert_eq!((paused("other"), b.client.status().paused), (None, None));
        fleet.finish().await;
    });
}

#[test]
fn flt_16_keys_that_are_shared_no_longer_take_their_words_back() {
    run_paused(async || {
        let fleet = sharing_keys(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        b.call_with(KEY, 1).await;
        a.fail(true);
        a.call_with(KEY, 5).await;
        fleet.pass(MS).await;
        assert_eq!(b.fleet.status().dependencies[DEP].keys[0].evidence, 1);
        let (_, settings) = settings(TripSharing::Confirm);
        a.fleet.follow(&settings);
        fleet.pass(Duration::from_secs(3)).await;
        let keys = &b.fleet.status().dependencies[DEP].keys;
        assert!(keys.iter().all(|key| key.evidence == 0), "{keys:?}");
        fleet.finish().await;
    });
}
