//! An actor that consumes messages: each becomes a protected call, its answer is published, and a
//! message that fails again and again becomes a dead letter.
//!
//! `cargo run --example consumer --features testing` uses a queue in the process. With `NATS_URL`,
//! such as `nats://127.0.0.1:4222`, it consumes the subject `calls.search.>` of a real server.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::io;

use actix::prelude::*;
use breakerbox::config::FleetConfig;
use breakerbox::consume::{NatsQueue, QueueSettings, json, to_json};
use breakerbox::prelude::*;
use breakerbox::testing::ScriptedQueue;
use breakerbox::{ConsumerHandle, ConsumerSettings, Done, Job, MessageSource, QueueMessage};
use serde::Deserialize;

/// A search service that cannot do with one of the questions.
struct WebSearch;

impl Dependency for WebSearch {
    type Request = String;
    type Response = Vec<String>;
    type Error = io::Error;

    async fn call(&self, query: String, _: &CallContext) -> Result<Vec<String>, io::Error> {
        match &*query {
            "poison" => Err(io::Error::other("it broke over this question")),
            query => Ok(vec![format!("a page on {query}")]),
        }
    }
}

/// A question as it stands in a message.
#[derive(Debug, Deserialize, Message)]
#[rtype(result = "Done<Vec<String>>")]
struct Search {
    query: String,
}

/// Makes the calls. It could ask several services, and answer with what it has made of them.
struct Researcher {
    search: Client<WebSearch>,
}

impl Actor for Researcher {
    type Context = Context<Self>;
}

impl Handler<Job<Search>> for Researcher {
    type Result = ResponseFuture<Done<Vec<String>>>;

    fn handle(&mut self, job: Job<Search>, _: &mut Context<Self>) -> Self::Result {
        let search = self.search.clone();
        Box::pin(async move { job.call(&search, |search| search.query).await })
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::start(Settings::default()).await?;
    let new = runtime.dependency("web_search");
    let search = new.workers(|| WebSearch).start().await?;
    let client = search.clone();
    let child = Child::permanent("researcher", move || Researcher {
        search: client.clone(),
    });
    let researcher = runtime.supervise(child).await?.addr();
    if let Ok(server) = std::env::var("NATS_URL") {
        let settings = QueueSettings::new("search", "CALLS", "calls.search.>");
        let queue = NatsQueue::connect(&FleetConfig::new(server), settings).await?;
        start(&runtime, queue, &search, &researcher).await?;
        println!("consuming calls.search.> until it is told to stop");
        tokio::signal::ctrl_c().await?;
    } else {
        let queue = ScriptedQueue::new();
        for (id, query) in [("m1", "rust"), ("m2", "poison"), ("m3", "actors")] {
            let payload = format!("{{\"query\":\"{query}\"}}").into_bytes();
            queue.push(QueueMessage::new(id, payload));
        }
        let consumer = start(&runtime, queue.clone(), &search, &researcher).await?;
        while queue.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for answer in queue.published("answers.search") {
            println!(
                "{}: {}",
                answer.id,
                String::from_utf8_lossy(&answer.payload)
            );
        }
        for letter in queue.published("dead.search") {
            println!("{}: a dead letter", letter.id);
        }
        let tally = consumer.status().tally;
        assert_eq!((tally.answered, tally.all_dead()), (2, 1));
        assert!(tally.adds_up(), "each delivery is in one column");
    }
    runtime.shutdown().await;
    Ok(())
}

/// Starts the consumer: nothing is fetched while the breaker of the service lets no call begin.
async fn start(
    runtime: &Runtime,
    queue: impl MessageSource,
    search: &Client<WebSearch>,
    researcher: &Addr<Researcher>,
) -> Result<ConsumerHandle, breakerbox::StartError> {
    runtime
        .consume("search", queue)
        .settings(ConsumerSettings::new("dead.search"))
        .decode(search, json::<Search>)
        .answers("answers.search", to_json)
        .idempotent()
        .to(researcher.clone().recipient())
        .await
}
