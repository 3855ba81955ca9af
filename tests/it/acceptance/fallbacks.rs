//! Items 31 to 42: fallbacks for a dependency that does not answer, and their visibility.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox_actors::testing::{
    Reaction, Script, Scripted, ScriptedError, TestRuntime, run_paused,
};
use breakerbox_actors::{
    Answer, AnswerSource, CallContext, CallError, Client, Dependency, EventKind, FallbackRule,
    Fixed, Health, NotExecutedReason, ServeOn, StaleCache, StartError,
};
use breakerbox_policy::{DependencySettings, State};

use crate::log::Log;
use crate::scripted::{Bench, Dep, Do, Error, ms, opens_after, pass, refused_connection};

const MINUTE: u64 = 60_000;

fn fixed() -> FallbackRule<Dep> {
    FallbackRule::new(Fixed(77)).named("F")
}

fn failing() -> FallbackRule<Dep> {
    let fails = |_: Do, _: &Error| std::future::ready(Err::<u32, _>("index missing"));
    FallbackRule::new(fails).named("broken")
}

fn is_from(answer: &Answer<u32>, name: &str) -> bool {
    answer.source == AnswerSource::Fallback(Arc::from(name))
}

#[test]
fn item_31_on_refused_leaves_the_first_failure_to_the_caller() {
    run_paused(async || {
        let rules = vec![fixed().on(ServeOn::Refused)];
        let bench = Bench::with_fallbacks(opens_after(1, ms(60_000)), rules).await;
        let error = bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(error.into_failed(), Some(refused_connection()));
        let answer = bench.ask(Do::Answer(1)).await.unwrap();
        assert!(is_from(&answer, "F") && answer.value == 77);
        assert_eq!(bench.script.calls(), 1);
        bench.finish().await;
    });
}

#[test]
fn item_32_by_default_a_failure_is_covered_and_still_counted() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(opens_after(1, ms(60_000)), vec![fixed()]).await;
        let answer = bench.ask(Do::Fail).await.unwrap();
        assert!(is_from(&answer, "F") && answer.value == 77);
        let status = bench.status();
        assert_eq!((status.state, status.tally.failures), (State::Open, 1));
        bench.finish().await;
    });
}

#[test]
fn item_33_without_a_fallback_the_open_error_names_the_cause() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        bench.fail_until_open().await;
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        let CallError::Open(refused) = &error else {
            panic!("{error}");
        };
        assert_eq!(refused.reason().reason, bench.status().reason);
        assert!(
            refused.reason().reason.contains("failed"),
            "{}",
            refused.reason().reason
        );
        bench.finish().await;
    });
}

#[test]
fn item_34_fallback_answers_do_not_move_the_breaker() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(opens_after(1, ms(60_000)), vec![fixed()]).await;
        bench.ask(Do::Fail).await.unwrap();
        let before = bench.status();
        for _ in 0..5 {
            bench.ask(Do::Answer(1)).await.unwrap();
        }
        let after = bench.status();
        assert_eq!((after.state, after.since), (State::Open, before.since));
        assert_eq!(after.retry_after, before.retry_after);
        assert_eq!(after.window, before.window);
        assert_eq!(after.tally, before.tally);
        assert_eq!(after.totals.fallback, 6);
        bench.finish().await;
    });
}

#[test]
fn item_35_a_failed_fallback_is_the_error_and_the_open_breaker_its_cause() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(opens_after(1, ms(60_000)), vec![failing()]).await;
        bench.ask(Do::Fail).await.unwrap_err();
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        let told = error.to_string();
        let CallError::FallbackFailed {
            fallback,
            message,
            cause,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((&*fallback, &*message), ("broken", "index missing"));
        assert!(matches!(*cause, CallError::Open(_)), "{cause}");
        assert!(told.ends_with(&format!("because {cause}")), "{told}");
        bench.finish().await;
    });
}

/// Dependency that can be made sick, with a cache, an alternative and a default as fallbacks.
struct Chain {
    runtime: TestRuntime,
    client: Client<Scripted<u32, u32>>,
    sick: Arc<AtomicBool>,
    alternative_is_up: Arc<AtomicBool>,
}

impl Chain {
    async fn start() -> Self {
        let runtime = TestRuntime::start().await;
        let sick = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&sick);
        let script = Script::new(move |request: u32, _| {
            if told.load(Ordering::Relaxed) {
                Reaction::Fail(refused_connection())
            } else {
                Reaction::Answer(request * 10)
            }
        });
        let alternative_is_up = Arc::new(AtomicBool::new(true));
        let up = Arc::clone(&alternative_is_up);
        let alternative = move |request: u32, _: &CallError<ScriptedError>| {
            let up = up.load(Ordering::Relaxed);
            std::future::ready(if up {
                Ok(request * 100)
            } else {
                Err("it is down")
            })
        };
        let client = runtime
            .dependency("chain")
            .configure(opens_after(1, ms(10 * MINUTE)))
            .workers(move || script.dependency())
            .fallback(StaleCache::new(ms(60 * MINUTE), 100))
            .fallback_rule(FallbackRule::new(alternative).named("alternative"))
            .fallback_rule(FallbackRule::new(Fixed(0)).named("default"))
            .start()
            .await
            .unwrap();
        Self {
            runtime,
            client,
            sick,
            alternative_is_up,
        }
    }

    /// Returns value, source and age in minutes of the answer.
    async fn ask(&self, request: u32) -> (u32, String, Option<u64>) {
        let answer = self.client.ask(request).await.unwrap();
        let age = answer.age.map(|age| age.as_secs() / 60);
        (answer.value, answer.source.to_string(), age)
    }
}

fn fallback(name: &str) -> String {
    format!("fallback:{name}")
}

#[test]
fn item_36_cache_then_alternative_then_default() {
    run_paused(async || {
        let chain = Chain::start().await;
        assert_eq!(chain.ask(1).await, (10, "primary".to_owned(), None));
        pass(10 * MINUTE).await;
        chain.sick.store(true, Ordering::Relaxed);
        assert_eq!(chain.ask(1).await, (10, fallback("stale_cache"), Some(10)));
        assert_eq!(chain.ask(2).await, (200, fallback("alternative"), None));
        chain.alternative_is_up.store(false, Ordering::Relaxed);
        assert_eq!(chain.ask(2).await, (0, fallback("default"), None));
        chain.runtime.finish().await;
    });
}

#[test]
fn item_37_an_answer_that_is_too_old_is_not_served() {
    run_paused(async || {
        let chain = Chain::start().await;
        chain.ask(1).await;
        chain.sick.store(true, Ordering::Relaxed);
        pass(60 * MINUTE).await;
        assert_eq!(chain.ask(1).await, (10, fallback("stale_cache"), Some(60)));
        pass(1).await;
        assert_eq!(chain.ask(1).await, (100, fallback("alternative"), None));
        chain.runtime.finish().await;
    });
}

#[test]
fn item_38_health_is_degraded_while_fallbacks_answer() {
    run_paused(async || {
        let chain = Chain::start().await;
        let health = || chain.client.status().health;
        assert_eq!(health(), Health::Ok);
        chain.ask(1).await;
        chain.sick.store(true, Ordering::Relaxed);
        for _ in 0..100 {
            chain.ask(1).await;
            let Health::Degraded { reason } = health() else {
                panic!("{}", health());
            };
            assert!(reason.contains("open"), "{reason}");
        }
        assert_eq!(
            chain.client.status().fallbacks[0],
            ("stale_cache".to_owned(), 100)
        );
        // The probe asks the dependency; the fallback's answer does not count as the probe's
        // outcome.
        pass(10 * MINUTE).await;
        assert_eq!(chain.ask(1).await.1, fallback("stale_cache"));
        assert_eq!(chain.client.status().state, State::Open);
        assert_eq!(chain.client.status().tally.failures, 2);
        chain.sick.store(false, Ordering::Relaxed);
        pass(10 * MINUTE).await;
        assert_eq!(chain.ask(1).await.1, "primary");
        assert_eq!(health(), Health::Ok);
        chain.runtime.finish().await;
    });
}

#[test]
fn item_38_without_fallbacks_an_open_breaker_is_down() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        bench.fail_until_open().await;
        let health = bench.status().health;
        assert!(matches!(health, Health::Down { .. }), "{health}");
        pass(100).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.status().health, Health::Ok);
        bench.finish().await;
    });
}

/// Store with reads and writes.
struct Store;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Op {
    Read,
    Write,
}

impl Dependency for Store {
    type Request = Op;
    type Response = &'static str;
    type Error = &'static str;

    async fn call(&self, _: Op, _: &CallContext) -> Result<&'static str, &'static str> {
        Err("disk full")
    }

    fn is_write(op: &Op) -> bool {
        *op == Op::Write
    }
}

#[test]
fn item_39_a_write_is_never_reported_as_stored_by_a_fallback() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let start = async |name: &str, rule: FallbackRule<Store>| {
            let builder = runtime
                .dependency(name)
                .configure(opens_after(1, ms(60_000)));
            let builder = builder.workers(|| Store).fallback_rule(rule);
            builder.start().await.unwrap()
        };
        let store = start("store", FallbackRule::new(Fixed("kept"))).await;
        let error = store.ask(Op::Write).await.unwrap_err();
        assert_eq!(error.into_failed(), Some("disk full"));
        let error = store.ask(Op::Write).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert_eq!(store.ask(Op::Read).await.unwrap().value, "kept");
        let queue = start("queue", FallbackRule::new(Fixed("queued")).writes()).await;
        assert_eq!(queue.ask(Op::Write).await.unwrap().value, "queued");
        runtime.finish().await;
    });
}

/// Covers each way to declare a fallback, each kind of request and each end of a call.
#[test]
fn item_39_a_fallback_serves_exactly_what_it_declares() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let both = [false, true];
        for on in [ServeOn::Any, ServeOn::Refused, ServeOn::Failed] {
            for (writes, write) in both.into_iter().flat_map(|one| both.map(|two| (one, two))) {
                let case = format!("{on:?} writes={writes} write={write}");
                let rule = FallbackRule::new(Fixed("kept")).on(on);
                let rule = if writes { rule.writes() } else { rule };
                let builder = runtime.dependency(case.clone());
                let builder = builder.configure(opens_after(1, ms(60_000)));
                let builder = builder.workers(|| Store).fallback_rule(rule);
                let store = builder.start().await.unwrap();
                let op = if write { Op::Write } else { Op::Read };
                let allowed = writes || !write;
                let failed = store.ask(op.clone()).await;
                assert_eq!(
                    failed.is_ok(),
                    allowed && on != ServeOn::Refused,
                    "{case}: failed"
                );
                let refused = store.ask(op).await;
                assert_eq!(
                    refused.is_ok(),
                    allowed && on != ServeOn::Failed,
                    "{case}: refused"
                );
                assert_eq!(store.status().totals.attempts, 1, "{case}");
                let answers = u64::from(failed.is_ok()) + u64::from(refused.is_ok());
                assert_eq!(store.status().fallbacks, [("fixed".to_owned(), answers)]);
            }
        }
        runtime.finish().await;
    });
}

#[test]
fn item_40_several_fallbacks_in_one_outage_are_one_warning() {
    let log = Log::capture();
    run_paused(async || {
        let chain = Chain::start().await;
        chain.ask(1).await;
        chain.sick.store(true, Ordering::Relaxed);
        for _ in 0..100 {
            assert_eq!(chain.ask(1).await.1, fallback("stale_cache"));
            chain.alternative_is_up.store(true, Ordering::Relaxed);
            assert_eq!(chain.ask(2).await.1, fallback("alternative"));
            chain.alternative_is_up.store(false, Ordering::Relaxed);
            assert_eq!(chain.ask(2).await.1, fallback("default"));
        }
        // A failed probe in between does not start a second outage.
        pass(11 * MINUTE).await;
        chain.ask(2).await;
        assert_eq!(log.lines("falling back to").len(), 1);
        assert_eq!(log.lines("fallback answers").len(), 0);
        let counts = chain.client.status().fallbacks;
        let wanted = [("stale_cache", 100), ("alternative", 100), ("default", 101)];
        assert_eq!(counts, wanted.map(|(name, count)| (name.to_owned(), count)));
        chain.sick.store(false, Ordering::Relaxed);
        pass(11 * MINUTE).await;
        assert_eq!(chain.ask(1).await.1, "primary");
        assert_eq!(log.lines("after 301 fallback answers").len(), 1);
        chain.runtime.finish().await;
    });
}

#[test]
fn item_40_an_outage_is_one_warning_and_a_number() {
    let log = Log::capture();
    run_paused(async || {
        let chain = Chain::start().await;
        chain.ask(1).await;
        for outage in 1..=2 {
            chain.sick.store(true, Ordering::Relaxed);
            for _ in 0..1_001 {
                chain.ask(1).await;
            }
            let lines = log.lines("falling back to");
            assert_eq!(lines.len(), outage, "{lines:#?}");
            let line = &lines[outage - 1];
            let wanted = [
                "WARN",
                "chain",
                "falling back to stale_cache",
                "ConnectionError",
            ];
            for word in wanted {
                assert!(line.contains(word), "no {word:?} in {line}");
            }
            let served = chain.client.status().fallbacks[0].1;
            assert_eq!(served, 1_001 * outage as u64);
            chain.sick.store(false, Ordering::Relaxed);
            pass(10 * MINUTE).await;
            assert_eq!(chain.ask(1).await.1, "primary");
            assert_eq!(log.lines("after 1001 fallback answers").len(), outage);
        }
        chain.runtime.finish().await;
    });
}

#[test]
fn item_40_a_dependency_that_fails_every_other_call_is_one_warning() {
    let log = Log::capture();
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = None;
        };
        let bench = Bench::with_fallbacks(configure, vec![fixed()]).await;
        for _ in 0..1_000 {
            bench.ask(Do::Fail).await.unwrap();
            bench.ask(Do::Answer(1)).await.unwrap();
            let health = bench.status().health;
            assert!(matches!(health, Health::Degraded { .. }), "{health}");
        }
        assert_eq!(log.lines("falling back to").len(), 1);
        pass(1_000).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(log.lines("after 1000 fallback answers").len(), 1);
        assert_eq!(bench.status().health, Health::Ok);
        bench.finish().await;
    });
}

#[test]
fn item_40_an_outage_is_over_as_soon_as_the_breaker_has_closed() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(opens_after(1, ms(100)), vec![fixed()]).await;
        bench.ask(Do::Fail).await.unwrap();
        pass(100).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        let over = EventKind::FallbackOver { served: 1 };
        let events = bench.runtime.events_since(0);
        assert!(events.iter().any(|event| event.kind == over));
        assert_eq!(bench.status().health, Health::Ok);
        bench.finish().await;
    });
}

#[test]
fn item_41_without_a_fallback_the_error_reaches_the_caller() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(60_000))).await;
        for _ in 0..2 {
            let error = bench.ask(Do::Fail).await.unwrap_err();
            assert_eq!(error.into_failed(), Some(refused_connection()));
        }
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.status().totals.fallback, 0);
        bench.finish().await;
    });
}

#[test]
fn item_42_fallback_only_never_calls_the_dependency() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let made = Arc::new(AtomicBool::new(false));
        let factory_ran = Arc::clone(&made);
        let script = Script::new(|request: u32, _| Reaction::Answer(request));
        let worker = script.clone();
        let client = runtime
            .dependency("mock")
            .configure(|_: &mut DependencySettings| {})
            .workers(move || {
                factory_ran.store(true, Ordering::Relaxed);
                worker.dependency()
            })
            .fallback_rule(FallbackRule::new(Fixed(5)).named("mock_data"))
            .fallback_only(true)
            .start()
            .await
            .unwrap();
        for _ in 0..100 {
            let answer = client.ask(1).await.unwrap();
            assert_eq!(answer.value, 5);
            assert_eq!(answer.source.to_string(), "fallback:mock_data");
        }
        let ran = client.run(async || Ok::<_, String>(1)).await.unwrap_err();
        let absence = |reason: &NotExecutedReason| *reason == NotExecutedReason::FallbackOnly;
        assert!(matches!(ran, CallError::NotExecuted { reason, .. } if absence(&reason)));
        assert_eq!(script.calls(), 0);
        assert!(!made.load(Ordering::Relaxed), "no worker was made");
        let status = client.status();
        assert_eq!(status.state, State::Closed);
        assert!(matches!(status.health, Health::Degraded { .. }));
        runtime.finish().await;
    });
}

#[test]
fn item_42_fallback_only_needs_a_fallback() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|request: u32, _| Reaction::Answer(request));
        let started = runtime
            .dependency("mock")
            .workers(move || script.dependency())
            .fallback_only(true)
            .start()
            .await;
        assert!(matches!(started, Err(StartError::BadSpec { .. })));
        runtime.finish().await;
    });
}
