//! Embeddings by a model of Vertex AI.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{ask, host, is_content_only};
use crate::CallContext;
use crate::agents::vector::provider::{
    EmbeddedText, EmbeddingBatch, EmbeddingModel, EmbeddingProvider, EmbeddingTask, ServiceFuture,
};
use crate::agents::{ServiceError, ServicePort, ServiceRequest, Tokens};

/// Length at which the models of Gemini return vectors of the norm one.
const FULL_LENGTH: usize = 3072;

/// Embeddings by a model of Vertex AI.
///
/// `gemini-embedding-2` and later are asked by `:embedContent`, one text at a time; the others by
/// `:predict`, `gemini-embedding-001` with one text and the rest with up to 250.
#[derive(Debug)]
pub struct VertexEmbedding {
    name: String,
    url: String,
    model: EmbeddingModel,
    tokens: Arc<Tokens>,
}

impl VertexEmbedding {
    /// Creates a provider for a model of a project, at a location such as `europe-west1` or
    /// `global`. `dimensions`: length of the embeddings.
    #[must_use]
    pub fn new(
        project: &str,
        location: &str,
        model: &str,
        dimensions: usize,
        tokens: Arc<Tokens>,
    ) -> Self {
        Self::at(
            &host(location),
            project,
            location,
            model,
            dimensions,
            tokens,
        )
    }

    pub(in crate::agents::vector) fn at(
        base: &str,
        project: &str,
        location: &str,
        model: &str,
        dimensions: usize,
        tokens: Arc<Tokens>,
    ) -> Self {
        let is_gemini = model.starts_with("gemini-");
        let verb = if is_content_only(model) {
            "embedContent"
        } else {
            "predict"
        };
        let mut described = EmbeddingModel::new(model, dimensions)
            // Google's pages disagree on the number for the models of Gemini; it is one.
            .max_texts(if is_gemini { 1 } else { 250 })
            .max_tokens(20_000);
        // Shortened vectors lose their norm.
        described.normalized = is_gemini && dimensions == FULL_LENGTH;
        Self {
            name: "vector_embed".to_owned(),
            url: format!(
                "{base}/v1/projects/{project}/locations/{location}/publishers/google/models/{model}:{verb}"
            ),
            model: described,
            tokens,
        }
    }

    /// Sets the name of the dependency; `vector_embed` by default.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets limits below those of the service.
    pub(in crate::agents::vector) fn limited(mut self, max_texts: usize, max_tokens: u32) -> Self {
        self.model.max_texts = self.model.max_texts.min(max_texts.max(1));
        self.model.max_tokens = max_tokens;
        self
    }

    async fn predict(
        &self,
        batch: &EmbeddingBatch,
        way: (&ServicePort, &CallContext),
    ) -> Result<Vec<EmbeddedText>, ServiceError> {
        let task = match batch.task {
            EmbeddingTask::Query => "RETRIEVAL_QUERY",
            EmbeddingTask::Document => "RETRIEVAL_DOCUMENT",
        };
        let instance = |text: &String| json!({ "content": text, "task_type": task });
        let body = json!({
            "instances": batch.texts.iter().map(instance).collect::<Vec<_>>(),
            "parameters": { "autoTruncate": true, "outputDimensionality": self.model.dimensions },
        });
        let asked = ServiceRequest::post_json(self.url.clone(), &body);
        let PredictionsResponse { predictions } = ask(&self.tokens, asked, way).await?;
        let embedded = predictions.into_iter().map(|one| {
            let EmbeddingValues { values, statistics } = one.embeddings;
            EmbeddedText::from(values).truncated(statistics.truncated)
        });
        Ok(embedded.collect())
    }

    /// Embeds one text after the other; a batch has one.
    async fn embed_content(
        &self,
        batch: &EmbeddingBatch,
        way: (&ServicePort, &CallContext),
    ) -> Result<Vec<EmbeddedText>, ServiceError> {
        let mut all = Vec::with_capacity(batch.texts.len());
        for text in &*batch.texts {
            // These models take no type of task; the text tells it.
            let text = match batch.task {
                EmbeddingTask::Query => format!("task: search result | query: {text}"),
                EmbeddingTask::Document => format!("title: none | text: {text}"),
            };
            let body = json!({
                "content": { "parts": [{ "text": text }] },
                "outputDimensionality": self.model.dimensions,
            });
            let asked = ServiceRequest::post_json(self.url.clone(), &body);
            let answer: ContentResponse = ask(&self.tokens, asked, way).await?;
            all.push(EmbeddedText::from(answer.embedding.values).truncated(answer.truncated));
        }
        Ok(all)
    }
}

#[derive(Deserialize)]
struct PredictionsResponse {
    predictions: Vec<EmbeddingPrediction>,
}

#[derive(Deserialize)]
struct EmbeddingPrediction {
    embeddings: EmbeddingValues,
}

#[derive(Deserialize)]
struct EmbeddingValues {
    values: Vec<f32>,
    #[serde(default)]
    statistics: Statistics,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Statistics {
    truncated: bool,
}

#[derive(Deserialize)]
struct ContentResponse {
    embedding: EmbeddingValues,
    #[serde(default)]
    truncated: bool,
}

impl EmbeddingProvider for VertexEmbedding {
    fn name(&self) -> &str {
        &self.name
    }

    fn model(&self) -> &EmbeddingModel {
        &self.model
    }

    fn embed<'a>(
        &'a self,
        batch: &'a EmbeddingBatch,
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, Vec<EmbeddedText>> {
        Box::pin(async move {
            if is_content_only(&self.model.name) {
                self.embed_content(batch, (port, call)).await
            } else {
                self.predict(batch, (port, call)).await
            }
        })
    }

    fn tokens(&self) -> Option<Arc<Tokens>> {
        Some(Arc::clone(&self.tokens))
    }
}
