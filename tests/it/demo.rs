//! The `breakerbox` command as a user sees it: exit codes, output streams, the demo and its table.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const NAMES: [&str; 3] = ["vector_search", "web_search", "knowledge_graph"];

/// The built command, isolated from the caller's configuration files and `BREAKERBOX_` variables.
pub(crate) fn breakerbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"))
        .env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BREAKERBOX_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> (Output, String, String) {
    let output = breakerbox(arguments).output().expect("the command starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it writes UTF-8");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

/// Parses the table into rows: a name, and its cells by column.
fn table(out: &str) -> Vec<(String, Vec<(String, String)>)> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|');
        inner
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let mut rows = out.lines().filter(|line| line.starts_with('|')).map(cells);
    let header = rows.next().expect("the table has a header");
    let ruler = rows.next().expect("the table has a ruler");
    assert!(
        ruler
            .iter()
            .all(|cell| cell.chars().all(|letter| letter == '-'))
    );
    rows.map(|row| {
        assert_eq!(row.len(), header.len(), "a ragged table:\n{out}");
        (
            row[0].clone(),
            header.iter().cloned().zip(row.clone()).collect(),
        )
    })
    .collect()
}

fn count(row: &[(String, String)], column: &str) -> u64 {
    let cell = row.iter().find(|(name, _)| name == column);
    cell.map_or(0, |(_, text)| text.parse().expect("a count"))
}

/// Checks that each row equals the sum of its results, and the last row the sum of the others.
fn check_sums(out: &str) -> Vec<(String, Vec<(String, String)>)> {
    let rows = table(out);
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [&NAMES[..], &["all"]].concat());
    let ends = ["primary", "fallback", "refused", "failed", "cancelled"];
    for (name, row) in &rows {
        let sum: u64 = ends.iter().map(|end| count(row, end)).sum();
        assert_eq!(count(row, "submitted"), sum, "{name} does not add up");
    }
    for column in [&["submitted", "trips", "restarts"][..], &ends].concat() {
        let of_all: u64 = rows[..3].iter().map(|(_, row)| count(row, column)).sum();
        assert_eq!(count(&rows[3].1, column), of_all, "{column} of all");
    }
    rows
}

fn check_table(out: &str) {
    let rows = check_sums(out);
    for (name, row) in &rows {
        for column in ["primary", "fallback", "trips"] {
            assert!(count(row, column) > 0, "{name} has no {column}:\n{out}");
        }
    }
    let restarts = count(&rows[2].1, "restarts");
    assert!(restarts > 0, "no worker was restarted:\n{out}");
}

/// Checks that the lines occur in this order.
fn check_order(out: &str, name: &str, steps: &[&str]) {
    let mut lines = out.lines();
    for step in steps {
        let found = lines.any(|line| line.contains(name) && line.contains(step));
        assert!(
            found,
            "{name}: {step:?} is missing, or comes too early:\n{out}"
        );
    }
}

#[test]
fn item_104_the_agent_system_lives_through_a_bad_minute() {
    let (output, out, err) = run(&["demo", "--scenario", "agents", "--fast"]);
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    assert_eq!(err, "", "nothing went wrong");
    let steps = [
        ("vector_find", "the index responds with 500"),
        ("vector_find", "closed -> open"),
        ("knowledge_graph", "its server is killed"),
        ("knowledge_graph/worker-1", "ended"),
        ("knowledge_graph/worker-1", "running (incarnation 2)"),
        ("web_google", "queries of the day are used up"),
        ("web_google", "its quota is used up"),
        ("demo", "the configuration is broken"),
        ("", "the old ones stay in force"),
        ("demo", "the configuration is mended"),
        ("knowledge_graph", "settings changed by"),
    ];
    let mut lines = out.lines();
    for (name, step) in steps {
        let found = lines.any(|line| line.contains(name) && line.contains(step));
        assert!(
            found,
            "{name}: {step:?} is missing, or comes too early:\n{out}"
        );
    }
    check_order(&out, "vector_find", &["works again", "half_open -> closed"]);
}

#[test]
fn the_demo_tells_its_story_and_its_table_adds_up() {
    let (output, out, err) = run(&["demo", "--fast"]);
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    assert_eq!(err, "", "nothing went wrong");
    assert!(
        !out.contains('\u{1b}') && !out.contains('\r'),
        "no terminal codes in a pipe"
    );
    check_table(&out);
    let breaks = [
        "responds with 500 from now on",
        "hangs from now on",
        "garbles every second response",
    ];
    for (name, breaks) in NAMES.iter().zip(breaks) {
        let moves = ["-> open: ", "-> half_open", "-> closed: "];
        check_order(&out, name, &[&[breaks], &moves[..]].concat());
        check_order(&out, name, &[breaks, "falling back to ", "works again"]);
    }
    // The last outage may still be too recent when the demo ends.
    for (name, breaks) in NAMES.iter().zip(breaks).take(2) {
        check_order(&out, name, &[breaks, "answering by itself again after "]);
    }
    let graph = "knowledge_graph/worker-";
    let crash = [
        "ended: panicked: the answer has no \"nodes\" at ",
        "running",
    ];
    check_order(&out, graph, &crash);
}

#[cfg(unix)]
#[test]
fn an_interrupted_demo_ends_its_calls_and_shows_its_books() {
    use std::io::{BufRead as _, BufReader, Read as _};

    let mut child = breakerbox(&["demo"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut text = String::new();
    while !text.contains("falling back to ") {
        let read = out.read_line(&mut text).expect("a line");
        assert!(read > 0, "it ended too early:\n{text}");
    }
    let interrupt = format!("kill -INT {}", child.id());
    let told = Command::new("sh").args(["-c", &interrupt]).status();
    assert!(told.expect("a shell").success());
    out.read_to_string(&mut text).expect("the rest");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    check_sums(&text);
}

/// The address after a word at the beginning of a line.
#[cfg(unix)]
fn address<'t>(text: &'t str, word: &str) -> &'t str {
    let mut lines = text.lines().map(str::trim);
    let found = lines.find_map(|line| line.strip_prefix(word)?.trim().strip_prefix("http://"));
    let found = found.unwrap_or_else(|| panic!("no {word}:\n{text}"));
    found.split('/').next().unwrap_or(found)
}

#[cfg(unix)]
#[tokio::test]
async fn a_demo_that_stays_is_open_to_calls_and_goes_on_until_it_is_interrupted() {
    use std::io::{BufRead as _, BufReader};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);
    let mut child = breakerbox(&["demo", "--fast", "--stay"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut text = String::new();
    while !text.contains("To break one: ") {
        let read = out.read_line(&mut text).expect("a line");
        assert!(read > 0, "it ended too early:\n{text}");
    }
    // The demo keeps writing, so a thread must drain the pipe.
    let rest = std::thread::spawn(move || std::io::read_to_string(out).expect("the rest"));
    check_table(&text);
    let (admin, gateway) = (address(&text, "admin"), address(&text, "gateway"));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let dependency = async |name: &str| -> serde_json::Value {
        let url = format!("http://{admin}/api/dependencies/{name}");
        http.get(url).send().await.unwrap().json().await.unwrap()
    };
    let until = async |name: &str, is_so: &dyn Fn(&serde_json::Value) -> bool| {
        let look = async {
            while !is_so(&dependency(name).await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let seen = tokio::time::timeout(LONG, look).await;
        assert!(seen.is_ok(), "{}", dependency(name).await);
    };
    // The agents keep working.
    let before = dependency("vector_search").await["totals"]["primary"].as_u64();
    until("vector_search", &|one| {
        one["totals"]["primary"].as_u64() > before
    })
    .await;
    // The gateway serves callers.
    let url = format!("http://{gateway}/vector_search_http/actors");
    let answer = http.get(&url).send().await.unwrap();
    assert_eq!(answer.headers()["breakerbox-source"], "primary");
    // Breaks one dependency with the command that the demo prints.
    let (_, switch) = text.split_once("curl -X PUT '").expect("the switch");
    let switch = switch.split('\'').next().unwrap_or(switch);
    let broken = http.put(switch).send().await.unwrap();
    assert_eq!(broken.status(), 200);
    until("vector_search", &|one| one["state"] == "open").await;
    let stale = http.get(&url).send().await.unwrap();
    assert_eq!(stale.headers()["breakerbox-source"], "fallback:stale_cache");
    let healed = switch.replace("is=fails", "is=none");
    assert_eq!(http.put(healed).send().await.unwrap().status(), 200);
    until("vector_search", &|one| one["state"] == "closed").await;

    let interrupt = format!("kill -INT {}", child.id());
    let told = Command::new("sh").args(["-c", &interrupt]).status();
    assert!(told.expect("a shell").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let rest = rest.join().expect("it was read");
    check_order(&rest, "vector_search", &["-> open: ", "-> closed: "]);
}

#[test]
fn wrong_use_ends_with_2_and_is_told_on_standard_error() {
    for arguments in [
        &["demo", "--bad-flag"][..],
        &["serve", "--port", "1"],
        &[],
        &["check", "--env"],
    ] {
        let (output, out, err) = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert_eq!(out, "", "{arguments:?}");
        assert!(err.contains("Usage: ") || err.contains("--help"), "{err}");
    }
}

#[test]
fn help_and_version_are_results() {
    for (argument, word) in [("--help", "demo"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let (output, out, err) = run(&[argument]);
        assert_eq!(output.status.code(), Some(0), "{err}");
        assert!(out.contains(word), "{out}");
        assert_eq!(err, "");
    }
}

#[test]
fn a_bad_log_filter_ends_with_2() {
    let mut command = breakerbox(&["demo", "--fast"]);
    let output = command
        .env("RUST_LOG", "breakerbox=loud")
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("RUST_LOG is \"breakerbox=loud\""), "{err}");
}

/// A folder that is removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, default: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        std::fs::write(path.join("default.toml"), default).expect("a file for the test");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover folder only takes space in target/.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn cfg_1_check_tells_all_problems_at_once() {
    let folder = Folder::with(
        "check-broken",
        "[dependencies.web]\nurl = 5\n[dependencies.web.breaker]\nfailure_rate = 2.0\nslow_cal = \"1s\"\n",
    );
    let path = folder.0.to_str().expect("a path in UTF-8");
    let (output, out, err) = run(&["check", "--config", path]);
    assert_eq!(output.status.code(), Some(2), "{out}");
    assert_eq!(out, "");
    assert!(
        err.starts_with("breakerbox: 3 problems in the configuration"),
        "{err}"
    );
    for key in ["web.url", "breaker.failure_rate", "breaker.slow_cal"] {
        assert!(err.contains(key), "{key} is not told: {err}");
    }
}

#[test]
fn cfg_1_check_shows_each_value_with_its_layer() {
    let folder = Folder::with(
        "check-good",
        "[dependencies.web.breaker]\nfailure_threshold = 3\n",
    );
    let mut command = breakerbox(&["check", "--library"]);
    let variable = "BREAKERBOX__DEPENDENCIES__WEB__BREAKER__RECOVERY_TIMEOUT";
    let token = ("BREAKERBOX__ADMIN__TOKEN", "a-token-of-many-letters");
    command.arg("--config").arg(&folder.0);
    let output = command
        .env(variable, "10s")
        .env(token.0, token.1)
        .output()
        .expect("it starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{err}");
    let line = |key: &str| {
        out.lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
    };
    let threshold = line("dependencies.web.breaker.failure_threshold");
    assert!(
        threshold.contains("= 3") && threshold.contains("default.toml:2"),
        "{out}"
    );
    let timeout = line("dependencies.web.breaker.recovery_timeout");
    assert!(
        timeout.contains("10s") && timeout.contains(variable),
        "{out}"
    );
    assert!(out.contains("the configuration is valid"), "{out}");
    assert!(!out.contains(token.1), "a secret is shown: {out}");
}
