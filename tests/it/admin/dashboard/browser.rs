//! Driver of a real headless Chromium, over its DevTools protocol.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex as Turn, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::tools;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Maximum time of one step in a page; the machine may be busy.
const LONG: Duration = Duration::from_secs(60);
/// Interval between two polls of a page.
const BREATH: Duration = Duration::from_millis(30);

/// Script that records CSP violations; it runs before the page's own scripts.
const WATCH: &str = "window.violations = []; \
    addEventListener('securitypolicyviolation', (event) => \
        violations.push(`${event.violatedDirective} ${event.blockedURI}`));";

/// One page in its own browser.
pub(super) struct Page {
    commands: Turn<SplitSink<Socket, Message>>,
    shared: Arc<Shared>,
    session: String,
    last: AtomicU64,
    process: Turn<Child>,
    _profile: TempDir,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    complaints: Mutex<Vec<Complaint>>,
}

/// Message that a user would find in the browser's console.
#[derive(Debug, Clone)]
pub(super) struct Complaint {
    /// Category of the message, such as `network` or `security`.
    pub(super) source: String,
    pub(super) text: String,
}

impl Page {
    /// Opens an empty page. Returns `None` if there is no Chromium and that is permitted.
    pub(super) async fn start() -> Option<Self> {
        let chromium = tools::find(&["chromium", "chromium-browser", "google-chrome"])?;
        let profile = tempfile::tempdir().unwrap();
        let (process, address) = launch(chromium, &profile).await;
        let (socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        let (commands, answers) = socket.split();
        let shared = Arc::new(Shared::default());
        tokio::spawn(listen(answers, Arc::clone(&shared)));
        let mut page = Self {
            commands: Turn::new(commands),
            shared,
            session: String::new(),
            last: AtomicU64::new(0),
            process: Turn::new(process),
            _profile: profile,
        };
        let made = page.tell("Target.createTarget", json!({ "url": "about:blank" }));
        let target = made.await["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = page.tell("Target.attachToTarget", attach).await;
        page.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            page.tell(&format!("{domain}.enable"), json!({})).await;
        }
        let watch = json!({ "source": WATCH });
        page.tell("Page.addScriptToEvaluateOnNewDocument", watch)
            .await;
        page.size(1280, 900).await;
        Some(page)
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn tell(&self, method: &str, params: Value) -> Value {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        self.shared.waiting.lock().unwrap().insert(id, sender);
        let mut command = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let message = Message::text(command.to_string());
        self.commands.lock().await.send(message).await.unwrap();
        let mut answer = tokio::time::timeout(LONG, answer)
            .await
            .unwrap_or_else(|_| panic!("no answer to {method}"))
            .unwrap();
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].take()
    }

    pub(super) async fn visit(&self, url: &str) {
        self.tell("Page.navigate", json!({ "url": url })).await;
    }

    /// Sets the window's size.
    ///
    /// # Units  CSS pixels.
    pub(super) async fn size(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.tell("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Sets the colour scheme, `light` or `dark`.
    pub(super) async fn scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tell(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// Returns the value of an expression in the page.
    pub(super) async fn value(&self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let mut answer = self.tell("Runtime.evaluate", params).await;
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].take()
    }

    pub(super) async fn text(&self, expression: &str) -> String {
        let value = self.value(expression).await;
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Polls until an expression is true in the page.
    pub(super) async fn until(&self, expression: &str) {
        // While a page loads, the expression may refer to elements that do not exist yet.
        let guarded = format!(
            "(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"
        );
        let looking = async {
            while self.value(&guarded).await != true {
                tokio::time::sleep(BREATH).await;
            }
        };
        if tokio::time::timeout(LONG, looking).await.is_err() {
            let seen = self.text("document.body.innerText").await;
            panic!("never in the page: {expression}\n{seen}");
        }
    }

    /// Presses and releases a key, such as `Tab`, `Enter`, `Escape` or `Space`.
    pub(super) async fn press(&self, key: &str) {
        let (name, code, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            "Escape" => ("Escape", 27, ""),
            "Space" => (" ", 32, " "),
            other => panic!("{other} is no key of these tests"),
        };
        let mut event = json!({
            "type": "keyDown", "key": name, "code": key, "windowsVirtualKeyCode": code,
        });
        if !text.is_empty() {
            event["text"] = json!(text);
        }
        self.tell("Input.dispatchKeyEvent", event.clone()).await;
        event["type"] = json!("keyUp");
        self.tell("Input.dispatchKeyEvent", event).await;
    }

    /// Types a text into the focused element.
    pub(super) async fn write(&self, text: &str) {
        self.tell("Input.insertText", json!({ "text": text })).await;
    }

    /// Returns the console's messages and the page's CSP violations.
    pub(super) async fn complaints(&self) -> Vec<Complaint> {
        let mut all = self.shared.complaints.lock().unwrap().clone();
        let violations = self.value("window.violations ?? []").await;
        let violations = violations.as_array().unwrap().iter();
        all.extend(violations.map(|violation| Complaint {
            source: "security".to_owned(),
            text: violation.to_string(),
        }));
        all
    }

    pub(super) async fn close(self) {
        self.tell("Browser.close", json!({})).await;
        let mut process = self.process.lock().await;
        if tokio::time::timeout(LONG, process.wait()).await.is_err() {
            process.kill().await.unwrap();
        }
    }
}

/// Starts a browser, and reads the address of its debugging socket.
async fn launch(chromium: PathBuf, profile: &TempDir) -> (Child, String) {
    let mut process = Command::new(chromium)
        .args([
            "--headless=new",
            // The sandbox does not work in a container, and only our own page is loaded.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--no-first-run",
            "--no-proxy-server",
            "--remote-debugging-port=0",
            "about:blank",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut told = String::new();
    let listening = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(address) = line.strip_prefix("DevTools listening on ") {
                return Some(address.to_owned());
            }
            told.push_str(&line);
            told.push('\n');
        }
        None
    };
    let address = tokio::time::timeout(LONG, listening).await;
    let address = address.unwrap_or_default();
    let address = address.unwrap_or_else(|| panic!("the browser did not start:\n{told}"));
    // The rest of the output is drained, so that it does not fill the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (process, address)
}

/// Delivers answers to their waiting commands, and records the page's errors.
async fn listen(mut answers: SplitStream<Socket>, shared: Arc<Shared>) {
    while let Some(Ok(message)) = answers.next().await {
        let Ok(mut message) = serde_json::from_str::<Value>(message.to_text().unwrap_or("")) else {
            continue;
        };
        if let Some(id) = message["id"].as_u64() {
            let waiting = shared.waiting.lock().unwrap().remove(&id);
            // The waiting command may have been dropped.
            let _ = waiting.map(|waiting| waiting.send(message));
            continue;
        }
        let params = message["params"].take();
        let complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                let details = &params["exceptionDetails"];
                Some(("script".to_owned(), details.to_string()))
            }
            Some("Runtime.consoleAPICalled") => Some(("console".to_owned(), params.to_string())),
            Some("Log.entryAdded") => {
                let entry = &params["entry"];
                let source = entry["source"].as_str().unwrap_or_default();
                Some((source.to_owned(), entry.to_string()))
            }
            _ => None,
        };
        if let Some((source, text)) = complaint {
            let mut all = shared.complaints.lock().unwrap();
            all.push(Complaint { source, text });
        }
    }
}
