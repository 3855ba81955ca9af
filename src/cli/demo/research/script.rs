//! The scenario's script: its faults with their times, and observations on the way.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::agents::{GraphError, KnowledgeGraph};
use breakerbox::policy::{PauseReason, Time};
use serde_json::{Map, Value};

use super::agents::Task;
use super::{CONFIG, GRAPH, ResearchRuntime, Tempo};
use crate::cli::demo::timeline::Timeline;

/// Time limit for expected effects.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time limit for the last calls; each has a much earlier deadline.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// Observations for the checks.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// When the index began to fail, and when it was healed.
    pub(super) broken: Option<Time>,
    pub(super) healed: Option<Time>,
    /// When the graph's server was killed, and the time until it answered again.
    pub(super) killed: Option<Time>,
    pub(super) graph_back: Option<Duration>,
    /// When the quota was exhausted, and the number of requests to that provider once its last call
    /// had ended.
    pub(super) quota: Option<Time>,
    pub(super) asked_before: Option<usize>,
    /// When the configuration was broken.
    pub(super) config: Option<Time>,
    /// Processes of the graph's server.
    pub(super) processes: Vec<u32>,
    /// Steps that could not be carried out.
    pub(super) missed: Vec<String>,
}

/// Plays the scenario, from the first call to the end.
pub(super) async fn play(
    stage: &ResearchRuntime,
    tempo: Tempo,
    timeline: &mut Timeline<'_>,
) -> io::Result<Observations> {
    let mut seen = Observations::default();
    seen.processes.extend(process(stage).await);
    if let Err(error) = stage.crew.begin(&stage.runtime).await {
        seen.missed.push(error.to_string());
        return Ok(seen);
    }
    let begin = timeline.now();
    timeline.say("demo", "everything works; the callers begin")?;

    until(timeline, begin, tempo.seconds(10)).await?;
    timeline.say(
        "vector_find",
        "*** the index responds with 500 from now on ***",
    )?;
    seen.broken = Some(timeline.now());
    stage
        .fakes
        .set(Operation::Find, Some(FakeFault::internal()));

    until(timeline, begin, tempo.seconds(20)).await?;
    kill(stage, &mut seen, timeline).await?;

    until(timeline, begin, tempo.seconds(30)).await?;
    timeline.say("vector_find", "*** the index works again ***")?;
    seen.healed = Some(timeline.now());
    stage.fakes.set(Operation::Find, None);
    timeline.say("web_google", "*** its queries of the day are used up ***")?;
    seen.quota = Some(timeline.now());
    stage
        .fakes
        .set(Operation::CustomSearch, Some(FakeFault::QuotaOfTheDay));
    left_alone(stage, &mut seen, timeline).await?;

    until(timeline, begin, tempo.seconds(45)).await?;
    timeline.say("demo", "*** the configuration is broken ***")?;
    seen.config = Some(timeline.now());
    stage.folder.put("[dependencies.vector_find\nbroken = ")?;
    until(timeline, begin, tempo.seconds(50)).await?;
    timeline.say(
        "demo",
        "*** the configuration is mended, with another limit ***",
    )?;
    let mended = CONFIG.replace("failure_threshold = 10", "failure_threshold = 12");
    stage.folder.put(&mended)?;

    until(timeline, begin, tempo.seconds(60)).await?;
    seen.processes.extend(process(stage).await);
    Ok(seen)
}

async fn until(timeline: &mut Timeline<'_>, begin: Time, then: Duration) -> io::Result<()> {
    let left = begin.after(then).since(timeline.now());
    timeline.pass(left).await
}

/// Kills the graph's server as the kernel's OOM killer does, and waits until it answers again.
async fn kill(
    stage: &ResearchRuntime,
    seen: &mut Observations,
    timeline: &mut Timeline<'_>,
) -> io::Result<()> {
    timeline.say(GRAPH, "*** its server is killed ***")?;
    let then = timeline.now();
    seen.killed = Some(then);
    match seen.processes.last() {
        Some(process) => super::findings::kill(*process)?,
        None => seen
            .missed
            .push("the graph's server did not report its process id".to_owned()),
    }
    let ledger = stage.crew.ledger(Task::Read);
    let back = |_: &Timeline<'_>| ledger.answered_since(then);
    if timeline.until(PATIENCE, back).await? {
        seen.graph_back = Some(timeline.now().since(then));
    }
    Ok(())
}

/// Waits until the provider without quota is paused and its last call has ended.
async fn left_alone(
    stage: &ResearchRuntime,
    seen: &mut Observations,
    timeline: &mut Timeline<'_>,
) -> io::Result<()> {
    let alone = |_: &Timeline<'_>| {
        stage.runtime.status("web_google").is_some_and(|status| {
            let used_up = status.paused.map(|(reason, _)| reason) == Some(PauseReason::QuotaUsedUp);
            used_up && status.in_flight == 0
        })
    };
    if timeline.until(PATIENCE, alone).await? {
        seen.asked_before = Some(stage.fakes.calls(Operation::CustomSearch));
    }
    Ok(())
}

/// Returns the current process of the graph's server. Callers keep the server busy, so a refused
/// request is repeated.
async fn process(stage: &ResearchRuntime) -> Option<u32> {
    for _ in 0..20 {
        if let Ok(Some(process)) = ask_process(&stage.crew.services.graph).await {
            return Some(process);
        }
    }
    None
}

async fn ask_process(graph: &KnowledgeGraph) -> Result<Option<u32>, GraphError> {
    let answer = graph.server().call("process_id", Map::new()).await?;
    let told = answer.value.structured.unwrap_or_default();
    let number = told.get("process_id").and_then(Value::as_u64);
    let own = answer.source == breakerbox::AnswerSource::Primary;
    Ok(number
        .filter(|_| own)
        .and_then(|number| u32::try_from(number).ok()))
}

/// Pauses the callers, and waits for the last calls.
pub(super) async fn rest(
    stage: &ResearchRuntime,
    timeline: &mut Timeline<'_>,
) -> io::Result<Vec<String>> {
    stage.crew.at_rest.store(true, Ordering::Release);
    timeline.say("demo", "the callers rest; the last calls end")?;
    let crew = &stage.crew;
    let ended = |_: &Timeline<'_>| {
        let mut ledgers = crew.ledgers.iter();
        ledgers.all(|one| one.ended() == one.asked.load(Ordering::Acquire))
    };
    if timeline.until(LAST_CALLS, ended).await? {
        return Ok(Vec::new());
    }
    Ok(vec![format!("calls are pending after {LAST_CALLS:?}")])
}
