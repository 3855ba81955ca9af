//! What stands behind an id: the index keeps none of it.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Neighbor;
use super::local::LocalIndex;

/// A text with its id and whatever is known of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Document {
    /// Its id, the same as in the index.
    pub id: String,
    /// Its text.
    pub content: String,
    /// Anything else.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// The documents by id, and the local index over them. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct ContentStore {
    documents: Arc<RwLock<HashMap<String, Document>>>,
    index: LocalIndex,
}

impl ContentStore {
    /// Puts a document in, in place of the one of that id.
    pub fn put(&self, document: Document) {
        self.index.put(&document.id, &document.content);
        let mut documents = self
            .documents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        documents.insert(document.id.clone(), document);
    }

    /// Reads documents, one JSON object a line; empty lines are passed over.
    ///
    /// # Errors  A line cannot be read, or is no document; those before it are in.
    pub fn load(&self, lines: impl BufRead) -> io::Result<usize> {
        let mut count = 0;
        for (number, line) in lines.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let document = serde_json::from_str(&line).map_err(|error| {
                let text = format!(
                    "line {} is no document: {error}, allowed: {{\"id\", \"content\", \"metadata\"}}",
                    number + 1
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            self.put(document);
            count += 1;
        }
        Ok(count)
    }

    /// The document of an id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Document> {
        let documents = self
            .documents
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        documents.get(id).cloned()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.documents
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what is known of each id; an id that is not known stays without, and says so.
    pub(super) fn join(&self, mut found: Vec<Neighbor>) -> Vec<Neighbor> {
        for neighbor in &mut found {
            if let Some(document) = self.get(&neighbor.id) {
                neighbor.content = Some(document.content);
                neighbor.metadata = document.metadata;
            }
        }
        found
    }

    /// What the local index has for a text.
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
