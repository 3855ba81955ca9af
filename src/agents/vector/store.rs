//! Store of documents by id, for indexes that keep no content; it is also the local store of vectors.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead};
use std::sync::{Arc, RwLock};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::filter::VectorFilter;
use super::local::LocalIndex;
use super::provider::{ServiceFuture, VectorPoint, VectorQuery, VectorStore};
use super::store_names::StoreNames;
use super::{Embedding, Neighbor};
use crate::CallContext;
use crate::agents::ServicePort;
use crate::lock::RwLockExt as _;

/// A text with its id and metadata.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Document {
    /// The id, the same as in the index.
    pub id: String,
    /// The text.
    pub content: String,
    /// Further data.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// Documents by id, and the local index over them. Cheap to clone; all clones share one store.
#[derive(Clone, Default)]
pub struct ContentStore {
    documents: Arc<RwLock<HashMap<String, Document>>>,
    index: LocalIndex,
    names: StoreNames,
}

impl ContentStore {
    /// Stores a document, in place of an earlier one with its id.
    pub fn put(&self, document: Document) {
        self.index.put(&document.id, &document.content);
        let mut documents = self.documents.acquire_write();
        documents.insert(document.id.clone(), document);
    }

    /// Reads documents, one JSON object per line, and returns their number. Skips empty lines.
    ///
    /// # Errors  A line cannot be read, or is not a document; those before it are stored.
    pub fn load(&self, lines: impl BufRead) -> io::Result<usize> {
        let mut count = 0;
        for (number, line) in lines.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let document = serde_json::from_str(&line).map_err(|error| {
                let text = format!(
                    "line {} is not a document: {error}, allowed: {{\"id\", \"content\", \"metadata\"}}",
                    number + 1
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            self.put(document);
            count += 1;
        }
        Ok(count)
    }

    /// Returns the document with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Document> {
        let documents = self.documents.acquire_read();
        documents.get(id).cloned()
    }

    /// Returns the number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.documents.acquire_read().len()
    }

    /// Returns true if there are no documents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a clone with other names of the dependencies for searches and for writes, which it has
    /// as a [`VectorStore`]; `vector_find` and `vector_write` by default.
    #[must_use]
    pub fn named(&self, find: impl Into<Arc<str>>, write: impl Into<Arc<str>>) -> Self {
        Self {
            names: StoreNames::new(find, write),
            ..self.clone()
        }
    }

    /// Removes the document with this id, and its vector.
    pub fn remove(&self, id: &str) {
        self.index.remove(id);
        self.documents.acquire_write().remove(id);
    }

    /// Stores the vector of a document beside its text, so that the local index can compare it.
    pub fn put_vector(&self, id: &str, vector: Embedding) {
        self.index.put_vector(id, vector);
    }

    /// Adds text and metadata to each neighbour with an id that it has. Others keep the content that their
    /// index gave, or remain orphans.
    #[must_use]
    pub fn join(&self, mut found: Vec<Neighbor>) -> Vec<Neighbor> {
        for neighbor in &mut found {
            if let Some(document) = self.get(&neighbor.id) {
                neighbor.content = Some(document.content);
                neighbor.metadata = document.metadata;
            }
        }
        found
    }

    /// Returns the local index's results for a text.
    #[must_use]
    pub fn nearest(&self, text: &str, count: u32) -> Vec<Neighbor> {
        self.join(self.index.nearest(text, count))
    }

    /// Returns the local index's results for a query: by its vector, if every document here has a
    /// comparable one, else by its words. `None` if the query has neither.
    #[must_use]
    pub fn nearest_to(&self, query: &VectorQuery) -> Option<Vec<Neighbor>> {
        // A filter is applied to all results, before they are cut to their number.
        let most = if query.filter.is_empty() {
            query.count
        } else {
            u32::MAX
        };
        let by_vector = query.vector.as_ref().filter(|vector| {
            // Without words, some results are better than none.
            self.index.covers(vector) || query.words.is_none()
        });
        let found = match (by_vector, &query.words) {
            (Some(vector), words) => {
                let found = self.index.nearest_vector(vector, most);
                if found.is_empty() && words.is_none() {
                    return None;
                }
                found
            }
            (None, Some(words)) => self.index.nearest(words, most),
            (None, None) => return None,
        };
        let mut found = self.join(found);
        found.retain(|one| accepts(&query.filter, one));
        found.truncate(usize::try_from(query.count).unwrap_or(usize::MAX));
        Some(found)
    }
}

fn accepts(filter: &VectorFilter, neighbor: &Neighbor) -> bool {
    filter.accepts(&neighbor.metadata)
}

/// The documents of this process as a store of vectors: for tests, and for programs that need no
/// service for a few thousand documents. They are lost when the process ends.
impl VectorStore for ContentStore {
    fn name(&self) -> &str {
        self.names.find()
    }

    fn write_name(&self) -> Option<&str> {
        Some(self.names.write())
    }

    fn finds_words(&self) -> bool {
        true
    }

    fn find<'a>(
        &'a self,
        query: &'a VectorQuery,
        _: &'a ServicePort,
        _: &'a CallContext,
    ) -> ServiceFuture<'a, Vec<Neighbor>> {
        Box::pin(async move { Ok(self.nearest_to(query).unwrap_or_default()) })
    }

    fn upsert<'a>(
        &'a self,
        points: &'a [VectorPoint],
        _: &'a ServicePort,
        _: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        Box::pin(async move {
            for point in points {
                self.put(Document {
                    id: point.id.clone(),
                    content: point.content.clone().unwrap_or_default(),
                    metadata: point.metadata.clone(),
                });
                self.put_vector(&point.id, point.vector.clone());
            }
            Ok(())
        })
    }

    fn remove<'a>(
        &'a self,
        ids: &'a [String],
        _: &'a ServicePort,
        _: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        Box::pin(async move {
            for id in ids {
                ContentStore::remove(self, id);
            }
            Ok(())
        })
    }
}

impl fmt::Debug for ContentStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ContentStore")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
