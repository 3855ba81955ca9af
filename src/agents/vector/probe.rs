//! Checks of the service itself, under its breaker and limits, bypassing every fallback.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::service::{EmbeddingWorker, NeighborQuery, NeighborWorker, Texts, verdict};
use super::{Embedding, QUERY, VectorSearch, local_embedding};
use crate::agents::ServiceError;
use crate::{CallError, CallOptions};

impl VectorSearch {
    /// Checks that a token can be fetched, bypassing the cache.
    pub(in crate::agents) async fn probe_token(&self) -> Result<(), ServiceError> {
        self.embed_place.tokens.check().await
    }

    /// Returns the service's own embedding, under its breaker and bypassing every fallback.
    pub(in crate::agents) async fn probe_embedding(
        &self,
        text: &str,
    ) -> Result<Embedding, CallError<ServiceError>> {
        let (place, connect) = (&self.embed_place, self.embed.settings().timeout.connect);
        let texts = Texts {
            texts: Arc::from([text.to_owned()]),
            task: QUERY,
            tokens: NonZeroU32::MIN,
        };
        let texts = &texts;
        let asked = self.embed.run_with(
            CallOptions::default(),
            |result| verdict(result.as_ref()),
            || async move {
                EmbeddingWorker::new(place.clone(), connect)
                    .ask(texts, None)
                    .await
            },
        );
        let mut embeddings = asked.await?.into_iter();
        // `ask` returns as many embeddings as texts, or an error.
        Ok(embeddings.next().unwrap_or_else(|| local_embedding(text)))
    }

    /// Returns the number of neighbours from the index itself, under its breaker and bypassing
    /// every fallback.
    pub(in crate::agents) async fn probe_index(
        &self,
        vector: Embedding,
    ) -> Result<usize, CallError<ServiceError>> {
        let (place, connect) = (&self.find_place, self.find.settings().timeout.connect);
        let wanted = NeighborQuery {
            text: None,
            vector,
            count: 1,
        };
        let wanted = &wanted;
        let asked = self.find.run_with(
            CallOptions::default(),
            |result| verdict(result.as_ref()),
            || async move {
                NeighborWorker::new(place.clone(), connect)
                    .ask(wanted, None)
                    .await
            },
        );
        Ok(asked.await?.len())
    }
}
