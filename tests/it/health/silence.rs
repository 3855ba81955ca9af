//! Callers that give up while no call is answered, and probes that succeed while all calls fail.

use std::num::NonZeroU64;
use std::time::Duration;

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallOptions, EventKind, Health, Verdict};
use breakerbox_policy::{CauseKind, Class, OutageCondition, State};

use super::reason;
use crate::scripted::{Bench, Do, ms, opens_after, pass};

/// Makes calls that hang, one after the other, and gives each up after this time.
async fn give_up(bench: &Bench, calls: u32, after: Duration) {
    for _ in 0..calls {
        let call = tokio::time::timeout(after, bench.ask(Do::Hang));
        call.await.expect_err("it hangs");
    }
}

fn told(bench: &Bench) -> Vec<String> {
    let events = bench.runtime.events_since(0).into_iter();
    let of_silence =
        |kind: &EventKind| matches!(kind, EventKind::NoAnswers { .. } | EventKind::NoAnswersOver);
    let events = events.filter(|event| of_silence(&event.kind));
    events.map(|event| event.kind.to_string()).collect()
}

#[test]
fn hlt_1_a_dependency_that_hangs_for_all_callers_is_down() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.timeout.attempt = Some(ms(30_000))).await;
        for _ in 0..30 {
            bench.ask(Do::Answer(1).after(20)).await.unwrap();
        }
        give_up(&bench, 6, ms(2_000)).await;
        let status = bench.status();
        let said = "it hangs: 5 callers gave up after 2 s or more, and no call was answered \
                    meanwhile";
        assert!(matches!(status.health, Health::Down { .. }), "{status:?}");
        assert_eq!(reason(&status.health), said);
        let outage = status.outage.unwrap();
        assert_eq!(outage.began_with, OutageCondition::Unanswered);
        assert_eq!(
            (outage.cause.kind, &*outage.cause.text),
            (CauseKind::Hang, said)
        );
        give_up(&bench, 4, ms(2_000)).await;
        let status = bench.status();
        assert_eq!(status.outage.unwrap().affected.errors, 9);
        // EDGE-1: the breaker knows nothing of callers that left.
        assert_eq!((status.window.failures, status.state), (0, State::Closed));
        bench.ask(Do::Answer(1)).await.unwrap();
        let status = bench.status();
        assert_eq!(status.outage, None);
        assert_eq!(told(&bench).len(), 2, "{:?}", told(&bench));
        // The callers that gave up are forgotten with it.
        assert_eq!(bench.status().health, Health::Ok);
        assert_eq!(bench.runtime.outages().len(), 1);
        bench.finish().await;
    });
}

#[test]
fn edge_1_f14_deadlines_of_callers_are_no_hang() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.timeout.attempt = Some(ms(30_000))).await;
        for _ in 0..30 {
            let options = CallOptions {
                timeout: Some(ms(1_500)),
                ..CallOptions::default()
            };
            bench.client.ask_with(Do::Hang, options).await.unwrap_err();
        }
        let status = bench.status();
        assert_eq!((&status.health, &status.outage), (&Health::Ok, &None));
        assert_eq!((status.window.failures, status.state), (0, State::Closed));
        bench.finish().await;
    });
}

#[test]
fn edge_1_f14_one_known_caller_that_leaves_again_and_again_is_no_hang() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.timeout.attempt = Some(ms(30_000))).await;
        let give_up = async |caller: u64, calls: u32| {
            for _ in 0..calls {
                let options = CallOptions {
                    caller: NonZeroU64::new(caller),
                    ..CallOptions::default()
                };
                let call = bench.client.ask_with(Do::Hang, options);
                let left = tokio::time::timeout(ms(2_000), call).await;
                left.expect_err("it hangs");
            }
        };
        give_up(1, 20).await;
        let status = bench.status();
        assert_eq!((&status.health, &status.outage), (&Health::Ok, &None));
        for caller in 2..=6 {
            give_up(caller, 1).await;
        }
        let status = bench.status();
        assert!(matches!(status.health, Health::Down { .. }), "{status:?}");
        assert_eq!(status.outage.unwrap().cause.kind, CauseKind::Hang);
        bench.finish().await;
    });
}

#[test]
fn hlt_1_a_hang_without_further_callers_is_over() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.timeout.attempt = Some(ms(30_000))).await;
        give_up(&bench, 6, ms(2_000)).await;
        let first = bench.status().outage.unwrap();
        pass(31_000).await;
        assert_eq!(bench.status().outage, None);
        // HLT-2: it still answers no call, so it is the same outage.
        give_up(&bench, 1, ms(2_000)).await;
        assert_eq!(
            bench.status().outage.map(|outage| outage.id),
            Some(first.id)
        );
        bench.finish().await;
    });
}

#[test]
fn edge_1_callers_that_leave_while_others_are_answered_count_for_nothing() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.timeout.attempt = Some(ms(30_000))).await;
        for _ in 0..20 {
            give_up(&bench, 3, ms(2_000)).await;
            bench.ask(Do::Answer(1)).await.unwrap();
        }
        let status = bench.status();
        assert_eq!((status.outage, status.answers.counts.errors), (None, 0));
        assert_eq!(told(&bench), Vec::<String>::new());
        bench.finish().await;
    });
}

#[test]
fn edge_1_callers_that_leave_within_the_usual_time_count_for_nothing() {
    run_paused(async || {
        let bench = Bench::start(|settings| settings.timeout.attempt = Some(ms(30_000))).await;
        give_up(&bench, 50, ms(900)).await;
        assert_eq!(bench.status().outage, None);
        for _ in 0..30 {
            bench.ask(Do::Answer(1).after(5_000)).await.unwrap();
        }
        give_up(&bench, 12, ms(4_000)).await;
        assert_eq!(bench.status().outage, None);
        assert_eq!(bench.status().answers.counts.errors, 0);
        bench.finish().await;
    });
}

#[test]
fn hlt_2_probes_that_succeed_while_all_calls_fail_are_one_outage() {
    run_paused(async || {
        let bench = Bench::start(opens_after(3, ms(1_000))).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.fail_until_open().await;
        let first = bench.status().outage.unwrap();
        bench.runtime.acknowledge_outage(first.id, "ann", "on it");
        for _ in 0..5 {
            while bench.state() != State::Closed {
                pass(1_000).await;
                if let Some(probe) = bench.client.begin_active_probe() {
                    probe.end(&Verdict::from(Class::Success));
                }
            }
            bench.fail_until_open().await;
        }
        let outage = bench.status().outage.unwrap();
        assert_eq!((outage.id, outage.since), (first.id, first.since));
        assert_eq!(
            outage.acknowledged.map(|ack| ack.by).as_deref(),
            Some("ann")
        );
        assert_eq!(bench.runtime.outages().len(), 1);
        bench.finish().await;
    });
}
