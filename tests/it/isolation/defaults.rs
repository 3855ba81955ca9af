//! CALL-9 as a whole: a dependency, a fallback, a listener and an actor that block their threads, at
//! once, under the default settings.

#![allow(clippy::print_stderr, reason = "the measured figures")]

use std::future::Future;
use std::time::Duration;

use breakerbox_actors::{
    Answer, Call, CallContext, CallError, CallOptions, Child, Client, Dependency, Runtime,
    RuntimeSettings, Verdict,
};
use breakerbox_policy::{BreakerCommand, Class};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::blocked_threads::tokio;
use crate::scripted::ms;

/// Time for which each of them blocks its thread.
const BLOCK: Duration = Duration::from_secs(3);

/// The deadline of every other caller.
const LIMIT: Duration = Duration::from_millis(200);

/// Time beyond its deadline that a caller may have to wait on a busy machine. It is 13 ms on an idle
/// one, and nearly three seconds if a call waits for a blocked thread.
const SLACK: Duration = Duration::from_millis(1500);

/// Tells the test that a thread is blocked, and blocks it.
fn block(begun: &UnboundedSender<&'static str>, what: &'static str) {
    begun.send(what).unwrap();
    std::thread::sleep(BLOCK);
}

#[derive(Clone)]
struct Sick(UnboundedSender<&'static str>);

impl Dependency for Sick {
    type Request = bool;
    type Response = u32;
    type Error = String;

    async fn call(&self, fails: bool, _: &CallContext) -> Result<u32, String> {
        if fails {
            return Err("it is down".to_owned());
        }
        block(&self.0, "the dependency");
        Ok(1)
    }
}

#[derive(Clone)]
struct Well;

impl Dependency for Well {
    type Request = ();
    type Response = ();
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
        Ok(())
    }
}

struct Blocker(UnboundedSender<&'static str>);

impl actix::Actor for Blocker {
    type Context = actix::Context<Self>;
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Block;

impl actix::Handler<Block> for Blocker {
    type Result = ();

    fn handle(&mut self, _: Block, _: &mut actix::Context<Self>) {
        block(&self.0, "the actor");
    }
}

fn hasty() -> CallOptions {
    CallOptions {
        timeout: Some(LIMIT),
        ..CallOptions::default()
    }
}

/// Returns the time by which a call has missed its deadline.
async fn lateness<T>(call: impl Future<Output = T>) -> Duration {
    let began = tokio::time::Instant::now();
    call.await;
    began.elapsed().saturating_sub(LIMIT)
}

fn judge(result: &Result<(), String>) -> Verdict {
    let class = if result.is_ok() {
        Class::Success
    } else {
        Class::Failure
    };
    Verdict::from(class)
}

/// Makes every kind of call, each on its own, and returns the greatest lateness.
async fn greatest_lateness(sick: &Client<Sick>, well: &Client<Well>) -> Duration {
    let all = [
        lateness(well.ask_with((), hasty())).await,
        lateness(sick.ask_with(false, hasty())).await,
        lateness(sick.ask_with(true, hasty())).await,
        lateness(well.breaker().send(Call::with((), hasty()))).await,
        lateness(sick.breaker().send(Call::with(true, hasty()))).await,
        lateness(well.run_with(hasty(), judge, async || Ok::<_, String>(()))).await,
        lateness(well.run_with(hasty(), judge, async || {
            std::future::pending::<Result<(), String>>().await
        }))
        .await,
    ];
    all.into_iter().max().unwrap()
}

/// A command of an operator, which is an event too.
async fn force_open<D: Dependency>(client: &Client<D>) {
    let open = BreakerCommand::Open {
        reason: "a test".to_owned(),
        until: None,
    };
    client.operate(open).await.unwrap();
}

async fn wait_for(blocked: &mut UnboundedReceiver<&'static str>, what: &str) {
    while blocked.recv().await != Some(what) {}
}

#[test]
fn call_9_by_default_what_blocks_its_thread_delays_no_other_call_and_no_shutdown() {
    tokio(async {
        let (begun, mut blocked) = unbounded_channel();
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let (made, held) = (Sick(begun.clone()), begun.clone());
        let sick = runtime
            .dependency("sick")
            .workers(move || made.clone())
            .fallback(move |_: bool, _: &CallError<String>| {
                let held = held.clone();
                async move {
                    block(&held, "the fallback");
                    Ok::<u32, String>(7)
                }
            });
        let sick = sick.start().await.unwrap();
        let well = runtime.dependency("well").workers(|| Well).start();
        let well = well.await.unwrap();
        let held = begun.clone();
        let actor = Child::permanent("blocker", move || Blocker(held.clone()));
        let actor = runtime.supervise(actor).await.unwrap();
        let mut to_block: Vec<tokio::task::JoinHandle<()>> = Vec::new();
        let held = begun.clone();
        runtime.on_event(move |_| block(&held, "the listener"));
        let other = runtime.dependency("other").start().await.unwrap();
        force_open(&other).await;
        wait_for(&mut blocked, "the listener").await;
        for fails in [true, false] {
            let caller = sick.clone();
            let call = async move { drop::<Result<Answer<u32>, _>>(caller.ask(fails).await) };
            to_block.push(tokio::spawn(call));
            // One after the other: they share a thread up to the fallback.
            let what = ["the dependency", "the fallback"][usize::from(fails)];
            wait_for(&mut blocked, what).await;
        }
        to_block.push(tokio::spawn(async move {
            let _ = actor.addr().send(Block).await;
        }));
        let late = greatest_lateness(&sick, &well).await;
        eprintln!("the latest call ended {late:?} after its deadline");
        assert!(late < SLACK, "{late:?}");
        let began = tokio::time::Instant::now();
        force_open(&well).await;
        assert_eq!(well.state(), "forced_open");
        assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
        let drain = sick.settings().workers.drain;
        let began = tokio::time::Instant::now();
        runtime.shutdown().await;
        let took = began.elapsed();
        eprintln!("the shutdown took {took:?}, with a drain of {drain:?}");
        assert!(took < drain + ms(500) + SLACK, "{took:?}");
        for caller in to_block {
            caller.await.unwrap();
        }
    });
}
