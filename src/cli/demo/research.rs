//! `breakerbox demo --scenario agents`: an agent system for a minute. It has fifty callers, vector
//! search, web search and a knowledge graph. Four things go wrong, some at the same time.
//!
//! Sockets are real, a real process is killed, and a real file is broken. The demo checks itself:
//! it fails if any guarantee did not hold.

mod agents;
mod findings;
mod script;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use breakerbox::agents::fakes::{ENGINE, Fakes};
use breakerbox::agents::{
    Brave, ContentStore, CustomSearch, Document, Entity, KnowledgeGraph, VectorSearch, WebSearch,
};
use breakerbox::config::{Loader, Secret};
use breakerbox::mcp::McpSettings;
use breakerbox::prelude::*;
use breakerbox::reload::{Watcher, follow};
use tokio::task::JoinHandle;

use super::summary;
use super::timeline::Timeline;
use crate::cli::ExitReason;
use agents::{Crew, Services};
use script::Observations;

/// Duration of one second of the scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tempo(Duration);

/// Tempo of one minute.
pub(crate) const USUAL: Tempo = Tempo(Duration::from_secs(1));
/// Tempo of about 12 seconds.
pub(crate) const FAST: Tempo = Tempo(Duration::from_millis(200));

impl Tempo {
    /// Converts seconds of the scenario to real time.
    fn seconds(self, count: u32) -> Duration {
        self.0 * count
    }
}

/// Argument that makes this program the demo's knowledge-graph server.
pub(crate) const MEMORY_SERVER: &str = "memory-server";
const GRAPH: &str = "knowledge_graph";
const CONFIG: &str = include_str!("research/agents.toml");
const NO_VARIABLES: [(&str, &str); 0] = [];

/// Contents of the services, by topic.
const NOTES: [(&str, &str); 6] = [
    ("breakers", "circuit breakers open after failures in a row"),
    ("supervisors", "supervisors restart actors after a panic"),
    ("bulkheads", "bulkheads bound how many calls are in flight"),
    (
        "fallbacks",
        "fallbacks answer and say where the answer comes from",
    ),
    (
        "deadlines",
        "deadlines travel with calls to whatever they call",
    ),
    ("quotas", "quotas are full again at midnight in california"),
];

/// Serves the knowledge graph on standard input and output; standard output belongs to the
/// protocol.
pub(crate) fn serve_memory(err: &mut dyn Write) -> io::Result<ExitReason> {
    let Some(file) = std::env::var_os("MEMORY_FILE_PATH") else {
        writeln!(
            err,
            "breakerbox: MEMORY_FILE_PATH is not set, allowed: the path of a file"
        )?;
        return Ok(ExitReason::WrongUse);
    };
    let input = io::stdin().lock();
    breakerbox::agents::fakes::memory::serve(input, io::stdout().lock(), file.as_ref())?;
    Ok(ExitReason::Done)
}

type BoxedError = Box<dyn std::error::Error>;

/// A temporary directory of this run, removed when dropped.
struct DemoFolder(PathBuf);

impl DemoFolder {
    fn new() -> io::Result<Self> {
        let name = format!("breakerbox-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        let folder = Self(path);
        folder.put(CONFIG)?;
        Ok(folder)
    }

    /// Replaces the configuration file atomically.
    fn put(&self, text: &str) -> io::Result<()> {
        let beside = self.0.join("default.toml.new");
        std::fs::write(&beside, text)?;
        std::fs::rename(beside, self.0.join("default.toml"))
    }

    fn loader(&self) -> Loader {
        let loader = Settings::loader().bare().dir(&self.0);
        loader.env_vars(NO_VARIABLES)
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        // Files left behind are in the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The running parts of the scenario.
struct ResearchRuntime {
    folder: DemoFolder,
    fakes: Fakes,
    runtime: Runtime,
    crew: Crew,
    following: JoinHandle<()>,
}

/// Runs the scenario. Only a broken output is an error; all other errors are written to `err`.
pub(crate) async fn run(
    tempo: Tempo,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let stage = match start().await {
        Ok(stage) => stage,
        Err(error) => {
            writeln!(err, "breakerbox: {error}")?;
            return Ok(ExitReason::Failed);
        }
    };
    let length = tempo.seconds(60).as_secs();
    writeln!(
        out,
        "{} callers, three services, about {length} seconds.\n",
        agents::CALLERS
    )?;
    let mut timeline = Timeline::new(&stage.runtime, out, colour);
    let played = tokio::select! {
        played = script::play(&stage, tempo, &mut timeline) => Some(played?),
        pressed = tokio::signal::ctrl_c() => match pressed {
            Ok(()) => None,
            Err(error) => {
                writeln!(err, "breakerbox: signals cannot be received: {error}")?;
                return Ok(ExitReason::Failed);
            }
        }
    };
    let Some(seen) = played else {
        timeline.say("demo", "interrupted")?;
        stage.runtime.shutdown().await;
        return Ok(ExitReason::Interrupted);
    };
    let rested = script::rest(&stage, &mut timeline).await?;
    let story = timeline.into_events();
    let mut complaints = findings::of_the_story(&seen, &story);
    complaints.extend(rested);
    complaints.extend(findings::of_the_books(&stage, &seen));
    let statuses = stage.runtime.statuses();
    summary::write(&statuses, out)?;
    findings::write(&stage.crew, out)?;
    end(stage, &seen, complaints, out, err).await
}

async fn end(
    stage: ResearchRuntime,
    seen: &Observations,
    mut complaints: Vec<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    stage.following.abort();
    stage.runtime.shutdown().await;
    complaints.extend(findings::of_the_processes(&seen.processes).await);
    for complaint in &complaints {
        writeln!(err, "breakerbox: {complaint}")?;
    }
    if !complaints.is_empty() {
        return Ok(ExitReason::Failed);
    }
    writeln!(
        out,
        "\nNo call outlasted its deadline, no panic reached a caller, every fallback said that it was one,\n\
         the web search without quota was left alone, and no process is left."
    )?;
    Ok(ExitReason::Done)
}

async fn start() -> Result<ResearchRuntime, BoxedError> {
    let folder = DemoFolder::new()?;
    let loader = folder.loader();
    let settings = loader.load()?;
    let debounce = settings.reload.debounce;
    let fakes = Fakes::start().await?;
    let runtime = Runtime::start(settings).await?;
    let watcher = Watcher::start(loader, debounce)?;
    let following = tokio::spawn(follow(runtime.clone(), watcher));
    let services = services(&runtime, &fakes, &folder.0).await?;
    Ok(ResearchRuntime {
        folder,
        fakes,
        crew: Crew::new(services),
        runtime,
        following,
    })
}

async fn services(runtime: &Runtime, fakes: &Fakes, folder: &Path) -> Result<Services, BoxedError> {
    let store = ContentStore::default();
    for (id, text) in NOTES {
        fakes.index(id, text);
        fakes.publish(format!("https://example.org/{id}"), text);
        store.put(Document {
            id: id.to_owned(),
            content: text.to_owned(),
            metadata: serde_json::Map::new(),
        });
    }
    let vector = VectorSearch::start(runtime, fakes.vector_config(), store).await?;
    let google = CustomSearch::new(Secret::new("the-demo's-key"), ENGINE);
    let brave = Brave::new(Secret::new("the-demo's-other-key"));
    let web = WebSearch::start(
        runtime,
        vec![
            Arc::new(google.at(fakes.base())),
            Arc::new(brave.at(fakes.base())),
        ],
    );
    let web = web.await?;
    let program = std::env::current_exe()?.display().to_string();
    let file = folder.join("memory.jsonl").display().to_string();
    let server = McpSettings::stdio(program, [MEMORY_SERVER]).env("MEMORY_FILE_PATH", file);
    let graph = KnowledgeGraph::start(runtime, GRAPH, &server).await?;
    let known = NOTES.map(|(id, text)| Entity::new(id, "topic", [text]));
    graph.create_entities(&known).await?;
    Ok(Services { vector, web, graph })
}
