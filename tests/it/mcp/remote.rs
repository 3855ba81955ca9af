//! A server over HTTP that says something beside its answers, or too much.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use breakerbox::Settings;
use breakerbox::gateway::Gateway;
use breakerbox::policy::State as Breaker;
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::front_bed::{Front, said};
use super::*;

/// A server of one dialect, in the test's process.
#[derive(Clone)]
struct Remote {
    is_newer: bool,
    /// The streams of calls that wait for an answer of the user.
    waiting: Arc<Mutex<Vec<mpsc::UnboundedSender<String>>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Remote {
    async fn start(is_newer: bool) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let remote = Self {
            is_newer,
            waiting: Arc::default(),
            seen: Arc::default(),
        };
        let app = Router::new().fallback(answer).with_state(remote.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (remote, url)
    }

    fn note(&self, text: impl Into<String>) {
        self.seen.lock().unwrap().push(text.into());
    }

    async fn until(&self, text: &str) {
        let look = async {
            while !self.seen.lock().unwrap().iter().any(|one| one == text) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        assert!(seen.is_ok(), "{text}: {:?}", self.seen.lock().unwrap());
    }
}

fn event(message: &Value) -> String {
    format!("event: message\r\ndata: {message}\r\n\r\n")
}

fn json_of(value: &Value) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}

/// Notes when the stream of a call is closed.
struct Closed(Remote);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.note("closed");
    }
}

fn events(remote: &Remote, first: Vec<String>, stays: bool) -> Response {
    let (sender, receiver) = mpsc::unbounded_channel();
    for event in first {
        sender.send(event).unwrap();
    }
    if stays {
        remote.waiting.lock().unwrap().push(sender);
    }
    let closed = Closed(remote.clone());
    let pieces = futures_util::stream::unfold((receiver, closed), |(mut receiver, closed)| async {
        let piece = receiver.recv().await?;
        Some((
            Ok::<_, std::io::Error>(Bytes::from(piece)),
            (receiver, closed),
        ))
    });
    let media = [(header::CONTENT_TYPE, "text/event-stream")];
    (media, Body::from_stream(pieces.boxed())).into_response()
}

async fn answer(State(remote): State<Remote>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(asked) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    let id = asked["id"].clone();
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let method = asked["method"].as_str().unwrap_or_default();
    match method {
        "" => {
            // The answer of the user goes back on the stream of its call.
            let text = asked["result"].to_string();
            let content = json!({ "content": [{ "type": "text", "text": text }] });
            let last = json!({ "jsonrpc": "2.0", "id": remote.call_id(), "result": content });
            for stream in remote.waiting.lock().unwrap().drain(..) {
                let _ = stream.send(event(&last));
            }
            StatusCode::ACCEPTED.into_response()
        }
        "server/discover" if remote.is_newer => json_of(&result(json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": { "tools": {} } }))),
        "initialize" if !remote.is_newer => json_of(&result(json!({
            "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
            "serverInfo": { "name": "remote", "version": "1" } }))),
        "tools/list" => {
            let tool = |name: &str| json!({ "name": name, "inputSchema": {} });
            let tools = ["progress", "ask", "long", "stream_long", "hang"].map(tool);
            json_of(&result(json!({ "tools": tools })))
        }
        "tools/call" => remote.call(&asked, &headers, &result),
        "notifications/cancelled" => {
            remote.note("cancelled");
            StatusCode::ACCEPTED.into_response()
        }
        _ if id.is_null() => StatusCode::ACCEPTED.into_response(),
        _ => {
            let error = json!({ "code": -32601, "message": "unknown" });
            json_of(&json!({ "jsonrpc": "2.0", "id": id, "error": error }))
        }
    }
}

impl Remote {
    fn call_id(&self) -> Value {
        let seen = self.seen.lock().unwrap();
        let id = seen.iter().rev().find_map(|one| one.strip_prefix("id "));
        serde_json::from_str(id.unwrap()).unwrap()
    }

    fn call(
        &self,
        asked: &Value,
        headers: &HeaderMap,
        result: &dyn Fn(Value) -> Value,
    ) -> Response {
        let params = &asked["params"];
        let name = params["name"].as_str().unwrap();
        self.note(format!("id {}", asked["id"]));
        if self.is_newer {
            assert_eq!(headers["mcp-method"], "tools/call");
            assert_eq!(headers["mcp-name"], name);
        }
        let done = result(json!({ "content": [{ "type": "text", "text": "done" }] }));
        match name {
            "progress" => {
                let token = &params["_meta"]["progressToken"];
                let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                    "params": { "progressToken": token, "progress": 1 } });
                events(self, vec![event(&progress), event(&done)], false)
            }
            "ask" => {
                let question = json!({ "jsonrpc": "2.0", "id": 1, "method": "elicitation/create",
                    "params": { "message": "name?" } });
                events(self, vec![event(&question)], true)
            }
            "long" => json_of(&result(
                json!({ "content": [], "long": "x".repeat(200_000) }),
            )),
            "stream_long" => {
                let long = result(json!({ "content": [], "long": "x".repeat(200_000) }));
                events(self, vec![event(&long)], true)
            }
            _ => {
                self.note("hang");
                events(self, Vec::new(), true)
            }
        }
    }
}

async fn open(is_newer: bool) -> (Remote, Front) {
    let (remote, url) = Remote::start(is_newer).await;
    let text = format!(
        "[gateway]\nbind = \"127.0.0.1:0\"\nthreads = 1\n[dependencies.s]\nkind = \"mcp_http\"\n\
         url = {url:?}\nmax_line = \"100KB\"\ntimeout = {{ attempt = \"60s\", total = \"60s\" }}\n"
    );
    let settings = Settings::loader().bare().toml(&text).load();
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    let runtime = Runtime::start(settings.clone()).await.unwrap();
    let gateway = Gateway::start(&settings.gateway, &runtime).unwrap();
    let one = &settings.dependencies["s"];
    gateway.put("s", one, &url, "test").await.unwrap();
    (remote, Front::of(runtime, gateway))
}

#[tokio::test]
async fn mcp_5_m12_what_a_remote_server_says_in_a_stream_reaches_the_caller() {
    for is_newer in [false, true] {
        let (_, front) = open(is_newer).await;
        let call =
            json!({ "name": "progress", "arguments": {}, "_meta": { "progressToken": "t" } });
        let all = front.caller().all("tools/call", call).await;
        assert_eq!(all[0]["params"]["progressToken"], "t", "{all:?}");
        assert_eq!(said(&all[1]), "done");
        let session = front.session(json!({ "elicitation": {} })).await;
        let call = json!({ "name": "ask", "arguments": {} });
        let mut response = session.send("tools/call", call).await;
        let mut read = String::new();
        let asked = super::front_bed::next_event(&mut response, &mut read).await;
        assert_eq!(asked["params"]["message"], "name?");
        let told = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "own": 1 } });
        session.tell(told).await;
        let last = super::front_bed::next_event(&mut response, &mut read).await;
        assert_eq!(said(&last), "{\"own\":1}");
        front.end().await;
    }
}

#[tokio::test]
async fn mcp_3_m6_an_answer_of_a_remote_server_that_is_too_long_names_the_limit() {
    let (_, front) = open(false).await;
    for tool in ["long", "stream_long"] {
        for _ in 0..6 {
            let answer = front.caller().call(tool, json!({})).await;
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(text.contains("max_line = 100000 bytes"), "{tool}: {answer}");
        }
    }
    let status = front.server().client().status();
    assert_eq!((status.state, status.tally.failures), (Breaker::Closed, 0));
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m8_a_remote_server_is_told_of_a_caller_that_leaves() {
    for is_newer in [false, true] {
        let (remote, front) = open(is_newer).await;
        let caller = front.caller();
        let call = json!({ "name": "hang", "arguments": {} });
        let calling = caller.request("tools/call", call).send();
        tokio::select! {
            answered = calling => panic!("{answered:?}"),
            () = remote.until("hang") => {}
        }
        // The end of the stream is the cancellation in the newer dialect.
        remote.waiting.lock().unwrap().retain(|stream| {
            let _ = stream.send(": alive\n\n".to_owned());
            true
        });
        if is_newer {
            remote.until("closed").await;
            assert!(
                !remote
                    .seen
                    .lock()
                    .unwrap()
                    .contains(&"cancelled".to_owned())
            );
        } else {
            remote.until("cancelled").await;
        }
        assert_eq!(front.server().client().status().in_flight, 0);
        front.end().await;
    }
}
