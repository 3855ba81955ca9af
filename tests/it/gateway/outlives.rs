//! Outages over a restart of the real process, and commands that ask at the wrong address.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::serve::{Sidecar, command, configured, folder, http};

const TOKEN: &str = "a token of the tests";

/// Configures one dependency of this name, where nothing listens.
fn configure(folder: &Path, name: &str) {
    let state = folder.join("state.json");
    let text = format!(
        "[admin]\ntoken = \"{TOKEN}\"\nstate = {state:?}\n\
         [dependencies.{name}]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
         breaker = {{ window = {{ kind = \"consecutive\" }}, failure_threshold = 1 }}\n"
    );
    configured(folder, &text);
}

async fn outages(sidecar: &Sidecar) -> Vec<Value> {
    let response = http()
        .get(sidecar.admin("/api/outages"))
        .send()
        .await
        .unwrap();
    let all: Value = response.json().await.unwrap();
    all.as_array().unwrap().clone()
}

async fn fail(sidecar: &Sidecar, name: &str) {
    let response = http()
        .get(sidecar.url(&format!("/{name}/x")))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 502);
}

/// Makes a call that gets an error, of whatever kind.
async fn fail_or_refuse(sidecar: &Sidecar) {
    let request = http().get(sidecar.url("/web/x"));
    let status = request.send().await.unwrap().status();
    assert!(status.is_server_error(), "{status}");
}

async fn acknowledge(sidecar: &Sidecar, id: &Value) -> Value {
    let request = http().post(sidecar.admin(&format!("/api/outages/{id}/ack")));
    let request = request.bearer_auth(TOKEN).json(&json!({"reason": "on it"}));
    request.send().await.unwrap().json().await.unwrap()
}

async fn leave_note(sidecar: &Sidecar, text: &str) -> Value {
    let request = http().post(sidecar.admin("/api/notes"));
    let request = request.bearer_auth(TOKEN).json(&json!({"text": text}));
    request.send().await.unwrap().json().await.unwrap()
}

async fn notes(sidecar: &Sidecar) -> Value {
    let request = http().get(sidecar.admin("/api/notes"));
    request.send().await.unwrap().json().await.unwrap()
}

/// Returns what the command `alerts` prints.
async fn alerts(sidecar: &Sidecar, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    command.args(["alerts", "--admin", &sidecar.admin("")]);
    command.args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = ran.await.unwrap().expect("the command starts");
    String::from_utf8(output.stdout).expect("it writes UTF-8")
}

async fn kill(sidecar: Sidecar) {
    sidecar.signal("KILL");
    sidecar.ended().await;
}

#[tokio::test]
async fn hlt_3_outages_are_there_after_kill_and_restart() {
    let folder = folder();
    configure(folder.path(), "web");
    let sidecar = Sidecar::start(command(folder.path()), 1);
    fail(&sidecar, "web").await;
    let stands = outages(&sidecar).await.remove(0);
    assert_eq!(
        (&stands["ended"], &stands["ended_by"]),
        (&Value::Null, &Value::Null)
    );
    let id = stands["id"].clone();
    // What is answered is in the file.
    assert_eq!(acknowledge(&sidecar, &id).await["ack"]["note"], "on it");
    kill(sidecar).await;

    // The dependency is removed meanwhile.
    configure(folder.path(), "other");
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let kept = outages(&sidecar).await.remove(0);
    for field in ["id", "dependency", "since", "cause", "ack"] {
        let (kept, was) = (&kept[field], &stands[field]);
        assert!(field == "ack" || kept == was, "{field}: {kept} {was}");
    }
    assert_eq!(kept["ack"]["note"], "on it");
    assert_eq!(kept["ended_by"], "restart");
    fail(&sidecar, "other").await;
    let all = outages(&sidecar).await;
    let ids: Vec<u64> = all.iter().filter_map(|one| one["id"].as_u64()).collect();
    assert_eq!(ids, [id.as_u64().unwrap() + 1, id.as_u64().unwrap()]);
    let listed = alerts(&sidecar, &["--all"]).await;
    for words in [
        "web: resolved, since ",
        "its end was not seen: the process was started again at ",
        "other: active, since ",
    ] {
        assert!(listed.contains(words), "{words:?}: {listed}");
    }
    let active = alerts(&sidecar, &[]).await;
    assert!(!active.contains("web: "), "{active}");
    // That of an earlier process can still be acknowledged.
    assert_eq!(acknowledge(&sidecar, &id).await["ack"]["note"], "on it");
    kill(sidecar).await;

    let sidecar = Sidecar::start(command(folder.path()), 1);
    let all = outages(&sidecar).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0]["dependency"], "other");
    kill(sidecar).await;
}

#[tokio::test]
async fn hlt_3_what_has_just_begun_or_ended_is_there_after_an_orderly_stop() {
    let folder = folder();
    configure(folder.path(), "web");
    let sidecar = Sidecar::start(command(folder.path()), 1);
    fail(&sidecar, "web").await;
    // The last write that is due by itself may have come before the end.
    let close = http().post(sidecar.admin("/api/dependencies/web/close"));
    let close = close.bearer_auth(TOKEN).json(&json!({"reason": "try it"}));
    assert_eq!(close.send().await.unwrap().status().as_u16(), 200);
    let ended = outages(&sidecar).await.remove(0);
    assert_eq!(ended["ended_by"], "order");
    sidecar.signal("TERM");
    sidecar.ended().await;

    let sidecar = Sidecar::start(command(folder.path()), 1);
    assert_eq!(outages(&sidecar).await, std::slice::from_ref(&ended));
    fail(&sidecar, "web").await;
    let stands = outages(&sidecar).await.remove(0);
    assert_eq!(stands["ended"], Value::Null);
    sidecar.signal("TERM");
    sidecar.ended().await;

    let sidecar = Sidecar::start(command(folder.path()), 1);
    let all = outages(&sidecar).await;
    assert_eq!(all.len(), 2, "{all:?}");
    for field in ["id", "since", "cause"] {
        assert_eq!(all[0][field], stands[field], "{field}");
    }
    assert_eq!((&all[0]["ended_by"], &all[1]), (&json!("restart"), &ended));
    kill(sidecar).await;
}

#[tokio::test]
async fn hlt_3_notes_are_there_after_kill_and_restart() {
    let folder = folder();
    configure(folder.path(), "web");
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let first = leave_note(&sidecar, "deploy 1.1").await;
    kill(sidecar).await;

    let sidecar = Sidecar::start(command(folder.path()), 1);
    assert_eq!(notes(&sidecar).await, json!([first]));
    let second = leave_note(&sidecar, "deploy 1.2").await;
    assert_eq!(second["id"], 2);
    kill(sidecar).await;

    let sidecar = Sidecar::start(command(folder.path()), 1);
    assert_eq!(notes(&sidecar).await, json!([first, second]));
    kill(sidecar).await;
}

/// The sums of calls and errors of the last hour: of one dependency, and of the overview.
async fn hour(sidecar: &Sidecar) -> [(u64, u64); 2] {
    let sums = |series: &Value| {
        let sum = |key: &str| {
            let all = series[key].as_array().unwrap().iter();
            all.filter_map(Value::as_u64).sum()
        };
        (sum("calls"), sum("errors"))
    };
    let one: Value = get(sidecar, "/api/dependencies/web/series").await;
    let all: Value = get(sidecar, "/api/series").await;
    [sums(&one), sums(&all[0])]
}

async fn get(sidecar: &Sidecar, path: &str) -> Value {
    let request = http().get(sidecar.admin(path));
    request.send().await.unwrap().json().await.unwrap()
}

/// Waits until the file of the last hour has these calls.
async fn written(folder: &Path, sidecar: &Sidecar, calls: u64) {
    let file = folder.join("state.json.hour");
    let modified = || {
        let found = std::fs::metadata(&file);
        found.and_then(|found| found.modified()).ok()
    };
    let before = modified();
    let is_written = || modified() != before;
    let waiting = async {
        while !is_written() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, waiting).await.unwrap();
    assert_eq!(hour(sidecar).await, [(calls, calls); 2]);
}

#[tokio::test]
async fn hlt_3_the_last_hour_is_there_after_kill_and_restart() {
    let folder = folder();
    configure(folder.path(), "web");
    let sidecar = Sidecar::start(command(folder.path()), 1);
    for _ in 0..3 {
        fail_or_refuse(&sidecar).await;
    }
    written(folder.path(), &sidecar, 3).await;
    let before: Value = get(&sidecar, "/api/dependencies/web/series").await;
    kill(sidecar).await;

    let sidecar = Sidecar::start(command(folder.path()), 1);
    assert_eq!(hour(&sidecar).await, [(3, 3); 2]);
    let after: Value = get(&sidecar, "/api/dependencies/web/series").await;
    // At the time that they had: within a step of 5 s.
    let at = |series: &Value| {
        let begin: jiff::Timestamp = series["begin"].as_str().unwrap().parse().unwrap();
        let all = series["calls"].as_array().unwrap();
        let first = all.iter().position(|calls| calls.as_u64() > Some(0));
        begin.as_second() + 5 * i64::try_from(first.unwrap()).unwrap()
    };
    assert!((at(&before) - at(&after)).abs() <= 5, "{before} {after}");
    // A stop that was asked for loses nothing, and there is no restart that loses what was before.
    fail_or_refuse(&sidecar).await;
    sidecar.signal("TERM");
    sidecar.ended().await;

    let sidecar = Sidecar::start(command(folder.path()), 1);
    assert_eq!(hour(&sidecar).await, [(4, 4); 2]);
    kill(sidecar).await;

    // Nothing depends on it: a damaged one is told, and replaced.
    let file = folder.path().join("state.json.hour");
    std::fs::write(&file, "{\"breakerbox_hour\":1").unwrap();
    let mut damaged = command(folder.path());
    damaged.env("RUST_LOG", "warn");
    let log = folder.path().join("log");
    let into = std::fs::File::create(&log).unwrap();
    let sidecar = Sidecar::start_logged(damaged, 1, into.into());
    assert_eq!(hour(&sidecar).await, [(0, 0); 2]);
    written(folder.path(), &sidecar, 0).await;
    kill(sidecar).await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains("the charts of the last hour cannot be read")
            && log.contains("state.json.hour"),
        "{log}"
    );
}

#[tokio::test]
async fn hlt_3_outages_that_cannot_be_read_stop_the_start() {
    let folder = folder();
    configure(folder.path(), "web");
    let text = json!({"breakerbox_state": 1, "outages": [{"id": "one"}]});
    std::fs::write(folder.path().join("state.json"), text.to_string()).unwrap();
    let output = command(folder.path()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(
        err.contains("its section \"outages\" cannot be used"),
        "{err}"
    );
}

#[tokio::test]
async fn edge_7_a_command_at_the_gateways_address_says_so() {
    let folder = folder();
    configure(folder.path(), "web");
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let mut status = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    status.args(["status", "--admin", &sidecar.url("")]);
    let output = tokio::task::spawn_blocking(move || status.output().unwrap());
    let output = output.await.unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        err.contains("is the gateway of a Breakerbox") && err.contains("admin.bind"),
        "{err}"
    );
    kill(sidecar).await;
}

#[test]
fn edge_7_a_duration_without_a_unit_says_what_is_needed() {
    for (given, said) in [
        ("10", "it needs a unit: 10s, 10m or 10h"),
        ("soon", "such as 90s"),
    ] {
        let mut open = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
        open.args(["open", "web", "--reason", "r", "--for", given]);
        let output = open.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(said), "{err}");
    }
}
