//! `breakerbox import`: files of clients as configurations.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use breakerbox::Settings;
use breakerbox::config::{DependencyKind, import_clients};

use super::folder;

fn import(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    command.arg("import").args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // It may end without reading.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const CLAUDE: &str = r#"{
  "mcpServers": {
    "Knowledge Graph": {
      "command": "npx",
      "args": ["-y", "@modelcontextprotocol/server-memory"],
      "env": { "MEMORY_FILE_PATH": "/data/a \"b\".json", "API_KEY": "${API_KEY}", "MODE": "${MODE:-fast}" }
    },
    "github": {
      "type": "http",
      "url": "https://api.example/mcp/",
      "headers": { "Authorization": "Bearer ghp_16C7e42F292c6912E7", "X-Mode": "all", "X-Api-Key": "${KEY}" }
    },
    "old": { "type": "sse", "url": "https://old.example/sse" },
    "folder": { "command": "server", "args": ["${workspaceFolder}"], "disabled": true, "autoApprove": [] }
  }
}"#;

#[test]
fn mcp_6_m12_servers_of_claude_and_cursor_become_dependencies() {
    let imported = import_clients(CLAUDE, "mcp.json").unwrap();
    assert_eq!((imported.ready, imported.commented), (2, 2));
    let settings = Settings::loader().bare().toml(&imported.toml).load();
    let settings = settings.unwrap_or_else(|error| panic!("{error}\n{}", imported.toml));
    assert_eq!(settings.dependencies.len(), 2);
    let graph = &settings.dependencies["knowledge_graph"];
    assert_eq!(graph.kind, Some(DependencyKind::McpStdio));
    let own = graph.mcp.as_ref().unwrap();
    assert_eq!(own.command, "npx");
    assert_eq!(own.args, ["-y", "@modelcontextprotocol/server-memory"]);
    let env = |name: &str| own.env.get(name).map(|value| value.expose());
    assert_eq!(env("MEMORY_FILE_PATH"), Some("/data/a \"b\".json"));
    assert_eq!(env("MODE"), Some("fast"), "the default of a reference");
    assert_eq!(env("API_KEY"), None, "a reference is no value");
    let variable = "BREAKERBOX__DEPENDENCIES__KNOWLEDGE_GRAPH__ENV__API_KEY";
    assert!(imported.toml.contains(variable), "{}", imported.toml);
    let github = &settings.dependencies["github"];
    assert_eq!(github.url.as_deref(), Some("https://api.example/mcp/"));
    let headers = &github.mcp.as_ref().unwrap().headers;
    let sent = headers["Authorization"].expose();
    assert_eq!(sent, "Bearer ghp_16C7e42F292c6912E7");
    assert!(!headers.contains_key("X-Api-Key"));
    for line in imported.notes.iter() {
        assert!(!line.contains("ghp_"), "{line}");
    }
    let notes = imported.notes.join("\n");
    assert!(
        notes.contains("github: headers.Authorization is a secret in plain text"),
        "{notes}"
    );
    assert!(
        notes.contains("old: it stands in comments: it uses the older transport"),
        "{notes}"
    );
    assert!(
        imported.toml.contains("# [dependencies.folder]"),
        "{}",
        imported.toml
    );
    // The variable sets what the reference left open.
    let set = Settings::loader().bare().toml(&imported.toml);
    let set = set.env_vars([(variable, "k")]).load().unwrap();
    let env = &set.dependencies["knowledge_graph"]
        .mcp
        .as_ref()
        .unwrap()
        .env;
    assert_eq!(env["API_KEY"].expose(), "k");
}

#[test]
fn mcp_6_m12_servers_of_an_editor_become_dependencies() {
    let file = r#"{
      // of VS Code
      "inputs": [{ "type": "promptString", "id": "key", "password": true }],
      "servers": {
        "docs": { "type": "stdio", "command": "docs", "env": { "KEY": "${input:key}" }, },
        "web": { "type": "http", "url": "https://web.example/mcp" }
      },
    }"#;
    let out = import(&["-"], file);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let settings = Settings::loader().bare().toml(text(&out.stdout)).load();
    let settings = settings.unwrap();
    assert_eq!(settings.dependencies.len(), 2);
    assert!(text(&out.stderr).contains("2 servers imported"));
    assert!(text(&out.stderr).contains("env.KEY refers to a variable of the client"));
}

#[test]
fn mcp_6_m12_an_import_never_changes_a_file() {
    let folder = folder();
    let file = folder.path().join("mcp.json");
    let target = folder.path().join("servers.toml");
    std::fs::write(&file, CLAUDE).unwrap();
    let (file, place) = (file.to_str().unwrap(), target.to_str().unwrap());
    let out = import(&[file, "--write", place], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let told = text(&out.stdout) + &text(&out.stderr);
    assert!(!told.contains("ghp_"), "{told}");
    let written = std::fs::read_to_string(&target).unwrap();
    assert!(written.contains("[dependencies.github]"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it has a secret");
    }
    std::fs::write(&target, "mine").unwrap();
    let out = import(&[file, "--write", place], "");
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("name another file"));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "mine");
}

#[test]
fn mcp_6_m12_a_file_without_servers_says_what_is_allowed() {
    for (input, said) in [
        ("{", "it is no JSON"),
        ("{}", "allowed: an object \"mcpServers\""),
        ("{\"mcpServers\": {}}", "it has no servers"),
        ("[1]", "it has no servers"),
    ] {
        let out = import(&["-"], input);
        assert_eq!(out.status.code(), Some(2), "{input}");
        assert!(text(&out.stderr).contains(said), "{}", text(&out.stderr));
    }
    let out = import(&["/nowhere/mcp.json"], "");
    assert_eq!(out.status.code(), Some(1));
}
