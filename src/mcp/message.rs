//! Messages of the protocol, read only as far as their routing needs.
//!
//! MCP-2: parameters and results stay parts of the text that they came in. Nothing here recurses, so
//! that no depth of nesting is too deep.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json_text::{JsonText, part_of};

/// Size above which messages are read and written apart from the shared thread, in bytes.
pub(crate) const LARGE: usize = 64 * 1024;

/// Codes of JSON-RPC and of the protocol.
pub(crate) mod code {
    pub(crate) const PARSE_ERROR: i64 = -32700;
    pub(crate) const INVALID_REQUEST: i64 = -32600;
    pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
    pub(crate) const INVALID_PARAMS: i64 = -32602;
    pub(crate) const INTERNAL_ERROR: i64 = -32603;
    pub(crate) const RESOURCE_NOT_FOUND: i64 = -32002;
    pub(crate) const HEADER_MISMATCH: i64 = -32020;
    pub(crate) const MISSING_CAPABILITY: i64 = -32021;
    pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
    pub(crate) const INPUT_REQUIRED: i64 = -32042;
}

/// The id of a request, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MessageId(Box<str>);

impl MessageId {
    /// Takes an id; `None` for `null` and other values that no id may have.
    pub(crate) fn new(raw: &str) -> Option<Self> {
        let is_id = raw.starts_with('"') || raw.parse::<f64>().is_ok();
        is_id.then(|| Self(raw.into()))
    }

    pub(crate) fn of_text(text: &str) -> Self {
        Self(Value::from(text).to_string().into())
    }

    pub(crate) fn as_json(&self) -> &str {
        &self.0
    }

    /// Returns the number, if it is one of ours. Some servers return it as a text, as `7.0`, or
    /// as `7e0`.
    pub(crate) fn number(&self) -> Option<u64> {
        let text = self.0.trim_matches('"');
        text.parse().ok().or_else(|| whole(text)?.parse().ok())
    }
}

/// An error of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<JsonText>,
}

impl RpcError {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(crate) fn with_data(mut self, data: &Value) -> Self {
        self.data = Some(JsonText::of(data));
        self
    }

    pub(crate) fn method_not_found(method: &str) -> Self {
        let shown: String = method.chars().take(100).collect();
        Self::new(code::METHOD_NOT_FOUND, format!("unknown method: {shown}"))
    }

    /// Writes the error as an object.
    pub(crate) fn to_text(&self) -> Bytes {
        let data = self.data.as_ref().map(JsonText::bytes);
        let length = self.message.len() + data.map_or(0, Bytes::len) + 64;
        let mut text = Vec::with_capacity(length);
        text.extend_from_slice(format!("{{\"code\":{},\"message\":", self.code).as_bytes());
        // MCP-2: a long message is written at once, into room that is there. A string always serializes.
        let _ = serde_json::to_writer(&mut text, &self.message);
        if let Some(data) = data {
            text.extend_from_slice(b",\"data\":");
            text.extend_from_slice(data);
        }
        text.push(b'}');
        Bytes::from(text)
    }
}

/// A message.
#[derive(Debug)]
pub(crate) enum RawMessage {
    /// It wants an answer.
    Request {
        id: MessageId,
        method: Box<str>,
        params: Option<JsonText>,
    },
    /// It wants none.
    Notification {
        method: Box<str>,
        params: Option<JsonText>,
    },
    /// The answer to a request. An error of the protocol may belong to none.
    Answer {
        id: Option<MessageId>,
        outcome: RawOutcome,
    },
}

/// A result, or an error of the protocol.
pub(crate) type RawOutcome = Result<JsonText, RpcError>;

/// The reason why a text is no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MessageFault {
    /// It is no JSON.
    Syntax,
    /// It is JSON, but no message. The id, if it has a valid one.
    Shape(Option<MessageId>),
    /// It names a method, but is no request. The id, if it has a valid one.
    Request(Option<MessageId>),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    /// Some programs write `null` for members that a message does not have.
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow)]
    code: &'a RawValue,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl ErrorBody<'_> {
    /// Returns the code. Some programs write a whole number as `7.0`.
    fn code(&self) -> Option<i64> {
        let text = self.code.get();
        text.parse().ok().or_else(|| whole(text)?.parse().ok())
    }

    /// Returns the message; that of a server which has none, or a `null`, is empty. Another value is
    /// told as it was written.
    fn message(&self) -> String {
        let raw = self.message.map(RawValue::get).unwrap_or_default();
        serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned())
    }
}

/// Returns the whole number that a number in another form is, such as `7.0` or `7e0`.
fn whole(text: &str) -> Option<String> {
    /// Larger numbers are not exact in this form.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number: f64 = text.parse().ok()?;
    let is_whole = number.fract() == 0.0 && number.abs() < EXACT;
    is_whole.then(|| format!("{number:.0}"))
}

/// Keeps a `null` apart from a member that is missing.
pub(super) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl RawMessage {
    /// Reads a message.
    ///
    /// # Errors  [`MessageFault`].
    pub(crate) fn read(text: &Bytes) -> Result<Self, MessageFault> {
        let envelope: Envelope<'_> = serde_json::from_slice(text).map_err(|error| {
            if error.is_data() {
                MessageFault::Shape(None)
            } else {
                MessageFault::Syntax
            }
        })?;
        if text.trim_ascii_start().first() != Some(&b'{') {
            // A list would be read as the members in their order.
            return Err(MessageFault::Shape(None));
        }
        let id = envelope.id.and_then(|raw| MessageId::new(raw.get()));
        let is_answer = envelope.result.is_some() || envelope.error.is_some();
        let fault = || match envelope.method {
            Some(_) => MessageFault::Request(id.clone()),
            // A line of a log may have an id too.
            None if envelope.jsonrpc.is_none() && !is_answer => MessageFault::Shape(None),
            None => MessageFault::Shape(id.clone()),
        };
        if envelope
            .jsonrpc
            .is_none_or(|version| version.get() != "\"2.0\"")
        {
            return Err(fault());
        }
        let has_result = envelope.result.is_some_and(|raw| raw.get() != "null");
        if envelope.method.is_some() && (has_result || envelope.error.is_some()) {
            // MCP-3: it may be the answer to a call, and it is not guessed.
            return Err(MessageFault::Shape(id));
        }
        let part = |raw: &RawValue| part_of(text, raw);
        if let Some(method) = envelope.method {
            let method: Cow<'_, str> = serde_json::from_str(method.get()).map_err(|_| fault())?;
            let method: Box<str> = method.into();
            let params = envelope.params.map(part);
            if params.as_ref().is_some_and(|params| !params.is_object()) {
                return Err(fault());
            }
            return match (envelope.id, &id) {
                (None, _) => Ok(Self::Notification { method, params }),
                (Some(_), Some(id)) => Ok(Self::Request {
                    id: id.clone(),
                    method,
                    params,
                }),
                (Some(_), None) => Err(fault()),
            };
        }
        let outcome = match (envelope.result, envelope.error) {
            (Some(result), None) => Ok(part(result)),
            (_, Some(error)) => Err(read_error(text, error).ok_or_else(fault)?),
            (None, None) => return Err(fault()),
        };
        if outcome.is_ok() && id.is_none() {
            return Err(fault());
        }
        Ok(Self::Answer { id, outcome })
    }
}

fn read_error(text: &Bytes, raw: &RawValue) -> Option<RpcError> {
    let object = raw.get().starts_with('{').then(|| raw.get())?;
    let body: ErrorBody<'_> = serde_json::from_str(object).ok()?;
    Some(RpcError {
        code: body.code()?,
        message: body.message(),
        data: body.data.map(|raw| part_of(text, raw)),
    })
}

/// The members of parameters that routing needs. `_meta` and the two of a call that goes on may be
/// `null`: they are there then, and a change replaces them.
#[derive(Debug, Default)]
pub(crate) struct ParamsHead {
    pub(crate) name: Option<String>,
    pub(crate) name_text: Option<JsonText>,
    pub(crate) uri: Option<String>,
    pub(crate) arguments: Option<JsonText>,
    pub(crate) meta: Option<JsonText>,
    pub(crate) request_state: Option<JsonText>,
    pub(crate) input_responses: Option<JsonText>,
    /// The wish that a call be made as a task.
    pub(crate) task: Option<JsonText>,
    pub(crate) progress_token: Option<JsonText>,
    pub(crate) request_id: Option<MessageId>,
    pub(crate) level: Option<String>,
    pub(crate) protocol_version: Option<String>,
    pub(crate) capabilities: Option<JsonText>,
    pub(crate) notifications: Option<JsonText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParamsFields<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    // Also a `null`: it is replaced, and not joined by a second member of this name.
    #[serde(borrow, default, rename = "_meta", deserialize_with = "present")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    request_state: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    input_responses: Option<&'a RawValue>,
    #[serde(borrow, default)]
    task: Option<&'a RawValue>,
    #[serde(borrow, default)]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    level: Option<&'a RawValue>,
    #[serde(borrow, default)]
    protocol_version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default)]
    notifications: Option<&'a RawValue>,
}

impl ParamsHead {
    /// Reads the members; `None` if one of them is there twice.
    pub(crate) fn read(params: &JsonText) -> Option<Self> {
        let text = params.bytes();
        let fields: ParamsFields<'_> = serde_json::from_slice(text).ok()?;
        let part = |raw: Option<&RawValue>| raw.map(|raw| part_of(text, raw));
        let string =
            |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
        Some(Self {
            name: string(fields.name),
            name_text: part(fields.name),
            uri: string(fields.uri),
            arguments: part(fields.arguments),
            meta: part(fields.meta),
            request_state: part(fields.request_state),
            input_responses: part(fields.input_responses),
            task: part(fields.task),
            progress_token: part(fields.progress_token),
            request_id: fields.request_id.and_then(|raw| MessageId::new(raw.get())),
            level: string(fields.level),
            protocol_version: string(fields.protocol_version),
            capabilities: part(fields.capabilities),
            notifications: part(fields.notifications),
        })
    }
}

/// A result with what was read of it.
#[derive(Debug, Clone)]
pub(crate) struct RawReply {
    pub(crate) text: JsonText,
    pub(crate) head: ResultHead,
}

impl RawReply {
    pub(crate) fn of(text: JsonText) -> Self {
        let head = ResultHead::read(&text);
        Self { text, head }
    }
}

/// The members of a result that its caller's side needs.
#[derive(Debug, Default, Clone)]
pub(crate) struct ResultHead {
    /// True if it is a tool's own error.
    pub(crate) is_error: bool,
    /// The kind of the result, in the newer dialect.
    pub(crate) kind: Option<String>,
    /// True if there is a member for the kind, of any type.
    pub(crate) has_kind: bool,
    pub(crate) meta: Option<JsonText>,
    /// True if there is a content that is no list.
    pub(crate) has_odd_content: bool,
    /// True if it names the task that does the work, and is no result of the work.
    pub(crate) is_of_task: bool,
    pub(crate) has_ttl: bool,
    pub(crate) has_scope: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultFields<'a> {
    #[serde(borrow, default)]
    is_error: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result_type: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta", deserialize_with = "present")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    task: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ttl_ms: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    cache_scope: Option<&'a RawValue>,
}

impl ResultHead {
    /// Reads the members; a result without the form of an object has none.
    pub(crate) fn read(result: &JsonText) -> Self {
        let text = result.bytes();
        if !result.is_object() {
            return Self::default();
        }
        let Ok(fields) = serde_json::from_slice::<ResultFields<'_>>(text) else {
            return Self::default();
        };
        let kind = fields.result_type;
        Self {
            is_error: fields.is_error.is_some_and(|raw| raw.get() == "true"),
            kind: kind.and_then(|raw| serde_json::from_str(raw.get()).ok()),
            has_kind: kind.is_some(),
            meta: fields.meta.map(|raw| part_of(text, raw)),
            has_odd_content: fields
                .content
                .is_some_and(|raw| !raw.get().starts_with('[')),
            is_of_task: fields.task.is_some_and(|raw| raw.get().starts_with('{')),
            has_ttl: fields.ttl_ms.is_some(),
            has_scope: fields.cache_scope.is_some(),
        }
    }

    /// Returns true if the server asks for input of its caller's user.
    pub(crate) fn asks_for_input(&self) -> bool {
        self.kind.as_deref() == Some("input_required")
    }
}

/// Writes a request, in pieces.
pub(crate) fn request(id: &str, method: &str, params: Option<Vec<Bytes>>) -> Vec<Bytes> {
    let head = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":{}",
        Value::from(method)
    );
    with_params(head, params)
}

/// Writes a notification, in pieces.
pub(crate) fn notification(method: &str, params: Option<Vec<Bytes>>) -> Vec<Bytes> {
    let head = format!("{{\"jsonrpc\":\"2.0\",\"method\":{}", Value::from(method));
    with_params(head, params)
}

fn with_params(mut head: String, params: Option<Vec<Bytes>>) -> Vec<Bytes> {
    let Some(params) = params else {
        head.push('}');
        return vec![Bytes::from(head)];
    };
    head.push_str(",\"params\":");
    let mut pieces = vec![Bytes::from(head)];
    pieces.extend(params);
    pieces.push(Bytes::from_static(b"}"));
    pieces
}

/// Writes an answer, in pieces. `id`: as the request had it, or `null`.
pub(crate) fn answer(id: &str, outcome: Result<Vec<Bytes>, &RpcError>) -> Vec<Bytes> {
    let (member, value) = match outcome {
        Ok(result) => ("result", result),
        Err(error) => ("error", vec![error.to_text()]),
    };
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"{member}\":");
    let mut pieces = vec![Bytes::from(head)];
    pieces.extend(value);
    pieces.push(Bytes::from_static(b"}"));
    pieces
}

#[cfg(test)]
mod tests;
