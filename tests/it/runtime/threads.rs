//! Real threads: a worker that blocks its thread, and an actor flooded from another thread.
//!
//! No test waits by sleeping. Bounds on real time are generous, for busy machines.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, System};
use breakerbox::{
    CallContext, CallError, Child, Dependency, EventKind, Group, Runtime, RuntimeSettings,
};
use breakerbox_policy::{Executed, Placement};

use super::millis;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A dependency that blocks its thread on request, until the test releases it.
struct Blocking {
    life: u32,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Dependency for Blocking {
    type Request = bool;
    type Response = u32;
    type Error = String;

    async fn call(&self, blocks: bool, _: &CallContext) -> Result<u32, String> {
        if blocks {
            let gate = self.gate.lock().expect("no holder panics");
            // The test releases it; the timeout keeps a failing test from hanging.
            let _ = gate.recv_timeout(PATIENCE);
        }
        Ok(self.life)
    }
}

#[test]
fn r13_a_worker_that_blocks_its_thread_is_replaced() {
    System::new().block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let (open, gate) = mpsc::channel();
        let gate = Arc::new(Mutex::new(gate));
        let lives = AtomicU32::new(0);
        let client = runtime
            .dependency("d")
            .configure(|settings| {
                settings.workers.placement = Placement::Dedicated;
                settings.workers.stuck_after = Some(millis(200));
                settings.timeout.attempt = None;
                settings.timeout.total = Some(PATIENCE);
            })
            .workers(move || Blocking {
                life: lives.fetch_add(1, Ordering::Relaxed) + 1,
                gate: Arc::clone(&gate),
            })
            .start()
            .await
            .unwrap();
        let mut events = runtime.events();
        let stuck = client.clone();
        let stuck = tokio::task::spawn_local(async move { stuck.ask(true).await });
        tokio::task::yield_now().await;
        // These calls arrive before the worker blocks: it must not hold back calls that it has not
        // started.
        let others = (client.ask(false), client.ask(false));
        let others = async { tokio::join!(others.0, others.1) };
        let (one, two) = tokio::time::timeout(PATIENCE, others).await.unwrap();
        assert_eq!((one.unwrap().value, two.unwrap().value), (2, 2));
        let worker = client.status().workers[0].clone();
        assert_eq!((worker.incarnation, worker.running), (2, true));
        assert_eq!(runtime.abandoned_threads(), 1);
        let detected = loop {
            if let EventKind::Stuck { for_, .. } = events.recv().await.unwrap().kind {
                break for_;
            }
        };
        // At most 250 ms on an idle machine; a busy one may detect it later.
        assert!(
            (millis(200)..millis(2_000)).contains(&detected),
            "{detected:?}"
        );
        // The blocked call returns; its incarnation is over, so its result is discarded.
        open.send(()).unwrap();
        let late = tokio::time::timeout(PATIENCE, stuck).await.unwrap();
        let error = late.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Interrupted { .. }), "{error}");
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!(client.ask(false).await.unwrap().value, 2);
        runtime.shutdown().await;
    });
}

/// A thread that never returns must not keep the program from ending.
#[test]
fn r13_a_shutdown_does_not_wait_for_a_blocked_thread() {
    System::new().block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let client = runtime
            .dependency("d")
            .configure(|settings| {
                settings.workers.placement = Placement::Dedicated;
                settings.workers.stuck_after = Some(millis(50));
                settings.workers.drain = millis(100);
            })
            .workers(move || Blocking {
                life: 1,
                gate: Arc::clone(&gate),
            })
            .start()
            .await
            .unwrap();
        let stuck = client.clone();
        let stuck = tokio::task::spawn_local(async move { stuck.ask(true).await });
        tokio::task::yield_now().await;
        client.ask(false).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE / 3, runtime.shutdown()).await;
        assert!(ended.is_ok(), "the shutdown waits for the blocked thread");
        stuck.abort();
        drop(open);
    });
}

#[derive(Message)]
#[rtype(result = "()")]
struct Drip;

#[derive(Message)]
#[rtype(result = "u64")]
struct Ping;

/// Counts the messages that it handles and the runs of its timer.
struct Counter {
    handled: Arc<AtomicU64>,
    ticks: Arc<AtomicU64>,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(millis(1), |me, _| {
            me.ticks.fetch_add(1, Ordering::Relaxed);
        });
    }
}

impl Handler<Drip> for Counter {
    type Result = ();

    fn handle(&mut self, _: Drip, _: &mut Context<Self>) {
        let handled = self.handled.fetch_add(1, Ordering::Relaxed);
        // Some work, so that the flood lasts.
        std::hint::black_box(
            (0..2_000).fold(handled, |sum, next| std::hint::black_box(sum ^ next)),
        );
    }
}

impl Handler<Ping> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Ping, _: &mut Context<Self>) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }
}

fn counter(name: &str, handled: &Arc<AtomicU64>, ticks: &Arc<AtomicU64>) -> Child<Counter> {
    let (handled, ticks) = (Arc::clone(handled), Arc::clone(ticks));
    Child::permanent(name, move || Counter {
        handled: Arc::clone(&handled),
        ticks: Arc::clone(&ticks),
    })
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a flood is what do_send makes: it ignores the bound"
)]
fn r16_a_flooded_actor_does_not_starve_its_neighbours() {
    const FLOOD: u64 = 100_000;
    /// Maximum messages, in turns of 32, that A may handle between a ping and its answer.
    const FAIR: u64 = 32 * 8;
    System::new().block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let (handled, ticks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let a = counter("a", &handled, &ticks);
        let b = counter("b", &Arc::default(), &Arc::default());
        let (flooded, neighbour) = (a.addr(), b.addr());
        let group = runtime
            .supervise_group(Group::new("g").child(a).child(b))
            .await
            .unwrap();
        let flood = move || (0..FLOOD).for_each(|_| flooded.do_send(Drip));
        // The whole flood is queued before A handles the first message.
        std::thread::spawn(flood).join().unwrap();
        let clock = runtime.clock().clone();
        // A task like the actors' tasks: the outermost future gets fewer turns.
        let watch = async move {
            let done = || handled.load(Ordering::Relaxed);
            let (mut pings, mut worst, mut longest) = (0, 0, Duration::ZERO);
            while (ticks.load(Ordering::Relaxed) < 3 || pings < 20) && done() < FLOOD / 2 {
                let (before, at) = (done(), clock.now());
                neighbour.send(Ping).await.unwrap();
                worst = worst.max(done() - before);
                longest = longest.max(clock.now().since(at));
                pings += 1;
            }
            assert!(ticks.load(Ordering::Relaxed) >= 3, "A's timers run");
            assert!(pings >= 20, "B answered {pings} times");
            assert!(worst <= FAIR, "A handled {worst} before B's answer");
            assert!(longest < Duration::from_secs(1), "{longest:?}");
            // A control message overtakes the flood.
            let before = done();
            group.terminate("a").await.unwrap();
            let between = done() - before;
            assert!(between <= FAIR, "A handled {between} after its stop");
            assert!(done() < FLOOD, "the flood is not over");
        };
        tokio::task::spawn_local(watch).await.unwrap();
        runtime.shutdown().await;
    });
}
