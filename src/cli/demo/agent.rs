//! The agents: supervised actors that repeatedly call the three dependencies.
//!
//! They keep their own counters, which are compared with the runtime's at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use breakerbox::prelude::*;

use super::service::{LookupError, LookupResult, Question, ServiceConnection};

const TOPICS: [&str; 12] = [
    "actors",
    "breakers",
    "supervision",
    "backpressure",
    "retries",
    "timeouts",
    "bulkheads",
    "fallbacks",
    "quorums",
    "leases",
    "gossip",
    "clocks",
];

/// The agents' own counters, for one dependency.
#[derive(Debug, Default)]
pub(crate) struct CallTally {
    pub(crate) asked: AtomicU64,
    pub(crate) primary: AtomicU64,
    pub(crate) fallback: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl CallTally {
    fn note(&self, answer: &Reply) {
        let counter = match answer {
            Ok(answer) if answer.is_primary() => &self.primary,
            Ok(_) => &self.fallback,
            Err(_) => &self.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

type Reply = Result<Answer<LookupResult>, CallError<LookupError>>;

/// State shared by all agents.
#[derive(Debug, Clone)]
pub(crate) struct AgentContext {
    pub(crate) services: Arc<[(Client<ServiceConnection>, CallTally)]>,
    pub(crate) pace: Duration,
    pub(crate) at_rest: Arc<AtomicBool>,
}

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    number: u32,
    step: u32,
    desk: AgentContext,
}

impl Agent {
    pub(crate) fn new(number: u32, desk: AgentContext) -> Self {
        Self {
            number,
            step: 0,
            desk,
        }
    }

    /// Calls every dependency once, all concurrently, and schedules the next round.
    fn think(&mut self, context: &mut Context<Self>) {
        // Scheduled even while paused: the agent may have to continue later.
        context.run_later(self.desk.pace, Self::think);
        if self.desk.at_rest.load(Ordering::Acquire) {
            return;
        }
        for index in 0..self.desk.services.len() {
            let (services, question) = (Arc::clone(&self.desk.services), self.question(index));
            let by_message = self.number.is_multiple_of(2);
            let errand = async move {
                let (client, ledger) = &services[index];
                ledger.asked.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = ask(client, question, by_message).await {
                    ledger.note(&answer);
                }
            };
            context.spawn(errand.into_actor(self));
        }
        self.step = self.step.wrapping_add(1);
    }

    /// Returns mostly a repeated question, sometimes a new one. The last dependency also gets
    /// writes.
    fn question(&self, index: usize) -> Question {
        let count = TOPICS.len();
        let at = self.number as usize * 5 + self.step as usize;
        let topic = TOPICS[at % count];
        let new = self.step % 9 == 8;
        Question {
            topic: if new {
                format!("{topic}-{}-{}", self.number, self.step)
            } else {
                topic.to_owned()
            },
            write: index == 2 && self.step % 10 == 5,
        }
    }
}

/// Calls a dependency. Half of the agents send a message to the breaker actor, the others use the
/// client: both make the same call. Returns `None` if the breaker actor is gone.
async fn ask(
    client: &Client<ServiceConnection>,
    question: Question,
    by_message: bool,
) -> Option<Reply> {
    if by_message {
        client.breaker().send(Call::new(question)).await.ok()
    } else {
        Some(client.ask(question).await)
    }
}

impl Actor for Agent {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Staggers the agents.
        context.run_later(self.desk.pace / 4 * self.number, Self::think);
    }
}
