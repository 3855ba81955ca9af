//! Vector search: a model embeds a text, the index finds its neighbours, and the store supplies
//! their content.
//!
//! Embeddings and neighbours are two dependencies with two breakers. If one of them fails, local
//! embeddings or a local index serve as fallback, and the answer names the fallback. A local
//! embedding is never sent to the index: its values are not comparable with those of the model.

mod config;
mod input;
mod local;
mod probe;
mod service;
mod store;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::token::{Tokens, keep};
use super::{AgentError, ServiceError};
use crate::{
    Answer, AnswerSource, CallError, Client, FallbackRule, NewDependency, Runtime, StartError, tls,
};

pub use config::{Credentials, Missing, VectorConfig};
use input::check_count;
pub use local::{LOCAL_MODEL, LocalIndex, local_embedding};
use service::{EmbeddingWorker, NeighborQuery, NeighborWorker, ServiceContext, Texts};
pub use store::{ContentStore, Document};

/// Task type of a query.
const QUERY: &str = "RETRIEVAL_QUERY";
/// Task type of a document in the index.
const DOCUMENT: &str = "RETRIEVAL_DOCUMENT";
/// Names of the fallbacks in answers and events.
const LOCAL_EMBEDDING: &str = "local_embedding";
const LOCAL_INDEX: &str = "local_index";

/// Embedding of a text by a model. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The vector.
    pub values: Arc<[f32]>,
    /// The model; only embeddings of the same model can be compared.
    pub model: Arc<str>,
    /// True if the text was too long and its end was left out.
    pub truncated: bool,
}

/// A search result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Neighbor {
    /// The id.
    pub id: String,
    /// Nearness, as measured by the index; the cosine for the local index.
    pub score: f64,
    /// The text; `None` if the store does not have the id.
    pub content: Option<String>,
    /// Further data of the document.
    pub metadata: Map<String, Value>,
}

impl Neighbor {
    fn bare(id: String, score: f64) -> Self {
        Self {
            id,
            score,
            content: None,
            metadata: Map::new(),
        }
    }

    /// Returns true if the store does not have the id: the store or the index is out of date.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.content.is_none()
    }
}

/// Errors of starting vector search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorStartError {
    /// Settings are missing, and no fallback is enabled.
    #[error("vector search cannot be started: {}", list(.0))]
    NotConfigured(Vec<Missing>),
    /// TLS or the credentials cannot be used.
    #[error("vector search cannot be started: {0}")]
    Unusable(String),
    /// The runtime did not start a dependency.
    #[error(transparent)]
    Start(#[from] StartError),
}

fn list(missing: &[Missing]) -> String {
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// Protected client for vector search. Cheap to clone.
#[derive(Clone)]
pub struct VectorSearch {
    config: Arc<VectorConfig>,
    missing: Arc<[Missing]>,
    store: ContentStore,
    embed: Client<EmbeddingWorker>,
    find: Client<NeighborWorker>,
    find_place: ServiceContext,
    embed_place: ServiceContext,
}

impl VectorSearch {
    /// Starts the dependencies, with settings from the runtime's configuration.
    ///
    /// If settings are missing and `auto_fallback` is on, every search is answered locally, and one
    /// warning gives the reason.
    ///
    /// # Errors  Settings are missing and no fallback is enabled, or a dependency did not start.
    pub async fn start(
        runtime: &Runtime,
        config: VectorConfig,
        store: ContentStore,
    ) -> Result<Self, VectorStartError> {
        let missing = config.missing();
        if !missing.is_empty() && !config.auto_fallback && !config.fallback_only {
            return Err(VectorStartError::NotConfigured(missing));
        }
        let local_only = config.fallback_only || !missing.is_empty();
        if !missing.is_empty() && !config.fallback_only {
            let why = list(&missing);
            tracing::warn!(
                dependency = config.name,
                "falling back to {LOCAL_INDEX}: {why}"
            );
        }
        let source = if missing.is_empty() {
            config.source()
        } else {
            VectorConfig::default().source()
        };
        let source = source.map_err(|error| VectorStartError::Unusable(error.to_string()))?;
        let tokens = Arc::new(Tokens::new(source, runtime.clock().clone()));
        if !local_only {
            keep(runtime, &format!("{}_token", config.name), &tokens).await?;
        }
        let embed_place = ServiceContext {
            url: config.embed_url(),
            model: Arc::from(config.model.as_str()),
            dimensions: config.dimensions,
            deployed_index: config.deployed_index.clone().unwrap_or_default(),
            tokens,
            tls: tls::client().map_err(VectorStartError::Unusable)?,
        };
        let find_place = ServiceContext {
            url: config.find_url(),
            ..embed_place.clone()
        };
        let embed = start_embed(runtime, &config, &embed_place, local_only).await?;
        let find = start_find(runtime, &config, &find_place, &store, local_only).await?;
        Ok(Self {
            config: Arc::new(config),
            missing: Arc::from(missing),
            store,
            embed,
            find,
            find_place,
            embed_place,
        })
    }

    /// Finds the nearest neighbours of a text.
    ///
    /// # Errors  The input is invalid, or neither the service nor a fallback answered.
    pub async fn search(
        &self,
        text: &str,
        count: u32,
    ) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        let count = check_count(count)?;
        let embedded = self.embed(text).await?;
        if *embedded.value.model == *LOCAL_MODEL {
            // Its values are not comparable with those of the index.
            return Ok(Answer {
                value: self.store.nearest(text, count),
                source: AnswerSource::Fallback(Arc::from(LOCAL_INDEX)),
                age: None,
                attempts: embedded.attempts,
                elapsed: embedded.elapsed,
            });
        }
        let wanted = NeighborQuery {
            text: Some(Arc::from(text)),
            vector: embedded.value,
            count,
        };
        self.ask_index(wanted).await
    }

    /// Finds the nearest neighbours of an embedding of the index's model.
    ///
    /// # Errors  The embedding is of another model or length, or the service did not answer: the
    /// local index can search texts only.
    pub async fn find(
        &self,
        vector: Embedding,
        count: u32,
    ) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        self.find_place.check(&vector)?;
        let count = check_count(count)?;
        let wanted = NeighborQuery {
            text: None,
            vector,
            count,
        };
        self.ask_index(wanted).await
    }

    async fn ask_index(&self, wanted: NeighborQuery) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        let mut answer = self.find.ask(wanted).await?;
        answer.value = self.store.join(answer.value);
        Ok(answer)
    }

    /// Returns the embedding of a query.
    ///
    /// # Errors  The text is empty or too long, or neither the service nor a fallback answered.
    pub async fn embed(&self, text: &str) -> Result<Answer<Embedding>, AgentError> {
        let texts = Texts::of(&self.config, &[text.to_owned()], QUERY)?;
        let answer = self.embed.ask(texts).await?;
        let Answer {
            value,
            source,
            age,
            attempts,
            elapsed,
        } = answer;
        let first = value.into_iter().next();
        let value = first.unwrap_or_else(|| local_embedding(text));
        Ok(Answer {
            value,
            source,
            age,
            attempts,
            elapsed,
        })
    }

    /// Returns the embeddings of documents, split into requests within the limits.
    ///
    /// # Errors  A text is empty or too long by itself: no request was sent. Or a request failed:
    /// the embeddings of earlier requests are lost.
    pub async fn embed_all(&self, texts: &[String]) -> Result<Vec<Embedding>, AgentError> {
        let batches = Texts::batches(&self.config, texts, DOCUMENT)?;
        let mut all = Vec::with_capacity(texts.len());
        for batch in batches {
            all.extend(self.embed.ask(batch).await?.value);
        }
        Ok(all)
    }

    /// Returns the content store, to which documents may be added at any time.
    #[must_use]
    pub fn store(&self) -> &ContentStore {
        &self.store
    }

    /// Returns the missing settings. If there are any, every search is answered locally.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Returns the names of the dependencies: embeddings, neighbours.
    #[must_use]
    pub fn names(&self) -> [&str; 2] {
        [self.embed.name(), self.find.name()]
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.config.credentials
    }

    /// Returns the index's model and the length of its vectors.
    pub(super) fn model(&self) -> (Arc<str>, usize) {
        (
            Arc::clone(&self.find_place.model),
            self.find_place.dimensions,
        )
    }
}

impl fmt::Debug for VectorSearch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("VectorSearch")
            .field("names", &self.names())
            .field("missing", &self.missing)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Returns a dependency by its name, with its connect timeout.
fn new(runtime: &Runtime, name: String) -> (NewDependency, Option<std::time::Duration>) {
    let mut connect = None;
    let new = runtime.dependency(name).configure(|settings| {
        connect = settings.timeout.connect;
    });
    (new, connect)
}

async fn start_embed(
    runtime: &Runtime,
    config: &VectorConfig,
    place: &ServiceContext,
    local_only: bool,
) -> Result<Client<EmbeddingWorker>, StartError> {
    let (new, connect) = new(runtime, format!("{}_embed", config.name));
    let place = place.clone();
    let mut builder = new.workers(move || EmbeddingWorker::new(place.clone(), connect));
    if local_only || config.auto_fallback {
        let local = |texts: Texts, _: &CallError<ServiceError>| {
            let all = texts
                .texts
                .iter()
                .map(|text| local_embedding(text))
                .collect();
            std::future::ready(Ok::<Vec<Embedding>, ServiceError>(all))
        };
        builder = builder.fallback_rule(FallbackRule::new(local).named(LOCAL_EMBEDDING));
    }
    if local_only {
        builder = builder.fallback_only(true);
    }
    builder.start().await
}

async fn start_find(
    runtime: &Runtime,
    config: &VectorConfig,
    place: &ServiceContext,
    store: &ContentStore,
    local_only: bool,
) -> Result<Client<NeighborWorker>, StartError> {
    let (new, connect) = new(runtime, format!("{}_find", config.name));
    let (place, store) = (place.clone(), store.clone());
    let mut builder = new.workers(move || NeighborWorker::new(place.clone(), connect));
    if local_only || config.auto_fallback {
        let local = move |wanted: NeighborQuery, _: &CallError<ServiceError>| {
            let found = wanted.text.map(|text| store.nearest(&text, wanted.count));
            std::future::ready(found.ok_or("the local index supports text only, not vectors"))
        };
        builder = builder.fallback_rule(FallbackRule::new(local).named(LOCAL_INDEX));
    }
    if local_only {
        builder = builder.fallback_only(true);
    }
    builder.start().await
}
