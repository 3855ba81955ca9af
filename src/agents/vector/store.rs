//! Store of documents by id: the index keeps no content.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead};
use std::sync::{Arc, RwLock};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Neighbor;
use super::local::LocalIndex;

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

    /// Adds text and metadata to each neighbour; those with an unknown id remain orphans.
    pub(super) fn join(&self, mut found: Vec<Neighbor>) -> Vec<Neighbor> {
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
}

impl fmt::Debug for ContentStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ContentStore")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
