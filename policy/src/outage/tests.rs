//! Outages: begin, cause, probes, end, and what is kept.

use std::num::NonZeroU32;

use super::*;
use crate::{BreakerCause, FailureNote, Symptom, TimeoutSettings, TripReason};

fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1_000)
}

fn errors(errors: u64) -> AnswerCounts {
    AnswerCounts {
        errors,
        ..AnswerCounts::default()
    }
}

fn own(own: u64) -> AnswerCounts {
    AnswerCounts {
        own,
        ..AnswerCounts::default()
    }
}

fn trip() -> BreakerCause {
    BreakerCause::Tripped {
        reason: TripReason::Consecutive {
            failures: 5,
            threshold: NonZeroU32::MIN,
        },
        last_failure: None,
    }
}

fn cause(symptom: Symptom) -> OutageCause {
    let last = FailureNote {
        symptom: Some(symptom),
        ..FailureNote::default()
    };
    OutageCause::of_trip(&trip(), Some(&last))
}

fn opened(log: &mut OutageLog, seconds: u64, id: u64, count: u64) -> bool {
    log.begin(
        at(seconds),
        OutageCondition::BreakerOpen,
        errors(count),
        || (id, cause(Symptom::Status(500))),
    )
}

fn probe(seconds: u64, succeeded: bool) -> ProbeNote {
    ProbeNote {
        at: at(seconds),
        succeeded,
        text: String::new(),
    }
}

#[test]
fn hlt_2_an_outage_keeps_its_begin_and_first_cause_through_its_probes() {
    let mut log = OutageLog::default();
    assert!(opened(&mut log, 10, 1, 5));
    for second in [20, 30] {
        log.probes(1, 1, probe(second, false));
        // Each failed probe opens the breaker again.
        assert!(
            !log.begin(at(second), OutageCondition::BreakerOpen, errors(7), || {
                unreachable!("the outage stands")
            })
        );
    }
    let outage = log.standing(errors(25)).unwrap();
    assert_eq!((outage.since, outage.ended), (at(10), None));
    assert_eq!(outage.cause.text, "500 from the dependency");
    assert_eq!(outage.cause.status, Some(500));
    assert!(outage.cause.rule.starts_with("5 calls in a row failed"));
    assert_eq!((outage.probes, outage.probes_failed), (2, 2));
    assert_eq!(outage.last_probe, Some(probe(30, false)));
    assert_eq!(outage.affected, errors(20));
    log.probes(1, 0, probe(40, true));
    assert!(log.end(
        at(40),
        OutageCondition::BreakerOpen,
        OutageEnding::Recovery,
        errors(26)
    ));
    assert_eq!(log.standing(errors(30)), None);
    let ended = log.ended().next().unwrap();
    assert_eq!((ended.probes, ended.probes_failed), (3, 2));
    assert_eq!((ended.ended, ended.affected), (Some(at(40)), errors(21)));
}

#[test]
fn hlt_2_an_outage_lasts_until_its_last_condition_is_gone() {
    let mut log = OutageLog::default();
    assert!(opened(&mut log, 1, 1, 0));
    let more = |log: &mut OutageLog, condition| {
        log.begin(at(2), condition, errors(0), || unreachable!("it stands"))
    };
    assert!(!more(&mut log, OutageCondition::Errors));
    assert!(log.has(OutageCondition::Errors) && !log.has(OutageCondition::NoWorker));
    assert!(!log.end(
        at(3),
        OutageCondition::BreakerOpen,
        OutageEnding::Recovery,
        errors(0)
    ));
    assert!(!log.end(
        at(3),
        OutageCondition::Misconfigured,
        OutageEnding::Recovery,
        errors(0)
    ));
    assert!(log.end(
        at(4),
        OutageCondition::Errors,
        OutageEnding::Recovery,
        errors(0)
    ));
    assert!(
        !log.end(
            at(5),
            OutageCondition::Errors,
            OutageEnding::Recovery,
            errors(0)
        ),
        "only once"
    );
    assert!(!log.end_all(at(5), OutageEnding::Recovery, errors(0)));
}

#[test]
fn hlt_2_the_last_fifty_are_kept_beside_the_one_that_stands() {
    let mut log = OutageLog::default();
    let opened = |log: &mut OutageLog, seconds: u64, id| {
        let condition = OutageCondition::BreakerOpen;
        log.begin(at(seconds), condition, own(id), || {
            (id, cause(Symptom::Status(500)))
        })
    };
    for id in 1..=60 {
        assert!(opened(&mut log, id * 10, id));
        assert!(log.end(
            at(id * 10 + 5),
            OutageCondition::BreakerOpen,
            OutageEnding::Recovery,
            own(id)
        ));
    }
    assert!(opened(&mut log, 700, 61));
    let kept: Vec<u64> = log.ended().map(|outage| outage.id).collect();
    assert_eq!(kept, (11..=60).rev().collect::<Vec<_>>());
    assert_eq!(log.standing(errors(0)).unwrap().id, 61);
}

#[test]
fn hlt_2_a_worker_that_starts_and_ends_again_is_one_outage() {
    let mut log = OutageLog::default();
    let parked = |log: &mut OutageLog, seconds, id| {
        log.begin(
            at(seconds),
            OutageCondition::NoWorker,
            AnswerCounts {
                errors: seconds,
                own: if seconds > 10 { seconds } else { 0 },
                by_fallback: 0,
            },
            || {
                let text = "exit code 1".to_owned();
                (
                    id,
                    OutageCause::of_kind(CauseKind::Parked, text, String::new()),
                )
            },
        )
    };
    assert!(parked(&mut log, 1, 1));
    assert!(log.end(
        at(5),
        OutageCondition::NoWorker,
        OutageEnding::Recovery,
        errors(5)
    ));
    assert!(!parked(&mut log, 30, 2), "it goes on");
    let outage = log.standing(errors(31)).unwrap();
    assert_eq!((outage.id, outage.since), (1, at(1)));
    assert_eq!(outage.affected, errors(5));
    assert!(log.end(
        at(31),
        OutageCondition::NoWorker,
        OutageEnding::Recovery,
        errors(31)
    ));
    assert!(parked(&mut log, 91, 2), "a minute later it is another one");
}

#[test]
fn hlt_2_probes_that_succeed_while_all_calls_fail_divide_no_outage() {
    let mut log = OutageLog::default();
    assert!(opened(&mut log, 10, 1, 0));
    let note = Acknowledgement {
        by: "ann".to_owned(),
        note: "on it".to_owned(),
        at: at(11),
    };
    assert!(log.acknowledge(1, note.clone()));
    for round in 1..=20 {
        let (ends, begins) = (round * 100, round * 100 + 90);
        assert!(log.end(
            at(ends),
            OutageCondition::BreakerOpen,
            OutageEnding::Recovery,
            errors(round)
        ));
        assert!(!opened(&mut log, begins, 2, round + 1), "it goes on");
    }
    let outage = log.standing(errors(30)).unwrap();
    assert_eq!((outage.id, outage.since), (1, at(10)));
    assert_eq!(outage.acknowledged, Some(note));
    assert_eq!(log.ended().count(), 0);
    // One call that is answered, and it is another one.
    assert!(log.end(
        at(3_000),
        OutageCondition::BreakerOpen,
        OutageEnding::Recovery,
        own(4)
    ));
    let begun = log.begin(at(3_001), OutageCondition::BreakerOpen, own(5), || {
        (2, cause(Symptom::Status(500)))
    });
    assert!(begun);
    // A dependency that was not called for long may have been well.
    assert!(log.end(
        at(4_000),
        OutageCondition::BreakerOpen,
        OutageEnding::Recovery,
        own(5)
    ));
    let begun = log.begin(at(7_600), OutageCondition::BreakerOpen, own(5), || {
        (3, cause(Symptom::Status(500)))
    });
    assert!(begun);
}

#[test]
fn hlt_2_an_acknowledgement_stays_with_its_outage() {
    let mut log = OutageLog::default();
    opened(&mut log, 1, 7, 0);
    let note = Acknowledgement {
        by: "ann".to_owned(),
        note: "on it".to_owned(),
        at: at(2),
    };
    assert!(!log.acknowledge(8, note.clone()));
    assert!(log.acknowledge(7, note.clone()));
    log.end_all(at(9), OutageEnding::Recovery, errors(0));
    assert_eq!(log.ended().next().unwrap().acknowledged, Some(note.clone()));
    assert!(log.acknowledge(7, note), "also after its end");
}

#[test]
fn edge_8_a_cause_says_what_failed() {
    let said = |symptom, words, after, limit| {
        let after = Duration::from_millis(after);
        let note = FailureNote {
            symptom,
            words,
            after,
            limit,
            ..FailureNote::default()
        };
        OutageCause::of_trip(&trip(), Some(&note)).text
    };
    let refused = Some("connection refused");
    assert_eq!(
        said(Some(Symptom::Connect), refused, 1, None),
        "connection refused"
    );
    assert_eq!(
        said(Some(Symptom::Timeout), None, 5_002, Some("timeout.attempt")),
        "no answer within 5 s (timeout.attempt)"
    );
    assert_eq!(
        said(Some(Symptom::Timeout), None, 5_000, Some("timeout.idle")),
        "an answer that stopped for 5 s (timeout.idle)"
    );
    let late = |limit| said(Some(Symptom::Timeout), None, 300, Some(limit));
    assert_eq!(
        late("timeout.first_token"),
        "no content within 300 ms (timeout.first_token)"
    );
    assert_eq!(
        late("timeout.gap"),
        "content that stopped for 300 ms (timeout.gap)"
    );
    assert_eq!(
        late("timeout.total"),
        "no whole answer within 300 ms (timeout.total)"
    );
    let begun = FailureNote {
        symptom: Some(Symptom::Timeout),
        limit: Some("timeout.attempt"),
        after: Duration::from_millis(300),
        has_begun: true,
        ..FailureNote::default()
    };
    assert_eq!(
        begun.to_string(),
        "no whole answer within 300 ms (timeout.attempt)"
    );
    assert_eq!(
        said(Some(Symptom::Crash), None, 1, None),
        "a worker crashed"
    );
    assert_eq!(said(None, None, 1, None), "its calls fail");
    let status = |status, is_likened| FailureNote {
        symptom: Some(Symptom::Status(status)),
        words: Some("gRPC status 14, UNAVAILABLE"),
        is_likened,
        ..FailureNote::default()
    };
    let refused = OutageCause::of_refused_configuration(&status(401, false));
    assert_eq!(
        refused.text,
        "401 from the dependency: it refuses our configuration"
    );
    assert_eq!(refused.status, Some(401));
    // A status that was not answered is not told.
    let unavailable = OutageCause::of_failure(&status(503, true), String::new());
    assert_eq!(unavailable.text, "gRPC status 14, UNAVAILABLE");
    assert_eq!(unavailable.status, None);
    assert_eq!(unavailable.kind, CauseKind::Status);
}

#[test]
fn edge_8_a_full_bulkhead_is_named_as_a_cause() {
    let note = FailureNote {
        limit: Some("bulkhead.max_concurrent"),
        is_overload: true,
        ..FailureNote::default()
    };
    let cause = OutageCause::of_failure(&note, String::new());
    assert_eq!(cause.kind, CauseKind::Overload);
    assert_eq!(
        cause.text,
        "no room for further calls (bulkhead.max_concurrent)"
    );
    assert_eq!(cause.limit, Some("bulkhead.max_concurrent"));
}

#[test]
fn edge_8_the_limit_that_cut_is_the_longest_that_was_reached() {
    let limits = |first_byte, attempt, total| TimeoutSettings {
        first_byte: Some(Duration::from_secs(first_byte)),
        attempt: Some(Duration::from_secs(attempt)),
        total: Some(Duration::from_secs(total)),
        ..TimeoutSettings::default()
    };
    let of =
        |limits: &TimeoutSettings, millis| limit_reached(limits, Duration::from_millis(millis));
    let wide = limits(5, 30, 60);
    assert_eq!(of(&wide, 4_999), None);
    assert_eq!(of(&wide, 5_000), Some("timeout.first_byte"));
    assert_eq!(of(&wide, 30_001), Some("timeout.attempt"));
    assert_eq!(of(&limits(5, 5, 10), 5_001), Some("timeout.attempt"));
    assert_eq!(of(&limits(5, 5, 10), 10_001), Some("timeout.total"));
}

#[test]
fn hlt_2_answers_that_have_begun_an_outage_belong_to_it() {
    let mut log = OutageLog::default();
    log.count_from(errors(1));
    assert!(!log.stands());
    assert!(opened(&mut log, 10, 1, 5));
    assert!(log.stands());
    log.count_from(errors(2));
    assert_eq!(log.standing(errors(25)).unwrap().affected, errors(23));
    log.end_all(at(20), OutageEnding::Recovery, errors(25));
    assert!(!log.stands());
}

#[test]
fn hlt_2_a_kind_of_cause_is_a_word_of_the_api() {
    for (kind, word) in [
        (CauseKind::Status, "status"),
        (CauseKind::Timeout, "timeout"),
        (CauseKind::Hang, "hang"),
        (CauseKind::Misconfigured, "misconfigured"),
        (CauseKind::Other, "other"),
    ] {
        assert_eq!(kind.as_str(), word);
    }
}
