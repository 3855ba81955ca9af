//! LIM-1: calls that a pause does not affect, events that it survives, its end, and its visibility.

use std::sync::Arc;

use breakerbox_actors::testing::{ScriptedError, TestRuntime, run_paused};
use breakerbox_actors::{
    AnswerSource, ByName, CallError, EventKind, FallbackRule, Fixed, Health, Limit, StaleCache,
};
use breakerbox_policy::{
    BreakerCommand, DependencySettings, PauseReason, QuotaReset, RetryJitter, State, WhenAllDown,
};
use futures_util::future::join_all;

use crate::log::Log;
use crate::scripted::{Bench, Do, Error, ms, nonzero, opens_after, pass, start};

fn throttled_for(millis: u64) -> Do {
    Do::Error(ScriptedError::throttled().retry_after(ms(millis)))
}

fn is_paused(error: &Error) -> bool {
    let paused = Limit::Pause(PauseReason::Throttled);
    matches!(error, CallError::RateLimited { limit, .. } if *limit == paused)
}

/// Sets pauses exactly as long as the dependency asks.
fn exact(settings: &mut DependencySettings) {
    settings.throttle.backoff.jitter = RetryJitter::None;
}

fn pauses(runtime: &TestRuntime) -> Vec<(PauseReason, u128)> {
    let pauses = runtime.events_since(0).into_iter();
    pauses
        .filter_map(|event| match event.kind {
            EventKind::Paused { reason, for_, .. } => Some((reason, for_.as_millis())),
            _ => None,
        })
        .collect()
}

#[test]
fn lim_1_a_pause_is_one_event_however_many_calls_were_on_their_way() {
    run_paused(async || {
        let log = Log::capture();
        let bench = Bench::start(|_| {}).await;
        let calls = (0..20).map(|number| bench.ask(throttled_for(7_000).after(number * 10)));
        assert!(join_all(calls).await.iter().all(Result::is_err));
        assert_eq!(pauses(&bench.runtime).len(), 1);
        let lines = log.lines("it asked for less traffic");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("WARN") && lines[0].contains("(it asked for 7 s)"));
        pass(8_000).await;
        bench.ask(throttled_for(1_000)).await.unwrap_err();
        assert_eq!(pauses(&bench.runtime).len(), 2);
        bench.finish().await;
    });
}

#[test]
fn lim_1_a_pause_that_turns_out_to_be_a_used_up_quota_is_told_again() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            exact(settings);
            settings.throttle.quota_reset = QuotaReset::After(ms(600_000));
        })
        .await;
        let used_up = || Do::Error(ScriptedError::quota_used_up());
        let throttled = bench.ask(throttled_for(7_000).after(10));
        let (first, second) = tokio::join!(throttled, bench.ask(used_up().after(20)));
        assert!(first.is_err() && second.is_err());
        let told = pauses(&bench.runtime);
        let expected = [
            (PauseReason::Throttled, 7_000),
            (PauseReason::QuotaUsedUp, 600_000),
        ];
        assert_eq!(told, expected);
        bench.finish().await;
    });
}

#[test]
fn lim_1_a_pause_shows_in_status_and_health() {
    run_paused(async || {
        let bench = Bench::start(exact).await;
        assert_eq!(bench.status().paused, None);
        bench.ask(throttled_for(7_000)).await.unwrap_err();
        pass(2_000).await;
        let status = bench.status();
        assert_eq!(status.paused, Some((PauseReason::Throttled, ms(5_000))));
        let reason = "it is paused, for it asked for less traffic".to_owned();
        assert_eq!(status.health, Health::Down { reason });
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(ms(5_000)));
        assert_eq!(
            error.to_string(),
            "dep was not called: it is paused, for it asked for less traffic; try again in 5 s"
        );
        pass(5_000).await;
        let status = bench.status();
        assert_eq!((status.paused, status.health), (None, Health::Ok));
        bench.finish().await;
    });
}

#[test]
fn lim_1_a_second_provider_is_used_without_waiting_and_the_first_is_taken_back() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let spare = breakerbox_actors::testing::Script::new(|_: Do, _| {
            breakerbox_actors::testing::Reaction::Answer(2)
        });
        start(&runtime, "spare", &spare, |_| {}, Vec::new()).await;
        let rules = vec![FallbackRule::new(ByName::new(&runtime, "spare"))];
        let configure = |settings: &mut DependencySettings| {
            exact(settings);
            // More attempts are permitted, but not against a used-up quota.
            settings.retry.max_attempts = nonzero(3);
            settings.timeout.total = None;
        };
        let bench = Bench::on(runtime, configure, rules).await;
        let options = breakerbox_actors::CallOptions {
            idempotent: Some(true),
            ..Default::default()
        };
        let used_up = Do::Error(ScriptedError::quota_used_up().retry_after(ms(7_000)));
        let mut answers = vec![bench.client.ask_with(used_up, options).await.unwrap()];
        for _ in 0..7 {
            answers.push(bench.ask(Do::Answer(1)).await.unwrap());
            pass(1_000).await;
        }
        for answer in &answers {
            assert_eq!(answer.source, AnswerSource::Fallback(Arc::from("spare")));
            assert_eq!((answer.value, answer.elapsed), (2, ms(0)));
        }
        assert_eq!((bench.script.calls(), spare.calls()), (1, 8));
        let answer = bench.ask(Do::Answer(1)).await.unwrap();
        assert!(answer.is_primary() && answer.value == 1);
        bench.finish().await;
    });
}

#[test]
fn lim_1_with_somebody_to_stand_in_a_paused_dependency_is_degraded() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(exact, vec![FallbackRule::new(Fixed(7))]).await;
        bench.ask(throttled_for(7_000)).await.unwrap();
        let reason = "it is paused, for it asked for less traffic".to_owned();
        assert_eq!(bench.status().health, Health::Degraded { reason });
        bench.finish().await;
    });
}

#[test]
fn lim_1_a_pause_survives_a_crash_of_the_worker() {
    run_paused(async || {
        let bench = Bench::start(exact).await;
        let poison = bench.ask(Do::Panic.after(1_000));
        let (crashed, throttled) = tokio::join!(poison, bench.ask(throttled_for(7_000)));
        assert!(matches!(crashed, Err(CallError::WorkerCrashed { .. })));
        throttled.unwrap_err();
        pass(1_000).await;
        assert_eq!(bench.status().totals.restarts, 1);
        pass(4_999).await;
        assert!(is_paused(&bench.ask(Do::Answer(1)).await.unwrap_err()));
        pass(1).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.finish().await;
    });
}

fn reset() -> BreakerCommand {
    BreakerCommand::Reset {
        reason: "it is well again".to_owned(),
    }
}

#[test]
fn lim_1_a_reset_lifts_the_pause_and_forgets_how_often_there_was_one() {
    run_paused(async || {
        let bench = Bench::start(exact).await;
        let throttled = || Do::Error(ScriptedError::throttled());
        bench.ask(throttled()).await.unwrap_err();
        pass(1_000).await;
        bench.ask(throttled()).await.unwrap_err();
        let paused = bench.status().paused;
        assert_eq!(paused, Some((PauseReason::Throttled, ms(2_000))));
        bench.client.operate(reset()).await.unwrap();
        assert_eq!(bench.status().paused, None);
        bench.ask(throttled()).await.unwrap_err();
        let paused = bench.status().paused;
        assert_eq!(paused, Some((PauseReason::Throttled, ms(1_000))));
        bench.finish().await;
    });
}

#[test]
fn lim_1_a_success_that_was_on_its_way_before_the_pause_says_nothing() {
    run_paused(async || {
        let bench = Bench::start(exact).await;
        let throttled = || Do::Error(ScriptedError::throttled());
        for (millis, next) in [(500, 2_000), (1_500, 2_000)] {
            let old = bench.ask(Do::Answer(1).after(millis));
            let (old, new) = tokio::join!(old, bench.ask(throttled()));
            assert!(old.is_ok() && new.is_err());
            pass(1_500 - millis).await;
            bench.ask(throttled()).await.unwrap_err();
            let paused = bench.status().paused;
            assert_eq!(paused, Some((PauseReason::Throttled, ms(next))));
            pass(next).await;
            bench.ask(Do::Answer(1)).await.unwrap();
        }
        bench.finish().await;
    });
}

#[test]
fn lim_1_brk_7_a_probe_that_is_throttled_decides_nothing_and_frees_its_place() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            exact(settings);
            opens_after(1, ms(100))(settings);
        };
        let bench = Bench::start(configure).await;
        bench.fail_until_open().await;
        pass(100).await;
        for _ in 0..3 {
            bench.ask(throttled_for(7_000)).await.unwrap_err();
            let status = bench.status();
            assert_eq!(status.state, State::HalfOpen);
            let view = status.half_open.unwrap();
            assert_eq!((view.in_flight, view.successes, view.results), (0, 0, 0));
            // The pause refuses each call, although each has a probe permit.
            for _ in 0..3 {
                assert!(is_paused(&bench.ask(Do::Answer(1)).await.unwrap_err()));
            }
            pass(7_000).await;
        }
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn lim_1_nobody_holds_a_probe_while_it_waits_out_a_pause() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            exact(settings);
            opens_after(1, ms(100))(settings);
            settings.breaker.half_open.probe_lease = ms(1_000);
            settings.throttle.max_wait = ms(60_000);
        };
        let bench = Bench::start(configure).await;
        bench.fail_until_open().await;
        pass(100).await;
        bench.ask(throttled_for(7_000)).await.unwrap_err();
        let answer = bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(answer.elapsed, ms(7_000), "seven times the lease");
        assert_eq!(bench.state(), State::Closed);
        assert_eq!(bench.status().totals.trips, 1);
        bench.finish().await;
    });
}

#[test]
fn lim_1_the_last_resort_keeps_to_the_pause_too() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            exact(settings);
            opens_after(1, ms(60_000))(settings);
            settings.when_all_down = WhenAllDown::Try;
        };
        let bench = Bench::start(configure).await;
        let throttled = bench.ask(throttled_for(7_000).after(10));
        let (failed, throttled) = tokio::join!(bench.ask(Do::Fail), throttled);
        assert!(failed.is_err() && throttled.is_err());
        let calls = bench.script.calls();
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert_eq!(bench.script.calls(), calls);
        pass(7_000).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.finish().await;
    });
}

#[test]
fn lim_1_stale_answers_are_not_renewed_in_a_pause() {
    run_paused(async || {
        let cache = StaleCache::new(ms(600_000), 10).refresh(true);
        let bench = Bench::with_fallbacks(exact, vec![FallbackRule::new(cache)]).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.ask(throttled_for(7_000)).await.unwrap_err();
        for _ in 0..10 {
            let answer = bench.ask(Do::Answer(1)).await.unwrap();
            assert!(!answer.is_primary());
            pass(10).await;
        }
        let totals = bench.status().totals;
        assert_eq!((totals.fallback, totals.refused), (10, 0), "{totals:?}");
        assert_eq!(bench.script.calls(), 2);
        bench.finish().await;
    });
}
