//! Calls of tools, and their results.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use breakerbox_actors::AttemptProgress;

use super::audience::CallSide;
use super::canonical::canonical;
use super::json_text::JsonText;
use super::message::{LARGE, RawReply};

/// One call of one tool.
///
/// Two calls are equal if their tools and arguments are equal.
#[derive(Clone)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// The arguments, by name. A call that came through the gateway has none here: its arguments
    /// pass as text.
    pub arguments: Map<String, Value>,
    pub(super) nature: ToolTraits,
    passed: Option<PassedCall>,
}

/// A call as it came through the gateway.
#[derive(Clone)]
pub(crate) struct PassedCall {
    /// All parameters of the request.
    pub(crate) params: JsonText,
    pub(crate) arguments: Option<JsonText>,
    /// The members of a call that goes on after the user was asked.
    pub(crate) input: [Option<JsonText>; 2],
    /// The wish that it be made as a task.
    pub(crate) task: Option<JsonText>,
    pub(crate) side: CallSide,
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
            passed: None,
        }
    }

    /// Creates a call with parameters that pass as text.
    #[cfg(feature = "gateway")]
    pub(super) fn of_text(name: String, passed: PassedCall) -> Self {
        Self {
            name,
            arguments: Map::new(),
            nature: ToolTraits::UNKNOWN,
            passed: Some(passed),
        }
    }

    /// Returns the parameters of the request, the sides that hear of it, and true if the result
    /// stays a text.
    pub(super) fn into_request(self) -> (JsonText, CallSide, bool) {
        match self.passed {
            Some(passed) => (passed.params, passed.side, true),
            None => {
                let params = json!({ "name": self.name, "arguments": self.arguments });
                let side = CallSide {
                    // It is a call, though no caller can be asked about it.
                    progress: Some(AttemptProgress::default()),
                    ..CallSide::default()
                };
                (JsonText::of(&params), side, false)
            }
        }
    }

    /// Returns the arguments in one form for all calls that are equal. Large ones stay as they came.
    ///
    /// MCP-6: calls with other headers of their callers are other calls, so that no kept answer
    /// reaches another caller. So are those of sessions with processes of their own.
    fn identity(&self) -> CallIdentity<'_> {
        let Some(passed) = &self.passed else {
            let text = serde_json::to_string(&self.arguments).unwrap_or_default();
            let text = canonical(&text).into_owned().into();
            return (text, [None, None], false, Vec::new(), None);
        };
        let headers = passed
            .side
            .headers
            .iter()
            .flat_map(|headers| headers.iter());
        let mut headers: Vec<(&str, &[u8])> = headers
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        headers.sort_unstable();
        let input = passed.input.each_ref().map(Option::as_ref);
        // MCP-3: a call as a task has another kind of result, with any settings of the task.
        let is_task = passed.task.is_some();
        let text = match &passed.arguments {
            None => "{}".into(),
            Some(arguments) => canonical(arguments.as_str()),
        };
        let owner = passed.side.owner_number();
        (text, input, is_task, headers, owner)
    }
}

/// The arguments of a call, the parts of one that goes on, true for a task, and the headers and the
/// session of its caller.
type CallIdentity<'a> = (
    Cow<'a, str>,
    [Option<&'a JsonText>; 2],
    bool,
    Vec<(&'a str, &'a [u8])>,
    Option<u64>,
);

impl PartialEq for ToolCall {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.identity() == other.identity()
    }
}

impl Eq for ToolCall {}

impl std::hash::Hash for ToolCall {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.identity().hash(state);
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
#[derive(Clone)]
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
    /// The result as it came, if it was not read.
    reply: Option<RawReply>,
}

#[derive(Deserialize)]
struct ContentBlock {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

impl ToolResult {
    /// Creates a result of one text, for a fallback.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self::of(json!({ "content": [{ "type": "text", "text": text }], "isError": false }))
    }

    /// Creates a result of one value, for a fallback. Its text is the value's JSON.
    #[must_use]
    pub fn structured(value: Value) -> Self {
        let text = value.to_string();
        Self::of(json!({ "content": [{ "type": "text", "text": text }],
            "structuredContent": value, "isError": false }))
    }

    fn of(raw: Value) -> Self {
        let blocks = raw["content"].as_array().into_iter().flatten();
        let texts = blocks.filter_map(|block| {
            let is_text = block["type"] == "text";
            block["text"].as_str().filter(|_| is_text)
        });
        let texts: Vec<&str> = texts.collect();
        Self {
            is_error: raw["isError"] == true,
            content: texts.join("\n"),
            structured: raw.get("structuredContent").cloned(),
            raw,
            reply: None,
        }
    }

    /// Keeps a result as text, for a caller that passes it on.
    pub(super) fn unread(reply: RawReply) -> Self {
        Self {
            is_error: reply.head.is_error,
            content: String::new(),
            structured: None,
            raw: Value::Null,
            reply: Some(reply),
        }
    }

    /// Reads a result.
    pub(super) fn read(reply: &RawReply) -> Self {
        Self::of(reply.text.to_value())
    }

    /// Reads the result, if that was not done.
    pub(super) fn filled(self) -> Self {
        match &self.reply {
            Some(reply) => Self::read(reply),
            None => self,
        }
    }

    /// Returns the result as text.
    #[cfg(feature = "gateway")]
    pub(crate) fn into_reply(self) -> RawReply {
        match self.reply {
            Some(reply) => reply,
            None => RawReply::of(JsonText::of(&self.raw)),
        }
    }

    /// Returns true if the server asks for input of its caller's user.
    pub(super) fn asks_for_input(&self) -> bool {
        match &self.reply {
            Some(reply) => reply.head.asks_for_input(),
            None => self.raw["resultType"] == "input_required",
        }
    }

    /// Returns true if it names a task that does the work.
    pub(super) fn is_of_task(&self) -> bool {
        match &self.reply {
            Some(reply) => reply.head.is_of_task,
            None => self.raw["task"].is_object(),
        }
    }

    /// Returns the first text of the content, for a message.
    pub(super) fn first_text(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Content {
            content: Vec<ContentBlock>,
        }
        let Some(reply) = &self.reply else {
            return Some(self.content.clone());
        };
        if reply.text.bytes().len() > LARGE {
            return None;
        }
        let Content { content } = reply.text.read()?;
        let mut texts = content.into_iter().filter(|block| block.kind == "text");
        texts.find_map(|block| block.text)
    }
}

impl PartialEq for ToolResult {
    fn eq(&self, other: &Self) -> bool {
        let value = |one: &Self| match &one.reply {
            Some(reply) => reply.text.to_value(),
            None => one.raw.clone(),
        };
        value(self) == value(other)
    }
}

/// Shows the error flag and the length, but not the content: it may be secret.
impl fmt::Debug for ToolResult {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match &self.reply {
            Some(reply) => reply.text.bytes().len(),
            None => self.content.len(),
        };
        out.debug_struct("ToolResult")
            .field("is_error", &self.is_error)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn passed(arguments: &str) -> ToolCall {
        let text = JsonText::checked(arguments.to_owned().into());
        let passed = PassedCall {
            params: text.clone(),
            arguments: Some(text),
            input: [None, None],
            task: None,
            side: CallSide::default(),
        };
        ToolCall {
            passed: Some(passed),
            ..ToolCall::new("a", Map::new())
        }
    }

    #[test]
    fn mcp_3_a_call_as_a_task_is_another_call_and_its_task_is_no_result_to_keep() {
        let task = |task: &'static str| {
            let mut call = passed("{}");
            if let Some(passed) = &mut call.passed {
                passed.task = Some(JsonText::checked(task.into()));
            }
            call
        };
        assert_ne!(task(r#"{"ttl":1}"#), passed("{}"));
        // SUP-6: a crash does not depend on the time for which its result would be kept.
        assert_eq!(task(r#"{"ttl":1}"#), task(r#"{"ttl":2}"#));
        let text = r#"{"task":{"taskId":"1","status":"working"}}"#;
        let reply = RawReply::of(JsonText::checked(text.into()));
        for result in [ToolResult::read(&reply), ToolResult::unread(reply)] {
            let verdict = <super::super::Mcp as crate::Dependency>::classify(Ok(&result));
            assert_eq!(verdict.class, breakerbox_policy::Class::Rejected);
        }
    }

    #[test]
    fn mcp_2_m13_calls_with_other_arguments_are_other_calls_however_they_are_written() {
        let deep = |inner: u8| format!("{{\"a\":{}{inner}{}}}", "[".repeat(300), "]".repeat(300));
        for (one, other) in [
            (deep(1), deep(2)),
            (
                r#"{"a":18446744073709551617}"#.to_owned(),
                r#"{"a":18446744073709551618}"#.to_owned(),
            ),
            (r#"{"a":1,"a":2}"#.to_owned(), r#"{"a":2}"#.to_owned()),
        ] {
            assert_ne!(passed(&one), passed(&other), "{one}");
            assert_eq!(passed(&one), passed(&one));
        }
    }

    #[test]
    fn mcp_2_m13_calls_are_equal_by_their_arguments_and_not_by_their_text() {
        let own = json!({ "x": 1.0, "y": [2] });
        let own = ToolCall::new("a", own.as_object().unwrap().clone());
        let calls = [
            own,
            passed(r#"{"x":1,"y":[2]}"#),
            passed(r#"{ "y": [ 2e0 ], "x": 1.0 }"#),
            passed("{}"),
        ];
        assert_eq!(calls.into_iter().collect::<HashSet<_>>().len(), 2);
    }

    #[test]
    fn mcp_2_m14_a_result_is_the_same_read_and_unread() {
        let text = r#"{"content":[{"type":"text","text":"a"},{"type":"image"},
            {"type":"text","text":"b"}],"isError":true,"structuredContent":[1]}"#;
        let reply = RawReply::of(JsonText::checked(text.into()));
        let read = ToolResult::read(&reply);
        assert_eq!((&*read.content, read.is_error), ("a\nb", true));
        assert_eq!(read.structured, Some(json!([1])));
        let unread = ToolResult::unread(reply);
        assert!(unread.is_error && unread.first_text().as_deref() == Some("a"));
        assert_eq!(unread.clone().filled().content, read.content);
        assert_eq!(unread, read);
    }
}
