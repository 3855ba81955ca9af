//! SUP-1 and SUP-3: commands; each is answered once, and never waits for a backoff.

use super::*;

#[test]
fn sup_1_s26_commands_are_idempotent_and_their_errors_distinct() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 2), workers(&["a", "b"]));
    assert_eq!(rig.terminate("a", 1), ["stop a#1"]);
    assert_eq!(rig.gone("a"), ["reply 1 ok"]);
    assert_eq!(rig.terminate("a", 2), ["reply 2 ok"]);
    assert_eq!(
        rig.add(worker("a"), 3),
        ["reply 3 a child of this name is already present"]
    );
    assert_eq!(
        rig.add(worker("b"), 4),
        ["reply 4 a child of this name is already started"]
    );
    assert_eq!(rig.delete("b", 5), ["reply 5 the child is running"]);
    assert_eq!(rig.restart("a", 6), ["start a#2"]);
    assert_eq!(rig.started("a"), ["reply 6 ok"]);
    assert_eq!(rig.restart("a", 7), ["reply 7 the child is running"]);
    rig.terminate("b", 8);
    rig.gone("b");
    assert_eq!(rig.delete("b", 9), ["forget b", "reply 9 ok"]);
    assert_eq!(rig.restart("b", 10), ["reply 10 no such child"]);
    assert_eq!(rig.terminate("nope", 11), ["reply 11 no such child"]);
}

#[test]
fn sup_1_an_id_is_never_used_again() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 2), workers(&["a"]));
    let first = rig.machine.child_id("a");
    rig.terminate("a", 1);
    rig.gone("a");
    rig.delete("a", 2);
    rig.add(worker("a"), 3);
    assert!(rig.machine.child_id("a") > first);
}

#[test]
fn sup_1_an_added_child_that_does_not_start_is_forgotten_and_reported() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 0), workers(&["a"]));
    assert_eq!(rig.add(worker("b"), 1), ["start b#1"]);
    assert_eq!(
        rig.not_started("b"),
        [
            "forget b",
            "reply 1 the child did not start: failed: no port"
        ]
    );
    assert_eq!(rig.state("a"), ChildState::Running);
}

#[test]
fn sup_1_an_added_child_is_checked() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 0), Vec::new());
    let mut job = of(RestartType::Transient, "job");
    job.significant = true;
    let said = rig.add(job, 1);
    assert!(said[0].starts_with("reply 1 child job is significant"));
    assert_eq!(rig.machine.children().count(), 0);
}

#[test]
fn sup_1_a_terminated_temporary_child_is_forgotten() {
    let mut rig = Rig::up(
        spec(Strategy::OneForOne, 0),
        vec![of(RestartType::Temporary, "x")],
    );
    rig.terminate("x", 1);
    assert_eq!(rig.terminate("x", 2), NOTHING);
    assert_eq!(rig.gone("x"), ["forget x", "reply 1 ok", "reply 2 ok"]);
}

#[test]
fn sup_1_a_restart_waits_for_the_stop_before_it() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 0), workers(&["a"]));
    rig.terminate("a", 1);
    assert_eq!(rig.restart("a", 2), NOTHING);
    assert_eq!(rig.gone("a"), ["reply 1 ok", "start a#2"]);
    assert_eq!(rig.started("a"), ["reply 2 ok"]);
}

#[test]
fn sup_1_commands_before_the_start_wait_for_it() {
    let mut rig = Rig::new(spec(Strategy::OneForOne, 0), workers(&["a"]));
    assert_eq!(rig.add(worker("b"), 1), NOTHING);
    assert_eq!(rig.on(SupervisorEvent::Start), ["start a#1"]);
    assert_eq!(rig.started("a"), ["up", "start b#1"]);
    assert_eq!(rig.started("b"), ["reply 1 ok"]);
}

#[test]
fn sup_1_terminate_reaches_a_child_that_hangs_in_its_start() {
    let mut rig = Rig::up(spec(Strategy::OneForAll, 9), workers(&["a", "b"]));
    rig.crash("a");
    assert_eq!(rig.gone("b"), ["start a#2"]);
    assert_eq!(rig.terminate("a", 1), ["stop a#2", "start b#2"]);
    assert_eq!(rig.not_started("a"), ["reply 1 ok"]);
    assert_eq!(rig.state("a"), ChildState::Stopped);
}

#[test]
fn sup_1_terminate_answers_for_the_start_that_it_ends() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 9), Vec::new());
    rig.add(worker("a"), 1);
    assert_eq!(
        rig.terminate("a", 2),
        ["reply 1 the child did not start: shutdown", "stop a#1"]
    );
    assert_eq!(rig.gone("a"), ["reply 2 ok"]);
}

#[test]
fn sup_1_other_commands_wait_for_a_round() {
    let mut rig = Rig::up(spec(Strategy::OneForAll, 9), workers(&["a", "b"]));
    rig.crash("a");
    assert_eq!(rig.add(worker("c"), 1), NOTHING);
    rig.gone("b");
    rig.started("a");
    assert_eq!(rig.started("b"), ["start c#1"]);
    assert_eq!(rig.started("c"), ["reply 1 ok"]);
}

#[test]
fn sup_1_a_stopping_supervisor_refuses_commands_and_pending_ones_too() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 9), workers(&["a"]));
    rig.add(worker("b"), 1);
    assert_eq!(
        rig.on(SupervisorEvent::Stop),
        ["reply 1 the supervisor is stopping", "stop b#1"]
    );
    assert_eq!(
        rig.terminate("a", 2),
        ["reply 2 the supervisor is stopping"]
    );
    rig.gone("b");
    assert_eq!(rig.gone("a"), ["down: shutdown"]);
    assert_eq!(rig.restart("a", 3), ["reply 3 the supervisor is stopping"]);
}

#[test]
fn sup_3_r12_terminate_during_a_backoff_is_answered_at_once_and_calls_the_restart_off() {
    let mut rig = Rig::up(hesitant(Strategy::OneForOne), workers(&["a"]));
    assert_eq!(rig.crash("a"), ["timer 10000"]);
    assert_eq!(rig.restart("a", 1), ["reply 1 the child is restarting"]);
    assert_eq!(rig.delete("a", 2), ["reply 2 the child is restarting"]);
    rig.wait(100);
    assert_eq!(rig.terminate("a", 3), ["reply 3 ok"]);
    assert_eq!(rig.fire(), NOTHING);
    assert_eq!(rig.state("a"), ChildState::Stopped);
}

#[test]
fn sup_3_terminating_the_child_that_a_group_waits_for_lets_the_others_start() {
    let mut rig = Rig::up(hesitant(Strategy::OneForAll), workers(&["a", "b"]));
    rig.crash("a");
    rig.gone("b");
    assert_eq!(rig.terminate("a", 1), ["reply 1 ok", "start b#2"]);
    assert_eq!(rig.fire(), NOTHING);
}

#[test]
fn sup_3_a_child_added_during_a_backoff_is_started_at_once() {
    let mut rig = Rig::up(hesitant(Strategy::OneForAll), workers(&["a", "b"]));
    rig.crash("a");
    rig.gone("b");
    assert_eq!(rig.add(worker("c"), 1), ["start c#1"]);
    assert_eq!(rig.started("c"), ["reply 1 ok"]);
    assert_eq!(rig.fire(), ["start a#2"]);
    assert_eq!(rig.started("a"), ["start b#2"]);
    assert_eq!(rig.started("b"), NOTHING);
    assert_eq!(rig.view("c").incarnation, 1);
}

#[test]
fn sup_2_a_restart_by_command_costs_nothing() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 1), workers(&["a"]));
    for ticket in 0..5 {
        rig.terminate("a", ticket);
        rig.gone("a");
        rig.restart("a", ticket);
        rig.started("a");
    }
    assert_eq!(rig.view("a").restarts, 0);
    rig.crash_and_restart("a");
}

#[test]
fn sup_1_a_renamed_child_gives_up_its_name_and_keeps_its_commands() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 2), workers(&["a", "b"]));
    assert_eq!(rig.terminate("a", 1), ["stop a#1"]);
    assert_eq!(rig.delete("a", 2), [""; 0], "it waits for the stop");
    assert_eq!(
        rig.machine.rename("a", "b"),
        Err(CommandError::AlreadyPresent)
    );
    assert_eq!(rig.machine.rename("c", "d"), Err(CommandError::NotFound));
    assert_eq!(rig.machine.rename("a", "old"), Ok(()));
    assert_eq!(rig.add(worker("a"), 3), ["start a#1"], "beside the old one");
    assert_eq!(rig.started("a"), ["reply 3 ok"]);
    assert_eq!(rig.gone("old"), ["reply 1 ok", "forget old", "reply 2 ok"]);
    assert_eq!(rig.state("a"), rig.state("b"));
}

#[test]
fn sup_3_a_timer_of_an_earlier_backoff_starts_nothing() {
    let mut rig = Rig::up(hesitant(Strategy::OneForOne), workers(&["a"]));
    assert_eq!(rig.crash("a"), ["timer 10000"]);
    assert_eq!(rig.renew("a", 1), ["start a#2"]);
    rig.started("a");
    assert_eq!(rig.crash("a"), ["timer 10000"]);
    assert_eq!(rig.timers.len(), 2);
    let (_, obsolete) = rig.timers.remove(0);
    assert_eq!(rig.on(SupervisorEvent::Timer(obsolete)), NOTHING);
    assert_eq!(rig.fire(), ["start a#3"]);
}

#[test]
fn a_supervisor_is_ending_from_the_order_to_stop_on() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 0), workers(&["a"]));
    assert!(!rig.machine.is_ending());
    assert_eq!(rig.on(SupervisorEvent::Stop), ["stop a#1"]);
    assert!(rig.machine.is_ending());
    rig.gone("a");
    assert!(rig.machine.is_ending(), "it has ended");
}
