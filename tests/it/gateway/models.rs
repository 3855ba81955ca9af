//! Language models behind the gateway: providers of the test that do what real ones do, at their best
//! and at their worst.

mod ends;
mod held_back;
#[cfg(target_os = "linux")]
mod libraries;
mod long;
mod odd;
mod parked;
mod passing;
mod pools;
mod secret;
mod shown;
mod tokens;

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::body::{Bytes, to_bytes};
use axum::http::HeaderMap;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::*;

/// The opening of a stream of Chat Completions: a role, and no content.
const OPENING: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
/// Its good end.
const END: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
/// An error of an overloaded provider, as an event and as a body.
const OVERLOADED: &str = "{\"error\":{\"message\":\"busy\",\"type\":\"server_error\",\
    \"param\":null,\"code\":\"server_is_overloaded\"}}";

/// A piece of content.
fn chunk(text: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":\
         [{{\"index\":0,\"delta\":{{\"content\":{text:?}}},\"finish_reason\":null}}]}}\n\n"
    )
}

/// An event of data.
fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// An event of Anthropic's.
fn named(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// A whole stream of Anthropic's Messages, in its events.
fn messages(text: &str) -> Vec<String> {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "content": [],
        "model": "m", "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 3, "output_tokens": 1}});
    let block = json!({"type": "text", "text": ""});
    let delta = json!({"type": "text_delta", "text": text});
    let stop = json!({"stop_reason": "end_turn", "stop_sequence": null});
    vec![
        named(
            "message_start",
            &json!({"type": "message_start", "message": message}),
        ),
        named(
            "content_block_start",
            &json!({"type": "content_block_start", "index": 0, "content_block": block}),
        ),
        named("ping", &json!({"type": "ping"})),
        named(
            "content_block_delta",
            &json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        ),
        named(
            "content_block_stop",
            &json!({"type": "content_block_stop", "index": 0}),
        ),
        named(
            "message_delta",
            &json!({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 5}}),
        ),
        named("message_stop", &json!({"type": "message_stop"})),
    ]
}

/// A whole answer of Chat Completions.
fn whole(text: &str) -> String {
    json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": text, "refusal": null}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
    .to_string()
}

/// A request that a provider got.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What a provider does with a request.
#[derive(Debug, Clone)]
enum Act {
    /// It answers with a status, headers and JSON.
    Say(u16, Vec<(&'static str, &'static str)>, String),
    /// It streams pieces, and ends.
    Stream(Vec<String>),
    /// It streams pieces, and then sends nothing more.
    Hang(Vec<String>),
    /// It streams pieces, and then a comment each time.
    Ping(Vec<String>, Duration),
    /// It streams pieces, and breaks its connection off.
    Reset(Vec<String>),
}

impl Act {
    fn good(text: &str) -> Self {
        Self::Stream(vec![OPENING.to_owned(), chunk(text), END.to_owned()])
    }

    fn error(status: u16, body: impl ToString) -> Self {
        Self::Say(status, Vec::new(), body.to_string())
    }

    fn into_response(self) -> Response {
        let media = match self {
            Self::Say(..) => "application/json",
            _ => "text/event-stream; charset=utf-8",
        };
        let stream = |pieces: Vec<String>| {
            futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>))
        };
        let (status, headers, body) = match self {
            Self::Say(status, headers, body) => (status, headers, Body::from(body)),
            Self::Stream(pieces) => (200, Vec::new(), Body::from_stream(stream(pieces))),
            Self::Hang(pieces) => {
                let rest = futures_util::stream::pending();
                (
                    200,
                    Vec::new(),
                    Body::from_stream(stream(pieces).chain(rest)),
                )
            }
            Self::Ping(pieces, every) => {
                let rest = futures_util::stream::unfold((), move |()| async move {
                    tokio::time::sleep(every).await;
                    Some((Ok(": still here\n\n".to_owned()), ()))
                });
                (
                    200,
                    Vec::new(),
                    Body::from_stream(stream(pieces).chain(rest)),
                )
            }
            Self::Reset(pieces) => {
                let broken = Err(std::io::Error::other("reset"));
                let rest = futures_util::stream::once(async move {
                    // What came before has to be sent first.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    broken
                });
                (
                    200,
                    Vec::new(),
                    Body::from_stream(stream(pieces).chain(rest)),
                )
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status.try_into().unwrap();
        response
            .headers_mut()
            .insert("content-type", media.parse().unwrap());
        let id = "request-7".parse().unwrap();
        response.headers_mut().insert("x-request-id", id);
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }
}

/// A provider that does one act after another, and the last one from then on.
struct Provider {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    async fn of(acts: impl IntoIterator<Item = Act>) -> Self {
        let acts: VecDeque<Act> = acts.into_iter().collect();
        let acts = Arc::new(Mutex::new(acts));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let upstream = Upstream::of(move |request: Request| {
            let (acts, noted) = (Arc::clone(&acts), Arc::clone(&noted));
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                let path = head.uri.to_string();
                let headers = head.headers;
                noted.lock().unwrap().push(Seen {
                    path,
                    headers,
                    body,
                });
                let mut acts = acts.lock().unwrap();
                let act = match acts.len() {
                    1 => acts[0].clone(),
                    _ => acts.pop_front().unwrap(),
                };
                act.into_response()
            }
        })
        .await;
        Self { upstream, seen }
    }

    /// A provider that answers every request with this text.
    async fn good(text: &str) -> Self {
        Self::of([Act::good(text)]).await
    }

    fn hits(&self) -> usize {
        self.upstream.hits()
    }

    fn seen(&self, at: usize) -> Seen {
        self.seen.lock().unwrap()[at].clone()
    }
}

/// The table of a model without a key of its own.
fn model(name: &str, provider: &Provider, more: &str) -> String {
    format!(
        "[dependencies.{name}]\nkind = \"model\"\napi = \"openai\"\nurl = \"{}/v1\"\n{more}\n",
        provider.upstream.url()
    )
}

/// The table behind that of a model that makes `spare` its fallback.
const FALLBACK: &str = "[[dependencies.gpt.fallback]]\nkind = \"dependency\"\nname = \"spare\"\n";

/// A gateway with a model `gpt`, and one that stands in for it if there is a second provider.
async fn bed(first: &Provider, spare: Option<&Provider>, more: &str) -> Bed {
    let once = match more.contains("retry.") {
        true => "",
        false => "retry.max_attempts = 1\n",
    };
    let mut text = format!(
        "[dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\nurl = \"{}/v1\"\n\
         key = \"sk-first\"\n{once}{more}\n",
        first.upstream.url()
    );
    if let Some(spare) = spare {
        text.push_str(&format!(
            "{FALLBACK}[dependencies.spare]\nkind = \"model\"\napi = \"openai\"\nurl = \"{}/other/v1\"\n\
             key = \"sk-spare\"\nmodel = \"spare-1\"\n",
            spare.upstream.url()
        ));
    }
    Bed::of(&text).await
}

/// The body of a request.
fn asked(model: &str, is_stream: bool) -> String {
    json!({"model": model, "stream": is_stream, "messages": [{"role": "user", "content": "hi"}]})
        .to_string()
}

impl Bed {
    /// Asks a model of Chat Completions.
    async fn ask(&self, name: &str, is_stream: bool) -> reqwest::Response {
        self.ask_with(name, asked("m", is_stream)).await
    }

    async fn ask_with(&self, name: &str, body: String) -> reqwest::Response {
        let request = self
            .http
            .post(self.url(&format!("/{name}/v1/chat/completions")));
        let request = request.header("content-type", "application/json");
        let request = request.header("authorization", "Bearer sk-callers");
        request.body(body).send().await.unwrap()
    }

    fn of_name(&self, name: &str) -> DependencyStatus {
        self.runtime.status(name).unwrap()
    }

    /// Returns the failures in the window of the model `m`.
    fn failures(&self, name: &str) -> u64 {
        let keys = self.of_name(name).keys;
        let key = keys.iter().find(|key| key.key == "m");
        key.map_or(0, |key| key.window.failures)
    }

    /// Waits until the status of a model meets a condition.
    async fn until_of(&self, name: &str, is_so: impl Fn(&DependencyStatus) -> bool) {
        let look = async {
            while !is_so(&self.of_name(name)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        assert!(seen.is_ok(), "{name}: {:#?}", self.of_name(name));
    }
}

/// Reads a body to its end. Returns the text, and true if it ended as it should.
async fn read_all(mut response: reqwest::Response) -> (String, bool) {
    let mut text = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => text.extend_from_slice(&piece),
            Ok(None) => return (String::from_utf8(text).unwrap(), true),
            Err(_) => return (String::from_utf8(text).unwrap(), false),
        }
    }
}

/// Checks that a response is the good stream of a model with this text, and of this source.
async fn check_good(response: reqwest::Response, text: &str, source: &str) {
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "breakerbox-source"), source);
    let (body, is_whole) = read_all(response).await;
    assert!(is_whole);
    assert_eq!(body, format!("{OPENING}{}{END}", chunk(text)));
}
