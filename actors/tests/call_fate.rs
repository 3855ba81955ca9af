//! CALL-1 to CALL-4 and SUP-7: outcomes of calls when a caller, worker, breaker or runtime goes
//! away.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakerbox_actors::testing::{
    Reaction, Script, Scripted, ScriptedError, TestRuntime, run_paused,
};
use breakerbox_actors::{
    Call, CallContext, CallError, CallOptions, Child, Client, Dependency, NotExecutedReason,
    Runtime, RuntimeSettings, StartError, Verdict,
};
use breakerbox_policy::{BreakerCommand, DependencySettings, State};

fn count(number: u32) -> NonZeroU32 {
    number.try_into().unwrap()
}

/// Awaits a future with a time limit, so that a call that hangs fails here and not in CI.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), what)
        .await
        .expect("it ends")
}

/// A dependency without timeouts, so that only a reply ends a call.
async fn patient<Q: Clone + Send + 'static, T: Send + 'static>(
    runtime: &Runtime,
    script: &Script<Q, T>,
    change: impl FnOnce(&mut DependencySettings),
) -> Client<Scripted<Q, T>> {
    let worker = script.clone();
    runtime
        .dependency("d")
        .configure(|settings| {
            settings.timeout.attempt = None;
            settings.timeout.total = None;
            change(settings);
        })
        .workers(move || worker.dependency())
        .start()
        .await
        .unwrap()
}

#[test]
fn call_4_a_refused_run_does_not_even_make_its_future() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()));
        let client = patient(&runtime, &script, |_| {}).await;
        let reason = "maintenance".to_owned();
        let open = BreakerCommand::Open {
            reason,
            until: None,
        };
        client.operate(open).await.unwrap();
        let made = AtomicU32::new(0);
        let refused = client
            .run(|| {
                made.fetch_add(1, Ordering::Relaxed);
                async { Ok::<(), ()>(()) }
            })
            .await;
        assert!(matches!(refused, Err(CallError::Open(_))));
        assert_eq!(made.load(Ordering::Relaxed), 0);
        runtime.finish().await;
    });
}

#[test]
fn call_1_a_closure_that_panics_before_its_future_is_a_failure() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()));
        let client = patient(&runtime, &script, |settings| {
            settings.breaker.failure_threshold = Some(count(1));
        })
        .await;
        let mut work = || -> std::future::Ready<Result<(), ()>> { panic!("a bug") };
        let run = std::panic::AssertUnwindSafe(client.run(&mut work));
        let ended = futures_util::FutureExt::catch_unwind(run).await;
        assert!(ended.is_err());
        tokio::task::yield_now().await;
        assert_eq!(client.status().state, State::Open);
        runtime.finish().await;
    });
}

#[test]
fn call_1_a_command_to_a_breaker_that_is_gone_ends() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()));
        let client = patient(&runtime, &script, |_| {}).await;
        runtime.shutdown().await;
        let reset = BreakerCommand::Reset {
            reason: "late".to_owned(),
        };
        soon(client.operate(reset)).await.unwrap();
        assert!(soon(client.breaker().send(Call::new(()))).await.is_err());
        assert!(soon(runtime.children()).await.is_empty());
        let late = soon(runtime.supervise(Child::permanent("late", || Idle))).await;
        assert!(matches!(late, Err(StartError::ShuttingDown)));
        runtime.finish().await;
    });
}

/// An actor that handles a single message.
struct Idle;

impl actix::Actor for Idle {
    type Context = actix::Context<Self>;
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Leave;

impl actix::Handler<Leave> for Idle {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut actix::Context<Self>) {
        actix::ActorContext::stop(ctx);
    }
}

#[test]
fn sup_8_a_message_to_an_actor_that_is_gone_for_good_ends() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let child = runtime
            .supervise(Child::temporary("idle", || Idle))
            .await
            .unwrap();
        soon(child.addr().send(Leave)).await.unwrap();
        soon(runtime.watch("idle")).await;
        assert!(soon(child.addr().send(Leave)).await.is_err());
        runtime.finish().await;
    });
}

#[test]
fn call_1_a_run_that_outlives_the_drain_is_answered() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()));
        let client = patient(&runtime, &script, |_| {}).await;
        let work = || async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Err::<(), _>("failed")
        };
        let run = client.run(work);
        let (ended, ()) = tokio::join!(soon(run), runtime.shutdown());
        assert!(matches!(ended, Err(CallError::Failed { .. })));
        runtime.finish().await;
    });
}

#[test]
fn call_1_every_call_is_answered_when_the_drain_is_over() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::<(), ()>::new(|(), _| Reaction::Hang);
        let client = patient(&runtime, &script, |settings| {
            settings.bulkhead.max_concurrent = count(500);
        })
        .await;
        let calls = (0..500).map(|_| soon(client.ask(())));
        let calls = futures_util::future::join_all(calls);
        let (ended, ()) = tokio::join!(calls, runtime.shutdown());
        assert!(
            ended
                .iter()
                .all(|one| matches!(one, Err(CallError::Interrupted { .. })))
        );
        runtime.finish().await;
    });
}

#[test]
fn call_1_a_call_is_answered_when_fallbacks_go_down_with_its_worker() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::<(), ()>::new(|(), _| Reaction::Hang);
        let worker = script.clone();
        let client = runtime
            .dependency("d")
            .configure(|settings| {
                settings.timeout.attempt = None;
                settings.timeout.total = None;
            })
            .workers(move || worker.dependency())
            .fallback(|(), _: &CallError<ScriptedError>| {
                std::future::pending::<Result<(), String>>()
            })
            .start()
            .await
            .unwrap();
        let (ended, ()) = tokio::join!(soon(client.ask(())), runtime.shutdown());
        assert!(matches!(ended, Err(CallError::Interrupted { .. })));
        runtime.finish().await;
    });
}

#[test]
fn call_1_calls_in_flight_are_answered_when_the_runtime_is_dropped() {
    run_paused(async || {
        let settings = RuntimeSettings {
            clock: Some(breakerbox_actors::Clock::tokio()),
            ..RuntimeSettings::default()
        };
        let runtime = Runtime::start(settings).await.unwrap();
        let script = Script::<(), ()>::new(|(), _| Reaction::Hang);
        let client = patient(&runtime, &script, |_| {}).await;
        let calls = (0..3).map(|_| soon(client.ask(())));
        let calls = futures_util::future::join_all(calls);
        let drop_it = async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(runtime);
        };
        let (ended, ()) = tokio::join!(calls, drop_it);
        assert!(
            ended
                .iter()
                .all(|one| matches!(one, Err(CallError::Interrupted { .. })))
        );
        assert_eq!(client.status().in_flight, 0);
    });
}

#[test]
fn sup_7_a_drain_takes_no_new_calls() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()).after(Duration::from_secs(1)));
        let client = patient(&runtime, &script, |_| {}).await;
        let late = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(matches!(
                client.ask(()).await,
                Err(CallError::NotExecuted {
                    reason: NotExecutedReason::ShuttingDown,
                    ..
                })
            ));
            let run = client.run(|| async { Ok::<(), ()>(()) }).await;
            assert!(matches!(run, Err(CallError::NotExecuted { .. })));
        };
        let stop = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            runtime.shutdown().await;
        };
        let (early, (), ()) = tokio::join!(client.ask(()), late, stop);
        early.unwrap();
        assert_eq!(script.calls(), 1);
        runtime.finish().await;
    });
}

#[test]
fn call_1_calls_to_a_worker_that_an_operator_stopped_are_refused() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()));
        let client = patient(&runtime, &script, |_| {}).await;
        let group = runtime.group("d").unwrap();
        group.terminate("worker-1").await.unwrap();
        let refused = soon(client.ask(())).await;
        assert!(matches!(refused, Err(CallError::NotExecuted { .. })));
        group.restart("worker-1").await.unwrap();
        soon(client.ask(())).await.unwrap();
        runtime.finish().await;
    });
}

#[test]
fn call_4_a_caller_of_the_breaker_actor_that_is_gone_costs_nothing() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()).after(Duration::from_secs(1)));
        let client = patient(&runtime, &script, |settings| {
            settings.bulkhead.max_concurrent = count(1);
            settings.bulkhead.max_wait = Duration::from_secs(60);
        })
        .await;
        let first = client.breaker().send(Call::new(()));
        let gone = client
            .breaker()
            .send(Call::new(()))
            .timeout(Duration::from_millis(100));
        let (first, gone) = tokio::join!(first, gone);
        first.unwrap().unwrap();
        assert!(gone.is_err());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(script.calls(), 1);
        assert_eq!(client.status().totals.cancelled, 1);
        runtime.finish().await;
    });
}

/// A dependency that panics in `classify`.
struct Misjudging;

impl Dependency for Misjudging {
    type Request = ();
    type Response = ();
    type Error = ScriptedError;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), ScriptedError> {
        tokio::task::yield_now().await;
        Ok(())
    }

    fn classify(_: Result<&(), &ScriptedError>) -> Verdict {
        panic!("no judgement")
    }

    fn fingerprint((): &()) -> Option<u64> {
        Some(7)
    }
}

#[test]
fn sup_6_a_panic_in_the_judgement_is_the_calls_own_crash() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = runtime
            .dependency("d")
            .workers(|| Misjudging)
            .start()
            .await
            .unwrap();
        for _ in 0..2 {
            let ended = soon(client.ask(())).await;
            assert!(
                matches!(&ended, Err(CallError::WorkerCrashed { panic, .. }) if panic.message == "no judgement"),
                "{ended:?}"
            );
        }
        let ended = soon(client.ask(())).await;
        assert!(matches!(ended, Err(CallError::Quarantined { .. })));
        runtime.finish().await;
    });
}

/// A request that panics when it is dropped.
#[derive(Clone)]
struct Bomb {
    live: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.live, "a request panics while it is dropped");
    }
}

#[test]
fn sup_8_requests_that_panic_while_they_are_dropped_abort_nothing() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::<Bomb, ()>::new(|_, _| Reaction::Panic("a bug"));
        let client = patient(&runtime, &script, |settings| {
            settings.workers.backoff.base = Duration::from_secs(3600);
            settings.workers.backoff.max = Duration::from_secs(3600);
        })
        .await;
        // The first restart is immediate.
        for _ in 0..2 {
            let crash = soon(client.ask(Bomb { live: false })).await;
            assert!(matches!(crash, Err(CallError::WorkerCrashed { .. })));
        }
        let hasty = CallOptions {
            timeout: Some(Duration::from_secs(1)),
            ..CallOptions::default()
        };
        let late = soon(client.ask_with(Bomb { live: true }, hasty)).await;
        assert!(matches!(late, Err(CallError::TimedOut { .. })));
        let calls = (0..3).map(|_| soon(client.ask(Bomb { live: true })));
        let calls = futures_util::future::join_all(calls);
        let stop = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            runtime.shutdown().await;
        };
        let (ended, ()) = tokio::join!(calls, stop);
        for one in ended {
            let reason = NotExecutedReason::ShuttingDown;
            assert!(
                matches!(one, Err(CallError::NotExecuted { reason: why, .. }) if why == reason)
            );
        }
        runtime.finish().await;
    });
}

#[test]
fn brk_6_a_caller_that_panics_by_itself_has_only_left_early() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::<(), ()>::new(|(), _| Reaction::Hang);
        let client = patient(&runtime, &script, |settings| {
            settings.breaker.failure_threshold = Some(count(1));
        })
        .await;
        let caller = client.clone();
        let both = async move {
            let bug = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                panic!("a bug of the caller's own");
            };
            let _both = tokio::join!(caller.ask(()), bug);
        };
        assert!(tokio::task::spawn_local(both).await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(client.status().state, State::Closed);
        assert_eq!(client.status().totals.cancelled, 1);
        runtime.finish().await;
    });
}

#[test]
fn call_2_a_call_that_was_never_begun_says_how_long_it_waited() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|_: u32, _| Reaction::<u32>::Hang);
        let worker = script.clone();
        let client = runtime
            .dependency("d")
            .configure(|settings| {
                settings.bulkhead.max_concurrent = 1.try_into().unwrap();
                settings.bulkhead.max_wait = Duration::from_secs(60);
            })
            .workers(move || worker.dependency())
            .start()
            .await
            .unwrap();
        let options = CallOptions {
            timeout: Some(Duration::from_millis(300)),
            ..CallOptions::default()
        };
        let (first, second) = tokio::join!(
            client.ask_with(1, options.clone()),
            client.ask_with(2, options)
        );
        first.unwrap_err();
        let error = second.unwrap_err();
        assert_eq!(error.executed(), breakerbox_policy::Executed::No, "{error}");
        let CallError::TimedOut { after, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(after, Duration::from_millis(300));
        assert_eq!(script.calls(), 1);
        runtime.finish().await;
    });
}
