//! The outage that an alert belongs to.

use breakerbox_policy::{
    AnswerCounts, CauseKind, OutageCause, OutageCondition, OutageEnding, OutageLog,
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
        lasting: Vec::new(),
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
