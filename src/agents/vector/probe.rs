//! Checks of the service itself, under its breaker and limits, bypassing every fallback.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::provider::{EmbeddingBatch, EmbeddingTask, VectorQuery};
use super::setup::distinct_tokens;
use super::{Embedding, VectorSearch, local_embedding};
use crate::agents::ServiceError;
use crate::{CallError, CallOptions};

/// Options of a check: one attempt, counted as a write, which no fallback answers (rule FBK-2).
fn options() -> CallOptions {
    CallOptions {
        write: Some(true),
        idempotent: Some(false),
        ..CallOptions::default()
    }
}

impl VectorSearch {
    /// Checks that tokens can be fetched, bypassing their caches. Returns their number.
    pub(in crate::agents) async fn probe_tokens(&self) -> Result<usize, ServiceError> {
        let all = distinct_tokens(&self.providers);
        for tokens in &all {
            tokens.check().await?;
        }
        Ok(all.len())
    }

    /// Returns the service's own embedding, under its breaker and bypassing every fallback.
    pub(in crate::agents) async fn probe_embedding(
        &self,
        text: &str,
    ) -> Result<Embedding, CallError<ServiceError>> {
        let batch = EmbeddingBatch {
            texts: Arc::from([text.to_owned()]),
            task: EmbeddingTask::Query,
            tokens: NonZeroU32::MIN,
        };
        let answer = self.embed.ask_with(batch, options()).await?;
        let mut embeddings = answer.value.into_iter();
        // The worker returns as many embeddings as texts, or an error.
        Ok(embeddings.next().unwrap_or_else(|| local_embedding(text)))
    }

    /// Returns the number of neighbours from the store itself, under its breaker and bypassing
    /// every fallback.
    pub(in crate::agents) async fn probe_index(
        &self,
        vector: Embedding,
    ) -> Result<usize, CallError<ServiceError>> {
        let query = VectorQuery::by_vector(vector, 1);
        let answer = self.find.ask_with(query, options()).await?;
        Ok(answer.value.len())
    }
}
