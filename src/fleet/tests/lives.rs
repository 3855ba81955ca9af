//! Dependencies that are removed and added again under the same name, and replicas that only seem to
//! have ended.

use super::*;

#[test]
fn flt_12_an_override_holds_for_a_dependency_that_was_removed_and_added_again() {
    run_paused(async || {
        let mut fleet = TestFleet::start(2).await;
        let order = ("a release", "ann");
        let given = fleet.replicas[1].fleet.operate(DEP, "open", order, None);
        given.await.unwrap();
        fleet.pass(10 * MS).await;
        let one = &mut fleet.replicas[0];
        // Both within one heartbeat.
        assert!(one.runtime.remove(DEP, "ann").await);
        one.client = start_dependency(&one.runtime, &one.script, None).await;
        fleet.pass(Duration::from_secs(3)).await;
        let set = fleet.replicas[0].client.status().overridden;
        assert_eq!(set.map(|set| set.mode), Some(OverrideMode::ForcedOpen));
        fleet.finish().await;
    });
}

#[test]
fn flt_3_a_dependency_that_was_removed_has_no_evidence() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        a.fail(true);
        a.call(5).await;
        fleet.pass(MS).await;
        assert_eq!(b.fleet.status().dependencies[DEP].evidence, 1);
        assert!(a.runtime.remove(DEP, "ann").await);
        fleet.pass(10 * MS).await;
        assert_eq!(b.fleet.status().dependencies[DEP].evidence, 0);
        fleet.finish().await;
    });
}

#[test]
fn flt_14_no_replica_is_dead_while_not_even_an_own_heartbeat_is_heard() {
    run_paused(async || {
        let fleet = TestFleet::start(3).await;
        let live = || fleet.replicas[0].fleet.figures().replicas;
        fleet.board.mute(true);
        fleet.pass(Duration::from_secs(20)).await;
        assert_eq!(live(), 3, "a server that hangs says nothing about them");
        fleet.board.mute(false);
        fleet.pass(Duration::from_secs(3)).await;
        assert_eq!(live(), 3);
        fleet.board.cut_off(2);
        fleet.pass(Duration::from_secs(8)).await;
        assert_eq!(live(), 2);
        fleet.finish().await;
    });
}

#[test]
fn flt_14_a_silence_that_began_while_nothing_could_be_heard_is_none() {
    run_paused(async || {
        let seconds = Duration::from_secs;
        let board = ScriptedBoard::default();
        let trips = breakerbox_policy::fleet::TripSharing::Confirm;
        let mut replicas = Vec::new();
        for (index, beat) in [2, 10].into_iter().enumerate() {
            let place = (index, seconds(beat));
            replicas.push(TestReplica::beating(&board, place, (trips, None)).await);
        }
        let fleet = TestFleet { board, replicas };
        let live = || fleet.replicas[0].fleet.figures().replicas;
        // The second heartbeat of the slower one has been heard.
        fleet.pass(seconds(11)).await;
        assert_eq!(live(), 2);
        fleet.board.mute(true);
        fleet.pass(seconds(30)).await;
        fleet.board.mute(false);
        // The faster one hears itself again, before the next heartbeat of the other.
        fleet.pass(seconds(5)).await;
        assert_eq!(live(), 2);
        fleet.finish().await;
    });
}
