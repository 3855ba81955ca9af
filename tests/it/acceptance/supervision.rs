//! Items 89 to 92: crashes, blocked threads, shutdown, giving up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{
    CallContext, CallError, Dependency, EventKind, Health, NotExecutedReason, Runtime,
    RuntimeSettings,
};
use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{
    DependencySettings, Executed, Intensity, OverrideMode, Placement, RefusalState, State,
};
use futures_util::future::join_all;

use crate::scripted::{Bench, Do, let_others_run, ms, opens_after, pass, start};

#[test]
fn item_89_a_panic_costs_one_call_and_one_incarnation() {
    run_paused(async || {
        let bench = Bench::start(opens_after(3, ms(60_000))).await;
        let other = start(&bench.runtime, "other", &bench.script, |_| {}, Vec::new()).await;
        bench.ask(Do::Fail).await.unwrap_err();
        let error = bench.send(Do::Panic).await.unwrap().unwrap_err();
        let CallError::WorkerCrashed { dependency, panic } = &error else {
            panic!("{error}");
        };
        assert_eq!((&**dependency, &*panic.message), ("dep", "told to"));
        assert_eq!(error.executed(), Executed::Maybe);
        let status = bench.status();
        assert_eq!((status.state, status.window.failures), (State::Closed, 2));
        assert_eq!(bench.ask(Do::Answer(3)).await.unwrap().value, 3);
        let status = bench.status();
        assert_eq!(
            (status.workers[0].incarnation, status.totals.restarts),
            (2, 1)
        );
        assert_eq!(status.totals.submitted, 3, "the totals go on");
        // A breaker that is open when its worker crashes stays open for its remaining time.
        let client = bench.client.clone();
        let late = tokio::spawn(async move { client.ask(Do::Panic.after(1_000)).await });
        let_others_run().await;
        bench.fail_until_open().await;
        late.await.unwrap().unwrap_err();
        pass(1_000).await;
        let status = bench.status();
        assert_eq!(status.totals.restarts, 2);
        assert_eq!(status.state, State::Open);
        assert_eq!(status.retry_after, Some(ms(58_000)));
        other.ask(Do::Answer(1)).await.unwrap();
        let status = other.status();
        assert_eq!(
            (status.workers[0].incarnation, status.state),
            (1, State::Closed)
        );
        bench.finish().await;
    });
}

/// Dependency that blocks its thread until it is released.
struct Blocking(Arc<AtomicBool>);

impl Dependency for Blocking {
    type Request = ();
    type Response = ();
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
        while !self.0.load(Ordering::Acquire) {
            std::thread::park_timeout(ms(5));
        }
        Ok(())
    }
}

struct Quick;

impl Dependency for Quick {
    type Request = ();
    type Response = ();
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
        Ok(())
    }
}

/// Uses real threads. The blocked thread is released only after a thousand calls of the other
/// dependency have been answered, so no call waited for it.
#[test]
fn item_90_a_blocked_thread_slows_nobody_else_and_is_reported() {
    let callers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let whole = callers.block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let let_go = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&let_go);
        let blocking = runtime
            .dependency("blocking")
            .configure(|settings: &mut DependencySettings| {
                settings.workers.placement = Placement::Dedicated;
                settings.workers.stuck_after = Some(ms(50));
                settings.timeout.attempt = None;
                settings.timeout.total = None;
            })
            .workers(move || Blocking(Arc::clone(&told)))
            .start()
            .await
            .unwrap();
        let quick = runtime.dependency("quick").workers(|| Quick).start();
        let quick = quick.await.unwrap();
        let mut events = runtime.events();
        let blocked = tokio::spawn(async move { blocking.ask(()).await });
        let test = async {
            loop {
                let event = events.recv().await.unwrap();
                if matches!(event.kind, EventKind::Stuck { .. }) {
                    assert_eq!(&*event.subject, "blocking/worker-1");
                    break;
                }
            }
            for _ in 0..1_000 {
                quick.ask(()).await.unwrap();
            }
            assert_eq!(quick.status().totals.primary, 1_000);
            let_go.store(true, Ordering::Release);
            let error = blocked.await.unwrap().unwrap_err();
            assert_eq!(error.executed(), Executed::Maybe, "{error}");
            runtime.shutdown().await;
        };
        tokio::time::timeout(Duration::from_secs(60), test).await
    });
    whole.expect("no call waits for a blocked thread");
}

#[test]
fn item_91_a_shutdown_lets_calls_finish_within_its_grace() {
    run_paused(async || {
        let grace = |settings: &mut DependencySettings| settings.workers.drain = ms(2_000);
        let bench = Bench::start(grace).await;
        let begin = bench.runtime.clock().now();
        let calls = (1..=20).map(|number| {
            let client = bench.client.clone();
            // Ten calls end in time, ten do not.
            tokio::spawn(async move {
                client
                    .ask(Do::Answer(number).after(195 * u64::from(number)))
                    .await
            })
        });
        let calls: Vec<_> = calls.collect();
        let_others_run().await;
        let runtime = (*bench.runtime).clone();
        let stopping = tokio::spawn(async move { runtime.shutdown().await });
        let_others_run().await;
        let error = bench.ask(Do::Answer(0)).await.unwrap_err();
        let CallError::NotExecuted { reason, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*reason, NotExecutedReason::ShuttingDown);
        let ran = bench.client.run(async || Ok::<_, String>(1)).await;
        assert!(matches!(ran, Err(CallError::NotExecuted { .. })), "{ran:?}");
        for (number, call) in (1..).zip(join_all(calls).await) {
            match call.unwrap() {
                Ok(answer) => assert_eq!((answer.value, number <= 10), (number, true)),
                Err(CallError::Interrupted { cause, .. }) => {
                    assert!(number > 10, "call {number} had time");
                    assert_eq!(cause, StopCause::Killed);
                }
                Err(other) => panic!("{other}"),
            }
        }
        stopping.await.unwrap();
        assert_eq!(bench.runtime.clock().now().since(begin), ms(2_000));
        assert_eq!(bench.script.calls(), 20);
        assert!(!bench.status().workers[0].running);
        bench.finish().await;
    });
}

#[test]
fn item_92_too_many_crashes_park_once_and_a_hand_revives() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = None;
            settings.workers.intensity = Intensity {
                max: 2,
                within: ms(600_000),
            };
        };
        let bench = Bench::start(configure).await;
        for _ in 0..3 {
            let error = bench.ask(Do::Panic).await.unwrap_err();
            assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
        }
        bench.runtime.event(|event| is_parked(&event.kind)).await;
        pass(60_000).await;
        let status = bench.status();
        assert!(status.parked && !status.workers[0].running);
        assert!(matches!(status.health, Health::Down { .. }));
        let mode = status.overridden.map(|set| set.mode);
        assert_eq!(mode, Some(OverrideMode::ForcedOpen));
        let error = bench.ask(Do::Answer(1)).await.unwrap_err();
        let CallError::Open(refused) = &error else {
            panic!("{error}");
        };
        assert_eq!(refused.state, RefusalState::ForcedOpen);
        assert_eq!(error.executed(), Executed::No);
        let events = bench.runtime.events_since(0);
        let alerts = events.iter().filter(|event| is_parked(&event.kind));
        assert_eq!(alerts.count(), 1);
        let group = bench.runtime.group("dep").unwrap();
        group.restart("worker-1").await.unwrap();
        assert_eq!(bench.ask(Do::Answer(4)).await.unwrap().value, 4);
        let status = bench.status();
        assert!(!status.parked && status.overridden.is_none());
        assert_eq!(status.health, Health::Ok);
        bench.finish().await;
    });
}

fn is_parked(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Parked { .. })
}
