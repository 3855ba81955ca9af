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
