//! SUP-4, SUP-2 and SUP-1: workers that are given up, the one limit on restarts, starts that are
//! given up, and messages to actors that have finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, MailboxError, WrapFuture as _};
use breakerbox::{
    CallContext, CallError, Child, Client, Dependency, Group, Health, Runtime, StartError,
};
use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_policy::supervision::{AutoShutdown, StopCause};
use breakerbox_policy::{BreakerCommand, DependencySettings, GiveUp, Intensity, RestartType};

use super::{Behave, Log, MOMENT, Probe};
use crate::scripted::{ms, nonzero};

/// A worker whose connection is broken, if it is told so.
struct Fragile {
    is_broken: Arc<AtomicBool>,
}

impl Dependency for Fragile {
    type Request = ();
    type Response = ();
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
        assert!(!self.is_broken.load(Ordering::SeqCst), "told to panic");
        Ok(())
    }
}

fn few_restarts(settings: &mut DependencySettings) {
    settings.workers.intensity = Intensity {
        max: 2,
        within: Duration::from_secs(3600),
    };
    settings.workers.backoff.base = ms(1);
    settings.workers.backoff.max = ms(1);
    settings.breaker.failure_threshold = None;
}

/// Two workers: the first one is well, and the second one while `broken` says nothing else.
async fn pair(runtime: &Runtime, broken: [Arc<AtomicBool>; 2]) -> Client<Fragile> {
    let made = AtomicU32::new(0);
    let configure = |settings: &mut DependencySettings| {
        few_restarts(settings);
        settings.workers.count = nonzero(2);
    };
    let make = move || {
        // The first two start in order; later ones are restarts of the broken one.
        let number = made.fetch_add(1, Ordering::SeqCst);
        let own = if number == 0 { &broken[0] } else { &broken[1] };
        Fragile {
            is_broken: Arc::clone(own),
        }
    };
    let builder = runtime.dependency("d").configure(configure);
    builder.workers(make).start().await.unwrap()
}

/// Asks until the second worker is parked.
async fn wear_out(client: &Client<Fragile>) {
    for _ in 0..100 {
        let _ = client.ask(()).await;
        tokio::time::sleep(ms(5)).await;
    }
}

#[test]
fn sup_4_l6_one_parked_worker_of_two_takes_only_itself_out() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let broken = [
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(true)),
        ];
        let client = pair(&runtime, broken.clone()).await;
        wear_out(&client).await;
        let status = client.status();
        assert!(!status.parked);
        assert_eq!(status.workers.iter().filter(|one| one.running).count(), 1);
        assert_eq!(client.state(), "closed");
        let health = status.health.to_string();
        assert!(matches!(status.health, Health::Degraded { .. }), "{health}");
        assert!(health.contains("1 of 2 workers"), "{health}");
        assert!(health.contains("told to panic"), "{health}");
        for _ in 0..4 {
            client.ask(()).await.unwrap();
        }
        // An operator's `close` brings it back, and does not touch the other one.
        broken[1].store(false, Ordering::SeqCst);
        let reason = "repaired".to_owned();
        let close = BreakerCommand::Close { reason };
        runtime.operate("d", close).await.unwrap().unwrap();
        tokio::time::sleep(ms(50)).await;
        let status = client.status();
        assert_eq!(status.health, Health::Ok);
        assert_eq!(status.workers[0].incarnation, 1);
        runtime.finish().await;
    });
}

#[test]
fn sup_4_l6_the_last_parked_worker_opens_the_breaker_and_names_the_limit() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let broken = [
            Arc::new(AtomicBool::new(true)),
            Arc::new(AtomicBool::new(true)),
        ];
        let client = pair(&runtime, broken).await;
        wear_out(&client).await;
        let status = client.status();
        assert!(status.parked);
        assert_eq!(client.state(), "forced_open");
        let error = client.ask(()).await.unwrap_err().to_string();
        assert!(error.contains("is parked"), "{error}");
        assert!(error.contains("more than 2 restarts in"), "{error}");
        assert!(error.contains("workers.intensity"), "{error}");
        runtime.finish().await;
    });
}

#[test]
fn sup_4_a_replacement_of_a_parked_dependency_serves() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let broken = [
            Arc::new(AtomicBool::new(true)),
            Arc::new(AtomicBool::new(true)),
        ];
        let former = pair(&runtime, broken).await;
        wear_out(&former).await;
        assert!(former.status().parked);
        let next = runtime.dependency(former.name()).workers(|| Fragile {
            is_broken: Arc::default(),
        });
        let next = next.replacing().start().await.unwrap();
        next.ask(()).await.unwrap();
        let status = next.status();
        assert!(!status.parked && status.overridden.is_none(), "{status:?}");
        runtime.finish().await;
    });
}

#[test]
fn sup_2_l8_the_intensity_is_the_one_limit_on_restarts() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let broken = Arc::new(AtomicBool::new(true));
        let own = Arc::clone(&broken);
        let configure = |settings: &mut DependencySettings| {
            few_restarts(settings);
            settings.workers.intensity.max = 25;
        };
        let builder = runtime.dependency("d").configure(configure);
        let builder = builder.workers(move || Fragile {
            is_broken: Arc::clone(&own),
        });
        let client = builder.start().await.unwrap();
        wear_out(&client).await;
        let status = client.status();
        assert!(status.parked);
        assert_eq!(status.workers[0].restarts, 25);
        runtime.finish().await;
    });
}

/// A dependency whose factory hangs while it is told to.
fn hanging(
    runtime: &Runtime,
    hangs: &Arc<AtomicBool>,
) -> breakerbox::DependencyBuilder<breakerbox_actors::testing::Scripted<u32, u32>> {
    let script = Script::new(|request: u32, _| Reaction::Answer(request));
    let hangs = Arc::clone(hangs);
    runtime.dependency("d").workers(move || {
        let (script, hangs) = (script.clone(), hangs.load(Ordering::SeqCst));
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, String>(script.dependency())
        }
    })
}

#[test]
fn sup_1_l13_a_start_that_is_given_up_frees_its_name() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let hangs = Arc::new(AtomicBool::new(true));
        let start = hanging(&runtime, &hangs).start();
        assert!(tokio::time::timeout(ms(300), start).await.is_err());
        assert!(runtime.status("d").is_none());
        hangs.store(false, Ordering::SeqCst);
        let second = tokio::time::timeout(ms(2_000), hanging(&runtime, &hangs).start());
        let client = second.await.unwrap().unwrap();
        assert_eq!(client.ask(7).await.unwrap().value, 7);
        tokio::time::sleep(ms(50)).await;
        let names: Vec<String> = runtime
            .children()
            .await
            .into_iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(names, ["d"], "nothing of the first start is left");
        runtime.finish().await;
    });
}

#[test]
fn sup_1_l13_a_replacement_that_is_given_up_leaves_the_former_one() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let hangs = Arc::new(AtomicBool::new(false));
        let former = hanging(&runtime, &hangs).start().await.unwrap();
        hangs.store(true, Ordering::SeqCst);
        let start = hanging(&runtime, &hangs).replacing().start();
        assert!(tokio::time::timeout(ms(300), start).await.is_err());
        assert_eq!(former.ask(1).await.unwrap().value, 1);
        hangs.store(false, Ordering::SeqCst);
        let next = hanging(&runtime, &hangs).replacing().start().await.unwrap();
        assert_eq!(next.ask(2).await.unwrap().value, 2);
        assert!(runtime.end_former("d", "a test").is_some());
        runtime.finish().await;
    });
}

/// An actor whose start waits for ever.
struct NeverUp;

impl Actor for NeverUp {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.wait(std::future::pending().into_actor(self));
    }
}

#[test]
fn sup_1_l13_every_kind_of_start_has_a_limit() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let hangs = Arc::new(AtomicBool::new(true));
        let start = hanging(&runtime, &hangs).start_timeout(ms(200)).start();
        let error = start.await.unwrap_err().to_string();
        assert!(error.contains("did not start within 200 ms"), "{error}");
        let child = Child::permanent("a", || NeverUp).start_timeout(ms(200));
        let error = runtime.supervise(child).await.unwrap_err();
        assert!(matches!(error, StartError::Failed { .. }), "{error}");
        // A later start has the limit too: it is a failure like any other.
        hangs.store(false, Ordering::SeqCst);
        let builder = hanging(&runtime, &hangs).configure(few_restarts);
        let builder = builder.configure(|settings| {
            settings.workers.start_timeout = Some(ms(200));
        });
        let client = builder.start().await.unwrap();
        hangs.store(true, Ordering::SeqCst);
        let renewed = runtime.restart_workers("d", ms(60_000)).await.unwrap();
        let told = renewed.to_string();
        assert!(told.contains("did not start within 200 ms"), "{told}");
        assert!(!client.status().workers[0].running);
        // The start of an actor that is given up frees its name, too.
        let waiting = runtime.supervise(Child::permanent("a", || NeverUp));
        assert!(tokio::time::timeout(ms(50), waiting).await.is_err());
        let log = Log::default();
        let probe = Child::permanent("a", move || Probe::new("a", &log));
        runtime.supervise(probe).await.unwrap();
        runtime.finish().await;
    });
}

#[test]
fn sup_4_l7_messages_to_an_actor_that_has_finished_are_refused() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let make = move || Probe::new("t", &log);
        let child = Child::transient("t", make);
        let addr = child.addr();
        runtime.supervise(child).await.unwrap();
        addr.send(Behave::Stop).await.unwrap();
        let late = tokio::time::timeout(ms(600_000), addr.send(Behave::Answer(2)));
        assert!(matches!(late.await.unwrap(), Err(MailboxError::Closed)));
        // An operator's order brings it back, under the same address.
        runtime.root().restart("t").await.unwrap();
        assert_eq!(addr.send(Behave::Answer(3)).await.unwrap(), 3);
        // An order to stop is no end of its own: messages wait.
        runtime.root().terminate("t").await.unwrap();
        let waiting = tokio::time::timeout(ms(1_000), addr.send(Behave::Answer(4)));
        assert!(waiting.await.is_err(), "it waits");
        runtime.root().restart("t").await.unwrap();
        assert_eq!(addr.send(Behave::Answer(5)).await.unwrap(), 5);
        runtime.finish().await;
    });
}

#[test]
fn sup_4_l7_messages_to_a_parked_actor_and_to_a_finished_group_are_refused() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let make = {
            let log = log.clone();
            move || Probe::new("p", &log)
        };
        let none = Intensity {
            max: 0,
            within: Duration::from_secs(60),
        };
        let parked = Child::permanent("p", make)
            .intensity(none)
            .give_up(GiveUp::Park);
        let addr = parked.addr();
        runtime.supervise(parked).await.unwrap();
        let _ = addr.send(Behave::Panic).await;
        let refused = tokio::time::timeout(ms(600_000), addr.send(Behave::Answer(1)));
        assert!(matches!(refused.await.unwrap(), Err(MailboxError::Closed)));

        let make = |name: &'static str| {
            let log = log.clone();
            Child::transient(name, move || Probe::new(name, &log))
        };
        let (first, second) = (make("first").significant(), make("second"));
        let addrs = [first.addr(), second.addr()];
        let group = Group::new("all").restart(RestartType::Transient);
        let group = group.auto_shutdown(AutoShutdown::AnySignificant);
        let group = group.child(first).child(second);
        let group = runtime.supervise_group(group).await.unwrap();
        addrs[0].send(Behave::Stop).await.unwrap();
        tokio::time::sleep(MOMENT).await;
        for addr in &addrs {
            let refused = tokio::time::timeout(ms(600_000), addr.send(Behave::Answer(1)));
            assert!(matches!(refused.await.unwrap(), Err(MailboxError::Closed)));
        }
        let added = tokio::time::timeout(ms(600_000), group.add(make("third")));
        assert!(added.await.unwrap().is_err());
        // An order brings the group back, and its mailboxes with it.
        runtime.root().restart("all").await.unwrap();
        assert_eq!(addrs[1].send(Behave::Answer(2)).await.unwrap(), 2);
        runtime.finish().await;
    });
}

/// Duration of a lap of starts, the shortest of some.
fn shortest(laps: &[Duration]) -> f64 {
    laps.iter().min().unwrap().as_secs_f64()
}

#[test]
fn sup_3_l14_a_start_and_a_stop_cost_the_same_however_many_there_are() {
    const LAP: usize = 150;
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let mut laps = Vec::new();
        for lap in 0..20 {
            let began = quanta::Instant::now();
            for number in 0..LAP {
                let log = log.clone();
                let name = format!("a{}", lap * LAP + number);
                let child = Child::permanent(name, move || Probe::new("a", &log));
                runtime.supervise(child).await.unwrap();
            }
            laps.push(began.elapsed());
        }
        let growth = shortest(&laps[15..]) / shortest(&laps[..5]);
        assert!(
            growth < 3.0,
            "the last starts took {growth:.1} times as long: {laps:?}"
        );
        runtime.finish().await;
    });
}

#[test]
fn sup_4_l6_a_call_is_not_begun_without_a_worker() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let broken = [
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(true)),
        ];
        let client = pair(&runtime, broken).await;
        wear_out(&client).await;
        // The one that is left is stopped by an order: the parked one still says why none runs.
        let group = runtime.group("d").unwrap();
        group.terminate("worker-1").await.unwrap();
        let error = client.ask(()).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert!(error.to_string().contains("worker-2 is parked"), "{error}");
        let last = client.status().workers[1].last_exit.clone();
        assert!(matches!(last, Some(StopCause::Crashed(_))), "{last:?}");
        runtime.finish().await;
    });
}

/// The specification of the outer group keeps what belongs to the inner one.
#[test]
fn sup_4_l7_messages_to_a_child_that_its_group_has_forgotten_are_refused() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let log = Log::default();
        let make = |name: &'static str| {
            let log = log.clone();
            move || Probe::new(name, &log)
        };
        let first = Child::transient("first", make("first")).significant();
        let second = Child::permanent("second", make("second"));
        let third = Child::temporary("third", make("third"));
        let addrs = [first.addr(), second.addr(), third.addr()];
        let inner = Group::new("inner").restart(RestartType::Temporary);
        let inner = inner.auto_shutdown(AutoShutdown::AnySignificant);
        let inner = inner.child(first).child(second);
        let outer = Group::new("outer").group(inner).child(third);
        runtime.supervise_group(outer).await.unwrap();
        for ended in [&addrs[0], &addrs[2]] {
            ended.send(Behave::Stop).await.unwrap();
        }
        tokio::time::sleep(MOMENT).await;
        for addr in &addrs {
            let refused = tokio::time::timeout(ms(600_000), addr.send(Behave::Answer(1)));
            assert!(matches!(refused.await.unwrap(), Err(MailboxError::Closed)));
        }
        // A new life of the outer group brings all of them back.
        runtime.root().renew("outer").await.unwrap();
        for addr in &addrs {
            assert_eq!(addr.send(Behave::Answer(2)).await.unwrap(), 2);
        }
        runtime.finish().await;
    });
}

/// An actor whose start blocks its thread for a while.
struct SlowUp;

impl Actor for SlowUp {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        std::thread::sleep(ms(60));
    }
}

/// On the real clock: no timer runs while the thread is blocked.
#[test]
fn sup_1_a_start_that_blocks_its_thread_for_too_long_has_failed() {
    let test = async {
        let runtime = Runtime::start(breakerbox::RuntimeSettings::default()).await;
        let runtime = runtime.unwrap();
        let script = Script::new(|request: u32, _| Reaction::Answer(request));
        let builder = runtime.dependency("d").start_timeout(ms(20));
        let builder = builder.workers(move || {
            std::thread::sleep(ms(60));
            script.dependency()
        });
        let error = builder.start().await.unwrap_err().to_string();
        assert!(error.contains("did not start within 20 ms"), "{error}");
        let child = Child::permanent("a", || SlowUp).start_timeout(ms(20));
        let error = runtime.supervise(child).await.unwrap_err().to_string();
        assert!(error.contains("did not start within 20 ms"), "{error}");
        let child = Child::permanent("a", || SlowUp).start_timeout(ms(10_000));
        runtime.supervise(child).await.unwrap();
        runtime.shutdown().await;
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}
