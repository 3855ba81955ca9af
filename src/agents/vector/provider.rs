//! Ports of vector search: the traits that a provider of embeddings and a store of vectors
//! implement, and their requests.
//!
//! A provider makes one attempt and classifies its outcome. Retries, time limits, breakers and
//! fallbacks are the runtime's.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::filter::VectorFilter;
use super::{Embedding, Neighbor};
use crate::CallContext;
use crate::agents::{ServiceError, ServicePort, ServiceResponse, Tokens};
use crate::policy::Class;

/// The result of one attempt at a service, as the methods of providers return it.
pub type ServiceFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ServiceError>> + Send + 'a>>;

/// Properties of a model, as its provider states them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddingModel {
    /// The name. Only embeddings of the same model can be compared.
    pub name: Arc<str>,
    /// Length of an embedding; a response with another length is a set-up mistake.
    pub dimensions: usize,
    /// Maximum number of texts in one request.
    pub max_texts: usize,
    /// Maximum number of tokens in one request.
    pub max_tokens: u32,
    /// True if the service returns vectors of the norm one. The client scales all others to it, so
    /// that the dot product orders as the cosine does.
    pub normalized: bool,
}

impl EmbeddingModel {
    /// Describes a model: one text and 8,000 tokens in a request, vectors of any norm.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, dimensions: usize) -> Self {
        Self {
            name: name.into(),
            dimensions,
            max_texts: 1,
            max_tokens: 8_000,
            normalized: false,
        }
    }

    /// Sets the maximum number of texts in one request.
    #[must_use]
    pub fn max_texts(self, max_texts: usize) -> Self {
        Self { max_texts, ..self }
    }

    /// Sets the maximum number of tokens in one request.
    #[must_use]
    pub fn max_tokens(self, max_tokens: u32) -> Self {
        Self { max_tokens, ..self }
    }

    /// States that the service returns vectors of the norm one.
    #[must_use]
    pub fn normalized(self) -> Self {
        Self {
            normalized: true,
            ..self
        }
    }
}

/// The use of an embedding; some models embed queries and documents differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EmbeddingTask {
    /// A query.
    Query,
    /// A document of the index.
    Document,
}

/// Texts of one embedding request, within the limits of the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EmbeddingBatch {
    /// The texts.
    pub texts: Arc<[String]>,
    /// Their use.
    pub task: EmbeddingTask,
    /// Estimate of their tokens, which a rate limit counts.
    pub tokens: NonZeroU32,
}

/// The vector of one text, as a provider returns it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EmbeddedText {
    /// The vector.
    pub values: Vec<f32>,
    /// True if the text was too long and its end was left out.
    pub truncated: bool,
}

impl From<Vec<f32>> for EmbeddedText {
    fn from(values: Vec<f32>) -> Self {
        Self {
            values,
            truncated: false,
        }
    }
}

impl EmbeddedText {
    /// Sets the mark of a text that was cut at its end.
    #[must_use]
    pub fn truncated(self, truncated: bool) -> Self {
        Self { truncated, ..self }
    }
}

/// A provider of embeddings: it makes one attempt and classifies the outcome.
pub trait EmbeddingProvider: Send + Sync + 'static {
    /// Returns the name of its dependency, such as `vector_embed`.
    fn name(&self) -> &str;

    /// Returns the properties of its model.
    fn model(&self) -> &EmbeddingModel;

    /// Makes one attempt: one vector for each text, in their order. The client checks the number
    /// and the length of the vectors.
    fn embed<'a>(
        &'a self,
        batch: &'a EmbeddingBatch,
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, Vec<EmbeddedText>>;

    /// Returns the access tokens that it uses, so that they are refreshed before they expire and
    /// checked by health checks.
    fn tokens(&self) -> Option<Arc<Tokens>> {
        None
    }
}

/// A query of a vector store: by vector or by words, or with both known.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VectorQuery {
    /// The vector; `None` for a query by words alone.
    pub vector: Option<Embedding>,
    /// The words of the query, if known.
    pub words: Option<Arc<str>>,
    /// Conditions that each result meets.
    pub filter: VectorFilter,
    /// Maximum number of results.
    pub count: u32,
}

impl VectorQuery {
    /// Creates a query by vector.
    #[must_use]
    pub fn by_vector(vector: Embedding, count: u32) -> Self {
        Self {
            vector: Some(vector),
            words: None,
            filter: VectorFilter::default(),
            count,
        }
    }

    /// Creates a query by words.
    #[must_use]
    pub fn by_words(words: impl Into<Arc<str>>, count: u32) -> Self {
        Self {
            vector: None,
            words: Some(words.into()),
            filter: VectorFilter::default(),
            count,
        }
    }

    /// Sets the conditions that each result meets.
    #[must_use]
    pub fn filter(self, filter: VectorFilter) -> Self {
        Self { filter, ..self }
    }

    /// Returns the numbers of the vector.
    ///
    /// # Errors  The query is by words alone, and this store finds by vector only.
    pub fn values(&self) -> Result<&[f32], ServiceError> {
        let vector = self.vector.as_ref().map(|vector| &*vector.values);
        vector.ok_or_else(|| ServiceError::rejected("this store cannot be searched by words alone"))
    }
}

/// A point of a vector store.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VectorPoint {
    /// The id.
    pub id: String,
    /// The vector.
    pub vector: Embedding,
    /// The text, if the store shall keep it.
    pub content: Option<String>,
    /// Further data, which filters can name.
    pub metadata: Map<String, Value>,
}

impl VectorPoint {
    /// Creates a point without content and metadata.
    #[must_use]
    pub fn new(id: impl Into<String>, vector: Embedding) -> Self {
        Self {
            id: id.into(),
            vector,
            content: None,
            metadata: Map::new(),
        }
    }
}

/// A store of vectors: it makes one attempt and classifies the outcome.
pub trait VectorStore: Send + Sync + 'static {
    /// Returns the name of its dependency for searches, such as `vector_find`.
    fn name(&self) -> &str;

    /// Returns the name of its dependency for writes, such as `vector_write`; `None` if it cannot
    /// be written.
    fn write_name(&self) -> Option<&str> {
        None
    }

    /// Returns true if it can be searched by words without a vector.
    fn finds_words(&self) -> bool {
        false
    }

    /// Returns true if it keeps the content and the metadata of its points, and returns them.
    fn keeps_content(&self) -> bool {
        true
    }

    /// Returns the maximum number of points or ids in one write.
    fn max_points(&self) -> usize {
        100
    }

    /// Makes one attempt at a search. An empty result is not an error.
    fn find<'a>(
        &'a self,
        query: &'a VectorQuery,
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, Vec<Neighbor>>;

    /// Makes one attempt to store these points, in place of earlier ones with their ids.
    fn upsert<'a>(
        &'a self,
        points: &'a [VectorPoint],
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        let _ = (points, port, call);
        Box::pin(std::future::ready(Err(read_only())))
    }

    /// Makes one attempt to remove the points with these ids; unknown ids are not an error.
    fn remove<'a>(
        &'a self,
        ids: &'a [String],
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        let _ = (ids, port, call);
        Box::pin(std::future::ready(Err(read_only())))
    }

    /// Returns the access tokens that it uses, as [`EmbeddingProvider::tokens`] does.
    fn tokens(&self) -> Option<Arc<Tokens>> {
        None
    }
}

/// Returns the error of a store's response. All vectors have the length of the model, so a refusal
/// of their length is a set-up mistake.
pub(super) fn store_failure(answer: &ServiceResponse) -> ServiceError {
    if is_about_length(answer) {
        answer.failure_of(Class::Misconfigured)
    } else {
        answer.failure()
    }
}

/// Returns true if a response refuses the length of a vector.
pub(super) fn is_about_length(answer: &ServiceResponse) -> bool {
    let refuses = [400, 422].contains(&answer.status);
    refuses && answer.message().to_ascii_lowercase().contains("dimension")
}

fn read_only() -> ServiceError {
    ServiceError::rejected("this store cannot be written")
}
