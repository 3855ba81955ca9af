//! `breakerbox serve` as a user runs it: a process, its addresses, its signals.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::*;

/// A running sidecar in its own folder; killed on drop.
pub(crate) struct Sidecar {
    child: Child,
    /// The lines it printed: a word and an address each.
    lines: Vec<String>,
}

pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    command
        .arg("serve")
        .current_dir(folder)
        .stdin(Stdio::null())
        .env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os() {
        let ours = ["BREAKERBOX_", "OTEL_"];
        if ours
            .iter()
            .any(|ours| name.to_string_lossy().starts_with(ours))
        {
            command.env_remove(name);
        }
    }
    command.env("BREAKERBOX__GATEWAY__BIND", "127.0.0.1:0");
    command.env("BREAKERBOX__ADMIN__BIND", "127.0.0.1:0");
    command
}

impl Sidecar {
    /// Starts it, and waits for its addresses: `lines` lines, and the admin side's.
    pub(crate) fn start(command: Command, lines: usize) -> Self {
        Self::start_logged(command, lines, Stdio::piped())
    }

    /// As `start`, with a destination for the log.
    pub(crate) fn start_logged(mut command: Command, lines: usize, log: Stdio) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut told = Vec::new();
        while told.len() < lines + 1 {
            let mut line = String::new();
            if out.read_line(&mut line).expect("a line") == 0 {
                let mut err = String::new();
                let _ = child
                    .stderr
                    .take()
                    .map(|mut pipe| pipe.read_to_string(&mut err));
                panic!("it ended: {told:?}\n{err}");
            }
            told.push(line.trim().to_owned());
        }
        // The test does not read the log; the sidecar must not wait for a reader.
        drop(child.stderr.take());
        Self { child, lines: told }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.at("gateway ", path)
    }

    pub(crate) fn admin(&self, path: &str) -> String {
        self.at("admin ", path)
    }

    fn at(&self, word: &str, path: &str) -> String {
        let mut lines = self.lines.iter();
        let url = lines.find_map(|line| line.strip_prefix(word));
        format!("{}{path}", url.expect("an address"))
    }

    /// Its process id.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let told = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status();
        assert!(told.expect("a shell").success());
    }

    pub(crate) async fn ended(mut self) -> ExitStatus {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, waiting).await;
        ended.expect("it ends")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

pub(crate) fn configured(folder: &Path, text: &str) {
    std::fs::create_dir_all(folder.join("config")).unwrap();
    // Atomically, as a deployment does, so that no reader sees half of the file.
    let new = folder.join("config/new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, folder.join("config/default.toml")).unwrap();
}

pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Returns true if this machine lacks a tool, so that the test is skipped. Panics if all tools are
/// required.
pub(super) fn is_missing(tool: &str) -> bool {
    if Command::new(tool).arg("--version").output().is_ok() {
        return false;
    }
    assert!(
        std::env::var_os("BREAKERBOX_TEST_REQUIRE_ALL").is_none(),
        "{tool} is missing"
    );
    // Only information: without a reader the test is skipped all the same.
    let _ = writeln!(std::io::stderr(), "{tool} is missing: passed over");
    true
}

/// Repeats the request until the response meets a condition.
pub(super) async fn until(url: &str, is_so: impl Fn(u16, &str) -> bool) {
    let http = http();
    let mut last = String::new();
    let asking = async {
        loop {
            let response = http.get(url).send().await.unwrap();
            let status = response.status().as_u16();
            let text = response.text().await.unwrap_or_default();
            if is_so(status, &text) {
                return;
            }
            last = format!("{status} {text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, asking).await;
    assert!(came.is_ok(), "{url}: {last}");
}

#[tokio::test]
async fn without_a_configuration_it_serves_three_simulated_dependencies() {
    let folder = folder();
    let sidecar = Sidecar::start(command(folder.path()), 4);
    let mut names: Vec<&str> = sidecar
        .lines
        .iter()
        .filter_map(|line| line.strip_prefix("simulated "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["knowledge_graph", "vector_search", "web_search"]);
    let http = http();
    for (name, key) in [
        ("vector_search", "neighbors"),
        ("web_search", "results"),
        ("knowledge_graph", "nodes"),
    ] {
        let response = http.get(sidecar.url(&format!("/{name}/rust"))).send().await;
        let response = response.unwrap();
        assert_eq!(header(&response, "breakerbox-source"), "primary");
        let found: serde_json::Value = response.json().await.unwrap();
        assert_eq!(found[key][0], "rust #1", "{found}");
    }
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn curl_sees_what_any_client_sees() {
    if is_missing("curl") {
        return;
    }
    let folder = folder();
    let sidecar = Sidecar::start(command(folder.path()), 4);
    let curl = |arguments: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "-i", "--noproxy", "*"]).args(arguments);
        let output = command.arg(sidecar.url(path)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let found = curl(&[], "/web_search/rust?page=2");
    assert!(found.starts_with("HTTP/1.1 200 OK"), "{found}");
    assert!(found.contains("breakerbox-source: primary"), "{found}");
    let second = curl(&["--http2-prior-knowledge"], "/web_search/rust");
    assert!(second.starts_with("HTTP/2 200"), "{second}");
    let lost = curl(&[], "/nobody");
    assert!(lost.contains("urn:breakerbox:unknown-dependency"), "{lost}");
}

#[tokio::test]
async fn sup_7_a_request_in_flight_ends_before_the_process_does() {
    let open = Arc::new(tokio::sync::Notify::new());
    let (opened, asked) = (Arc::clone(&open), Arc::new(tokio::sync::Notify::new()));
    let seen = Arc::clone(&asked);
    let upstream = Upstream::of(move |_| {
        let opened = Arc::clone(&opened);
        seen.notify_one();
        async move {
            opened.notified().await;
            "the whole answer"
        }
    })
    .await;
    let folder = folder();
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        upstream.url()
    );
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let in_flight = tokio::spawn(http().get(sidecar.url("/web/a")).send());
    asked.notified().await;
    sidecar.signal("TERM");
    // New connections are refused, which shows that the signal has arrived.
    let address = sidecar.url("").replace("http://", "");
    let refused = async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    open.notify_one();
    let response = in_flight.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "the whole answer");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_when_its_time_is_over() {
    let upstream = Upstream::of(async |_| std::future::pending::<&str>().await).await;
    let folder = folder();
    let text = format!(
        "[gateway]\nshutdown = \"100ms\"\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         timeout = {{ attempt = \"1h\", total = \"1h\", first_byte = \"off\" }}\n\
         breaker = {{ probe_lease = \"1h\" }}\n",
        upstream.url()
    );
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let in_flight = tokio::spawn(http().get(sidecar.url("/web/a")).send());
    while upstream.hits() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sidecar.signal("INT");
    // CALL-1: it gets one answer all the same.
    let cut = in_flight.await.unwrap().unwrap();
    assert_eq!(cut.status(), 503);
    assert!(cut.text().await.unwrap().contains("shutting-down"));
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn cfg_2_a_hangup_takes_changes_over() {
    let (one, two) = (
        Upstream::of(async |_| "one").await,
        Upstream::of(async |_| "two").await,
    );
    let table = |name: &str, upstream: &Upstream| {
        let url = upstream.url();
        format!("[dependencies.{name}]\nkind = \"http\"\nurl = \"{url}\"\n")
    };
    let folder = folder();
    let only_signals = "[reload]\nwatch = false\n";
    configured(
        folder.path(),
        &format!("{only_signals}{}{}", table("a", &one), table("b", &one)),
    );
    let sidecar = Sidecar::start(command(folder.path()), 1);
    until(&sidecar.url("/"), |_, text| text == "/a/\n/b/\n").await;
    until(&sidecar.url("/a/"), |_, text| text == "one").await;
    // One dependency is removed, one is added, one gets another address.
    configured(
        folder.path(),
        &format!("{only_signals}{}{}", table("a", &two), table("c", &one)),
    );
    sidecar.signal("HUP");
    until(&sidecar.url("/"), |_, text| text == "/a/\n/c/\n").await;
    until(&sidecar.url("/a/"), |_, text| text == "two").await;
    until(&sidecar.url("/c/"), |_, text| text == "one").await;
    until(&sidecar.url("/b/"), |status, _| status == 404).await;
    // An invalid configuration changes nothing; the next valid one is applied.
    configured(
        folder.path(),
        &format!("{only_signals}[dependencies.a]\nkind = 3\n"),
    );
    sidecar.signal("HUP");
    configured(
        folder.path(),
        &format!("{only_signals}[dependencies.a]\nkind = \"mcp_stdio\"\n"),
    );
    sidecar.signal("HUP");
    until(&sidecar.url("/"), |_, text| text == "/a/\n/c/\n").await;
    let limited = format!("{}bulkhead = {{ max_concurrent = 1 }}\n", table("a", &two));
    configured(folder.path(), &format!("{only_signals}{limited}"));
    sidecar.signal("HUP");
    until(&sidecar.url("/"), |_, text| text == "/a/\n").await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn cfg_2_a_changed_file_is_taken_over() {
    let upstream = Upstream::of(async |_| "one").await;
    let text = format!(
        "[reload]\ndebounce = \"20ms\"\n[dependencies.a]\nkind = \"http\"\nurl = \"{}\"\n",
        upstream.url()
    );
    let folder = folder();
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    until(&sidecar.url("/a/"), |_, text| text == "one").await;
    configured(
        folder.path(),
        &text.replace("dependencies.a", "dependencies.b"),
    );
    until(&sidecar.url("/"), |_, text| text == "/b/\n").await;
    until(&sidecar.url("/b/"), |_, text| text == "one").await;
}

#[test]
fn cfg_1_a_configuration_that_cannot_be_served_ends_with_2() {
    let run = |text: &str| {
        let folder = folder();
        configured(folder.path(), text);
        let output = command(folder.path()).output().expect("it starts");
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert_eq!(output.stdout, b"");
        err
    };
    let bad =
        run("[dependencies.a]\nkind = \"http\"\n[dependencies.a.breaker]\nfailure_rate = 2\n");
    assert!(
        bad.starts_with("breakerbox: 2 problems in the configuration"),
        "{bad}"
    );
    assert!(
        bad.contains("a.url") && bad.contains("a.breaker.failure_rate"),
        "{bad}"
    );
    let unserved = run("[dependencies.a]\n[dependencies.b.breaker]\n");
    assert!(
        unserved.starts_with("breakerbox: 2 problems in the configuration"),
        "{unserved}"
    );
    for name in ["a", "b"] {
        let line = format!("dependencies.{name}.kind: it is missing");
        assert!(unserved.contains(&line), "{unserved}");
    }
    let dead = run("[dependencies.a]\nkind = \"mcp_stdio\"\n");
    assert!(dead.contains("a.command"), "{dead}");
}

#[test]
fn an_address_that_is_taken_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = folder();
    let mut command = command(folder.path());
    let output = command.env("BREAKERBOX__GATEWAY__BIND", &address).output();
    let output = output.expect("it starts");
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        err.contains(&format!("{address} cannot be listened on")),
        "{err}"
    );
    // EDGE-8: the key, and the likely reason.
    for words in ["(gateway.bind)", "another process has it"] {
        assert!(err.contains(words), "{err}");
    }
}

#[tokio::test]
async fn item_98_a_full_cycle_through_the_gateway_is_told_in_the_log() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = Arc::clone(&broken);
    let upstream = Upstream::of(move |_| {
        let broken = seen.load(Ordering::SeqCst);
        async move { answer(if broken { 500 } else { 200 }, "") }
    })
    .await;
    let folder = folder();
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\nbreaker = {{ failure_threshold = 3, \
         recovery_timeout = \"100ms\", half_open_attempt_limit = 2 }}\n",
        upstream.url()
    );
    configured(folder.path(), &text);
    let path = folder.path().join("log");
    let log = std::fs::File::create(&path).unwrap();
    let mut command = command(folder.path());
    command.env("RUST_LOG", "breakerbox_actors=debug");
    let sidecar = Sidecar::start_logged(command, 1, log.into());
    for _ in 0..3 {
        let response = http().get(sidecar.url("/web/")).send().await.unwrap();
        assert_eq!(response.status(), 500);
    }
    broken.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        until(&sidecar.url("/web/"), |status, _| status == 200).await;
    }
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let log = std::fs::read_to_string(&path).unwrap();
    let records: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no record: {line}")))
        .filter(|record: &serde_json::Value| record["dependency"] == "web")
        .collect();
    let moves: Vec<_> = records
        .iter()
        .filter(|record| record["message"] == "breaker moved")
        .map(|one| {
            let word = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            let step = [word("level"), word("from"), word("to")].join(" ");
            (
                step,
                word("cause"),
                one["failures"].as_u64(),
                one["retry_after_ms"].as_f64(),
            )
        })
        .collect();
    let steps: Vec<&str> = moves.iter().map(|(step, ..)| step.as_str()).collect();
    let expected = [
        "WARN closed open",
        "INFO open half_open",
        "INFO half_open closed",
    ];
    assert_eq!(steps, expected, "{log}");
    let (_, cause, failures, wait) = &moves[0];
    assert!(cause.contains("at or above 3"), "{cause}");
    assert_eq!((*failures, *wait), (Some(3), Some(100.0)), "{log}");
    let told = |text: &str| {
        let mut all = records
            .iter()
            .filter_map(|record| record["message"].as_str());
        all.any(|message| message.contains(text))
    };
    for text in [
        "call failed, 1/3",
        "call failed, 2/3",
        "probe succeeded, 1/2",
    ] {
        assert!(told(text), "{text}: {log}");
    }
}

#[tokio::test]
async fn edge_6_a_configured_name_is_known_while_the_process_starts() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    let one = |name: u32| {
        format!("[dependencies.d{name:03}]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n")
    };
    configured(folder.path(), &(0..300).map(one).collect::<String>());
    let mut command = command(folder.path());
    command.env("BREAKERBOX__GATEWAY__BIND", address.to_string());
    drop(port);
    let starting = tokio::task::spawn_blocking(move || Sidecar::start(command, 1));
    let (http, url) = (http(), format!("http://{address}/d299/x"));
    let asked = async {
        loop {
            let Ok(response) = http.get(&url).send().await else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            match response.status().as_u16() {
                // It is there, and what it stands for is not.
                502 => return,
                503 => assert!(response.headers().contains_key("retry-after")),
                other => panic!("{other}: {}", response.text().await.unwrap()),
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
    drop(starting.await.unwrap());
}
