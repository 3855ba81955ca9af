//! A gateway with one server of the tests' own behind it, and requests of callers to it.

use std::path::PathBuf;

use breakerbox::gateway::Gateway;
use breakerbox::{Settings, WorkerStatus};
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response};

use super::*;
use crate::gateway::serve::http;
use crate::tools;

pub(super) const NEWER: &str = "2026-07-28";
const ACCEPTED: &str = "application/json, text/event-stream";

/// A gateway in the test's process.
pub(super) struct Front {
    runtime: Runtime,
    pub(super) gateway: Gateway,
    folder: tempfile::TempDir,
    /// The dependency that is called.
    pub(super) name: &'static str,
}

/// The program of the server. `None` if Python is not installed.
pub(super) fn program() -> Option<PathBuf> {
    tools::find(&["python3"])?;
    Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mcp_server.py"))
}

/// Waits until a server runs, or could not be started: the gateway does not wait for it.
pub(super) async fn until_started(server: &McpClient) {
    let started = async {
        loop {
            let workers = server.client().status().workers;
            let is_over = |worker: &WorkerStatus| worker.running || worker.last_exit.is_some();
            if workers.iter().all(is_over) {
                return;
            }
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.unwrap();
}

impl Front {
    /// Starts the server of a dialect behind a gateway. `more`: further lines of configuration.
    pub(super) async fn open(dialect: &str, more: &str) -> Option<Self> {
        let program = program()?;
        let folder = folder();
        let notes = folder.path().join("notes");
        let text = format!(
            "[gateway]\nbind = \"127.0.0.1:0\"\nthreads = 1\nbody_timeout = \"300ms\"\n\
             origins = [\"http://page.example\"]\n[dependencies.s]\nkind = \"mcp_stdio\"\n\
             command = \"python3\"\nargs = [\"-u\", {program:?}, {dialect:?}]\n\
             env = {{ NOTES = {notes:?} }}\n{more}"
        );
        let settings = Settings::loader().bare().toml(&text).load();
        let settings = settings.unwrap_or_else(|error| panic!("{error}"));
        let runtime = Runtime::start(settings.clone()).await.unwrap();
        let gateway = Gateway::start(&settings.gateway, &runtime).unwrap();
        for (name, one) in &settings.dependencies {
            gateway.put(name, one, "", "test").await.unwrap();
        }
        let bed = Self {
            runtime,
            gateway,
            folder,
            name: "s",
        };
        until_started(&bed.server()).await;
        Some(bed)
    }

    /// A gateway with a server named `s`.
    pub(super) fn of(runtime: Runtime, gateway: Gateway) -> Self {
        Self {
            runtime,
            gateway,
            folder: folder(),
            name: "s",
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/{}/mcp", self.gateway.address(), self.name)
    }

    pub(super) fn server(&self) -> McpClient {
        self.gateway.servers().get("s").unwrap()
    }

    /// The lines that the server noted.
    pub(super) fn notes(&self) -> Vec<String> {
        let notes = std::fs::read_to_string(self.notes_file());
        notes
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The file of the notes, which is in the environment of the server's process.
    pub(super) fn notes_file(&self) -> PathBuf {
        self.folder.path().join("notes")
    }

    /// Waits until the server has noted this.
    pub(super) async fn until_noted(&self, line: &str) {
        let look = async {
            while !self.notes().iter().any(|noted| noted == line) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        assert!(seen.is_ok(), "{line}: {:?}", self.notes());
    }

    pub(super) fn post(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = http().post(self.url()).body(body);
        let request = request.header("content-type", "application/json");
        request.header("accept", ACCEPTED)
    }

    /// A caller of the older dialect without a session.
    pub(super) fn caller(&self) -> FrontCaller<'_> {
        FrontCaller {
            front: self,
            headers: HeaderMap::new(),
            capabilities: None,
        }
    }

    /// A caller of the newer dialect.
    pub(super) fn newer(&self, capabilities: Value) -> FrontCaller<'_> {
        let mut headers = HeaderMap::new();
        headers.insert("mcp-protocol-version", NEWER.parse().unwrap());
        FrontCaller {
            front: self,
            headers,
            capabilities: Some(capabilities),
        }
    }

    /// A caller of the older dialect with a session.
    pub(super) async fn session(&self, capabilities: Value) -> FrontCaller<'_> {
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "clientInfo": { "name": "test", "version": "1" } });
        let begun = self.caller().send("initialize", params).await;
        let mut headers = HeaderMap::new();
        headers.insert("mcp-session-id", begun.headers()["mcp-session-id"].clone());
        headers.insert("mcp-protocol-version", "2025-11-25".parse().unwrap());
        FrontCaller {
            front: self,
            headers,
            capabilities: None,
        }
    }

    pub(super) async fn end(self) {
        self.gateway.shutdown().await;
        self.runtime.shutdown().await;
    }
}

/// A caller, with the headers of its requests.
pub(super) struct FrontCaller<'a> {
    front: &'a Front,
    pub(super) headers: HeaderMap,
    capabilities: Option<Value>,
}

impl FrontCaller<'_> {
    pub(super) fn request(&self, method: &str, mut params: Value) -> RequestBuilder {
        let mut more = HeaderMap::new();
        if let Some(capabilities) = &self.capabilities {
            let meta = &mut params["_meta"];
            meta["io.modelcontextprotocol/protocolVersion"] = json!(NEWER);
            meta["io.modelcontextprotocol/clientCapabilities"] = capabilities.clone();
            more.insert("mcp-method", method.parse().unwrap());
            if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
                more.insert("mcp-name", name.parse().unwrap());
            }
        }
        let body = json!({ "jsonrpc": "2.0", "id": "own", "method": method, "params": params });
        let request = self.front.post(body.to_string());
        request.headers(self.headers.clone()).headers(more)
    }

    pub(super) async fn send(&self, method: &str, params: Value) -> Response {
        self.request(method, params).send().await.unwrap()
    }

    /// Sends a request, and returns all messages of the response; the answer is the last one.
    pub(super) async fn all(&self, method: &str, params: Value) -> Vec<Value> {
        messages(self.send(method, params).await).await
    }

    /// Sends a request, and returns the answer.
    pub(super) async fn ask(&self, method: &str, params: Value) -> Value {
        self.all(method, params).await.pop().unwrap()
    }

    pub(super) async fn call(&self, tool: &str, arguments: Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        self.ask("tools/call", params).await
    }

    /// Ends the session.
    pub(super) async fn leave(&self) -> u16 {
        let left = http()
            .delete(self.front.url())
            .headers(self.headers.clone());
        left.send().await.unwrap().status().as_u16()
    }

    /// Opens the caller's own stream. `after`: the last event that it has got.
    pub(super) async fn listen(&self, after: Option<&str>) -> Response {
        let mut asked = http().get(self.front.url()).headers(self.headers.clone());
        asked = asked.header("accept", "text/event-stream");
        if let Some(after) = after {
            asked = asked.header("last-event-id", after);
        }
        asked.send().await.unwrap()
    }

    /// Sends a notification or an answer.
    pub(super) async fn tell(&self, message: Value) -> u16 {
        let sent = self
            .front
            .post(message.to_string())
            .headers(self.headers.clone());
        sent.send().await.unwrap().status().as_u16()
    }
}

/// The messages of a response.
pub(super) async fn messages(response: Response) -> Vec<Value> {
    let media = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let text = response.text().await.unwrap();
    if media.starts_with("text/event-stream") {
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        return data
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
    }
    vec![serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))]
}

/// Reads the next message of a stream of events.
pub(super) async fn next_event(response: &mut Response, read: &mut String) -> Value {
    loop {
        if let Some((event, rest)) = read.split_once("\n\n") {
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            let data = data.map(|data| serde_json::from_str(data).unwrap());
            *read = rest.to_owned();
            match data {
                Some(data) => return data,
                None => continue,
            }
        }
        let piece = tokio::time::timeout(PATIENCE, response.chunk()).await;
        let piece = piece
            .expect("an event")
            .unwrap()
            .expect("more of the stream");
        read.push_str(std::str::from_utf8(&piece).unwrap());
    }
}

pub(super) fn said(answer: &Value) -> &str {
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("{answer}"))
}
