//! BRK-3, BRK-9 to BRK-12 for each key: one breaker per tenant, model or credential inside a
//! dependency.

mod forgetting;
mod model;
mod operators;

use std::borrow::Cow;

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{
    CallContext, CallError, CallOptions, Dependency, EventKind, FallbackRule, Fixed, KeyStatus,
};
use breakerbox_policy::{
    BreakerCommand, BreakerEvent, Class, DependencySettings, RefusalState, State, WhenAllDown,
    WindowKind,
};
use futures_util::future::join_all;

use crate::scripted::{Asked, Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

fn of(key: &str) -> CallOptions {
    CallOptions {
        key: Some(key.into()),
        ..CallOptions::default()
    }
}

impl Bench {
    async fn ask_of(&self, key: &str, told: Do) -> Asked {
        self.client.ask_with(told, of(key)).await
    }

    fn key(&self, key: &str) -> Option<KeyStatus> {
        let keys = self.status().keys;
        keys.into_iter().find(|one| one.key == key)
    }

    fn state_of(&self, key: &str) -> State {
        self.key(key).expect("a known key").state
    }

    /// Returns the key of the breaker that refuses the call.
    async fn refused_by(&self, key: &str) -> Option<String> {
        match self.ask_of(key, Do::Answer(1)).await {
            Err(CallError::Open(refused)) => {
                Some(refused.reason().key.as_deref().unwrap_or("").to_owned())
            }
            Ok(_) => None,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn brk_1_one_key_opens_and_the_others_go_on() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(30_000))).await;
        for _ in 0..2 {
            bench.ask_of("a", Do::Fail).await.unwrap_err();
            bench.ask_of("b", Do::Answer(1)).await.unwrap();
        }
        bench.ask_of("b", Do::Fail).await.unwrap_err();
        assert_eq!(bench.refused_by("a").await.as_deref(), Some("a"));
        assert_eq!(bench.refused_by("b").await, None);
        assert_eq!(bench.ask(Do::Answer(3)).await.unwrap().value, 3);
        assert_eq!(
            (bench.state_of("a"), bench.state()),
            (State::Open, State::Closed)
        );
        let ran = bench.client.run_with(
            of("a"),
            |_| Class::Success.into(),
            async || Ok::<_, String>(()),
        );
        assert!(
            matches!(ran.await, Err(CallError::Open(_))),
            "a closure too"
        );
        bench.finish().await;
    });
}

#[test]
fn edge_5_e7b_a_breaker_that_is_open_refuses_every_key() {
    run_paused(async || {
        for rules in [Vec::new(), vec![FallbackRule::new(Fixed(9))]] {
            let has_fallback = !rules.is_empty();
            let bench = Bench::with_fallbacks(opens_after(1, ms(30_000)), rules).await;
            bench.ask_of("a", Do::Answer(1)).await.unwrap();
            let _ = bench.ask(Do::Fail).await;
            assert_eq!(bench.state(), State::Open);
            for key in ["a", "new"] {
                let asked = bench.ask_of(key, Do::Answer(1)).await;
                assert_eq!(asked.is_ok_and(|answer| !answer.is_primary()), has_fallback);
            }
            let by_result = |_: &Result<(), String>| Class::Success.into();
            let ran = bench.client.run_with(of("a"), by_result, async || Ok(()));
            assert!(matches!(ran.await, Err(CallError::Open(_))));
            pass(30_000).await;
            // Its probe is a call of any key, and closes it for all.
            bench.ask_of("a", Do::Answer(1)).await.unwrap();
            assert_eq!(bench.state(), State::Closed);
            bench.ask_of("new", Do::Answer(1)).await.unwrap();
            bench.finish().await;
        }
    });
}

#[test]
fn edge_5_e7b_many_keys_that_fail_open_the_breaker_of_all() {
    run_paused(async || {
        let bench = Bench::start(opens_after(5, ms(30_000))).await;
        for _ in 0..4 {
            bench.ask_of("one", Do::Fail).await.unwrap_err();
        }
        assert_eq!(bench.state(), State::Closed, "one key counts once in a row");
        for number in 0..6 {
            assert_eq!(bench.state(), State::Closed, "{number}");
            let key = format!("key-{number}");
            bench.ask_of(&key, Do::Fail).await.unwrap_err();
        }
        assert_eq!(bench.state(), State::Open);
        assert_eq!(bench.refused_by("unknown").await.as_deref(), Some(""));
        for number in 0..100 {
            let asked = bench.ask_of(&format!("other-{number}"), Do::Fail).await;
            assert!(matches!(asked, Err(CallError::Open(_))), "none goes out");
        }
        bench.finish().await;
    });
}

#[test]
fn edge_5_e7b_a_key_that_succeeds_ends_the_run_of_failures() {
    run_paused(async || {
        let bench = Bench::start(opens_after(3, ms(30_000))).await;
        for number in 0..20 {
            let told = if number % 3 == 2 {
                Do::Answer(1)
            } else {
                Do::Fail
            };
            let _ = bench.ask_of(&format!("key-{number}"), told).await;
        }
        assert_eq!(bench.state(), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn edge_5_e7b_a_key_that_refuses_for_longer_is_no_probe() {
    run_paused(async || {
        let bench = Bench::start(opens_after(2, ms(1_000))).await;
        for _ in 0..2 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        pass(900).await;
        assert_eq!(bench.refused_by("a").await.as_deref(), Some(""));
        pass(100).await;
        bench.ask_of("a", Do::Answer(1)).await.unwrap();
        for _ in 0..2 {
            bench.ask_of("a", Do::Fail).await.unwrap_err();
        }
        pass(500).await;
        for _ in 0..2 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        // The breaker of all is open for longer than that of the key.
        assert_eq!(bench.refused_by("a").await.as_deref(), Some(""));
        let until = bench.runtime.clock().now().after(ms(5_000));
        let why = "for longer".to_owned();
        let open = BreakerCommand::Open {
            reason: why,
            until: Some(until),
        };
        let told = bench.client.operate_key("a", open).await;
        told.expect("a known key").unwrap();
        pass(1_000).await;
        assert_eq!(bench.refused_by("a").await.as_deref(), Some("a"));
        bench.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(bench.state(), State::Closed, "no probe was spent");
        bench.finish().await;
    });
}

/// Dependency that derives the key from the request itself.
struct Tenants;

impl Dependency for Tenants {
    type Request = (&'static str, bool);
    type Response = ();
    type Error = String;

    async fn call(&self, (_, good): Self::Request, _: &CallContext) -> Result<(), String> {
        good.then_some(()).ok_or_else(|| "no".to_owned())
    }

    fn key((tenant, _): &Self::Request) -> Option<Cow<'_, str>> {
        assert_ne!(*tenant, "!", "told to");
        (!tenant.is_empty()).then(|| Cow::from(*tenant))
    }
}

#[test]
fn brk_1_a_dependency_may_name_the_key_of_a_request() {
    run_paused(async || {
        let runtime = breakerbox_actors::testing::TestRuntime::start().await;
        let configure = opens_after(1, ms(30_000));
        let dependency = runtime.dependency("d").configure(configure);
        let client = dependency.workers(|| Tenants).start().await.unwrap();
        client.ask(("a", false)).await.unwrap_err();
        let error = client.ask(("a", true)).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        client.ask(("b", true)).await.unwrap();
        client.ask_with(("a", true), of("b")).await.unwrap();
        client.ask(("", false)).await.unwrap_err();
        let error = client.ask(("", true)).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        runtime.finish().await;
    });
}

#[test]
fn call_1_a_panic_of_the_key_function_is_counted_as_cancelled() {
    run_paused(async || {
        let runtime = breakerbox_actors::testing::TestRuntime::start().await;
        let dependency = runtime.dependency("d").workers(|| Tenants);
        let client = dependency.start().await.unwrap();
        let reason = "a test".to_owned();
        for open in [None, Some(BreakerCommand::Trip { reason, wait: None })] {
            if let Some(trip) = open {
                client.operate(trip).await.unwrap();
            }
            let before = client.status().totals;
            let caller = client.clone();
            let ended = tokio::task::spawn_local(async move { caller.ask(("!", true)).await });
            assert!(ended.await.unwrap_err().is_panic());
            let after = client.status().totals;
            assert_eq!(after.submitted, before.submitted + 1);
            assert_eq!(after.cancelled, before.cancelled + 1);
        }
        runtime.finish().await;
    });
}

#[test]
fn brk_4_each_key_has_its_own_probes() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(1_000))).await;
        for key in ["a", "b"] {
            bench.ask_of(key, Do::Fail).await.unwrap_err();
        }
        pass(1_000).await;
        let told = || Do::Answer(1).after(50);
        let asking = ["a", "a", "a", "b", "b"].map(|key| bench.ask_of(key, told()));
        let ended = join_all(asking).await;
        let good: Vec<bool> = ended.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, false, true, false]);
        for error in ended.into_iter().filter_map(Result::err) {
            let CallError::Open(refused) = error else {
                panic!("{error}");
            };
            assert_eq!(refused.state, RefusalState::HalfOpen);
        }
        assert_eq!(
            (bench.state_of("a"), bench.state_of("b")),
            (State::Closed, State::Closed)
        );
        bench.finish().await;
    });
}

#[test]
fn brk_11_events_refusals_and_the_status_name_the_key() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(1_000))).await;
        bench.ask_of("tenant-1", Do::Fail).await.unwrap_err();
        bench.ask_of("tenant-0", Do::Answer(1)).await.unwrap();
        let error = bench.ask_of("tenant-1", Do::Answer(1)).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(ms(1_000)));
        let text = error.to_string();
        assert!(text.contains("dep") && text.contains("tenant-1"), "{text}");
        let moves = bench.runtime.transitions();
        assert_eq!(
            moves,
            [("dep[tenant-1]".to_owned(), State::Closed, State::Open)]
        );
        let keys = bench.status().keys;
        let names: Vec<&str> = keys.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(names, ["tenant-0", "tenant-1"]);
        assert_eq!(keys[0].tally.successes, 1);
        assert_eq!(
            (keys[1].tally.failures, keys[1].retry_after),
            (1, Some(ms(1_000)))
        );
        assert!(
            keys[1].reason.contains("1 call in a row failed"),
            "{}",
            keys[1].reason
        );
        // The timer of a key's open time moves its breaker without a call.
        pass(1_000).await;
        let_others_run().await;
        assert_eq!(bench.state_of("tenant-1"), State::HalfOpen);
        bench.finish().await;
    });
}

fn slow_rate(settings: &mut DependencySettings) {
    settings.breaker.window = WindowKind::Count { size: nonzero(10) };
    settings.breaker.failure_threshold = None;
    settings.breaker.slow_call = Some(ms(800));
    settings.breaker.slow_rate = Some(breakerbox_policy::Rate::new(0.5).unwrap());
    settings.breaker.minimum_calls = 3;
    settings.timeout.attempt = None;
    settings.timeout.total = None;
}

#[test]
fn brk_9_calls_that_hang_open_their_own_keys_breaker() {
    run_paused(async || {
        let bench = Bench::start(slow_rate).await;
        let hanging = join_all((0..3).map(|_| bench.ask_of("a", Do::Hang)));
        let hanging = tokio::time::timeout(ms(1_500), hanging);
        let watching = async {
            bench.ask_of("b", Do::Answer(1)).await.unwrap();
            pass(700).await;
            assert_eq!(bench.state_of("a"), State::Closed);
            pass(400).await;
            assert_eq!(bench.state_of("a"), State::Open);
            assert_eq!(
                (bench.state_of("b"), bench.state()),
                (State::Closed, State::Closed)
            );
        };
        let (hung, ()) = tokio::join!(hanging, watching);
        assert!(hung.is_err());
        bench.finish().await;
    });
}

#[test]
fn brk_9_what_runs_while_the_dependency_is_disabled_is_not_overdue() {
    run_paused(async || {
        let bench = Bench::start(slow_rate).await;
        let (reason, until) = ("drill".to_owned(), None);
        let disable = BreakerCommand::Disable { reason, until };
        // The key and the dependency have the same generation, so the number does not tell them
        // apart.
        bench.client.operate(disable).await.unwrap();
        bench.ask_of("a", Do::Answer(1)).await.unwrap();
        let reason = String::new();
        let close = BreakerCommand::Close { reason };
        bench.client.operate_key("a", close).await.unwrap().unwrap();
        let hanging = join_all((0..3).map(|_| bench.ask_of("a", Do::Hang)));
        let hung = tokio::time::timeout(ms(1_500), hanging).await;
        assert!(hung.is_err());
        assert_eq!(bench.state_of("a"), State::Closed);
        bench.finish().await;
    });
}

#[test]
fn call_3_successes_at_the_gate_are_counted_for_their_key() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.breaker.window = WindowKind::Count { size: nonzero(100) };
            settings.breaker.failure_threshold = None;
            settings.breaker.failure_rate = Some(breakerbox_policy::Rate::new(0.5).unwrap());
            settings.breaker.minimum_calls = 10;
        };
        let bench = Bench::start(configure).await;
        for _ in 0..8 {
            bench.ask_of("a", Do::Answer(1)).await.unwrap();
            bench.ask_of("b", Do::Answer(1)).await.unwrap();
            bench.ask(Do::Answer(1)).await.unwrap();
        }
        for _ in 0..7 {
            bench.ask_of("a", Do::Fail).await.unwrap_err();
            assert_eq!(bench.state_of("a"), State::Closed);
        }
        bench.ask_of("a", Do::Fail).await.unwrap_err();
        assert_eq!(bench.state_of("a"), State::Open, "8 of 16");
        for key in ["a", "b"] {
            assert_eq!(bench.key(key).unwrap().tally.successes, 8);
        }
        assert_eq!(bench.status().tally.successes, 24, "for all of them too");
        assert_eq!(bench.status().tally.failures, 0, "one key alone");
        bench.finish().await;
    });
}

#[test]
fn call_5_the_last_resort_goes_past_a_keys_breaker() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            opens_after(1, ms(60_000))(settings);
            settings.when_all_down = WhenAllDown::Try;
        };
        let bench = Bench::start(configure).await;
        bench.ask_of("a", Do::Fail).await.unwrap_err();
        let before = bench.key("a").unwrap();
        assert_eq!(bench.ask_of("a", Do::Answer(5)).await.unwrap().value, 5);
        assert_eq!(
            bench.key("a").unwrap().tally.recorded,
            before.tally.recorded
        );
        assert_eq!(bench.state_of("a"), State::Open);
        bench.finish().await;
    });
}

#[test]
fn ops_1_each_move_of_a_key_is_one_event() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(100))).await;
        bench.ask_of("a", Do::Fail).await.unwrap_err();
        pass(100).await;
        bench.ask_of("a", Do::Answer(1)).await.unwrap();
        let of_key =
            |kind: &EventKind| matches!(kind, EventKind::Breaker(BreakerEvent::Transition { .. }));
        let events = bench.runtime.events_since(0);
        let moves = events.iter().filter(|event| of_key(&event.kind));
        let subjects: Vec<&str> = moves.map(|event| &*event.subject).collect();
        assert_eq!(subjects, ["dep[a]"; 3]);
        assert_eq!(bench.status().totals.trips, 1);
        bench.finish().await;
    });
}
