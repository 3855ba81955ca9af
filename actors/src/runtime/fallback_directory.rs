//! Fallbacks by name: the runtime as the directory of its dependencies.

use std::any::Any;
use std::sync::Arc;

use super::{Runtime, WeakRuntime};
use crate::fallback::{ByName, FallbackDirectory};

impl FallbackDirectory for WeakRuntime {
    fn find(&self, name: &str) -> Option<Box<dyn Any>> {
        self.upgrade()?.erased_fallback(name)
    }
}

impl ByName {
    /// The dependency of this name in `runtime`.
    #[must_use]
    pub fn new(runtime: &Runtime, name: impl Into<String>) -> Self {
        Self::of(Arc::new(runtime.downgrade()), name.into())
    }
}
