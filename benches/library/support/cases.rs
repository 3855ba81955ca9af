//! The measured paths and their yardsticks. Each case runs `n` operations and returns their
//! duration; its setup is not timed.

use std::future::Future;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;
use breakerbox::policy::{
    AdaptiveSettings, BreakerSettings, ChaosSettings, Class, DependencySettings, HedgeDelay,
    HedgeSettings, Outcome, RateLimitSettings, Time, WindowKind,
};
use breakerbox::prelude::*;
use breakerbox_policy::Breaker;
use quanta::Instant;

/// Runs a future on this thread with an actix system, in a spawned task: the future of `block_on`
/// itself is woken more slowly than tasks.
pub(crate) fn on_system<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a current-thread runtime")
    };
    System::with_tokio_rt(runtime).block_on(async move {
        tokio::task::spawn_local(work)
            .await
            .expect("the work does not panic")
    })
}

/// Makes [`Echo`] panic.
const PANIC: u64 = u64::MAX;
/// Makes [`Echo`] answer in the next turn only.
const PENDS: u64 = u64::MAX - 1;

/// A dependency that answers at once, or after a turn, or panics on request.
struct Echo;

impl Dependency for Echo {
    type Request = u64;
    type Response = u64;
    type Error = &'static str;

    async fn call(&self, request: u64, _: &CallContext) -> Result<u64, &'static str> {
        match request {
            PANIC => panic!("asked to"),
            PENDS => tokio::task::yield_now().await,
            _ => {}
        }
        Ok(black_box(request))
    }
}

/// The layers of a case.
#[derive(Clone, Copy)]
pub(crate) enum Layers {
    /// The breaker with a count window; no timeouts.
    BreakerOnly,
    /// The default layers: timeouts, retry budget, slow calls, bulkhead, totals and histogram.
    Usual,
    /// The default layers and a rate limit: all layers of a call in their order.
    All,
    /// The breaker and this layer.
    With(Layer),
    /// Every layer, including those that are off by default.
    Everything,
}

/// One layer around the breaker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Timeouts,
    SlowCalls,
    Retries,
    Hedging,
    RateLimit,
    Writes,
    Adaptive,
    Chaos,
}

fn settings(layers: Layers) -> DependencySettings {
    let mut settings = DependencySettings {
        breaker: BreakerSettings {
            window: WindowKind::Count {
                size: 100.try_into().expect("not zero"),
            },
            failure_rate: breakerbox::policy::Rate::new(0.5).ok(),
            ..BreakerSettings::default()
        },
        ..DependencySettings::default()
    };
    settings.bulkhead.max_concurrent = 4096.try_into().expect("not zero");
    settings.timeout.attempt = None;
    settings.timeout.total = None;
    match layers {
        Layers::BreakerOnly => {}
        Layers::Usual => {
            for layer in [Layer::Timeouts, Layer::SlowCalls, Layer::Retries] {
                put_on(&mut settings, layer);
            }
        }
        Layers::All => {
            for layer in [
                Layer::Timeouts,
                Layer::SlowCalls,
                Layer::Retries,
                Layer::RateLimit,
            ] {
                put_on(&mut settings, layer);
            }
        }
        Layers::With(layer) => put_on(&mut settings, layer),
        Layers::Everything => {
            for layer in [
                Layer::Timeouts,
                Layer::SlowCalls,
                Layer::Retries,
                Layer::Hedging,
                Layer::RateLimit,
                Layer::Writes,
                Layer::Adaptive,
                Layer::Chaos,
            ] {
                put_on(&mut settings, layer);
            }
        }
    }
    settings
}

fn put_on(settings: &mut DependencySettings, layer: Layer) {
    let usual = DependencySettings::default();
    match layer {
        Layer::Timeouts => settings.timeout = usual.timeout,
        Layer::SlowCalls => {
            settings.breaker.slow_call = Some(Duration::from_secs(2));
            settings.breaker.slow_rate = breakerbox::policy::Rate::new(0.8).ok();
        }
        Layer::Retries => settings.retry.max_attempts = 3.try_into().expect("not zero"),
        Layer::Hedging => {
            settings.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Fixed(Duration::from_secs(1)),
                max_hedges: 1.try_into().expect("not zero"),
            });
        }
        Layer::RateLimit => {
            settings.rate_limit = Some(RateLimitSettings {
                rate: 1e9,
                per: Duration::from_secs(1),
                burst: u32::MAX.try_into().expect("not zero"),
                max_wait: Duration::ZERO,
            });
        }
        Layer::Writes => {
            settings.bulkhead.max_concurrent_writes = Some(1.try_into().expect("not zero"));
        }
        Layer::Adaptive => settings.bulkhead.adaptive = Some(AdaptiveSettings::default()),
        Layer::Chaos => settings.chaos = Some(ChaosSettings::default()),
    }
}

/// A runtime with a worker on this thread, and one on another thread if given.
async fn started(layers: Layers, other: Option<&Arbiter>) -> (Runtime, Client<Echo>) {
    let mut settings = settings(layers);
    let count = if other.is_some() { 2 } else { 1 };
    settings.workers.count = count.try_into().expect("not zero");
    let runtime = Runtime::start(RuntimeSettings {
        arbiters: other.iter().map(|arbiter| arbiter.handle()).collect(),
        ..RuntimeSettings::default()
    })
    .await
    .expect("a runtime");
    let client = runtime
        .dependency("echo")
        .settings(settings)
        .workers(|| Echo)
        .start()
        .await
        .expect("a dependency");
    (runtime, client)
}

/// The policy kernel alone: admit and record.
pub(crate) fn kernel(n: u64) -> Duration {
    let mut breaker = Breaker::new(settings(Layers::All).breaker, Time::ZERO);
    let outcome = Outcome::new(Class::Success, Duration::from_micros(5));
    let start = Instant::now();
    for i in 0..n {
        let now = Time::from_nanos(i * 1_000);
        if let Ok(permit) = breaker.admit(black_box(now)) {
            black_box(breaker.record(now, permit, &outcome, &mut || 0.0));
        }
    }
    start.elapsed()
}

#[protected("echo")]
async fn echo(request: u64) -> Result<u64, &'static str> {
    Ok(black_box(request))
}

/// As [`run_closed`], with the attribute and the installed runtime.
pub(crate) fn run_protected(layers: Layers, n: u64) -> Duration {
    on_system(async move {
        let (runtime, _client) = started(layers, None).await;
        runtime.install().await.expect("the only one");
        let start = Instant::now();
        for i in 0..n {
            black_box(echo(i).await).expect("an answer");
        }
        let took = start.elapsed();
        runtime.shutdown().await;
        took
    })
}

/// `run` through a closed breaker.
pub(crate) fn run_closed(layers: Layers, n: u64) -> Duration {
    on_system(async move {
        let (runtime, client) = started(layers, None).await;
        let start = Instant::now();
        for i in 0..n {
            let answer = client
                .run(|| async move { Ok::<_, &str>(black_box(i)) })
                .await;
            black_box(answer).expect("an answer");
        }
        let took = start.elapsed();
        runtime.shutdown().await;
        took
    })
}

/// `run_with` through a closed breaker, with options of the call.
pub(crate) fn run_with(layers: Layers, options: &CallOptions, n: u64) -> Duration {
    let options = options.clone();
    on_system(async move {
        let (runtime, client) = started(layers, None).await;
        let verdict = |_: &Result<u64, &str>| Class::Success.into();
        let start = Instant::now();
        for i in 0..n {
            let work = || async move { Ok(black_box(i)) };
            let answer = client.run_with(options.clone(), verdict, work).await;
            black_box(answer).expect("an answer");
        }
        let took = start.elapsed();
        runtime.shutdown().await;
        took
    })
}

/// A refusal by an open breaker, at the handle.
pub(crate) fn refusal(n: u64) -> Duration {
    on_system(async move {
        let (runtime, client) = started(Layers::All, None).await;
        let reason = "measured".to_owned();
        let until = None;
        client
            .operate(BreakerCommand::Open { reason, until })
            .await
            .expect("forced open");
        let start = Instant::now();
        for i in 0..n {
            let refused = client.run(|| async move { Ok::<_, &str>(i) }).await;
            // Inspected in place: moving the result is a cost of the caller.
            assert!(black_box(&refused).is_err(), "a refusal");
        }
        let took = start.elapsed();
        runtime.shutdown().await;
        took
    })
}

/// `callers` tasks on one thread that make `n` calls in all.
pub(crate) fn ask(layers: Layers, callers: u64, n: u64) -> Duration {
    ask_for(None, layers, callers, n)
}

/// The same, with all calls in flight at once.
pub(crate) fn ask_pending(callers: u64, n: u64) -> Duration {
    ask_for(Some(PENDS), Layers::All, callers, n)
}

fn ask_for(request: Option<u64>, layers: Layers, callers: u64, n: u64) -> Duration {
    on_system(async move {
        let (runtime, client) = started(layers, None).await;
        let each = n.div_ceil(callers);
        let start = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let client = client.clone();
                tokio::task::spawn_local(async move {
                    for i in 0..each {
                        let asked = client.ask(request.unwrap_or(i)).await;
                        black_box(asked).expect("an answer");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a caller");
        }
        let took = start.elapsed();
        runtime.shutdown().await;
        took.mul_f64(n as f64 / (each * callers) as f64)
    })
}

/// A `Call` sent to the breaker actor.
pub(crate) fn call_message(n: u64) -> Duration {
    on_system(async move {
        let (runtime, client) = started(Layers::All, None).await;
        let breaker = client.breaker();
        let start = Instant::now();
        for i in 0..n {
            let answer = breaker.send(Call::new(i)).await.expect("a breaker");
            black_box(answer).expect("an answer");
        }
        let took = start.elapsed();
        runtime.shutdown().await;
        took
    })
}

/// Callers on two threads, each with a worker, under one breaker: `n` calls in all.
pub(crate) fn ask_on_two_threads(callers: u64, n: u64) -> Duration {
    on_system(async move {
        let other = Arbiter::new();
        // Without a rate limit, which by its nature is one counter for all threads.
        let (runtime, client) = started(Layers::Usual, Some(&other)).await;
        let each = n.div_ceil(callers * 2);
        let work = move |client: Client<Echo>| async move {
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let client = client.clone();
                    tokio::task::spawn_local(async move {
                        for i in 0..each {
                            black_box(client.ask(i).await).expect("an answer");
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("a caller");
            }
        };
        let (done, finished) = tokio::sync::oneshot::channel();
        let there = client.clone();
        let start = Instant::now();
        other.spawn_fn(move || {
            tokio::task::spawn_local(async move {
                work(there).await;
                let _ = done.send(());
            });
        });
        work(client).await;
        finished.await.expect("the other thread");
        let took = start.elapsed();
        runtime.shutdown().await;
        other.stop();
        took
    })
}

/// The time from a panic to the first answer of the next incarnation, `n` times.
pub(crate) fn crash_to_running(n: u64) -> Duration {
    std::panic::set_hook(Box::new(|_| {}));
    let took = on_system(async move {
        let runtime = Runtime::start(RuntimeSettings::default())
            .await
            .expect("a runtime");
        let mut settings = settings(Layers::BreakerOnly);
        settings.breaker.failure_rate = None;
        settings.breaker.failure_threshold = None;
        settings.workers.intensity.max = u32::MAX;
        settings.workers.reset_after = Duration::ZERO;
        settings.workers.quarantine = None;
        let client = runtime
            .dependency("echo")
            .settings(settings)
            .workers(|| Echo)
            .start()
            .await
            .expect("a dependency");
        let mut took = Duration::ZERO;
        for i in 0..n {
            let start = Instant::now();
            black_box(client.ask(PANIC).await).expect_err("a crash");
            black_box(client.ask(i).await).expect("an answer");
            took += start.elapsed();
        }
        runtime.shutdown().await;
        took
    });
    let _ = std::panic::take_hook();
    took
}

// Yardsticks.

struct Plain;

#[derive(Message)]
#[rtype(u64)]
struct Ask(u64);

impl Actor for Plain {
    type Context = Context<Self>;
}

impl Handler<Ask> for Plain {
    type Result = u64;

    fn handle(&mut self, Ask(value): Ask, _: &mut Context<Self>) -> u64 {
        black_box(value)
    }
}

/// A bare actix request.
pub(crate) fn actix_ask(n: u64) -> Duration {
    on_system(async move {
        let actor = Plain.start();
        let start = Instant::now();
        for i in 0..n {
            black_box(actor.send(Ask(i)).await).expect("an answer");
        }
        start.elapsed()
    })
}

struct Relay(Rc<Addr<Plain>>);

impl Actor for Relay {
    type Context = Context<Self>;
}

impl Handler<Ask> for Relay {
    type Result = ResponseFuture<u64>;

    fn handle(&mut self, ask: Ask, _: &mut Context<Self>) -> Self::Result {
        let next = Rc::clone(&self.0);
        Box::pin(async move { next.send(ask).await.expect("an answer") })
    }
}

/// Two bare actix requests in a row.
pub(crate) fn two_actix_asks(n: u64) -> Duration {
    on_system(async move {
        let relay = Relay(Rc::new(Plain.start())).start();
        let start = Instant::now();
        for i in 0..n {
            black_box(relay.send(Ask(i)).await).expect("an answer");
        }
        start.elapsed()
    })
}

#[derive(Message)]
#[rtype(result = "()")]
struct Tell(u64, tokio::sync::oneshot::Sender<u64>);

impl Handler<Tell> for Plain {
    type Result = ();

    fn handle(&mut self, Tell(value, reply): Tell, _: &mut Context<Self>) {
        let _ = reply.send(black_box(value));
    }
}

impl Handler<Tell> for Relay {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "the yardstick is a bare do_send")]
    fn handle(&mut self, tell: Tell, _: &mut Context<Self>) {
        self.0.do_send(tell);
    }
}

/// Two forwarded `do_send` hops with a oneshot reply.
#[expect(clippy::disallowed_methods, reason = "the yardstick is a bare do_send")]
pub(crate) fn two_forwarded_hops(n: u64) -> Duration {
    on_system(async move {
        let relay = Relay(Rc::new(Plain.start())).start();
        let start = Instant::now();
        for i in 0..n {
            let (reply, answer) = tokio::sync::oneshot::channel();
            relay.do_send(Tell(i, reply));
            black_box(answer.await).expect("an answer");
        }
        start.elapsed()
    })
}

/// `callers` tasks that call an actor built from a tokio mpsc and a oneshot.
pub(crate) fn mpsc_oneshot(callers: u64, n: u64) -> Duration {
    on_system(async move {
        type Mail = (u64, tokio::sync::oneshot::Sender<u64>);
        let (mail, mut inbox) = tokio::sync::mpsc::channel::<Mail>(4096);
        tokio::task::spawn_local(async move {
            while let Some((value, reply)) = inbox.recv().await {
                let _ = reply.send(black_box(value));
            }
        });
        let each = n.div_ceil(callers);
        let start = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let mail = mail.clone();
                tokio::task::spawn_local(async move {
                    for i in 0..each {
                        let (reply, answer) = tokio::sync::oneshot::channel();
                        mail.send((i, reply)).await.expect("an actor");
                        black_box(answer.await).expect("an answer");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a caller");
        }
        start.elapsed().mul_f64(n as f64 / (each * callers) as f64)
    })
}

/// Resident memory per idle item, in bytes, with `count` items: supervised actors, and dependencies
/// with two workers.
pub(crate) fn memory(count: u32) -> (u64, u64) {
    on_system(async move {
        let runtime = Runtime::start(RuntimeSettings::default())
            .await
            .expect("a runtime");
        let before = resident();
        for number in 0..count {
            let child = Child::permanent(format!("actor-{number}"), || Plain);
            runtime.supervise(child).await.expect("an actor");
        }
        let actors = resident();
        for number in 0..count {
            runtime
                .dependency(format!("dependency-{number}"))
                .configure(|settings| {
                    settings.workers.count = 2.try_into().expect("not zero");
                })
                .workers(|| Echo)
                .start()
                .await
                .expect("a dependency");
        }
        let dependencies = resident();
        runtime.shutdown().await;
        let each = |bytes: u64| bytes / u64::from(count);
        (each(actors - before), each(dependencies - actors))
    })
}

/// The resident memory of the process, in bytes; 0 without /proc.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1);
    pages.and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4096
}
