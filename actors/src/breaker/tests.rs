//! State that survives a crash of the breaker actor (rule BRK-12). Only a test inside the crate can
//! crash it: none of its regular messages panics.

use std::time::Duration;

use actix::{Context, Handler, Message};
use breakerbox_policy::{BreakerCommand, Class, ConfiguredOverride, OverrideMode, State};

use super::receiver::CallReceiver;
use crate::call_options::CallOptions;
use crate::client::Client;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::event::{Event, EventKind};
use crate::testing::{Reaction, Script, Scripted, ScriptedError, TestRuntime, run_paused};
use crate::verdict::Verdict;

/// Makes the breaker actor panic.
#[derive(Message)]
#[rtype(result = "()")]
enum Crash {
    Outside,
    /// During a change of the policy machine.
    InTheMachine,
    /// During a change of a key's policy machine.
    InTheMachineOf(&'static str),
}

impl<D: Dependency> Handler<Crash> for CallReceiver<D> {
    type Result = ();

    fn handle(&mut self, crash: Crash, _: &mut Context<Self>) {
        let key = match crash {
            Crash::InTheMachineOf(key) => self.mailbox.shared.keys.find(key),
            Crash::Outside | Crash::InTheMachine => None,
        };
        let breaker = key.as_deref().unwrap_or(&self.mailbox.shared.breaker);
        let _held = (!matches!(crash, Crash::Outside)).then(|| breaker.lock());
        panic!("the breaker actor was told to crash");
    }
}

type Doubler = Client<Scripted<u32, u32>>;

async fn doubler(runtime: &TestRuntime) -> (Doubler, Script<u32, u32>) {
    let script = Script::new(|request: u32, _| match request {
        0 => Reaction::Fail(ScriptedError::failure("down")),
        13 => Reaction::Panic("unlucky"),
        _ => Reaction::Answer(request * 2),
    });
    let worker = script.clone();
    let client = runtime
        .dependency("d")
        .workers(move || worker.dependency())
        .start()
        .await
        .expect("it starts");
    (client, script)
}

/// Crashes the breaker actor, and waits for its restart.
async fn crash(client: &Doubler, how: Crash) {
    let before = client.core.breaker.health.incarnation();
    let told = client.core.breaker.addr.send(how).await;
    assert!(told.is_err());
    while client.core.breaker.health.incarnation() == before {
        tokio::task::yield_now().await;
    }
}

async fn open(client: &Doubler) {
    for _ in 0..5 {
        let _ = client.ask(0).await;
    }
    assert_eq!(client.status().state, State::Open);
}

#[test]
fn brk_12_a_crash_of_the_breaker_actor_forgets_nothing() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, script) = doubler(&runtime).await;
        open(&client).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        crash(&client, Crash::Outside).await;
        let error = client.ask(1).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(20)));
        assert_eq!(script.calls(), 5);
        // The timer of the open period is set again.
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(client.ask(1).await.unwrap().value, 2);
        assert_eq!(client.status().state, State::Closed);
        runtime.finish().await;
    });
}

fn of(key: &str) -> CallOptions {
    CallOptions {
        key: Some(key.into()),
        ..CallOptions::default()
    }
}

fn state_of(client: &Doubler, key: &str) -> (State, u64) {
    let keys = client.status().keys;
    let one = keys.into_iter().find(|one| one.key == key);
    one.map(|one| (one.state, one.window.failures))
        .expect("a known key")
}

#[test]
fn ops_1_a_key_that_is_forgotten_while_it_is_sick_is_told() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        for _ in 0..5 {
            let _ = client.ask_with(0, of("sick")).await;
        }
        client.ask_with(1, of("well")).await.unwrap();
        assert_eq!(state_of(&client, "sick").0, State::Open);
        let forgotten = || {
            let events = runtime.events_since(0).into_iter();
            let of = |event: Event| match event.kind {
                EventKind::KeyForgotten { state } => Some((event.subject.to_string(), state)),
                _ => None,
            };
            events.filter_map(of).collect::<Vec<_>>()
        };
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(forgotten(), []);
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert!(client.status().keys.is_empty());
        let subject = format!("{}[sick]", client.name());
        assert_eq!(forgotten(), [(subject, State::HalfOpen)]);
        runtime.finish().await;
    });
}

#[test]
fn brk_12_a_crash_of_the_breaker_actor_forgets_no_key() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        for _ in 0..5 {
            let _ = client.ask_with(0, of("sick")).await;
        }
        for _ in 0..4 {
            let _ = client.ask_with(0, of("ailing")).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        crash(&client, Crash::Outside).await;
        assert_eq!(state_of(&client, "ailing"), (State::Closed, 4));
        let error = client.ask_with(1, of("sick")).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(20)));
        let _ = client.ask_with(0, of("ailing")).await;
        assert_eq!(
            state_of(&client, "ailing").0,
            State::Open,
            "the fifth in a row"
        );
        // The timers of the open periods are set again, without a call.
        tokio::time::sleep(Duration::from_secs(21)).await;
        assert_eq!(state_of(&client, "sick").0, State::HalfOpen);
        assert_eq!(client.ask_with(1, of("sick")).await.unwrap().value, 2);
        assert_eq!(client.status().state, State::Closed);
        runtime.finish().await;
    });
}

#[test]
fn brk_12_a_crash_in_a_keys_machine_empties_that_window_alone() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        for key in ["a", "b"] {
            for _ in 0..3 {
                let _ = client.ask_with(0, of(key)).await;
            }
        }
        crash(&client, Crash::InTheMachineOf("a")).await;
        assert_eq!(state_of(&client, "a"), (State::Closed, 0));
        assert_eq!(state_of(&client, "b"), (State::Closed, 3));
        runtime.finish().await;
    });
}

#[test]
fn call_6_open_keys_are_forgotten_once_their_open_time_is_over() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|is_well: bool, _| match is_well {
            true => Reaction::Answer(()),
            false => Reaction::Fail(ScriptedError::failure("down")),
        });
        let client = runtime
            .dependency("d")
            .configure(|settings| settings.keys.idle = Duration::from_secs(60))
            .workers(move || script.dependency())
            .start()
            .await
            .expect("it starts");
        for number in 0..20 {
            for _ in 0..5 {
                let _ = client.ask_with(false, of(&format!("key-{number}"))).await;
            }
            // Keys that fail one after the other would open the breaker of all.
            let _ = client.ask_with(true, of("well")).await;
        }
        let open = |one: &&crate::KeyStatus| one.state == State::Open;
        assert_eq!(client.status().keys.iter().filter(open).count(), 20);
        // Their timers fire meanwhile, and find no key.
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(client.status().keys.len(), 0);
        runtime.finish().await;
    });
}

#[test]
fn lim_1_a_crash_of_the_breaker_actor_does_not_end_a_pause() {
    for how in [Crash::Outside, Crash::InTheMachine] {
        run_paused(async || {
            let runtime = TestRuntime::start().await;
            let (client, script) = doubler(&runtime).await;
            let hint = Duration::from_secs(7);
            let throttle = |_: &Result<(), ()>| Verdict::from(Class::Throttled).retry_after(hint);
            let options = CallOptions::default();
            let work = async || Err(());
            let _ = client.run_with(options, throttle, work).await;
            crash(&client, how).await;
            let error = client.ask(1).await.unwrap_err();
            assert!(matches!(error, CallError::RateLimited { .. }), "{error}");
            assert_eq!(script.calls(), 0);
            tokio::time::sleep(hint + Duration::from_secs(1)).await;
            assert_eq!(client.ask(1).await.unwrap().value, 2);
            runtime.finish().await;
        });
    }
}

#[test]
fn brk_12_a_crash_in_the_middle_of_a_change_leaves_a_sick_dependency_sick() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        open(&client).await;
        crash(&client, Crash::InTheMachine).await;
        let error = client.ask(1).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(client.ask(1).await.unwrap().value, 2);
        assert_eq!(client.status().state, State::Closed);
        runtime.finish().await;
    });
}

#[test]
fn brk_12_a_crash_in_the_middle_of_a_change_begins_with_an_empty_window() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        for _ in 0..4 {
            let _ = client.ask(0).await;
        }
        let before = client.status().generation;
        crash(&client, Crash::InTheMachine).await;
        // The window's contents after the interrupted change are discarded.
        let _ = client.ask(0).await;
        let status = client.status();
        assert_eq!((status.state, status.window.failures), (State::Closed, 1));
        assert!(
            status.generation > before,
            "a late outcome is seen to be late"
        );
        runtime.finish().await;
    });
}

#[test]
fn brk_12_a_failure_that_is_reported_meanwhile_is_counted() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        for _ in 0..4 {
            let _ = client.ask(0).await;
        }
        let crash = client.core.breaker.addr.send(Crash::Outside);
        let (crashed, failed) = tokio::join!(crash, client.ask(0));
        assert!(crashed.is_err() && failed.is_err());
        assert_eq!(client.status().state, State::Open, "the fifth in a row");
        runtime.finish().await;
    });
}

#[test]
fn brk_12_a_crash_of_the_worker_forgets_nothing_and_counts() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        for _ in 0..4 {
            let _ = client.ask(0).await;
        }
        let error = client.ask(13).await.unwrap_err();
        assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        assert_eq!(client.status().state, State::Open, "the fifth in a row");
        runtime.finish().await;
    });
}

fn override_by(mode: OverrideMode, reason: &str) -> Option<ConfiguredOverride> {
    let reason = reason.to_owned();
    Some(ConfiguredOverride { mode, reason })
}

#[test]
fn brk_11_a_refusal_tells_the_override_in_force_and_after_it_the_trip() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        let reason = async || match client.ask(1).await {
            Err(CallError::Open(refused)) => refused.reason().reason.clone(),
            other => panic!("{other:?}"),
        };
        open(&client).await;
        let trip = reason().await;
        let by_hand = BreakerCommand::Open {
            reason: "maintenance".to_owned(),
            until: None,
        };
        client.operate(by_hand).await.unwrap();
        let set = override_by(OverrideMode::Shadow, "measured at first");
        let configured = BreakerCommand::Configure { set };
        client.operate(configured).await.unwrap();
        assert_eq!(reason().await, "set by operator: maintenance");
        let configured = BreakerCommand::Configure { set: None };
        client.operate(configured).await.unwrap();
        assert_eq!(reason().await, "set by operator: maintenance");
        client.operate(BreakerCommand::Clear).await.unwrap();
        assert_eq!(reason().await, trip);
        runtime.finish().await;
    });
}

/// A call with a key that went out before the breaker of all opened ends after that has closed again.
#[test]
fn brk_3_an_outcome_of_a_key_from_before_a_trip_is_late_for_all() {
    run_paused(async || {
        for fails in [true, false] {
            let runtime = TestRuntime::start().await;
            let (client, _) = doubler(&runtime).await;
            let (end, ended) = tokio::sync::oneshot::channel::<()>();
            let mut ended = Some(ended);
            let judge = |result: &Result<(), ()>| Verdict::by_result(result).for_all_keys();
            let work = async || {
                // It begins once.
                let _ = ended.take().expect("one attempt").await;
                if fails { Err(()) } else { Ok(()) }
            };
            let late = client.run_mut_with(of("a"), judge, work);
            let meanwhile = async {
                tokio::task::yield_now().await;
                let trip = BreakerCommand::Trip {
                    reason: "test".to_owned(),
                    wait: Some(Duration::from_millis(10)),
                };
                client.operate(trip).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert_eq!(client.ask(1).await.unwrap().value, 2, "the probe");
                assert_eq!(client.status().state, State::Closed);
                end.send(()).unwrap();
            };
            let (late, ()) = tokio::join!(late, meanwhile);
            assert_eq!(late.is_err(), fails);
            assert_eq!(client.status().window.calls, 0);
            assert_eq!(state_of(&client, "a"), (State::Closed, u64::from(fails)));
            // One that goes out now counts.
            let begins = client.run_with(of("b"), judge, async || Err(())).await;
            assert!(begins.is_err());
            assert_eq!(client.status().window.failures, 1);
            runtime.finish().await;
        }
    });
}

#[test]
fn brk_12_a_new_supervisor_forgets_nothing() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, _) = doubler(&runtime).await;
        let reason = "maintenance".to_owned();
        let by_hand = BreakerCommand::Open {
            reason,
            until: None,
        };
        open(&client).await;
        client.operate(by_hand).await.unwrap();
        // Until the dependency's own supervisor gives up, and the root starts a new one.
        loop {
            let told = client.core.breaker.addr.send(Crash::Outside).await;
            assert!(told.is_err());
            let gave_up = |kind: &EventKind| matches!(kind, EventKind::GaveUp { .. });
            let events = runtime.events_since(0);
            if events.iter().any(|event| gave_up(&event.kind)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let children = runtime.children().await;
        assert_eq!((children[0].incarnation, children[0].restarts), (2, 1));
        let status = client.status();
        assert_eq!(status.state, State::Open);
        assert_eq!(status.overridden.unwrap().reason, "maintenance");
        client.operate(BreakerCommand::Clear).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(client.ask(1).await.unwrap().value, 2);
        runtime.finish().await;
    });
}
