//! The table of tools: what callers see and reach, and what is known of each tool.

use serde_json::{Value, json};

use super::fake_server::{FakeServer, FrontBed};
use super::{MOMENT, PATIENCE};
use crate::gateway::serve::{Sidecar, command, http};

const KG: &str = "/kg/mcp";
const ALL: [&str; 5] = ["read", "write", "drop", "slow", "wrong"];

#[tokio::test]
async fn mcp_6_m12_a_tool_that_is_not_allowed_is_unknown() {
    let fake = FakeServer::start("fake", &ALL).await;
    let table = "tools = { drop = { allow = false }, write = { rename = \"put\" } }";
    let bed = FrontBed::of(&fake.table("kg", table)).await;
    let listed = bed.list(KG, "tools/list").await;
    assert_eq!(listed, ["read", "put", "slow", "wrong"]);
    assert_eq!(bed.call(KG, "read").await.unwrap(), "fake read {\"a\":1}");
    assert_eq!(bed.call(KG, "put").await.unwrap(), "fake write {\"a\":1}");
    for hidden in ["drop", "write"] {
        assert_eq!(bed.call(KG, hidden).await, Err(-32602), "{hidden}");
    }
    assert_eq!(fake.called(), ["read", "write"], "no other call reached it");
    let status = bed.status("kg");
    assert_eq!(status.totals.submitted, 2, "a refusal is no call");
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_a_list_of_allowed_tools_hides_all_others() {
    let fake = FakeServer::start("fake", &ALL).await;
    let table = "tools = { \"*\" = { allow = false }, read = { allow = true } }";
    let bed = FrontBed::of(&fake.table("kg", table)).await;
    assert_eq!(bed.list(KG, "tools/list").await, ["read"]);
    assert_eq!(bed.call(KG, "made_up").await, Err(-32602));
    assert_eq!(bed.call(KG, "write").await, Err(-32602));
    assert!(fake.called().is_empty());
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_the_table_follows_a_reload_without_a_new_server() {
    let fake = FakeServer::start("fake", &ALL).await;
    let bed = FrontBed::of(&fake.table("kg", "")).await;
    assert_eq!(bed.list(KG, "tools/list").await, ALL);
    let sessions = fake.sessions.load(std::sync::atomic::Ordering::SeqCst);
    bed.reload(&fake.table("kg", "tools = { drop = { allow = false } }"))
        .await;
    let listed = bed.list(KG, "tools/list").await;
    assert_eq!(listed, ["read", "write", "slow", "wrong"]);
    assert_eq!(bed.call(KG, "drop").await, Err(-32602));
    bed.reload(&fake.table("kg", "")).await;
    bed.call(KG, "drop").await.unwrap();
    let now = fake.sessions.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(now, sessions, "it was not connected anew");
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_a_tool_may_take_its_own_time() {
    let fake = FakeServer::start("fake", &ALL).await;
    let short = "timeout = { attempt = \"200ms\", total = \"10s\" }";
    let bed = FrontBed::of(&fake.table("kg", short)).await;
    bed.call(KG, "slow").await.unwrap_err();
    let failed = bed.status("kg").totals.failed;
    assert_eq!(failed, 1);
    let long = format!("{short}\ntools = {{ slow = {{ timeout = \"5s\" }} }}");
    bed.reload(&fake.table("kg", &long)).await;
    bed.call(KG, "slow").await.unwrap();
    bed.end().await;
    // A limit of the table that is over counts against the server, as every limit of the policy.
    let fake = FakeServer::start("fake", &ALL).await;
    let tight = "timeout = { attempt = \"5s\", total = \"10s\" }\n\
                 tools = { slow = { timeout = \"100ms\" } }";
    let bed = FrontBed::of(&fake.table("kg", tight)).await;
    let params = json!({ "name": "slow", "arguments": { "a": 1 } });
    let late = bed.ask(KG, "tools/call", params).await["error"].clone();
    // EDGE-8: the limit that cut is that of the tool.
    let text = late["message"].as_str().unwrap();
    assert!(text.contains("(tools.slow.timeout; "), "{late}");
    assert_eq!(late["data"]["cause"], "tools.slow.timeout");
    assert_eq!(bed.status("kg").tally.failures, 1);
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_the_table_says_what_may_be_repeated() {
    let fake = FakeServer::start("fake", &["broken"]).await;
    let twice = "retry = { max_attempts = 2, backoff = { base = \"1ms\" } }";
    let bed = FrontBed::of(&fake.table("kg", twice)).await;
    bed.call(KG, "broken").await.unwrap_err();
    assert_eq!(fake.called().len(), 1, "it may be a write");
    let table = format!("{twice}\ntools = {{ \"*\" = {{ idempotent = true, write = false }} }}");
    bed.reload(&fake.table("kg", &table)).await;
    bed.call(KG, "broken").await.unwrap_err();
    assert_eq!(fake.called().len(), 3, "it was repeated once");
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_figures_are_kept_by_tool_and_outlive_a_restart() {
    let fake = FakeServer::start("fake", &ALL).await;
    let table = "tools = { write = { rename = \"put\" } }";
    let bed = FrontBed::of(&fake.table("kg", table)).await;
    for tool in ["read", "read", "put", "wrong"] {
        bed.call(KG, tool).await.unwrap();
    }
    for tool in ["made", "up"] {
        let _ = bed.call(KG, tool).await;
    }
    let servers = bed.gateway.servers();
    let of = |name: &str| {
        let tools = servers.tools("kg").unwrap();
        let tool = tools.into_iter().find(|tool| tool.name == name);
        tool.map(|tool| (tool.calls, tool.failed, tool.tool_errors))
    };
    assert_eq!(of("read"), Some((2, 0, 0)));
    assert_eq!(of("put"), Some((1, 0, 0)));
    assert_eq!(of("wrong"), Some((1, 0, 1)));
    assert_eq!(of("drop"), Some((0, 0, 0)), "it is listed");
    assert_eq!(of("made"), None, "callers make up no names");
    assert_eq!(of("other").map(|(calls, ..)| calls), Some(2));
    // Another address needs a new start.
    let other = FakeServer::start("other", &ALL).await;
    bed.reload(&other.table("kg", table)).await;
    let moved = async {
        while !bed
            .call(KG, "read")
            .await
            .is_ok_and(|text| text.starts_with("other"))
        {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.unwrap();
    assert!(of("read").unwrap().0 >= 3, "the counts went on");
    assert!(servers.tools("none").is_none());
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_named_headers_pass_and_no_others() {
    let fake = FakeServer::start("fake", &ALL).await;
    let more = "forward_headers = [\"Authorization\", \"x-tenant\", \"x-own\"]\n\
                headers = { x-own = \"ours\" }";
    let bed = FrontBed::of(&fake.table("kg", more)).await;
    let read = json!({ "name": "read", "arguments": {} });
    let sent = [
        ("authorization", "Bearer of-the-caller"),
        ("x-tenant", "a"),
        ("x-own", "theirs"),
        ("x-other", "secret"),
        ("cookie", "c=1"),
    ];
    let (status, _, text) = bed.send(KG, "tools/call", read.clone(), &sent).await;
    assert_eq!(status, 200, "{text}");
    let (headers, _) = fake.seen("tools/call").pop().unwrap();
    assert_eq!(headers["authorization"], "Bearer of-the-caller");
    assert_eq!(headers["x-tenant"], "a");
    assert_eq!(headers["x-own"], "ours");
    for name in ["x-other", "cookie"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    bed.reload(&fake.table("kg", "")).await;
    bed.send(KG, "tools/call", read, &sent).await;
    let (headers, _) = fake.seen("tools/call").pop().unwrap();
    assert!(!headers.contains_key("authorization"), "never by default");
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_stale_answers_are_of_the_same_credentials() {
    let fake = FakeServer::start("fake", &ALL).await;
    let more = "forward_headers = [\"authorization\"]\ntools = { read = { write = false } }\n\
                [[dependencies.kg.fallback]]\nkind = \"stale_cache\"";
    let bed = FrontBed::of(&fake.table("kg", more)).await;
    let table = bed.gateway.servers().get("kg").unwrap();
    let read = json!({ "name": "read", "arguments": { "a": 1 } });
    let as_caller = async |name: &str| {
        let token = format!("Bearer {name}");
        let sent = [("authorization", token.as_str())];
        let (_, _, text) = bed.send(KG, "tools/call", read.clone(), &sent).await;
        text.contains("fake read")
    };
    assert!(as_caller("one").await);
    let open = breakerbox::policy::BreakerCommand::Open {
        reason: "a drill".to_owned(),
        until: None,
    };
    table.client().operate(open).await.unwrap();
    assert!(as_caller("one").await, "its own answer was kept");
    assert!(!as_caller("two").await, "it is another caller");
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_the_admin_side_tells_the_figures_of_each_tool() {
    let fake = FakeServer::start("fake", &ALL).await;
    let folder = super::folder();
    let table = fake.table("kg", "tools = { write = { rename = \"put\" } }");
    crate::gateway::serve::configured(folder.path(), &table);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    for tool in ["read", "read", "wrong", "made_up"] {
        let call = json!({ "name": tool, "arguments": {} });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call });
        let asked = http().post(sidecar.url("/kg/mcp")).json(&message);
        let accept = "application/json, text/event-stream";
        let answered = asked.header("accept", accept).send().await.unwrap();
        assert_eq!(answered.status(), 200, "{tool}");
    }
    let get = async |path: &str| {
        let got = http().get(sidecar.admin(path)).send().await.unwrap();
        got.text().await.unwrap()
    };
    let one: Value = serde_json::from_str(&get("/api/dependencies/kg").await).unwrap();
    let tools = one["tools"].as_array().unwrap_or_else(|| panic!("{one}"));
    let of = |name: &str| tools.iter().find(|tool| tool["name"] == name).unwrap();
    assert_eq!(
        (&of("read")["calls"], &of("read")["failed"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(of("wrong")["tool_errors"], 1);
    assert_eq!(
        of("put")["calls"],
        0,
        "it is listed by the name that callers see"
    );
    assert!(of("read")["latency_ms"]["p99"].is_u64(), "{one}");
    let all: Value = serde_json::from_str(&get("/api/dependencies").await).unwrap();
    let most: Vec<&str> = all[0]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(most[0], "read", "the one that is called most");
    assert!(!most.contains(&"put"), "it was never called");
    let metrics = get("/metrics").await;
    for line in [
        "breakerbox_tool_calls_total{dependency=\"kg\",tool=\"read\",result=\"answered\"} 2",
        "breakerbox_tool_calls_total{dependency=\"kg\",tool=\"wrong\",result=\"tool_error\"} 1",
        "breakerbox_tool_duration_seconds_count{dependency=\"kg\",tool=\"read\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("made_up"), "callers make up no series");
}

#[tokio::test]
async fn ops_1_calls_of_tools_have_source_and_attempts_in_the_access_log() {
    let fake = FakeServer::start("fake", &ALL).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let text = format!("[gateway]\naccess_log = {:?}\n", path.to_str().unwrap());
    let bed = FrontBed::of(&format!("{text}{}", fake.table("kg", ""))).await;
    let line = async |number: usize| {
        let reading = async {
            loop {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                // The last one may be written in part.
                let mut whole = text.split_inclusive('\n').filter(|one| one.ends_with('\n'));
                if let Some(line) = whole.nth(number) {
                    return serde_json::from_str::<Value>(line).unwrap();
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap()
    };
    bed.call(KG, "read").await.unwrap();
    let answered = line(0).await;
    assert_eq!(
        (&answered["source"], &answered["attempts"]),
        (&json!("primary"), &json!(1)),
        "{answered}"
    );
    let open = breakerbox_policy::BreakerCommand::Open {
        reason: "release".into(),
        until: None,
    };
    let server = bed.gateway.servers().get("kg").unwrap();
    server.client().operate(open).await.unwrap();
    bed.call(KG, "read").await.unwrap_err();
    let refused = line(1).await;
    assert_eq!(
        (&refused["source"], &refused["attempts"]),
        (&json!("gateway"), &json!(0)),
        "{refused}"
    );
    bed.end().await;
}
