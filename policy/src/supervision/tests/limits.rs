//! SUP-2: the restart window. SUP-3: backoff. SUP-4: giving up.

use super::*;

/// Two restarts within 1 s.
fn two_a_second() -> SupervisorSpec {
    let mut spec = spec(Strategy::OneForOne, 2);
    spec.intensity.within = Duration::from_secs(1);
    spec
}

#[test]
fn sup_2_a_restart_is_forgotten_at_exactly_the_window_and_not_before() {
    for (wait, tolerated) in [(999, false), (1000, true)] {
        let mut rig = Rig::up(two_a_second(), workers(&["a"]));
        rig.crash_and_restart("a");
        rig.crash_and_restart("a");
        rig.wait(wait);
        let said = rig.crash("a");
        assert_eq!(said == ["start a#4"], tolerated, "{wait}: {said:?}");
    }
}

#[test]
fn sup_2_the_window_slides_and_does_not_tumble() {
    let mut rig = Rig::up(two_a_second(), workers(&["a"]));
    rig.crash_and_restart("a");
    rig.wait(900);
    rig.crash_and_restart("a");
    rig.wait(100);
    rig.crash_and_restart("a");
    rig.wait(100);
    assert_eq!(rig.crash("a"), ["down: gave up on a: panicked: boom"]);
}

#[test]
fn sup_2_intensity_zero_gives_up_at_the_first_failure() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 0), workers(&["a", "b"]));
    assert_eq!(rig.crash("b"), ["stop a#1"]);
    assert_eq!(rig.gone("a"), ["down: gave up on b: panicked: boom"]);
}

#[test]
fn sup_2_a_failed_restart_costs_a_unit() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 2), workers(&["a"]));
    assert_eq!(rig.crash("a"), ["start a#2"]);
    assert_eq!(rig.not_started("a"), ["start a#3"]);
    assert_eq!(
        rig.not_started("a"),
        ["down: gave up on a: failed: no port"]
    );
}

#[test]
fn sup_2_a_group_round_costs_one_unit() {
    let mut rig = Rig::up(spec(Strategy::OneForAll, 1), workers(&["a", "b", "c"]));
    rig.crash("a");
    rig.gone("c");
    assert_eq!(rig.gone("b"), ["start a#2"]);
    for name in ["a", "b", "c"] {
        rig.started(name);
    }
    assert_eq!(rig.crash("a"), ["stop c#2"]);
    rig.gone("c");
    assert_eq!(rig.gone("b"), ["down: gave up on a: panicked: boom"]);
}

#[test]
fn sup_2_the_budget_is_shared_and_a_child_can_have_its_own_in_addition() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 1), workers(&["a", "b"]));
    rig.crash_and_restart("a");
    assert_eq!(rig.crash("b"), ["stop a#2"]);

    let mut children = vec![parking("a"), worker("b")];
    children[0].intensity = Some(Intensity {
        max: 1,
        within: Duration::from_secs(60),
    });
    let mut rig = Rig::up(spec(Strategy::OneForOne, 9), children);
    rig.crash_and_restart("a");
    assert_eq!(rig.crash("a"), ["park a: panicked: boom"]);
    rig.crash_and_restart("b");
    rig.crash_and_restart("b");
}

#[test]
fn sup_3_r11_the_backoff_grows_to_its_limit_and_begins_anew_after_a_healthy_run() {
    let mut rig = Rig::up(patient(Strategy::OneForOne), workers(&["a"]));
    let mut delays = Vec::new();
    for _ in 0..6 {
        let said = rig.crash("a");
        let delay = said[0].strip_prefix("timer ");
        delays.push(delay.map_or(0, |delay| delay.parse::<u64>().unwrap()));
        if delay.is_some() {
            assert_eq!(rig.fire().len(), 1);
        }
        rig.started("a");
    }
    assert_eq!(delays, [0, 100, 200, 400, 800, 1000]);
    rig.wait(5000);
    assert_eq!(rig.crash("a"), ["start a#8"]);
}

#[test]
fn sup_3_only_a_healthy_run_of_one_incarnation_resets_the_backoff() {
    let mut rig = Rig::up(patient(Strategy::OneForOne), workers(&["a"]));
    rig.crash_and_restart("a");
    rig.wait(4999);
    assert_eq!(rig.crash("a"), ["timer 100"]);
    rig.fire();
    // Time spent in starting, or by an earlier incarnation, does not count as running time.
    rig.wait(10_000);
    rig.started("a");
    rig.wait(1);
    assert_eq!(rig.crash("a"), ["timer 200"]);
}

#[test]
fn sup_3_a_failed_start_lengthens_the_delay() {
    let mut rig = Rig::up(patient(Strategy::OneForOne), workers(&["a"]));
    assert_eq!(rig.crash("a"), ["start a#2"]);
    assert_eq!(rig.not_started("a"), ["timer 100"]);
    assert_eq!(rig.fire(), ["start a#3"]);
    assert_eq!(rig.not_started("a"), ["timer 200"]);
}

#[test]
fn sup_3_jitter_spreads_the_delay() {
    for (jitter, unit, millis) in [
        (RetryJitter::None, 0.5, 100),
        (RetryJitter::Full, 0.5, 50),
        (RetryJitter::Equal, 0.5, 75),
        (RetryJitter::Added(0.2), 0.5, 110),
    ] {
        let mut spec = patient(Strategy::OneForOne);
        if let Some(backoff) = &mut spec.backoff {
            backoff.delay.jitter = jitter;
        }
        let mut rig = Rig::up(spec, workers(&["a"]));
        rig.unit = unit;
        rig.crash_and_restart("a");
        assert_eq!(rig.crash("a"), [format!("timer {millis}")]);
    }
}

#[test]
fn sup_3_the_budget_is_asked_before_the_delay() {
    let mut spec = hesitant(Strategy::OneForOne);
    spec.intensity.max = 0;
    let mut rig = Rig::up(spec, vec![parking("a")]);
    assert_eq!(rig.crash("a"), ["park a: panicked: boom"]);
}

#[test]
fn sup_3_restarts_in_a_row_are_limited_although_delays_keep_the_window_empty() {
    let mut spec = patient(Strategy::OneForOne);
    spec.intensity.within = Duration::from_millis(1);
    if let Some(backoff) = &mut spec.backoff {
        backoff.max_in_a_row = Some(2);
    }
    let mut rig = Rig::up(spec, vec![parking("a")]);
    rig.crash_and_restart("a");
    rig.wait(10);
    assert_eq!(rig.crash("a"), ["timer 100"]);
    rig.fire();
    rig.started("a");
    rig.wait(10);
    assert_eq!(rig.crash("a"), ["park a: panicked: boom"]);
}

#[test]
fn sup_3_a_group_stops_at_once_and_starts_when_the_delay_is_over() {
    let mut rig = Rig::up(hesitant(Strategy::OneForAll), workers(&["a", "b"]));
    assert_eq!(rig.crash("a"), ["timer 10000", "stop b#1"]);
    assert_eq!(rig.gone("b"), NOTHING);
    let until = rig.now.after(Duration::from_secs(10));
    assert_eq!(rig.state("a"), ChildState::Waiting { until });
    assert_eq!(rig.state("b"), ChildState::Pending);
    assert_eq!(rig.fire(), ["start a#2"]);
    assert_eq!(rig.started("a"), ["start b#2"]);

    // The delay ends before the last sibling has stopped.
    rig.started("b");
    rig.wait(60_000);
    assert_eq!(rig.crash("a"), ["timer 10000", "stop b#2"]);
    assert_eq!(rig.fire(), NOTHING);
    assert_eq!(rig.gone("b"), ["start a#3"]);
}

#[test]
fn sup_3_a_failure_during_the_delay_widens_the_round() {
    let names = ["a", "b", "c"];
    let mut rig = Rig::up(hesitant(Strategy::RestForOne), workers(&names));
    assert_eq!(rig.crash("b"), ["timer 10000", "stop c#1"]);
    rig.gone("c");
    rig.wait(1000);
    assert_eq!(rig.crash("a"), ["timer 10000"]);
    assert_eq!(rig.fire(), NOTHING);
    assert_eq!(rig.fire(), ["start a#2"]);
    assert_eq!(rig.started("a"), ["start b#2"]);
    assert_eq!(rig.started("b"), ["start c#2"]);
}

#[test]
fn sup_3_a_stop_during_the_delay_starts_nothing_more() {
    let mut rig = Rig::up(hesitant(Strategy::OneForOne), workers(&["a"]));
    rig.crash("a");
    assert_eq!(rig.on(SupervisorEvent::Stop), ["down: shutdown"]);
    assert_eq!(rig.fire(), NOTHING);
}

#[test]
fn sup_4_r15_a_parked_child_stays_down_once_and_its_siblings_live() {
    let mut rig = Rig::up(
        spec(Strategy::OneForOne, 1),
        vec![parking("a"), parking("b")],
    );
    rig.crash_and_restart("a");
    assert_eq!(rig.crash("a"), ["park a: panicked: boom"]);
    assert_eq!(rig.state("a"), ChildState::Parked);
    assert_eq!(rig.state("b"), ChildState::Running);
    assert_eq!(rig.crash("a"), NOTHING);

    assert_eq!(rig.restart("a", 1), ["start a#3"]);
    assert_eq!(rig.started("a"), ["reply 1 ok"]);
    rig.crash_and_restart("a");
    assert_eq!(rig.crash("a"), ["park a: panicked: boom"]);
}

#[test]
fn sup_4_a_revival_that_fails_leaves_the_child_parked() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 0), vec![parking("a")]);
    rig.crash("a");
    rig.restart("a", 1);
    assert_eq!(
        rig.not_started("a"),
        ["reply 1 the child did not start: failed: no port"]
    );
    assert_eq!(rig.state("a"), ChildState::Parked);
}

#[test]
fn sup_4_a_child_parked_in_a_round_lets_its_siblings_start() {
    let children = vec![worker("a"), parking("b"), worker("c")];
    let mut rig = Rig::up(spec(Strategy::OneForAll, 1), children);
    rig.crash("a");
    rig.gone("c");
    rig.gone("b");
    assert_eq!(rig.started("a"), ["start b#2"]);
    assert_eq!(
        rig.not_started("b"),
        ["park b: failed: no port", "start c#2"]
    );
    assert_eq!(rig.started("c"), NOTHING);
    assert_eq!(rig.state("a"), ChildState::Running);
}

#[test]
fn sup_4_escalation_stops_the_others_in_reverse_and_says_who_and_why() {
    let mut rig = Rig::up(spec(Strategy::OneForOne, 0), workers(&["a", "b", "c"]));
    assert_eq!(rig.crash("b"), ["stop c#1"]);
    assert_eq!(rig.on(SupervisorEvent::Stop), NOTHING);
    assert_eq!(rig.gone("c"), ["stop a#1"]);
    let (child, incarnation) = rig.present("a");
    let cause = StopCause::Shutdown;
    let ended = SupervisorEvent::Ended {
        child,
        incarnation,
        cause,
    };
    let actions = rig.machine.on(rig.now, ended, &mut || 0.0);
    let last = StopCause::Crashed(PanicReport::new("boom"));
    let child = "b".to_owned();
    let end = SupervisorEnd::GaveUp { child, last };
    assert!(!end.cause().is_normal());
    assert_eq!(actions, [SupervisorAction::Down(end)]);
}

#[test]
fn sup_4_a_cause_says_all_that_is_known() {
    let mut report = PanicReport::new("index out of bounds");
    report.location = Some("src/planner.rs:7:9".into());
    report.also = Some(Box::new(PanicReport::new("in drop")));
    assert_eq!(
        StopCause::Crashed(report).to_string(),
        "panicked: index out of bounds at src/planner.rs:7:9; then, while it was dropped: in drop"
    );
}
