//! Calls when everything is down: the error, or one attempt past the breaker (`when_all_down`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_actors::testing::{ScriptedError, TestRuntime, run_paused};
use breakerbox_actors::{
    CallContext, CallError, CallOptions, Dependency, FallbackRule, Fixed, Session, StaleCache,
};
use breakerbox_policy::{
    BreakerCommand, DependencySettings, Executed, State, Symptom, WhenAllDown,
};
use futures_util::future::join_all;

use crate::scripted::{Bench, Dep, Do, Error, let_others_run, ms, nonzero, opens_after, pass};

fn tries(settings: &mut DependencySettings) {
    opens_after(1, ms(60_000))(settings);
    settings.when_all_down = WhenAllDown::Try;
}

fn failing() -> FallbackRule<Dep> {
    let fails = |_: Do, _: &Error| std::future::ready(Err::<u32, _>("it is down too"));
    FallbackRule::new(fails).named("broken")
}

async fn sick(
    configure: impl FnOnce(&mut DependencySettings),
    rules: Vec<FallbackRule<Dep>>,
) -> Bench {
    let bench = Bench::with_fallbacks(configure, rules).await;
    bench.ask(Do::Fail).await.unwrap_err();
    assert_eq!((bench.state(), bench.script.calls()), (State::Open, 1));
    bench
}

#[test]
fn call_5_by_default_an_open_breaker_is_not_passed() {
    run_paused(async || {
        let bench = sick(opens_after(1, ms(60_000)), vec![failing()]).await;
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        assert!(matches!(error, CallError::FallbackFailed { .. }), "{error}");
        assert_eq!(bench.script.calls(), 1);
        bench.finish().await;
    });
}

#[test]
fn call_5_when_all_is_down_one_attempt_goes_past_the_breaker() {
    run_paused(async || {
        for rules in [Vec::new(), vec![failing()]] {
            let bench = sick(tries, rules).await;
            let before = bench.status();
            let answer = bench.ask(Do::Answer(5)).await.unwrap();
            assert!(answer.is_primary() && answer.value == 5);
            assert_eq!(bench.script.calls(), 2, "once");
            let error = bench.ask(Do::Fail).await.unwrap_err();
            assert!(matches!(error, CallError::Failed { .. }), "{error}");
            assert_eq!(bench.script.calls(), 3, "once");
            let after = bench.status();
            assert_eq!(
                (after.state, after.generation),
                (State::Open, before.generation)
            );
            assert_eq!(
                (after.since, after.retry_after),
                (before.since, before.retry_after)
            );
            assert_eq!((after.window, after.tally), (before.window, before.tally));
            let totals = after.totals;
            assert_eq!((totals.primary, totals.failed, totals.refused), (1, 2, 0));
            assert_eq!(totals.attempts, 3);
            bench.finish().await;
        }
    });
}

#[test]
fn call_5_who_is_answered_by_a_fallback_does_not_go_past_the_breaker() {
    run_paused(async || {
        let rules = vec![failing(), FallbackRule::new(Fixed(77))];
        let bench = Bench::with_fallbacks(tries, rules).await;
        for _ in 0..5 {
            assert_eq!(bench.ask(Do::Fail).await.unwrap().value, 77);
        }
        assert_eq!(bench.script.calls(), 1);
        bench.finish().await;
    });
}

/// A failed attempt ends the call: the policy is only for calls that the breaker refused.
#[test]
fn call_5_a_call_that_was_tried_is_not_tried_past_the_breaker() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(tries, vec![failing()]).await;
        bench.ask(Do::Fail).await.unwrap_err();
        assert_eq!(bench.script.calls(), 1);
        bench.finish().await;
        let configure = |settings: &mut DependencySettings| {
            tries(settings);
            settings.retry.max_attempts = nonzero(3);
        };
        let bench = Bench::start(configure).await;
        let options = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        let error = bench.client.ask_with(Do::Fail, options).await.unwrap_err();
        assert_eq!(error.executed(), Executed::Maybe, "{error}");
        assert_eq!(
            bench.script.calls(),
            1,
            "the breaker opened under its retries"
        );
        bench.finish().await;
    });
}

#[test]
fn brk_10_nobody_passes_a_breaker_that_an_operator_opened() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(tries, vec![failing()]).await;
        let command = BreakerCommand::Open {
            reason: "maintenance".to_owned(),
            until: None,
        };
        bench.client.operate(command).await.unwrap();
        bench.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(bench.script.calls(), 0);
        bench.finish().await;
    });
}

/// An operator's command also counts when it is given while the fallbacks are asked.
#[test]
fn brk_10_an_operator_may_close_the_way_while_fallbacks_are_asked() {
    run_paused(async || {
        let slow = |_: Do, _: &Error| async {
            tokio::time::sleep(ms(1_000)).await;
            Err::<u32, _>("late and down")
        };
        let bench = sick(tries, vec![FallbackRule::new(slow)]).await;
        let operate = async {
            pass(500).await;
            let command = BreakerCommand::Open {
                reason: "maintenance".to_owned(),
                until: None,
            };
            bench.client.operate(command).await.unwrap();
        };
        let (asked, ()) = tokio::join!(bench.ask(Do::Answer(1)), operate);
        asked.unwrap_err();
        assert_eq!(bench.script.calls(), 1);
        bench.finish().await;
    });
}

#[test]
fn call_5_a_full_half_open_breaker_is_passed_and_its_probe_decides_alone() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            tries(settings);
            settings.breaker.open.base = ms(100);
        };
        let bench = sick(configure, Vec::new()).await;
        pass(200).await;
        let probe = bench.ask(Do::Answer(1).after(1_000));
        let others = async {
            let_others_run().await;
            assert_eq!(bench.state(), State::HalfOpen);
            let answer = bench.ask(Do::Answer(2)).await.unwrap();
            assert!(answer.is_primary());
            bench.ask(Do::Fail).await.unwrap_err();
            assert_eq!(bench.state(), State::HalfOpen, "they are not counted");
        };
        let (probed, ()) = tokio::join!(probe, others);
        probed.unwrap();
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn call_6_the_bulkhead_and_the_deadlines_hold_past_the_breaker() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            tries(settings);
            settings.bulkhead.max_concurrent = nonzero(2);
            settings.bulkhead.max_queue = 1;
            settings.bulkhead.max_wait = ms(60_000);
            settings.timeout.attempt = Some(ms(300));
        };
        let bench = sick(configure, Vec::new()).await;
        let started = tokio::time::Instant::now();
        let calls = join_all((0..10).map(|_| bench.ask(Do::Hang)));
        let watch = async {
            let_others_run().await;
            let status = bench.status();
            assert_eq!((status.in_flight, status.queued), (2, 1));
        };
        let (ended, ()) = tokio::join!(calls, watch);
        let (tried, refused): (Vec<_>, Vec<_>) = ended
            .into_iter()
            .map(Result::unwrap_err)
            .partition(|error| matches!(error, CallError::TimedOut { .. }));
        assert_eq!((tried.len(), refused.len()), (3, 7));
        assert!(
            refused
                .iter()
                .all(|error| matches!(error, CallError::Open(_)))
        );
        assert_eq!(started.elapsed(), Duration::from_millis(600));
        assert_eq!(bench.status().totals.refused, 7);
        bench.finish().await;
    });
}

/// The answer is the dependency's own, so it is cached like any other.
#[test]
fn fbk_3_an_answer_from_past_the_breaker_is_kept_as_a_good_one() {
    run_paused(async || {
        let cache = StaleCache::<Dep>::new(ms(3_600_000), 10);
        let bench = sick(tries, vec![FallbackRule::new(cache)]).await;
        assert!(bench.ask(Do::Answer(5)).await.unwrap().is_primary());
        pass(1_000).await;
        let kept = bench.ask(Do::Answer(5)).await.unwrap();
        assert_eq!(kept.age, Some(ms(1_000)));
        assert_eq!(bench.script.calls(), 2);
        bench.finish().await;
    });
}

/// Dependency that fails once, then writes.
struct Disk(Arc<AtomicU64>);

impl Dependency for Disk {
    type Request = u32;
    type Response = u64;
    type Error = &'static str;

    async fn call(&self, _: u32, _: &CallContext) -> Result<u64, &'static str> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Err("disk full"),
            number => Ok(number),
        }
    }

    fn is_write(_: &u32) -> bool {
        true
    }
}

#[test]
fn fbk_2_a_write_is_its_callers_own_request_and_goes_past_the_breaker_too() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        let disk = runtime
            .dependency("disk")
            .configure(tries)
            .workers(move || Disk(Arc::clone(&count)))
            .fallback(Fixed(77))
            .start()
            .await
            .unwrap();
        disk.ask(1).await.unwrap_err();
        assert_eq!(disk.status().state, State::Open);
        let answer = disk.ask(1).await.unwrap();
        assert!(answer.is_primary() && answer.value == 1);
        assert_eq!(written.load(Ordering::Relaxed), 2);
        runtime.finish().await;
    });
}

#[test]
fn sup_7_nobody_goes_past_the_breaker_of_a_runtime_that_has_gone() {
    run_paused(async || {
        let bench = sick(tries, Vec::new()).await;
        let (client, script) = (bench.client.clone(), bench.script.clone());
        bench.finish().await;
        client.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(script.calls(), 1);
    });
}

/// While a call waits for its fallback, two calls with its fingerprint crash the worker past the
/// breaker.
#[test]
fn sup_6_a_call_that_was_quarantined_meanwhile_does_not_go_past_the_breaker() {
    run_paused(async || {
        let slow = |_: Do, _: &Error| async {
            tokio::time::sleep(ms(1_000)).await;
            Err::<u32, _>("late and down")
        };
        let bench = sick(tries, vec![FallbackRule::new(slow)]).await;
        let options = CallOptions {
            fingerprint: Some(7),
            ..CallOptions::default()
        };
        let (dep, options) = (&bench, &options);
        let call = async move |at: u64| {
            pass(at).await;
            let options = options.clone();
            dep.client.ask_with(Do::Panic, options).await.unwrap_err()
        };
        let (first, second, third) = tokio::join!(call(0), call(300), call(600));
        for crashed in [first, second] {
            let crash = matches!(crashed, CallError::WorkerCrashed { .. });
            assert!(crash, "{crashed}");
        }
        assert!(matches!(third, CallError::FallbackFailed { .. }), "{third}");
        assert_eq!(bench.script.calls(), 3);
        assert_eq!(
            bench.status().tally.failures,
            1,
            "crashes past it are not measured"
        );
        bench.finish().await;
    });
}

/// The session pays for the attempt past the breaker as for any other one, and gets back only what
/// it has paid.
#[test]
fn call_5_a_session_pays_for_the_attempt_past_the_breaker_unless_it_was_not_executed() {
    run_paused(async || {
        let bench = sick(tries, Vec::new()).await;
        let session = Session::new(2);
        let paid = || CallOptions {
            session: Some(session.clone()),
            ..CallOptions::default()
        };
        let no_connection = || Do::Error(ScriptedError::symptom(Symptom::Connect));
        let error = bench.client.ask_with(no_connection(), paid()).await;
        assert_eq!(error.unwrap_err().executed(), Executed::No);
        assert_eq!(session.left(), 2, "never sent");
        bench.client.ask_with(Do::Answer(1), paid()).await.unwrap();
        assert_eq!(session.left(), 1);
        let error = bench.client.ask_with(no_connection(), paid()).await;
        assert_eq!(error.unwrap_err().executed(), Executed::No);
        assert_eq!(session.left(), 1, "it gets back what it paid, and no more");
        bench.finish().await;
    });
}
