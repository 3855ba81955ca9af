//! What a tool is asked, and what it answers.

use std::fmt;

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Map, Value};

/// One call of one tool.
///
/// Two are the same when tool and arguments are.
#[derive(Clone)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments, by name.
    pub arguments: Map<String, Value>,
    pub(super) nature: Nature,
}

/// What is known of a tool before it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nature {
    /// Whether it changes something.
    pub(crate) write: bool,
    /// Whether it may be done twice without harm.
    pub(crate) idempotent: bool,
}

impl Nature {
    /// The worst that a tool can be, which is what one is that nobody knows.
    pub(crate) const UNKNOWN: Self = Self {
        write: true,
        idempotent: false,
    };
}

impl ToolCall {
    /// A call of a tool of which nothing is known: a write, and not idempotent.
    #[must_use]
    pub fn new(name: impl Into<String>, arguments: Map<String, Value>) -> Self {
        Self {
            name: name.into(),
            arguments,
            nature: Nature::UNKNOWN,
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

/// The names of the arguments, and none of their values.
impl fmt::Debug for ToolCall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<&String> = self.arguments.keys().collect();
        out.debug_struct("ToolCall")
            .field("name", &self.name)
            .field("arguments", &arguments)
            .finish_non_exhaustive()
    }
}

/// What a tool answered, its own error too: then the server is well, and the call was wrong.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolResult {
    /// Whether this is the tool's own error (`isError`).
    pub is_error: bool,
    /// The texts of its content, a line break between two; images and the like are in `raw`.
    pub content: String,
    /// Its answer as a value, where the tool gives one.
    pub structured: Option<Value>,
    /// The whole result as the protocol has it.
    pub raw: Value,
}

impl ToolResult {
    /// A result of one text, as a fallback gives it.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::of(&CallToolResult::success(vec![ContentBlock::text(text)]))
    }

    /// A result of one value, as a fallback gives it: its text is the value's JSON.
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
            // What was read as JSON can be written as JSON.
            raw: serde_json::to_value(result).unwrap_or_default(),
        }
    }
}

/// Whether it is an error, and how long it is; what it says may be a secret.
impl fmt::Debug for ToolResult {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ToolResult")
            .field("is_error", &self.is_error)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}
