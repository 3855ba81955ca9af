//! FBK-1 and FBK-3 across dependencies: fallbacks found by name, never in a circle, each with its
//! own limit on an answer's age.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_actors::{
    ByName, CallError, Client, Clock, FallbackRule, Fixed, Runtime, RuntimeSettings, ServeOn,
    StaleCache, StartError,
};
use breakerbox_policy::{DependencySettings, State};

use crate::scripted::{
    Asked, Bench, Dep, Do, Error, ms, opens_after, pass, refused_connection, start,
};

fn settings() -> impl Fn(&mut DependencySettings) {
    opens_after(1, ms(60_000))
}

fn broken() -> Script<Do, u32> {
    Script::new(|_: Do, _| Reaction::Fail(refused_connection()))
}

fn answers(value: u32) -> Script<Do, u32> {
    Script::new(move |_: Do, _| Reaction::Answer(value))
}

/// Starts a dependency that falls back on others, by their names.
async fn on_names(runtime: &TestRuntime, name: &str, others: &[&str]) -> Client<Dep> {
    try_names(runtime, name, others).await.unwrap()
}

fn try_names(
    runtime: &TestRuntime,
    name: &str,
    others: &[&str],
) -> impl Future<Output = Result<Client<Dep>, StartError>> {
    let script = broken();
    let builder = runtime.dependency(name).configure(settings());
    let builder = builder.workers(move || script.dependency());
    let add = |builder: breakerbox_actors::DependencyBuilder<Dep>, other: &&str| {
        builder.fallback_to(*other)
    };
    others.iter().fold(builder, add).start()
}

/// Returns value and source.
fn from(asked: Asked) -> (u32, String) {
    let answer = asked.unwrap();
    (answer.value, answer.source.to_string())
}

/// Returns the message of the fallback that failed, and the error behind it.
fn message(asked: Asked) -> (String, Error) {
    match asked.unwrap_err() {
        CallError::FallbackFailed { message, cause, .. } => (message, *cause),
        other => panic!("{other}"),
    }
}

#[test]
fn fbk_1_a_dependency_is_found_by_its_name_when_it_is_needed() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let first = on_names(&runtime, "first", &["second"]).await;
        let (said, cause) = message(first.ask(Do::Answer(1)).await);
        assert_eq!(said, "there is no dependency second");
        assert!(matches!(cause, CallError::Failed { .. }), "{cause}");

        // A dependency that failed to start leaves its name free, and no trace.
        let never = runtime.dependency("second").configure(settings());
        let never = never.workers(|| Err::<breakerbox_actors::testing::Scripted<Do, u32>, _>("no"));
        never.start().await.unwrap_err();
        let (said, _) = message(first.ask(Do::Answer(1)).await);
        assert_eq!(said, "there is no dependency second");

        let script = answers(2);
        let second = start(&runtime, "second", &script, settings(), Vec::new()).await;
        let expected = (2, "fallback:second".to_owned());
        assert_eq!(from(first.ask(Do::Answer(1)).await), expected);
        let group = runtime.group("second").unwrap();
        group.terminate("worker-1").await.unwrap();
        message(first.ask(Do::Answer(1)).await);
        group.restart("worker-1").await.unwrap();
        assert_eq!(from(first.ask(Do::Answer(1)).await), expected);
        assert_eq!(second.status().totals.primary, 2);
        assert_eq!(first.status().fallbacks, [("second".to_owned(), 2)]);
        runtime.finish().await;
    });
}

#[test]
fn fbk_1_a_chain_goes_from_name_to_name() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let first = on_names(&runtime, "first", &["second"]).await;
        let second = on_names(&runtime, "second", &["third"]).await;
        let third = answers(3);
        start(&runtime, "third", &third, settings(), Vec::new()).await;
        for _ in 0..3 {
            let expected = (3, "fallback:second".to_owned());
            assert_eq!(from(first.ask(Do::Answer(1)).await), expected);
        }
        assert_eq!(
            (first.status().state, second.status().state),
            (State::Open, State::Open)
        );
        assert_eq!(second.status().totals.fallback, 3);
        runtime.finish().await;
    });
}

#[test]
fn fbk_1_a_name_may_be_narrowed_like_every_fallback() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        start(&runtime, "second", &answers(2), settings(), Vec::new()).await;
        let rule = FallbackRule::new(ByName::new(&runtime, "second"))
            .on(ServeOn::Refused)
            .named("spare");
        let first = start(&runtime, "first", &broken(), settings(), vec![rule]).await;
        let error = first.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(error.into_failed(), Some(refused_connection()));
        let expected = (2, "fallback:spare".to_owned());
        assert_eq!(from(first.ask(Do::Answer(1)).await), expected);
        runtime.finish().await;
    });
}

fn is_circle<T>(started: Result<T, StartError>, wanted: &str) {
    let Err(error) = started else {
        panic!("it was started");
    };
    let StartError::FallbackCycle { circle, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(circle, wanted);
    assert!(error.to_string().contains(wanted), "{error}");
}

#[test]
fn fbk_1_a_start_that_closes_a_circle_is_refused_and_shows_it() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        is_circle(try_names(&runtime, "a", &["a"]).await, "a->a");
        on_names(&runtime, "a", &["x", "b", "y"]).await;
        on_names(&runtime, "b", &["c"]).await;
        is_circle(try_names(&runtime, "c", &["d", "a"]).await, "c->a->b->c");
        // A refused dependency does not exist: its name is free, and its fallbacks lead nowhere.
        assert!(runtime.status("c").is_none());
        on_names(&runtime, "c", &["d"]).await;
        is_circle(try_names(&runtime, "d", &["a"]).await, "d->a->b->c->d");
        on_names(&runtime, "d", &[]).await;
        runtime.finish().await;
    });
}

#[test]
fn fbk_1_two_ways_to_the_same_dependency_are_no_circle() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        on_names(&runtime, "last", &[]).await;
        on_names(&runtime, "left", &["last"]).await;
        on_names(&runtime, "right", &["last", "left"]).await;
        on_names(&runtime, "first", &["left", "right", "last", "last"]).await;
        runtime.finish().await;
    });
}

/// A handle as a fallback counts for a circle like a name.
#[test]
fn fbk_1_a_circle_through_a_handle_is_refused_too() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let a = on_names(&runtime, "a", &["b"]).await;
        let b = runtime.dependency("b").workers(|| broken().dependency());
        let b = b.fallback_rule(FallbackRule::new(a).named("other"));
        is_circle(b.start().await, "b->a->b");
        runtime.finish().await;
    });
}

#[test]
fn fbk_1_a_dependency_that_is_asked_other_things_cannot_stand_in() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let first = on_names(&runtime, "first", &["texts"]).await;
        let texts = Script::new(|request: String, _| Reaction::Answer(request));
        let texts = runtime
            .dependency("texts")
            .workers(move || texts.dependency());
        texts.start().await.unwrap();
        let wanted = "texts takes other requests, or gives other responses";
        let (said, _) = message(first.ask(Do::Answer(1)).await);
        assert_eq!(said, wanted);
        // A mismatch that is known at the start is an error there, before any outage.
        let Err(StartError::BadSpec { name, reason }) =
            try_names(&runtime, "second", &["texts"]).await
        else {
            panic!("it was started");
        };
        assert_eq!(name, "second");
        assert!(reason.contains(wanted), "{reason}");
        assert!(runtime.status("second").is_none());
        runtime.finish().await;
    });
}

/// A runtime with dependencies that fall back on each other by name still ends with its last
/// handle.
#[test]
fn fbk_1_a_name_does_not_keep_the_runtime_alive() {
    run_paused(async || {
        // On virtual time, so that what is left to do is done in a few turns.
        let settings_of_runtime = RuntimeSettings {
            clock: Some(Clock::tokio()),
            ..RuntimeSettings::default()
        };
        let runtime = Runtime::start(settings_of_runtime).await.unwrap();
        let script = broken();
        let first = runtime.dependency("first").configure(settings());
        let first = first.workers(move || script.dependency());
        let first = first.fallback_to("second").start().await.unwrap();
        drop(runtime);
        pass(10).await;
        let error = first.ask(Do::Answer(1)).await.unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert!(error.to_string().contains("shutting down"), "{error}");
    });
}

#[test]
fn fbk_3_an_answer_from_the_others_cache_keeps_its_age_and_the_callers_name_for_it() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let sick = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&sick);
        let second = Script::new(move |_: Do, _| {
            if told.load(Ordering::Relaxed) {
                Reaction::Fail(refused_connection())
            } else {
                Reaction::Answer(2)
            }
        });
        let cache = || StaleCache::<Dep>::new(ms(3_600_000), 10);
        let rules = vec![FallbackRule::new(cache()).named("yesterday")];
        let second = start(&runtime, "second", &second, settings(), rules).await;
        let rules = vec![
            FallbackRule::new(cache()),
            FallbackRule::new(ByName::new(&runtime, "second")).named("spare"),
        ];
        let by_name = start(&runtime, "by_name", &broken(), settings(), rules).await;
        let rules = vec![FallbackRule::new(second.clone())];
        let by_handle = start(&runtime, "by_handle", &broken(), settings(), rules).await;

        // A good answer of the other dependency does not enter the first one's cache.
        for _ in 0..2 {
            let good = by_name.ask(Do::Answer(1)).await.unwrap();
            assert_eq!((good.value, good.age), (2, None));
            assert_eq!(good.source.to_string(), "fallback:spare");
        }
        sick.store(true, Ordering::Relaxed);
        pass(5_000).await;
        for (client, name) in [(&by_name, "spare"), (&by_handle, "second")] {
            let stale = client.ask(Do::Answer(1)).await.unwrap();
            assert_eq!((stale.value, stale.age), (2, Some(ms(5_000))), "{name}");
            assert_eq!(stale.source.to_string(), format!("fallback:{name}"));
            assert_eq!(client.status().tally.successes, 0);
        }
        runtime.finish().await;
    });
}

/// A failure behind a name is reported, and the next fallback is asked.
#[test]
fn fbk_1_a_chain_that_fails_says_why() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        on_names(&runtime, "second", &["third"]).await;
        let first = on_names(&runtime, "first", &["second"]).await;
        let (said, _) = message(first.ask(Do::Answer(1)).await);
        assert!(said.contains("there is no dependency third"), "{said}");
        let rules = vec![
            FallbackRule::new(ByName::new(&runtime, "second")),
            FallbackRule::new(Fixed(9)),
        ];
        let covered = start(&runtime, "covered", &broken(), settings(), rules).await;
        assert_eq!(
            from(covered.ask(Do::Answer(1)).await),
            (9, "fallback:fixed".to_owned())
        );
        runtime.finish().await;
    });
}

#[test]
fn fbk_2_a_callers_own_mistake_does_not_reach_the_next_in_the_chain() {
    run_paused(async || {
        let spare = answers(2);
        let bench = Bench::start(settings()).await;
        let second = start(&bench.runtime, "spare", &spare, settings(), Vec::new()).await;
        let rules = vec![FallbackRule::new(second)];
        let script = Script::new(|_: Do, _| {
            let class = breakerbox_policy::Class::Rejected;
            Reaction::Fail(breakerbox_actors::testing::ScriptedError::new(class, "bad"))
        });
        let first = start(&bench.runtime, "first", &script, settings(), rules).await;
        first.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(spare.calls(), 0);
        bench.finish().await;
    });
}
