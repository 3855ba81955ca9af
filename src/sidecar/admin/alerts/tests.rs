//! The outage that an alert belongs to, and the keys that share one.

use breakerbox_policy::{
    AnswerCounts, BreakerCause, CauseKind, OutageCause, OutageCondition, OutageEnding, OutageLog,
    WindowCounts,
};

use super::*;

fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1_000)
}

fn alert(raised: u64, over: Option<u64>) -> AlertRecord {
    AlertRecord {
        id: 1,
        subject: "gpt".into(),
        kind: AlertKind::QuotaUsedUp,
        stage: AlertStage::Active,
        message: String::new(),
        count: 1,
        suspect: None,
        raised: at(raised),
        lasting: LastingConditions::default(),
        over: over.map(at),
        by: None,
        note: None,
    }
}

#[test]
fn hlt_2_an_outage_that_begins_while_an_alert_lasts_is_its_own() {
    let mut log = OutageLog::default();
    let none = AnswerCounts::default();
    let cause = || OutageCause::of_kind(CauseKind::Other, String::new(), String::new());
    log.begin(at(20), OutageCondition::Errors, none, || (1, cause()));
    let standing = log.standing(none).unwrap();
    assert!(alert(5, None).is_of("gpt", &standing), "a used-up quota");
    assert!(!alert(5, Some(10)).is_of("gpt", &standing), "over before");
    assert!(alert(5, Some(30)).is_of("gpt", &standing));
    assert!(!alert(5, None).is_of("other", &standing));
    let by = OutageEnding::Recovery;
    log.end(at(40), OutageCondition::Errors, by, none);
    let ended = log.ended().next().unwrap().clone();
    assert!(alert(5, None).is_of("gpt", &ended));
    assert!(!alert(50, None).is_of("gpt", &ended), "raised after it");
}

#[test]
fn hlt_2_an_outage_right_after_another_one_is_not_that_of_the_first_alert() {
    let mut log = OutageLog::default();
    let answers = |own| AnswerCounts {
        own,
        ..AnswerCounts::default()
    };
    let cause = || OutageCause::of_kind(CauseKind::Other, String::new(), String::new());
    let open = OutageCondition::BreakerOpen;
    let moment = Time::from_millis;
    let first = AlertRecord {
        raised: moment(1_000),
        over: Some(moment(1_200)),
        ..alert(0, None)
    };
    log.begin(moment(1_000), open, answers(0), || (1, cause()));
    log.end(moment(1_200), open, OutageEnding::Recovery, answers(1));
    log.begin(moment(1_300), open, answers(2), || (2, cause()));
    let second = log.standing(answers(2)).unwrap();
    assert!(!first.is_of("gpt", &second), "{second:?}");
    assert!(first.is_of("gpt", log.ended().next().unwrap()));
    // Both at one moment, as on a clock that stands still.
    let short = AlertRecord {
        over: Some(moment(1_300)),
        raised: moment(1_300),
        ..alert(0, None)
    };
    assert!(short.is_of("gpt", &second));
}

/// The alerts after these transitions, each of a subject.
fn after(transitions: &[(&str, Breaker)]) -> AlertLog {
    let mut log = AlertLog::default();
    for ((subject, to), id) in transitions.iter().zip(1..) {
        let cause = match to {
            Breaker::Open => BreakerCause::Tripped {
                reason: breakerbox_policy::TripReason::ProbeFailed,
                last_failure: None,
            },
            _ => BreakerCause::OpenTimeOver,
        };
        log.see(&Event {
            id,
            at: at(id),
            subject: (*subject).into(),
            kind: EventKind::Breaker(BreakerEvent::Transition {
                from: Breaker::Closed,
                to: *to,
                at: at(id),
                generation: id,
                cause,
                retry_after: None,
                counts: WindowCounts::default(),
            }),
        });
    }
    log
}

#[test]
fn hlt_2_the_keys_of_a_dependency_share_one_alert_that_names_the_worst() {
    let (open, half, closed) = (Breaker::Open, Breaker::HalfOpen, Breaker::Closed);
    let trips = [
        ("web[a/b]", open),
        ("web", open),
        ("mail[a]", open),
        ("web[c]", open),
        ("web[c]", half),
        ("web[c]", open),
    ];
    let log = after(&trips);
    let told = |log: &AlertLog, at: usize| {
        let (subject, message, keys) = log.all[at].told();
        (subject.to_string(), message, keys)
    };
    assert_eq!(log.all.len(), 3, "{:?}", log.all);
    let (subject, message, keys) = told(&log, 0);
    assert_eq!((&*subject, keys), ("web[c]", 2));
    assert!(
        message.starts_with("2 keys, the worst of them c: "),
        "{message}"
    );
    assert_eq!(told(&log, 1).2, 0, "the whole dependency has its own");
    let (subject, message, keys) = told(&log, 2);
    assert_eq!((&*subject, keys), ("mail[a]", 1));
    assert!(!message.contains("keys"), "{message}");
    // It lasts until the last of its keys is closed.
    let mut all = trips.to_vec();
    all.push(("web[c]", closed));
    let log = after(&all);
    assert!(log.all[0].lasts());
    assert_eq!(told(&log, 0).0, "web[a/b]");
    all.push(("web[a/b]", closed));
    let log = after(&all);
    assert_eq!(log.all[0].stage, AlertStage::Resolved);
    assert_eq!(told(&log, 0).2, 2, "as many as it had");
}
