//! BRK-10 and SUP-4: a command for the whole dependency holds for each of its keys.

use breakerbox_actors::EventKind;
use breakerbox_actors::testing::run_paused;
use breakerbox_policy::{
    BreakerCommand, BreakerEvent, Class, OverrideMode, RefusalState, State, Time,
};

use super::{Bench, CallError, Do, let_others_run, ms, nonzero, of, opens_after, pass};

fn why() -> String {
    "maintenance".to_owned()
}

fn open(until: Option<Time>) -> BreakerCommand {
    let reason = why();
    BreakerCommand::Open { reason, until }
}

fn shadow(until: Option<Time>) -> BreakerCommand {
    let reason = why();
    BreakerCommand::Shadow { reason, until }
}

async fn operate(bench: &Bench, command: BreakerCommand) {
    bench.client.operate(command).await.unwrap();
}

async fn operate_key(bench: &Bench, key: &str, command: BreakerCommand) {
    let told = bench.client.operate_key(key, command).await;
    told.expect("a known key").unwrap();
}

#[test]
fn brk_10_forced_open_and_disabled_hold_for_every_key() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        bench.ask_of("sick", Do::Fail).await.unwrap_err();
        bench.ask_of("well", Do::Answer(1)).await.unwrap();
        operate(&bench, open(None)).await;
        for key in ["sick", "well", "new"] {
            let error = bench.ask_of(key, Do::Answer(1)).await.unwrap_err();
            let CallError::Open(refused) = &error else {
                panic!("{error}");
            };
            assert_eq!(refused.state, RefusalState::ForcedOpen, "{key}");
            assert!(error.to_string().contains("maintenance"), "{error}");
        }
        let (reason, until) = (why(), None);
        operate(&bench, BreakerCommand::Disable { reason, until }).await;
        for key in ["sick", "well", "new"] {
            bench.ask_of(key, Do::Fail).await.unwrap_err();
            bench.ask_of(key, Do::Answer(1)).await.unwrap();
        }
        assert_eq!(
            bench.state_of("well"),
            State::Closed,
            "nothing was recorded"
        );
        bench.finish().await;
    });
}

#[test]
fn brk_10_an_override_that_ends_by_itself_shows_each_keys_true_state() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        bench.ask_of("sick", Do::Fail).await.unwrap_err();
        bench.ask_of("well", Do::Answer(1)).await.unwrap();
        operate(&bench, open(Some(Time::from_millis(1_000)))).await;
        pass(1_001).await;
        assert_eq!(bench.refused_by("sick").await.as_deref(), Some("sick"));
        assert_eq!(bench.refused_by("well").await, None);
        bench.finish().await;
    });
}

#[test]
fn brk_10_close_and_reset_reach_every_key() {
    run_paused(async || {
        for command in [
            BreakerCommand::Close { reason: why() },
            BreakerCommand::Reset { reason: why() },
        ] {
            let resets = matches!(command, BreakerCommand::Reset { .. });
            let bench = Bench::start(opens_after(1, ms(60_000))).await;
            bench.ask_of("a", Do::Fail).await.unwrap_err();
            bench.ask_of("b", Do::Answer(1)).await.unwrap();
            operate_key(&bench, "b", open(None)).await;
            operate(&bench, command).await;
            assert_eq!(bench.key("a").unwrap().tally.failures, u64::from(!resets));
            for key in ["a", "b"] {
                assert_eq!(bench.refused_by(key).await, None, "{key}");
            }
            bench.finish().await;
        }
    });
}

#[test]
fn brk_10_clear_takes_overrides_off_every_key_and_no_more() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        bench.ask_of("sick", Do::Fail).await.unwrap_err();
        bench.ask_of("well", Do::Answer(1)).await.unwrap();
        operate_key(&bench, "well", open(None)).await;
        operate(&bench, BreakerCommand::Clear).await;
        assert_eq!(bench.refused_by("sick").await.as_deref(), Some("sick"));
        assert_eq!(bench.refused_by("well").await, None);
        bench.finish().await;
    });
}

#[test]
fn brk_10_a_dependency_in_shadow_mode_refuses_no_key() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(60_000))).await;
        for _ in 0..2 {
            bench.ask_of("open", Do::Fail).await.unwrap_err();
        }
        bench.ask_of("forced", Do::Answer(1)).await.unwrap();
        operate_key(&bench, "forced", open(None)).await;
        operate(&bench, shadow(None)).await;
        assert_eq!(bench.refused_by("forced").await.as_deref(), Some("forced"));
        for key in ["open", "new"] {
            for _ in 0..3 {
                bench.ask_of(key, Do::Fail).await.unwrap_err();
            }
            assert_eq!(bench.refused_by(key).await, None, "{key}");
        }
        assert_eq!(
            bench.key("new").unwrap().tally.failures,
            3,
            "it is measured"
        );
        let of_override = |kind: &EventKind| matches!(kind, EventKind::Breaker(BreakerEvent::Overridden { mode, .. }) if *mode == OverrideMode::Shadow);
        let events = bench.runtime.events_since(0);
        let told: Vec<&str> = events
            .iter()
            .filter(|event| of_override(&event.kind))
            .map(|event| &*event.subject)
            .collect();
        assert_eq!(told, ["dep"], "one event, not one for each key");
        operate(&bench, BreakerCommand::Clear).await;
        assert_eq!(bench.refused_by("open").await.as_deref(), Some("open"));
        assert_eq!(bench.refused_by("new").await, None, "it was never closed");
        bench.finish().await;
    });
}

#[test]
fn brk_10_a_shadow_that_ends_or_gives_way_ends_for_the_keys_too() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        bench.ask_of("a", Do::Fail).await.unwrap_err();
        operate(&bench, shadow(Some(Time::from_millis(1_000)))).await;
        assert_eq!(bench.refused_by("a").await, None);
        pass(1_001).await;
        assert_eq!(bench.refused_by("a").await.as_deref(), Some("a"));
        operate(&bench, shadow(None)).await;
        operate(&bench, open(Some(Time::from_millis(3_000)))).await;
        pass(3_000).await;
        let_others_run().await;
        assert_eq!(bench.status().overridden, None);
        assert_eq!(bench.refused_by("a").await.as_deref(), Some("a"));
        bench.finish().await;
    });
}

#[test]
fn brk_10_an_operator_may_mean_one_key() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        assert_eq!(
            bench.client.operate_key("a", BreakerCommand::Clear).await,
            None
        );
        bench.ask_of("a", Do::Answer(1)).await.unwrap();
        bench.ask_of("b", Do::Answer(1)).await.unwrap();
        operate_key(&bench, "a", open(None)).await;
        assert_eq!(bench.refused_by("a").await.as_deref(), Some("a"));
        assert_eq!(bench.refused_by("b").await, None);
        bench.ask(Do::Answer(1)).await.unwrap();
        let probe = BreakerCommand::Probe { reason: why() };
        let told = bench.client.operate_key("b", probe).await;
        assert!(told.unwrap().is_err(), "a closed one cannot be tried");
        operate_key(&bench, "a", BreakerCommand::Clear).await;
        assert_eq!(bench.refused_by("a").await, None);
        bench.finish().await;
    });
}

#[test]
fn sup_4_a_parked_dependency_is_parked_for_every_key() {
    run_paused(async || {
        let bench = Bench::start(|_| {}).await;
        bench.ask_of("a", Do::Answer(1)).await.unwrap();
        operate(&bench, BreakerCommand::Park { reason: why() }).await;
        for key in ["a", "new"] {
            assert_eq!(bench.refused_by(key).await.as_deref(), Some(""), "{key}");
        }
        operate(&bench, BreakerCommand::Unpark).await;
        for key in ["a", "new"] {
            assert_eq!(bench.refused_by(key).await, None, "{key}");
        }
        bench.finish().await;
    });
}

#[test]
fn call_4_a_call_of_a_key_that_waits_is_refused_when_the_dependency_is_forced_open() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(10_000);
        })
        .await;
        let holder = bench.ask_of("a", Do::Answer(1).after(500));
        let waiter = bench.ask_of("b", Do::Answer(2));
        let closure = bench.client.run_with(
            of("c"),
            |_| Class::Success.into(),
            async || Ok::<_, String>(()),
        );
        let operator = async {
            let_others_run().await;
            operate(&bench, open(None)).await;
        };
        let (held, waited, ran, ()) = tokio::join!(holder, waiter, closure, operator);
        held.unwrap();
        let error = waited.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert!(matches!(ran, Err(CallError::Open(_))));
        assert_eq!(bench.script.calls(), 1);
        bench.finish().await;
    });
}
