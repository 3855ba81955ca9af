//! Typed client for the knowledge graph server `@modelcontextprotocol/server-memory`, which runs as
//! a supervised process.
//!
//! While the server is down, reads may be answered from a cache of its last good responses; writes
//! never are. The server loses concurrent writes, so they are sent one at a time.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::InvalidInput;
use crate::mcp::{self, McpClient, McpError, McpSettings, ToolResult};
use crate::{Answer, CallError, Runtime, StaleCache, StartError};

/// Maximum age and number of cached responses for the fallback.
const STALE: (Duration, usize) = (Duration::from_secs(3600), 1_000);

/// An entity of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entity {
    /// The name, which is also the id.
    pub name: String,
    /// The type.
    pub entity_type: String,
    /// Facts about the entity.
    pub observations: Vec<String>,
}

impl Entity {
    /// Creates an entity with these observations.
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

/// A relation between two entities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relation {
    /// Name of the source entity.
    pub from: String,
    /// Name of the target entity.
    pub to: String,
    /// The type, in active voice.
    pub relation_type: String,
}

/// Entities and the relations between them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Graph {
    /// The entities.
    pub entities: Vec<Entity>,
    /// The relations.
    pub relations: Vec<Relation>,
}

/// Errors of the knowledge graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The caller's mistake, found before any call was made.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// Any other end: refused, failed, timed out and so on.
    #[error(transparent)]
    Call(#[from] CallError<McpError>),
    /// The tool returned its own error; the server is healthy.
    #[error("the tool {tool} failed: {said}")]
    Tool {
        /// The tool's name.
        tool: &'static str,
        /// The tool's error text.
        said: String,
    },
    /// The response has an unexpected shape.
    #[error("the response of {tool} is invalid")]
    Malformed {
        /// The tool's name.
        tool: &'static str,
    },
}

/// Protected client for the knowledge graph. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KnowledgeGraph {
    client: McpClient,
}

impl KnowledgeGraph {
    /// Returns settings for the official server, installed by npm below `folder` (`node_modules`).
    /// The graph is stored in `file`.
    #[must_use]
    pub fn installed(folder: &str, file: impl Into<String>) -> McpSettings {
        let script = "node_modules/@modelcontextprotocol/server-memory/dist/index.js";
        let server = McpSettings::stdio("node", [format!("{folder}/{script}")]);
        server.env("MEMORY_FILE_PATH", file)
    }

    /// Starts the server as a dependency named `name`, with settings from the runtime's
    /// configuration, and waits until it is ready.
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

    /// Creates entities; the answer lists the new ones.
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

    /// Creates relations; the answer lists the new ones.
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

    /// Adds observations to an entity.
    ///
    /// # Errors  [`GraphError`]; [`GraphError::Tool`] if there is no such entity.
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

    /// Deletes entities with their relations; unknown names are not an error.
    ///
    /// # Errors  [`GraphError`].
    pub async fn delete_entities(&self, names: &[String]) -> Result<Answer<()>, GraphError> {
        some(names, "the names")?;
        self.done("delete_entities", json!({ "entityNames": names }))
            .await
    }

    /// Deletes observations of an entity.
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

    /// Returns the whole graph.
    ///
    /// # Errors  [`GraphError`].
    pub async fn read_graph(&self) -> Result<Answer<Graph>, GraphError> {
        self.read("read_graph", json!({})).await
    }

    /// Returns the entities that contain `query` in name, type or observations.
    ///
    /// # Errors  [`GraphError`].
    pub async fn search_nodes(&self, query: &str) -> Result<Answer<Graph>, GraphError> {
        if query.trim().is_empty() {
            let invalid = InvalidInput::new("the query", "none", "a text that is not empty");
            return Err(invalid.into());
        }
        self.read("search_nodes", json!({ "query": query })).await
    }

    /// Returns the entities with these names.
    ///
    /// # Errors  [`GraphError`].
    pub async fn open_nodes(&self, names: &[String]) -> Result<Answer<Graph>, GraphError> {
        some(names, "the names")?;
        self.read("open_nodes", json!({ "names": names })).await
    }

    /// Returns the client of the server, for tools without a method here.
    #[must_use]
    pub fn server(&self) -> &McpClient {
        &self.client
    }

    /// Calls a tool, and turns the tool's own error into a [`GraphError`].
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
            let said = breakerbox_actors::redact(&content)
                .chars()
                .take(300)
                .collect();
            return Err(GraphError::Tool { tool, said });
        }
        // Older versions of the server return the value as text only.
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

    /// Calls a tool that returns a list, either bare or under `key`.
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

/// Maps the value of an answer; `None` if `make` returns `None`.
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
