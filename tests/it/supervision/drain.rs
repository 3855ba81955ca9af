//! Draining and shutdown (rule SUP-7).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakerbox::{CallError, NotExecutedReason, Runtime, RuntimeSettings};
use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{DependencySettings, Placement, WhileRestarting};

use super::{Log, probe};

/// Calls that wait for a slot were accepted: `reject` concerns restarts, not draining.
#[test]
fn sup_7_accepted_calls_are_served_while_draining_even_with_reject() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|request: u32, _| {
            Reaction::Answer(request).after(Duration::from_millis(20))
        });
        let worker = script.clone();
        let one_place = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = 1.try_into().unwrap();
            settings.workers.while_restarting = WhileRestarting::Reject;
        };
        let client = runtime
            .dependency("d")
            .configure(one_place)
            .workers(move || worker.dependency())
            .start()
            .await
            .unwrap();
        let drain = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            runtime.shutdown().await;
        };
        let (one, two, ()) = tokio::join!(client.ask(1), client.ask(2), drain);
        assert_eq!((one.unwrap().value, two.unwrap().value), (1, 2));
        let error = client.ask(3).await.unwrap_err();
        let down = NotExecutedReason::ShuttingDown;
        assert!(
            matches!(&error, CallError::NotExecuted { reason, .. } if *reason == down),
            "{error}"
        );
        assert_eq!(script.calls(), 2);
        runtime.finish().await;
    });
}

#[test]
fn sup_7_everything_stops_in_reverse_order() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        for name in ["a", "b", "c"] {
            runtime.supervise(probe(name, &log)).await.unwrap();
        }
        log.take();
        runtime.shutdown().await;
        assert_eq!(
            log.take(),
            [
                "c stopped",
                "c dropped",
                "b stopped",
                "b dropped",
                "a stopped",
                "a dropped"
            ]
        );
        assert_eq!(runtime.ended().await, StopCause::Shutdown);
        runtime.finish().await;
    });
}

/// Counts its drop among its thread's locals, which happens when the thread ends.
struct Witness(Arc<AtomicU32>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

thread_local! {
    static WITNESS: std::cell::RefCell<Option<Witness>> = const { std::cell::RefCell::new(None) };
}

/// A tokio program without actix: the runtime makes its own threads, and joins all of them.
#[test]
fn sup_7_a_plain_tokio_program_can_start_it_and_every_thread_is_joined() {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let ended = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ended);
    tokio.block_on(async move {
        let settings = RuntimeSettings {
            extra_threads: 1,
            ..RuntimeSettings::default()
        };
        let runtime = Runtime::start(settings).await.unwrap();
        let factory = move || {
            let witness = Witness(Arc::clone(&counted));
            WITNESS.with(|place| *place.borrow_mut() = Some(witness));
            Script::new(|request: u32, _| Reaction::Answer(request)).dependency()
        };
        let dedicated = |settings: &mut DependencySettings| {
            settings.workers.placement = Placement::Dedicated;
            settings.workers.count = 2.try_into().unwrap();
        };
        let client = runtime
            .dependency("d")
            .configure(dedicated)
            .workers(factory)
            .start()
            .await
            .unwrap();
        let elsewhere = client.clone();
        let asked = tokio::spawn(async move { elsewhere.ask(1).await });
        assert_eq!(asked.await.unwrap().unwrap().value, 1);
        assert_eq!(client.ask(2).await.unwrap().value, 2);
        runtime.shutdown().await;
        assert_eq!(ended.load(Ordering::Acquire), 2, "threads that have ended");
        let status = client.status();
        assert_eq!(status.totals.submitted, status.totals.ended());
    });
}

/// Dropping the last handle kills the tree; no caller waits for ever.
#[test]
fn sup_7_a_runtime_that_is_dropped_answers_what_is_pending() {
    // On the real clock: paused time would run ahead of the runtime's threads.
    actix::System::new().block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let client = runtime
            .dependency("d")
            .workers(|| Script::new(|(), _| Reaction::<()>::Hang).dependency())
            .start()
            .await
            .unwrap();
        let hanging = client.clone();
        let hanging = tokio::task::spawn_local(async move { hanging.ask(()).await });
        tokio::task::yield_now().await;
        drop(runtime);
        let reply = tokio::time::timeout(Duration::from_secs(30), hanging).await;
        let error = reply.expect("answered").unwrap().unwrap_err();
        assert!(matches!(error, CallError::Interrupted { .. }), "{error}");
        let error = client.ask(()).await.unwrap_err();
        assert!(matches!(error, CallError::NotExecuted { .. }), "{error}");
    });
}
