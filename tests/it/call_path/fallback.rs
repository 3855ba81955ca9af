//! FBK-1 to FBK-3: the fallback that serves, the calls it serves, and its visibility.

use actix::{Actor, Context, Handler};
use breakerbox_actors::testing::{Reaction, Script, run_paused};
use breakerbox_actors::{
    ActorFallback, CallError, Child, Fallback, FallbackCall, FallbackFuture, FallbackRule, Fixed,
    ServeOn, StaleCache,
};
use breakerbox_policy::{Class, DependencySettings, Executed, State, Time};

use crate::scripted::{Bench, Dep, Do, Error, let_others_run, ms, opens_after, pass, start};

fn settings() -> impl Fn(&mut DependencySettings) {
    opens_after(1, ms(60_000))
}

/// Fallback that panics when it is called, or when its future is polled.
struct Panicking {
    at_once: bool,
}

impl Fallback<Dep> for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }

    fn answer(&self, _: Do, _: &Error, _: Time) -> FallbackFuture<u32> {
        assert!(!self.at_once, "at once");
        Box::pin(async { panic!("in its answer") })
    }
}

#[test]
fn fbk_1_a_fallback_that_panics_is_passed_over() {
    run_paused(async || {
        for at_once in [false, true] {
            let rules = vec![
                FallbackRule::new(Panicking { at_once }),
                FallbackRule::new(Fixed(77)),
            ];
            let bench = Bench::with_fallbacks(settings(), rules).await;
            for _ in 0..3 {
                let answer = bench.ask(Do::Fail).await.unwrap();
                assert_eq!(answer.source.to_string(), "fallback:fixed");
            }
            bench.finish().await;
            let rules = vec![FallbackRule::new(Panicking { at_once })];
            let bench = Bench::with_fallbacks(settings(), rules).await;
            let error = bench.ask(Do::Fail).await.unwrap_err();
            let CallError::FallbackFailed {
                fallback, cause, ..
            } = &error
            else {
                panic!("{error}");
            };
            assert_eq!(&**fallback, "panicking");
            assert!(matches!(**cause, CallError::Failed { .. }), "{cause}");
            bench.finish().await;
        }
    });
}

#[test]
fn call_2_an_error_speaks_for_the_fallbacks_too() {
    run_paused(async || {
        let half = |_: Do, _: &Error| async { Err::<u32, _>("half done") };
        let bench = Bench::with_fallbacks(settings(), vec![FallbackRule::new(half)]).await;
        bench.ask(Do::Fail).await.unwrap_err();
        // The breaker refuses it, and the fallback has run.
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert_eq!(error.executed(), Executed::Maybe, "{error}");
        bench.finish().await;
    });
}

#[test]
fn fbk_1_a_fallback_that_hangs_gets_the_time_of_an_attempt() {
    run_paused(async || {
        let hangs = |_: Do, _: &Error| std::future::pending::<Result<u32, String>>();
        let rules = vec![FallbackRule::new(hangs), FallbackRule::new(Fixed(77))];
        let configure = |all: &mut DependencySettings| all.timeout.attempt = Some(ms(1_000));
        let bench = Bench::with_fallbacks(configure, rules).await;
        let answer = bench.ask(Do::Fail).await.unwrap();
        assert_eq!((answer.value, answer.elapsed), (77, ms(1_000)));
        bench.finish().await;
    });
}

#[test]
fn fbk_1_another_dependency_stands_in_under_its_own_breaker() {
    run_paused(async || {
        let runtime = breakerbox_actors::testing::TestRuntime::start().await;
        let broken = Script::new(|_: Do, _| Reaction::Fail(crate::scripted::refused_connection()));
        let second = start(
            &runtime,
            "second",
            &broken,
            opens_after(2, ms(60_000)),
            Vec::new(),
        )
        .await;
        let third = Script::new(|_: Do, _| Reaction::Answer(3));
        let third = start(&runtime, "third", &third, settings(), Vec::new()).await;
        let rules = vec![
            FallbackRule::new(second.clone()),
            FallbackRule::new(third.clone()),
        ];
        let first = Script::new(|_: Do, _| Reaction::Fail(crate::scripted::refused_connection()));
        let client = start(&runtime, "first", &first, settings(), rules).await;
        for _ in 0..10 {
            let answer = client.ask(Do::Answer(1)).await.unwrap();
            assert_eq!(
                (answer.value, answer.source.to_string().as_str()),
                (3, "fallback:third")
            );
        }
        assert_eq!(
            (first.calls(), broken.calls()),
            (1, 2),
            "each breaker by its own rule"
        );
        assert_eq!(second.status().state, State::Open);
        assert_eq!(third.status().totals.primary, 10);
        runtime.finish().await;
    });
}

/// Actor that serves as a fallback: it answers one kind of request, and fails for the others.
struct Local;

impl Actor for Local {
    type Context = Context<Self>;
}

impl Handler<FallbackCall<Dep>> for Local {
    type Result = Result<u32, String>;

    fn handle(&mut self, call: FallbackCall<Dep>, _: &mut Context<Self>) -> Self::Result {
        assert!(call.why.contains("dep"), "{}", call.why);
        match call.request {
            Do::Fail => Ok(7),
            other => Err(format!("no answer to {other:?}")),
        }
    }
}

#[test]
fn fbk_1_an_actor_of_the_users_stands_in() {
    run_paused(async || {
        let child = Child::permanent("local", || Local);
        let rules = vec![FallbackRule::new(ActorFallback::new(
            "local",
            child.addr().recipient(),
        ))];
        let bench = Bench::with_fallbacks(settings(), rules).await;
        bench.runtime.supervise(child).await.unwrap();
        let answer = bench.ask(Do::Fail).await.unwrap();
        assert_eq!(
            (answer.value, &*answer.source.to_string()),
            (7, "fallback:local")
        );
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        let CallError::FallbackFailed { message, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(message, "no answer to Answer(1)");
        bench.finish().await;
    });
}

#[test]
fn fbk_2_a_fallback_serves_what_it_says() {
    run_paused(async || {
        for (on, failed, refused) in [
            (ServeOn::Any, true, true),
            (ServeOn::Refused, false, true),
            (ServeOn::Failed, true, false),
        ] {
            let rules = vec![FallbackRule::new(Fixed(77)).on(on)];
            let bench = Bench::with_fallbacks(settings(), rules).await;
            assert_eq!(bench.ask(Do::Fail).await.is_ok(), failed, "{on:?}, failed");
            assert_eq!(bench.state(), State::Open);
            assert_eq!(
                bench.ask(Do::Fail).await.is_ok(),
                refused,
                "{on:?}, refused"
            );
            assert_eq!(bench.script.calls(), 1);
            bench.finish().await;
        }
    });
}

#[test]
fn fbk_2_a_callers_own_mistake_is_never_covered_up() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(settings(), vec![FallbackRule::new(Fixed(77))]).await;
        let error = bench.ask(Do::End(Class::Rejected)).await.unwrap_err();
        assert!(matches!(error, CallError::Failed { .. }), "{error}");
        assert_eq!(bench.status().totals.fallback, 0);
        bench.finish().await;
    });
}

#[test]
fn fbk_3_what_a_fallback_answers_is_neither_kept_nor_a_success() {
    run_paused(async || {
        let configure = |all: &mut DependencySettings| {
            opens_after(3, ms(60_000))(all);
        };
        let rules = vec![
            FallbackRule::new(StaleCache::<Dep>::new(ms(3_600_000), 10)),
            FallbackRule::new(Fixed(77)),
        ];
        let bench = Bench::with_fallbacks(configure, rules).await;
        for failures in 1..=3 {
            let answer = bench.ask(Do::Fail).await.unwrap();
            assert_eq!(
                answer.source.to_string(),
                "fallback:fixed",
                "never from the cache"
            );
            assert_eq!(bench.status().tally.failures, failures);
        }
        let status = bench.status();
        assert_eq!((status.state, status.tally.successes), (State::Open, 0));
        assert_eq!((status.totals.primary, status.totals.fallback), (0, 3));
        bench.finish().await;
    });
}

#[test]
fn fbk_3_an_answer_says_who_gave_it_and_how_old_it_is() {
    run_paused(async || {
        let rules =
            vec![FallbackRule::new(StaleCache::<Dep>::new(ms(3_600_000), 10)).named("yesterday")];
        let bench = Bench::with_fallbacks(settings(), rules).await;
        let first = bench.ask(Do::Answer(5)).await.unwrap();
        assert!(first.is_primary() && first.age.is_none());
        pass(1_000).await;
        bench.ask(Do::Answer(5)).await.unwrap();
        bench.ask(Do::Fail).await.unwrap_err();
        pass(2_000).await;
        let stale = bench.ask(Do::Answer(5)).await.unwrap();
        assert_eq!((stale.value, stale.age), (5, Some(ms(2_000))));
        assert_eq!(stale.source.to_string(), "fallback:yesterday");
        assert!(!stale.is_primary());
        bench.finish().await;
    });
}

/// A caller that cancels while a fallback works leaves no state behind.
#[test]
fn call_1_a_caller_may_leave_while_a_fallback_works() {
    run_paused(async || {
        let hangs = |_: Do, _: &Error| std::future::pending::<Result<u32, String>>();
        let bench = Bench::with_fallbacks(settings(), vec![FallbackRule::new(hangs)]).await;
        for _ in 0..200 {
            let left = tokio::time::timeout(ms(10), bench.ask(Do::Fail));
            left.await.unwrap_err();
        }
        let_others_run().await;
        let totals = bench.status().totals;
        assert_eq!((totals.submitted, totals.cancelled), (200, 200));
        bench.finish().await;
    });
}
