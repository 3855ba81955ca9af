//! The cost of a message to another thread, beside what a breaker does without one: `cargo bench
//! --bench threads`.
//!
//! A message to another thread and its reply wake two threads. The figures decide where a breaker
//! lives ("The threads" in docs/architecture.md); they are those of a lone caller, who waits for
//! each answer.

#![allow(clippy::print_stdout, reason = "the table is the result")]

#[path = "../support/rounds.rs"]
mod rounds;

use std::future::Future;
use std::hint::black_box;
use std::time::Duration;

use actix::prelude::*;
use breakerbox::prelude::*;
use quanta::Instant;
use rounds::{line, median, run};

/// Runs a future on this thread with an actix system, in a spawned task: the future of `block_on`
/// itself is woken more slowly than tasks.
fn on_system<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    System::new().block_on(async move {
        tokio::task::spawn_local(work)
            .await
            .expect("the work does not panic")
    })
}

struct Echo;

impl Dependency for Echo {
    type Request = u64;
    type Response = u64;
    type Error = &'static str;

    async fn call(&self, request: u64, _: &CallContext) -> Result<u64, &'static str> {
        Ok(black_box(request))
    }
}

async fn started() -> (Runtime, Client<Echo>) {
    let runtime = Runtime::start(RuntimeSettings::default())
        .await
        .expect("a runtime");
    let never_open = |settings: &mut DependencySettings| {
        settings.breaker.failure_threshold = None;
        settings.breaker.failure_rate = None;
        settings.breaker.consecutive_failures = None;
        settings.retry.budget = None;
    };
    let built = runtime.dependency("echo").configure(never_open);
    let client = built.workers(|| Echo).start().await.expect("a dependency");
    (runtime, client)
}

/// A failure: its caller sees it once the breaker has counted it.
fn failure(n: u64) -> Duration {
    on_system(async move {
        let (runtime, client) = started().await;
        let start = Instant::now();
        for _ in 0..n {
            let failed = client.run(async || Err::<(), _>("down")).await;
            black_box(failed).expect_err("a failure");
        }
        let took = start.elapsed();
        runtime.shutdown().await;
        took
    })
}

async fn call(breaker: Addr<Breaker<Echo>>, n: u64) -> Duration {
    let start = Instant::now();
    for i in 0..n {
        let answer = breaker.send(Call::new(i)).await.expect("a breaker");
        black_box(answer).expect("an answer");
    }
    start.elapsed()
}

/// A `Call` from the thread of the breaker actor.
fn call_here(n: u64) -> Duration {
    on_system(async move {
        let (runtime, client) = started().await;
        let took = call(client.breaker(), n).await;
        runtime.shutdown().await;
        took
    })
}

/// A `Call` from another thread: what each one would cost if the breaker actor had a thread of its
/// own.
fn call_from_afar(n: u64) -> Duration {
    on_system(async move {
        let (runtime, client) = started().await;
        let took = on_another_thread(move || call(client.breaker(), n)).await;
        runtime.shutdown().await;
        took
    })
}

async fn on_another_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let other = Arbiter::new();
    let (done, finished) = tokio::sync::oneshot::channel();
    other.spawn_fn(move || {
        tokio::task::spawn_local(async move {
            let _ = done.send(work().await);
        });
    });
    let ended = finished.await.expect("the other thread");
    other.stop();
    ended
}

struct Plain;

impl Actor for Plain {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u64")]
struct Ask(u64);

impl Handler<Ask> for Plain {
    type Result = u64;

    fn handle(&mut self, Ask(value): Ask, _: &mut Context<Self>) -> u64 {
        black_box(value)
    }
}

async fn ask(actor: Addr<Plain>, n: u64) -> Duration {
    let start = Instant::now();
    for i in 0..n {
        black_box(actor.send(Ask(i)).await).expect("an answer");
    }
    start.elapsed()
}

fn actix_here(n: u64) -> Duration {
    on_system(async move { ask(Plain.start(), n).await })
}

fn actix_from_afar(n: u64) -> Duration {
    on_system(async move {
        let actor = Plain.start();
        on_another_thread(move || ask(actor, n)).await
    })
}

fn main() {
    const FAILURE: &str = "a failure, counted where it arises";
    const MESSAGE: &str = "= message to another thread, reply";
    let mut lines = vec![
        line(FAILURE, failure),
        line("Call, same thread", call_here),
        line("Call, another thread", call_from_afar),
        line("= message, same thread, reply", actix_here),
        line(MESSAGE, actix_from_afar),
    ];
    run(&mut lines);
    let of = |name| {
        let found = lines.iter().find(|line| line.name == name);
        found.map_or(f64::NAN, |line| median(line.nanos.clone()))
    };
    println!(
        "\na failure that its breaker acknowledged on another thread: {:.0} ns, {:.0} times as much",
        of(FAILURE) + of(MESSAGE),
        (of(FAILURE) + of(MESSAGE)) / of(FAILURE),
    );
}
