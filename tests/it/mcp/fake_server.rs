//! What the tests of the gateway's front share: a fake server that tells what reached it, and a
//! gateway in the test's process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use breakerbox::gateway::Gateway;
use breakerbox::{DependencyStatus, Runtime, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::PATIENCE;
use super::front_bed::until_started;
use crate::gateway::serve::http;

/// A server of the handshake dialect.
///
/// Its tools answer with their own name and arguments; `wrong` with an error of its own, and `slow`
/// after a while. Calls of `broken` get status 503.
#[derive(Clone)]
pub(super) struct FakeServer {
    pub(super) address: SocketAddr,
    name: &'static str,
    seen: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    tools: Arc<Mutex<Vec<&'static str>>>,
    pub(super) sessions: Arc<AtomicUsize>,
    /// Number of sessions that were ended.
    pub(super) ended: Arc<AtomicUsize>,
    /// Time that each list takes, in milliseconds.
    pub(super) list_delay: Arc<AtomicU64>,
}

impl FakeServer {
    pub(super) async fn start(name: &'static str, tools: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap(),
            name,
            seen: Arc::default(),
            tools: Arc::new(Mutex::new(tools.to_vec())),
            sessions: Arc::default(),
            ended: Arc::default(),
            list_delay: Arc::default(),
        };
        let app = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        fake
    }

    /// A dependency of this server. `more`: further lines of its table.
    pub(super) fn table(&self, name: &str, more: &str) -> String {
        format!(
            "[dependencies.{name}]\nkind = \"mcp_http\"\nurl = \"http://{}/mcp\"\n{more}\n",
            self.address
        )
    }

    /// Requests of this method that reached it.
    pub(super) fn seen(&self, method: &str) -> Vec<(HeaderMap, Value)> {
        let seen = self.seen.lock().unwrap();
        let of = seen.iter().filter(|(_, asked)| asked["method"] == method);
        of.cloned().collect()
    }

    /// Names of the tools whose calls reached it.
    pub(super) fn called(&self) -> Vec<String> {
        let calls = self.seen("tools/call").into_iter();
        let name =
            |(_, asked): (HeaderMap, Value)| asked["params"]["name"].as_str().unwrap().to_owned();
        calls.map(name).collect()
    }
}

fn message(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, axum::Json(body)).into_response()
}

async fn answer(
    State(fake): State<FakeServer>,
    asked: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if asked == Method::DELETE {
        fake.ended.fetch_add(1, Ordering::SeqCst);
        return StatusCode::NO_CONTENT.into_response();
    }
    let Ok(asked) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    fake.seen.lock().unwrap().push((headers, asked.clone()));
    let id = &asked["id"];
    if id.is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let params = &asked["params"];
    let method = asked["method"].as_str().unwrap_or_default();
    if method.ends_with("/list") {
        let delay = fake.list_delay.load(Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
    }
    let result = match method {
        "initialize" => {
            let number = fake.sessions.fetch_add(1, Ordering::SeqCst) + 1;
            let begun = json!({ "protocolVersion": "2025-11-25",
                "capabilities": { "tools": {}, "prompts": {}, "resources": {}, "completions": {} },
                "serverInfo": { "name": fake.name, "version": "1" } });
            let begun = json!({ "jsonrpc": "2.0", "id": id, "result": begun });
            let mut response = message(200, begun);
            let session = number.to_string().parse().unwrap();
            response.headers_mut().insert("mcp-session-id", session);
            return response;
        }
        "ping" => json!({}),
        "tools/list" => {
            let tools = fake.tools.lock().unwrap();
            let tools = tools.iter();
            let tools =
                tools.map(|name| json!({ "inputSchema": { "type": "object" }, "name": name }));
            json!({ "tools": tools.collect::<Vec<_>>() })
        }
        "tools/call" => {
            let name = params["name"].as_str().unwrap();
            match name {
                "broken" => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
                "slow" => tokio::time::sleep(std::time::Duration::from_millis(600)).await,
                _ => {}
            }
            let text = format!("{} {name} {}", fake.name, params["arguments"]);
            let content = json!([{ "type": "text", "text": text }]);
            json!({ "content": content, "isError": name == "wrong" })
        }
        "prompts/list" => json!({ "prompts": [{ "name": "greet" }] }),
        "prompts/get" => {
            let text = format!("{} {}", fake.name, params["name"].as_str().unwrap());
            let content = json!({ "type": "text", "text": text });
            json!({ "messages": [{ "role": "user", "content": content }] })
        }
        "resources/list" => {
            let uri = format!("{}://one", fake.name);
            json!({ "resources": [{ "uri": uri, "name": "one" }, { "uri": "shared://x", "name": "x" }] })
        }
        "resources/templates/list" => {
            let uri = format!("{}://item/{{id}}", fake.name);
            json!({ "resourceTemplates": [{ "uriTemplate": uri, "name": "item" }] })
        }
        "resources/read" => {
            json!({ "contents": [{ "uri": params["uri"], "text": fake.name }] })
        }
        "completion/complete" => {
            let name = params["ref"]["name"].as_str().unwrap_or_default();
            let name = format!("{} {name}", fake.name);
            json!({ "completion": { "values": [name] } })
        }
        _ => {
            let error = json!({ "code": -32601, "message": "unknown method" });
            return message(200, json!({ "jsonrpc": "2.0", "id": id, "error": error }));
        }
    };
    message(200, json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

/// A gateway with its runtime.
pub(super) struct FrontBed {
    pub(super) runtime: Runtime,
    pub(super) gateway: Gateway,
}

impl FrontBed {
    pub(super) async fn of(text: &str) -> Self {
        let settings = settings(text);
        let runtime = Runtime::start(settings.clone()).await.unwrap();
        let gateway = Gateway::start(&settings.gateway, &runtime).unwrap();
        let bed = Self { runtime, gateway };
        bed.put_all(&settings).await;
        bed
    }

    /// Applies another configuration.
    pub(super) async fn reload(&self, text: &str) {
        let settings = settings(text);
        self.gateway.configure(&settings.gateway);
        self.put_all(&settings).await;
    }

    async fn put_all(&self, settings: &Settings) {
        for (name, one) in &settings.dependencies {
            let url = one.url.as_deref().unwrap_or_default();
            self.gateway.put(name, one, url, "test").await.unwrap();
            if let Some(server) = self.gateway.servers().get(name) {
                until_started(&server).await;
            }
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address())
    }

    /// Asks an endpoint, and returns the message that answers.
    pub(super) async fn ask(&self, path: &str, method: &str, params: Value) -> Value {
        let (status, _, text) = self.send(path, method, params, &[]).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {status} {text}"))
    }

    /// Asks an endpoint, with headers.
    pub(super) async fn send(
        &self,
        path: &str,
        method: &str,
        params: Value,
        headers: &[(&str, &str)],
    ) -> (u16, HeaderMap, String) {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut asked = http().post(self.url(path)).json(&message);
        asked = asked.header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            asked = asked.header(*name, *value);
        }
        let answered = tokio::time::timeout(PATIENCE, asked.send()).await;
        let answered = answered.expect("an answer in time").unwrap();
        let (status, headers) = (answered.status().as_u16(), answered.headers().clone());
        let text = answered.text().await.unwrap();
        (status, headers, text)
    }

    /// Calls a tool, and returns the text of its result or the code of the error.
    pub(super) async fn call(&self, path: &str, tool: &str) -> Result<String, i64> {
        let params = json!({ "name": tool, "arguments": { "a": 1 } });
        let answer = self.ask(path, "tools/call", params).await;
        match answer["result"]["content"][0]["text"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(answer["error"]["code"]
                .as_i64()
                .unwrap_or_else(|| panic!("{answer}"))),
        }
    }

    /// Lists the names or addresses of what an endpoint has.
    pub(super) async fn list(&self, path: &str, method: &str) -> Vec<String> {
        let answer = self.ask(path, method, json!({})).await;
        let result = answer["result"].as_object();
        let result = result.unwrap_or_else(|| panic!("{answer}"));
        let items = result.values().find_map(Value::as_array).unwrap().iter();
        let key = |item: &Value| {
            let keys = ["uri", "uriTemplate", "name"];
            let found = keys.iter().find_map(|key| item[*key].as_str());
            found.unwrap().to_owned()
        };
        items.map(key).collect()
    }

    pub(super) fn status(&self, name: &str) -> DependencyStatus {
        self.runtime.status(name).unwrap()
    }

    pub(super) async fn end(self) {
        self.gateway.shutdown().await;
        self.runtime.shutdown().await;
    }
}

fn settings(text: &str) -> Settings {
    let own = "[gateway]\nbind = \"127.0.0.1:0\"\nthreads = 2\n";
    let settings = Settings::loader().bare().toml(own).toml(text).load();
    settings.unwrap_or_else(|error| panic!("{error}"))
}
