//! SUP-1: strategies, restart types, the order of starts and stops, deadlines.

use super::*;

#[test]
fn sup_1_children_start_in_order_each_when_the_one_before_is_up() {
    let mut rig = Rig::new(spec(Strategy::OneForOne, 1), workers(&["a", "b"]));
    assert_eq!(rig.on(SupervisorEvent::Start), ["start a#1"]);
    assert_eq!(rig.on(SupervisorEvent::Start), NOTHING);
    assert_eq!(rig.started("a"), ["start b#1"]);
    assert_eq!(rig.started("b"), ["up"]);
    assert_eq!(rig.on(SupervisorEvent::Stop), ["stop b#1"]);
    assert_eq!(rig.gone("b"), ["stop a#1"]);
    assert_eq!(rig.gone("a"), ["down: shutdown"]);
    assert!(matches!(rig.machine.phase, SupervisorPhase::Down));
}

#[test]
fn sup_1_a_supervisor_without_children_is_up_at_once() {
    let mut rig = Rig::new(SupervisorSpec::default(), Vec::new());
    assert_eq!(rig.on(SupervisorEvent::Start), ["up"]);
    assert_eq!(rig.on(SupervisorEvent::Stop), ["down: shutdown"]);
    assert_eq!(rig.on(SupervisorEvent::Stop), NOTHING);
}

#[test]
fn sup_1_a_failed_initial_start_rolls_back_in_reverse_without_a_retry() {
    let mut rig = Rig::new(spec(Strategy::OneForOne, 9), workers(&["a", "b", "c"]));
    rig.on(SupervisorEvent::Start);
    rig.started("a");
    rig.started("b");
    assert_eq!(rig.not_started("c"), ["stop b#1"]);
    assert_eq!(rig.gone("b"), ["stop a#1"]);
    assert_eq!(
        rig.gone("a"),
        ["down: failed: child c did not start: failed: no port"]
    );
}

#[test]
fn sup_1_a_crash_during_the_initial_start_is_judged_when_all_are_up() {
    let mut rig = Rig::new(spec(Strategy::OneForOne, 9), workers(&["a", "b"]));
    rig.on(SupervisorEvent::Start);
    rig.started("a");
    assert_eq!(rig.crash("a"), NOTHING);
    assert_eq!(rig.started("b"), ["up", "start a#2"]);
}

#[test]
fn sup_1_a_stop_during_the_initial_start_also_stops_the_starting_child() {
    let mut rig = Rig::new(spec(Strategy::OneForOne, 9), workers(&["a", "b"]));
    rig.on(SupervisorEvent::Start);
    rig.started("a");
    assert_eq!(rig.on(SupervisorEvent::Stop), ["stop b#1"]);
    assert_eq!(rig.started("b"), NOTHING);
    assert_eq!(rig.gone("b"), ["stop a#1"]);
    assert_eq!(rig.crash("a"), ["down: shutdown"]);
}

#[test]
fn sup_1_each_stop_has_its_own_deadline_and_is_killed_after_it() {
    let mut children = workers(&["a", "b", "c"]);
    children[0].shutdown = Shutdown::Within(Duration::from_millis(150));
    children[1].shutdown = Shutdown::Kill;
    children[2].shutdown = Shutdown::Within(Duration::from_millis(100));
    let mut rig = Rig::up(spec(Strategy::OneForOne, 1), children);
    assert_eq!(rig.on(SupervisorEvent::Stop), ["stop c#1", "timer 100"]);
    assert_eq!(rig.fire(), ["kill c#1"]);
    assert_eq!(rig.ended("c", StopCause::Killed), ["kill b#1"]);
    assert_eq!(rig.ended("b", StopCause::Killed), ["stop a#1", "timer 150"]);
    assert_eq!(rig.gone("a"), ["down: shutdown"]);
    assert_eq!(rig.fire(), NOTHING);
}

#[test]
fn sup_1_restart_types_decide_after_normal_and_abnormal_ends() {
    let mut rig = Rig::up(
        spec(Strategy::OneForOne, 9),
        vec![
            of(RestartType::Permanent, "p"),
            of(RestartType::Transient, "t"),
            of(RestartType::Temporary, "x"),
        ],
    );
    assert_eq!(rig.ended("p", StopCause::Normal), ["start p#2"]);
    assert_eq!(rig.crash("t"), ["start t#2"]);
    rig.started("t");
    assert_eq!(rig.ended("t", StopCause::Lost), ["start t#3"]);
    rig.started("t");
    assert_eq!(rig.ended("t", StopCause::Shutdown), NOTHING);
    assert_eq!(rig.state("t"), ChildState::Stopped);
    assert_eq!(rig.crash("x"), ["forget x"]);
    assert_eq!(rig.machine.child_id("x"), None);
}

#[test]
fn sup_1_a_supervisor_that_gave_up_is_restarted_when_transient_unless_otp_is_asked_for() {
    let gave_up = || StopCause::GaveUp {
        child: "x".into(),
        last: Box::new(StopCause::Killed),
    };
    let sub = || {
        vec![ChildSpec {
            restart: RestartType::Transient,
            ..ChildSpec::supervisor("sub")
        }]
    };
    let mut rig = Rig::up(spec(Strategy::OneForOne, 9), sub());
    assert_eq!(rig.ended("sub", gave_up()), ["start sub#2"]);
    let mut otp = spec(Strategy::OneForOne, 9);
    otp.otp.gave_up_is_normal = true;
    let mut rig = Rig::up(otp, sub());
    assert_eq!(rig.ended("sub", gave_up()), NOTHING);
}

#[test]
fn sup_1_one_for_all_stops_in_reverse_and_starts_when_all_are_gone() {
    let mut rig = Rig::up(spec(Strategy::OneForAll, 9), workers(&["a", "b", "c"]));
    assert_eq!(rig.crash("b"), ["stop c#1"]);
    assert_eq!(rig.gone("c"), ["stop a#1"]);
    assert_eq!(rig.gone("a"), ["start a#2"]);
    assert_eq!(rig.started("a"), ["start b#2"]);
    assert_eq!(rig.started("b"), ["start c#2"]);
    assert_eq!(rig.started("c"), NOTHING);
    assert_eq!(rig.view("a").restarts, 1);
}

#[test]
fn sup_1_rest_for_one_leaves_the_earlier_ones_alone() {
    let names = ["a", "b", "c", "d"];
    let mut rig = Rig::up(spec(Strategy::RestForOne, 9), workers(&names));
    assert_eq!(rig.crash("b"), ["stop d#1"]);
    assert_eq!(rig.gone("d"), ["stop c#1"]);
    assert_eq!(rig.gone("c"), ["start b#2"]);
    assert_eq!(rig.started("b"), ["start c#2"]);
    assert_eq!(rig.started("c"), ["start d#2"]);
    assert_eq!(rig.view("a").incarnation, 1);
}

#[test]
fn sup_1_a_round_forgets_temporary_and_revives_finished_children() {
    let mut rig = Rig::up(
        spec(Strategy::OneForAll, 9),
        vec![
            worker("a"),
            of(RestartType::Temporary, "x"),
            of(RestartType::Transient, "t"),
        ],
    );
    rig.ended("t", StopCause::Normal);
    assert_eq!(rig.crash("a"), ["stop x#1"]);
    assert_eq!(rig.gone("x"), ["forget x", "start a#2"]);
    assert_eq!(rig.started("a"), ["start t#2"]);
}

#[test]
fn sup_1_a_child_stopped_by_hand_stays_stopped_in_a_round_unless_otp_is_asked_for() {
    for revive in [false, true] {
        let mut otp = spec(Strategy::OneForAll, 9);
        otp.otp.rounds_revive_stopped = revive;
        let mut rig = Rig::up(otp, workers(&["a", "b"]));
        rig.terminate("b", 1);
        assert_eq!(rig.gone("b"), ["reply 1 ok"]);
        assert_eq!(rig.crash("a"), ["start a#2"]);
        let next = rig.started("a");
        assert_eq!(next == ["start b#2"], revive, "{next:?}");
    }
}

#[test]
fn sup_1_siblings_that_crash_while_the_group_stops_are_merged_into_the_round() {
    let mut rig = Rig::up(spec(Strategy::OneForAll, 1), workers(&["a", "b", "c"]));
    assert_eq!(rig.crash("a"), ["stop c#1"]);
    assert_eq!(rig.crash("b"), NOTHING);
    assert_eq!(rig.crash("c"), ["start a#2"]);
    assert_eq!(rig.started("a"), ["start b#2"]);
}

#[test]
fn sup_1_a_crash_while_the_group_starts_is_a_new_round_afterwards() {
    let mut rig = Rig::up(spec(Strategy::OneForAll, 9), workers(&["a", "b"]));
    rig.crash("b");
    rig.gone("a");
    assert_eq!(rig.started("a"), ["start b#2"]);
    assert_eq!(rig.crash("a"), NOTHING);
    assert_eq!(rig.started("b"), ["stop b#2"]);
    assert_eq!(rig.gone("b"), ["start a#3"]);
}

#[test]
fn sup_1_a_failed_start_begins_a_new_round_from_that_child() {
    let mut rig = Rig::up(spec(Strategy::OneForAll, 9), workers(&["a", "b"]));
    rig.crash("a");
    rig.gone("b");
    rig.started("a");
    assert_eq!(rig.not_started("b"), ["stop a#2"]);
    assert_eq!(rig.gone("a"), ["start a#3"]);

    let mut rig = Rig::up(spec(Strategy::RestForOne, 9), workers(&["a", "b", "c"]));
    rig.crash("a");
    rig.gone("c");
    rig.gone("b");
    rig.started("a");
    assert_eq!(rig.not_started("b"), ["start b#3"]);
    assert_eq!(rig.started("b"), ["start c#2"]);
    assert_eq!(rig.view("a").incarnation, 2);
}

#[test]
fn sup_1_a_crash_of_an_unaffected_child_waits_for_the_round() {
    let mut rig = Rig::up(spec(Strategy::RestForOne, 9), workers(&["a", "b", "c"]));
    assert_eq!(rig.crash("b"), ["stop c#1"]);
    assert_eq!(rig.crash("a"), NOTHING);
    assert_eq!(rig.gone("c"), ["start b#2"]);
    assert_eq!(rig.started("b"), ["start c#2"]);
    assert_eq!(rig.started("c"), ["stop c#2"]);
    assert_eq!(rig.gone("c"), ["stop b#2"]);
    assert_eq!(rig.gone("b"), ["start a#2"]);
}

#[test]
fn sup_1_events_of_earlier_incarnations_are_ignored() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 9), workers(&["a"]));
    let (child, incarnation) = rig.present("a");
    rig.crash_and_restart("a");
    let cause = StopCause::Killed;
    assert_eq!(
        rig.on(SupervisorEvent::Started { child, incarnation }),
        NOTHING
    );
    assert_eq!(
        rig.on(SupervisorEvent::Ended {
            child,
            incarnation,
            cause
        }),
        NOTHING
    );
    assert_eq!(rig.state("a"), ChildState::Running);
    assert_eq!(rig.present("a").1, 2);
}

#[test]
fn sup_1_an_end_that_is_reported_twice_counts_once() {
    let mut rig = Rig::up(hesitant(Strategy::OneForOne), workers(&["a"]));
    assert_eq!(rig.crash("a"), ["timer 10000"]);
    assert_eq!(rig.crash("a"), NOTHING);
}

#[test]
fn sup_1_a_stop_during_a_round_ends_it() {
    let mut rig = Rig::up(spec(Strategy::OneForAll, 9), workers(&["a", "b", "c"]));
    assert_eq!(rig.crash("b"), ["stop c#1"]);
    assert_eq!(rig.on(SupervisorEvent::Stop), NOTHING);
    assert_eq!(rig.gone("c"), ["stop a#1"]);
    assert_eq!(rig.gone("a"), ["down: shutdown"]);
}

#[test]
fn sup_1_dynamic_children_stop_at_the_same_time_and_are_forgotten_when_finished() {
    let mut rig = Rig::up(spec(Strategy::Dynamic, 9), Vec::new());
    for (ticket, name) in (1..).zip(["a", "b", "c"]) {
        rig.add(of(RestartType::Transient, name), ticket);
        rig.started(name);
    }
    assert_eq!(rig.crash("b"), ["start b#2"]);
    assert_eq!(rig.ended("a", StopCause::Normal), ["forget a"]);
    assert_eq!(rig.on(SupervisorEvent::Stop), ["stop c#1", "stop b#2"]);
    assert_eq!(rig.gone("b"), NOTHING);
    assert_eq!(rig.gone("c"), ["down: shutdown"]);
}

fn significant(restart: RestartType, name: &str) -> ChildSpec {
    ChildSpec {
        significant: true,
        ..of(restart, name)
    }
}

#[test]
fn sup_1_any_significant_end_shuts_down_but_a_crash_that_is_restarted_does_not() {
    let mut any = spec(Strategy::OneForOne, 9);
    any.auto_shutdown = AutoShutdown::AnySignificant;
    let children = vec![significant(RestartType::Transient, "job"), worker("b")];
    let mut rig = Rig::up(any, children);
    assert_eq!(rig.crash("job"), ["start job#2"]);
    rig.started("job");
    assert_eq!(rig.ended("job", StopCause::Normal), ["stop b#1"]);
    assert_eq!(rig.gone("b"), ["down: shutdown"]);
}

#[test]
fn sup_1_all_significant_waits_for_the_last_and_counts_a_temporary_crash() {
    let mut all = spec(Strategy::OneForOne, 9);
    all.auto_shutdown = AutoShutdown::AllSignificant;
    let children = vec![
        significant(RestartType::Transient, "j1"),
        significant(RestartType::Temporary, "j2"),
    ];
    let mut rig = Rig::up(all, children);
    assert_eq!(rig.ended("j1", StopCause::Normal), NOTHING);
    assert_eq!(rig.crash("j2"), ["forget j2", "down: shutdown"]);
}

#[test]
fn sup_1_specifications_that_cannot_work_are_refused() {
    let refused = |spec: SupervisorSpec, children| Supervision::new(spec, children).unwrap_err();
    let name = || "a".to_owned();
    let plain = || spec(Strategy::OneForOne, 1);
    assert_eq!(
        refused(plain(), workers(&["a", "a"])),
        SpecError::DuplicateName { name: name() }
    );
    let job = significant(RestartType::Transient, "a");
    assert_eq!(
        refused(plain(), vec![job]),
        SpecError::BadSignificant { name: name() }
    );
    let mut any = plain();
    any.auto_shutdown = AutoShutdown::AnySignificant;
    let job = significant(RestartType::Permanent, "a");
    assert_eq!(
        refused(any, vec![job]),
        SpecError::BadSignificant { name: name() }
    );
    let mut endless = plain();
    endless.intensity.within = Duration::ZERO;
    assert_eq!(refused(endless, Vec::new()), SpecError::EmptyWindow);
    let mut shrinking = patient(Strategy::OneForOne);
    if let Some(backoff) = &mut shrinking.backoff {
        backoff.delay.factor = 0.9;
    }
    assert_eq!(refused(shrinking, Vec::new()), SpecError::BadBackoff);
}

#[test]
fn sup_7_a_supervisor_has_unlimited_time_to_stop() {
    let sub = ChildSpec::supervisor("sub");
    assert_eq!(sub.shutdown, Shutdown::Infinity);
    assert_eq!(sub.restart, RestartType::Permanent);
    let rig = Rig::up(spec(Strategy::OneForOne, 0), vec![sub]);
    assert_eq!(rig.machine.child_id("sub").unwrap().to_string(), "1");
}
