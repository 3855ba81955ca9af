//! Eight servers of other projects behind one gateway, in use by four official clients at once.

mod servers;

use std::process::Stdio;

use futures_util::future::{OptionFuture, join_all};
use tokio::process::Command;

use self::servers::{Installed, RealServer};
use super::*;
use crate::gateway::serve::{Sidecar, command, configured, http};

/// Time limit for the start of all servers, and for all calls of a client: far longer than they take.
const LONG: Duration = Duration::from_secs(120);

/// The result of a list and a call, as a client prints it.
#[derive(Debug, serde::Deserialize)]
struct ClientReport {
    server: String,
    tools: Vec<String>,
    text: String,
    is_error: bool,
}

impl RealServer {
    /// Checks that a client got what the server has.
    fn check(&self, client: &str, report: &ClientReport) {
        let mut tools: Vec<_> = report.tools.iter().map(String::as_str).collect();
        tools.sort_unstable();
        assert_eq!(report.server, self.name, "{client}");
        assert_eq!(tools, self.tools, "{client}, {}", self.name);
        let is_right = !report.is_error && report.text.contains(self.returned);
        assert!(is_right, "{client}, {}: {report:?}", self.name);
    }
}

/// Waits until a server runs: the sidecar is up before its servers are.
async fn running(sidecar: &Sidecar, server: &RealServer) {
    let url = sidecar.admin(&format!("/api/dependencies/{}", server.name));
    loop {
        let shown = http().get(&url).send().await.unwrap();
        let shown: Value = shown.json().await.unwrap();
        if shown["workers"][0]["state"] == "running" {
            return;
        }
        tokio::time::sleep(MOMENT).await;
    }
}

/// Runs a program, and returns its output.
async fn output(mut program: Command) -> String {
    program.stdin(Stdio::null()).kill_on_drop(true);
    let ended = program.output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program:?}: {said}\n{wrong}");
    said
}

/// Runs a client that prints a line for each server.
async fn reports(program: Command) -> Vec<ClientReport> {
    let said = output(program).await;
    let lines = said.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// The Inspector's command line: a process for each request, in the older dialect for lists and in
/// the newer one for calls.
async fn inspect(inspector: install::NodeProgram, url: &str, plan: &[Value]) -> Vec<ClientReport> {
    // It keeps files of its own there.
    let home = folder();
    let program = "@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    let ask = async |server: &str, arguments: &[&str]| -> Value {
        let mut command = Command::new(&inspector.node);
        command.arg(inspector.modules.join(program)).arg("--cli");
        command.arg(format!("{url}/{server}/mcp")).args(arguments);
        command.env("HOME", home.path());
        let said = output(command).await;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    };
    let mut reports = Vec::new();
    for call in plan {
        let server = call["server"].as_str().unwrap();
        let list = ["--method", "tools/list", "--protocol-era", "legacy"];
        let listed = ask(server, &list).await;
        let tools = listed["tools"].as_array().unwrap().iter();
        let tools = tools.map(|tool| tool["name"].as_str().unwrap().to_owned());
        let (tool, arguments) = (
            call["tool"].as_str().unwrap(),
            call["arguments"].to_string(),
        );
        let call = ["--method", "tools/call", "--protocol-era", "modern"];
        let call = [
            &call[..],
            &["--tool-name", tool, "--tool-args-json", &arguments],
        ]
        .concat();
        let result = ask(server, &call).await;
        let blocks = result["content"].as_array().unwrap().iter();
        reports.push(ClientReport {
            server: server.to_owned(),
            tools: tools.collect(),
            text: blocks.filter_map(|block| block["text"].as_str()).collect(),
            is_error: result["isError"] == true,
        });
    }
    reports
}

impl Installed {
    /// The client by one of the two Python libraries.
    fn python_client(&self, library: &str, url: &str, plan: &Path) -> Command {
        let mut client = Command::new(&self.python);
        client.arg(fixture("mcp_client.py")).args([library, url]);
        client.arg(plan);
        client
    }

    /// The client by the TypeScript SDK.
    fn node_client(&self, url: &str, plan: &Path) -> Command {
        let mut client = Command::new("node");
        client.arg(fixture("mcp_client.mjs")).arg(&self.modules);
        client.arg(url).arg(plan);
        client
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

#[tokio::test]
async fn mcp_5_four_official_clients_list_and_call_eight_real_servers_at_once() {
    let Some(installed) = Installed::find() else {
        return;
    };
    let inspector = install::inspector();
    let folder = folder();
    let servers = installed.servers(folder.path()).await;
    let tables: String = servers.iter().map(RealServer::table).collect();
    configured(folder.path(), &tables);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let up = join_all(servers.iter().map(|server| running(&sidecar, server)));
    tokio::time::timeout(LONG, up).await.unwrap();
    let call = |server: &RealServer| {
        let (tool, arguments) = &server.call;
        json!({ "server": server.name, "tool": tool, "arguments": arguments })
    };
    let calls: Vec<_> = servers.iter().map(call).collect();
    let plan = folder.path().join("plan.json");
    std::fs::write(&plan, json!(calls).to_string()).unwrap();
    let url = sidecar.url("");
    let inspected = inspector.map(|inspector| inspect(inspector, &url, &calls));
    let all = async {
        tokio::join!(
            reports(installed.python_client("mcp", &url, &plan)),
            reports(installed.python_client("fastmcp", &url, &plan)),
            reports(installed.node_client(&url, &plan)),
            OptionFuture::from(inspected),
        )
    };
    let (mcp, fastmcp, sdk, inspector) = tokio::time::timeout(LONG, all).await.unwrap();
    let mut seen = vec![("mcp", mcp), ("fastmcp", fastmcp), ("sdk", sdk)];
    seen.extend(inspector.map(|reports| ("inspector", reports)));
    for (client, reports) in seen {
        assert_eq!(reports.len(), servers.len(), "{client}: {reports:?}");
        for (server, report) in servers.iter().zip(&reports) {
            server.check(client, report);
        }
    }
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}
