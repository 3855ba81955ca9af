//! The recorder: each outcome once, within bounds, and never blocking a call.

use super::*;

#[test]
fn brk_7_each_outcome_is_recorded_once_with_the_class_that_the_breaker_got() {
    let folder = Folder::new("record-200");
    let path = folder.path("trace.jsonl");
    let moves = record_200(&path, lively);
    let trace = read(&path);
    let recording = only(&trace);
    assert_eq!(recording.name, "dep");
    assert_eq!(recording.outcomes.len(), 200);
    assert_eq!(recording.settings.len(), 1);
    let mut expected = DependencySettings::default();
    lively(&mut expected);
    assert_eq!(recording.settings[0].1, expected.breaker);
    for (number, recorded) in (0..).zip(&recording.outcomes) {
        let (class, millis) = match told(number) {
            Do::After(wait, next) => (class_of(&next), wait.as_millis()),
            now => (class_of(&now), 0),
        };
        assert_eq!(recorded.outcome.class, class, "outcome {number}");
        let elapsed = recorded.outcome.elapsed.as_millis();
        assert!((millis..=millis + 1).contains(&elapsed), "outcome {number}");
    }
    let probes = recording.outcomes.iter().filter(|one| one.probe).count();
    let periods = moves.iter().filter(|(_, _, to, _)| to == "half_open");
    assert!(probes >= 2 * periods.count(), "{probes} probes: {moves:?}");
}

fn class_of(told: &Do) -> Class {
    match told {
        Do::Answer(_) => Class::Success,
        Do::End(class) => *class,
        _ => Class::Failure,
    }
}

#[test]
fn what_the_runtime_refuses_is_not_recorded_and_what_it_cuts_short_is() {
    let folder = Folder::new("record-refusals");
    let path = folder.path("trace.jsonl");
    run_paused(async || {
        let kept = recorder(&path);
        let live = Live::start(kept.clone(), |settings| {
            settings.breaker.failure_threshold = Some(nonzero(1));
            settings.timeout.attempt = Some(ms(50));
        })
        .await;
        let left = live.client.ask(Do::Hang);
        assert!(tokio::time::timeout(ms(20), left).await.is_err());
        live.client.ask(Do::Hang).await.expect_err("it is cut off");
        for _ in 0..5 {
            live.client.ask(Do::Answer(1)).await.expect_err("refused");
        }
        let command = breakerbox_policy::BreakerCommand::Disable {
            reason: "test".to_owned(),
            until: None,
        };
        live.runtime
            .operate("dep", command)
            .await
            .expect("it runs")
            .expect("allowed");
        live.client.ask(Do::Fail).await.expect_err("it fails");
        live.runtime.finish().await;
        kept.flush();
    });
    let trace = read(&path);
    let outcomes = only(&trace).outcomes.iter();
    let seen: Vec<(Class, u128)> = outcomes
        .map(|one| (one.outcome.class, one.outcome.elapsed.as_millis()))
        .collect();
    let expected = [
        (Class::Cancelled, 20),
        (Class::Failure, 50),
        (Class::Failure, 0),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_closure_and_a_hint_are_recorded_too() {
    let folder = Folder::new("record-closure");
    let path = folder.path("trace.jsonl");
    run_paused(async || {
        let kept = recorder(&path);
        let live = Live::start(kept.clone(), |_| {}).await;
        let ran = live
            .client
            .run(|| async { Ok::<_, std::io::Error>(7) })
            .await;
        assert_eq!(ran.expect("it works"), 7);
        live.runtime.finish().await;
        let hint = Outcome {
            retry_after: Some(Duration::from_nanos(1_500_000_001)),
            ..outcome(Class::Throttled, 3)
        };
        bring(&*kept, &Arc::from("other \"one\""), 17, hint);
        kept.flush();
        let trace = read(&path);
        assert_eq!(trace.recordings[0].outcomes.len(), 1);
        assert_eq!(trace.recordings[1].name, "other \"one\"");
        assert_eq!(trace.recordings[1].outcomes[0].outcome, hint);
        assert_eq!(trace.recordings[1].outcomes[0].ended, Time::from_millis(17));
    });
}

#[test]
fn call_6_a_full_queue_drops_outcomes_and_counts_them() {
    let folder = Folder::new("record-full");
    let path = folder.path("trace.jsonl");
    let options = RecorderOptions {
        max_queue: 8,
        ..RecorderOptions::default()
    };
    let recorder = Recorder::create(&path, options).expect("it can be written");
    let name = Arc::from("dep");
    let many = 20_000;
    for at in 0..many {
        bring(&recorder, &name, at, outcome(Class::Success, 0));
    }
    recorder.settings(&name, Time::ZERO, &DependencySettings::default().breaker);
    recorder.flush();
    let dropped = recorder.dropped();
    assert!(dropped > 0, "nothing was dropped");
    let trace = read(&path);
    assert_eq!(only(&trace).outcomes.len() as u64 + dropped, many);
    assert_eq!(only(&trace).settings.len(), 1, "settings are never dropped");
}

#[test]
fn edge_8_f20_a_large_queue_takes_memory_for_what_waits_only() {
    let folder = Folder::new("record-large");
    let path = folder.path("trace.jsonl");
    let options = RecorderOptions {
        max_queue: usize::MAX,
        ..RecorderOptions::default()
    };
    // Places for all of them would be more memory than there is.
    let recorder = Recorder::create(&path, options).expect("it can be written");
    let name = Arc::from("dep");
    for at in 0..1_000 {
        bring(&recorder, &name, at, outcome(Class::Success, 0));
    }
    recorder.flush();
    assert_eq!(recorder.dropped(), 0);
    assert_eq!(only(&read(&path)).outcomes.len(), 1_000);
}

#[test]
fn call_6_a_file_that_is_full_is_kept_once_and_a_new_one_begins() {
    let folder = Folder::new("record-turn-over");
    let (path, old) = (folder.path("trace.jsonl"), folder.path("trace.jsonl.1"));
    let earlier = "{\"header\":{\"format\":1,\"version\":\"0.1.0\",\"started\":\"earlier\"}}\n";
    folder.write("trace.jsonl", earlier);
    let options = RecorderOptions {
        max_bytes: 4_000,
        ..RecorderOptions::default()
    };
    let recorder = Recorder::create(&path, options).expect("it can be written");
    let text = std::fs::read_to_string(&old).expect("it was kept");
    assert_eq!(text, earlier);
    let name = Arc::from("dep");
    recorder.settings(&name, Time::ZERO, &DependencySettings::default().breaker);
    for at in 0..200 {
        bring(&recorder, &name, at, outcome(Class::Success, 0));
    }
    drop(recorder);
    let mut both = std::fs::read_to_string(&old).expect("a full one");
    let new = std::fs::read_to_string(&path).expect("the present one");
    assert!((3_800..=4_000).contains(&both.len()), "{}", both.len());
    assert!(new.len() <= 4_000, "{}", new.len());
    let ends = |trace: &Trace| -> Vec<u64> {
        let ended = only(trace).outcomes.iter().map(|one| one.ended.as_millis());
        ended.collect()
    };
    let (first, second) = (read(&old), read(&path));
    assert_eq!(only(&second).settings, only(&first).settings);
    assert_eq!(
        ends(&first).last().map(|last| last + 1),
        ends(&second).first().copied()
    );
    assert_eq!(ends(&second).last(), Some(&199));
    both.push_str(&new);
    let whole = read(&folder.write("whole.jsonl", &both));
    assert_eq!(ends(&whole), [ends(&first), ends(&second)].concat());
    assert_eq!(only(&whole).settings.len(), 1);
}

#[test]
fn a_recorder_that_panics_disturbs_nobody() {
    struct Panics;
    impl OutcomeRecorder for Panics {
        fn record(&self, _: AttemptRecord<'_>) {
            panic!("told to");
        }
        fn settings(&self, _: &Arc<str>, _: Time, _: &breakerbox_policy::BreakerSettings) {
            panic!("told to");
        }
    }
    run_paused(async || {
        let live = Live::start(Arc::new(Panics), |_| {}).await;
        assert_eq!(
            live.client
                .ask(Do::Answer(3))
                .await
                .expect("it works")
                .value,
            3
        );
        live.client.ask(Do::Fail).await.expect_err("it fails");
        live.client.ask(Do::Panic).await.expect_err("it crashes");
        assert_eq!(
            live.client
                .ask(Do::Answer(4))
                .await
                .expect("it works")
                .value,
            4
        );
        assert_eq!(live.client.status().state, State::Closed);
        live.runtime.finish().await;
    });
}

#[test]
fn a_recorder_that_cannot_begin_says_so() {
    let folder = Folder::new("record-nowhere");
    let path = folder.path("missing/trace.jsonl");
    let error = Recorder::create(path, RecorderOptions::default()).expect_err("no folder");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
