//! Supervision of your own actix actors: one that crashes, a group that restarts together, and a
//! watch that reports the end of an actor.
//!
//! `cargo run --example supervise_your_own`

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints its results"
)]

use actix::prelude::*;
use breakerbox::policy::supervision::{StopCause, Strategy};
use breakerbox::prelude::*;

/// Counts the plans it has made. A crash discards the count: a supervisor never reuses the state of
/// an actor that panicked.
#[derive(Default)]
struct Planner {
    planned: u32,
}

impl Actor for Planner {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Plan(u32);

impl Handler<Plan> for Planner {
    type Result = u32;

    fn handle(&mut self, plan: Plan, _: &mut Context<Self>) -> u32 {
        assert!(plan.0 != 13, "plan 13 has a bug");
        self.planned += 1;
        self.planned
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Prints a panic as one line instead of a backtrace: the panics here are intended.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("({})", panic.to_string().replace('\n', " "));
    }));
    let runtime = Runtime::start(Settings::default()).await?;
    one_actor(&runtime).await?;
    a_group(&runtime).await?;
    a_watch(&runtime).await?;
    runtime.shutdown().await;
    Ok(())
}

/// After a panic, a new actor serves the same address.
async fn one_actor(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    let child = Child::permanent("planner", Planner::default);
    let planner = runtime.supervise(child).await?;
    let addr = planner.addr();
    assert_eq!(addr.send(Plan(1)).await?, 1);
    assert_eq!(addr.send(Plan(2)).await?, 2);
    let poison = addr.send(Plan(13)).await;
    assert!(
        poison.is_err(),
        "the message that crashed it has no answer, but an error"
    );
    assert_eq!(addr.send(Plan(3)).await?, 1, "a new actor, a new count");
    assert_eq!(planner.incarnation(), 2);
    println!(
        "planner: crashed on plan 13, same address, incarnation {}",
        planner.incarnation()
    );
    Ok(())
}

/// One-for-all: when one actor of the group crashes, both restart.
async fn a_group(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    let reader = Child::permanent("reader", Planner::default);
    let writer = Child::permanent("writer", Planner::default);
    let (reads, writes) = (reader.addr(), writer.addr());
    let group = Group::new("crew")
        .strategy(Strategy::OneForAll)
        .child(reader)
        .child(writer);
    runtime.supervise_group(group).await?;
    assert_eq!(reads.send(Plan(1)).await?, 1);
    assert_eq!(reads.send(Plan(2)).await?, 2);
    let poison = writes.send(Plan(13)).await;
    assert!(poison.is_err());
    // Events show when both have restarted.
    let mut events = runtime.events();
    let crew = |name: &str| {
        let lives = runtime.events_since(0).into_iter();
        lives
            .filter(|event| &*event.subject == name)
            .any(|event| matches!(event.kind, EventKind::Started { incarnation: 2 }))
    };
    while !(crew("crew/reader") && crew("crew/writer")) {
        events.recv().await?;
    }
    assert_eq!(
        reads.send(Plan(3)).await?,
        1,
        "the reader was restarted too"
    );
    println!("crew: the writer crashed, and the reader began anew with it");
    Ok(())
}

/// A watch resolves once, with the true cause. A temporary child is not restarted.
async fn a_watch(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    let errand = runtime
        .supervise(Child::temporary("errand", Planner::default))
        .await?;
    let watch = runtime.watch("errand");
    let poison = errand.addr().send(Plan(13)).await;
    assert!(poison.is_err());
    let end = watch.await;
    println!("{} is gone for good: {}", end.name, end.cause);
    let StopCause::Crashed(panic) = &end.cause else {
        return Err(format!("another cause: {}", end.cause).into());
    };
    assert!(panic.message.contains("plan 13 has a bug"));
    assert!(panic.location.is_some());
    Ok(())
}
