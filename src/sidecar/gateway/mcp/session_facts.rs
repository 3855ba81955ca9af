//! The facts that a session keeps of its caller's messages: copied, bounded, and counted.
//!
//! EDGE-4: a part of a message keeps the whole message in memory, so nothing here is one.

use std::collections::BTreeSet;

use crate::buffer_budget::{BufferBudget, BufferShare};
use crate::mcp::json_text::JsonText;
use crate::mcp::request_meta;

/// Maximum number of resources that a session may watch.
pub(super) const MAX_RESOURCES: usize = 256;
/// Maximum length of the address of a watched resource, in bytes.
pub(super) const MAX_URI: usize = 4 * 1024;
/// Maximum size of the capabilities that are kept, in bytes.
const MAX_CAPABILITIES: usize = 16 * 1024;

/// Returns the capabilities of a caller as they are kept. Of those that are too large, only the ones
/// that are asked for here.
pub(super) fn kept_capabilities(told: Option<&JsonText>) -> JsonText {
    let none = || JsonText::checked(bytes::Bytes::from_static(b"{}"));
    let Some(told) = told.filter(|told| told.is_object()) else {
        return none();
    };
    if told.bytes().len() <= MAX_CAPABILITIES {
        return told.copied();
    }
    let mut members = request_meta::members(told).unwrap_or_default();
    members.retain(|name, _| ["elicitation", "sampling", "roots"].contains(&name.as_str()));
    let kept = JsonText::checked(request_meta::written(&members));
    match kept.bytes().len() <= MAX_CAPABILITIES {
        true => kept,
        false => none(),
    }
}

/// The reason why a session cannot watch a resource.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WatchFault {
    /// It exceeds a limit, which the text names.
    NotAllowed(String),
    /// There is no memory to keep its address.
    NoMemory,
}

/// The resources that a session watches, with their part of the budget.
pub(super) struct WatchedResources {
    uris: BTreeSet<String>,
    /// Bytes of the capabilities of the session.
    base: usize,
    room: BufferShare,
}

impl WatchedResources {
    /// Creates an empty list. `base`: bytes that the session keeps beside it.
    pub(super) fn new(base: usize, budget: &BufferBudget) -> Self {
        let mut room = budget.share();
        // Sessions are few, and their capabilities are small: they are counted, not refused.
        let _ = room.grow_to(base);
        Self {
            uris: BTreeSet::new(),
            base,
            room,
        }
    }

    pub(super) fn uris(&self) -> &BTreeSet<String> {
        &self.uris
    }

    /// Adds a resource.
    ///
    /// # Errors  It is too long, or there are too many, or there is no memory for it.
    pub(super) fn watch(&mut self, uri: String) -> Result<(), WatchFault> {
        if self.uris.contains(&uri) {
            return Ok(());
        }
        let invalid = |text: String| Err(WatchFault::NotAllowed(text));
        if uri.len() > MAX_URI {
            return invalid(format!("uri is longer than {MAX_URI} bytes"));
        }
        if self.uris.len() >= MAX_RESOURCES {
            return invalid(format!("a session may watch {MAX_RESOURCES} resources"));
        }
        let kept: usize = self.uris.iter().map(String::len).sum();
        if !self.room.grow_to(self.base + kept + uri.len()) {
            return Err(WatchFault::NoMemory);
        }
        self.uris.insert(uri);
        Ok(())
    }

    pub(super) fn unwatch(&mut self, uri: &str) {
        self.uris.remove(uri);
    }

    /// Takes over what a former part of the session watched.
    pub(super) fn inherit(&mut self, uris: BTreeSet<String>) {
        for uri in uris {
            if let Err(fault) = self.watch(uri) {
                tracing::debug!(?fault, "a resource is not watched any more");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_4_a1_capabilities_are_copied_and_bounded() {
        let small = bytes::Bytes::from_static(b"[{\"roots\":{}}]");
        let told = JsonText::checked(small.slice(1..13));
        let kept = kept_capabilities(Some(&told));
        assert_eq!(kept, told);
        assert!(!small.as_ptr_range().contains(&kept.bytes().as_ptr()));
        let large = format!(r#"{{"roots":{{}},"x":"{}"}}"#, "y".repeat(MAX_CAPABILITIES));
        let kept = kept_capabilities(Some(&JsonText::checked(large.into())));
        assert_eq!(kept.as_str(), r#"{"roots":{}}"#);
        let large = format!(r#"{{"roots":"{}"}}"#, "y".repeat(1 << 20));
        let kept = kept_capabilities(Some(&JsonText::checked(large.into())));
        assert_eq!(kept.as_str(), "{}");
    }

    #[test]
    fn edge_4_a1_watched_addresses_count_and_are_bounded() {
        let budget = BufferBudget::new(10_000);
        let mut watched = WatchedResources::new(100, &budget);
        assert!(watched.watch("u".repeat(MAX_URI + 1)).is_err());
        watched.watch("u".repeat(MAX_URI)).unwrap();
        assert_eq!(budget.present().used, 100 + 4096);
        watched.watch("v".repeat(MAX_URI)).unwrap();
        let refused = watched.watch("w".repeat(MAX_URI));
        assert_eq!(refused, Err(WatchFault::NoMemory));
        watched.unwatch(&"v".repeat(MAX_URI));
        watched.watch("w".repeat(MAX_URI)).unwrap();
        drop(watched);
        assert_eq!(budget.present().used, 0);
    }
}
