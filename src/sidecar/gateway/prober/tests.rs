use super::*;
use crate::Verdict;

const EVERY: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1000)
}

fn seen(state: State) -> ProbeView {
    ProbeView {
        state,
        is_left_alone: false,
        is_probed: false,
        wait: None,
        submitted: 7,
        failures: 0,
    }
}

fn answer(class: Class) -> ProbeAnswer {
    ProbeAnswer {
        verdict: Verdict::from(class),
        text: String::new(),
        retry_after: None,
        is_misplaced: false,
    }
}

fn wait(seconds: u64) -> ProbeStep {
    ProbeStep::Wait(Duration::from_secs(seconds))
}

#[test]
fn brk_13_a_closed_breaker_is_probed_while_no_call_comes() {
    let mut rhythm = ProbeRhythm::new(at(0));
    let mut now_seen = seen(State::Closed);
    assert_eq!(rhythm.step(at(0), &now_seen, EVERY), wait(10));
    assert_eq!(rhythm.step(at(4), &now_seen, EVERY), wait(6));
    now_seen.submitted += 1;
    assert_eq!(rhythm.step(at(10), &now_seen, EVERY), wait(10));
    assert_eq!(rhythm.step(at(20), &now_seen, EVERY), ProbeStep::Probe);
    assert!(rhythm.answered(at(20), &answer(Class::Success), (&now_seen, EVERY)));
    assert_eq!(rhythm.step(at(21), &now_seen, EVERY), wait(9));
}

#[test]
fn brk_13_a_half_open_breaker_is_probed_at_once_until_it_has_decided() {
    let mut rhythm = ProbeRhythm::new(at(0));
    let mut open = seen(State::Open);
    open.wait = Some(Duration::from_secs(30));
    assert_eq!(rhythm.step(at(0), &open, EVERY), wait(30));
    let half_open = seen(State::HalfOpen);
    assert_eq!(rhythm.step(at(30), &half_open, EVERY), ProbeStep::Probe);
    assert!(rhythm.answered(at(31), &answer(Class::Success), (&half_open, EVERY)));
    // It needs another success.
    assert_eq!(rhythm.step(at(31), &half_open, EVERY), ProbeStep::Probe);
    let mut probed = half_open;
    probed.is_probed = true;
    assert_eq!(rhythm.step(at(31), &probed, EVERY), wait(1));
}

#[test]
fn brk_13_an_answer_that_says_nothing_is_asked_for_again_later() {
    let mut rhythm = ProbeRhythm::new(at(0));
    let half_open = seen(State::HalfOpen);
    assert_eq!(rhythm.step(at(0), &half_open, EVERY), ProbeStep::Probe);
    let throttled = ProbeAnswer {
        retry_after: Some(Duration::from_secs(60)),
        ..answer(Class::Throttled)
    };
    assert!(!rhythm.answered(at(0), &throttled, (&half_open, EVERY)));
    assert_eq!(rhythm.step(at(1), &half_open, EVERY), wait(59));
    assert!(!rhythm.answered(at(60), &answer(Class::Rejected), (&half_open, EVERY)));
    assert_eq!(rhythm.step(at(60), &half_open, EVERY), wait(10));
}

#[test]
fn brk_13_a_good_probe_takes_back_failed_probes_and_never_failed_calls() {
    let mut rhythm = ProbeRhythm::new(at(0));
    let mut closed = seen(State::Closed);
    rhythm.step(at(0), &closed, EVERY);
    closed.failures = 3;
    assert!(!rhythm.answered(at(10), &answer(Class::Success), (&closed, EVERY)));
    closed.failures = 0;
    assert!(rhythm.answered(at(20), &answer(Class::Failure), (&closed, EVERY)));
    closed.failures = 1;
    assert!(rhythm.answered(at(30), &answer(Class::Success), (&closed, EVERY)));
    // A call has failed between two probes.
    assert!(rhythm.answered(at(40), &answer(Class::Failure), (&closed, EVERY)));
    closed.submitted += 1;
    closed.failures = 2;
    rhythm.step(at(41), &closed, EVERY);
    assert!(!rhythm.answered(at(51), &answer(Class::Success), (&closed, EVERY)));
}

#[test]
fn brk_13_an_override_and_a_pause_are_left_alone() {
    let mut rhythm = ProbeRhythm::new(at(0));
    let mut overridden = seen(State::HalfOpen);
    overridden.is_left_alone = true;
    assert_eq!(rhythm.step(at(0), &overridden, EVERY), wait(10));
    let mut paused = seen(State::Closed);
    paused.wait = Some(Duration::from_secs(25));
    assert_eq!(rhythm.step(at(100), &paused, EVERY), wait(25));
}
