//! Outcomes of calls in crashes, drains and floods: one test for each prose scenario of
//! `tests/scenarios/runtime.json`, named by its id.

mod breaker;
mod crash;
mod life;
mod orders;
mod retries;
mod threads;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use breakerbox::{
    Answer, CallContext, CallError, Client, Dependency, DependencyBuilder, EventKind, Fixed,
};
use breakerbox_actors::testing::TestRuntime;
use breakerbox_policy::{BackoffSettings, DependencySettings, RetryJitter};

use crate::supervision::Log;

/// The behavior that a request asks of the worker.
#[derive(Debug, Clone)]
enum Do {
    /// Answers with this number.
    Answer(u32),
    /// Answers with this number after so many milliseconds.
    Later(u64, u32),
    /// Fails after so many milliseconds.
    FailLater(u64),
    /// Never answers.
    Hang,
    /// Panics.
    Panic,
    /// Panics; the request has this fingerprint.
    Poison(u64),
}

/// A response: the number, and the incarnation of the worker that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Served {
    number: u32,
    life: u32,
}

type Reply = Result<Answer<Served>, CallError<String>>;

/// A dependency that follows its requests.
struct Worker {
    life: u32,
    log: Log,
}

impl Dependency for Worker {
    type Request = Do;
    type Response = Served;
    type Error = String;

    async fn call(&self, request: Do, _: &CallContext) -> Result<Served, String> {
        self.log.note("called");
        let number = match request {
            Do::Answer(number) => number,
            Do::Later(millis, number) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                number
            }
            Do::FailLater(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                return Err("told to fail".into());
            }
            Do::Hang => std::future::pending().await,
            Do::Panic | Do::Poison(_) => panic!("told to panic"),
        };
        self.log.note(format!("answers {number}"));
        let life = self.life;
        Ok(Served { number, life })
    }

    fn fingerprint(request: &Do) -> Option<u64> {
        match request {
            Do::Poison(fingerprint) => Some(*fingerprint),
            _ => None,
        }
    }
}

/// A dependency named `d`, not started yet, with a backoff without jitter.
fn dependency(
    runtime: &TestRuntime,
    log: &Log,
    configure: impl FnOnce(&mut DependencySettings),
) -> DependencyBuilder<Worker> {
    let (log, lives) = (log.clone(), Arc::new(AtomicU32::new(0)));
    let configure = |settings: &mut DependencySettings| {
        settings.workers.backoff = backoff(200);
        configure(settings);
    };
    runtime
        .dependency("d")
        .configure(configure)
        .workers(move || Worker {
            life: lives.fetch_add(1, Ordering::Relaxed) + 1,
            log: log.clone(),
        })
}

fn backoff(base: u64) -> BackoffSettings {
    BackoffSettings {
        base: Duration::from_millis(base),
        factor: 2.0,
        max: Duration::from_secs(10),
        jitter: RetryJitter::None,
    }
}

fn standby() -> Fixed<Served> {
    Fixed(Served { number: 0, life: 0 })
}

fn number(reply: &Reply) -> u32 {
    reply.as_ref().expect("an answer").value.number
}

fn life(reply: &Reply) -> u32 {
    reply.as_ref().expect("an answer").value.life
}

/// Crashes the worker once, so that the next restart waits: the first restart is immediate.
async fn crash(client: &Client<Worker>) {
    let error = client.ask(Do::Panic).await.expect_err("a crash");
    assert!(matches!(error, CallError::WorkerCrashed { .. }), "{error}");
    while !client.status().workers[0].running {
        tokio::task::yield_now().await;
    }
}

/// Number of events of this kind on a subject.
fn happened(runtime: &TestRuntime, subject: &str, kind: impl Fn(&EventKind) -> bool) -> usize {
    let events = runtime.events_since(0).into_iter();
    events
        .filter(|event| &*event.subject == subject && kind(&event.kind))
        .count()
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
