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

#[test]
fn hlt_2_the_alert_of_a_key_ends_when_the_key_is_no_longer_watched() {
    let mut log = AlertLog::default();
    let mut id = 0;
    let mut see = |subject: &str, kind| {
        id += 1;
        log.see(&Event {
            id,
            at: at(id),
            subject: subject.into(),
            kind,
        });
        let told = |alert: &AlertRecord| (alert.subject.to_string(), alert.stage.word());
        let text = |alert: &AlertRecord| alert.message.clone();
        let all: Vec<_> = log.all.iter().map(told).collect();
        (all, log.all.iter().map(text).collect::<Vec<_>>())
    };
    let opened = || {
        EventKind::Breaker(BreakerEvent::Transition {
            from: Breaker::Closed,
            to: Breaker::Open,
            at: Time::ZERO,
            generation: 1,
            cause: breakerbox_policy::BreakerCause::Commanded("for the test".to_owned()),
            retry_after: None,
            counts: breakerbox_policy::WindowCounts::default(),
        })
    };
    let used_up = EventKind::Paused {
        reason: PauseReason::QuotaUsedUp,
        for_: std::time::Duration::from_secs(1),
        hint: None,
        by: None,
    };
    see("web[a]", opened());
    see("web[a]", used_up);
    see("web[b]", opened());
    let state = Breaker::Open;
    let (told, texts) = see("web[a]", EventKind::KeyForgotten { state });
    let alert = |key: &str, stage| (format!("web[{key}]"), stage);
    assert_eq!(told, [alert("a", "resolved"), alert("b", "active")]);
    assert!(texts[0].contains("no longer watched"), "{}", texts[0]);
    let (told, _) = see("web[a]", opened());
    assert_eq!(told.len(), 3, "the key is sick again");
}
