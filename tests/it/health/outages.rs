//! Outages of a running dependency: their begin, cause, probes, callers and end.

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{DependencyOutage, FallbackRule, Fixed};
use breakerbox_policy::{BreakerCommand, CauseKind, OutageCondition};

use crate::scripted::{Bench, Do, ms, opens_after, pass};

fn all(bench: &Bench) -> Vec<DependencyOutage> {
    bench.runtime.outages()
}

#[test]
fn hlt_2_an_outage_keeps_its_begin_and_cause_through_its_probes() {
    run_paused(async || {
        let bench = Bench::start(opens_after(3, ms(1_000))).await;
        assert_eq!(bench.status().outage, None);
        bench.fail_until_open().await;
        let begin = bench.runtime.clock().now();
        for _ in 0..3 {
            pass(1_000).await;
            bench.ask(Do::Fail).await.unwrap_err();
            bench.ask(Do::Answer(1)).await.unwrap_err();
        }
        let outage = bench.status().outage.unwrap();
        assert_eq!((outage.since, outage.ended), (begin, None));
        assert_eq!(outage.cause.rule, "3 calls in a row failed, at or above 3");
        assert_eq!((outage.probes, outage.probes_failed), (3, 3));
        assert!(!outage.last_probe.as_ref().unwrap().succeeded);
        // The call that opened it, three probes and three refusals.
        assert_eq!(outage.affected.errors, 7);
        pass(60_000).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.status().outage, None);
        let kept = all(&bench);
        assert_eq!(kept.len(), 1);
        let ended = &kept[0].outage;
        assert_eq!((&*kept[0].dependency, ended.id), ("dep", outage.id));
        assert_eq!(ended.ended, Some(bench.runtime.clock().now()));
        assert_eq!((ended.probes, ended.probes_failed), (4, 3));
        assert!(ended.last_probe.as_ref().unwrap().succeeded);
        bench.finish().await;
    });
}

#[test]
fn hlt_2_callers_who_got_a_fallback_are_told_apart() {
    run_paused(async || {
        let rules = vec![FallbackRule::new(Fixed(7))];
        let bench = Bench::with_fallbacks(opens_after(2, ms(60_000)), rules).await;
        for _ in 0..10 {
            bench.ask(Do::Fail).await.unwrap();
        }
        let affected = bench.status().outage.unwrap().affected;
        assert_eq!((affected.by_fallback, affected.errors), (9, 0));
        bench.finish().await;
    });
}

#[test]
fn hlt_2_a_share_of_errors_is_an_outage_too() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        for _ in 0..20 {
            for told in [Do::Answer(1), Do::Answer(1), Do::Fail] {
                // The caller gets what it gets.
                let _ = bench.ask(told).await;
            }
        }
        let outage = bench.status().outage.unwrap();
        assert_eq!(outage.began_with, OutageCondition::Errors);
        assert!(outage.cause.rule.contains("33 % of 60 calls"), "{outage:?}");
        // The breaker that opens then belongs to it.
        bench.fail_until_open().await;
        assert_eq!(bench.status().outage.unwrap().id, outage.id);
        assert_eq!(all(&bench).len(), 1);
        bench.finish().await;
    });
}

#[test]
fn hlt_2_an_order_that_refuses_calls_is_the_cause_of_its_outage() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        // It failed once, long before.
        let _ = bench.ask(Do::Fail).await;
        let open = BreakerCommand::Open {
            reason: "migration tonight".into(),
            until: None,
        };
        bench.client.operate(open).await.unwrap();
        for _ in 0..40 {
            let refused = bench.ask(Do::Answer(1)).await;
            assert!(refused.is_err());
        }
        let outage = bench.status().outage.unwrap();
        assert_eq!(outage.cause.kind, CauseKind::Ordered);
        assert_eq!(
            outage.cause.text,
            "an order refuses its calls: migration tonight"
        );
        // The figures are of the begin, and say so.
        assert!(
            outage.cause.rule.ends_with("within 30 s when it began"),
            "{outage:?}"
        );
        bench.finish().await;
    });
}

#[test]
fn hlt_2_a_parked_dependency_is_one_outage_and_its_worker_ends_it() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.workers.intensity.max = 0;
        })
        .await;
        bench.ask(Do::Panic).await.unwrap_err();
        while !bench.status().parked {
            pass(10).await;
        }
        let outage = bench.status().outage.unwrap();
        assert_eq!(outage.cause.kind, CauseKind::Parked);
        assert!(outage.cause.text.contains("told to"), "{:?}", outage.cause);
        let group = bench.runtime.group("dep").unwrap();
        group.restart("worker-1").await.unwrap();
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.status().outage, None);
        bench.finish().await;
    });
}

#[test]
fn hlt_2_an_acknowledgement_has_who_and_note() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        bench.fail_until_open().await;
        let id = bench.status().outage.unwrap().id;
        let runtime = &bench.runtime;
        assert_eq!(runtime.acknowledge_outage(id + 1, "ann", "on it"), None);
        let name = runtime.acknowledge_outage(id, "ann", "on it");
        assert_eq!(name.as_deref(), Some("dep"));
        let note = bench.status().outage.unwrap().acknowledged.unwrap();
        assert_eq!((&*note.by, &*note.note), ("ann", "on it"));
        bench.finish().await;
    });
}
