//! BRK-7: the settings map a symptom to a class, and an explicit class stays.

use std::time::Duration;

use breakerbox_actors::Verdict;
use breakerbox_actors::testing::{Reaction, Script, ScriptedError, TestRuntime, run_paused};
use breakerbox_policy::{Class, ClassifySettings, EndedPermits, Symptom, Symptoms};

use crate::scripted::{Bench, nonzero};

/// Returns the tally and the pause after one call with this symptom, by a worker or by a closure.
async fn tally(
    classify: &ClassifySettings,
    symptom: Symptom,
    by_worker: bool,
) -> (EndedPermits, Option<Duration>) {
    let runtime = TestRuntime::start().await;
    let script =
        Script::<(), ()>::new(move |(), _| Reaction::Fail(ScriptedError::symptom(symptom)));
    let client = runtime
        .dependency("dep")
        .configure(|settings| settings.classify = classify.clone())
        .workers(move || script.dependency())
        .start()
        .await
        .unwrap();
    if by_worker {
        client.ask(()).await.unwrap_err();
    } else {
        let by_symptom = |_: &Result<(), ()>| Verdict::from(symptom);
        let work = async || Err(());
        let ran = client.run_with(Default::default(), by_symptom, work).await;
        ran.unwrap_err();
    }
    let status = client.status();
    runtime.finish().await;
    (status.tally, status.paused.map(|(_, wait)| wait))
}

#[test]
fn brk_7_a_symptom_is_classified_by_the_settings() {
    run_paused(async || {
        let lenient = ClassifySettings {
            failure: Symptoms::from([Symptom::Status(404)]),
            throttled: Symptoms::from([Symptom::Status(503)]),
            ..ClassifySettings::default()
        };
        let usual = ClassifySettings::default();
        for (settings, symptom, failures, paused) in [
            (&usual, Symptom::Status(503), 1, false),
            (&usual, Symptom::Connect, 1, false),
            (&usual, Symptom::Status(404), 0, false),
            (&usual, Symptom::Status(401), 0, false),
            (&usual, Symptom::Status(429), 0, true),
            (&lenient, Symptom::Status(503), 0, true),
            (&lenient, Symptom::Status(404), 1, false),
        ] {
            for by_worker in [true, false] {
                let (tally, pause) = tally(settings, symptom, by_worker).await;
                assert_eq!(
                    tally.failures, failures,
                    "{symptom}, by a worker: {by_worker}"
                );
                assert_eq!(tally.neutral, 1 - failures, "{symptom}");
                assert_eq!(
                    pause.is_some(),
                    paused,
                    "{symptom}, by a worker: {by_worker}"
                );
            }
        }
    });
}

#[test]
fn brk_7_a_class_that_was_named_stays_whatever_its_symptom() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.breaker.failure_threshold = None;
            settings.retry.max_attempts = nonzero(2);
            settings.retry.on = Some(Symptoms::from([Symptom::Status(404)]));
        })
        .await;
        let mut runs = 0;
        for (class, neutral, attempts) in [(Class::Rejected, 1, 1), (Class::Failure, 1, 3)] {
            let symptom = match class {
                Class::Rejected => Symptom::Status(503),
                _ => Symptom::Status(404),
            };
            let verdict = |_: &Result<(), ()>| Verdict::from(class).symptom(symptom);
            let options = breakerbox_actors::CallOptions {
                idempotent: Some(true),
                ..Default::default()
            };
            let work = || {
                runs += 1;
                std::future::ready(Err(()))
            };
            let ran = bench.client.run_with(options, verdict, work).await;
            ran.unwrap_err();
            assert_eq!(bench.status().tally.neutral, neutral);
            assert_eq!(
                runs, attempts,
                "{class:?}: the symptom is what `retry.on` asks for"
            );
        }
        assert_eq!(bench.status().tally.failures, 2);
        bench.finish().await;
    });
}
