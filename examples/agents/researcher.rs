//! One agent: an actor that researches a topic in stored memories and on the web, and saves the
//! result to a knowledge graph.
//!
//! It does not handle outages: it makes its calls, and reports the source of each answer.

use std::fmt;

use actix::prelude::*;
use breakerbox::Answer;
use breakerbox::agents::Entity;

use crate::services::Services;

/// A task for an agent: research this topic.
#[derive(Message)]
#[rtype(result = "Report")]
pub(crate) struct Research {
    pub(crate) topic: String,
}

/// The result of a task, step by step.
pub(crate) struct Report {
    topic: String,
    pub(crate) memories: Step,
    pub(crate) pages: Step,
    pub(crate) kept: Step,
}

/// One step: the source of the answer and its number of items, or the error.
pub(crate) struct Step(Result<(String, usize), String>);

impl Step {
    fn of<T, E: fmt::Display>(end: Result<Answer<T>, E>, count: impl Fn(&T) -> usize) -> Self {
        Self(match end {
            Ok(answer) => Ok((answer.source.to_string(), count(&answer.value))),
            Err(error) => Err(error.to_string()),
        })
    }

    pub(crate) fn is_from(&self, source: &str) -> bool {
        self.0.as_ref().is_ok_and(|(from, _)| from == source)
    }
}

impl Report {
    fn steps(&self) -> [&Step; 3] {
        [&self.memories, &self.pages, &self.kept]
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.steps().iter().all(|step| step.0.is_ok())
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.steps().iter().all(|step| step.is_from("primary"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok((source, count)) => write!(out, "{count} ({source})"),
            Err(error) => write!(out, "none: {error}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            memories,
            pages,
            kept,
        } = self;
        write!(
            out,
            "{topic:<16} memories {memories}, pages {pages}, kept {kept}"
        )
    }
}

pub(crate) struct Researcher {
    services: Services,
}

impl Researcher {
    pub(crate) fn new(services: Services) -> Self {
        Self { services }
    }
}

impl Actor for Researcher {
    type Context = Context<Self>;
}

impl Handler<Research> for Researcher {
    type Result = ResponseFuture<Report>;

    fn handle(&mut self, Research { topic }: Research, _: &mut Context<Self>) -> Self::Result {
        let Services { vector, web, graph } = self.services.clone();
        Box::pin(async move {
            let memories = vector.search(&topic, 3).await;
            let pages = web.search(&topic, 3).await;
            let titles = pages.iter().flat_map(|answer| &answer.value);
            let titles = titles.map(|hit| hit.title.clone());
            let entity = Entity::new(&topic, "topic", titles);
            let kept = graph.create_entities(&[entity]).await;
            Report {
                memories: Step::of(memories, Vec::len),
                pages: Step::of(pages, Vec::len),
                kept: Step::of(kept, Vec::len),
                topic,
            }
        })
    }
}
