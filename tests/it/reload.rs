//! Changes of settings at run time (rule CFG-2); dependencies that are added and removed.

use std::fs;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox::config::Settings;
use breakerbox::reload::{Watcher, follow};
use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_actors::{
    AttemptRecord, CallError, CallOptions, Event, EventKind, Limit, OutcomeRecorder, Runtime,
    RuntimeSettings, StartError,
};
use breakerbox_policy::{
    BreakerSettings, BudgetSettings, ChaosSettings, DependencySettings, HedgeDelay, HedgeSettings,
    Rate, RateLimitSettings, State, Time, WindowKind,
};
use futures_util::future::join_all;

use crate::scripted::{Bench, Do, let_others_run, ms, nonzero, opens_after, pass, start};

/// A configuration of one dependency.
fn configured(name: &str, change: impl FnOnce(&mut DependencySettings)) -> RuntimeSettings {
    let mut settings = DependencySettings::default();
    change(&mut settings);
    RuntimeSettings {
        dependencies: [(name.to_owned(), settings)].into(),
        ..RuntimeSettings::default()
    }
}

fn reloads(runtime: &Runtime) -> Vec<(String, Vec<String>)> {
    let told = |event: Event| match event.kind {
        EventKind::Reloaded { by, changed, .. } => Some((by, changed)),
        _ => None,
    };
    runtime
        .events_since(0)
        .into_iter()
        .filter_map(told)
        .collect()
}

#[test]
fn cfg_2_a_reload_keeps_state_and_counters_and_is_told() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        for _ in 0..3 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        let stricter = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = Some(nonzero(4));
            settings.bulkhead.max_queue = 7;
        };
        let report = bench
            .runtime
            .reload(configured("dep", stricter), "a test")
            .await;
        let changed = [
            "breaker.failure_threshold: 5 -> 4",
            "bulkhead.max_queue: 64 -> 7",
        ];
        assert_eq!(report.changed[0].changed, changed);
        let expected = ("a test".to_owned(), changed.map(str::to_owned).to_vec());
        assert_eq!(reloads(&bench.runtime), [expected]);
        assert_eq!((bench.state(), bench.failures()), (State::Closed, 3));
        assert_eq!(bench.status().totals.failed, 3);
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.state(), State::Open, "the fourth failure in a row");
        // The same settings again are not a change.
        let again = bench
            .runtime
            .reload(configured("dep", stricter), "a test")
            .await;
        assert_eq!(again.changed, []);
        assert_eq!(reloads(&bench.runtime).len(), 1);
        bench.finish().await;
    });
}

#[test]
fn cfg_2_an_open_breaker_stays_open_and_closes_by_the_new_rule() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        bench.fail_until_open().await;
        let retry_after = bench.status().retry_after;
        let patient = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = Some(nonzero(2));
            settings.breaker.half_open.rule =
                breakerbox_policy::HalfOpenRule::Successes(nonzero(2));
        };
        bench
            .runtime
            .reload(configured("dep", patient), "a test")
            .await;
        assert_eq!(bench.state(), State::Open);
        assert_eq!(bench.status().retry_after, retry_after);
        pass(30_000).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::HalfOpen);
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn cfg_2_another_window_starts_a_generation_and_what_is_late_counts_for_nothing() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        bench.ask(Do::Fail).await.unwrap_err();
        let slow = bench.ask(Do::Fail.after(100));
        let change = async {
            let_others_run().await;
            let window = |settings: &mut DependencySettings| {
                settings.breaker.window = WindowKind::Count { size: nonzero(10) };
            };
            bench
                .runtime
                .reload(configured("dep", window), "a test")
                .await;
        };
        let (slow, ()) = tokio::join!(slow, change);
        slow.unwrap_err();
        assert_eq!(bench.failures(), 0);
        assert_eq!(bench.status().tally.late, 1);
        bench.finish().await;
    });
}

#[test]
fn cfg_2_every_layer_follows() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.script.calls(), 1);
        let all = |settings: &mut DependencySettings| {
            settings.retry.max_attempts = nonzero(3);
            settings.retry.backoff.base = ms(1);
            settings.timeout.attempt = Some(ms(50));
            settings.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Fixed(ms(20)),
                max_hedges: nonzero(1),
            });
            settings.rate_limit = Some(RateLimitSettings {
                rate: 5.0,
                per: Duration::from_secs(1),
                burst: nonzero(5),
                max_wait: Duration::ZERO,
            });
            settings.breaker.failure_threshold = None;
            settings.breaker.window = WindowKind::Count { size: nonzero(10) };
        };
        bench.runtime.reload(configured("dep", all), "a test").await;
        let idempotent = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        let before = bench.script.calls();
        let hung = bench.client.ask_with(Do::Hang, idempotent).await;
        let Err(CallError::TimedOut { after, .. }) = hung else {
            panic!("{hung:?}");
        };
        assert!(after <= ms(50), "{after:?}");
        let made = bench.script.calls() - before;
        assert!(
            (4..=5).contains(&made),
            "three attempts, hedged as far as the rate allows: {made}"
        );
        let limited = join_all((0..6).map(|_| bench.ask(Do::Answer(1)))).await;
        let mut limited = limited.into_iter().filter_map(Result::err);
        let rate = |error: CallError<_>| match error {
            CallError::RateLimited { limit, .. } => limit == Limit::Rate,
            _ => false,
        };
        assert!(limited.any(rate));
        let slow_opens = |settings: &mut DependencySettings| {
            all(settings);
            settings.breaker.slow_call = Some(ms(10));
            settings.breaker.slow_rate = Rate::new(0.1).ok();
            settings.breaker.minimum_calls = 1;
        };
        let settings = configured("dep", slow_opens);
        bench.runtime.reload(settings, "a test").await;
        pass(1_000).await;
        bench.ask(Do::Answer(1).after(10)).await.unwrap();
        assert_eq!(bench.state(), State::Open, "ten milliseconds are slow now");
        bench.finish().await;
    });
}

#[test]
fn cfg_2_a_raised_limit_lets_those_in_who_wait() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.timeout.attempt = Some(ms(400));
        })
        .await;
        let one = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(10_000);
        };
        bench.runtime.reload(configured("dep", one), "a test").await;
        let calls = join_all((0..3).map(|_| bench.ask(Do::Answer(1).after(100))));
        let raise = async {
            pass(10).await;
            assert_eq!((bench.status().in_flight, bench.status().queued), (1, 2));
            let three = |settings: &mut DependencySettings| {
                one(settings);
                settings.bulkhead.max_concurrent = nonzero(3);
            };
            bench
                .runtime
                .reload(configured("dep", three), "a test")
                .await;
            assert_eq!((bench.status().in_flight, bench.status().queued), (3, 0));
        };
        let (calls, ()) = tokio::join!(calls, raise);
        assert!(calls.iter().all(Result::is_ok));
        assert_eq!(
            bench.client.settings().timeout.attempt,
            Some(ms(400)),
            "set in code"
        );
        bench.finish().await;
    });
}

#[test]
fn cfg_2_the_retry_budget_and_chaos_follow() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.breaker.failure_threshold = None).await;
        let thrifty = |settings: &mut DependencySettings| {
            settings.retry.max_attempts = nonzero(3);
            settings.retry.budget = Some(BudgetSettings {
                ratio: 0.0,
                floor_per_second: 0,
            });
        };
        let reload = async |change: &dyn Fn(&mut DependencySettings)| {
            let settings = configured("dep", change);
            bench.runtime.reload(settings, "a test").await;
        };
        let again = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        reload(&thrifty).await;
        let asked = bench.client.ask_with(Do::Fail, again.clone()).await;
        asked.unwrap_err();
        assert_eq!(bench.script.calls(), 1, "there is nothing to retry from");
        reload(&|settings| settings.retry.max_attempts = nonzero(3)).await;
        bench.client.ask_with(Do::Fail, again).await.unwrap_err();
        assert_eq!(bench.script.calls(), 4);
        let all_fail = |settings: &mut DependencySettings| {
            settings.chaos = Some(ChaosSettings {
                error_rate: Rate::new(1.0).unwrap(),
                ..ChaosSettings::default()
            });
        };
        reload(&all_fail).await;
        let hit = bench.ask(Do::Answer(1)).await;
        assert!(matches!(hit, Err(CallError::Injected { .. })), "{hit:?}");
        reload(&|_| {}).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.finish().await;
    });
}

#[test]
fn cfg_2_calls_in_flight_are_watched_as_soon_as_slowness_counts() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let slow = |settings: &mut DependencySettings| {
            settings.breaker.window = WindowKind::Count { size: nonzero(10) };
            settings.breaker.slow_call = Some(ms(80));
            settings.breaker.slow_rate = Rate::new(0.5).ok();
            settings.breaker.minimum_calls = 3;
        };
        bench
            .runtime
            .reload(configured("dep", slow), "a test")
            .await;
        let hanging = join_all((0..3).map(|_| bench.ask(Do::Hang)));
        let watch = async {
            pass(200).await;
            assert_eq!(bench.state(), State::Open, "they have not ended yet");
        };
        let (hung, ()) = tokio::join!(hanging, watch);
        assert!(hung.iter().all(Result::is_err));
        bench.finish().await;
    });
}

/// The thresholds that the recorder has received.
#[derive(Default)]
struct Thresholds(Mutex<Vec<Option<u32>>>);

impl OutcomeRecorder for Thresholds {
    fn record(&self, _: AttemptRecord<'_>) {}

    fn settings(&self, _: &Arc<str>, _: Time, breaker: &BreakerSettings) {
        let threshold = breaker.failure_threshold.map(NonZeroU32::get);
        self.0.lock().unwrap().push(threshold);
    }
}

#[test]
fn cfg_2_the_recorder_hears_of_new_settings() {
    run_paused(async || {
        let told = Arc::new(Thresholds::default());
        let recorder: Arc<dyn OutcomeRecorder> = told.clone();
        let runtime = TestRuntime::with(RuntimeSettings {
            recorder: Some(recorder),
            ..RuntimeSettings::default()
        })
        .await;
        let script = Script::new(|_: Do, _| Reaction::Answer(1));
        start(&runtime, "dep", &script, |_| {}, Vec::new()).await;
        let stricter = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = Some(nonzero(2));
        };
        runtime.reload(configured("dep", stricter), "a test").await;
        assert_eq!(*told.0.lock().unwrap(), [Some(5), Some(2)]);
        runtime.finish().await;
    });
}

#[test]
fn cfg_2_what_the_program_set_stays_and_workers_wait() {
    run_paused(async || {
        let bench = Bench::start(opens_after(3, ms(100))).await;
        let new = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = Some(nonzero(9));
            settings.timeout.attempt = Some(ms(1));
            settings.workers.count = nonzero(4);
        };
        let report = bench.runtime.reload(configured("dep", new), "a test").await;
        let report = &report.changed[0];
        assert_eq!(report.changed, ["timeout.attempt: 5s -> 1ms"]);
        assert_eq!(report.waits, ["workers.count: 1 -> 4"]);
        let settings = bench.client.settings();
        assert_eq!(settings.breaker.failure_threshold, Some(nonzero(3)));
        assert_eq!(settings.workers.count, nonzero(1));
        bench.finish().await;
    });
}

#[test]
fn cfg_2_a_program_may_change_a_dependency_itself() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let mut settings = DependencySettings::clone(&bench.client.settings());
        settings.breaker.failure_threshold = Some(nonzero(1));
        let report = bench
            .client
            .reconfigure(settings.clone(), "me")
            .await
            .unwrap();
        assert_eq!(report.unwrap().changed.len(), 1);
        assert_eq!(bench.client.reconfigure(settings, "me").await, Ok(None));
        bench
            .runtime
            .reload(configured("dep", |_| {}), "a file")
            .await;
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(
            bench.state(),
            State::Open,
            "the program's word goes before a file's"
        );
        bench.finish().await;
    });
}

#[test]
fn cfg_2_names_that_are_not_on_both_sides_are_reported() {
    run_paused(async || {
        let runtime = TestRuntime::with(configured("old", |_| {})).await;
        let script = Script::new(|_: Do, _| Reaction::Answer(1));
        let old = start(&runtime, "old", &script, |_| {}, Vec::new()).await;
        start(&runtime, "own", &script, |_| {}, Vec::new()).await;
        let strict = |settings: &mut DependencySettings| settings.retry.max_attempts = nonzero(2);
        let report = runtime.reload(configured("new", strict), "a test").await;
        assert_eq!(report.not_started, ["new"]);
        assert_eq!(report.not_configured, ["old"]);
        assert_eq!(old.ask(Do::Answer(1)).await.unwrap().value, 1);
        let new = start(&runtime, "new", &script, |_| {}, Vec::new()).await;
        assert_eq!(
            new.settings().retry.max_attempts,
            nonzero(2),
            "started later"
        );
        runtime.finish().await;
    });
}

#[test]
fn cfg_2_a_removed_dependency_drains_and_its_name_is_free() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.workers.drain = ms(500)).await;
        let script = bench.script.clone();
        let kept = start(&bench.runtime, "kept", &script, |_| {}, Vec::new()).await;
        let slow = bench.ask(Do::Answer(7).after(200));
        let stuck = bench.ask(Do::Hang);
        let remove = async {
            let_others_run().await;
            let begin = tokio::time::Instant::now();
            assert!(bench.runtime.remove("dep", "a test").await);
            begin.elapsed()
        };
        let late = async {
            pass(10).await;
            bench.ask(Do::Answer(1)).await
        };
        let (slow, stuck, took, late) = tokio::join!(slow, stuck, remove, late);
        assert_eq!(slow.unwrap().value, 7, "a call in flight may finish");
        assert!(
            matches!(stuck, Err(CallError::Interrupted { .. })),
            "{stuck:?}"
        );
        assert!(took <= ms(510), "{took:?}");
        assert!(
            matches!(late, Err(CallError::NotExecuted { .. })),
            "{late:?}"
        );
        let totals = bench.status().totals;
        assert_eq!(totals.submitted, totals.ended());
        assert!(bench.runtime.status("dep").is_none());
        assert!(!bench.runtime.remove("dep", "a test").await);
        let removed =
            |event: &Event| matches!(&event.kind, EventKind::Removed { by } if by == "a test");
        assert!(bench.runtime.events_since(0).iter().any(removed));
        assert_eq!(kept.ask(Do::Answer(2)).await.unwrap().value, 2);
        let again = start(&bench.runtime, "dep", &script, |_| {}, Vec::new()).await;
        assert_eq!(again.ask(Do::Answer(3)).await.unwrap().value, 3);
        bench.finish().await;
    });
}

#[test]
fn cfg_2_a_name_is_taken_while_its_dependency_lives() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        let script = bench.script.clone();
        let second = bench.runtime.dependency("dep");
        let second = second.workers(move || script.dependency()).start().await;
        let taken = StartError::AlreadyRegistered { name: "dep".into() };
        assert_eq!(second.err(), Some(taken));
        assert_eq!(bench.ask(Do::Answer(1)).await.unwrap().value, 1);
        bench.finish().await;
    });
}

/// Real files, a real watcher and the real clock. The test waits for an event, and never sleeps.
#[test]
fn item_96_a_changed_file_holds_within_two_seconds_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("default.toml");
    let threshold = |number: &str| {
        format!(
            "[dependencies.dep.breaker]\nrecovery_timeout = \"1h\"\nfailure_threshold = {number}\n"
        )
    };
    fs::write(&file, threshold("2")).unwrap();
    let loader = Settings::loader().bare().dir(folder.path());
    actix::System::new().block_on(async {
        let runtime = Runtime::start(loader.load().unwrap()).await.unwrap();
        let script =
            Script::new(|_: Do, _| Reaction::<u32>::Fail(crate::scripted::refused_connection()));
        let worker = script.clone();
        let dependency = runtime
            .dependency("dep")
            .workers(move || worker.dependency());
        let client = dependency.start().await.unwrap();
        let watcher = Watcher::start(loader, ms(50)).unwrap();
        let mut events = runtime.events();
        let following = actix::spawn(follow(runtime.clone(), watcher));
        // It reads the file once at its start; a call that fails at once waits for nothing.
        tokio::task::yield_now().await;
        for _ in 0..2 {
            client.ask(Do::Fail).await.unwrap_err();
        }
        assert_eq!(client.status().state, State::Open);
        let mut told = async |wanted: fn(&EventKind) -> bool| {
            let next = async {
                loop {
                    let event = events.recv().await.unwrap();
                    if wanted(&event.kind) {
                        return event;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(2), next)
                .await
                .expect("it is told within two seconds")
        };
        fs::write(&file, threshold("4")).unwrap();
        let event = told(|kind| matches!(kind, EventKind::Reloaded { .. })).await;
        let EventKind::Reloaded { by, changed, .. } = event.kind else {
            unreachable!("it was chosen so");
        };
        assert!(by.contains("default.toml"), "{by}");
        assert_eq!(changed, ["breaker.failure_threshold: 2 -> 4"]);
        assert_eq!(client.status().state, State::Open, "the state is kept");
        assert_eq!(
            client.settings().breaker.failure_threshold,
            Some(nonzero(4))
        );
        fs::write(&file, threshold("0")).unwrap();
        let event = told(|kind| matches!(kind, EventKind::ReloadRefused { .. })).await;
        assert!(
            event.kind.to_string().contains("failure_threshold"),
            "{}",
            event.kind
        );
        assert_eq!(
            client.settings().breaker.failure_threshold,
            Some(nonzero(4))
        );
        following.abort();
        runtime.shutdown().await;
    });
}

/// Real folders and the real clock, as above. A deployment that replaces the folder, and a link to a file
/// elsewhere, cause no event in the folder that is watched.
#[test]
fn cfg_2_files_are_followed_to_another_folder() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("config");
    let put = |folder: &std::path::Path, number: u32| {
        fs::create_dir_all(folder).unwrap();
        let text = format!("[dependencies.dep.breaker]\nfailure_threshold = {number}\n");
        fs::write(folder.join("default.toml"), text).unwrap();
    };
    put(&folder, 2);
    let elsewhere = base.path().join("elsewhere");
    let replace = |number| {
        fs::rename(&folder, base.path().join(format!("old{number}"))).unwrap();
        put(&base.path().join("new"), number);
        fs::rename(base.path().join("new"), &folder).unwrap();
    };
    let link = |number| {
        put(&elsewhere, number);
        fs::remove_file(folder.join("default.toml")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("default.toml"), folder.join("default.toml"))
            .unwrap();
    };
    let steps: [&dyn Fn(u32); 4] = [&replace, &replace, &link, &|number| put(&elsewhere, number)];
    let loader = Settings::loader().bare().dir(&folder);
    actix::System::new().block_on(async {
        let mut watcher = Watcher::start(loader, ms(50)).unwrap();
        for (number, step) in (3..).zip(steps) {
            step(number);
            let changed = async {
                loop {
                    let (_, settings) = watcher.next().await;
                    // In the midst of a step there is no file.
                    let Ok(settings) = settings else { continue };
                    let breaker = &settings.dependencies["dep"].settings.breaker;
                    if breaker.failure_threshold == Some(nonzero(number)) {
                        return;
                    }
                }
            };
            let limit = Duration::from_secs(10);
            let found = tokio::time::timeout(limit, changed).await;
            assert!(found.is_ok(), "step {number} is found");
        }
    });
}
