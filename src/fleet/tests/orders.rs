//! Operators' commands for the whole fleet, on a board that does not take them, or has lost them.

use breakerbox_policy::fleet::TripSharing;

use super::*;

/// Gives a command for the whole fleet at its first replica.
async fn operate(
    fleet: &TestFleet,
    command: &str,
    for_: Option<Duration>,
) -> Result<(), BoardUnreached> {
    let first = &fleet.replicas[0].fleet;
    let given = first
        .operate(DEP, command, ("a release", "ann"), for_)
        .await;
    fleet.pass(10 * MS).await;
    given
}

fn overrides(fleet: &TestFleet) -> Vec<Option<OverrideMode>> {
    let each = fleet.replicas.iter();
    each.map(|one| one.client.status().overridden.map(|set| set.mode))
        .collect()
}

#[test]
fn flt_12_a_close_that_the_board_did_not_take_is_no_success() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        operate(&fleet, "open", None).await.unwrap();
        fleet.board.take_none(true);
        assert_eq!(operate(&fleet, "close", None).await, Err(BoardUnreached));
        assert_eq!(overrides(&fleet), [Some(OverrideMode::ForcedOpen); 2]);
        fleet.board.take_none(false);
        operate(&fleet, "close", None).await.unwrap();
        assert_eq!(overrides(&fleet), [None, None]);
        fleet.finish().await;
    });
}

#[test]
fn flt_12_the_same_override_given_again_begins_a_new_span() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        let span = Some(Duration::from_secs(10));
        let give = async || operate(&fleet, "open", span).await.unwrap();
        give().await;
        fleet.pass(Duration::from_secs(9)).await;
        give().await;
        fleet.pass(Duration::from_secs(9)).await;
        assert_eq!(overrides(&fleet), [Some(OverrideMode::ForcedOpen); 2]);
        fleet.pass(Duration::from_secs(2)).await;
        assert_eq!(overrides(&fleet), [None, None]);
        let status = fleet.replicas[1].fleet.status();
        assert_eq!(status.dependencies[DEP].order, None, "it has ended");
        give().await;
        assert_eq!(overrides(&fleet), [Some(OverrideMode::ForcedOpen); 2]);
        fleet.finish().await;
    });
}

#[test]
fn flt_12_an_override_outlives_the_words_of_its_board() {
    run_paused(async || {
        let mut fleet = TestFleet::start(2).await;
        let span = Some(Duration::from_secs(60));
        operate(&fleet, "open", span).await.unwrap();
        for index in 0..2 {
            fleet.board.cut_off(index);
        }
        fleet.board.lose_words();
        fleet.pass(Duration::from_secs(20)).await;
        for index in 0..2 {
            fleet.board.bring_back(index);
        }
        fleet.pass(10 * MS).await;
        assert_eq!(overrides(&fleet), [Some(OverrideMode::ForcedOpen); 2]);
        // OPS-1: a word that is repeated for the board is no order of its own.
        let events = fleet.replicas[0].runtime.events_since(0);
        let given = events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Operated { .. }));
        assert_eq!(given.count(), 1);
        let later = TestReplica::start(&fleet.board, 2, TripSharing::Confirm).await;
        fleet.replicas.push(later);
        fleet.pass(10 * MS).await;
        assert_eq!(overrides(&fleet)[2], Some(OverrideMode::ForcedOpen));
        // FLT-10: its span goes on, and does not begin again.
        fleet.pass(Duration::from_secs(40)).await;
        assert_eq!(overrides(&fleet), [None; 3]);
        fleet.finish().await;
    });
}

#[test]
fn flt_3_no_replica_is_dead_because_nothing_could_be_heard() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        fleet.pass(Duration::from_secs(5)).await;
        let known = || fleet.replicas[0].fleet.status().replicas.len();
        assert_eq!(known(), 2);
        fleet.board.cut_off(0);
        fleet.pass(Duration::from_secs(20)).await;
        fleet.board.bring_back(0);
        // Less than a heartbeat of the other one.
        fleet.pass(Duration::from_millis(1_100)).await;
        assert_eq!(known(), 2);
        fleet.finish().await;
    });
}

#[test]
fn flt_12_an_override_that_was_taken_off_meanwhile_is_not_said_again() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        operate(&fleet, "open", None).await.unwrap();
        fleet.board.cut_off(1);
        operate(&fleet, "close", None).await.unwrap();
        fleet.board.bring_back(1);
        fleet.pass(10 * MS).await;
        assert_eq!(overrides(&fleet), [None, None]);
        fleet.finish().await;
    });
}

fn of_toml(text: &str) -> FleetParts {
    let text = format!("[fleet]\nservers = [\"nats://127.0.0.1:1\"]\n[dependencies.dep]\n{text}");
    FleetParts::of(&Settings::loader().bare().toml(&text).load().unwrap())
}

#[test]
fn flt_11_the_key_of_a_model_is_part_of_its_account() {
    let model = "kind = \"model\"\napi = \"openai\"\nurl = \"http://127.0.0.1:1/v1\"\n";
    let part = |more: &str| of_toml(&format!("{model}{more}")).dependencies[DEP].clone();
    let (one, two) = (part("key = \"sk-one\""), part("key = \"sk-two\""));
    assert_ne!(one.account, two.account);
    assert_eq!(one.account, part("key = \"sk-one\"").account);
    assert!(!one.account.contains("sk-"), "{}", one.account);
    // The limits of the callers' own keys are no affair of other replicas.
    let none = part("");
    assert_eq!(none.fleet.pauses, PauseSharing::Off);
    assert_ne!(one.fleet.pauses, PauseSharing::Off);
}

#[test]
fn flt_13_replicas_with_other_shared_rates_are_told_apart() {
    let rate = |rate: u32, shared: bool| {
        let text = format!("rate_limit = {{ rate = {rate}, shared = {shared} }}");
        of_toml(&text).fingerprint
    };
    assert_ne!(rate(10, true), rate(100, true));
    assert_eq!(rate(10, true), rate(10, true));
    assert_eq!(rate(10, false), rate(100, false), "each has its own");
    let tokens = |rate: u32, shared: bool| {
        let text = format!(
            "kind = \"model\"\napi = \"openai\"\nurl = \"http://127.0.0.1:1/v1\"\n\
             token_limit = {{ rate = {rate}, shared = {shared} }}"
        );
        of_toml(&text).fingerprint
    };
    assert_ne!(tokens(1_000, true), tokens(2_000, true));
    assert_eq!(tokens(1_000, true), tokens(1_000, true));
    assert_eq!(tokens(1_000, false), tokens(2_000, false));
}
