//! What passes between a caller and a server beside calls and answers.

use super::front_bed::{Front, messages, next_event, said};
use super::*;

fn methods(messages: &[Value]) -> Vec<&str> {
    let methods = messages.iter().filter_map(|one| one["method"].as_str());
    methods.collect()
}

#[tokio::test]
async fn mcp_5_m10_metadata_of_a_caller_reaches_the_server() {
    for dialect in ["older", "newer"] {
        let Some(front) = Front::open(dialect, "").await else {
            return;
        };
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let meta = json!({ "own/key": "k", "traceparent": trace });
        let params = json!({ "name": "meta", "_meta": meta, "arguments": {} });
        for newer in [false, true] {
            let caller = if newer {
                front.newer(json!({ "roots": {} }))
            } else {
                front.caller()
            };
            let answer = caller.ask("tools/call", params.clone()).await;
            let seen: Value = serde_json::from_str(said(&answer)).unwrap();
            assert_eq!(
                (&seen["own/key"], &seen["traceparent"]),
                (&json!("k"), &json!(trace))
            );
            assert_eq!(seen["progressToken"], Value::Null, "{seen}");
            let capabilities = &seen["io.modelcontextprotocol/clientCapabilities"];
            let expected = match (dialect, newer) {
                ("older", _) => Value::Null,
                (_, true) => json!({ "roots": {} }),
                _ => json!({}),
            };
            assert_eq!(*capabilities, expected, "{seen}");
        }
        front.end().await;
    }
}

#[tokio::test]
async fn mcp_5_m10_a_method_that_is_not_known_here_passes_with_its_parameters() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let params = json!({ "a": [1, { "b": null }] });
    let answer = front
        .caller()
        .ask("extension/unheard", params.clone())
        .await;
    assert_eq!(answer["result"], json!({ "of": params }));
    let completed = front.caller().ask("completion/complete", json!({})).await;
    assert_eq!(completed["result"]["completion"]["values"][0], "one");
    let unknown = front
        .newer(json!({}))
        .send("extension/other", json!({}))
        .await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(messages(unknown).await[0]["error"]["code"], -32601);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m12_progress_and_log_messages_reach_their_caller_and_no_other() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let call = |token: &str| {
        json!({ "name": "slow", "arguments": { "seconds": 0.3, "progress": true },
            "_meta": { "progressToken": token } })
    };
    let (one, other) = (front.caller(), front.newer(json!({})));
    let quiet = json!({ "name": "slow", "arguments": { "seconds": 0.3, "progress": true } });
    let third = front.caller();
    let (one, other, quiet) = tokio::join!(
        one.all("tools/call", call("a")),
        other.all("tools/call", call("b")),
        third.all("tools/call", quiet)
    );
    for (messages, token) in [(one, "a"), (other, "b")] {
        let (answer, before) = messages.split_last().unwrap();
        assert!(before.len() >= 2, "{messages:?}");
        assert!(
            before
                .iter()
                .all(|one| one["params"]["progressToken"] == token),
            "{messages:?}"
        );
        assert_eq!((said(answer), &answer["id"]), ("done", &json!("own")));
    }
    assert_eq!(methods(&quiet), <[&str; 0]>::default(), "{quiet:?}");
    let log = json!({ "name": "log", "arguments": {} });
    let logged = front.caller().all("tools/call", log.clone()).await;
    assert_eq!(methods(&logged), ["notifications/message"; 2]);
    let unasked = front.newer(json!({})).all("tools/call", log.clone()).await;
    assert_eq!(methods(&unasked), <[&str; 0]>::default());
    let level = json!({ "io.modelcontextprotocol/logLevel": "info" });
    let asked = json!({ "name": "log", "arguments": {}, "_meta": level });
    let asked = front.newer(json!({})).all("tools/call", asked).await;
    assert_eq!(methods(&asked), ["notifications/message"]);
    assert_eq!(asked[0]["params"]["level"], "warning");
    let session = front.session(json!({})).await;
    let set = session
        .ask("logging/setLevel", json!({ "level": "error" }))
        .await;
    assert_eq!(set["result"], json!({}), "{set}");
    assert_eq!(
        methods(&session.all("tools/call", log).await),
        <[&str; 0]>::default()
    );
    let wrong = session
        .ask("logging/setLevel", json!({ "level": "loud" }))
        .await;
    assert_eq!(wrong["error"]["code"], -32602);
    front.end().await;
}

#[tokio::test]
async fn mcp_4_m3_progress_prolongs_the_attempt_up_to_the_total() {
    let limits = "timeout = { attempt = \"400ms\", total = \"3s\" }\n";
    let Some(front) = Front::open("older", limits).await else {
        return;
    };
    let call = |progress: bool| {
        json!({ "name": "slow", "arguments": { "seconds": 1.2, "progress": progress },
            "_meta": { "progressToken": 1 } })
    };
    let caller = front.caller();
    assert_eq!(said(&caller.ask("tools/call", call(true)).await), "done");
    let silent = caller.ask("tools/call", call(false)).await;
    assert_eq!(
        silent["error"]["data"]["type"], "urn:breakerbox:timed-out",
        "{silent}"
    );
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m11_a_server_asks_the_user_of_the_session_that_calls() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    for (method, capability) in [
        ("elicitation/create", "elicitation"),
        ("sampling/createMessage", "sampling"),
        ("roots/list", "roots"),
    ] {
        let params = json!({ "name": "question",
            "arguments": { "method": method, "params": { "own": 1 } } });
        // No answer is given in the name of a user who was not asked.
        for caller in [front.caller(), front.session(json!({})).await] {
            let refused = caller.ask("tools/call", params.clone()).await;
            assert!(said(&refused).contains("-32601"), "{refused}");
        }
        let session = front.session(json!({ capability: {} })).await;
        let mut response = session.send("tools/call", params).await;
        let mut read = String::new();
        let asked = next_event(&mut response, &mut read).await;
        assert_eq!(
            (&asked["method"], &asked["params"]["own"]),
            (&json!(method), &json!(1))
        );
        let id = asked["id"].clone();
        let told = json!({ "jsonrpc": "2.0", "id": id, "result": { "told": [capability] } });
        // Another caller's answer is none.
        assert_eq!(front.session(json!({})).await.tell(told.clone()).await, 202);
        assert_eq!(session.tell(told).await, 202);
        let answer = next_event(&mut response, &mut read).await;
        let told: Value = serde_json::from_str(said(&answer)).unwrap();
        assert_eq!(told, json!({ "told": [capability] }), "{answer}");
    }
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m7_an_older_caller_is_asked_what_a_newer_server_wants_to_know() {
    let Some(front) = Front::open("newer", "").await else {
        return;
    };
    let session = front.session(json!({ "elicitation": {} })).await;
    let params = json!({ "name": "question", "arguments": { "method": "elicitation/create" } });
    let mut response = session.send("tools/call", params.clone()).await;
    let mut read = String::new();
    let asked = next_event(&mut response, &mut read).await;
    assert_eq!(asked["params"]["message"], "name?", "{asked}");
    let told = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "action": "decline" } });
    session.tell(told).await;
    let answer = next_event(&mut response, &mut read).await;
    let told: Value = serde_json::from_str(said(&answer)).unwrap();
    assert_eq!(
        told,
        json!([{ "who": { "action": "decline" } }, "opaque"]),
        "{answer}"
    );
    let refused = front.caller().ask("tools/call", params).await;
    assert_eq!(refused["error"]["code"], -31050, "{refused}");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m12_changes_reach_those_that_want_to_hear_of_them() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let (one, other) = (json!({ "uri": "x://1" }), json!({ "uri": "x://2" }));
    assert_eq!(
        session.ask("resources/subscribe", one.clone()).await["result"],
        json!({})
    );
    front.until_noted("resources/subscribe x://1").await;
    let stream = crate::gateway::serve::http().get(front.url());
    let stream = stream
        .headers(session.headers.clone())
        .header("accept", "text/event-stream");
    let mut stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let newer = front.newer(json!({}));
    let wanted = json!({ "notifications": { "resourceSubscriptions": ["x://2"],
        "promptsListChanged": true } });
    let mut listening = newer.send("subscriptions/listen", wanted).await;
    let mut heard = String::new();
    let first = next_event(&mut listening, &mut heard).await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    // The server tells of no changes of its prompts.
    let accepted = json!({ "resourceSubscriptions": ["x://2"] });
    assert_eq!(first["params"]["notifications"], accepted, "{first}");
    for uri in [&one, &other] {
        front.caller().call("touch", uri.clone()).await;
    }
    let mut read = String::new();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(next_event(&mut stream, &mut read).await);
    }
    let updated: Vec<_> = seen
        .iter()
        .filter_map(|one| one["params"]["uri"].as_str())
        .collect();
    assert_eq!(updated, ["x://1"], "{seen:?}");
    let update = next_event(&mut listening, &mut heard).await;
    assert_eq!(update["params"]["uri"], "x://2", "{update}");
    let id = &update["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
    assert_eq!(id, "own", "{update}");
    assert_eq!(
        session.ask("resources/unsubscribe", one).await["result"],
        json!({})
    );
    front.until_noted("resources/unsubscribe x://1").await;
    drop((stream, listening));
    front.end().await;
}

#[tokio::test]
async fn edge_6_a_subscription_ends_with_its_server() {
    let Some(front) = Front::open("newer", "").await else {
        return;
    };
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let mut listening = front
        .newer(json!({}))
        .send("subscriptions/listen", wanted)
        .await;
    let first = next_event(&mut listening, &mut String::new()).await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    front.gateway.remove("s", "test").await;
    let ended = async { while let Ok(Some(_)) = listening.chunk().await {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m12_one_subscription_at_the_server_serves_all_callers() {
    let Some(front) = Front::open("newer", "").await else {
        return;
    };
    let mut streams = Vec::new();
    for uri in ["x://1", "x://2"] {
        let wanted = json!({ "notifications": { "resourceSubscriptions": [uri] } });
        streams.push(
            front
                .newer(json!({}))
                .send("subscriptions/listen", wanted)
                .await,
        );
    }
    let all = "listen {\"resourceSubscriptions\": [\"x://1\", \"x://2\"], \
               \"resourcesListChanged\": true, \"toolsListChanged\": true}";
    front.until_noted(all).await;
    // The former subscription is cancelled for each new one.
    front.until_noted("cancelled").await;
    drop(streams);
    front.end().await;
}
