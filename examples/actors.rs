//! An actor that asks a dependency by a message, and another one that answers in its place.
//!
//! `cargo run --example actors`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::prelude::*;
use breakerbox::prelude::*;

/// A search service, which is down at times.
struct Search {
    down: Arc<AtomicBool>,
}

impl Dependency for Search {
    type Request = String;
    type Response = String;
    type Error = io::Error;

    async fn call(&self, query: String, _: &CallContext) -> Result<String, io::Error> {
        if self.down.load(Ordering::Acquire) {
            return Err(io::Error::other("no answer"));
        }
        Ok(format!("the web on {query}"))
    }
}

/// Answers while the service does not. It has a state, so a function would not do.
#[derive(Default)]
struct Archivist {
    asked: u32,
}

impl Actor for Archivist {
    type Context = Context<Self>;
}

impl Handler<FallbackCall<Search>> for Archivist {
    type Result = Result<String, String>;

    fn handle(&mut self, call: FallbackCall<Search>, _: &mut Context<Self>) -> Self::Result {
        self.asked += 1;
        match &*call.request {
            "actors" => Ok(format!("the archive on actors, question {}", self.asked)),
            other => Err(format!("the archive has nothing on {other}")),
        }
    }
}

/// Asks the breaker as it asks any actor: by a message, and without waiting in its own handler.
struct Agent {
    search: Addr<Breaker<Search>>,
}

impl Actor for Agent {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "Result<String, CallError<io::Error>>")]
struct Research(&'static str);

impl Handler<Research> for Agent {
    type Result = ResponseFuture<Result<String, CallError<io::Error>>>;

    fn handle(&mut self, research: Research, _: &mut Context<Self>) -> Self::Result {
        let answer = self.search.send(Call::new(research.0.to_owned()));
        Box::pin(async move {
            match answer.await {
                Ok(answer) => answer.map(|answer| format!("{} ({})", answer.value, answer.source)),
                // The mailbox is closed after a shutdown only.
                Err(_) => Ok("the runtime has ended".to_owned()),
            }
        })
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::start(Settings::default()).await?;
    let archivist = Child::permanent("archivist", Archivist::default);
    let archive = ActorFallback::new("archive", archivist.addr().recipient());
    runtime.supervise(archivist).await?;
    let down = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&down);
    let search = runtime
        .dependency("search")
        .workers(move || Search {
            down: Arc::clone(&switch),
        })
        .fallback(archive)
        .start()
        .await?;

    let breaker = search.breaker();
    let agent = Child::permanent("agent", move || Agent {
        search: breaker.clone(),
    });
    let agent = runtime.supervise(agent).await?.addr();
    println!("{}", agent.send(Research("actors")).await??);
    down.store(true, Ordering::Release);
    let answer = agent.send(Research("actors")).await??;
    println!("{answer}");
    assert_eq!(
        answer,
        "the archive on actors, question 1 (fallback:archive)"
    );
    let error = agent.send(Research("clocks")).await?;
    let error = error.expect_err("the archive has nothing on it");
    println!("{error}");
    assert_eq!(error.executed(), Executed::Maybe);

    runtime.shutdown().await;
    Ok(())
}
