//! Operator commands, run as a user runs them against a running Breakerbox.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{LONG, Rig, TOKEN};
use crate::demo::breakerbox;
use crate::scripted::{Do, ms, opens_after};

pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// Runs the command on a blocking thread, beside the server.
pub(super) async fn run(mut command: Command) -> Ran {
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(LONG, ran)
        .await
        .unwrap()
        .unwrap()
        .into()
}

fn command(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = breakerbox(arguments);
    command.args(["--admin", &rig.url("")]);
    command
}

pub(super) fn signed(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = command(rig, arguments);
    command.env("BREAKERBOX__ADMIN__TOKEN", TOKEN);
    command
}

#[tokio::test]
async fn item_101_status_shows_a_table_or_json() {
    let rig = Rig::start(opens_after(2, ms(60_000))).await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    rig.bench.fail_until_open().await;
    let table = run(command(&rig, &["status"])).await;
    assert_eq!((table.code, &*table.err), (Some(0), ""));
    let row = table.out.lines().find(|line| line.contains("| dep"));
    let row = row.unwrap();
    for words in ["open", "down", "0/32", "0/64", "next probe in "] {
        assert!(row.contains(words), "{words:?} is missing: {row}");
    }
    let one = run(command(&rig, &["status", "dep"])).await;
    assert!(
        one.out.contains("window: ") && one.out.contains("| worker"),
        "{}",
        one.out
    );
    let json = run(command(&rig, &["status", "dep", "--json"])).await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json["name"], &json["state"]),
        (&json!("dep"), &json!("open"))
    );
    let all = run(command(&rig, &["status", "--json"])).await;
    let all: Value = serde_json::from_str(&all.out).unwrap();
    assert_eq!(all[0]["name"], "dep");
    let nobody = run(command(&rig, &["status", "nobody"])).await;
    assert_eq!((nobody.code, &*nobody.out), (Some(1), ""));
    assert!(
        nobody
            .err
            .contains("no dependency has this name: given nobody"),
        "{}",
        nobody.err
    );
    for arguments in [
        &["status", "dap"][..],
        &["open", "dap", "--reason", "a drill"],
        &["restart", "dap", "--reason", "a drill"],
    ] {
        let near = run(signed(&rig, arguments)).await;
        assert_eq!(near.code, Some(1), "{arguments:?}");
        assert!(near.err.contains("did you mean dep?"), "{}", near.err);
    }
    rig.finish().await;
}

#[tokio::test]
async fn item_101_orders_are_carried_out_and_kept_on_record() {
    let rig = Rig::start(|_| {}).await;
    for (operation, mode) in [
        ("open", Some("forced_open")),
        ("disable", Some("disabled")),
        ("shadow", Some("shadow")),
        ("close", None),
        ("reset", None),
        ("restart", None),
    ] {
        let mut order = signed(&rig, &[operation, "dep", "--reason", "a drill"]);
        if mode.is_some() {
            order.args(["--for", "10m"]);
        }
        let ran = run(order).await;
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{operation}");
        assert!(
            ran.out.starts_with(&format!("{operation}: done")),
            "{}",
            ran.out
        );
        let over = &rig.dependency().await["override"];
        assert_eq!(over["mode"].as_str(), mode, "{operation}");
        assert_eq!(over["until"].is_string(), mode.is_some(), "{operation}");
    }
    let events = run(command(&rig, &["events"])).await;
    assert_eq!(events.code, Some(0));
    assert!(
        events
            .out
            .contains("open by token holder at 127.0.0.1: a drill"),
        "{}",
        events.out
    );
    let json = run(command(&rig, &["events", "--json", "--since", "2"])).await;
    let first: Value = serde_json::from_str(json.out.lines().next().unwrap()).unwrap();
    assert_eq!(first["id"], 3);
    rig.finish().await;
}

#[tokio::test]
async fn sec_1_the_token_comes_from_a_file_or_a_variable_and_is_never_shown() {
    let rig = Rig::start(|_| {}).await;
    let arguments = ["open", "dep", "--reason", "a drill"];
    let none = run(command(&rig, &arguments)).await;
    assert_eq!((none.code, &*none.out), (Some(2), ""));
    assert!(
        none.err
            .contains("allowed: to set BREAKERBOX__ADMIN__TOKEN, or --token-file FILE")
    );
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut of_file = command(&rig, &arguments);
    of_file.arg("--token-file").arg(&file);
    assert_eq!(run(of_file).await.code, Some(0));
    std::fs::write(&file, "a wrong token, not this one").unwrap();
    let mut wrong = signed(&rig, &arguments);
    wrong.arg("--token-file").arg(&file);
    let wrong = run(wrong).await;
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong.err.contains("a change needs the admin token"),
        "{}",
        wrong.err
    );
    // It does not sound as if none was given.
    assert!(wrong.err.contains("another one was given"), "{}", wrong.err);
    assert!(!wrong.err.contains("not this one"));
    let mut gone = command(&rig, &arguments);
    gone.args(["--token-file", "no-such-file"]);
    assert_eq!(run(gone).await.code, Some(2));
    rig.finish().await;
}

#[tokio::test]
async fn cfg_1_the_admin_side_is_found_by_the_configuration() {
    let rig = Rig::start(|_| {}).await;
    let bind = rig.server.address().to_string();
    let mut of_variable = breakerbox(&["status"]);
    of_variable.env("BREAKERBOX__ADMIN__BIND", &bind);
    assert_eq!(run(of_variable).await.code, Some(0));
    let scratch = tempfile::tempdir().unwrap();
    let text = format!("[admin]\nbind = \"{bind}\"\ntoken = \"{TOKEN}\"\n");
    std::fs::write(scratch.path().join("default.toml"), text).unwrap();
    let mut of_file = breakerbox(&["open", "dep", "--reason", "a drill", "--config"]);
    of_file.arg(scratch.path());
    assert_eq!(run(of_file).await.code, Some(0));
    rig.finish().await;
}

#[tokio::test]
async fn cfg_1_wrong_use_and_nobody_there_are_told_apart() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    for arguments in [
        &["status"][..],
        &["events"],
        &["events", "--follow"],
        &["status", "--watch"],
    ] {
        let mut command = breakerbox(arguments);
        command.args(["--admin", &address]);
        let ran = run(command).await;
        assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{arguments:?}");
        assert!(
            ran.err
                .contains("cannot be reached; is Breakerbox running?"),
            "{}",
            ran.err
        );
    }
    let wrong: [&[&str]; 6] = [
        &["status", "--admin", "https://127.0.0.1:1"],
        &["status", "--admin", "not an address"],
        &["status", "--config", "no-such-folder"],
        &["open", "dep"],
        &["open", "dep", "--reason", "r", "--for", "soon"],
        &["close", "dep", "--reason", "r", "--for", "10m"],
    ];
    for arguments in wrong {
        let ran = run(breakerbox(arguments)).await;
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{arguments:?}");
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn ops_1_events_and_status_are_followed_live() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    let spawn = |arguments: &[&str]| {
        let mut child = command(&rig, arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (mut events, lines) = spawn(&["events", "--follow", "--since", "0", "--json"]);
    let (mut watched, states) = spawn(&["status", "--watch"]);
    let told = tokio::task::spawn_blocking(move || {
        let lines = lines.map(Result::unwrap);
        let mut kinds = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
        kinds
            .find(|event| event["details"]["to"] == "open")
            .unwrap()
    });
    let shown = tokio::task::spawn_blocking(move || {
        let mut rows = states
            .map(Result::unwrap)
            .filter(|line| line.contains("| dep"));
        let first = rows.next().unwrap();
        (first, rows.find(|row| row.contains("| open")).unwrap())
    });
    rig.bench.fail_until_open().await;
    let event = tokio::time::timeout(LONG, told).await.unwrap().unwrap();
    assert_eq!(event["dependency"], "dep");
    let (first, last) = tokio::time::timeout(LONG, shown).await.unwrap().unwrap();
    assert!(
        !first.contains('\u{1b}') && !last.contains('\u{1b}'),
        "no terminal codes in a pipe"
    );
    for child in [&mut events, &mut watched] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    rig.finish().await;
}

#[tokio::test]
async fn completions_and_man_pages_name_every_command() {
    let commands = [
        "demo", "serve", "check", "replay", "status", "open", "close", "disable", "shadow",
        "reset", "restart", "events",
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(breakerbox(&["completions", shell])).await;
        assert_eq!(ran.code, Some(0), "{shell}");
        assert!(ran.out.contains("_BREAKERBOX_COMPLETE"), "{shell}");
    }
    let completed = complete(&["breakerbox", ""], None).await;
    assert!(
        commands.iter().all(|name| completed.contains(name)),
        "{completed}"
    );
    assert_eq!(
        run(breakerbox(&["completions", "tcsh"])).await.code,
        Some(2)
    );
    let page = run(breakerbox(&["man"])).await.out;
    assert!(
        page.contains(".TH") && commands.iter().all(|name| page.contains(name)),
        "{page}"
    );
    let page = run(breakerbox(&["man", "open"])).await.out;
    assert!(
        page.contains("reason") && page.contains("breakerbox\\-open"),
        "{page}"
    );
    assert_eq!(run(breakerbox(&["man", "explode"])).await.code, Some(2));
}

/// Completes the last one of these words, as a shell asks for it.
async fn complete(words: &[&str], admin: Option<&Rig>) -> String {
    let mut command = breakerbox(&["--"]);
    command.args(words).env("_BREAKERBOX_COMPLETE", "fish");
    if let Some(rig) = admin {
        let address = rig.server.address().to_string();
        command.env("BREAKERBOX__ADMIN__BIND", address);
    }
    let ran = run(command).await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    ran.out
}

#[tokio::test]
async fn ops_l_names_of_dependencies_are_completed() {
    let rig = Rig::start(|_| {}).await;
    for word in ["status", "open", "close", "restart"] {
        let completed = complete(&["breakerbox", word, "d"], Some(&rig)).await;
        let mut names = completed
            .lines()
            .map(|line| line.split('\t').next().unwrap());
        assert!(names.any(|name| name == "dep"), "{word}: {completed}");
    }
    let others = complete(&["breakerbox", "open", "x"], Some(&rig)).await;
    assert!(!others.contains("dep"), "{others}");
    rig.finish().await;
}

#[tokio::test]
async fn ops_l_the_man_page_has_files_variables_exit_codes_and_examples() {
    let page = run(breakerbox(&["man"])).await.out;
    for heading in [
        "NAME",
        "SYNOPSIS",
        "COMMANDS",
        "FILES",
        "ENVIRONMENT",
        "\"EXIT STATUS\"",
        "EXAMPLES",
    ] {
        let at = page.matches(&format!("\n.SH {heading}\n")).count();
        assert_eq!(at, 1, "{heading}: {page}");
    }
    for one in [
        "\n.SS status\n",
        "\\-\\-sick",
        "BREAKERBOX__ADMIN__TOKEN",
        "NO_COLOR",
    ] {
        assert!(page.contains(one), "{one}: {page}");
    }
    // The demo's own server is no command for people.
    assert!(!page.contains("memory\\-server"), "{page}");
}

#[tokio::test]
async fn ops_l_events_are_followed_after_the_last_ten() {
    let rig = Rig::start(|_| {}).await;
    for _ in 0..6 {
        rig.operate("open").await;
        rig.operate("close").await;
    }
    let all = rig.get("/api/events").await;
    let last = all["last_id"].as_u64().unwrap();
    let mut child = command(&rig, &["events", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = tokio::task::spawn_blocking(move || {
        let ids = lines.map(|line| {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            event["id"].as_u64().unwrap()
        });
        ids.take(11).collect::<Vec<u64>>()
    });
    let ordering = async {
        // Until a new one has come after the ten.
        while !told.is_finished() {
            rig.operate("open").await;
            tokio::time::sleep(ms(20)).await;
        }
    };
    tokio::time::timeout(LONG, ordering).await.unwrap();
    let ids = told.await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ids.len(), 11);
    assert!(
        ids[0] + 9 >= last && ids.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{ids:?}"
    );
    rig.finish().await;
}

#[tokio::test]
async fn hlt_3_the_answer_to_an_order_says_how_long_it_holds() {
    let rig = Rig::start(|_| {}).await;
    let opened = run(signed(&rig, &["open", "dep", "--reason", "a drill"])).await;
    assert!(
        opened
            .out
            .starts_with("open: done, until this process ends, or an operator closes it;"),
        "{}",
        opened.out
    );
    let arguments = ["shadow", "dep", "--reason", "a drill", "--for", "10m"];
    let limited = run(signed(&rig, &arguments)).await;
    assert!(
        limited
            .out
            .starts_with("shadow: done, until this process ends, or 2"),
        "{}",
        limited.out
    );
    let closed = run(signed(&rig, &["close", "dep", "--reason", "a drill"])).await;
    assert!(closed.out.starts_with("close: done\n"), "{}", closed.out);
    rig.finish().await;
}

#[tokio::test]
async fn ops_l_the_sick_alone_are_shown_on_request() {
    let rig = Rig::start(opens_after(2, ms(60_000))).await;
    let well = run(command(&rig, &["status", "--sick"])).await;
    assert_eq!(well.code, Some(0));
    assert!(well.out.starts_with("1 dependency: 1 ok"), "{}", well.out);
    assert!(!well.out.contains("| dep"), "{}", well.out);
    rig.bench.fail_until_open().await;
    let sick = run(command(&rig, &["status", "--sick"])).await;
    assert!(sick.out.starts_with("1 dependency: 1 down"), "{}", sick.out);
    assert!(sick.out.contains("| dep"), "{}", sick.out);
    let both = run(command(&rig, &["status", "dep", "--sick"])).await;
    assert_eq!(both.code, Some(2));
    rig.finish().await;
}

/// A service that answers each request with 200 and this JSON. Returns its address.
async fn other_service(body: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match socket.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                 connection: close\r\n\r\n{body}"
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn ops_1_another_service_with_json_is_not_taken_for_the_admin_side() {
    for body in ["{\"service\": \"api\"}", "[{\"id\": 1}]", "\"ok\""] {
        let url = other_service(body).await;
        for arguments in [
            &["status"][..],
            &["status", "--sick"],
            &["status", "--json"],
            &["status", "dep"],
            &["alerts"],
            &["alerts", "--all", "--json"],
            &["events"],
            &["events", "--follow", "--since", "1"],
            &["fleet"],
        ] {
            let mut asked = breakerbox(arguments);
            asked.args(["--admin", &url]);
            let ran = run(asked).await;
            // Silence would read as "nothing is wrong".
            assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.out);
            let said = "is not the admin side of a Breakerbox";
            assert!(ran.err.contains(said), "{arguments:?}: {}", ran.err);
        }
    }
}
