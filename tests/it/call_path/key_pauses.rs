//! LIM-1 for each key: a throttle of a call with a key pauses the calls with this key, and no others.

use breakerbox_actors::testing::{ScriptedError, run_paused};
use breakerbox_actors::{CallError, CallOptions, EventKind, Limit};
use breakerbox_policy::{BreakerCommand, DependencySettings, PauseReason, RetryJitter};

use crate::scripted::{Asked, Bench, Do, let_others_run, ms, nonzero, pass};

fn of(key: &str) -> CallOptions {
    CallOptions {
        key: Some(key.into()),
        ..CallOptions::default()
    }
}

fn throttled_for(millis: u64) -> Do {
    Do::Error(ScriptedError::throttled().retry_after(ms(millis)))
}

fn exact(settings: &mut DependencySettings) {
    settings.throttle.backoff.jitter = RetryJitter::None;
}

async fn ask(bench: &Bench, key: &str, told: Do) -> Asked {
    bench.client.ask_with(told, of(key)).await
}

fn is_paused(asked: &Asked) -> bool {
    let paused = Limit::Pause(PauseReason::Throttled);
    matches!(asked, Err(CallError::RateLimited { limit, .. }) if *limit == paused)
}

#[test]
fn lim_1_e10c_a_pause_of_a_key_is_its_own() {
    run_paused(async || {
        let bench = Bench::start(exact).await;
        ask(&bench, "a", throttled_for(7_000)).await.unwrap_err();
        assert!(is_paused(&ask(&bench, "a", Do::Answer(1)).await));
        assert!(ask(&bench, "b", Do::Answer(1)).await.is_ok());
        assert!(bench.ask(Do::Answer(1)).await.is_ok());
        let status = bench.status();
        assert_eq!(status.paused, None);
        let pauses = status.keys.iter().map(|one| (&*one.key, one.paused));
        let pauses: Vec<_> = pauses.collect();
        let own = Some((PauseReason::Throttled, ms(7_000)));
        assert_eq!(pauses, [("a", own), ("b", None)]);
        let events = bench.runtime.events_since(0).into_iter();
        let paused = events.filter(|event| matches!(event.kind, EventKind::Paused { .. }));
        let subjects: Vec<String> = paused.map(|event| event.subject.to_string()).collect();
        assert_eq!(subjects, ["dep[a]"]);
        pass(7_000).await;
        assert!(ask(&bench, "a", Do::Answer(1)).await.is_ok());
        bench.finish().await;
    });
}

#[test]
fn lim_1_e10c_a_pause_of_all_holds_for_every_key() {
    run_paused(async || {
        let bench = Bench::start(exact).await;
        ask(&bench, "a", throttled_for(3_000)).await.unwrap_err();
        bench.ask(throttled_for(7_000)).await.unwrap_err();
        for key in ["a", "b"] {
            let asked = ask(&bench, key, Do::Answer(1)).await;
            assert_eq!(asked.unwrap_err().retry_after(), Some(ms(7_000)), "{key}");
        }
        pass(7_000).await;
        assert!(ask(&bench, "a", Do::Answer(1)).await.is_ok());
        bench.finish().await;
    });
}

#[test]
fn lim_1_e10c_a_call_waits_out_the_pause_of_its_key() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            exact(settings);
            settings.throttle.max_wait = ms(20_000);
            settings.timeout.total = None;
            settings.timeout.attempt = None;
        })
        .await;
        ask(&bench, "a", throttled_for(3_000)).await.unwrap_err();
        // The attempt is in flight when the pause begins, and prolongs it.
        let began = tokio::time::Instant::now();
        let waiting = ask(&bench, "a", Do::Answer(1));
        let all = async {
            pass(1_000).await;
            bench.ask(throttled_for(9_000)).await.unwrap_err();
        };
        let (answered, ()) = tokio::join!(waiting, all);
        assert!(answered.is_ok());
        assert_eq!(began.elapsed(), ms(10_000), "the longer one counts");
        bench.finish().await;
    });
}

#[test]
fn lim_1_e10c_a_paused_key_is_not_forgotten_and_a_reset_ends_its_pause() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            exact(settings);
            settings.keys.max_entries = nonzero(2);
        })
        .await;
        ask(&bench, "a", throttled_for(60_000)).await.unwrap_err();
        for number in 0..10 {
            let key = format!("other-{number}");
            assert!(ask(&bench, &key, Do::Answer(1)).await.is_ok());
        }
        assert!(is_paused(&ask(&bench, "a", Do::Answer(1)).await));
        let reset = || BreakerCommand::Reset {
            reason: "test".to_owned(),
        };
        bench
            .client
            .operate_key("a", reset())
            .await
            .unwrap()
            .unwrap();
        assert!(ask(&bench, "a", Do::Answer(1)).await.is_ok());
        ask(&bench, "a", throttled_for(60_000)).await.unwrap_err();
        bench.client.operate(reset()).await.unwrap();
        let_others_run().await;
        assert!(ask(&bench, "a", Do::Answer(1)).await.is_ok());
        bench.finish().await;
    });
}

#[test]
fn lim_1_e10a_a_hint_is_cut_for_retries_and_for_a_used_up_quota() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            exact(settings);
            settings.throttle.max = ms(5_000);
            settings.retry.max_attempts = nonzero(2);
            settings.timeout.total = None;
        })
        .await;
        let began = tokio::time::Instant::now();
        let asked = bench.client.ask_with(
            Do::Error(ScriptedError::failure("no").retry_after(ms(u64::MAX))),
            CallOptions {
                idempotent: Some(true),
                ..CallOptions::default()
            },
        );
        asked.await.unwrap_err();
        assert!((ms(5_000)..ms(6_000)).contains(&began.elapsed()));
        let used_up = ScriptedError::quota_used_up().retry_after(ms(u64::MAX));
        bench.ask(Do::Error(used_up)).await.unwrap_err();
        let paused = Some((PauseReason::QuotaUsedUp, ms(5_000)));
        assert_eq!(bench.status().paused, paused);
        bench.finish().await;
    });
}
