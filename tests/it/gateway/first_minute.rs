//! The first minute with `breakerbox serve`: what it prints, whom it refuses, and its log.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use super::serve::{Sidecar, command, configured, folder, http};
use super::*;

const WEB: &str = "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9/base\"\n";

#[test]
fn ops_1_serve_prints_what_a_newcomer_asks() {
    let folder = folder();
    configured(folder.path(), WEB);
    let mut command = command(folder.path());
    let token = "a-token-of-many-letters";
    command.env("BREAKERBOX__ADMIN__TOKEN", token);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("/web/") {
        assert!(out.read_line(&mut said).unwrap() > 0, "it ended: {said}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let gateway = lines[0].strip_prefix("gateway ").unwrap();
    let admin = lines[1].strip_prefix("admin ").unwrap();
    for words in [
        format!("dashboard {admin}/"),
        format!(
            "breakerbox {}, environment development",
            env!("CARGO_PKG_VERSION")
        ),
        "read config/default.toml".to_owned(),
        "orders from outside need the admin token, which is set".to_owned(),
        "1 dependency".to_owned(),
        format!("  web  {gateway}/web/ -> http://127.0.0.1:9/base"),
    ] {
        assert!(lines.contains(&words.as_str()), "{words}: {said}");
    }
    assert!(lines.len() <= 12, "{said}");
    assert!(!format!("{said}{log}").contains(token), "{said}{log}");
    assert!(
        !log.contains("life 1"),
        "lives of workers are for debug: {log}"
    );
}

#[tokio::test]
async fn edge_7_services_are_simulated_on_request_in_any_environment() {
    let folder = folder();
    configured(folder.path(), WEB);
    let mut command = command(folder.path());
    command.args(["--simulate", "--env", "production"]);
    let sidecar = Sidecar::start(command, 4);
    let response = http().get(sidecar.url("/web_search/rust")).send().await;
    assert_eq!(header(&response.unwrap(), "breakerbox-source"), "primary");
    let response = http().get(sidecar.url("/web/")).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 404, "its file is not read");
}

#[test]
fn edge_7_serve_refuses_a_configuration_without_a_dependency() {
    let folder = folder();
    configured(folder.path(), "[gateway]\nbind = \"127.0.0.1:0\"\n");
    let refused = |arguments: &[&str]| {
        let output = command(folder.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let err = refused(&[]);
    assert!(
        err.contains("there is none to protect (read config/default.toml)"),
        "{err}"
    );
    let err = refused(&["--simulate", "--config", "config"]);
    assert!(err.contains("cannot be used with"), "{err}");
}

/// A log in a folder that is watched for changes must not be a change that is logged.
#[tokio::test]
async fn edge_7_a_log_in_the_watched_folder_does_not_feed_itself() {
    let folder = folder();
    configured(folder.path(), WEB);
    let path = folder.path().join("serve.log");
    let log = std::fs::File::create(&path).unwrap();
    let mut command = command(folder.path());
    command.env("RUST_LOG", "trace");
    let sidecar = Sidecar::start_logged(command, 1, log.into());
    // A change is noticed, so the watcher works while the log grows.
    configured(
        folder.path(),
        &format!("{WEB}[dependencies.other]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n"),
    );
    super::serve::until(&sidecar.url("/"), |_, text| text.contains("/other/")).await;
    sidecar.signal("TERM");
    sidecar.ended().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let watching = text
        .lines()
        .filter(|line| line.contains("\"target\":\"notify"));
    assert_eq!(watching.count(), 0);
    assert!(text.len() < 5_000_000, "{} bytes", text.len());
}

#[tokio::test]
async fn edge_8_a_timeout_names_the_limit_that_cut() {
    let upstream = Upstream::of(async |request: Request| {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        "never"
    })
    .await;
    let limits = [
        ("timeout.attempt = \"200ms\"", "timeout.attempt"),
        ("timeout.total = \"200ms\"", "timeout.total"),
        ("timeout.first_byte = \"200ms\"", "timeout.first_byte"),
        (
            "timeout = { attempt = \"200ms\", total = \"9s\", first_byte = \"5s\" }",
            "timeout.attempt",
        ),
    ];
    for (text, limit) in limits {
        let bed = Bed::new(&upstream.url(), text).await;
        let late = problem(bed.get("/web/hang").await, 504, "timed-out").await;
        assert_eq!(late["cause"], limit, "{text}: {late}");
        let detail = late["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("({limit}; ")), "{text}: {detail}");
        bed.end().await;
    }
    let bed = Bed::new(&upstream.url(), "timeout.total = \"1m\"").await;
    let request = bed.http.get(bed.url("/web/hang"));
    let request = request.header("breakerbox-deadline-ms", "200");
    let late = problem(request.send().await.unwrap(), 504, "timed-out").await;
    assert_eq!(late["cause"], "the caller's own deadline", "{late}");
    bed.end().await;
}

#[tokio::test]
async fn edge_8_a_name_that_is_nearly_right_is_told() {
    let bed = Bed::new("http://127.0.0.1:9", "").await;
    let lost = problem(bed.get("/wab/x").await, 404, "unknown-dependency").await;
    let detail = lost["detail"].as_str().unwrap();
    assert!(detail.ends_with("did you mean /web/?"), "{detail}");
    let lost = problem(bed.get("/nothing-alike/x").await, 404, "unknown-dependency").await;
    assert!(
        !lost["detail"].as_str().unwrap().contains("did you mean"),
        "{lost}"
    );
    bed.end().await;
}
