//! The first five minutes, exactly as the README has them.

use std::process::Command;

use super::serve::{Sidecar, command, folder, is_missing};

const README: &str = include_str!("../../../README.md");

/// The lines of the section's shell blocks, without comments, as one list per block.
fn blocks() -> Vec<Vec<&'static str>> {
    let (_, section) = README
        .split_once("\n### The first five minutes\n")
        .expect("the section");
    let section = section.split("\n### ").next().unwrap_or(section);
    let blocks = section.split("```sh\n").skip(1).map(|rest| {
        let block = rest.split("```").next().unwrap_or(rest);
        let lines = block
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.collect()
    });
    blocks.collect()
}

/// A command line without its trailing comment.
fn bare(line: &str) -> &str {
    line.split("  #").next().unwrap_or(line).trim()
}

#[test]
fn the_first_five_minutes_go_as_the_readme_says() {
    if is_missing("curl") {
        return;
    }
    let [start, commands] = &blocks()[..] else {
        panic!("two blocks: the start, and the requests");
    };
    let [export, serve] = start[..] else {
        panic!("the token and the command: {start:?}");
    };
    assert_eq!(bare(serve), "breakerbox serve");
    let (name, token) = bare(export)
        .strip_prefix("export ")
        .and_then(|export| export.split_once('='))
        .expect("a variable");
    let folder = folder();
    let mut started = command(folder.path());
    started.env(name, token);
    let sidecar = Sidecar::start(started, 4);
    // The default ports may be in use here.
    let (gateway, admin) = (sidecar.url(""), sidecar.admin(""));
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_breakerbox"));
    let mut path = binary.parent().expect("its folder").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let run = |line: &str| {
        let line = line
            .replace("http://127.0.0.1:7070", &gateway)
            .replace("http://127.0.0.1:7071", &admin);
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("no_proxy", "*")
            .env(name, token)
            .env("BREAKERBOX__ADMIN__BIND", admin.replace("http://", ""))
            .output()
            .expect("a shell");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {err}");
        String::from_utf8(output.stdout).expect("text")
    };
    let [
        works,
        breaks,
        again,
        status,
        metrics,
        export,
        opens,
        closes,
        table,
    ] = commands[..]
    else {
        panic!("five curls, the token and three commands: {commands:?}");
    };
    assert_eq!(export, format!("export {name}={token}"));
    let curls = commands.iter().filter(|line| line.starts_with("curl "));
    assert_eq!(curls.count(), 5);

    let primary = run(works);
    assert!(primary.starts_with("HTTP/1.1 200 OK"), "{primary}");
    assert!(
        primary.contains("\nbreakerbox-source: primary\r"),
        "{primary}"
    );
    assert!(primary.contains("rust #1"), "{primary}");

    assert_eq!(run(breaks), "it responds with 500 from now on, for 1m\n");

    let stale = run(again);
    for text in [
        "HTTP/1.1 200 OK",
        "\nbreakerbox-source: fallback:stale_cache\r",
        "\nage: ",
        "rust #1",
    ] {
        assert_eq!(stale.matches(text).count(), 6, "{text}: {stale}");
    }

    let known: serde_json::Value = serde_json::from_str(&run(status)).expect("JSON");
    assert_eq!(known["state"], "open", "{known}");
    assert_eq!(known["totals"]["fallback"], 6, "{known}");
    assert!(
        known["reason"].is_string() && known["retry_after_ms"].is_u64(),
        "{known}"
    );

    let scraped = run(metrics);
    let open = "breakerbox_breaker_state{dependency=\"vector_search\",state=\"open\"} 1";
    assert!(scraped.contains(open), "{scraped}");

    let opened = run(opens);
    assert!(opened.starts_with("open: done, until"), "{opened}");
    // The refusal that the section shows.
    let graph = "curl -s -i http://127.0.0.1:7070/knowledge_graph/rust";
    let refused = run(graph);
    for text in [
        "HTTP/1.1 503",
        "urn:breakerbox:breaker-open",
        "breakerbox-source: gateway",
    ] {
        assert!(
            refused.contains(text) && README.contains(text),
            "{text}: {refused}"
        );
    }
    assert!(run(closes).starts_with("close: done\n"));
    assert!(run(graph).starts_with("HTTP/1.1 200 OK"));
    let table = run(table);
    for name in ["vector_search", "web_search", "knowledge_graph"] {
        assert!(table.contains(name), "{table}");
    }
}
