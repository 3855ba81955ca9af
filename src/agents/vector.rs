//! Vector search: a model embeds a text, a store finds its neighbours, and the content store
//! supplies their content where the store has none.
//!
//! Embeddings, searches and writes are dependencies with breakers of their own. If one of the first
//! two fails, local embeddings or a local index serve as fallback, and the answer names the
//! fallback. A local embedding is never sent to a store: its values are not comparable with those
//! of the model.
//!
//! The services are behind ports: [`EmbeddingProvider`] and [`VectorStore`].

mod filter;
mod input;
mod local;
mod provider;
mod store;
mod store_names;
mod worker;

mod chroma;
mod openai;
mod qdrant;
mod vertex;

mod config;
mod probe;
mod setup;
mod writes;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::AgentError;
use crate::{Answer, AnswerSource, Client, Runtime, StartError};

use super::token::Credentials;
pub use chroma::ChromaStore;
pub use config::{EmbeddingService, Missing, StoreService, VectorConfig};
pub use filter::{FieldCondition, FieldTest, VectorFilter};
use input::check_count;
pub use local::{LOCAL_MODEL, LocalIndex, local_embedding};
pub use openai::OpenAiEmbedding;
pub use provider::{
    EmbeddedText, EmbeddingBatch, EmbeddingModel, EmbeddingProvider, EmbeddingTask, ServiceFuture,
    VectorPoint, VectorQuery, VectorStore,
};
pub use qdrant::QdrantStore;
pub use setup::VectorProviders;
pub use store::{ContentStore, Document};
pub use vertex::{VertexEmbedding, VertexIndex};
use worker::{EmbeddingWorker, FindWorker, StoreWriter};

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
    /// Nearness, as measured by the store; the cosine for the local index.
    pub score: f64,
    /// The text; `None` if neither the store nor the content store has it.
    pub content: Option<String>,
    /// Further data of the document.
    pub metadata: Map<String, Value>,
}

impl Neighbor {
    /// Creates a result without content and metadata.
    #[must_use]
    pub fn new(id: impl Into<String>, score: f64) -> Self {
        Self {
            id: id.into(),
            score,
            content: None,
            metadata: Map::new(),
        }
    }

    /// Returns true if there is no text for the id: the content store or the index is out of date.
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
    missing: Arc<[Missing]>,
    credentials: Credentials,
    providers: VectorProviders,
    store: ContentStore,
    embed: Client<EmbeddingWorker>,
    find: Client<FindWorker>,
    write: Option<Client<StoreWriter>>,
}

impl VectorSearch {
    /// Starts the dependencies of the configured services, with settings from the runtime's
    /// configuration.
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
        setup::start(runtime, config, store).await
    }

    /// Starts the dependencies of these providers, with settings from the runtime's configuration.
    ///
    /// # Errors  A dependency did not start.
    pub async fn with_providers(
        runtime: &Runtime,
        providers: VectorProviders,
        store: ContentStore,
    ) -> Result<Self, VectorStartError> {
        setup::start_with(runtime, providers, store).await
    }

    /// Finds the nearest neighbours of a text.
    ///
    /// # Errors  The input is invalid, or neither the service nor a fallback answered.
    pub async fn search(
        &self,
        text: &str,
        count: u32,
    ) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        self.search_where(text, count, VectorFilter::default())
            .await
    }

    /// Finds the nearest neighbours of a text among the documents that a filter accepts.
    ///
    /// # Errors  As [`VectorSearch::search`].
    pub async fn search_where(
        &self,
        text: &str,
        count: u32,
        filter: VectorFilter,
    ) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        let count = check_count(count)?;
        let embedded = self.embed(text).await?;
        if *embedded.value.model == *LOCAL_MODEL {
            // Its values are not comparable with those of the index.
            let query = VectorQuery::by_words(text, count).filter(filter);
            return Ok(Answer {
                value: self.store.nearest_to(&query).unwrap_or_default(),
                source: AnswerSource::Fallback(Arc::from(LOCAL_INDEX)),
                age: None,
                attempts: embedded.attempts,
                elapsed: embedded.elapsed,
            });
        }
        let mut query = VectorQuery::by_vector(embedded.value, count).filter(filter);
        query.words = Some(Arc::from(text));
        self.ask_store(query).await
    }

    /// Finds the nearest neighbours of an embedding of the index's model.
    ///
    /// # Errors  The embedding is of another model or length, or the service did not answer and the
    /// local index has no vectors of this model.
    pub async fn find(
        &self,
        vector: Embedding,
        count: u32,
    ) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        self.find_by(VectorQuery::by_vector(vector, count)).await
    }

    /// Finds the points that a query describes: by vector or by words, with or without a filter.
    ///
    /// # Errors  As [`VectorSearch::find`]; or the query is by words alone, which this store cannot
    /// find.
    pub async fn find_by(&self, query: VectorQuery) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        let mut query = query;
        query.count = check_count(query.count)?;
        self.check_query(&query)?;
        self.ask_store(query).await
    }

    fn check_query(&self, query: &VectorQuery) -> Result<(), super::InvalidInput> {
        let by_words = self.providers.store.finds_words() && query.words.is_some();
        match &query.vector {
            Some(vector) => self.providers.embedding.model().accept(vector),
            None if by_words => Ok(()),
            None => {
                let allowed = "a vector: this store cannot be searched by words alone";
                Err(super::InvalidInput::new("the query", "no vector", allowed))
            }
        }
    }

    async fn ask_store(&self, query: VectorQuery) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        let mut answer = self.find.ask(query).await?;
        answer.value = self.store.join(answer.value);
        Ok(answer)
    }

    /// Returns the embedding of a query.
    ///
    /// # Errors  The text is empty or too long, or neither the service nor a fallback answered.
    pub async fn embed(&self, text: &str) -> Result<Answer<Embedding>, AgentError> {
        let model = self.providers.embedding.model();
        let batch = EmbeddingBatch::of(model, &[text.to_owned()], EmbeddingTask::Query)?;
        let answer = self.embed.ask(batch).await?;
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
        let model = self.providers.embedding.model();
        let batches = EmbeddingBatch::split(model, texts, EmbeddingTask::Document)?;
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

    /// Returns the name of the dependency for writes, if the store can be written.
    #[must_use]
    pub fn write_name(&self) -> Option<&str> {
        self.write.as_ref().map(Client::name)
    }

    /// Returns the properties of the model.
    #[must_use]
    pub fn model(&self) -> &EmbeddingModel {
        self.providers.embedding.model()
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
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
