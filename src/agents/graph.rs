//! The knowledge graph: the tools of the server `@modelcontextprotocol/server-memory`, by name and
//! type, over a supervised process.
//!
//! Reads may be answered by the last good answer while the server is away; writes never are. The
//! server loses writes that come at once, so they go one at a time.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::InvalidInput;
use crate::mcp::{self, McpClient, McpError, McpSettings, ToolResult};
use crate::{Answer, CallError, Runtime, StaleCache, StartError};

/// How long, and how many, last good answers may stand in.
const STALE: (Duration, usize) = (Duration::from_secs(3600), 1_000);

/// A thing that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entity {
    /// Its name, which is also its id.
    pub name: String,
    /// What it is.
    pub entity_type: String,
    /// What is known of it.
    pub observations: Vec<String>,
}

impl Entity {
    /// A thing of which this is known.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        entity_type: impl Into<String>,
        observations: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: name.into(),
            entity_type: entity_type.into(),
            observations: observations.into_iter().map(Into::into).collect(),
        }
    }
}

/// How two things belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relation {
    /// The one.
    pub from: String,
    /// The other.
    pub to: String,
    /// How, in active voice.
    pub relation_type: String,
}

/// Things, and how they belong together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Graph {
    /// The things.
    pub entities: Vec<Entity>,
    /// How they belong together.
    pub relations: Vec<Relation>,
}

/// How a call of the graph ends without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The caller's own mistake, found before anything was called.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// Every other end: refused, failed, timed out and so on.
    #[error(transparent)]
    Call(#[from] CallError<McpError>),
    /// The tool did not do it; the server is well.
    #[error("the tool {tool} did not do it: {said}")]
    Tool {
        /// Which tool.
        tool: &'static str,
        /// What it said.
        said: String,
    },
    /// The answer is of another shape.
    #[error("the answer of {tool} is not what it should be")]
    Malformed {
        /// Which tool.
        tool: &'static str,
    },
}

/// The knowledge graph, protected. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KnowledgeGraph {
    client: McpClient,
}

impl KnowledgeGraph {
    /// The official server, as npm has installed it below this folder (`node_modules`), with the
    /// file that holds its graph.
    #[must_use]
    pub fn installed(folder: &str, file: impl Into<String>) -> McpSettings {
        let script = "node_modules/@modelcontextprotocol/server-memory/dist/index.js";
        let server = McpSettings::stdio("node", [format!("{folder}/{script}")]);
        server.env("MEMORY_FILE_PATH", file)
    }

    /// Starts the server as a dependency of this name, whose settings are those of the runtime's
    /// configuration, and waits until it serves.
    ///
    /// # Errors  The server does not start, or the name is taken.
    pub async fn start(
        runtime: &Runtime,
        name: &str,
        server: &McpSettings,
    ) -> Result<Self, StartError> {
        let builder = mcp::dependency(runtime, name, server);
        let stale = StaleCache::new(STALE.0, STALE.1);
        let client = builder.fallback(stale).start().await?;
        Ok(Self { client })
    }

    /// Creates things; the answer lists those that were not there before.
    ///
    /// # Errors  [`GraphError`].
    pub async fn create_entities(
        &self,
        entities: &[Entity],
    ) -> Result<Answer<Vec<Entity>>, GraphError> {
        some(entities, "the entities")?;
        let tool = "create_entities";
        self.listed(tool, json!({ "entities": entities }), "entities")
            .await
    }

    /// Creates relations; the answer lists those that were not there before.
    ///
    /// # Errors  [`GraphError`].
    pub async fn create_relations(
        &self,
        relations: &[Relation],
    ) -> Result<Answer<Vec<Relation>>, GraphError> {
        some(relations, "the relations")?;
        let tool = "create_relations";
        self.listed(tool, json!({ "relations": relations }), "relations")
            .await
    }

    /// Adds to what is known of a thing.
    ///
    /// # Errors  [`GraphError`]; [`GraphError::Tool`] when there is no such thing.
    pub async fn add_observations(
        &self,
        entity: &str,
        contents: &[String],
    ) -> Result<Answer<()>, GraphError> {
        some(contents, "the observations")?;
        let added = json!({ "entityName": entity, "contents": contents });
        self.done("add_observations", json!({ "observations": [added] }))
            .await
    }

    /// Deletes things with their relations; those that are not there are no error.
    ///
    /// # Errors  [`GraphError`].
    pub async fn delete_entities(&self, names: &[String]) -> Result<Answer<()>, GraphError> {
        some(names, "the names")?;
        self.done("delete_entities", json!({ "entityNames": names }))
            .await
    }

    /// Deletes some of what is known of a thing.
    ///
    /// # Errors  [`GraphError`].
    pub async fn delete_observations(
        &self,
        entity: &str,
        observations: &[String],
    ) -> Result<Answer<()>, GraphError> {
        some(observations, "the observations")?;
        let deleted = json!({ "entityName": entity, "observations": observations });
        self.done("delete_observations", json!({ "deletions": [deleted] }))
            .await
    }

    /// Deletes relations.
    ///
    /// # Errors  [`GraphError`].
    pub async fn delete_relations(&self, relations: &[Relation]) -> Result<Answer<()>, GraphError> {
        some(relations, "the relations")?;
        self.done("delete_relations", json!({ "relations": relations }))
            .await
    }

    /// Everything.
    ///
    /// # Errors  [`GraphError`].
    pub async fn read_graph(&self) -> Result<Answer<Graph>, GraphError> {
        self.read("read_graph", json!({})).await
    }

    /// The things in whose name, type or observations this stands.
    ///
    /// # Errors  [`GraphError`].
    pub async fn search_nodes(&self, query: &str) -> Result<Answer<Graph>, GraphError> {
        if query.trim().is_empty() {
            let invalid = InvalidInput::new("the query", "none", "a text that is not empty");
            return Err(invalid.into());
        }
        self.read("search_nodes", json!({ "query": query })).await
    }

    /// The things of these names.
    ///
    /// # Errors  [`GraphError`].
    pub async fn open_nodes(&self, names: &[String]) -> Result<Answer<Graph>, GraphError> {
        some(names, "the names")?;
        self.read("open_nodes", json!({ "names": names })).await
    }

    /// Its server, for whatever has no method here.
    #[must_use]
    pub fn server(&self) -> &McpClient {
        &self.client
    }

    /// Calls a tool. Its own error is one here.
    async fn call(
        &self,
        tool: &'static str,
        arguments: Value,
    ) -> Result<Answer<Value>, GraphError> {
        let Value::Object(arguments) = arguments else {
            return Err(GraphError::Malformed { tool });
        };
        let answer = self.client.call(tool, arguments).await?;
        let ToolResult {
            is_error,
            content,
            structured,
            ..
        } = answer.value;
        if is_error {
            let said = crate::redact(&content).chars().take(300).collect();
            return Err(GraphError::Tool { tool, said });
        }
        // Older versions of the server only say it as a text.
        let value = structured.or_else(|| serde_json::from_str(&content).ok());
        Ok(Answer {
            value: value.unwrap_or(Value::Null),
            source: answer.source,
            age: answer.age,
            attempts: answer.attempts,
            elapsed: answer.elapsed,
        })
    }

    async fn done(&self, tool: &'static str, arguments: Value) -> Result<Answer<()>, GraphError> {
        let answer = self.call(tool, arguments).await?;
        with(answer, |_| Some(())).ok_or(GraphError::Malformed { tool })
    }

    async fn read(
        &self,
        tool: &'static str,
        arguments: Value,
    ) -> Result<Answer<Graph>, GraphError> {
        let answer = self.call(tool, arguments).await?;
        let graph = with(answer, |value| match value {
            Value::Object(_) => serde_json::from_value(value).ok(),
            _ => None,
        });
        graph.ok_or(GraphError::Malformed { tool })
    }

    /// A list, by itself or under its key.
    async fn listed<T: DeserializeOwned>(
        &self,
        tool: &'static str,
        arguments: Value,
        key: &str,
    ) -> Result<Answer<Vec<T>>, GraphError> {
        let answer = self.call(tool, arguments).await?;
        let list = with(answer, |value| {
            let list = match value {
                Value::Object(mut object) => object.remove(key)?,
                other => other,
            };
            serde_json::from_value(list).ok()
        });
        list.ok_or(GraphError::Malformed { tool })
    }
}

fn some<T>(given: &[T], what: &'static str) -> Result<(), InvalidInput> {
    if given.is_empty() {
        return Err(InvalidInput::new(what, "none", "one or more"));
    }
    Ok(())
}

/// The same answer with another value, where there is one.
fn with<T>(answer: Answer<Value>, make: impl FnOnce(Value) -> Option<T>) -> Option<Answer<T>> {
    let Answer {
        value,
        source,
        age,
        attempts,
        elapsed,
    } = answer;
    make(value).map(|value| Answer {
        value,
        source,
        age,
        attempts,
        elapsed,
    })
}
