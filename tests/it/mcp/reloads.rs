//! Reloads of servers that speak MCP: a new one is started beside the old one (rule EDGE-6).

use breakerbox::Settings;
use breakerbox::gateway::{AddOutcome, Gateway};
use breakerbox::policy::BreakerCommand;

use super::*;
use crate::gateway::serve::http;

/// A gateway with one dependency, `kg`.
struct Served {
    runtime: Runtime,
    gateway: Gateway,
}

fn settings(text: &str) -> Settings {
    let own = "[gateway]\nbind = \"127.0.0.1:0\"\nthreads = 1\n";
    let settings = Settings::loader().bare().toml(own).toml(text).load();
    settings.unwrap_or_else(|error| panic!("{error}"))
}

impl Served {
    async fn start(text: &str) -> Self {
        let settings = settings(text);
        let runtime = Runtime::start(settings.clone()).await.unwrap();
        let gateway = Gateway::start(&settings.gateway, &runtime).unwrap();
        let served = Self { runtime, gateway };
        assert_eq!(served.put(text).await, AddOutcome::Started);
        if let Some(server) = served.gateway.servers().get("kg") {
            front_bed::until_started(&server).await;
        }
        served
    }

    async fn put(&self, text: &str) -> AddOutcome {
        self.try_put(text).await.unwrap()
    }

    async fn try_put(&self, text: &str) -> Result<AddOutcome, breakerbox::gateway::AddError> {
        let settings = settings(text);
        self.runtime.reload(settings.clone(), "test").await;
        let one = &settings.dependencies["kg"];
        let url = one.url.as_deref().unwrap_or_default();
        self.gateway.put("kg", one, url, "test").await
    }

    fn ask(&self, tool: &str, arguments: Value) -> impl Future<Output = Value> + use<> {
        let params = json!({ "name": tool, "arguments": arguments });
        let message =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let url = format!("http://{}/kg/mcp", self.gateway.address());
        let asked = http().post(url).json(&message);
        let asked = asked.header("accept", "application/json, text/event-stream");
        async move {
            let text = asked.send().await.unwrap().text().await.unwrap();
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        }
    }
}

/// The table of the scripted server. `None` if Node is not installed.
fn table(folder: &std::path::Path, arguments: &str, more: &str) -> Option<String> {
    scripted::server(folder)?;
    let program = folder.join("server.mjs");
    Some(format!(
        "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"node\"\nargs = [{program:?}{arguments}]\n\
         env = {{ FOLDER = {folder:?} }}\n{more}"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_6_e4a_a_server_of_another_command_takes_over_beside_the_old_one() {
    let folder = folder();
    let Some(first) = table(folder.path(), "", "") else {
        return;
    };
    let served = Served::start(&first).await;
    let old = processes(folder.path());
    assert_eq!(old.len(), 1, "{old:?}");
    let submitted = |served: &Served| served.runtime.status("kg").unwrap().totals.submitted;
    let slow = tokio::spawn(served.ask("echo", json!({ "wait": 700, "text": "slow" })));
    let begun = async {
        while !scripted::notes(folder.path()).contains(&"call echo".to_owned()) {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    let second = table(folder.path(), ", \"again\"", "").unwrap();
    assert_eq!(served.put(&second).await, AddOutcome::Restarted);
    assert!(!slow.is_finished(), "it is still in flight");
    let quick = served.ask("echo", json!({ "text": "quick" })).await;
    assert_eq!(quick["result"]["content"][0]["text"], "quick", "{quick}");
    let answered = slow.await.unwrap();
    assert_eq!(
        answered["result"]["content"][0]["text"], "slow",
        "{answered}"
    );
    assert_eq!(submitted(&served), 2, "the counters go on");
    gone(&old);
    // A server that cannot be started changes nothing.
    let broken = second.replace("\"node\"", "\"/no/such/program\"");
    assert!(served.try_put(&broken).await.is_err());
    let still = served.ask("echo", json!({ "text": "still" })).await;
    assert_eq!(still["result"]["content"][0]["text"], "still", "{still}");
    assert_eq!(served.put(&second).await, AddOutcome::Kept);
    let more = "idempotent = [\"write\"]\n[[dependencies.kg.fallback]]\nkind = \"fixed\"\n";
    let process = processes(folder.path());
    let third = table(folder.path(), ", \"again\"", more).unwrap();
    assert_eq!(served.put(&third).await, AddOutcome::Kept);
    assert_eq!(processes(folder.path()), process, "its process goes on");
    let server = served.gateway.servers().get("kg").unwrap();
    let writes = server
        .tools()
        .iter()
        .any(|tool| tool.name == "write" && tool.idempotent);
    assert!(writes, "its tools are read anew");
    served.gateway.shutdown().await;
    served.runtime.shutdown().await;
    gone(&processes(folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_6_e4b_another_kind_goes_on_with_state_counters_and_an_operators_word() {
    let folder = folder();
    let Some(server) = table(folder.path(), "", "") else {
        return;
    };
    let plain = "[dependencies.kg]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n";
    let served = Served::start(plain).await;
    let url = format!("http://{}/kg/x", served.gateway.address());
    for _ in 0..2 {
        assert_eq!(http().get(&url).send().await.unwrap().status(), 502);
    }
    let reason = "its database is being restored".to_owned();
    let open = BreakerCommand::Open {
        reason,
        until: None,
    };
    served.runtime.operate("kg", open).await.unwrap().unwrap();
    let before = served.runtime.status("kg").unwrap();
    for text in [&server, plain, &server] {
        assert_eq!(served.put(text).await, AddOutcome::Restarted);
        let after = served.runtime.status("kg").unwrap();
        assert_eq!(after.overridden, before.overridden);
        assert_eq!(after.totals.submitted, before.totals.submitted);
        assert_eq!(after.tally, before.tally);
        assert_eq!(after.window, before.window);
        assert!(after.workers.iter().all(|worker| worker.running));
    }
    let refused = served.ask("echo", json!({})).await;
    assert_eq!(
        refused["error"]["data"]["type"],
        "urn:breakerbox:breaker-open"
    );
    let clear = served.runtime.operate("kg", BreakerCommand::Clear).await;
    clear.unwrap().unwrap();
    let answered = served.ask("echo", json!({ "text": "well" })).await;
    assert_eq!(
        answered["result"]["content"][0]["text"], "well",
        "{answered}"
    );
    // What has left leaves nothing in the tree.
    let only = async {
        while served.runtime.children().await.len() > 1 {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, only).await.unwrap();
    assert!(served.gateway.remove("kg", "test").await);
    served.gateway.shutdown().await;
    served.runtime.shutdown().await;
    gone(&processes(folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_6_a18_callers_keep_their_sessions_when_a_shared_server_is_started_anew() {
    let folder = folder();
    let Some(first) = table(folder.path(), "", "") else {
        return;
    };
    let served = Served::start(&first).await;
    let url = format!("http://{}/kg/mcp", served.gateway.address());
    let post = |method: &str, params: Value| {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let asked = http().post(&url).json(&message);
        asked.header("accept", "application/json, text/event-stream")
    };
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" } });
    let begun = post("initialize", params).send().await.unwrap();
    let session = begun.headers()["mcp-session-id"].clone();
    let second = table(folder.path(), ", \"again\"", "").unwrap();
    assert_eq!(served.put(&second).await, AddOutcome::Restarted);
    let listed = post("tools/list", json!({})).header("mcp-session-id", session);
    assert_eq!(listed.send().await.unwrap().status(), 200);
    served.gateway.shutdown().await;
    served.runtime.shutdown().await;
}
