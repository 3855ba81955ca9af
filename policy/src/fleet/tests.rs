//! The machine by itself, and fleets of three on a simulated board.

mod board;
mod boundaries;
mod history;

use super::*;
use crate::{Rate, Time};

const MS: Duration = Duration::from_millis(1);
const ME: ReplicaId = ReplicaId(1);
const B: ReplicaId = ReplicaId(2);
const C: ReplicaId = ReplicaId(3);

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn rate(fraction: f64) -> Rate {
    Rate::new(fraction).unwrap()
}

fn settings(replica: ReplicaId) -> FleetSettings {
    FleetSettings {
        replica,
        trips: TripSharing::Confirm,
        confirm: rate(0.6),
        quorum: Quorum {
            share: rate(0.5),
            at_least: 2,
            within: Duration::from_secs(60),
        },
        settle: 200 * MS,
        timeout: 250 * MS,
        lease: Duration::from_secs(3),
        recovery_timeout: Duration::from_secs(1),
    }
}

fn connected() -> FleetDependency {
    let mut machine = FleetDependency::new(settings(ME));
    assert_eq!(machine.on(at(0), FleetInput::Connected), []);
    machine
}

fn live(word: FleetWord) -> FleetInput {
    let age = Duration::ZERO;
    FleetInput::Heard { word, age }
}

fn evidence(replica: ReplicaId, revision: u64) -> FleetInput {
    live(FleetWord::Evidence {
        replica,
        wait: Duration::from_secs(1),
        revision: Revision(revision),
    })
}

fn suspects(outputs: &[FleetOutput]) -> Option<bool> {
    outputs.iter().find_map(|output| match output {
        FleetOutput::Suspect(suspicion) => Some(suspicion.is_some()),
        _ => None,
    })
}

fn adopted(outputs: &[FleetOutput]) -> Option<(u32, u32)> {
    outputs.iter().find_map(|output| match output {
        FleetOutput::Breaker(BreakerCommand::Adopt { replicas, of, .. }) => Some((*replicas, *of)),
        _ => None,
    })
}

#[test]
fn flt_4_one_replicas_word_makes_suspicious_until_it_ends_or_is_taken_back() {
    let mut machine = connected();
    assert_eq!(suspects(&machine.on(at(0), evidence(B, 5))), Some(true));
    assert_eq!(machine.next_deadline(), Some(at(1_000)));
    let outputs = machine.on(at(900), FleetInput::Tick);
    assert_eq!(outputs, [], "one replica opens no other");
    assert_eq!(
        suspects(&machine.on(at(1_000), FleetInput::Tick)),
        Some(false)
    );
    machine.on(at(1_000), evidence(B, 6));
    let taken_back = FleetWord::NoEvidence {
        replica: B,
        revision: Revision(7),
    };
    assert_eq!(
        suspects(&machine.on(at(1_100), live(taken_back))),
        Some(false)
    );
    let old = machine.on(at(1_100), evidence(B, 6));
    assert_eq!(suspects(&old), Some(true), "nothing of it is remembered");
}

#[test]
fn flt_5_a_quorum_opens_after_it_settled_and_not_against_own_successes() {
    for succeeds in [false, true] {
        let mut machine = connected();
        assert_eq!(adopted(&machine.on(at(0), evidence(B, 1))), None);
        assert_eq!(adopted(&machine.on(at(10), evidence(C, 2))), None);
        assert_eq!(machine.next_deadline(), Some(at(210)));
        machine.on(
            at(20),
            FleetInput::Succeeded { began: at(0) }.filtered(succeeds),
        );
        let outputs = machine.on(at(210), FleetInput::Tick);
        let wanted = (!succeeds).then_some((2, 3));
        assert_eq!(adopted(&outputs), wanted, "{succeeds}");
    }
}

impl FleetInput {
    /// This input, or none.
    fn filtered(self, counts: bool) -> Self {
        if counts { self } else { Self::Tick }
    }
}

#[test]
fn flt_5_a_success_of_before_the_evidence_says_nothing() {
    let mut machine = connected();
    machine.on(at(5), FleetInput::Succeeded { began: at(4) });
    machine.on(at(10), evidence(B, 1));
    machine.on(at(10), evidence(C, 2));
    machine.on(at(20), FleetInput::Succeeded { began: at(9) });
    assert_eq!(
        adopted(&machine.on(at(210), FleetInput::Tick)),
        Some((2, 3))
    );
}

#[test]
fn flt_5_the_quorum_is_of_those_that_call_and_a_fleet_of_two_has_none() {
    let mut machine = connected();
    for replica in 4..8 {
        let replica = ReplicaId(replica);
        machine.on(
            at(0),
            FleetInput::Present {
                replica,
                calls: true,
            },
        );
    }
    machine.on(at(0), evidence(B, 1));
    machine.on(at(0), evidence(C, 2));
    assert_eq!(
        adopted(&machine.on(at(900), FleetInput::Tick)),
        None,
        "2 of 7"
    );
    for replica in 4..8 {
        machine.on(at(900), FleetInput::Gone(ReplicaId(replica)));
    }
    assert_eq!(
        adopted(&machine.on(at(950), FleetInput::Tick)),
        None,
        "it settles first"
    );
    let mut pair = connected();
    pair.on(at(0), evidence(B, 1));
    assert_eq!(adopted(&pair.on(at(900), FleetInput::Tick)), None);
}

#[test]
fn flt_6_any_and_off_are_what_they_say() {
    let any = |trips| {
        let mut machine = FleetDependency::new(FleetSettings {
            trips,
            ..settings(ME)
        });
        machine.on(at(0), FleetInput::Connected);
        machine.on(at(0), evidence(B, 1))
    };
    assert_eq!(adopted(&any(TripSharing::Any)), Some((1, 2)));
    assert_eq!(any(TripSharing::Off), []);
    let mut off = FleetDependency::new(FleetSettings {
        trips: TripSharing::Off,
        ..settings(ME)
    });
    off.on(at(0), FleetInput::Connected);
    let wait = 500 * MS;
    let said = off.on(at(0), FleetInput::Tripped { wait });
    assert_eq!(said, [FleetOutput::PutEvidence { wait }]);
}

#[test]
fn flt_7_a_lease_that_another_holds_is_waited_for_until_it_ends_here() {
    let mut machine = connected();
    machine.on(at(0), FleetInput::Tripped { wait: 100 * MS });
    let (holder, revision) = (B, Revision(9));
    machine.on(at(100), live(FleetWord::Lease { holder, revision }));
    for millis in [100, 2_000, 3_099] {
        let outputs = machine.on(at(millis), FleetInput::ProbeDue);
        assert_eq!(outputs, [lease::hold_for_a_moment()], "{millis}");
    }
    let expected = Revision(9);
    let outputs = machine.on(at(3_100), FleetInput::ProbeDue);
    assert_eq!(outputs, [FleetOutput::TakeLease { expected }]);
    let outputs = machine.on(at(3_110), FleetInput::Swapped(Ok(Revision(12))));
    assert_eq!(outputs, [FleetOutput::Breaker(BreakerCommand::Grant)]);
    assert_eq!(machine.held(), Some(Revision(12)));
}

#[test]
fn flt_7_a_lease_is_renewed_while_a_probe_is_under_way_and_runs_out_otherwise() {
    for probes in [true, false] {
        let mut machine = connected();
        machine.on(at(0), FleetInput::ProbeDue);
        machine.on(at(10), FleetInput::Swapped(Ok(Revision(1))));
        machine.on(at(10), FleetInput::HalfOpen);
        machine.on(at(20), FleetInput::Waits(!probes));
        assert_eq!(machine.next_deadline(), Some(at(1_000)));
        let outputs = machine.on(at(1_000), FleetInput::Tick);
        if probes {
            let expected = Revision(1);
            assert_eq!(outputs, [FleetOutput::TakeLease { expected }]);
            machine.on(at(1_010), FleetInput::Swapped(Ok(Revision(4))));
            assert_eq!(machine.held(), Some(Revision(4)));
        } else {
            assert_eq!((outputs.len(), machine.held()), (0, None));
        }
    }
}

#[test]
fn flt_1_a_board_that_is_gone_or_silent_lets_the_probe_go_alone() {
    let alone = [
        FleetOutput::Alone,
        FleetOutput::Breaker(BreakerCommand::Grant),
    ];
    let mut machine = FleetDependency::new(settings(ME));
    assert_eq!(machine.on(at(0), FleetInput::ProbeDue), alone);
    let mut machine = connected();
    machine.on(at(0), FleetInput::ProbeDue);
    assert_eq!(machine.next_deadline(), Some(at(250)));
    assert_eq!(machine.on(at(250), FleetInput::Tick), alone);
    let late = machine.on(at(300), FleetInput::Swapped(Ok(Revision(3))));
    assert_eq!(
        (late.len(), machine.held()),
        (0, None),
        "an answer that comes late"
    );
}

#[test]
fn flt_8_a_verdict_counts_on_and_a_late_one_is_not_given() {
    let mut machine = connected();
    machine.on(at(0), FleetInput::ProbeDue);
    machine.on(at(10), FleetInput::Swapped(Ok(Revision(5))));
    machine.on(at(10), FleetInput::HalfOpen);
    let (holder, revision) = (B, Revision(8));
    let outputs = machine.on(at(20), live(FleetWord::Lease { holder, revision }));
    assert_eq!(outputs, [FleetOutput::Fenced { by: B }]);
    let closed = FleetInput::Closed { by_own_probe: true };
    let outputs = machine.on(at(30), closed);
    let is_verdict = |output: &FleetOutput| matches!(output, FleetOutput::PutVerdict { .. });
    assert!(!outputs.iter().any(is_verdict), "{outputs:?}");
}

#[test]
fn flt_8_others_follow_a_verdict() {
    let verdict = |verdict, revision| {
        live(FleetWord::Verdict {
            by: B,
            verdict,
            revision: Revision(revision),
        })
    };
    let mut machine = connected();
    machine.on(at(0), FleetInput::Tripped { wait: 100 * MS });
    machine.on(at(0), evidence(C, 1));
    let failed = Verdict::Failed {
        wait: 2_000 * MS,
        failed_periods: 3,
    };
    let hold = FleetOutput::Breaker(BreakerCommand::Hold {
        wait: 2_000 * MS,
        failed_periods: 3,
    });
    assert_eq!(machine.on(at(50), verdict(failed, 4)), [hold]);
    let outputs = machine.on(at(60), verdict(Verdict::Recovered, 5));
    assert!(
        outputs.contains(&FleetOutput::Recovered { by: B }),
        "{outputs:?}"
    );
    assert_eq!(
        machine.evidence(),
        0,
        "evidence of before the verdict has ended"
    );
    let outputs = machine.on(
        at(60),
        FleetInput::Closed {
            by_own_probe: false,
        },
    );
    assert!(
        outputs.contains(&FleetOutput::TakeEvidenceBack),
        "{outputs:?}"
    );
    // Suspicious for one recovery time, although no evidence stands.
    assert_eq!(machine.next_deadline(), Some(at(1_060)));
    assert_eq!(
        suspects(&machine.on(at(1_060), FleetInput::Tick)),
        Some(false)
    );
    assert_eq!(machine.on(at(1_070), verdict(Verdict::Recovered, 5)), []);
}

#[test]
fn flt_9_a_replica_whose_probe_failed_lets_others_go_first() {
    let mut machine = connected();
    let mut now = 0;
    for turns in [1, 2, 3, 4, 4] {
        let failed = FleetInput::ProbeFailed {
            wait: Duration::ZERO,
            failed_periods: 1,
        };
        machine.on(at(now), FleetInput::HalfOpen);
        machine.on(at(now), failed);
        let hold = FleetOutput::Breaker(BreakerCommand::Hold {
            wait: MS * (60 * turns),
            failed_periods: 0,
        });
        assert_eq!(machine.on(at(now), FleetInput::ProbeDue), [hold]);
        now += u64::from(turns) * 60;
        let outputs = machine.on(at(now), FleetInput::ProbeDue);
        assert!(
            matches!(outputs[..], [FleetOutput::TakeLease { .. }]),
            "{outputs:?}"
        );
        machine.on(at(now), FleetInput::Swapped(Err(Revision(0))));
    }
}

#[test]
fn flt_10_a_word_of_the_snapshot_is_aged() {
    let mut machine = connected();
    let word = FleetWord::Evidence {
        replica: B,
        wait: Duration::from_secs(1),
        revision: Revision(1),
    };
    let age = 700 * MS;
    machine.on(at(0), FleetInput::Heard { word, age });
    assert_eq!(machine.next_deadline(), Some(at(300)));
    let age = Duration::from_secs(2);
    let mut other = connected();
    assert_eq!(other.on(at(0), FleetInput::Heard { word, age }), []);
}

#[test]
fn flt_8_a_verdict_of_before_a_breaker_opened_says_nothing_about_it() {
    for (age, closes) in [(0, true), (400, true), (600, false)] {
        let mut machine = connected();
        let wait = 9_000 * MS;
        machine.on(at(500), FleetInput::Tripped { wait });
        let word = FleetWord::Verdict {
            by: B,
            verdict: Verdict::Recovered,
            revision: Revision(1),
        };
        let age = Duration::from_millis(age);
        let outputs = machine.on(at(1_000), FleetInput::Heard { word, age });
        let recovered = FleetOutput::Recovered { by: B };
        assert_eq!(outputs.contains(&recovered), closes, "{age:?}");
    }
}

#[test]
fn flt_15_a_new_board_begins_with_new_revisions() {
    let mut machine = connected();
    let lease = |revision| FleetWord::Lease {
        holder: B,
        revision: Revision(revision),
    };
    machine.on(at(0), live(lease(90)));
    machine.on(at(0), evidence(B, 91));
    machine.on(at(5_000), FleetInput::Disconnected);
    machine.on(at(5_000), FleetInput::Connected);
    let age = Duration::from_secs(60);
    let word = lease(2);
    machine.on(at(5_000), FleetInput::Heard { word, age });
    assert_eq!(
        machine.lease(at(5_000)),
        None,
        "it is over by the board's clock"
    );
    machine.on(at(5_000), evidence(B, 3));
    assert_eq!(machine.evidence(), 1);
    let outputs = machine.on(at(5_000), FleetInput::ProbeDue);
    let expected = Revision(2);
    assert_eq!(outputs, [FleetOutput::TakeLease { expected }]);
}

#[test]
fn flt_15_own_evidence_is_said_again_on_return_and_nothing_while_away() {
    let mut machine = FleetDependency::new(settings(ME));
    let wait = 1_000 * MS;
    assert_eq!(machine.on(at(0), FleetInput::Tripped { wait }), []);
    let said = machine.on(at(400), FleetInput::Connected);
    assert_eq!(said, [FleetOutput::PutEvidence { wait: 600 * MS }]);
    machine.on(at(500), FleetInput::Disconnected);
    assert_eq!(
        machine.on(at(2_000), FleetInput::Connected),
        [],
        "it has ended"
    );
}

#[test]
fn flt_8_a_holder_gives_the_verdict_of_its_probe_on_its_own_revision() {
    let held = || {
        let mut machine = connected();
        machine.on(at(0), FleetInput::ProbeDue);
        machine.on(at(10), FleetInput::Swapped(Ok(Revision(5))));
        machine.on(at(10), FleetInput::HalfOpen);
        machine
    };
    let expected = Revision(5);
    let verdict = Verdict::Recovered;
    let closed = FleetInput::Closed { by_own_probe: true };
    let mut machine = held();
    let said = machine.on(at(30), closed);
    assert_eq!(said, [FleetOutput::PutVerdict { expected, verdict }]);
    assert_eq!(machine.held(), None);
    assert_eq!(machine.on(at(40), closed), [], "once");
    let (wait, failed_periods) = (500 * MS, 2);
    let failed = FleetInput::ProbeFailed {
        wait,
        failed_periods,
    };
    let verdict = Verdict::Failed {
        wait,
        failed_periods,
    };
    let verdict = FleetOutput::PutVerdict { expected, verdict };
    let evidence = FleetOutput::PutEvidence { wait };
    assert_eq!(held().on(at(30), failed), [verdict, evidence]);
    let mut away = held();
    away.on(at(20), FleetInput::Disconnected);
    assert_eq!(away.on(at(30), closed), [], "FLT-15: nothing while away");
}

#[test]
fn flt_8_only_an_open_breaker_is_held_and_only_for_the_rest_of_the_wait() {
    let failed = |age| FleetInput::Heard {
        word: FleetWord::Verdict {
            by: B,
            verdict: Verdict::Failed {
                wait: 400 * MS,
                failed_periods: 3,
            },
            revision: Revision(4),
        },
        age,
    };
    assert_eq!(connected().on(at(900), failed(Duration::ZERO)), []);
    for (age, held) in [(399, 1), (400, 0)] {
        let mut machine = connected();
        machine.on(at(0), FleetInput::Tripped { wait: 9_000 * MS });
        let outputs = machine.on(at(900), failed(age * MS));
        assert_eq!(outputs.len(), held, "{age}");
    }
}

#[test]
fn flt_3_own_evidence_stands_for_its_wait_and_is_taken_back_only_if_it_was_said() {
    let mut machine = connected();
    assert!(!machine.has_evidence(at(0)));
    let closed = FleetInput::Closed {
        by_own_probe: false,
    };
    assert_eq!(machine.on(at(0), closed), [], "there is none");
    machine.on(at(0), FleetInput::Tripped { wait: 100 * MS });
    assert!(machine.has_evidence(at(99)) && !machine.has_evidence(at(100)));
    machine.on(at(100), FleetInput::Disconnected);
    assert_eq!(
        machine.on(at(100), FleetInput::Connected),
        [],
        "it has ended"
    );
    machine.on(at(100), FleetInput::Disconnected);
    assert_eq!(machine.on(at(110), closed), [], "nothing while away");
    assert!(!machine.has_evidence(at(50)));
}

#[test]
fn a_view_of_the_machine_is_what_it_acts_on() {
    let mut machine = connected();
    machine.on(at(0), evidence(B, 5));
    let suspicion = Suspicion {
        share: rate(0.6),
        until: at(1_000),
    };
    assert_eq!(machine.suspicion(), Some(suspicion));
    assert_eq!(machine.callers(at(0)), 2, "evidence is a caller's word");
    let (replica, calls) = (C, true);
    machine.on(at(0), FleetInput::Present { replica, calls });
    assert_eq!(machine.callers(at(0)), 3);
    let (holder, revision) = (B, Revision(6));
    machine.on(at(0), live(FleetWord::Lease { holder, revision }));
    let left = Duration::from_secs(2);
    assert_eq!(machine.lease(at(1_000)), Some((B, left)));
    assert_eq!(machine.lease(at(3_000)), None);
    machine.reconfigure(FleetSettings {
        trips: TripSharing::Off,
        ..settings(ME)
    });
    assert_eq!(suspects(&machine.on(at(10), FleetInput::Tick)), Some(false));
}
