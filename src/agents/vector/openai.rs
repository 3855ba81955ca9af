//! Embeddings of any endpoint that is compatible with OpenAI's: OpenAI itself, Ollama, vLLM, Text
//! Embeddings Inference, LocalAI and others.

use serde::Deserialize;
use serde_json::{Value, json};

use super::provider::{
    EmbeddedText, EmbeddingBatch, EmbeddingModel, EmbeddingProvider, ServiceFuture,
};
use crate::CallContext;
use crate::agents::{ServiceError, ServicePort, ServiceRequest, ServiceResponse};
use crate::config::Secret;
use crate::policy::Class;

/// Provider for the endpoint `/embeddings` below a base URL.
#[derive(Debug)]
pub struct OpenAiEmbedding {
    name: String,
    base: String,
    model: EmbeddingModel,
    key: Option<Secret>,
    asks_length: bool,
}

impl OpenAiEmbedding {
    /// Creates a provider for a base URL such as `https://api.openai.com/v1`, its model, and the
    /// length of the model's embeddings.
    #[must_use]
    pub fn new(base: impl Into<String>, model: &str, dimensions: usize) -> Self {
        let base = base.into();
        Self {
            name: "vector_embed".to_owned(),
            base: base.trim_end_matches('/').to_owned(),
            model: EmbeddingModel::new(model, dimensions).max_texts(100),
            key: None,
            asks_length: false,
        }
    }

    /// Sets the API key.
    #[must_use]
    pub fn key(self, key: Secret) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// Asks the service for embeddings of the stated length, shorter than the model's own. Few
    /// models can; others refuse the request.
    #[must_use]
    pub fn shortened(self) -> Self {
        Self {
            asks_length: true,
            ..self
        }
    }

    /// Sets the limits of one request; 100 texts and 8,000 tokens by default.
    #[must_use]
    pub fn limits(mut self, max_texts: usize, max_tokens: u32) -> Self {
        self.model = self.model.max_texts(max_texts).max_tokens(max_tokens);
        self
    }

    /// Sets the name of the dependency; `vector_embed` by default.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

/// Returns the error of a response. Texts are all that differs between requests, so a refusal of
/// another parameter is a set-up mistake.
fn failed(answer: &ServiceResponse) -> ServiceError {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let field = |name: &str| {
        let value = body.pointer(&format!("/error/{name}"));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (code, parameter) = (field("code"), field("param"));
    match answer.status {
        // The account has no means left; no wait helps.
        429 if code == "insufficient_quota" => answer.failure_of(Class::Misconfigured),
        400 | 422 if ["model", "dimensions", "encoding_format"].contains(&&*parameter) => {
            answer.failure_of(Class::Misconfigured)
        }
        400 if code == "model_not_found" => answer.failure_of(Class::Misconfigured),
        _ => answer.failure(),
    }
}

#[derive(Deserialize)]
struct EmbeddingList {
    data: Vec<ListedEmbedding>,
}

#[derive(Deserialize)]
struct ListedEmbedding {
    #[serde(default)]
    index: usize,
    embedding: Vec<f32>,
}

impl EmbeddingProvider for OpenAiEmbedding {
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
            let mut body = json!({
                "model": &*self.model.name, "input": &*batch.texts, "encoding_format": "float",
            });
            if self.asks_length {
                body["dimensions"] = Value::from(self.model.dimensions);
            }
            let mut asked = ServiceRequest::post_json(format!("{}/embeddings", self.base), &body);
            if let Some(key) = &self.key {
                asked = asked.bearer(key)?;
            }
            let answer = port.send(asked, call).await?;
            if !answer.is_success() {
                return Err(failed(&answer).without_key(self.key.as_ref()));
            }
            let EmbeddingList { mut data } = answer.json()?;
            data.sort_by_key(|one| one.index);
            Ok(data.into_iter().map(|one| one.embedding.into()).collect())
        })
    }
}
