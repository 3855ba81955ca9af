//! Several servers behind one endpoint.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fake_server::{FakeServer, FrontBed};
use super::{MOMENT, PATIENCE};

const ALL: &str = "/all/mcp";
const GROUP: &str =
    "[dependencies.all]\nkind = \"mcp_group\"\nmembers = { a = \"one\", b = \"two\" }\n";

struct Pair {
    one: FakeServer,
    two: FakeServer,
    bed: FrontBed,
}

async fn pair(more: &str) -> Pair {
    let one = FakeServer::start("first", &["read", "drop"]).await;
    let two = FakeServer::start("second", &["read", "wrong"]).await;
    let text = format!(
        "{}{}{GROUP}{more}",
        one.table("one", ""),
        two.table("two", "")
    );
    let bed = FrontBed::of(&text).await;
    Pair { one, two, bed }
}

#[tokio::test]
async fn mcp_6_m12_tools_of_all_members_stand_under_their_prefixes() {
    let Pair { one, two, bed } = pair("").await;
    let listed = bed.list(ALL, "tools/list").await;
    assert_eq!(listed, ["a_read", "a_drop", "b_read", "b_wrong"]);
    assert_eq!(
        bed.call(ALL, "a_read").await.unwrap(),
        "first read {\"a\":1}"
    );
    assert_eq!(
        bed.call(ALL, "b_read").await.unwrap(),
        "second read {\"a\":1}"
    );
    assert_eq!(
        (one.called(), two.called()),
        (vec!["read".to_owned()], vec!["read".to_owned()])
    );
    for name in ["read", "c_read", "a"] {
        assert_eq!(bed.call(ALL, name).await, Err(-32602), "{name}");
    }
    assert_eq!(
        bed.status("one").totals.submitted,
        1,
        "it is the member's own call"
    );
    let servers = bed.gateway.servers();
    let tools = servers.tools("two").unwrap();
    assert!(
        tools
            .iter()
            .any(|tool| tool.name == "read" && tool.calls == 1)
    );
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_prompts_resources_and_completions_reach_their_member() {
    let Pair { bed, .. } = pair("").await;
    assert_eq!(bed.list(ALL, "prompts/list").await, ["a_greet", "b_greet"]);
    let got = bed
        .ask(ALL, "prompts/get", json!({ "name": "b_greet" }))
        .await;
    assert_eq!(
        got["result"]["messages"][0]["content"]["text"],
        "second greet"
    );
    // Nothing was listed so far.
    let read = async |uri: &str| bed.ask(ALL, "resources/read", json!({ "uri": uri })).await;
    let got = read("second://one").await;
    assert_eq!(got["result"]["contents"][0]["text"], "second", "{got}");
    let got = read("first://item/7").await;
    assert_eq!(got["result"]["contents"][0]["text"], "first", "{got}");
    let got = read("shared://x").await;
    assert_eq!(
        got["result"]["contents"][0]["text"], "first",
        "the first member has it"
    );
    assert_eq!(read("third://one").await["error"]["code"], -32002);
    let listed = bed.list(ALL, "resources/list").await;
    assert_eq!(listed, ["first://one", "shared://x", "second://one"]);
    let listed = bed.list(ALL, "resources/templates/list").await;
    assert_eq!(listed, ["first://item/{id}", "second://item/{id}"]);
    let complete = async |reference: Value| {
        let argument = json!({ "name": "x", "value": "y" });
        let params = json!({ "ref": reference, "argument": argument });
        let got = bed.ask(ALL, "completion/complete", params).await;
        got["result"]["completion"]["values"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let prompt = json!({ "type": "ref/prompt", "name": "b_greet" });
    assert_eq!(complete(prompt).await, "second greet");
    let resource = json!({ "type": "ref/resource", "uri": "second://item/{id}" });
    assert!(complete(resource).await.starts_with("second"));
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_a_group_describes_itself_in_both_dialects() {
    let Pair { bed, .. } = pair("").await;
    let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" } });
    let told = bed.ask(ALL, "initialize", hello).await;
    let result = &told["result"];
    assert_eq!(result["protocolVersion"], "2025-06-18", "{told}");
    assert_eq!(result["serverInfo"]["name"], "all");
    for capability in ["tools", "prompts", "resources", "completions"] {
        assert!(result["capabilities"][capability].is_object(), "{told}");
    }
    let newer = async |method: &str, name: Option<&str>, mut params: Value| {
        params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {} });
        let mut sent = vec![
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
        ];
        sent.extend(name.map(|name| ("mcp-name", name)));
        let (_, _, text) = bed.send(ALL, method, params, &sent).await;
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let told = newer("server/discover", None, json!({})).await;
    let result = &told["result"];
    assert_eq!(result["supportedVersions"], json!(["2026-07-28"]), "{told}");
    assert_eq!(result["resultType"], "complete");
    let listed = newer("tools/list", None, json!({})).await;
    assert_eq!(listed["result"]["tools"][0]["name"], "a_read", "{listed}");
    assert!(listed["result"]["ttlMs"].is_u64(), "{listed}");
    let read = json!({ "name": "b_read", "arguments": {} });
    let got = newer("tools/call", Some("b_read"), read).await;
    assert_eq!(
        got["result"]["content"][0]["text"], "second read {}",
        "{got}"
    );
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_a_sick_member_is_missing_and_the_others_answer() {
    let Pair { two, bed, .. } = pair("").await;
    let open = breakerbox::policy::BreakerCommand::Open {
        reason: "a drill".to_owned(),
        until: None,
    };
    let sick = bed.gateway.servers().get("one").unwrap();
    sick.client().operate(open).await.unwrap();
    assert_eq!(bed.list(ALL, "tools/list").await, ["b_read", "b_wrong"]);
    assert_eq!(bed.list(ALL, "prompts/list").await, ["b_greet"]);
    assert!(bed.call(ALL, "a_read").await.is_err());
    bed.call(ALL, "b_read").await.unwrap();
    let close = breakerbox::policy::BreakerCommand::Close {
        reason: "the drill is over".to_owned(),
    };
    sick.client().operate(close).await.unwrap();
    let back = async {
        while bed.list(ALL, "tools/list").await.len() < 4 {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
    // A slow one delays nobody for long.
    two.list_delay.store(5_000, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(bed.list(ALL, "prompts/list").await, ["a_greet"]);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_a_group_follows_a_reload() {
    let Pair { one, two, bed } = pair("").await;
    let fewer = GROUP.replace("a = \"one\", ", "");
    let hidden = "tools = { read = { rename = \"find\" } }";
    bed.reload(&format!(
        "{}{}{fewer}",
        one.table("one", ""),
        two.table("two", hidden)
    ))
    .await;
    assert_eq!(bed.list(ALL, "tools/list").await, ["b_find", "b_wrong"]);
    assert_eq!(
        bed.call(ALL, "b_find").await.unwrap(),
        "second read {\"a\":1}"
    );
    assert_eq!(bed.call(ALL, "a_read").await, Err(-32602));
    // A group becomes a server, and the other way round.
    bed.reload(&format!("{}{}", one.table("one", ""), two.table("all", "")))
        .await;
    assert_eq!(bed.list(ALL, "tools/list").await, ["read", "wrong"]);
    assert!(bed.runtime.status("all").is_some());
    bed.reload(&format!(
        "{}{}{GROUP}",
        one.table("one", ""),
        two.table("two", "")
    ))
    .await;
    let listed = bed.list(ALL, "tools/list").await;
    assert_eq!(listed, ["a_read", "a_drop", "b_read", "b_wrong"]);
    bed.gateway.remove("one", "test").await;
    assert_eq!(bed.list(ALL, "tools/list").await, ["b_read", "b_wrong"]);
    assert!(bed.gateway.remove("all", "test").await);
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_a_group_asks_for_its_own_credentials() {
    let token = "a-token-of-the-group";
    let group_auth =
        format!("auth = {{ tokens = [\"{token}\"] }}\nforward_headers = [\"authorization\"]\n");
    let one = FakeServer::start("first", &["read"]).await;
    let passes = "forward_headers = [\"authorization\", \"x-tenant\"]";
    let text = format!(
        "{}{}{GROUP}{group_auth}",
        one.table("one", passes),
        one.table("two", "")
    );
    let bed = FrontBed::of(&text).await;
    let read = |name: &str| json!({ "name": name, "arguments": {} });
    let (status, ..) = bed.send(ALL, "tools/call", read("a_read"), &[]).await;
    assert_eq!(status, 401);
    let bearer = format!("Bearer {token}");
    let sent = [("authorization", bearer.as_str()), ("x-tenant", "t")];
    for (name, is_passed) in [("a_read", true), ("b_read", false)] {
        let (status, _, text) = bed.send(ALL, "tools/call", read(name), &sent).await;
        assert_eq!(status, 200, "{text}");
        let (headers, _) = one.seen("tools/call").pop().unwrap();
        assert_eq!(headers.contains_key("authorization"), is_passed, "{name}");
        assert_eq!(headers.contains_key("x-tenant"), is_passed, "{name}");
    }
    bed.end().await;
}
