//! The agents: supervised actors that ask the three dependencies again and again.
//!
//! They keep books of their own, against which the runtime's are checked at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use breakerbox::prelude::*;

use super::service::{Found, Question, Service, ServiceError};

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

/// What the agents did, by their own count; one for each dependency.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) asked: AtomicU64,
    pub(crate) primary: AtomicU64,
    pub(crate) fallback: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl Ledger {
    fn note(&self, answer: &Reply) {
        let counter = match answer {
            Ok(answer) if answer.is_primary() => &self.primary,
            Ok(_) => &self.fallback,
            Err(_) => &self.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

type Reply = Result<Answer<Found>, CallError<ServiceError>>;

/// What all agents work with.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) services: Arc<[(Client<Service>, Ledger)]>,
    pub(crate) pace: Duration,
    pub(crate) at_rest: Arc<AtomicBool>,
}

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    number: u32,
    step: u32,
    desk: Desk,
}

impl Agent {
    pub(crate) fn new(number: u32, desk: Desk) -> Self {
        Self {
            number,
            step: 0,
            desk,
        }
    }

    /// Asks every dependency one thing, all at once, and comes back a little later.
    fn think(&mut self, context: &mut Context<Self>) {
        // It may be called back to work.
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

    /// Mostly what was asked before, now and then something new; the last dependency is written
    /// to as well.
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

/// Half of the agents send the breaker actor a message, the others use the handle: it is the same
/// call. `None` when there is no breaker actor any more.
async fn ask(client: &Client<Service>, question: Question, by_message: bool) -> Option<Reply> {
    if by_message {
        client.breaker().send(Call::new(question)).await.ok()
    } else {
        Some(client.ask(question).await)
    }
}

impl Actor for Agent {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Not all in the same moment.
        context.run_later(self.desk.pace / 4 * self.number, Self::think);
    }
}
