//! The whole sidecar as a user runs it: a process with its own folder, real clients, and a service
//! that dies and comes back.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::serve::{Sidecar, command, configured, folder, is_missing};
use super::*;

/// A service that can be killed like a process: its listener and connections close at once.
struct Service {
    address: SocketAddr,
    life: Option<tokio::runtime::Runtime>,
}

impl Service {
    fn start() -> Self {
        // Loopback clients connect from 127.0.0.1, so on this address no client takes the port
        // meanwhile.
        let host = if cfg!(target_os = "linux") {
            [127, 0, 71, 3]
        } else {
            [127, 0, 0, 1]
        };
        let mut service = Self {
            address: SocketAddr::from((host, 0)),
            life: None,
        };
        service.revive("first life");
        service
    }

    fn revive(&mut self, says: &'static str) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let app = Router::new().fallback(move || async move { says });
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        self.life = Some(runtime);
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.life.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

/// A response as a client received it; header names in lower case.
#[derive(Debug)]
struct Seen {
    status: u64,
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        let mut all = self.headers.iter();
        let found = all.find(|(other, _)| other == name);
        found.map_or("", |(_, value)| value)
    }

    fn is(&self, source: &str, body: &str) -> bool {
        (self.status, self.header("breakerbox-source"), &*self.body) == (200, source, body)
    }

    /// The code of a problem document, after checking its common fields; empty for other responses.
    fn problem(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return String::new();
        }
        let problem: Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert_eq!(problem["dependency"], "web", "{self:?}");
        assert_eq!(problem["executed"], "no", "{self:?}");
        assert_eq!(self.header("breakerbox-source"), "gateway", "{self:?}");
        let code = problem["type"].as_str().expect("a type");
        let code = code.strip_prefix("urn:breakerbox:").expect("our own");
        if code == "breaker-open" {
            assert_eq!((self.status, &problem["state"]), (503, &"open".into()));
            let millis = problem["retry_after_ms"].as_u64().expect("a time");
            assert!((1..=2_000).contains(&millis), "{self:?}");
            let seconds: u64 = self.header("retry-after").parse().expect("seconds");
            assert_eq!(seconds, millis.div_ceil(1_000), "{self:?}");
            assert_eq!(self.header("breakerbox-attempts"), "0", "{self:?}");
        }
        code.to_owned()
    }
}

fn output(mut command: Command) -> String {
    let output = command.output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8(output.stdout).expect("text")
}

fn curl(url: &str) -> Seen {
    let mut command = Command::new("curl");
    command.args(["-s", "-S", "-i", "--noproxy", "*", "--max-time", "20", url]);
    let text = output(command);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let headers = lines.filter_map(|line| line.split_once(": "));
    Seen {
        status: status.and_then(|code| code.parse().ok()).expect("a status"),
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect(),
        body: body.to_owned(),
    }
}

const FETCH: &str = "fetch(process.argv[1], { signal: AbortSignal.timeout(20000) }).then(async answer => \
    console.log(JSON.stringify([answer.status, [...answer.headers], await answer.text()])))";

fn fetch(url: &str) -> Seen {
    let mut command = Command::new("node");
    command.args(["-e", FETCH, url]);
    let seen = serde_json::from_str(&output(command)).expect("JSON");
    let (status, headers, body) = seen;
    Seen {
        status,
        headers,
        body,
    }
}

/// Repeats the request until the response meets a condition, and returns it.
fn until(ask: fn(&str) -> Seen, url: &str, is_so: impl Fn(&Seen) -> bool) -> Seen {
    let begin = tokio::time::Instant::now();
    loop {
        let seen = ask(url);
        if is_so(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "{url}: {seen:?}");
    }
}

/// Kills and revives the service, and checks the responses of one kind of client.
fn cycle(ask: fn(&str) -> Seen) {
    let mut service = Service::start();
    let folder = folder();
    let breaker = "breaker = { failure_threshold = 2, recovery_timeout = \"2s\" }";
    let kind = format!(
        "kind = \"http\"\nurl = \"http://{}\"\n{breaker}\n",
        service.address
    );
    configured(
        folder.path(),
        &format!(
            "[dependencies.web]\n{kind}[dependencies.index]\n{kind}\
             fallback = [{{ kind = \"stale_cache\" }}]\n"
        ),
    );
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let (web, index) = (sidecar.url("/web/a?b=c"), sidecar.url("/index/a?b=c"));
    for url in [&web, &index] {
        let seen = ask(url);
        assert!(seen.is("primary", "first life"), "{seen:?}");
        assert_eq!(seen.header("breakerbox-attempts"), "1", "{seen:?}");
        assert_eq!(seen.header("age"), "", "{seen:?}");
    }
    service.kill();
    // Without a fallback the first failures are passed on, then the breaker refuses.
    for _ in 0..2 {
        let failed = ask(&web);
        assert_eq!(
            (failed.status, &*failed.problem()),
            (502, "upstream-failed")
        );
    }
    until(ask, &web, |seen| {
        let code = seen.problem();
        assert!(
            ["breaker-open", "upstream-failed"].contains(&&*code),
            "{seen:?}"
        );
        code == "breaker-open"
    });
    // With a fallback no call is refused.
    for _ in 0..4 {
        let stale = ask(&index);
        assert!(stale.is("fallback:stale_cache", "first life"), "{stale:?}");
        assert!(stale.header("age").parse::<u64>().is_ok(), "{stale:?}");
    }
    service.revive("second life");
    for url in [&web, &index] {
        let back = until(ask, url, |seen| {
            seen.header("breakerbox-source") == "primary"
        });
        assert!(back.is("primary", "second life"), "{back:?}");
        assert_eq!(back.header("age"), "", "{back:?}");
    }
    sidecar.signal("TERM");
    let ended = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(sidecar.ended());
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn curl_sees_a_service_die_and_come_back() {
    if !is_missing("curl") {
        cycle(curl);
    }
}

#[test]
fn node_sees_a_service_die_and_come_back() {
    if !is_missing("node") {
        cycle(fetch);
    }
}
