//! Several `breakerbox serve` processes: what operators see, and what they say to all.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::{NatsServer, PATIENCE};

const ADMIN: &str = "a-token-of-operators";
const TOKEN: &str = "a-very-secret-word";

/// An HTTP service that answers with 200, or with 500 while it is down.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) is_down: Arc<AtomicBool>,
    pub(crate) requests: Arc<AtomicU64>,
    /// Share of random errors, in thousandths.
    pub(crate) errors: Arc<AtomicU64>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            is_down: Arc::default(),
            requests: Arc::default(),
            errors: Arc::default(),
        };
        let own = upstream.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(own.clone().serve(socket));
            }
        });
        upstream
    }

    async fn serve(self, mut socket: tokio::net::TcpStream) {
        let mut head = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let Ok(count @ 1..) = socket.read(&mut piece).await else {
                return;
            };
            head.extend_from_slice(&piece[..count]);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            head.clear();
            self.requests.fetch_add(1, Ordering::Relaxed);
            let is_unlucky = fastrand::u64(0..1000) < self.errors.load(Ordering::Relaxed);
            let status = match self.is_down.load(Ordering::Relaxed) || is_unlucky {
                true => "500 Internal Server Error",
                false => "200 OK",
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if socket.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// A running sidecar; killed on drop.
pub(crate) struct Sidecar {
    child: Child,
    folder: tempfile::TempDir,
    gateway: String,
    admin: String,
    http: reqwest::Client,
}

impl Sidecar {
    pub(crate) fn start(name: &str, server: &str, upstream: &Upstream, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("config")).unwrap();
        let url = upstream.address;
        let text = format!(
            "[fleet]\nservers = [\"{server}\"]\nreplica = \"{name}\"\nheartbeat = \"500ms\"\n{more}\n\
             [dependencies.web]\nkind = \"http\"\nurl = \"http://{url}\"\n\
             [dependencies.web.breaker]\nfailure_threshold = 5\nconsecutive_failures = \"off\"\n\
             recovery_timeout = \"300ms\"\n\
             recovery_backoff = {{ factor = 1.0, max = \"300ms\", jitter = 0.0 }}\n"
        );
        std::fs::write(folder.path().join("config/default.toml"), text).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BREAKERBOX_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("serve")
            .current_dir(folder.path())
            .env("BREAKERBOX__GATEWAY__BIND", "127.0.0.1:0")
            .env("BREAKERBOX__ADMIN__BIND", "127.0.0.1:0")
            .env("BREAKERBOX__ADMIN__TOKEN", ADMIN)
            .env("BREAKERBOX__ADMIN__STATE", folder.path().join("state.json"))
            .env("BREAKERBOX__FLEET__TOKEN", TOKEN)
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut found = [None, None];
        while found.iter().any(Option::is_none) {
            let mut line = String::new();
            if out.read_line(&mut line).unwrap() == 0 {
                let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
                panic!("{name} ended: {log}");
            }
            for (place, word) in found.iter_mut().zip(["gateway ", "admin "]) {
                if let Some(url) = line.trim().strip_prefix(word) {
                    *place = Some(url.to_owned());
                }
            }
        }
        // It must not wait for a reader.
        std::thread::spawn(move || out.read_to_string(&mut String::new()));
        let [gateway, admin] = found.map(Option::unwrap);
        Self {
            child,
            folder,
            gateway,
            admin,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// Calls the dependency. Returns the status.
    pub(crate) async fn call(&self) -> u16 {
        let url = format!("{}/web/", self.gateway.trim_end_matches('/'));
        self.http.get(url).send().await.unwrap().status().as_u16()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.text(path).await.parse().unwrap()
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        let url = format!("{}{path}", self.admin.trim_end_matches('/'));
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    async fn operate(&self, operation: &str, body: Value) -> Value {
        let admin = self.admin.trim_end_matches('/');
        let url = format!("{admin}/api/dependencies/web/{operation}");
        let request = self.http.post(url).bearer_auth(ADMIN).json(&body);
        request.send().await.unwrap().json().await.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Returns true if its file keeps an order of an operator over a restart.
    fn keeps_order(&self) -> bool {
        let text = std::fs::read_to_string(self.folder.path().join("state.json"));
        let state: Value = text.unwrap_or_default().parse().unwrap_or_default();
        !state["orders"]["web"].is_null()
    }

    async fn until(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) {
        let waiting = async {
            while !holds(&self.get(path).await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{what}: {}\n{}", self.get(path).await, self.log());
        }
    }

    /// Waits until it knows this number of replicas.
    pub(crate) async fn knows(&self, count: usize) {
        self.until("/api/fleet", "it knows the others", |fleet| {
            fleet["connected"] == true && fleet["replicas"].as_array().map(Vec::len) == Some(count)
        })
        .await;
    }

    /// Ends it, as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.kill();
    }
}

fn with_token() -> String {
    format!("authorization {{ token: \"{TOKEN}\" }}")
}

#[tokio::test]
async fn flt_12_an_override_holds_for_all_replicas_or_for_one() {
    let Some(server) = NatsServer::with(|_| with_token()).await else {
        return;
    };
    let upstream = Upstream::start().await;
    let one = Sidecar::start("one", &server.url(), &upstream, "");
    let other = Sidecar::start("other", &server.url(), &upstream, "");
    one.knows(2).await;
    other.knows(2).await;
    let done = one.operate("open", json!({ "reason": "a release" })).await;
    assert_eq!(
        done["holds"], "for the whole fleet, until an operator closes it",
        "{done}"
    );
    assert_eq!(done["dependency"]["override"]["by"], "fleet", "{done}");
    let path = "/api/dependencies/web";
    other
        .until(path, "the other one has it", |web| {
            web["override"]["by"] == "fleet"
        })
        .await;
    let later = Sidecar::start("later", &server.url(), &upstream, "");
    later
        .until(path, "so has one that starts later", |web| {
            web["override"]["by"] == "fleet"
        })
        .await;
    assert_eq!(later.call().await, 503);
    let here = json!({ "reason": "not all of it", "scope": "replica" });
    let done = later.operate("close", here).await;
    let note = done["note"].as_str().unwrap();
    assert!(
        note.contains("the whole fleet keeps it forced_open"),
        "{note}"
    );
    other
        .operate("close", json!({ "reason": "it is over" }))
        .await;
    for each in [&one, &other, &later] {
        each.until(path, "it is closed", |web| web["override"].is_null())
            .await;
    }
    let here = json!({ "reason": "a test", "scope": "replica" });
    let done = one.operate("open", here).await;
    assert_eq!(done["dependency"]["override"]["by"], "operator", "{done}");
    assert_eq!(other.call().await, 200);
    assert!(one.keeps_order(), "it is kept over a restart");
    // A close at another replica ends it, and after a restart too.
    other
        .operate("close", json!({ "reason": "the test is over" }))
        .await;
    one.until(path, "it is closed here too", |web| {
        web["override"].is_null()
    })
    .await;
    let taken_back = async {
        while one.keeps_order() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let taken_back = tokio::time::timeout(PATIENCE, taken_back).await;
    taken_back.expect("no order is kept");
    let wrong = one
        .operate("open", json!({ "reason": "a test", "scope": "all" }))
        .await;
    assert_eq!(wrong["given"], "\"all\"", "{wrong}");
}

#[tokio::test]
async fn flt_16_what_happens_is_seen_and_secrets_are_not() {
    let Some(mut server) = NatsServer::with(|_| with_token()).await else {
        return;
    };
    let upstream = Upstream::start().await;
    let one = Sidecar::start("one", &server.url(), &upstream, "");
    let mut other = Sidecar::start("other", &server.url(), &upstream, "");
    one.knows(2).await;
    assert_eq!(one.get("/readyz").await["status"], "ready");
    upstream.is_down.store(true, Ordering::Relaxed);
    for _ in 0..100 {
        if other.call().await != 500 {
            break;
        }
    }
    one.until("/api/fleet", "the trip is seen", |fleet| {
        fleet["dependencies"]["web"]["evidence"] == 1
    })
    .await;
    let shown = Command::new(env!("CARGO_BIN_EXE_breakerbox"))
        .args(["fleet", "--admin", &one.admin])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.starts_with("fleet default, as one sees it\n"),
        "{shown}"
    );
    assert!(
        shown.contains("one *") && shown.contains("other"),
        "{shown}"
    );
    // FLT-14: the other one counts from its second heartbeat.
    let counted = async {
        loop {
            let metrics = one.text("/metrics").await;
            if metrics.contains("breakerbox_fleet_replicas 2") {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let metrics = tokio::time::timeout(Duration::from_secs(20), counted).await;
    let metrics = metrics.expect("two replicas are counted");
    for line in [
        "breakerbox_fleet_connected 1",
        "breakerbox_fleet_replicas 2",
        "breakerbox_fleet_evidence{dependency=\"web\"}",
        "breakerbox_fleet_probe_leases_total{dependency=\"web\",result=\"taken\"}",
        "breakerbox_fleet_round_trip_seconds",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    other.kill();
    one.until("/api/fleet", "a dead one is forgotten", |fleet| {
        fleet["replicas"].as_array().map(Vec::len) == Some(1)
    })
    .await;
    server.kill();
    one.until("/readyz", "the loss is told", |ready| {
        ready["status"] == "degraded" && ready["fleet"].is_string()
    })
    .await;
    let events = one.text("/api/events").await;
    for kind in ["fleet_joined", "fleet_lost"] {
        assert!(
            events.contains(&format!("\"kind\":\"{kind}\"")),
            "{kind}: {events}"
        );
    }
    for text in [
        one.log(),
        other.log(),
        events,
        one.text("/api/fleet").await,
        shown,
    ] {
        assert!(!text.contains(TOKEN), "{text}");
    }
}
