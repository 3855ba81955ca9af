//! The fifty callers: supervised actors that call one service after the other, and count their
//! results. They contain no failure handling.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use breakerbox::agents::{AgentError, GraphError, KnowledgeGraph, VectorSearch, WebSearch};
use breakerbox::policy::Time;
use breakerbox::prelude::*;
use futures_util::FutureExt as _;

use super::NOTES;

pub(crate) const CALLERS: u32 = 50;
/// Pause of a caller between two calls.
const PACE: Duration = Duration::from_millis(150);
/// Time limit of a call: the total timeout of the settings, and that of a fallback after it.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// The clients of the services.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) vector: VectorSearch,
    pub(super) web: WebSearch,
    pub(super) graph: KnowledgeGraph,
}

/// Tasks of the callers, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Vector,
    Web,
    Read,
    Write,
}

impl Task {
    pub(super) const ALL: [Self; 4] = [Self::Vector, Self::Web, Self::Read, Self::Write];
}

impl fmt::Display for Task {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Vector => "vector search",
            Self::Web => "web search",
            Self::Read => "graph reads",
            Self::Write => "graph writes",
        })
    }
}

/// Results of one kind of task, counted by the callers.
#[derive(Debug, Default)]
pub(super) struct TaskTally {
    pub(super) asked: AtomicU64,
    pub(super) primary: AtomicU64,
    pub(super) fallback: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) panics: AtomicU64,
    /// Start of the latest call that the service itself answered, in nanoseconds.
    answered: AtomicU64,
}

/// Outcome of a call.
enum CallOutcome {
    Primary,
    Fallback,
    Error,
}

impl TaskTally {
    /// Returns true if the service itself answered a call that started at `then` or later.
    pub(super) fn answered_since(&self, then: Time) -> bool {
        self.answered.load(Ordering::Acquire) >= then.as_nanos()
    }

    pub(super) fn ended(&self) -> u64 {
        let all = [&self.primary, &self.fallback, &self.errors, &self.panics];
        all.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }

    fn note(&self, outcome: Option<CallOutcome>, began: Time, took: Duration) {
        let count = match outcome {
            Some(CallOutcome::Primary) => {
                self.answered.fetch_max(began.as_nanos(), Ordering::AcqRel);
                &self.primary
            }
            Some(CallOutcome::Fallback) => &self.fallback,
            Some(CallOutcome::Error) => &self.errors,
            None => &self.panics,
        };
        count.fetch_add(1, Ordering::AcqRel);
        if took > DEADLINE {
            self.late.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// State shared by all callers.
#[derive(Clone)]
pub(super) struct Crew {
    pub(super) services: Services,
    pub(super) ledgers: Arc<[TaskTally; 4]>,
    pub(super) at_rest: Arc<AtomicBool>,
}

impl Crew {
    pub(super) fn new(services: Services) -> Self {
        Self {
            services,
            ledgers: Arc::default(),
            at_rest: Arc::default(),
        }
    }

    pub(super) fn ledger(&self, task: Task) -> &TaskTally {
        &self.ledgers[task as usize]
    }

    /// Starts the callers.
    pub(super) async fn begin(&self, runtime: &Runtime) -> Result<(), breakerbox::StartError> {
        let clock = runtime.clock().clone();
        for number in 1..=CALLERS {
            let (crew, clock) = (self.clone(), clock.clone());
            let caller = Child::permanent(format!("caller-{number}"), move || Caller {
                number,
                step: number,
                crew: crew.clone(),
                clock: clock.clone(),
            });
            runtime.supervise(caller).await?;
        }
        Ok(())
    }

    async fn ask(&self, task: Task, number: u32, step: u32) -> CallOutcome {
        let (topic, text) = NOTES[step as usize % NOTES.len()];
        let Services { vector, web, graph } = &self.services;
        match task {
            Task::Vector => outcome(vector.search(text, 3).await),
            Task::Web => outcome(web.search(topic, 3).await),
            Task::Read => outcome(graph.search_nodes(topic).await),
            Task::Write => {
                let note = format!("noted by caller {number} in step {step}");
                outcome(graph.add_observations(topic, &[note]).await)
            }
        }
    }
}

/// Errors of both kinds of clients.
trait Ended: fmt::Display {}

impl Ended for AgentError {}

impl Ended for GraphError {}

fn outcome<T>(end: Result<Answer<T>, impl Ended>) -> CallOutcome {
    match end {
        Ok(answer) if answer.is_primary() => CallOutcome::Primary,
        Ok(_) => CallOutcome::Fallback,
        Err(error) => {
            tracing::debug!("a caller got an error: {error}");
            CallOutcome::Error
        }
    }
}

struct Caller {
    number: u32,
    step: u32,
    crew: Crew,
    clock: breakerbox::Clock,
}

impl Caller {
    /// Makes one call, and schedules the next one.
    fn work(&mut self, context: &mut Context<Self>) {
        if self.crew.at_rest.load(Ordering::Acquire) {
            return;
        }
        self.step = self.step.wrapping_add(1);
        let (number, step) = (self.number, self.step);
        let task = match step % 9 {
            0 | 3 | 6 => Task::Vector,
            1 | 4 | 7 => Task::Web,
            8 => Task::Write,
            _ => Task::Read,
        };
        let (crew, clock) = (self.crew.clone(), self.clock.clone());
        let call = async move {
            let ledger = crew.ledger(task);
            ledger.asked.fetch_add(1, Ordering::AcqRel);
            let began = clock.now();
            let asked = AssertUnwindSafe(crew.ask(task, number, step)).catch_unwind();
            let outcome = asked.await.ok();
            ledger.note(outcome, began, clock.now().since(began));
        };
        let next = call
            .into_actor(self)
            .map(|(), _, context: &mut Context<Self>| {
                context.run_later(PACE, Self::work);
            });
        context.spawn(next);
    }
}

impl Actor for Caller {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Staggers the callers.
        context.run_later(PACE / CALLERS * self.number, Self::work);
    }
}
