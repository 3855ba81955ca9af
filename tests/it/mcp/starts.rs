//! Servers that do not start, or start slowly: each is one sick dependency (rule MCP-1).

use super::beside::{Beside, guarded};
use super::front_bed::{NEWER, next_event};
use super::*;
use crate::gateway::serve::{configured, http};

/// Short waits, so that a server is soon tried again.
const SOON: &str = "[dependencies.sick.workers]\nbackoff = { base = \"20ms\", max = \"200ms\" }\n";

/// Checks what is told while the server does not start.
async fn is_told_as_sick(bed: &Beside, cause: &str) {
    let failed = bed.call("sick", "echo", json!({})).await;
    let message = failed["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the server did not start"), "{failed}");
    assert!(message.contains(cause), "{failed}");
    assert_eq!(failed["error"]["data"]["executed"], "no", "{failed}");
    let told = failed["error"]["data"]["cause"]
        .as_str()
        .unwrap_or_default();
    assert!(told.contains(cause), "{failed}");
    bed.until("sick", |one| one["health"] == "down").await;
    let ready = bed.admin("/readyz").await;
    assert_eq!(ready["status"], "degraded", "{ready}");
    bed.good_is_untouched().await;
}

#[tokio::test]
async fn mcp_1_m1_a_server_that_is_absent_or_misspelt_is_one_sick_dependency() {
    let sick = |folder: &Path| {
        let table = guarded(folder, "sick", "", SOON)?;
        let program = folder.join("server").display().to_string();
        Some(table.replace("command = \"sh\"", &format!("command = {program:?}")))
    };
    let Some(bed) = Beside::start(sick) else {
        return;
    };
    is_told_as_sick(&bed, "its program cannot be started").await;
    // EDGE-8: the program that is not there is named.
    is_told_as_sick(&bed, "; there is no file ").await;
    // It is installed now, and found without an order.
    std::os::unix::fs::symlink("/bin/sh", bed.folder.path().join("server")).unwrap();
    bed.until_well("sick").await;
    bed.until("sick", |one| {
        one["health"] == "ok" && one["override"].is_null()
    })
    .await;
    let ready = bed.admin("/readyz").await;
    assert_eq!(ready["status"], "ready", "{ready}");
    bed.good_is_untouched().await;
    bed.end().await;
}

#[tokio::test]
async fn mcp_1_m1_a_server_that_exits_at_once_is_told_with_its_status_and_last_words() {
    let sick = |folder: &Path| {
        let table = guarded(folder, "sick", "", SOON)?;
        std::fs::write(folder.join("sick/down"), "").unwrap();
        Some(table)
    };
    let Some(bed) = Beside::start(sick) else {
        return;
    };
    is_told_as_sick(&bed, "exit status: 7").await;
    is_told_as_sick(&bed, "no licence").await;
    let listed = bed.rpc("sick", "tools/list", json!({}), &[]).await;
    assert!(listed["error"].is_object(), "{listed}");
    bed.allow("sick", true);
    bed.until_well("sick").await;
    bed.good_is_untouched().await;
    bed.end().await;
}

#[tokio::test]
async fn mcp_1_m1_a_server_that_starts_slowly_is_waited_for() {
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "sleep 2;", "")) else {
        return;
    };
    let list = async |params| bed.rpc("sick", "tools/list", params, &[]).await;
    let (echo, listed, ()) =
        tokio::join!(bed.echo("sick"), list(json!({})), bed.good_is_untouched());
    assert_eq!(echo.as_deref(), Some("hi"));
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    assert_eq!(bed.dependency("sick").await["workers"][0]["restarts"], 0);
    bed.end().await;
}

#[tokio::test]
async fn call_5_a_call_waits_for_a_start_that_hangs_within_its_total_and_was_not_executed() {
    let limits = "[dependencies.sick.timeout]\nattempt = \"2s\"\ntotal = \"2s\"\n";
    let hangs = |folder: &Path| guarded(folder, "sick", "sleep 1000;", limits);
    let Some(bed) = Beside::start(hangs) else {
        return;
    };
    let params = json!({ "name": "echo", "uri": "x://1", "arguments": {} });
    let ask = async |method| {
        let began = tokio::time::Instant::now();
        let failed = bed.rpc("sick", method, params.clone(), &[]).await;
        // CALL-2: nothing was sent.
        assert_eq!(
            failed["error"]["data"]["executed"], "no",
            "{method} {failed}"
        );
        assert!(began.elapsed() < Duration::from_millis(3_500), "{method}");
    };
    tokio::join!(
        ask("tools/call"),
        ask("prompts/get"),
        ask("resources/read"),
        ask("extension/x")
    );
    bed.end().await;
}

#[tokio::test]
async fn mcp_1_m1_a_reload_adds_a_server_that_cannot_start_and_mends_one_that_could_not() {
    let Some(bed) = Beside::start(|_| Some(String::new())) else {
        return;
    };
    let folder = bed.folder.path();
    let good = guarded(folder, "good", "", "").unwrap();
    let sick = guarded(folder, "sick", "", SOON).unwrap();
    let misspelt = sick.replace("command = \"sh\"", "command = \"shh-no-such\"");
    configured(folder, &format!("{good}{misspelt}"));
    bed.sidecar.signal("HUP");
    let served = async {
        while bed.call("sick", "echo", json!({})).await["type"]
            == "urn:breakerbox:unknown-dependency"
        {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    is_told_as_sick(&bed, "its program cannot be started").await;
    configured(folder, &format!("{good}{sick}"));
    bed.sidecar.signal("HUP");
    bed.until_well("sick").await;
    bed.good_is_untouched().await;
    bed.end().await;
}

/// A caller of the newer dialect listens to the changes of a server; returns what is acknowledged.
async fn acknowledged(bed: &Beside, name: &str) -> Value {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": NEWER,
        "io.modelcontextprotocol/clientCapabilities": {} });
    let params = json!({ "notifications": { "toolsListChanged": true }, "_meta": meta });
    let message =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params });
    let asked = http()
        .post(bed.sidecar.url(&format!("/{name}/mcp")))
        .json(&message);
    let asked = asked
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", NEWER)
        .header("mcp-method", "subscriptions/listen");
    let mut stream = asked.send().await.unwrap();
    let first = next_event(&mut stream, &mut String::new()).await;
    first["params"]["notifications"].clone()
}

#[tokio::test]
async fn mcp_1_who_listens_while_a_server_starts_is_told_of_its_changes() {
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "sleep 2;", "")) else {
        return;
    };
    assert_eq!(
        acknowledged(&bed, "sick").await,
        json!({ "toolsListChanged": true })
    );
    bed.end().await;
}

#[tokio::test]
async fn mcp_1_what_a_server_that_is_not_known_yet_may_have_is_announced() {
    let slow = |folder: &Path| guarded(folder, "sick", "sleep 3;", "");
    let Some(bed) = Beside::start(slow) else {
        return;
    };
    let client = json!({ "name": "test", "version": "1" });
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    let hurried = [("breakerbox-deadline-ms", "100")];
    let told = bed.rpc("sick", "initialize", params, &hurried).await;
    let capabilities = told["result"]["capabilities"].as_object().unwrap();
    for name in ["tools", "prompts", "resources", "logging", "completions"] {
        assert!(capabilities.contains_key(name), "{told}");
    }
    bed.end().await;
}
