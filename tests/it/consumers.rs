//! Consumers: messages of a queue as protected calls (rules MSG-1 to MSG-11).

#[cfg(all(feature = "cli", feature = "fleet"))]
mod broker_killed;
#[cfg(all(feature = "cli", feature = "fleet", unix))]
mod bullmq;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod figures;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod nats;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod ordered_nats;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod provisioned;
#[cfg(all(feature = "cli", feature = "fleet", unix))]
mod redis;
#[cfg(all(feature = "cli", feature = "fleet", unix))]
mod redis_server;
#[cfg(all(feature = "cli", feature = "fleet", unix))]
mod reloads;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod sidecar;

mod fates;
mod order;
mod outage;
mod restarts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use breakerbox_actors::testing::{
    Reaction, Script, Scripted, ScriptedError, ScriptedQueue, TestRuntime, run_paused,
};
use breakerbox_actors::{
    Client, ConsumerHandle, ConsumerSettings, Done, EventKind, Job, LimitedJobs, MessageSource,
    QueueMessage, RuntimeSettings,
};
use breakerbox_policy::{
    BreakerSettings, Class, DeadReason, DependencySettings, MessageNotes, NotedWork, ReturnReason,
    WindowKind,
};

use crate::scripted::{ms, nonzero};

/// A job of the tests: its text says what the dependency does with it.
#[derive(Debug, Message)]
#[rtype(result = "Done<String>")]
struct Ask(String);

type Dep = Scripted<String, String>;

/// An actor that makes the call of each job.
struct Caller(Client<Dep>);

impl Actor for Caller {
    type Context = Context<Self>;
}

impl Handler<Job<Ask>> for Caller {
    type Result = ResponseFuture<Done<String>>;

    fn handle(&mut self, job: Job<Ask>, _: &mut Self::Context) -> Self::Result {
        let client = self.0.clone();
        Box::pin(async move { job.call(&client, |ask| ask.0).await })
    }
}

/// A runtime with a dependency, a queue, and a way to break the dependency.
struct Bed {
    runtime: TestRuntime,
    client: Client<Dep>,
    script: Script<String, String>,
    queue: ScriptedQueue,
    is_down: Arc<AtomicBool>,
}

/// Settings with a breaker that opens at the third failure in a row, for a second.
fn settings() -> DependencySettings {
    let mut settings = DependencySettings {
        breaker: BreakerSettings {
            window: WindowKind::Consecutive,
            failure_threshold: Some(nonzero(3)),
            ..BreakerSettings::default()
        },
        ..DependencySettings::default()
    };
    settings.breaker.open.base = Duration::from_secs(1);
    settings.breaker.open.max = Duration::from_secs(1);
    settings.breaker.open.jitter = 0.0;
    settings.retry.max_attempts = nonzero(1);
    settings
}

impl Bed {
    async fn new() -> Self {
        Self::with(settings(), ScriptedQueue::new()).await
    }

    async fn with(settings: DependencySettings, queue: ScriptedQueue) -> Self {
        let runtime = TestRuntime::with(RuntimeSettings::default()).await;
        let is_down = Arc::new(AtomicBool::new(false));
        let down = Arc::clone(&is_down);
        let script = Script::new(move |text: String, _| {
            let now = || match text.as_str() {
                _ if down.load(Ordering::SeqCst) => Reaction::Fail(ScriptedError::failure("down")),
                "poison" => Reaction::Fail(ScriptedError::failure("poison")),
                "rejected" => Reaction::Fail(ScriptedError::new(Class::Rejected, "no such thing")),
                "hang" => Reaction::Hang,
                "panic" => Reaction::Panic("told to"),
                _ => Reaction::Answer(format!("{text} done")),
            };
            now().after(ms(20))
        });
        let worker = script.clone();
        let client = runtime
            .dependency("dep")
            .settings(settings)
            .workers(move || worker.dependency())
            .start()
            .await
            .unwrap();
        Self {
            runtime,
            client,
            script,
            queue,
            is_down,
        }
    }

    /// Describes a consumer of the bed's queue.
    fn jobs(&self, settings: ConsumerSettings) -> LimitedJobs<Ask, String> {
        self.jobs_of(self.queue.clone(), settings)
    }

    fn jobs_of(
        &self,
        source: impl MessageSource,
        settings: ConsumerSettings,
    ) -> LimitedJobs<Ask, String> {
        let decode = |payload: &[u8]| {
            let text = String::from_utf8(payload.to_vec());
            text.map(Ask).map_err(|error| error.to_string())
        };
        let consumer = self.runtime.consume("jobs", source).settings(settings);
        consumer
            .decode(&self.client, decode)
            .answers("answers.jobs", |answer: &String| {
                answer.clone().into_bytes()
            })
    }

    async fn start(&self, jobs: LimitedJobs<Ask, String>) -> ConsumerHandle {
        let caller = Caller(self.client.clone()).start();
        jobs.to(caller.recipient()).await.unwrap()
    }

    fn push(&self, id: &str, text: &str) {
        let message = QueueMessage::new(id, text.as_bytes());
        self.queue.push(message);
    }

    /// Waits until the condition holds, in virtual time.
    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..720_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(ms(5)).await;
        }
        panic!("it did not come to this within an hour: {what}");
    }
}

fn consumer() -> ConsumerSettings {
    let mut settings = ConsumerSettings::new("dead.jobs");
    settings.max_in_flight = Some(nonzero(4));
    settings
}
