//! Health by what callers get, and outages as one object (rules HLT-1, HLT-2, BRK-13).

mod outages;

mod silence;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallOptions, Event, EventKind, FallbackRule, Fixed, Health, StaleCache};
use breakerbox_policy::{BreakerCommand, Class, DependencySettings, OutageEnding, Rate, State};

use crate::scripted::{Bench, Dep, Do, Error, ms, opens_after, pass};

/// Makes a call of every three fail, so that no breaker of a run of failures opens.
async fn fail_a_third(bench: &Bench, rounds: u32) {
    for _ in 0..rounds {
        for told in [Do::Answer(1), Do::Answer(1), Do::Fail] {
            // The caller gets what it gets.
            let _ = bench.ask(told).await;
        }
    }
}

fn reason(health: &Health) -> &str {
    match health {
        Health::Ok => "ok",
        Health::Degraded { reason } | Health::Down { reason } => reason,
    }
}

fn shares(bench: &Bench) -> Vec<Event> {
    let events = bench.runtime.events_since(0).into_iter();
    let of_share = |event: &Event| {
        matches!(
            event.kind,
            EventKind::ErrorShare { .. } | EventKind::ErrorsOver
        )
    };
    events.filter(of_share).collect()
}

#[test]
fn hlt_1_a_third_of_errors_is_degraded_though_the_breaker_is_closed() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        assert_eq!(bench.status().health, Health::Ok);
        fail_a_third(&bench, 20).await;
        let status = bench.status();
        assert!(matches!(status.health, Health::Degraded { .. }));
        let said = "33 % of 60 calls got errors in the last 30 s";
        assert_eq!(reason(&status.health), said);
        let counts = status.answers.counts;
        assert_eq!((counts.own, counts.errors), (40, 20));
        bench.finish().await;
    });
}

#[test]
fn hlt_1_it_is_ok_again_within_a_minute_with_or_without_calls() {
    run_paused(async || {
        for calls in [0, 1] {
            let bench = Bench::start(|_| {}).await;
            fail_a_third(&bench, 20).await;
            for _ in 0..20 {
                pass(1_000).await;
                for _ in 0..calls {
                    bench.ask(Do::Answer(1)).await.unwrap();
                }
            }
            assert!(bench.status().health != Health::Ok, "errors still count");
            for _ in 0..15 {
                pass(1_000).await;
                for _ in 0..calls {
                    bench.ask(Do::Answer(1)).await.unwrap();
                }
            }
            assert_eq!(bench.status().health, Health::Ok);
            assert_eq!(bench.status().outage, None);
            let kinds = shares(&bench);
            assert_eq!(kinds.len(), 2, "one begin, one end: {kinds:?}");
            let by = match calls {
                0 => OutageEnding::Silence,
                _ => OutageEnding::Recovery,
            };
            let ended = bench.runtime.outages().remove(0).outage;
            assert_eq!(ended.ended_by, Some(by));
            bench.finish().await;
        }
    });
}

#[test]
fn hlt_1_half_of_errors_is_down_with_a_closed_breaker() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        for _ in 0..10 {
            bench.ask(Do::Answer(1)).await.unwrap();
            bench.ask(Do::Fail).await.unwrap_err();
        }
        let health = bench.status().health;
        assert!(matches!(health, Health::Down { .. }), "{health}");
        assert_eq!(
            reason(&health),
            "50 % of 20 calls got errors in the last 30 s"
        );
        bench.finish().await;
    });
}

#[test]
fn hlt_1_silence_after_errors_alone_is_no_recovery() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.breaker.failure_threshold = None).await;
        for _ in 0..4 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        // Nothing is judged by less than five.
        assert_eq!(bench.status().health, Health::Ok);
        for _ in 0..26 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        for _ in 0..120 {
            pass(1_000).await;
            assert!(bench.status().health != Health::Ok);
        }
        let health = bench.status().health;
        assert!(matches!(health, Health::Degraded { .. }), "{health}");
        assert!(reason(&health).contains("no good answer since"), "{health}");
        assert!(bench.status().outage.is_some());
        assert_eq!(
            shares(&bench).len(),
            1,
            "it has no end: {:?}",
            shares(&bench)
        );
        bench.ask(Do::Answer(1)).await.unwrap();
        let status = bench.status();
        assert_eq!((status.health, status.outage), (Health::Ok, None));
        let ended = bench.runtime.outages().remove(0).outage;
        assert_eq!(ended.ended_by, Some(OutageEnding::Recovery));
        bench.finish().await;
    });
}

#[test]
fn hlt_2_an_order_ends_an_outage_as_an_order() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        for _ in 0..5 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        assert!(bench.status().outage.is_some());
        let reason = "try it".to_owned();
        let close = BreakerCommand::Close { reason };
        bench.client.operate(close).await.unwrap();
        let ended = bench.runtime.outages().remove(0).outage;
        assert_eq!(ended.ended_by, Some(OutageEnding::Order));
        bench.finish().await;
    });
}

#[test]
fn hlt_1_a_good_answer_right_after_the_errors_is_a_recovery() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.breaker.failure_threshold = None).await;
        for _ in 0..30 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        bench.ask(Do::Answer(1)).await.unwrap();
        for _ in 0..40 {
            pass(1_000).await;
            bench.status();
        }
        let status = bench.status();
        assert_eq!((status.health, status.outage), (Health::Ok, None));
        let ended = bench.runtime.outages().remove(0).outage;
        assert_eq!(ended.ended_by, Some(OutageEnding::Recovery));
        bench.finish().await;
    });
}

#[test]
fn hlt_1_an_outage_by_errors_ends_with_the_answer_to_a_callers_mistake() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.breaker.failure_threshold = None).await;
        for _ in 0..30 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        for _ in 0..40 {
            pass(1_000).await;
            bench.status();
        }
        assert!(bench.status().outage.is_some());
        bench.ask(Do::End(Class::Rejected)).await.unwrap_err();
        assert_eq!(bench.status().outage, None);
        bench.finish().await;
    });
}

#[test]
fn hlt_1_callers_own_mistakes_count_for_nothing() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        for _ in 0..100 {
            bench.ask(Do::End(Class::Rejected)).await.unwrap_err();
            bench.ask(Do::End(Class::Cancelled)).await.unwrap_err();
        }
        let status = bench.status();
        assert_eq!(status.health, Health::Ok);
        assert_eq!(status.answers.counts.calls(), 0);
        bench.finish().await;
    });
}

#[test]
fn hlt_1_a_fallback_that_does_not_answer_is_no_stand_in() {
    run_paused(async || {
        let rules = vec![FallbackRule::new(StaleCache::<Dep>::new(ms(60_000), 10))];
        let bench = Bench::with_fallbacks(opens_after(3, ms(600_000)), rules).await;
        for _ in 0..12 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        let health = bench.status().health;
        assert!(matches!(health, Health::Down { .. }), "{health}");
        assert!(reason(&health).contains("breaker is open"), "{health}");
        // Still so without a call for long.
        pass(120_000).await;
        let health = bench.status().health;
        assert!(matches!(health, Health::Down { .. }), "{health}");
        bench.finish().await;
    });
}

#[test]
fn hlt_1_errors_of_what_answers_from_fallbacks_only_are_an_outage() {
    run_paused(async || {
        let is_well = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_well);
        let spare = move |_: Do, _: &Error| {
            let answer = told.load(Ordering::Relaxed).then_some(7);
            async move { answer.ok_or("the stand-in is dead") }
        };
        let rules = vec![FallbackRule::new(spare).named("spare")];
        let configure = |settings: &mut DependencySettings| settings.fallback_only = true;
        let bench = Bench::with_fallbacks(configure, rules).await;
        for _ in 0..25 {
            bench.ask(Do::Answer(1)).await.unwrap_err();
        }
        let status = bench.status();
        assert!(matches!(status.health, Health::Down { .. }), "{status:?}");
        assert_eq!(status.answers.counts.errors, 25);
        let cause = status.outage.unwrap().cause.text;
        assert!(cause.contains("no fallback answers"), "{cause}");
        // Silence is no answer, and the answer of a fallback is one.
        pass(120_000).await;
        let health = bench.status().health;
        assert!(matches!(health, Health::Down { .. }), "{health}");
        is_well.store(true, Ordering::Relaxed);
        bench.ask(Do::Answer(1)).await.unwrap();
        let status = bench.status();
        assert!(matches!(status.health, Health::Degraded { .. }));
        assert_eq!(status.outage, None);
        let ended = bench.runtime.outages().remove(0).outage;
        assert_eq!(ended.ended_by, Some(OutageEnding::Recovery));
        bench.finish().await;
    });
}

#[test]
fn hlt_1_a_fallback_that_answers_makes_it_degraded() {
    run_paused(async || {
        let rules = vec![FallbackRule::new(Fixed(7))];
        let bench = Bench::with_fallbacks(opens_after(3, ms(600_000)), rules).await;
        for _ in 0..30 {
            bench.ask(Do::Fail).await.unwrap();
        }
        let status = bench.status();
        assert!(matches!(status.health, Health::Degraded { .. }));
        let counts = status.answers.counts;
        assert_eq!((counts.by_fallback, counts.errors), (30, 0));
        bench.finish().await;
    });
}

#[test]
fn hlt_1_the_share_is_a_setting_of_the_dependency() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.health.degraded_at = Rate::new(0.4).unwrap();
        })
        .await;
        fail_a_third(&bench, 20).await;
        assert_eq!(bench.status().health, Health::Ok);
        assert_eq!(shares(&bench), []);
        bench.finish().await;
    });
}

#[test]
fn hlt_1_a_breaker_that_has_closed_is_well_at_once() {
    run_paused(async || {
        let bench = Bench::start(opens_after(30, ms(1_000))).await;
        for _ in 0..30 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        assert!(matches!(bench.status().health, Health::Down { .. }));
        pass(1_000).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.status().health, Health::Ok);
        bench.finish().await;
    });
}

#[test]
fn brk_13_half_open_without_traffic_waits_for_a_call() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(1_000))).await;
        bench.fail_until_open().await;
        assert!(!bench.status().waits_for_call);
        pass(3_600_000).await;
        let status = bench.status();
        assert!(status.waits_for_call);
        let said = reason(&status.health).to_owned();
        assert_eq!(said, "it waits for a call to try it");
        // A call that tries it is told as one.
        let probe = bench.client.ask(Do::Answer(1).after(500));
        let (answer, status) = tokio::join!(probe, async {
            pass(100).await;
            bench.status()
        });
        answer.unwrap();
        assert!(!status.waits_for_call);
        assert_eq!(reason(&status.health), "it is being tried again");
        assert_eq!(bench.status().health, Health::Ok);
        bench.finish().await;
    });
}

#[test]
fn hlt_2_the_probes_of_a_key_are_those_of_its_outage() {
    run_paused(async || {
        let bench = Bench::start(opens_after(5, ms(1_000))).await;
        let ask = async |told: Do| {
            let of_key = CallOptions {
                key: Some("m".into()),
                ..CallOptions::default()
            };
            bench.client.ask_with(told, of_key).await
        };
        for _ in 0..5 {
            ask(Do::Fail).await.unwrap_err();
        }
        let status = bench.status();
        assert_eq!(
            status.state,
            State::Closed,
            "one key opens no other breaker"
        );
        assert_eq!(status.outage.unwrap().probes, 0);
        pass(1_000).await;
        ask(Do::Fail).await.unwrap_err();
        let outage = bench.status().outage.unwrap();
        assert_eq!((outage.probes, outage.probes_failed), (1, 1));
        assert!(!outage.last_probe.unwrap().succeeded);
        assert!(!bench.status().keys[0].waits_for_call);
        pass(60_000).await;
        assert!(bench.status().keys[0].waits_for_call);
        ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.status().outage, None);
        let ended = bench.runtime.outages().remove(0).outage;
        assert_eq!((ended.probes, ended.probes_failed), (2, 1));
        bench.finish().await;
    });
}
