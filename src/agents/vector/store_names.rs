//! Names of the two dependencies of a store.

use std::sync::Arc;

/// The names of a store's dependencies for searches and for writes.
#[derive(Debug, Clone)]
pub(super) struct StoreNames {
    find: Arc<str>,
    write: Arc<str>,
}

impl StoreNames {
    pub(super) fn new(find: impl Into<Arc<str>>, write: impl Into<Arc<str>>) -> Self {
        Self {
            find: find.into(),
            write: write.into(),
        }
    }

    pub(super) fn find(&self) -> &str {
        &self.find
    }

    pub(super) fn write(&self) -> &str {
        &self.write
    }
}

impl Default for StoreNames {
    fn default() -> Self {
        Self::new("vector_find", "vector_write")
    }
}
