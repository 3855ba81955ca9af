//! Every answer is an answer: what a server says costs no call but its own.

use breakerbox::policy::State as Breaker;

use super::front_bed::{Front, said};
use super::*;

async fn line(front: &Front, line: &str) -> Value {
    front.caller().call("lines", json!({ "line": line })).await
}

#[tokio::test]
async fn mcp_3_m6_an_answer_that_cannot_be_used_fails_its_own_call_at_once() {
    let timeout = "timeout = { attempt = \"60s\", total = \"60s\" }\nmax_line = \"100KB\"\n";
    let Some(front) = Front::open("older", timeout).await else {
        return;
    };
    let long = format!(
        r#"{{"jsonrpc":"2.0","result":{{"x":"{}"}},"id":ID}}"#,
        "x".repeat(90_000)
    );
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":ID,"result":{{"content":[{}{}]}}}}"#,
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    let lives = front.server().client().status().workers[0].incarnation;
    for (given, what) in [
        (
            r#"{"jsonrpc":"2.0","id":ID,"result":{"content":"no list"}}"#,
            "no list",
        ),
        (
            r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[}"#,
            "no message",
        ),
        (r#"{"jsonrpc":"2.0","id":ID,"error":"text"}"#, "no message"),
        (r#"{"jsonrpc":"2.0","id":ID}"#, "no message"),
    ] {
        let answer = line(&front, given).await;
        let error = &answer["error"];
        assert_eq!(error["code"], -31050, "{answer}");
        assert_eq!(error["data"]["executed"], "maybe", "{answer}");
        assert!(
            error["message"].as_str().unwrap().contains(what),
            "{answer}"
        );
    }
    let answer = front
        .caller()
        .call("objects", json!({ "count": 20_000 }))
        .await;
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(text.contains("max_line = 100000 bytes"), "{answer}");
    // What is long but not too long, and what is deep, passes.
    assert_eq!(
        line(&front, &long).await["result"]["x"]
            .as_str()
            .unwrap()
            .len(),
        90_000
    );
    let url = front.url();
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "lines", "arguments": { "line": deep } } });
    let response = front.post(message.to_string()).send().await.unwrap();
    let text = response.text().await.unwrap();
    assert!(
        text.ends_with("]}}") && text.len() > 40_000,
        "{url}: {} bytes",
        text.len()
    );
    assert_eq!(
        said(&front.caller().call("echo", json!({ "text": "on" })).await),
        "on"
    );
    let status = front.server().client().status();
    assert_eq!(
        (status.workers[0].incarnation, status.state),
        (lives, Breaker::Closed)
    );
    front.end().await;
}

#[tokio::test]
async fn mcp_3_m7_the_protocols_own_course_leaves_the_breaker_closed() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let caller = front.caller();
    for code in [-32042, -32021, -32000, -32601, 7, -32002] {
        for _ in 0..2 {
            let data = json!({ "own": [code] });
            let answer = caller
                .call("fails", json!({ "code": code, "data": data }))
                .await;
            assert_eq!(answer["error"]["code"], code, "{answer}");
            // MCP-5: the server's data stays, ours is beside it.
            assert_eq!(answer["error"]["data"]["own"], json!([code]), "{answer}");
            assert!(
                answer["error"]["data"]["breakerbox"]["type"].is_string(),
                "{answer}"
            );
        }
    }
    let status = front.server().client().status();
    assert_eq!((status.state, status.tally.failures), (Breaker::Closed, 0));
    caller.call("fails", json!({ "code": -32603 })).await;
    assert_eq!(front.server().client().status().tally.failures, 1);
    let read = caller
        .ask("resources/read", json!({ "uri": "x://1" }))
        .await;
    assert_eq!(read["error"]["code"], -32002, "{read}");
    assert_eq!(read["error"]["data"]["uri"], "x://1", "{read}");
    let newer = front.newer(json!({}));
    let read = newer.ask("resources/read", json!({ "uri": "x://1" })).await;
    assert_eq!(
        read["error"]["code"], -32602,
        "the newer dialect has another code: {read}"
    );
    front.end().await;
}

#[tokio::test]
async fn mcp_3_m7_a_question_to_the_user_passes_and_its_answer_too() {
    let Some(front) = Front::open("newer", "").await else {
        return;
    };
    let newer = front.newer(json!({ "elicitation": {} }));
    let arguments = json!({ "method": "elicitation/create" });
    for _ in 0..6 {
        let asked = newer.call("question", arguments.clone()).await;
        let result = &asked["result"];
        assert_eq!(result["resultType"], "input_required", "{asked}");
        assert_eq!(result["requestState"], "opaque", "{asked}");
    }
    let again = json!({ "name": "question", "arguments": arguments, "requestState": "opaque",
        "inputResponses": { "who": { "action": "accept" } } });
    let answer = newer.ask("tools/call", again).await;
    let told: Value = serde_json::from_str(said(&answer)).unwrap();
    assert_eq!(told, json!([{ "who": { "action": "accept" } }, "opaque"]));
    let status = front.server().client().status();
    assert_eq!((status.state, status.tally.failures), (Breaker::Closed, 0));
    front.end().await;
}

#[tokio::test]
async fn mcp_3_m17_a_server_is_started_once_for_each_life_and_by_one_handshake() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    assert_eq!(
        front.server().protocol_version().as_deref(),
        Some("2025-11-25")
    );
    let asked = |method: &str| front.notes().iter().filter(|line| *line == method).count();
    assert_eq!((asked("server/discover"), asked("initialize")), (1, 1));
    let process = processes(&front.notes_file());
    signal(process[0], "KILL");
    gone(&process);
    let served = async {
        while front.caller().call("echo", json!({})).await["result"].is_null() {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    assert_eq!((asked("server/discover"), asked("initialize")), (1, 2));
    assert_eq!(front.server().client().status().workers[0].incarnation, 2);
    front.end().await;
}
