//! Settings that change while they are read, and the causes of outages.

use std::time::Duration;

use breakerbox_policy::{
    BreakerCommand, CauseKind, ConfiguredOverride, DependencySettings, OverrideMode,
};

use super::{Route, Shared};
use crate::client::Client;
use crate::testing::{Reaction, Script, Scripted, ScriptedError, TestRuntime, run_paused};

async fn start(runtime: &TestRuntime) -> Client<Scripted<bool, ()>> {
    let script = Script::new(|is_well: bool, _| match is_well {
        true => Reaction::Answer(()),
        false => Reaction::Fail(ScriptedError::failure("down")),
    });
    let new = runtime.dependency("d").workers(move || script.dependency());
    new.start().await.expect("it starts")
}

fn present(shared: &Shared) -> DependencySettings {
    DependencySettings::clone(&shared.settings())
}

#[test]
fn cfg_2_a_reload_does_not_undo_what_is_said_of_the_fallbacks_meanwhile() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime).await;
        let shared = &client.core.shared;
        let before = present(shared);
        shared.set_fallback_only(true);
        shared.reconfigure(before);
        assert_eq!(shared.route(), Route::FallbackOnly);
        assert!(shared.settings().fallback_only);
        shared.set_fallback_only(false);
        assert_eq!(shared.route(), Route::Workers);
        runtime.finish().await;
    });
}

#[test]
fn cfg_2_what_is_said_of_the_fallbacks_does_not_undo_a_reload() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime).await;
        let shared = &client.core.shared;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0..2_000 {
                    shared.set_fallback_only(turn % 2 == 0);
                }
            });
            for turn in 0..2_000 {
                let wait = Duration::from_millis(turn);
                let mut settings = present(shared);
                settings.throttle.max_wait = wait;
                shared.reconfigure(settings);
                assert_eq!(shared.settings().throttle.max_wait, wait);
            }
        });
        runtime.finish().await;
    });
}

#[test]
fn hlt_2_an_order_is_the_cause_also_if_another_override_is_set_or_ends_beneath_it() {
    run_paused(async || {
        for is_removed in [false, true] {
            let runtime = TestRuntime::start().await;
            let client = start(&runtime).await;
            // It failed once, long before.
            client.ask(false).await.unwrap_err();
            let configure = async |set: Option<ConfiguredOverride>| {
                let configured = BreakerCommand::Configure { set };
                client.operate(configured).await.unwrap();
            };
            let by_hand = BreakerCommand::Open {
                reason: "migration tonight".to_owned(),
                until: None,
            };
            client.operate(by_hand).await.unwrap();
            configure(Some(ConfiguredOverride {
                mode: OverrideMode::Shadow,
                reason: "measured at first".to_owned(),
            }))
            .await;
            if is_removed {
                configure(None).await;
            }
            for _ in 0..40 {
                client.ask(true).await.unwrap_err();
            }
            let cause = client.status().outage.unwrap().cause;
            assert_eq!(cause.kind, CauseKind::Ordered);
            let text = "an order refuses its calls: migration tonight";
            assert_eq!(cause.text, text);
            runtime.finish().await;
        }
    });
}
