//! The three services that the agents use, each protected. A program writes this part once.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use breakerbox::agents::fakes::{ENGINE, Fakes};
use breakerbox::agents::{
    Brave, ContentStore, CustomSearch, Document, KnowledgeGraph, VectorSearch, WebSearch,
};
use breakerbox::config::Secret;
use breakerbox::mcp::McpSettings;
use breakerbox::policy::DependencySettings;
use breakerbox::prelude::*;
use serde_json::Map;

/// The argument that makes this program serve as the stand-in knowledge-graph server.
pub(crate) const MEMORY_SERVER: &str = "memory-server";

/// Open time of the breaker in this example; the default is 30 seconds.
pub(crate) const RECOVERY: Duration = Duration::from_millis(500);

/// Notes that the agents know from the start; the vector index holds them too.
const NOTES: [(&str, &str); 3] = [
    (
        "note-1",
        "circuit breakers open after failures and try again later",
    ),
    ("note-2", "supervisors restart actors that panicked"),
    ("note-3", "bulkheads bound how many calls are in flight"),
];

/// Clients of all three services. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) vector: VectorSearch,
    pub(crate) web: WebSearch,
    pub(crate) graph: KnowledgeGraph,
}

/// Settings in code, for the example; usually they come from configuration files.
pub(crate) fn settings() -> RuntimeSettings {
    let mut embed = DependencySettings::default();
    embed.breaker.failure_threshold = std::num::NonZeroU32::new(2);
    embed.breaker.open.base = RECOVERY;
    RuntimeSettings {
        dependencies: [("vector_embed".to_owned(), embed)].into(),
        ..RuntimeSettings::default()
    }
}

impl Services {
    pub(crate) async fn start(
        runtime: &Runtime,
        fakes: &Fakes,
        folder: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let store = ContentStore::default();
        for (id, text) in NOTES {
            fakes.index(id, text);
            fakes.publish(format!("https://example.org/{id}"), text);
            store.put(Document {
                id: id.to_owned(),
                content: text.to_owned(),
                metadata: Map::new(),
            });
        }
        // In production: VectorConfig::from_environment()
        let vector = VectorSearch::start(runtime, fakes.vector_config(), store).await?;
        let google = CustomSearch::new(Secret::new("a key of Google's"), ENGINE);
        let brave = Brave::new(Secret::new("a-key-of-Braves"));
        let web = WebSearch::start(
            runtime,
            vec![
                Arc::new(google.at(fakes.base())),
                Arc::new(brave.at(fakes.base())),
            ],
        )
        .await?;
        let graph = KnowledgeGraph::start(runtime, "knowledge_graph", &server(folder)?).await?;
        Ok(Self { vector, web, graph })
    }
}

/// The official server if it is installed, else the stand-in.
fn server(folder: &Path) -> Result<McpSettings, Box<dyn Error>> {
    let file = folder.join("memory.jsonl").display().to_string();
    let here = std::env::current_dir()?;
    let official = "node_modules/@modelcontextprotocol/server-memory/dist/index.js";
    if here.join(official).is_file() {
        println!("The knowledge graph is kept by the official server.");
        return Ok(KnowledgeGraph::installed(&here.display().to_string(), file));
    }
    println!(
        "The knowledge graph is kept by a stand-in; the official server is not installed here."
    );
    let program = std::env::current_exe()?.display().to_string();
    let server = McpSettings::stdio(program, [MEMORY_SERVER]);
    Ok(server.env("MEMORY_FILE_PATH", file))
}
