//! MCP servers behind `breakerbox serve` and the gateway: real clients in other languages use the
//! knowledge graph at `/{dependency}/mcp`, and survive its death.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use breakerbox::Settings;
use breakerbox::gateway::Gateway;
use breakerbox::policy::BreakerCommand as Operate;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::*;
use crate::gateway::serve::{Sidecar, command, configured, http};

/// The configuration of the knowledge graph, with its file in this folder.
fn graph(folder: &Path, more: &str) -> Option<String> {
    let program =
        install::node_modules()?.join("@modelcontextprotocol/server-memory/dist/index.js");
    let file = memory_file(folder);
    Some(format!(
        "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"node\"\nargs = [{program:?}]\n\
         env = {{ MEMORY_FILE_PATH = {file:?}, API_KEY = \"s3cr3t-of-the-graph\" }}\n{more}"
    ))
}

/// A client in another language. It prints a line when the test should kill the server, and waits
/// for the test before it goes on.
struct Talk {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn begin(mut program: Command) -> Self {
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn go_on(&mut self) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PYTHON: &str = r#"
import asyncio, sys
from mcp import Client

async def main(url):
    async with Client(url) as client:
        names = sorted(tool.name for tool in (await client.list_tools()).tools)
        assert len(names) == 9, names
        made = await client.call_tool("create_entities", {"entities": [
            {"name": "Ada", "entityType": "person", "observations": ["wrote"]}]})
        assert not made.is_error, made
        print("before", client.protocol_version, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        found = await client.call_tool("search_nodes", {"query": "ada"})
        assert not found.is_error, found
        print("after", found.structured_content["entities"][0]["name"], flush=True)
        listed = (await client.list_resources()).resources
        read = await client.read_resource(listed[0].uri)
        assert "Ada" in read.contents[0].text, read
        wrong = await client.call_tool("add_observations", {"observations": [
            {"entityName": "Nobody", "contents": ["x"]}]})
        assert wrong.is_error, wrong
        print("done", flush=True)

asyncio.run(main(sys.argv[1]))
"#;

const NODE: &str = r#"
import { once } from "node:events";
import { pathToFileURL } from "node:url";
const sdk = (path) => import(pathToFileURL(`${process.argv[3]}/@modelcontextprotocol/sdk/dist/esm/client/${path}.js`));
const { Client } = await sdk("index");
const { StreamableHTTPClientTransport } = await sdk("streamableHttp");
const client = new Client({ name: "test", version: "1" });
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]));
await client.connect(transport);
const { tools } = await client.listTools();
if (tools.length !== 9) throw new Error(`${tools.length} tools`);
const entities = [{ name: "Ada", entityType: "person", observations: ["wrote"] }];
await client.callTool({ name: "create_entities", arguments: { entities } });
console.log("before", transport.protocolVersion);
await once(process.stdin, "data");
const found = await client.callTool({ name: "search_nodes", arguments: { query: "ada" } });
console.log("after", found.structuredContent.entities[0].name);
const { resources } = await client.listResources();
const read = await client.readResource({ uri: resources[0].uri });
if (!read.contents[0].text.includes("Ada")) throw new Error(JSON.stringify(read));
const wrong = await client.callTool({ name: "add_observations", arguments: { observations: [
  { entityName: "Nobody", contents: ["x"] }] } });
if (!wrong.isError) throw new Error(JSON.stringify(wrong));
console.log("done");
await client.close();
process.exit(0);
"#;

/// Talks to the graph through the sidecar, and kills the graph meanwhile.
///
/// A request that is in flight at the kill may fail, so the configuration lets reads be repeated.
async fn talk(folder: &Path, table: &str, program: impl FnOnce(&str) -> Command) {
    let repeats = "retry = { max_attempts = 2 }\n";
    configured(folder, &format!("{table}{repeats}"));
    let sidecar = Sidecar::start(command(folder), 1);
    let url = sidecar.url("/kg/mcp");
    let mut talk = Talk::begin(program(&url));
    let begun = talk.line();
    assert!(begun.starts_with("before 20"), "{begun}");
    let first = graph_process(folder);
    signal(first, "KILL");
    talk.go_on();
    assert_eq!(talk.line(), "after Ada");
    assert_eq!(talk.line(), "done");
    gone(&[first]);
    let second = graph_process(folder);
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
    gone(&[second]);
}

/// The graph's process: only its environment names the file, not the sidecar's.
fn graph_process(folder: &Path) -> u32 {
    let file = memory_file(folder);
    match processes(&file)[..] {
        [process] => process,
        ref others => panic!("one graph is running, not {others:?}"),
    }
}

#[tokio::test]
async fn a_python_client_talks_to_the_graph_before_and_after_its_death() {
    let folder = folder();
    let (Some(table), Some(python)) = (graph(folder.path(), ""), install::python()) else {
        return;
    };
    talk(folder.path(), &table, |url| {
        let mut program = Command::new(python);
        program.args(["-c", PYTHON, url]);
        program
    })
    .await;
}

#[tokio::test]
async fn the_node_sdk_talks_to_the_graph_before_and_after_its_death() {
    let folder = folder();
    let (Some(table), Some(modules)) = (graph(folder.path(), ""), install::node_modules()) else {
        return;
    };
    let script = folder.path().join("client.mjs");
    std::fs::write(&script, NODE).unwrap();
    talk(folder.path(), &table, |url| {
        let mut program = Command::new("node");
        program.arg(script).arg(url).arg(modules);
        program
    })
    .await;
}

/// Waits until the graph runs: the sidecar is up before its servers are.
async fn running(sidecar: &Sidecar) {
    let url = sidecar.admin("/api/dependencies/kg");
    let started = async {
        loop {
            let shown = http().get(&url).send().await.unwrap();
            let shown: Value = shown.json().await.unwrap();
            if shown["workers"][0]["state"] == "running" {
                return;
            }
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.unwrap();
}

#[tokio::test]
async fn the_admin_side_tells_the_protocol_and_the_last_words() {
    let folder = folder();
    let Some(table) = graph(folder.path(), "") else {
        return;
    };
    configured(folder.path(), &table);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let url = sidecar.admin("/api/dependencies/kg");
    let show = async || -> Value {
        let shown = http().get(&url).send().await.unwrap();
        shown.json().await.unwrap()
    };
    running(&sidecar).await;
    let shown = show().await;
    assert_eq!(shown["kind"], "mcp_stdio");
    assert_eq!(shown["protocol_version"], "2025-11-25");
    assert_eq!(shown["limits"]["max_concurrent_writes"], 1);
    assert_eq!(shown["last_stderr"], json!([]));
    signal(graph_process(folder.path()), "KILL");
    let restarted = async {
        loop {
            let shown = show().await;
            if shown["workers"][0]["restarts"] == 1 && shown["workers"][0]["state"] == "running" {
                return shown;
            }
            tokio::time::sleep(MOMENT).await;
        }
    };
    let shown = tokio::time::timeout(PATIENCE, restarted).await.unwrap();
    let exit = shown["workers"][0]["last_exit"].as_str().unwrap();
    assert!(exit.contains("signal: 9"), "{shown}");
    assert!(
        exit.contains("its last line on standard error: Knowledge Graph"),
        "{shown}"
    );
    for life in ["stderr", "last_stderr"] {
        let line = shown[life][0].as_str().unwrap();
        assert!(line.contains("running on stdio"), "{shown}");
    }
    for path in [
        "/api/dependencies",
        "/api/dependencies/kg",
        "/api/events",
        "/metrics",
    ] {
        let text = http().get(sidecar.admin(path)).send().await.unwrap();
        let text = text.text().await.unwrap();
        assert!(!text.contains("s3cr3t"), "{path}: {text}");
    }
}

#[tokio::test]
async fn item_69_no_zombie_is_left_of_a_tree_whose_head_was_cut_off() {
    let folder = folder();
    let Some(modules) = install::node_modules() else {
        return;
    };
    let file = memory_file(folder.path());
    let table = format!(
        "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"npx\"\ncwd = {:?}\n\
         args = [\"--offline\", \"mcp-server-memory\"]\nenv = {{ MEMORY_FILE_PATH = {file:?} }}\n",
        modules.parent().unwrap(),
    );
    configured(folder.path(), &table);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    running(&sidecar).await;
    let tree = processes(&file);
    assert!(tree.len() >= 2, "npx starts others: {tree:?}");
    signal(tree[0], "KILL");
    gone(&tree);
    let next = async {
        while processes(&file).len() < tree.len() {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap();
    let tree = processes(&file);
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
    gone(&tree);
}

#[tokio::test]
async fn cfg_2_a_reload_replaces_a_server_that_changed_and_ends_one_that_went() {
    let folder = folder();
    let Some(table) = graph(folder.path(), "") else {
        return;
    };
    let signals = "[reload]\nwatch = false\n";
    configured(folder.path(), &format!("{signals}{table}"));
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let first = graph_process(folder.path());
    let follow = async |text: &str, so: &dyn Fn(&[u32]) -> bool| {
        configured(folder.path(), text);
        sidecar.signal("HUP");
        let looking = async {
            while !so(&processes(&memory_file(folder.path()))) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, looking).await;
        assert!(seen.is_ok(), "{text}");
    };
    let limited = format!("{signals}{table}stderr_lines = 7\n");
    follow(&limited, &|now| now.len() == 1 && now != [first]).await;
    gone(&[first]);
    follow(
        &format!("{signals}[dependencies.a]\nkind = \"simulated\"\n"),
        &<[u32]>::is_empty,
    )
    .await;
    follow(&limited, &|now| now.len() == 1).await;
}

/// A gateway in the test's process.
struct Doors {
    runtime: Runtime,
    gateway: Gateway,
}

impl Doors {
    async fn open(text: &str) -> Self {
        let own = "[gateway]\nbind = \"127.0.0.1:0\"\nthreads = 1\n";
        let settings = Settings::loader().bare().toml(own).toml(text).load();
        let settings = settings.unwrap_or_else(|error| panic!("{error}"));
        let runtime = Runtime::start(settings.clone()).await.unwrap();
        let gateway = Gateway::start(&settings.gateway, &runtime).unwrap();
        for (name, one) in &settings.dependencies {
            let url = one.url.as_deref().unwrap_or_default();
            gateway.put(name, one, url, "test").await.unwrap();
        }
        Self { runtime, gateway }
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let url = format!("http://{}/kg/mcp", self.gateway.address());
        let asked = http().post(url).json(&message);
        let asked = asked.header("accept", "application/json, text/event-stream");
        let answered = asked.send().await.unwrap();
        let text = answered.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    async fn end(self) {
        self.gateway.shutdown().await;
        self.runtime.shutdown().await;
    }
}

#[tokio::test]
async fn refusals_are_errors_of_ours_and_fallbacks_say_so() {
    let folder = folder();
    let fallback = "[[dependencies.kg.fallback]]\nkind = \"stale_cache\"\n\
                    [[dependencies.kg.fallback]]\nkind = \"fixed\"\nbody = '{\"entities\":[]}'\n";
    let Some(table) = graph(folder.path(), fallback) else {
        return;
    };
    let doors = Doors::open(&table).await;
    let create = json!({ "name": "create_entities", "arguments": entity("Ada") });
    let made = doors.ask("tools/call", create.clone()).await;
    assert_eq!(
        made["result"]["structuredContent"]["entities"][0]["name"],
        "Ada"
    );
    assert_eq!(
        made["result"]["_meta"],
        Value::Null,
        "it is the server's own"
    );
    let search = |query: &str| json!({ "name": "search_nodes", "arguments": { "query": query } });
    let found = doors.ask("tools/call", search("ada")).await;
    assert_eq!(
        found["result"]["structuredContent"]["entities"][0]["name"],
        "Ada"
    );
    let server = doors.gateway.servers().get("kg").unwrap();
    let open = Operate::Open {
        reason: "a drill".to_owned(),
        until: None,
    };
    server.client().operate(open).await.unwrap();
    let refused = doors.ask("tools/call", create).await;
    let error = &refused["error"];
    assert_eq!(error["code"], -31050, "{refused}");
    assert_eq!(error["data"]["type"], "urn:breakerbox:breaker-open");
    assert_eq!(error["data"]["state"], "forced_open");
    assert_eq!(error["data"]["executed"], "no");
    assert!(
        error["data"]
            .as_object()
            .unwrap()
            .contains_key("retry_after_ms")
    );
    let kept = doors.ask("tools/call", search("ada")).await;
    let result = &kept["result"];
    assert_eq!(result["structuredContent"]["entities"][0]["name"], "Ada");
    assert_eq!(result["_meta"]["breakerbox/source"], "fallback:stale_cache");
    assert!(result["_meta"]["breakerbox/age_ms"].is_u64(), "{kept}");
    let fixed = doors.ask("tools/call", search("grace")).await;
    let result = &fixed["result"];
    assert_eq!(result["structuredContent"]["entities"], json!([]));
    assert_eq!(result["_meta"]["breakerbox/source"], "fallback:fixed");
    let tools = doors.ask("tools/list", json!({})).await;
    assert_eq!(tools["result"]["tools"].as_array().unwrap().len(), 9);
    doors.end().await;
}

#[tokio::test]
async fn a_tools_own_error_is_never_kept_for_later() {
    let folder = folder();
    let fallback = "[[dependencies.kg.fallback]]\nkind = \"stale_cache\"\n";
    let Some(table) = graph(folder.path(), fallback) else {
        return;
    };
    std::fs::write(memory_file(folder.path()), "{\"type\":\"ent").unwrap();
    let doors = Doors::open(&table).await;
    let search = json!({ "name": "search_nodes", "arguments": { "query": "ada" } });
    let wrong = doors.ask("tools/call", search.clone()).await;
    assert_eq!(wrong["result"]["isError"], true, "{wrong}");
    let server = doors.gateway.servers().get("kg").unwrap();
    let open = Operate::Open {
        reason: "a drill".to_owned(),
        until: None,
    };
    server.client().operate(open).await.unwrap();
    let refused = doors.ask("tools/call", search).await;
    assert_eq!(refused["error"]["code"], -31050, "{refused}");
    doors.end().await;
}

#[tokio::test]
async fn other_paths_of_a_server_are_problems() {
    let folder = folder();
    let Some(table) = graph(folder.path(), "") else {
        return;
    };
    let doors = Doors::open(&table).await;
    for path in ["/kg", "/kg/", "/kg/other", "/kg/mcp/more"] {
        let url = format!("http://{}{path}", doors.gateway.address());
        let problem = http().get(url).send().await.unwrap();
        assert_eq!(problem.status(), 404, "{path}");
        let media = problem.headers()["content-type"].to_str().unwrap();
        assert_eq!(media, "application/problem+json");
        let problem: Value = problem.json().await.unwrap();
        assert_eq!(problem["type"], "urn:breakerbox:unknown-path");
        assert_eq!(problem["dependency"], "kg");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("/kg/mcp"), "{detail}");
    }
    doors.end().await;
}

#[tokio::test]
async fn item_91_a_stop_with_twenty_calls_in_flight_ends_within_its_grace() {
    let folder = folder();
    if scripted::server(folder.path()).is_none() {
        return;
    }
    let program = folder.path().join("server.mjs");
    let table = format!(
        "[gateway]\nshutdown = \"2s\"\n[dependencies.kg]\nkind = \"mcp_stdio\"\n\
         command = \"node\"\nargs = [{program:?}]\nenv = {{ FOLDER = {:?} }}\n\
         timeout = {{ attempt = \"60s\", total = \"60s\" }}\nworkers = {{ drain = \"2s\" }}\n",
        folder.path()
    );
    configured(folder.path(), &table);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let server = processes(folder.path());
    let url = sidecar.url("/kg/mcp");
    let call = |tool: &str| {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": tool, "arguments": {} } });
        let asked = http().post(&url).json(&message);
        let asked = asked.header("accept", "application/json, text/event-stream");
        async move { asked.send().await }
    };
    call("echo").await.unwrap();
    let hanging = tokio::spawn(join_all((0..20).map(|_| call("hang"))));
    let begun = async {
        let hangs = |line: &&String| *line == "call hang";
        while scripted::notes(folder.path()).iter().filter(hangs).count() < 20 {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    let began = Instant::now();
    sidecar.signal("TERM");
    let status = sidecar.ended().await;
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(6), "{took:?}");
    // Each call has ended, with a response or an error.
    hanging.await.unwrap();
    gone(&server);
}
