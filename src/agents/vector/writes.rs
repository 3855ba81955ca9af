//! Writes to the store of vectors, split into requests within its limits.

use std::sync::Arc;

use super::provider::{EmbeddingBatch, EmbeddingTask, VectorPoint};
use super::store::Document;
use super::worker::{StoreWrite, StoreWriter};
use super::{Embedding, VectorSearch};
use crate::agents::{AgentError, InvalidInput};
use crate::{CallOptions, Client};

impl VectorSearch {
    /// Embeds documents and stores them, in place of earlier ones with their ids. With local
    /// fallbacks, or if the store keeps vectors alone, they are kept in the content store too.
    ///
    /// A local embedding never takes the place of the model's.
    ///
    /// # Errors  The store cannot be written, a text is empty or too long, or a service failed:
    /// earlier parts are stored, and storing all of them again is harmless.
    pub async fn upsert(&self, documents: &[Document]) -> Result<(), AgentError> {
        self.writer()?;
        let model = self.providers.embedding.model();
        let texts: Vec<String> = documents.iter().map(|one| one.content.clone()).collect();
        let batches = EmbeddingBatch::split(model, &texts, EmbeddingTask::Document)?;
        let mut vectors: Vec<Embedding> = Vec::with_capacity(texts.len());
        for batch in batches {
            // FBK-2: a write, so no fallback answers it.
            let options = CallOptions {
                write: Some(true),
                ..CallOptions::default()
            };
            vectors.extend(self.embed.ask_with(batch, options).await?.value);
        }
        let points = documents.iter().zip(vectors).map(|(document, vector)| {
            let mut point = VectorPoint::new(&document.id, vector);
            point.content = Some(document.content.clone());
            point.metadata = document.metadata.clone();
            point
        });
        self.upsert_points(points.collect()).await
    }

    /// Stores points with their vectors, in place of earlier ones with their ids.
    ///
    /// # Errors  The store cannot be written, a vector is of another model or length, or the service
    /// failed: as [`VectorSearch::upsert`].
    pub async fn upsert_points(&self, points: Vec<VectorPoint>) -> Result<(), AgentError> {
        let writer = self.writer()?;
        let model = self.providers.embedding.model();
        points
            .iter()
            .try_for_each(|point| model.accept(&point.vector))?;
        for part in points.chunks(self.providers.store.max_points().max(1)) {
            writer.ask(StoreWrite::Upsert(Arc::from(part))).await?;
            self.keep(part);
        }
        Ok(())
    }

    /// Removes the points with these ids from the store and from the content store.
    ///
    /// # Errors  The store cannot be written, or the service failed: earlier parts are removed.
    pub async fn remove(&self, ids: &[String]) -> Result<(), AgentError> {
        let writer = self.writer()?;
        for part in ids.chunks(self.providers.store.max_points().max(1)) {
            writer.ask(StoreWrite::Remove(Arc::from(part))).await?;
            for id in part {
                self.store.remove(id);
            }
        }
        Ok(())
    }

    fn writer(&self) -> Result<&Client<StoreWriter>, InvalidInput> {
        let allowed = if self.missing.is_empty() {
            "a store that can be written; an index of Vertex AI needs its id"
        } else {
            "a search that is set up completely"
        };
        let given = "a store for reading";
        let writer = self.write.as_ref();
        writer.ok_or_else(|| InvalidInput::new("the write", given, allowed))
    }

    fn keep(&self, points: &[VectorPoint]) {
        if !self.providers.auto_fallback && self.providers.store.keeps_content() {
            return;
        }
        for point in points {
            if let Some(content) = &point.content {
                self.store.put(Document {
                    id: point.id.clone(),
                    content: content.clone(),
                    metadata: point.metadata.clone(),
                });
            }
            self.store.put_vector(&point.id, point.vector.clone());
        }
    }
}
