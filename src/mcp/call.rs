//! Calls of tools, and their results.

use std::fmt;

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Map, Value};

/// One call of one tool.
///
/// Two calls are equal if their tools and arguments are equal.
#[derive(Clone)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// The arguments, by name.
    pub arguments: Map<String, Value>,
    pub(super) nature: ToolTraits,
}

/// Traits of a tool, known before it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ToolTraits {
    /// True if it changes something.
    pub(crate) write: bool,
    /// True if it may be repeated without harm.
    pub(crate) idempotent: bool,
}

impl ToolTraits {
    /// The worst case, assumed for an unknown tool.
    pub(crate) const UNKNOWN: Self = Self {
        write: true,
        idempotent: false,
    };
}

impl ToolCall {
    /// Creates a call of an unknown tool: a write, and not idempotent.
    #[must_use]
    pub fn new(name: impl Into<String>, arguments: Map<String, Value>) -> Self {
        Self {
            name: name.into(),
            arguments,
            nature: ToolTraits::UNKNOWN,
        }
    }
}

impl PartialEq for ToolCall {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.arguments == other.arguments
    }
}

impl Eq for ToolCall {}

impl std::hash::Hash for ToolCall {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.arguments.hash(state);
    }
}

/// Shows the names of the arguments, but not their values.
impl fmt::Debug for ToolCall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<&String> = self.arguments.keys().collect();
        out.debug_struct("ToolCall")
            .field("name", &self.name)
            .field("arguments", &arguments)
            .finish_non_exhaustive()
    }
}

/// Result of a tool. It may be the tool's own error: then the server is healthy, and the call was
/// wrong.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolResult {
    /// True if this is the tool's own error (`isError`).
    pub is_error: bool,
    /// The texts of its content, joined by line breaks; images and the like are in `raw`.
    pub content: String,
    /// The structured result, if the tool returns one.
    pub structured: Option<Value>,
    /// The whole result, in the protocol's form.
    pub raw: Value,
}

impl ToolResult {
    /// Creates a result of one text, for a fallback.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::of(&CallToolResult::success(vec![ContentBlock::text(text)]))
    }

    /// Creates a result of one value, for a fallback. Its text is the value's JSON.
    #[must_use]
    pub fn structured(value: Value) -> Self {
        Self::of(&CallToolResult::structured(value))
    }

    pub(super) fn of(result: &CallToolResult) -> Self {
        let texts = result.content.iter().filter_map(|block| match block {
            ContentBlock::Text(text) => Some(text.text.as_str()),
            _ => None,
        });
        let texts: Vec<&str> = texts.collect();
        Self {
            is_error: result.is_error.unwrap_or(false),
            content: texts.join("\n"),
            structured: result.structured_content.clone(),
            // It was read from JSON, so it can be written as JSON.
            raw: serde_json::to_value(result).unwrap_or_default(),
        }
    }
}

/// Shows the error flag and the length, but not the content: it may be secret.
impl fmt::Debug for ToolResult {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ToolResult")
            .field("is_error", &self.is_error)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}
