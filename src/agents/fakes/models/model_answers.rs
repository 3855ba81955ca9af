//! Good answers of each shape, whole and as the events of a stream.

use serde_json::{Value, json};

use crate::model::{ApiShape, ModelRequest};

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct ModelAnswer {
    pub(super) shape: ApiShape,
    pub(super) is_streamed: bool,
    model: String,
    /// Tokens of the prompt, by its bytes.
    input: u64,
    /// True if a stream of Chat Completions ends with its usage.
    with_usage: bool,
    words: Vec<String>,
}

/// The events of a stream.
#[derive(Debug)]
pub(super) struct AnswerEvents {
    /// Events before the first content.
    pub(super) opening: String,
    /// Events of content, one for each word.
    pub(super) content: Vec<String>,
    /// Events behind the last content.
    pub(super) end: String,
    /// An event that says nothing.
    pub(super) ping: &'static str,
}

/// Writes an event of server-sent events, with its name if the shape has names.
fn named(data: &Value) -> String {
    let name = data["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

fn unnamed(data: &Value) -> String {
    format!("data: {data}\n\n")
}

impl ModelAnswer {
    pub(super) fn new(request: &ModelRequest, body: &[u8], words: Vec<String>) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let asked = body.pointer("/stream_options/include_usage");
        Self {
            shape: request.shape,
            is_streamed: request.is_streamed,
            model: request.model.clone().unwrap_or_else(|| "fake".to_owned()),
            input: request.body_bytes.div_ceil(4),
            with_usage: asked.and_then(Value::as_bool) == Some(true),
            words,
        }
    }

    fn text(&self) -> String {
        self.words.concat()
    }

    fn output(&self) -> usize {
        self.words.len()
    }

    fn usage(&self) -> Value {
        let (input, output) = (self.input, self.output() as u64);
        match self.shape {
            ApiShape::Chat => json!({
                "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            }),
            ApiShape::Content | ApiShape::ContentArray => json!({
                "promptTokenCount": input, "candidatesTokenCount": output,
                "totalTokenCount": input + output,
            }),
            _ => json!({
                "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
            }),
        }
    }

    /// Returns the answer as one body.
    pub(super) fn whole(&self) -> Value {
        let (model, text, usage) = (&self.model, self.text(), self.usage());
        match self.shape {
            ApiShape::Chat => json!({
                "id": "chatcmpl-fake", "object": "chat.completion", "created": 1, "model": model,
                "choices": [{
                    "index": 0, "finish_reason": "stop", "logprobs": null,
                    "message": { "role": "assistant", "content": text, "refusal": null },
                }],
                "usage": usage,
            }),
            ApiShape::Messages => json!({
                "id": "msg_fake", "type": "message", "role": "assistant", "model": model,
                "content": [{ "type": "text", "text": text }],
                "stop_reason": "end_turn", "stop_sequence": null, "usage": usage,
            }),
            ApiShape::Content | ApiShape::ContentArray => self.chunk(&text, true),
            _ => self.response("completed", &json!([self.message(&text)]), &usage),
        }
    }

    fn response(&self, status: &str, output: &Value, usage: &Value) -> Value {
        json!({
            "id": "resp_fake", "object": "response", "created_at": 1, "status": status,
            "model": self.model, "output": output, "usage": usage, "error": null,
            "incomplete_details": null, "instructions": null, "metadata": {},
            "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [],
            "top_p": 1.0,
        })
    }

    fn message(&self, text: &str) -> Value {
        json!({
            "id": "item_fake", "type": "message", "role": "assistant", "status": "completed",
            "content": [{ "type": "output_text", "text": text, "annotations": [] }],
        })
    }

    fn chunk(&self, text: &str, is_last: bool) -> Value {
        let mut candidate = json!({
            "index": 0, "content": { "role": "model", "parts": [{ "text": text }] },
        });
        if is_last {
            candidate["finishReason"] = "STOP".into();
        }
        let mut chunk = json!({ "candidates": [candidate], "modelVersion": self.model });
        if is_last {
            chunk["usageMetadata"] = self.usage();
        }
        chunk
    }

    /// Returns the answer as events.
    pub(super) fn events(&self) -> AnswerEvents {
        match self.shape {
            ApiShape::Chat => self.chat_events(),
            ApiShape::Messages => self.message_events(),
            ApiShape::Content => self.content_events(unnamed, ""),
            ApiShape::ContentArray => self.content_events(|chunk| format!("{chunk}\r\n,\r\n"), "["),
            _ => self.response_events(),
        }
    }

    fn chat_events(&self) -> AnswerEvents {
        let chunk = |delta: Value, reason: Value| {
            let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
            unnamed(&json!({
                "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1,
                "model": self.model, "choices": [choice],
            }))
        };
        let mut end = chunk(json!({}), "stop".into());
        if self.with_usage {
            end += &unnamed(&json!({
                "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1,
                "model": self.model, "choices": [], "usage": self.usage(),
            }));
        }
        end += "data: [DONE]\n\n";
        let role = json!({ "role": "assistant", "content": "", "refusal": null });
        let words = self.words.iter();
        AnswerEvents {
            opening: chunk(role, Value::Null),
            content: words
                .map(|word| chunk(json!({ "content": word }), Value::Null))
                .collect(),
            end,
            ping: ": keep-alive\n\n",
        }
    }

    fn response_events(&self) -> AnswerEvents {
        let mut number = 0;
        let mut event = |kind: &str, mut data: Value| {
            data["type"] = kind.into();
            data["sequence_number"] = number.into();
            number += 1;
            named(&data)
        };
        let (none, null) = (json!([]), Value::Null);
        let begun = self.response("in_progress", &none, &null);
        let place = json!({ "item_id": "item_fake", "output_index": 0, "content_index": 0 });
        let with = |name: &str, value: Value| {
            let mut data = place.clone();
            data[name] = value;
            data
        };
        let mut item = self.message("");
        item["status"] = "in_progress".into();
        item["content"] = none;
        let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
        let text = self.text();
        let opening = event("response.created", json!({ "response": begun }))
            + &event("response.in_progress", json!({ "response": begun }))
            + &event("response.output_item.added", with("item", item))
            + &event("response.content_part.added", with("part", part("")));
        let content = self.words.iter().map(|word| {
            let mut data = with("delta", word.as_str().into());
            data["logprobs"] = json!([]);
            event("response.output_text.delta", data)
        });
        let content = content.collect();
        let message = self.message(&text);
        let mut done = with("text", text.as_str().into());
        done["logprobs"] = json!([]);
        let whole = self.response("completed", &json!([message]), &self.usage());
        let end = event("response.output_text.done", done)
            + &event("response.content_part.done", with("part", part(&text)))
            + &event("response.output_item.done", with("item", message))
            + &event("response.completed", json!({ "response": whole }));
        AnswerEvents {
            opening,
            content,
            end,
            ping: ": keep-alive\n\n",
        }
    }

    fn message_events(&self) -> AnswerEvents {
        let opening = named(&json!({ "type": "message_start", "message": {
            "id": "msg_fake", "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": { "input_tokens": self.input, "output_tokens": 1 },
        }})) + &named(&json!({
            "type": "content_block_start", "index": 0,
            "content_block": { "type": "text", "text": "" },
        }));
        let words = self.words.iter().map(|word| {
            named(&json!({
                "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": word },
            }))
        });
        let end = named(&json!({ "type": "content_block_stop", "index": 0 }))
            + &named(&json!({
                "type": "message_delta", "usage": { "output_tokens": self.output() },
                "delta": { "stop_reason": "end_turn", "stop_sequence": null },
            }))
            + &named(&json!({ "type": "message_stop" }));
        AnswerEvents {
            opening,
            content: words.collect(),
            end,
            ping: "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        }
    }

    /// Google's chunks have no opening, and the last content is the end.
    fn content_events(&self, write: impl Fn(&Value) -> String, before: &str) -> AnswerEvents {
        let mut content: Vec<String> = self
            .words
            .iter()
            .map(|word| write(&self.chunk(word, false)))
            .collect();
        let last = self.chunk(self.words.last().map_or("", String::as_str), true);
        content.pop();
        let end = match self.shape {
            ApiShape::ContentArray => format!("{last}\r\n]"),
            _ => write(&last),
        };
        AnswerEvents {
            opening: before.to_owned(),
            content,
            end,
            ping: match self.shape {
                ApiShape::ContentArray => "\r\n",
                _ => ": keep-alive\n\n",
            },
        }
    }
}
