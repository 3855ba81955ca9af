//! LIM-2 and CALL-5: a caller's deadline also bounds every nested call, and a call that cannot
//! begin before its deadline is refused before any work.

mod too_late;

use std::time::Duration;

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{
    Call, CallContext, CallOptions, Client, Dependency, FallbackRule, Runtime, RuntimeSettings,
};

use crate::scripted::{ms, pass};

/// Dependency that answers with the time its call has left.
struct Clockwork;

impl Dependency for Clockwork {
    type Request = ();
    type Response = Option<Duration>;
    type Error = String;

    async fn call(&self, (): (), call: &CallContext) -> Result<Option<Duration>, String> {
        Ok(call.remaining())
    }
}

/// Way in which the outer dependency asks the inner one.
#[derive(Debug, Clone, Copy)]
enum Via {
    Ask,
    AskWithin(u64),
    Send,
    SendLater,
    Closure,
    Spawn,
    /// No ask by the dependency: it fails, and its fallback asks.
    Fallback,
}

/// Dependency that asks another one after `WHILE` milliseconds of its own.
struct Outer {
    inner: Client<Clockwork>,
}

const WHILE: u64 = 300;

async fn ask(inner: &Client<Clockwork>, options: CallOptions) -> Result<Option<Duration>, String> {
    let asked = inner.ask_with((), options).await;
    asked
        .map(|answer| answer.value)
        .map_err(|error| error.to_string())
}

impl Dependency for Outer {
    type Request = Via;
    type Response = Option<Duration>;
    type Error = String;

    async fn call(&self, via: Via, _: &CallContext) -> Result<Option<Duration>, String> {
        let inner = &self.inner;
        let sent = |sent: Result<Result<breakerbox_actors::Answer<_>, _>, _>| {
            let asked: Result<_, breakerbox_actors::CallError<String>> =
                sent.map_err(|error: actix::MailboxError| error.to_string())?;
            asked
                .map(|answer| answer.value)
                .map_err(|error| error.to_string())
        };
        let call = Call::new(());
        pass(WHILE).await;
        match via {
            Via::Ask => ask(inner, CallOptions::default()).await,
            Via::AskWithin(millis) => ask(inner, within(millis)).await,
            Via::Send => sent(inner.breaker().send(Call::new(())).await),
            Via::SendLater => sent(inner.breaker().send(call).await),
            Via::Closure => {
                let work = || ask(inner, CallOptions::default());
                let ran = inner.run(work).await;
                ran.map_err(|error| error.to_string())
            }
            Via::Spawn => {
                let inner = inner.clone();
                let task = async move { ask(&inner, CallOptions::default()).await };
                tokio::spawn(task)
                    .await
                    .map_err(|error| error.to_string())?
            }
            Via::Fallback => Err("no".to_owned()),
        }
    }
}

fn within(millis: u64) -> CallOptions {
    CallOptions {
        timeout: Some(ms(millis)),
        ..CallOptions::default()
    }
}

/// Starts the inner dependency, with a total time of a minute for a call.
async fn inner(runtime: &Runtime) -> Client<Clockwork> {
    runtime
        .dependency("inner")
        .configure(|settings| settings.timeout.total = Some(ms(60_000)))
        .workers(|| Clockwork)
        .start()
        .await
        .unwrap()
}

/// Starts the outer dependency, with two seconds and a fallback that asks the inner one.
async fn outer(runtime: &Runtime, inner: &Client<Clockwork>) -> Client<Outer> {
    let (inside, beside) = (inner.clone(), inner.clone());
    let fallback = move |_: Via, _: &breakerbox_actors::CallError<String>| {
        let inner = beside.clone();
        async move { ask(&inner, CallOptions::default()).await }
    };
    runtime
        .dependency("outer")
        .configure(|settings| settings.timeout.total = Some(ms(2_000)))
        .workers(move || Outer {
            inner: inside.clone(),
        })
        .fallback_rule(FallbackRule::new(fallback))
        .start()
        .await
        .unwrap()
}

#[test]
fn lim_2_what_is_called_for_a_call_has_the_time_that_is_left() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let inner = inner(&runtime).await;
        let outer = outer(&runtime, &inner).await;
        for (via, options, left) in [
            (Via::Ask, CallOptions::default(), 2_000 - WHILE),
            (Via::Ask, within(1_000), 1_000 - WHILE),
            (Via::AskWithin(5_000), within(1_000), 1_000 - WHILE),
            (Via::AskWithin(50), within(1_000), 50),
            (Via::Send, within(1_000), 1_000 - WHILE),
            (Via::SendLater, within(1_000), 1_000 - WHILE),
            (Via::Closure, within(1_000), 1_000 - WHILE),
            // A spawned task inherits no deadline.
            (Via::Spawn, within(1_000), 60_000),
            (Via::Fallback, within(1_000), 1_000 - WHILE),
            // The total time of a dependency does not bound its fallbacks.
            (Via::Fallback, CallOptions::default(), 60_000),
        ] {
            let answer = outer.ask_with(via, options).await.unwrap();
            assert_eq!(answer.value, Some(ms(left)), "{via:?}");
        }
        assert_eq!(
            ask(&inner, CallOptions::default()).await,
            Ok(Some(ms(60_000)))
        );
        runtime.finish().await;
    });
}

#[test]
fn lim_2_a_closure_hands_its_callers_time_on() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let inner = inner(&runtime).await;
        let outer = outer(&runtime, &inner).await;
        let by_result = |_: &Result<_, String>| breakerbox_policy::Class::Success.into();
        let work = || async {
            pass(100).await;
            let asked = outer.ask(Via::Ask).await;
            asked
                .map(|answer| answer.value)
                .map_err(|error| error.to_string())
        };
        let ran = inner.run_with(within(1_000), by_result, work).await;
        assert_eq!(ran.unwrap(), Some(ms(1_000 - 100 - WHILE)));
        runtime.finish().await;
    });
}

#[test]
fn lim_2_a_fallback_of_a_nested_call_keeps_to_the_outermost_deadline() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let inner = inner(&runtime).await;
        let outer = outer(&runtime, &inner).await;
        let by_result = |_: &Result<_, String>| breakerbox_policy::Class::Success.into();
        let work = || async {
            let asked = outer.ask(Via::Fallback).await;
            asked
                .map(|answer| answer.value)
                .map_err(|error| error.to_string())
        };
        let ran = inner.run_with(within(1_000), by_result, work).await;
        assert_eq!(ran.unwrap(), Some(ms(1_000 - WHILE)));
        runtime.finish().await;
    });
}

#[test]
fn lim_2_the_deadline_is_understood_by_the_clock_of_another_runtime() {
    run_paused(async || {
        let elsewhere = TestRuntime::start().await;
        pass(12_345).await;
        let runtime = TestRuntime::start().await;
        for (of_inner, of_outer) in [(&elsewhere, &runtime), (&runtime, &elsewhere)] {
            let inner = inner(of_inner).await;
            let outer = outer(of_outer, &inner).await;
            for via in [Via::Ask, Via::Send] {
                let answer = outer.ask_with(via, within(1_000)).await.unwrap();
                assert_eq!(answer.value, Some(ms(1_000 - WHILE)), "{via:?}");
            }
        }
        elsewhere.finish().await;
        runtime.finish().await;
    });
}

#[test]
fn lim_2_the_deadline_is_understood_between_real_clocks() {
    let system = actix::System::new();
    system.block_on(async {
        let elsewhere = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let inner = inner(&elsewhere).await;
        let by_result = |_: &Result<_, String>| breakerbox_policy::Class::Success.into();
        let asks_within = async |client: &Client<Clockwork>| {
            let work = || ask(&inner, CallOptions::default());
            let ran = client.run_with(within(30_000), by_result, work).await;
            ran.unwrap().unwrap()
        };
        let beside = runtime.dependency("d").workers(|| Clockwork).start().await;
        let left = asks_within(&beside.unwrap()).await;
        // The dependency's own total time of 15 s is shorter.
        assert!(left > ms(5_000) && left <= ms(15_000), "{left:?}");
        runtime.shutdown().await;
        elsewhere.shutdown().await;
    });
}
