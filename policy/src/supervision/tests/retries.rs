//! MCP-1: children that are tried for ever, first starts that nothing waits for, and new starts by
//! an operator's order.

use super::*;

#[test]
fn mcp_1_m2_a_retrying_child_goes_on_beyond_its_budget_and_tells_so_until_it_runs() {
    let mut strict = patient(Strategy::OneForOne);
    strict.intensity.max = 2;
    let mut rig = Rig::up(strict, vec![retrying("a"), worker("b")]);
    assert_eq!(rig.crash("a"), ["start a#2"]);
    assert_eq!(rig.not_started("a"), ["timer 100"]);
    rig.fire();
    let down = "exhausted a: failed: no port";
    assert_eq!(rig.not_started("a"), [down, "timer 200"]);
    rig.fire();
    let again = "exhausted again a: failed: no port";
    for wait in ["timer 400", "timer 800", "timer 1000", "timer 1000"] {
        assert_eq!(rig.not_started("a"), [again, wait]);
        assert_eq!(rig.fire().len(), 1);
    }
    assert_eq!(rig.state("b"), ChildState::Running);
    assert_eq!(rig.started("a"), NOTHING);
    assert_eq!(rig.crash("a")[0], "exhausted a: panicked: boom");
}

#[test]
fn mcp_1_m2_a_retrying_child_never_spins_though_there_is_no_backoff() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 1), vec![retrying("a")]);
    assert_eq!(rig.crash("a"), ["start a#2"]);
    let said = rig.not_started("a");
    assert_eq!(said[0], "exhausted a: failed: no port");
    assert!(said[1].starts_with("timer "), "{said:?}");
}

#[test]
fn mcp_1_m1_nothing_waits_for_a_background_child_and_its_failure_is_like_any_other() {
    let background = ChildSpec {
        background: true,
        ..retrying("b")
    };
    let mut rig = Rig::new(
        patient(Strategy::OneForOne),
        vec![worker("a"), background, worker("c")],
    );
    assert_eq!(rig.on(SupervisorEvent::Start), ["start a#1"]);
    assert_eq!(rig.started("a"), ["start b#1", "start c#1"]);
    // It fails before the others are up, and is judged when they are.
    assert_eq!(rig.not_started("b"), NOTHING);
    assert_eq!(rig.started("c"), ["up", "start b#2"]);
    assert_eq!(rig.not_started("b"), ["timer 100"]);
    assert_eq!(rig.fire(), ["start b#3"]);
    assert_eq!(rig.started("b"), NOTHING);
}

#[test]
fn mcp_1_m2_a_new_start_stops_what_runs_and_does_not_wait_for_a_backoff() {
    let mut rig = Rig::up(patient(Strategy::OneForOne), vec![retrying("a")]);
    assert_eq!(rig.renew("a", 1), ["stop a#1"]);
    assert_eq!(rig.gone("a"), ["start a#2"]);
    assert_eq!(rig.started("a"), ["reply 1 ok"]);
    rig.crash_and_restart("a");
    assert_eq!(rig.crash("a"), ["timer 100"]);
    assert_eq!(rig.renew("a", 2), ["start a#4"]);
    let failed = "reply 2 the child did not start: failed: no port";
    // The budget is fresh: the next try is made at once.
    assert_eq!(rig.not_started("a"), [failed, "start a#5"]);
    // The wait that was cut short starts nothing.
    assert_eq!(rig.fire(), NOTHING);
    assert_eq!(rig.renew("a", 3), ["stop a#5"]);
    assert_eq!(rig.gone("a"), ["start a#6"]);
    assert_eq!(rig.started("a"), ["reply 3 ok"]);
    assert_eq!(rig.view("a").restarts, 2);
}

#[test]
fn mcp_1_m2_a_new_start_revives_what_is_parked_and_answers_when_the_supervisor_ends() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 0), vec![parking("a")]);
    rig.crash("a");
    assert_eq!(rig.renew("a", 1), ["start a#2"]);
    rig.not_started("a");
    assert_eq!(rig.state("a"), ChildState::Parked);
    rig.renew("a", 2);
    rig.started("a");
    assert_eq!(rig.renew("a", 3), ["stop a#3"]);
    assert_eq!(
        rig.on(SupervisorEvent::Stop),
        ["reply 3 the supervisor is stopping"]
    );
    assert_eq!(rig.gone("a"), ["down: shutdown"]);
}

#[test]
fn mcp_1_m2_a_terminated_child_is_not_started_by_an_older_order() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 1), workers(&["a"]));
    rig.renew("a", 1);
    assert_eq!(
        rig.terminate("a", 2),
        ["reply 1 the child did not start: shutdown"]
    );
    assert_eq!(rig.gone("a"), ["reply 2 ok"]);
    assert_eq!(rig.state("a"), ChildState::Stopped);
}

#[test]
fn mcp_1_m2_a_new_start_of_a_stopped_child_goes_on_only_if_it_is_one_to_retry() {
    for (child, goes_on) in [(retrying("a"), true), (worker("a"), false)] {
        let mut rig = Rig::up(patient(Strategy::OneForOne), vec![child]);
        rig.terminate("a", 1);
        rig.gone("a");
        assert_eq!(rig.renew("a", 2), ["start a#2"]);
        let said = rig.not_started("a");
        assert_eq!(said[0], "reply 2 the child did not start: failed: no port");
        assert_eq!(said.len() > 1, goes_on, "{said:?}");
        assert_eq!(rig.state("a") == ChildState::Stopped, !goes_on);
    }
}
