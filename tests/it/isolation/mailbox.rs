//! CALL-6 and CALL-9: calls that are sent as messages, while the thread of their breaker actor is
//! blocked, or does not turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_actors::{
    Call, CallContext, CallError, CallOptions, Client, Dependency, DependencyStatus, Runtime,
};
use breakerbox_policy::{Executed, Placement};

use super::blocked_threads::{Blocking, Release, Wish, block, runtime, start, tokio, within};
use crate::scripted::ms;

/// Time beyond its deadline in which a call has to end on a busy machine. It is 13 ms on an idle one,
/// and seconds if a call waits for a blocked thread.
const SLACK: Duration = Duration::from_millis(1500);

/// A dependency that answers never, and counts its calls.
#[derive(Clone, Default)]
struct Hanging(Arc<AtomicU32>);

impl Dependency for Hanging {
    type Request = ();
    type Response = ();
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::AcqRel);
        std::future::pending().await
    }
}

async fn start_hanging(runtime: &Runtime, placement: Placement) -> (Client<Hanging>, Hanging) {
    let hanging = Hanging::default();
    let made = hanging.clone();
    let built = runtime.dependency("hanging").configure(|settings| {
        within(ms(200))(settings);
        settings.workers.placement = placement;
    });
    let client = built.workers(move || made.clone()).start().await.unwrap();
    (client, hanging)
}

/// Asserts that a call sent at `sent` ended at its deadline, `limit` later.
fn assert_in_time(sent: tokio::time::Instant, limit: Duration) {
    let took = sent.elapsed();
    assert!(
        took >= limit,
        "{took:?} is before its deadline of {limit:?}"
    );
    assert!(took < limit + SLACK, "{took:?} with a limit of {limit:?}");
}

fn ended(status: &DependencyStatus) -> u64 {
    let totals = &status.totals;
    totals.primary + totals.fallback + totals.refused + totals.failed + totals.cancelled
}

#[test]
fn call_9_a_call_ends_by_its_deadline_while_its_breaker_actor_cannot_take_it() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let sick = start(&runtime, "sick", &release, |_| {}).await;
        let (hanging, executed) = start_hanging(&runtime, Placement::Dedicated).await;
        let blocked = block(&sick, &release).await;
        let sent = tokio::time::Instant::now();
        let breaker = hanging.breaker();
        // The limit of the settings, and a shorter one of the caller.
        let hasty = CallOptions {
            timeout: Some(ms(100)),
            ..CallOptions::default()
        };
        breaker.try_send(Call::new(())).unwrap();
        let usual = breaker.send(Call::new(()));
        let ended = breaker.send(Call::with((), hasty)).await.unwrap();
        assert_in_time(sent, ms(100));
        assert_eq!(ended.unwrap_err().executed(), Executed::No);
        let error = usual.await.unwrap().unwrap_err();
        assert_in_time(sent, ms(200));
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!(error.executed(), Executed::No);
        release.end();
        blocked.await.unwrap();
        // The actor turns again, and takes none of those that are over.
        let late = breaker.send(Call::new(())).await.unwrap().unwrap_err();
        assert_eq!(late.executed(), Executed::Maybe);
        assert_eq!(executed.0.load(Ordering::Acquire), 1);
        let status = hanging.status();
        assert_eq!((status.totals.submitted, self::ended(&status)), (4, 4));
        runtime.shutdown().await;
    });
}

#[test]
fn call_9_a_call_in_progress_ends_by_its_deadline_while_the_thread_of_its_actor_is_blocked() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let sick = start(&runtime, "sick", &release, |_| {}).await;
        let (hanging, executed) = start_hanging(&runtime, Placement::Dedicated).await;
        let sent = tokio::time::Instant::now();
        let call = hanging.breaker().send(Call::new(()));
        while executed.0.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        let blocked = block(&sick, &release).await;
        let error = call.await.unwrap().unwrap_err();
        assert_in_time(sent, ms(200));
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!(error.executed(), Executed::Maybe);
        release.end();
        blocked.await.unwrap();
        // CALL-3: what could not be counted in time is counted later.
        let began = tokio::time::Instant::now();
        while ended(&hanging.status()) == 0 {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "it is not counted"
            );
            tokio::time::sleep(ms(5)).await;
        }
        let status = hanging.status();
        assert_eq!((status.totals.submitted, status.totals.failed), (1, 1));
        assert_eq!(status.in_flight, 0);
        runtime.shutdown().await;
    });
}

#[test]
fn call_9_a_call_that_waited_for_its_actor_has_the_rest_of_its_time() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let sick = start(&runtime, "sick", &release, |_| {}).await;
        let (hanging, executed) = start_hanging(&runtime, Placement::Shared).await;
        let blocked = block(&sick, &release).await;
        let sent = tokio::time::Instant::now();
        let call = hanging.breaker().send(Call::new(()));
        tokio::time::sleep(ms(80)).await;
        release.end();
        blocked.await.unwrap();
        let error = call.await.unwrap().unwrap_err();
        assert_in_time(sent, ms(200));
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert!(executed.0.load(Ordering::Acquire) <= 1);
        runtime.shutdown().await;
    });
}

/// A turn of the only thread is a whole test's without an `await`.
#[test]
fn call_6_the_mailbox_of_a_breaker_has_a_bound_and_a_named_error() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|request: u32, _| Reaction::Answer(request));
        let worker = script.clone();
        let built = runtime.dependency("d").workers(move || worker.dependency());
        let client = built.start().await.unwrap();
        let breaker = client.breaker();
        let sent: Vec<_> = (0..4000).map(|n| breaker.send(Call::new(n))).collect();
        for n in 0..96 {
            breaker.try_send(Call::new(n)).unwrap();
        }
        assert_eq!(client.status().queued, 4096);
        // Whatever way it is sent, and with whatever clone of the address.
        for n in 0..10_000 {
            client.breaker().try_send(Call::new(n)).unwrap();
        }
        assert_eq!(client.status().queued, 4096, "the bound holds");
        let refused = client.breaker().send(Call::new(1)).await.unwrap();
        let refused = refused.unwrap_err();
        assert!(matches!(refused, CallError::Overloaded { .. }), "{refused}");
        assert_eq!(refused.executed(), Executed::No);
        let text = refused.to_string();
        assert!(
            text.contains("4096 calls waiting for its breaker actor"),
            "{text}"
        );
        for (n, sent) in (0..).zip(sent) {
            assert_eq!(sent.await.unwrap().unwrap().value, n);
        }
        // Calls of one sender are taken in their order, so this is the last one.
        assert_eq!(breaker.send(Call::new(5)).await.unwrap().unwrap().value, 5);
        let totals = client.status().totals;
        assert_eq!((totals.primary, totals.refused), (4097, 10_001));
        assert_eq!(client.status().queued, 0);
        runtime.finish().await;
    });
}

#[test]
fn call_6_a_wide_bulkhead_widens_the_mailbox() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|request: u32, _| Reaction::Answer(request));
        let worker = script.clone();
        let built = runtime.dependency("d").configure(|settings| {
            settings.bulkhead.max_queue = 5000;
        });
        let built = built.workers(move || worker.dependency());
        let client = built.start().await.unwrap();
        let bulkhead = client.settings().bulkhead;
        let bound = bulkhead.max_concurrent.get() + bulkhead.max_queue;
        for n in 0..bound + 7 {
            client.breaker().try_send(Call::new(n)).unwrap();
        }
        assert_eq!(client.status().queued, bound);
        assert_eq!(client.status().totals.refused, 7);
        runtime.finish().await;
    });
}

#[test]
fn call_9_a_call_of_another_thread_is_answered_when_nothing_blocks() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let well: Client<Blocking> = start(&runtime, "well", &release, within(ms(30_000))).await;
        for _ in 0..100 {
            let call = well.breaker().send(Call::new(Wish::Answer));
            assert_eq!(call.await.unwrap().unwrap().value, 1);
        }
        runtime.shutdown().await;
    });
}
