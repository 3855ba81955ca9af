//! Evidence, callers and the lease at the boundaries of their times and revisions.

use super::*;

fn no_evidence(replica: ReplicaId, revision: u64) -> FleetInput {
    let revision = Revision(revision);
    live(FleetWord::NoEvidence { replica, revision })
}

fn present(replica: ReplicaId) -> FleetInput {
    let calls = true;
    FleetInput::Present { replica, calls }
}

fn lease(holder: ReplicaId, revision: u64) -> FleetInput {
    let revision = Revision(revision);
    live(FleetWord::Lease { holder, revision })
}

fn recovered(revision: u64) -> FleetInput {
    live(FleetWord::Verdict {
        by: B,
        verdict: Verdict::Recovered,
        revision: Revision(revision),
    })
}

/// A machine that holds the lease of revision 5 since 0 ms.
fn holding() -> FleetDependency {
    let mut machine = connected();
    machine.on(at(0), FleetInput::ProbeDue);
    machine.on(at(10), FleetInput::Swapped(Ok(Revision(5))));
    machine.on(at(10), FleetInput::HalfOpen);
    machine
}

#[test]
fn flt_4_a_word_of_the_same_or_an_older_revision_changes_nothing() {
    let mut machine = connected();
    machine.on(at(0), evidence(B, 5));
    for revision in [4, 5] {
        machine.on(at(10), no_evidence(B, revision));
        machine.on(at(10), evidence(B, revision));
        assert_eq!(machine.evidence(), 1);
        assert_eq!(machine.next_deadline(), Some(at(1_000)), "{revision}");
    }
    machine.on(at(10), evidence(B, 6));
    assert_eq!(machine.next_deadline(), Some(at(1_010)));
    assert_eq!(machine.witnesses().collect::<Vec<_>>(), [B]);
    machine.on(at(10), no_evidence(B, 7));
    assert_eq!((machine.evidence(), machine.next_deadline()), (0, None));
}

#[test]
fn flt_4_a_suspicion_lasts_as_long_as_the_longest_evidence() {
    let mut machine = connected();
    machine.on(at(0), evidence(B, 1));
    machine.on(at(400), evidence(C, 2));
    assert_eq!(machine.suspicion().map(|one| one.until), Some(at(1_400)));
    machine.on(at(1_000), FleetInput::Tick);
    assert_eq!(machine.evidence(), 1);
    assert_eq!(machine.suspicion().map(|one| one.until), Some(at(1_400)));
    machine.on(at(1_400), FleetInput::Tick);
    assert_eq!(machine.suspicion(), None);
}

#[test]
fn flt_5_a_caller_counts_once_by_its_heartbeat_or_its_evidence() {
    let mut machine = connected();
    assert_eq!(machine.callers(at(0)), 1, "this one");
    machine.on(at(0), present(B));
    machine.on(at(0), evidence(B, 1));
    assert_eq!(machine.callers(at(0)), 2);
    machine.on(at(0), FleetInput::Gone(B));
    assert_eq!(machine.callers(at(0)), 2, "its evidence stands");
    machine.on(at(0), no_evidence(B, 2));
    assert_eq!(machine.callers(at(0)), 1);
    machine.on(at(0), evidence(C, 3));
    machine.on(at(0), present(C));
    assert_eq!(machine.callers(at(0)), 2);
    machine.on(at(0), no_evidence(C, 4));
    assert_eq!(machine.callers(at(0)), 2, "it calls");
    let (replica, calls) = (B, false);
    machine.on(at(0), FleetInput::Present { replica, calls });
    assert_eq!(machine.callers(at(0)), 2, "a replica that makes no calls");
}

#[test]
fn flt_5_a_caller_counts_for_its_time_and_longer_with_evidence() {
    let mut machine = connected();
    machine.on(at(0), present(B));
    machine.on(at(1_000), present(C));
    assert_eq!(machine.callers(at(59_999)), 3);
    assert_eq!(machine.callers(at(60_000)), 2);
    machine.on(at(60_500), evidence(B, 1));
    assert_eq!(machine.callers(at(60_500)), 3, "B says so");
    machine.on(at(60_600), present(C));
    assert_eq!(machine.callers(at(61_000)), 3);
    machine.on(at(61_500), FleetInput::Tick);
    assert_eq!(machine.callers(at(61_500)), 2);
}

#[test]
fn flt_5_a_quorum_that_was_lost_settles_anew() {
    let mut machine = connected();
    machine.on(at(0), evidence(B, 1));
    machine.on(at(0), evidence(C, 2));
    assert_eq!(adopted(&machine.on(at(199), FleetInput::Tick)), None);
    machine.on(at(199), no_evidence(C, 3));
    machine.on(at(199), FleetInput::Tick);
    assert_eq!(adopted(&machine.on(at(250), evidence(C, 4))), None);
    assert_eq!(machine.next_deadline(), Some(at(450)));
    assert_eq!(adopted(&machine.on(at(449), FleetInput::Tick)), None);
    let outputs = machine.on(at(450), FleetInput::Tick);
    assert_eq!(adopted(&outputs), Some((2, 3)));
    assert_eq!(machine.breaker(), OwnBreaker::Adopted);
    assert_eq!(machine.next_deadline(), Some(at(1_000)), "adopted once");
}

#[test]
fn flt_5_the_latest_begin_of_a_success_counts() {
    let mut machine = connected();
    machine.on(at(10), evidence(B, 1));
    machine.on(at(10), evidence(C, 2));
    machine.on(at(20), FleetInput::Succeeded { began: at(10) });
    machine.on(at(30), FleetInput::Succeeded { began: at(9) });
    assert_eq!(adopted(&machine.on(at(210), FleetInput::Tick)), None);
    assert_eq!(machine.next_deadline(), Some(at(1_010)));
}

#[test]
fn flt_8_a_verdict_ends_the_evidence_up_to_its_revision() {
    let mut machine = connected();
    machine.on(at(0), evidence(B, 4));
    machine.on(at(0), evidence(C, 6));
    machine.on(at(0), recovered(5));
    assert_eq!(machine.witnesses().collect::<Vec<_>>(), [C]);
    machine.on(at(0), recovered(6));
    assert_eq!(machine.evidence(), 0);
    let mut own = connected();
    own.on(at(0), evidence(B, 9));
    own.on(at(0), FleetInput::Closed { by_own_probe: true });
    assert_eq!(own.evidence(), 0, "an own probe knows better");
}

#[test]
fn flt_8_a_verdict_of_an_old_revision_or_of_its_own_is_not_heard() {
    let mut machine = connected();
    machine.on(at(0), FleetInput::Tripped { wait: 9_000 * MS });
    machine.on(at(0), lease(B, 7));
    for revision in [6, 7] {
        assert_eq!(machine.on(at(10), recovered(revision)), []);
        assert!(machine.lease(at(10)).is_some(), "{revision}");
    }
    let own = live(FleetWord::Verdict {
        by: ME,
        verdict: Verdict::Recovered,
        revision: Revision(8),
    });
    assert_eq!(machine.on(at(10), own), []);
    assert_eq!(machine.lease(at(10)), None);
    assert!(
        machine
            .on(at(10), recovered(9))
            .contains(&FleetOutput::Recovered { by: B })
    );
    let mut held = holding();
    let outputs = held.on(at(20), recovered(8));
    assert_eq!(outputs[0], FleetOutput::Fenced { by: B });
    assert_eq!(held.held(), None);
}

#[test]
fn flt_7_a_verdict_that_comes_behind_a_question_takes_nothing_from_its_answer() {
    for by in [ME, B] {
        let mut machine = connected();
        machine.on(at(0), FleetInput::ProbeDue);
        let verdict = Verdict::Failed {
            wait: Duration::ZERO,
            failed_periods: 1,
        };
        let revision = Revision(5);
        machine.on(
            at(10),
            live(FleetWord::Verdict {
                by,
                verdict,
                revision,
            }),
        );
        // It had expected the lease before that.
        let lost = machine.on(at(20), FleetInput::Swapped(Err(Revision(0))));
        assert_eq!(lost, [super::lease::hold_for_a_moment()], "{by:?}");
        let asks = FleetOutput::TakeLease { expected: revision };
        assert_eq!(machine.on(at(300), FleetInput::ProbeDue), [asks]);
    }
}

#[test]
fn flt_10_a_lease_of_the_snapshot_holds_if_it_is_younger_than_a_lease() {
    for (age, holds) in [(2_999, true), (3_000, false)] {
        let mut machine = connected();
        let (holder, revision) = (B, Revision(1));
        let word = FleetWord::Lease { holder, revision };
        let age = MS * age;
        machine.on(at(0), FleetInput::Heard { word, age });
        assert_eq!(machine.lease(at(0)).is_some(), holds, "{age:?}");
    }
}

#[test]
fn flt_7_a_lease_is_renewed_after_a_third_and_ends_without_an_answer() {
    let mut machine = holding();
    assert_eq!(machine.next_deadline(), Some(at(1_000)));
    assert_eq!(machine.on(at(999), FleetInput::Tick), []);
    let expected = Revision(5);
    let renewal = FleetOutput::TakeLease { expected };
    assert_eq!(machine.on(at(1_000), FleetInput::Tick), [renewal]);
    assert_eq!(machine.held(), Some(expected), "until it is answered");
    assert_eq!(machine.next_deadline(), Some(at(3_000)));
    let grant = FleetOutput::Breaker(BreakerCommand::Grant);
    assert_eq!(machine.on(at(1_500), FleetInput::ProbeDue), [grant]);
    machine.on(at(2_999), FleetInput::Tick);
    assert_eq!(machine.held(), Some(expected));
    assert_eq!(machine.on(at(3_000), FleetInput::Tick), []);
    assert_eq!(machine.held(), None);
}

#[test]
fn flt_8_a_renewal_that_another_replica_was_faster_than_is_fenced_off() {
    let renewing = || {
        let mut machine = holding();
        machine.on(at(1_000), FleetInput::Tick);
        machine
    };
    let mut machine = renewing();
    // Its word may be the own renewal's: the answer decides.
    assert_eq!(machine.on(at(1_010), lease(B, 8)), []);
    assert_eq!(machine.held(), Some(Revision(5)));
    let lost = FleetInput::Swapped(Err(Revision(8)));
    assert_eq!(machine.on(at(1_020), lost), [FleetOutput::Fenced { by: B }]);
    assert_eq!(machine.held(), None);
    let mut machine = renewing();
    machine.on(at(1_010), FleetInput::Swapped(Ok(Revision(9))));
    assert_eq!(machine.lease(at(1_010)), Some((ME, Duration::from_secs(3))));
    assert_eq!(machine.on(at(1_020), lease(B, 9)), [], "no newer one");
    assert_eq!(machine.held(), Some(Revision(9)));
    let fenced = FleetOutput::Fenced { by: B };
    assert_eq!(machine.on(at(1_020), lease(B, 10)), [fenced]);
}

#[test]
fn flt_8_a_verdict_waits_for_the_answer_to_a_renewal() {
    let ending = || {
        let mut machine = holding();
        machine.on(at(1_000), FleetInput::Tick);
        let closed = FleetInput::Closed { by_own_probe: true };
        assert_eq!(
            machine.on(at(1_005), closed),
            [],
            "the revision is not known"
        );
        assert_eq!(machine.held(), None);
        machine
    };
    let (expected, verdict) = (Revision(9), Verdict::Recovered);
    let mut machine = ending();
    assert_eq!(
        machine.on(at(1_010), FleetInput::Swapped(Ok(expected))),
        [FleetOutput::PutVerdict { expected, verdict }]
    );
    // Another replica has the lease by now, and its word counts.
    let mut machine = ending();
    machine.on(at(1_008), lease(B, 8));
    let lost = FleetInput::Swapped(Err(Revision(8)));
    assert_eq!(machine.on(at(1_010), lost), [FleetOutput::Fenced { by: B }]);
    // The breaker does not probe before.
    let mut machine = ending();
    let hold = machine.on(at(1_006), FleetInput::ProbeDue);
    assert!(matches!(
        hold[..],
        [FleetOutput::Breaker(BreakerCommand::Hold { .. })]
    ));
    // Without an answer it ends as a lease does.
    assert_eq!(machine.on(at(3_000), FleetInput::Tick), []);
    assert_eq!(machine.next_deadline(), None);
}

#[test]
fn flt_1_an_answer_to_a_question_that_was_given_up_is_remembered_for_the_next() {
    let mut machine = connected();
    machine.on(at(0), FleetInput::ProbeDue);
    assert_eq!(
        machine.on(at(100), FleetInput::ProbeDue),
        [],
        "it has asked"
    );
    assert_eq!(machine.on(at(249), FleetInput::Tick), []);
    machine.on(at(250), FleetInput::Tick);
    machine.on(at(300), FleetInput::Swapped(Ok(Revision(3))));
    assert_eq!(machine.held(), None);
    let expected = Revision(3);
    let asks = FleetOutput::TakeLease { expected };
    assert_eq!(machine.on(at(400), FleetInput::ProbeDue), [asks]);
    let refused = machine.on(at(410), FleetInput::Swapped(Err(Revision(4))));
    assert_eq!(refused, [super::lease::hold_for_a_moment()]);
    machine.on(at(420), FleetInput::Disconnected);
    machine.on(at(420), FleetInput::Swapped(Err(Revision(4))));
    assert_eq!(machine.next_deadline(), None);
}

#[test]
fn flt_9_a_success_ends_the_turns_of_others() {
    let mut machine = connected();
    let failed = FleetInput::ProbeFailed {
        wait: Duration::ZERO,
        failed_periods: 1,
    };
    for _ in 0..3 {
        machine.on(at(0), failed);
    }
    machine.on(at(0), FleetInput::Closed { by_own_probe: true });
    machine.on(at(500), FleetInput::Tripped { wait: 100 * MS });
    machine.on(at(1_000), failed);
    let hold = FleetOutput::Breaker(BreakerCommand::Hold {
        wait: 60 * MS,
        failed_periods: 0,
    });
    assert_eq!(machine.on(at(1_000), FleetInput::ProbeDue), [hold]);
}

#[test]
fn flt_5_a_success_of_before_the_present_evidence_says_nothing_about_it() {
    let mut machine = connected();
    machine.on(at(0), evidence(B, 1));
    machine.on(at(500), FleetInput::Succeeded { began: at(400) });
    machine.on(at(1_000), FleetInput::Tick);
    assert_eq!(machine.evidence(), 0);
    machine.on(at(2_000), evidence(B, 2));
    machine.on(at(2_000), evidence(C, 3));
    let outputs = machine.on(at(2_200), FleetInput::Tick);
    assert_eq!(adopted(&outputs), Some((2, 3)));
}
